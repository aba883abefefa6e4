//! One column of a batch: what a drive is given in one write.

use super::codec::{Reader, Writer};
use super::{BLOCK_BYTES, CELL_BLOCKS_MAX, COLUMNS_MAX, ENTRIES_MAX, SUM_BYTES, UNIT_BYTES, checksum};
use crate::location::Location;

const MAGIC: [u8; 8] = *b"SteleCE1";

/// Bytes of an entry of a cell's directory.
pub(crate) const DIRECTORY_ENTRY_BYTES: usize = 64;

/// Most checksums of a cell.
const SUMS_MAX: usize = (CELL_BLOCKS_MAX * BLOCK_BYTES).div_ceil(SUM_BYTES);

/// Says where a cell belongs, what its bytes sum to and where its directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CellHeader {
    pub(crate) store: [u8; 16],
    /// The drive, the slot and the block in it that the cell was written to.
    pub(crate) drive: u16,
    pub(crate) slot: u32,
    pub(crate) start: u32,
    pub(crate) segment: u32,
    /// The epoch in which the segment was begun.
    pub(crate) epoch: u64,
    /// Which batch of the segment this is a column of.
    pub(crate) batch: u32,
    /// Which batch of the store it is: a later one has a higher number.
    pub(crate) sequence: u64,
    /// So many batches of the segment were durable when this one was written: what is not whole among them is damaged,
    /// while the others may have been on their way when the power failed.
    pub(crate) durable: u32,
    pub(crate) column: u8,
    /// Bit by bit, which columns of the batch were written. The others hold nothing, and count as zeros.
    pub(crate) written: u64,
    /// Blocks behind the header, the same in every column.
    pub(crate) blocks: u16,
    /// The directory of each column that holds records. All are named in every cell, so that a lost one can be written anew.
    pub(crate) directories: Vec<Directory>,
    /// Checksum of each [`SUM_BYTES`] behind the header, the last ones of what is left.
    pub(crate) sums: Vec<u32>,
}

impl CellHeader {
    pub(crate) fn encode(&self, block: &mut [u8]) {
        let mut writer = Writer::new(block, MAGIC);
        writer.bytes(&self.store);
        writer.u16(self.drive);
        writer.u32(self.slot);
        writer.u32(self.start);
        writer.u32(self.segment);
        writer.u64(self.epoch);
        writer.u32(self.batch);
        writer.u64(self.sequence);
        writer.u32(self.durable);
        writer.u8(self.column);
        writer.u64(self.written);
        writer.u16(self.blocks);
        writer.u8(u8::try_from(self.directories.len()).expect("few columns"));
        for directory in &self.directories {
            writer.u16(directory.block);
            writer.u16(directory.entries);
            writer.u32(directory.sum);
        }
        for sum in &self.sums {
            writer.u32(*sum);
        }
        writer.finish();
    }

    /// The header in a block that was read from block `start` of a slot; none if something else is there.
    pub(crate) fn decode(block: &[u8], store: &[u8; 16], drive: u16, slot: u32, start: u32) -> Option<Self> {
        Self::decode_elsewhere(block, store)
            .filter(|header| (header.drive, header.slot, header.start) == (drive, slot, start))
    }

