//! Zones: parts of a namespace that are written from their begin to their end, and emptied as a whole.
//!
//! Offsets are those of the NVMe Zoned Namespace Command Set Specification 1.1, sections 3.4.2 and 4.1.5. A drive is a
//! stranger: every value is checked before it is used.

use std::fs::File;
use std::io;

use super::command::Command;
use super::identify::{Format, Page, bytes};
use super::namespace::{self, Namespace};

/// Bytes of a report that are asked for at once: a thousand zones.
const REPORT_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 64;
const DESCRIPTOR_BYTES: usize = 64;

/// The type of zones that are written in order, the only one there is.
const SEQUENTIAL: u8 = 2;

/// The zones of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zoning {
    /// From the begin of one to that of the next, in bytes.
    pub(crate) zone_bytes: u64,
    /// Most bytes of an append: whole blocks.
    pub(crate) append_bytes_max: u32,
}

/// A zone of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Where it begins, in bytes.
    pub start: u64,
    /// Bytes that it takes.
    pub capacity: u64,
    /// Bytes from its begin on that were written; of a full one all, of one that is offline none.
    pub written: u64,
    /// What may be done with it.
    pub state: ZoneState,
}

/// What may be done with a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// Nothing is in it.
    Empty,
    /// It is written to, and has means of the drive for that.
    Open,
    /// It was written to, and has none.
    Closed,
    /// Nothing more goes into it.
    Full,
    /// It can be read, and never written again.
    ReadOnly,
    /// It can neither be read nor written.
    Offline,
}

/// The zones of a namespace with this format, by what the drive says of it: the structure of the zoned command set, where
/// `number` is that of the format. Else what is wrong with it.
pub(super) fn zoning(page: &Page, number: usize, format: Format, append_max: u32) -> Result<Zoning, &'static str> {
    let zone = u64::from_le_bytes(bytes(page, 2816 + 16 * number));
    let zone_bytes = zone.checked_mul(u64::from(format.lba_bytes)).ok_or("zones are larger than any namespace")?;
    if zone == 0 || zone > format.lbas {
        return Err("the namespace has no whole zone");
    }
    if format.protected {
        return Err("protection information of a zoned namespace is not served");
    }
    let append_bytes_max = append_max / format.lba_bytes * format.lba_bytes;
    if append_bytes_max == 0 {
        return Err("the drive appends less than a block at a time");
    }
    Ok(Zoning { zone_bytes, append_bytes_max })
}

/// Asks a drive for all its zones.
pub(crate) fn report(file: &File, namespace: &Namespace) -> io::Result<Vec<Zone>> {
    let zoning = namespace.zoning.ok_or(io::ErrorKind::Unsupported)?;
    let (format, total) = (namespace.format, namespace.bytes() / zoning.zone_bytes);
    let mut page = vec![0; REPORT_BYTES];
    let mut zones = Vec::new();
    while (zones.len() as u64) < total {
        let from = zones.len() as u64 * zoning.zone_bytes;
        let length = u32::try_from(page.len()).expect("a report is small");
        let command = Command::report_zones(namespace.number, from / u64::from(format.lba_bytes), length);
        namespace::ask(file, command, &mut page)?;
        let read = read(&page, from, zoning, format).ok_or_else(|| io::Error::other("the drive's zones do not fit"))?;
        zones.extend(read);
    }
    Ok(zones)
}

/// The zones in a report, from the one on that begins at `from`; none if it contradicts itself or has none.
fn read(page: &[u8], from: u64, zoning: Zoning, format: Format) -> Option<Vec<Zone>> {
    let (header, descriptors) = page.split_at_checked(HEADER_BYTES)?;
    let count = usize::try_from(u64::from_le_bytes(*header.first_chunk()?)).unwrap_or(usize::MAX);
    let descriptors = descriptors.chunks_exact(DESCRIPTOR_BYTES).take(count);
    let end = (format.lbas * u64::from(format.lba_bytes)) / zoning.zone_bytes * zoning.zone_bytes;
    let starts = (from..end).step_by(usize::try_from(zoning.zone_bytes).ok()?);
    let zones: Option<Vec<Zone>> =
        descriptors.zip(starts).map(|(descriptor, start)| zone(descriptor, start, zoning, format)).collect();
    zones.filter(|zones| !zones.is_empty())
}

