//! What a drive says about itself.
//!
//! Field offsets are those of the NVMe Base Specification 2.0, section 5.17.2, and of the NVM Command Set Specification
//! 1.0, section 4.1.5. A drive is a stranger: every value is checked before it is used.

/// A structure that Identify answers with.
pub(super) type Page = [u8; 4096];

/// Numbers of the structures (CNS).
pub(super) const NAMESPACE: u8 = 0x00;
pub(super) const CONTROLLER: u8 = 0x01;
pub(super) const DESCRIPTORS: u8 = 0x03;
/// What a command set adds to the first two.
pub(super) const SET_NAMESPACE: u8 = 0x05;
pub(super) const SET_CONTROLLER: u8 = 0x06;

/// Logical blocks are this small or large, as powers of two: 512 bytes to 64 KiB.
const LBA_SHIFTS: std::ops::RangeInclusive<u8> = 9..=16;

/// Bytes of protection information with the 16-bit guard.
const PROTECTION_BYTES: u16 = 8;

/// The unit of a drive's transfer limit is its smallest page. Which that is says a register that only the driver reads;
/// no page is smaller than this.
const PAGE_BYTES_MIN: u32 = 4096;

/// The logical blocks of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Bytes of a block, without metadata.
    pub(super) lba_bytes: u32,
    /// How many there are.
    pub(super) lbas: u64,
    /// Whether each has protection information of type 1 and no other metadata.
    pub(super) protected: bool,
}

/// What commands a namespace takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandSet {
    /// Reads and writes of any block.
    Blocks,
    /// Reads of any block, and appends to zones.
    Zones,
}

/// The number of the format in use, of the structure [`NAMESPACE`].
pub(super) fn format_number(page: &Page) -> usize {
    let selected = page[26];
    // FLBAS has the number's low four bits, and two more above the bit for metadata's place.
    usize::from(selected & 0xf | (selected >> 1) & 0x30)
}

/// The format in use, of the structure [`NAMESPACE`]; else what is wrong with it.
pub(super) fn format(page: &Page) -> Result<Format, &'static str> {
    let lbas = u64::from_le_bytes(bytes(page, 0));
    if lbas == 0 {
        return Err("the namespace is not active");
    }
    // NSATTR, bit 0.
    if page[99] & 1 != 0 {
        return Err("the namespace is write-protected");
    }
    let ([formats, protection], number) = ([page[25], page[29]], format_number(page));
    if number > usize::from(formats) || number >= 64 {
        return Err("the namespace is in a format that the drive does not list");
    }
    let entry: [u8; 4] = bytes(page, 128 + 4 * number);
    let (metadata_bytes, shift) = (u16::from_le_bytes([entry[0], entry[1]]), entry[2]);
    if !LBA_SHIFTS.contains(&shift) {
        return Err("logical blocks are smaller than 512 bytes or larger than 64 KiB");
    }
    let protected = match (metadata_bytes, protection & 0b111) {
        (0, _) => false,
        (PROTECTION_BYTES, 1) => true,
        (_, 0) => return Err("logical blocks have metadata without protection information"),
        (_, 1) => return Err("logical blocks have more metadata than protection information"),
        _ => return Err("protection information is not of type 1"),
    };
    if lbas.checked_mul(1 << shift).is_none() {
        return Err("the namespace says that it is larger than any");
    }
    Ok(Format { lba_bytes: 1 << shift, lbas, protected })
}

/// Most bytes of a transfer (MDTS), of the structure [`CONTROLLER`]; `None` if the drive has no limit.
pub(super) fn transfer_bytes_max(page: &Page) -> Option<u32> {
    limit(page[77])
}

/// Most bytes of an append (ZASL), of the structure [`SET_CONTROLLER`]; `None` if it is that of any transfer.
pub(super) fn append_bytes_max(page: &Page) -> Option<u32> {
    limit(page[0])
}

fn limit(power: u8) -> Option<u32> {
    match power {
        0 => None,
        // What is above is no limit to 32 bits.
        power => {
            Some(PAGE_BYTES_MIN.checked_shl(power.into()).filter(|bytes| *bytes >= PAGE_BYTES_MIN).unwrap_or(u32::MAX))
        }
    }
}

/// Whether there is a cache that a power cut empties (VWC), of the structure [`CONTROLLER`].
pub(super) fn has_volatile_cache(page: &Page) -> bool {
    page[525] & 1 != 0
}

/// What commands a namespace takes, of the structure [`DESCRIPTORS`]; else why none of ours.
pub(super) fn command_set(page: &Page) -> Result<CommandSet, &'static str> {
    const COMMAND_SET: u8 = 4;
    let mut rest = &page[..];
    // Each is a type, a length, two reserved bytes, and as many bytes as the length says; the list ends with a length of 0.
    while let [kind, length, _, _, after @ ..] = rest
        && *length > 0
    {
        let Some((value, next)) = after.split_at_checked(usize::from(*length)) else {
            return Err("the drive's list of the namespace's descriptors has no end");
        };
        match (*kind, value) {
            (COMMAND_SET, [0, ..]) => return Ok(CommandSet::Blocks),
            (COMMAND_SET, [1, ..]) => return Err("a key-value namespace has no blocks"),
            (COMMAND_SET, [2, ..]) => return Ok(CommandSet::Zones),
            (COMMAND_SET, _) => return Err("the namespace has an unknown command set"),
            _ => rest = next,
        }
    }
    // Drives that are older than command sets have none but this one.
    Ok(CommandSet::Blocks)
}

