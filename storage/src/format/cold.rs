//! A segment in the cold tier: one object, which says of itself what it holds.
//!
//! ```text
//!  header    1 block │ table: 26 bytes a batch, in whole blocks
//!  batches   one behind the other: the cells of the columns that hold records, in their order, as they lie on the drives
//! ```
//!
//! Parity is left out, and so are columns of a batch that nothing was written to. Integers are little-endian. The table:
//!
//! | bytes | content |
//! |---|---|
//! | 4, 2 | the block of the slots in which the batch begins; blocks of a cell behind its header |
//! | 8, 8 | number of the batch in the store; bit by bit, which columns hold records |
//! | 4 | CRC-32C of the directories' places and sums, and with them of all that is in the batch |

use std::ops::Range;

use super::codec::{Reader, Writer};
use super::{BLOCK_BYTES, CELL_BLOCKS_MAX, COLUMNS_MAX, CellHeader, checksum};
use crate::Group;
use crate::location::{Location, SLOT_BLOCKS_MAX};

const MAGIC: [u8; 8] = *b"SteleCO1";

/// Bytes of a batch in the table.
const ENTRY_BYTES: usize = 26;

/// Says what an object of the cold tier holds, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColdHeader {
    pub(crate) store: [u8; 16],
    pub(crate) segment: u32,
    /// The epoch in which the segment was begun.
    pub(crate) epoch: u64,
    pub(crate) group: Group,
    /// Columns of records.
    pub(crate) data: u8,
    /// Of the tombstones in it, the newest segment in which there may be a record that one of them ends.
    pub(crate) ends: Option<u32>,
    pub(crate) batches: Vec<ColdBatch>,
}

/// A batch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColdBatch {
    pub(crate) start: u32,
    pub(crate) blocks: u16,
    pub(crate) sequence: u64,
    pub(crate) written: u64,
    pub(crate) sum: u32,
}

impl ColdBatch {
    /// The batch that a cell is of.
    pub(crate) fn of(header: &CellHeader) -> Self {
        let data = header.directories.len();
        let mut listed = Vec::with_capacity(data * 8);
        for directory in &header.directories {
            listed.extend_from_slice(&directory.block.to_le_bytes());
            listed.extend_from_slice(&directory.entries.to_le_bytes());
            listed.extend_from_slice(&directory.sum.to_le_bytes());
        }
        Self {
            start: header.start,
            blocks: header.blocks,
            sequence: header.sequence,
            written: header.written & ((1 << data) - 1),
            sum: checksum(&listed),
        }
    }

    /// Bytes of one of its cells, with the cell's header.
    pub(crate) fn cell_bytes(&self) -> u64 {
        (u64::from(self.blocks) + 1) * BLOCK_BYTES as u64
    }

    /// Bytes of all of them.
    fn bytes(&self) -> u64 {
        u64::from(self.written.count_ones()) * self.cell_bytes()
    }

    /// The columns that it has cells of.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        let written = self.written;
        (0..COLUMNS_MAX).filter(move |column| written >> column & 1 == 1)
    }
}

/// Most batches of a segment: a cell has two blocks at least.
const BATCHES_MAX: usize = SLOT_BLOCKS_MAX as usize / 2;

impl ColdHeader {
    /// Most bytes of a header.
    pub(crate) const BYTES_MAX: usize = Self::header_bytes(BATCHES_MAX);

