//! Where a record lies: what the index keeps of it.

use crate::format::{BLOCK_BYTES, COLUMNS_MAX, Kind, RECORD_BYTES_MAX, UNIT_BYTES};

/// Bytes of a location in the index.
pub(crate) const LOCATION_BYTES: usize = 16;

/// Bits of each field, the lowest first: together they are 125.
const BITS: [u32; 7] = [32, 32, 21, 15, 16, 6, 3];

/// Most blocks of a slot: what a location can name.
pub(crate) const SLOT_BLOCKS_MAX: u32 = 1 << BITS[4];

/// Where a record lies, how long it is, and what its bytes sum to. The sum here is not the one beside the record: a drive
/// that kept an old block, or another one, with a checksum that fits, is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    /// The block of the slot in which the cell begins.
    pub(crate) start: u32,
    pub(crate) column: u8,
    /// Where behind the cell's header the record begins, in bytes: a multiple of [`UNIT_BYTES`].
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) sum: u32,
    pub(crate) kind: Kind,
}

impl Location {
    pub(crate) fn encode(&self) -> [u8; LOCATION_BYTES] {
        let unit = self.offset / u32::try_from(UNIT_BYTES).expect("a unit is small");
        let kind = u32::from(self.kind.code());
        let fields = [self.sum, self.segment, self.bytes, unit, self.start, u32::from(self.column), kind];
        let mut packed = 0;
        let mut shift = 0;
        for (field, bits) in fields.into_iter().zip(BITS) {
            let field = u128::from(field);
            assert!(field >> bits == 0, "a record lies inside a cell of a segment");
            packed |= field << shift;
            shift += bits;
        }
        packed.to_le_bytes()
    }

    /// The location in an entry of the index; none if no record lies there.
    pub(crate) fn decode(bytes: &[u8; LOCATION_BYTES]) -> Option<Self> {
        let mut packed = u128::from_le_bytes(*bytes);
        let fields = BITS.map(|bits| {
            let field = packed & ((1 << bits) - 1);
            packed >>= bits;
            u32::try_from(field).expect("a field has 32 bits at most")
        });
        let [sum, segment, bytes, unit, start, column, kind] = fields;
        let location = Self {
            segment,
            start,
            column: u8::try_from(column).ok()?,
            offset: unit * u32::try_from(UNIT_BYTES).expect("a unit is small"),
            bytes,
            sum,
            kind: Kind::of_code(u8::try_from(kind).ok()?)?,
        };
        let possible = packed == 0
            && location.kind != Kind::Tombstone
            && location.bytes as usize <= RECORD_BYTES_MAX
            && usize::from(location.column) < COLUMNS_MAX;
        possible.then_some(location)
    }

    /// The blocks behind the cell's header that hold the record: the first, and how many.
    pub(crate) fn blocks(&self) -> (u32, u32) {
        let block = u32::try_from(BLOCK_BYTES).expect("a block is small");
        let first = self.offset / block;
        (first, (self.offset + self.bytes).div_ceil(block).max(first + 1) - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_and_the_longest_record_has_a_location() {
        let location = Location {
            segment: u32::MAX,
            start: SLOT_BLOCKS_MAX - 1,
            column: 39,
            offset: (1 << 20) + 15_360,
            bytes: 1 << 20,
            sum: u32::MAX,
            kind: Kind::Upload,
        };
        assert_eq!(Location::decode(&location.encode()), Some(location));
    }

    #[test]
    fn entries_that_name_no_record_are_refused() {
        assert_eq!(Location::decode(&[0xff; 16]), None);
        assert!(Location::decode(&[0; 16]).is_some());
    }

    #[test]
    fn a_record_is_read_by_its_blocks() {
        let location = |offset, bytes| {
            Location { segment: 0, start: 0, column: 0, offset, bytes, sum: 0, kind: Kind::Whole }.blocks()
        };
        assert_eq!(location(0, 65_536), (0, 16));
        assert_eq!(location(4_096 - 64, 65), (0, 2));
        assert_eq!(location(8_192, 0), (2, 1));
    }
}