    /// The header in a block that was read from somewhere else than where it was written to: from the cold tier.
    pub(crate) fn decode_elsewhere(block: &[u8], store: &[u8; 16]) -> Option<Self> {
        let mut reader = Reader::new(block, MAGIC)?;
        let (own, drive, slot, start) = (reader.bytes::<16>(), reader.u16(), reader.u32(), reader.u32());
        let (segment, epoch) = (reader.u32(), reader.u64());
        let (batch, sequence, durable, column) = (reader.u32(), reader.u64(), reader.u32(), reader.u8());
        let written = reader.u64();
        let (blocks, columns) = (reader.u16(), usize::from(reader.u8()));
        let bytes = usize::from(blocks) * BLOCK_BYTES;
        let possible = (1..=CELL_BLOCKS_MAX).contains(&usize::from(blocks))
            && usize::from(column) < COLUMNS_MAX
            && columns <= COLUMNS_MAX
            && written >> column & 1 == 1;
        if own != *store || !possible {
            return None;
        }
        let directory = |reader: &mut Reader<'_>| {
            let directory = Directory { block: reader.u16(), entries: reader.u16(), sum: reader.u32() };
            let within = directory.range().end <= bytes && usize::from(directory.entries) <= ENTRIES_MAX;
            within.then_some(directory)
        };
        let directories = (0..columns).map(|_| directory(&mut reader)).collect::<Option<_>>()?;
        let sums = (0..bytes.div_ceil(SUM_BYTES)).map(|_| reader.u32()).collect();
        Some(Self {
            store: *store,
            drive,
            slot,
            start,
            segment,
            epoch,
            batch,
            sequence,
            durable,
            column,
            written,
            blocks,
            directories,
            sums,
        })
    }

    /// Whether another header is of the same batch.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        let batch = |header: &Self| {
            let Self { segment, epoch, batch, sequence, written, blocks, .. } = *header;
            (segment, epoch, batch, sequence, written, blocks)
        };
        batch(self) == batch(other)
    }

    /// Bytes behind the header.
    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.blocks) * BLOCK_BYTES
    }

    /// Whether the column of this batch was written at all.
    pub(crate) fn is_written(&self, column: usize) -> bool {
        self.written >> column & 1 == 1
    }

    /// Whether a piece of the cell, which begins `index` times [`SUM_BYTES`] behind its header, is as it was written.
    pub(crate) fn is_sound(&self, index: usize, piece: &[u8]) -> bool {
        self.sums.get(index) == Some(&checksum(piece))
    }

    /// Where piece `index` lies behind the header.
    pub(crate) fn piece(&self, index: usize) -> std::ops::Range<usize> {
        index * SUM_BYTES..((index + 1) * SUM_BYTES).min(self.bytes())
    }
}

/// Where in a cell its directory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where behind the header it begins, in blocks.
    pub(crate) block: u16,
    pub(crate) entries: u16,
    /// What the entries sum to.
    pub(crate) sum: u32,
}

impl Directory {
    /// Where behind the header its entries lie, in bytes.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        let start = usize::from(self.block) * BLOCK_BYTES;
        start..start + usize::from(self.entries) * DIRECTORY_ENTRY_BYTES
    }
}

/// The checksums of a cell's bytes. Where a record of it is a piece, its own sum is that of the piece: it was made when the
/// record came, so that what happens to it in memory meanwhile is found out, too.
pub(crate) fn sums(bytes: &[u8], records: &[Entry], into: &mut Vec<u32>) {
    into.clear();
    into.extend(bytes.chunks(SUM_BYTES).enumerate().map(|(piece, bytes)| {
        let whole = |entry: &&Entry| {
            entry.offset as usize == piece * SUM_BYTES && entry.bytes as usize == bytes.len() && entry.bytes > 0
        };
        records.iter().find(whole).map_or_else(|| checksum(bytes), |entry| entry.sum)
    }));
    assert!(into.len() <= SUMS_MAX, "a cell has a bounded length");
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A whole object.
    Whole,
    /// What the parts of an object are.
    Manifest,
    /// A part of an object.
    Part,
    /// Says that an upload is complete, and which object it became.
    Upload,
    /// The end of the record with the same key.
    Tombstone,
    /// Of the store itself: that a segment is in the cold tier, and what it holds.
    Cold,
}

impl Kind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Whole => 0,
            Self::Manifest => 1,
            Self::Part => 2,
            Self::Tombstone => 3,
            Self::Upload => 4,
            Self::Cold => 5,
        }
    }

    pub(crate) const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Whole),
            1 => Some(Self::Manifest),
            2 => Some(Self::Part),
            3 => Some(Self::Tombstone),
            4 => Some(Self::Upload),
            5 => Some(Self::Cold),
            _ => None,
        }
    }
}