    /// Bytes of the header of an object with so many batches.
    const fn header_bytes(batches: usize) -> usize {
        BLOCK_BYTES + (batches * ENTRY_BYTES).next_multiple_of(BLOCK_BYTES)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::header_bytes(self.batches.len())];
        let (first, table) = bytes.split_at_mut(BLOCK_BYTES);
        for (batch, entry) in self.batches.iter().zip(table.chunks_exact_mut(ENTRY_BYTES)) {
            entry[..4].copy_from_slice(&batch.start.to_le_bytes());
            entry[4..6].copy_from_slice(&batch.blocks.to_le_bytes());
            entry[6..14].copy_from_slice(&batch.sequence.to_le_bytes());
            entry[14..22].copy_from_slice(&batch.written.to_le_bytes());
            entry[22..].copy_from_slice(&batch.sum.to_le_bytes());
        }
        let mut writer = Writer::new(first, MAGIC);
        writer.bytes(&self.store);
        writer.u32(self.segment);
        writer.u64(self.epoch);
        writer.u8(self.group.class);
        writer.u16(self.group.year);
        writer.u8(self.data);
        writer.u8(u8::from(self.ends.is_some()));
        writer.u32(self.ends.unwrap_or(0));
        writer.u32(u32::try_from(self.batches.len()).expect("a slot is bounded"));
        writer.u32(checksum(table));
        writer.finish();
        bytes
    }

    /// The header that an object or a record begins with, if it is that of a segment of `store`.
    pub(crate) fn decode(bytes: &[u8], store: &[u8; 16]) -> Option<Self> {
        let mut reader = Reader::new(bytes, MAGIC)?;
        let here = reader.bytes() == *store;
        let (segment, epoch) = (reader.u32(), reader.u64());
        let group = Group { class: reader.u8(), year: reader.u16() };
        let (data, tombstones, ends) = (reader.u8(), reader.u8(), reader.u32());
        let (count, sum) = (reader.u32(), reader.u32());
        let count = usize::try_from(count).ok().filter(|count| (1..=BATCHES_MAX).contains(count))?;
        let table = bytes.get(BLOCK_BYTES..Self::header_bytes(count))?;
        let possible = here && (1..=COLUMNS_MAX).contains(&usize::from(data)) && tombstones <= 1;
        if !possible || checksum(table) != sum {
            return None;
        }
        let mut batches = Vec::with_capacity(count);
        let mut behind = 1;
        for entry in table.chunks_exact(ENTRY_BYTES).take(count) {
            let batch = ColdBatch {
                start: u32::from_le_bytes(*entry.first_chunk()?),
                blocks: u16::from_le_bytes(*entry[4..].first_chunk()?),
                sequence: u64::from_le_bytes(*entry[6..].first_chunk()?),
                written: u64::from_le_bytes(*entry[14..].first_chunk()?),
                sum: u32::from_le_bytes(*entry[22..].first_chunk()?),
            };
            let cell = (1..=CELL_BLOCKS_MAX).contains(&usize::from(batch.blocks));
            let end = batch.start.checked_add(u32::from(batch.blocks) + 1).filter(|end| *end <= SLOT_BLOCKS_MAX)?;
            if !cell || batch.start < behind || batch.written >> data != 0 || batch.written == 0 {
                return None;
            }
            behind = end;
            batches.push(batch);
        }
        let ends = (tombstones == 1).then_some(ends);
        Some(Self { store: *store, segment, epoch, group, data, ends, batches })
    }

    /// Bytes of the object.
    pub(crate) fn object_bytes(&self) -> u64 {
        Self::header_bytes(self.batches.len()) as u64 + self.batches.iter().map(ColdBatch::bytes).sum::<u64>()
    }

    /// Where in the object a batch's cells are.
    pub(crate) fn batch_range(&self, number: usize) -> Option<Range<u64>> {
        let batch = self.batches.get(number)?;
        let before: u64 = self.batches[..number].iter().map(ColdBatch::bytes).sum();
        let start = Self::header_bytes(self.batches.len()) as u64 + before;
        Some(start..start + batch.bytes())
    }

    /// Where in the object a record is; none if it is in another segment.
    pub(crate) fn record_range(&self, location: &Location) -> Option<Range<u64>> {
        let number = self.batches.iter().position(|batch| batch.start == location.start)?;
        let (batch, column) = (&self.batches[number], u32::from(location.column));
        let there = location.segment == self.segment && batch.written >> column & 1 == 1;
        let end = u64::from(location.offset) + u64::from(location.bytes);
        if !there || BLOCK_BYTES as u64 + end > batch.cell_bytes() {
            return None;
        }
        let before = u64::from((batch.written & ((1 << column) - 1)).count_ones());
        let cell = self.batch_range(number)?.start + before * batch.cell_bytes();
        let start = cell + BLOCK_BYTES as u64 + u64::from(location.offset);
        Some(start..start + u64::from(location.bytes))
    }

    /// The number of the last batch.
    pub(crate) fn sequence(&self) -> u64 {
        self.batches.last().map_or(0, |batch| batch.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Kind;

    fn header() -> ColdHeader {
        let batch = |start, written| ColdBatch { start, blocks: 10, sequence: u64::from(start) * 3, written, sum: 5 };
        ColdHeader {
            store: [9; 16],
            segment: 77,
            epoch: 5,
            group: Group { class: 3, year: 2_041 },
            data: 4,
            ends: Some(70),
            batches: vec![batch(1, 0b1111), batch(12, 0b1010), batch(23, 0b0001)],
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), 2 * BLOCK_BYTES);
        assert_eq!(checksum(&bytes), 0x4158_0273);
        assert_eq!(ColdHeader::decode(&bytes, &[9; 16]), Some(header()));
        assert_eq!(ColdHeader::decode(&bytes, &[8; 16]), None);
    }

    #[test]
    fn a_header_that_is_cut_or_damaged_is_none() {
        let bytes = header().encode();
        for length in 0..bytes.len() {
            assert_eq!(ColdHeader::decode(&bytes[..length], &[9; 16]), None, "{length} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ColdHeader::decode(&damaged, &[9; 16]), None, "bit {bit}");
        }
    }

    #[test]
    fn records_are_found_in_the_object() {
        let header = header();
        let cell = 11 * BLOCK_BYTES as u64;
        let begin = 2 * BLOCK_BYTES as u64;
        assert_eq!(header.object_bytes(), begin + 7 * cell);
        assert_eq!(header.batch_range(1), Some(begin + 4 * cell..begin + 6 * cell));
        assert_eq!(header.batch_range(3), None);
        let location =
            Location { segment: 77, start: 12, column: 3, offset: 64, bytes: 100, sum: 0, kind: Kind::Whole };
        let start = begin + 5 * cell + BLOCK_BYTES as u64 + 64;
        assert_eq!(header.record_range(&location), Some(start..start + 100));
        // In no cell that is there.
        for nowhere in [
            Location { segment: 76, ..location },
            Location { start: 13, ..location },
            Location { column: 2, ..location },
            Location { bytes: 10 * 4_096, ..location },
        ] {
            assert_eq!(header.record_range(&nowhere), None);
        }
    }
}