fn zone(descriptor: &[u8], start: u64, zoning: Zoning, format: Format) -> Option<Zone> {
    let field = |at: usize| -> Option<u64> {
        let blocks = u64::from_le_bytes(*descriptor.get(at..)?.first_chunk()?);
        blocks.checked_mul(u64::from(format.lba_bytes))
    };
    let state = match descriptor[1] >> 4 {
        0x1 => ZoneState::Empty,
        0x2 | 0x3 => ZoneState::Open,
        0x4 => ZoneState::Closed,
        0xd => ZoneState::ReadOnly,
        0xe => ZoneState::Full,
        0xf => ZoneState::Offline,
        _ => return None,
    };
    let (capacity, begins) = (field(8)?, field(16)?);
    let written = match state {
        ZoneState::Empty | ZoneState::Offline => 0,
        // Their write pointers mean nothing.
        ZoneState::Full | ZoneState::ReadOnly => capacity,
        ZoneState::Open | ZoneState::Closed => field(24)?.checked_sub(begins)?,
    };
    let sound = descriptor[0] & 0xf == SEQUENTIAL && begins == start;
    (sound && capacity <= zoning.zone_bytes && written <= capacity).then_some(Zone { start, capacity, written, state })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMAT: Format = Format { lba_bytes: 4096, lbas: 4000, protected: false };
    const ZONING: Zoning = Zoning { zone_bytes: 1024 * 4096, append_bytes_max: 65_536 };

    fn descriptor(state: u8, capacity: u64, start: u64, pointer: u64) -> [u8; DESCRIPTOR_BYTES] {
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        [descriptor[0], descriptor[1]] = [SEQUENTIAL, state << 4];
        for (at, blocks) in [(8, capacity), (16, start), (24, pointer)] {
            descriptor[at..at + 8].copy_from_slice(&blocks.to_le_bytes());
        }
        descriptor
    }

    fn page(count: u64, descriptors: &[[u8; DESCRIPTOR_BYTES]]) -> Vec<u8> {
        let mut page = vec![0; HEADER_BYTES];
        page[..8].copy_from_slice(&count.to_le_bytes());
        page.extend(descriptors.concat());
        page.resize(REPORT_BYTES, 0);
        page
    }

    #[test]
    fn zones_are_counted_in_bytes() {
        let descriptors =
            [descriptor(1, 1000, 0, 0), descriptor(2, 1000, 1024, 1034), descriptor(14, 1000, 2048, u64::MAX)];
        let zones = read(&page(3, &descriptors), 0, ZONING, FORMAT).unwrap();
        let zone = |start, written, state| Zone { start, capacity: 1000 * 4096, written, state };
        assert_eq!(
            zones,
            [
                zone(0, 0, ZoneState::Empty),
                zone(1024 * 4096, 10 * 4096, ZoneState::Open),
                zone(2048 * 4096, 1000 * 4096, ZoneState::Full),
            ]
        );
        // A report from the second zone on, of a namespace that has no fourth.
        let zones = read(&page(9, &descriptors[1..]), 1024 * 4096, ZONING, FORMAT).unwrap();
        assert_eq!(zones.len(), 2);
    }

    #[test]
    fn reports_that_contradict_themselves_are_refused() {
        for wrong in [
            descriptor(1, 1025, 0, 0),
            descriptor(1, 1000, 1, 0),
            descriptor(2, 1000, 0, 1001),
            descriptor(5, 1000, 0, 0),
            descriptor(4, u64::MAX, 0, 0),
            [0; DESCRIPTOR_BYTES],
        ] {
            assert_eq!(read(&page(1, &[wrong]), 0, ZONING, FORMAT), None);
        }
        assert_eq!(read(&page(0, &[]), 0, ZONING, FORMAT), None, "it would be asked for ever");
        assert_eq!(read(&[], 0, ZONING, FORMAT), None);
    }

    #[test]
    fn zones_that_do_not_serve_are_told_apart() {
        let page = |zone: u64| {
            let mut page: Page = [0; 4096];
            page[2816 + 32..2816 + 40].copy_from_slice(&zone.to_le_bytes());
            page
        };
        assert_eq!(zoning(&page(1024), 2, FORMAT, 65_536), Ok(ZONING));
        for (zone, format, append_max) in [
            (0, FORMAT, 65_536),
            (4001, FORMAT, 65_536),
            (u64::MAX, FORMAT, 65_536),
            (1024, FORMAT, 512),
            (1024, Format { protected: true, ..FORMAT }, 65_536),
        ] {
            assert!(zoning(&page(zone), 2, format, append_max).is_err());
        }
    }

    proptest! {
        /// Whatever a drive answers, zones lie in it one behind the other.
        #[test]
        fn no_report_breaks_it(mut seed in prop::collection::vec(any::<u8>(), 64..512), count in 0..9_u64) {
            seed.splice(..8, count.to_le_bytes());
            for zone in read(&seed, 0, ZONING, FORMAT).unwrap_or_default() {
                prop_assert!(zone.written <= zone.capacity && zone.capacity <= ZONING.zone_bytes);
            }
        }
    }
}