/// A record, as the directory of its cell lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: [u8; 32],
    pub(crate) kind: Kind,
    /// Where behind the cell's header it begins, in bytes: a multiple of [`UNIT_BYTES`].
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) sum: u32,
    /// When it was put, in milliseconds of Unix time, as the caller said.
    pub(crate) time_ms: u64,
    /// Of a tombstone: the newest segment in which there may be a record that it ends. Without those up to it, it is not needed.
    pub(crate) ends: u32,
}

impl Entry {
    /// Where the record lies, if its cell is that of a column at a block of a segment.
    pub(crate) fn location(&self, segment: u32, start: u32, column: usize) -> Location {
        let Self { offset, bytes, sum, kind, .. } = *self;
        Location { segment, start, column: u8::try_from(column).expect("few columns"), offset, bytes, sum, kind }
    }

    pub(crate) fn encode(&self, into: &mut [u8]) {
        let (key, rest) = into.split_at_mut(32);
        key.copy_from_slice(&self.key);
        rest.fill(0);
        rest[0] = self.kind.code();
        rest[4..8].copy_from_slice(&self.offset.to_le_bytes());
        rest[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        rest[12..16].copy_from_slice(&self.sum.to_le_bytes());
        rest[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        rest[24..28].copy_from_slice(&self.ends.to_le_bytes());
    }

    /// The entry in [`DIRECTORY_ENTRY_BYTES`] bytes; none if no cell has such a record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; DIRECTORY_ENTRY_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("inside an entry"));
        let entry = Self {
            key: *bytes.first_chunk().expect("inside an entry"),
            kind: Kind::of_code(bytes[32])?,
            offset: word(36),
            bytes: word(40),
            sum: word(44),
            time_ms: u64::from(word(48)) | u64::from(word(52)) << 32,
            ends: word(56),
        };
        let end = entry.offset as usize + entry.bytes as usize;
        let inside = (entry.offset as usize).is_multiple_of(UNIT_BYTES) && end <= CELL_BLOCKS_MAX * BLOCK_BYTES;
        inside.then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> CellHeader {
        CellHeader {
            store: [9; 16],
            drive: 3,
            slot: 8,
            start: 515,
            segment: 44,
            epoch: 2,
            batch: 6,
            sequence: 1 << 40,
            durable: 3,
            column: 39,
            written: 1 << 39 | 1,
            blocks: u16::try_from(CELL_BLOCKS_MAX).unwrap(),
            directories: (0..36).map(|sum| Directory { block: 256, entries: 256, sum }).collect(),
            sums: (0..17).collect(),
        }
    }

    #[test]
    fn a_cell_header_counts_only_where_it_was_written() {
        let mut block = [0; BLOCK_BYTES];
        header().encode(&mut block);
        assert_eq!(CellHeader::decode(&block, &[9; 16], 3, 8, 515), Some(header()));
        assert_eq!(CellHeader::decode(&block, &[9; 16], 3, 8, 514), None);
        assert_eq!(CellHeader::decode(&block, &[9; 16], 3, 9, 515), None);
        assert_eq!(CellHeader::decode(&block, &[9; 16], 4, 8, 515), None);
        assert_eq!(SUMS_MAX, 17);
    }

    #[test]
    fn directories_beyond_their_cell_are_refused() {
        let mut block = [0; BLOCK_BYTES];
        let beyond = Directory { block: 257, entries: 256, sum: 0 };
        CellHeader { directories: vec![beyond], ..header() }.encode(&mut block);
        assert_eq!(CellHeader::decode(&block, &[9; 16], 3, 8, 515), None);
    }

    #[test]
    fn entries_come_back_and_never_leave_their_cell() {
        let entry =
            Entry { key: [7; 32], kind: Kind::Part, offset: 64, bytes: 1 << 20, sum: 5, time_ms: u64::MAX, ends: 4 };
        let mut bytes = [0; DIRECTORY_ENTRY_BYTES];
        entry.encode(&mut bytes);
        assert_eq!(Entry::decode(&bytes), Some(entry));
        Entry { offset: 16_384 + 64, ..entry }.encode(&mut bytes);
        assert_eq!(Entry::decode(&bytes), None);
        Entry { offset: 65, ..entry }.encode(&mut bytes);
        assert_eq!(Entry::decode(&bytes), None);
    }
}