pub(super) fn bytes<const N: usize>(page: &Page, at: usize) -> [u8; N] {
    page[at..at + N].try_into().expect("as many bytes as asked for")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A namespace of `lbas` blocks, whose format number 1 is in use.
    fn namespace(lbas: u64, metadata_bytes: u16, shift: u8, protection: u8) -> Page {
        let mut page = [0; 4096];
        page[..8].copy_from_slice(&lbas.to_le_bytes());
        [page[25], page[26], page[29]] = [3, 1, protection];
        page[132..134].copy_from_slice(&metadata_bytes.to_le_bytes());
        page[134] = shift;
        page
    }

    fn descriptors(list: &[u8]) -> Page {
        let mut page = [0; 4096];
        page[..list.len()].copy_from_slice(list);
        page
    }

    #[test]
    fn formats_that_serve() {
        for (metadata_bytes, shift, protection, protected) in
            [(0, 12, 0, false), (0, 9, 0, false), (8, 12, 1, true), (8, 9, 0b1001, true), (0, 16, 1, false)]
        {
            let format = format(&namespace(1000, metadata_bytes, shift, protection)).unwrap();
            assert_eq!(format, Format { lba_bytes: 1 << shift, lbas: 1000, protected });
        }
    }

    #[test]
    fn formats_that_do_not_serve_are_told_apart() {
        let refused = |page: &Page| format(page).unwrap_err();
        assert!(refused(&namespace(0, 0, 12, 0)).contains("not active"));
        assert!(refused(&namespace(1, 8, 12, 0)).contains("without protection"));
        assert!(refused(&namespace(1, 16, 12, 1)).contains("more metadata"));
        for protection in 2..8 {
            assert!(refused(&namespace(1, 8, 12, protection)).contains("type 1"));
        }
        for shift in [0, 8, 17, 255] {
            assert!(refused(&namespace(1, 0, shift, 0)).contains("512 bytes"));
        }
        assert!(refused(&namespace(u64::MAX, 0, 12, 0)).contains("larger than any"));
        let mut page = namespace(1, 0, 12, 0);
        page[99] = 1;
        assert!(refused(&page).contains("write-protected"));
        let mut page = namespace(1, 0, 12, 0);
        page[26] = 4;
        assert!(refused(&page).contains("does not list"));
    }

    #[test]
    fn the_sixty_fourth_format_is_found() {
        let mut page = namespace(7, 0, 9, 0);
        // Bit 4 says where metadata is.
        [page[25], page[26]] = [63, 0b0111_1111];
        page[128 + 4 * 63 + 2] = 12;
        assert_eq!(format(&page).unwrap().lba_bytes, 4096);
    }

    #[test]
    fn transfer_limits_and_caches() {
        let mut page = [0; 4096];
        assert_eq!((transfer_bytes_max(&page), has_volatile_cache(&page)), (None, false));
        page[525] = 0b111;
        assert!(has_volatile_cache(&page));
        for (power, bytes) in
            [(1, 8192), (7, 512 << 10), (19, 1 << 31), (20, u32::MAX), (31, u32::MAX), (255, u32::MAX)]
        {
            page[77] = power;
            assert_eq!(transfer_bytes_max(&page), Some(bytes), "2^{power} pages");
        }
    }

    #[test]
    fn only_namespaces_of_blocks_pass() {
        let uuid = [&[3, 16, 0, 0][..], &[9; 16]].concat();
        let with = |set: u8| descriptors(&[&uuid[..], &[4, 1, 0, 0, set]].concat());
        assert_eq!(command_set(&with(0)), Ok(CommandSet::Blocks));
        assert_eq!(command_set(&descriptors(&uuid)), Ok(CommandSet::Blocks), "an old drive");
        assert!(command_set(&with(1)).unwrap_err().contains("key-value"));
        assert_eq!(command_set(&with(2)), Ok(CommandSet::Zones));
        assert!(command_set(&with(9)).unwrap_err().contains("unknown"));
        // 254 + 4 bytes each do not divide the page.
        assert!(command_set(&[254; 4096]).unwrap_err().contains("no end"));
    }

    proptest! {
        /// Whatever a drive answers is refused or gives blocks that can be counted.
        #[test]
        fn no_answer_breaks_it(seed in prop::collection::vec(any::<u8>(), 512)) {
            let page: Page = std::array::from_fn(|at| seed[at % seed.len()]);
            if let Ok(Format { lba_bytes, lbas, .. }) = format(&page) {
                prop_assert!(lba_bytes.is_power_of_two() && lbas > 0);
                prop_assert!(lbas.checked_mul(lba_bytes.into()).is_some());
            }
            prop_assert!(transfer_bytes_max(&page).is_none_or(|bytes| bytes >= PAGE_BYTES_MIN));
            let _ = command_set(&page);
        }
    }
}
