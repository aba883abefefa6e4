//! The first block of a slot: which segment's column it holds, and where the others are.

use super::COLUMNS_MAX;
use super::codec::{Reader, Writer};
use crate::Group;

const MAGIC: [u8; 8] = *b"SteleSL1";

/// What becomes of a slot's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Batches may be added.
    Open,
    /// None are added any more; `blocks` of each slot are used, and the last batch has the number `sequence`.
    Sealed { blocks: u32, sequence: u64 },
    /// It was given up; the slot may be used again.
    Free,
}

/// Says whose slot it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    pub(crate) store: [u8; 16],
    /// The id of the drive, by which it is told from those that were in its place before.
    pub(crate) member: [u8; 16],
    /// The drive and the slot that this header was written to.
    pub(crate) drive: u16,
    pub(crate) slot: u32,
    pub(crate) segment: u32,
    /// The epoch in which the segment was begun.
    pub(crate) epoch: u64,
    pub(crate) stage: Stage,
    pub(crate) group: Group,
    /// Which column this is.
    pub(crate) column: u8,
    /// Drive and slot of each column.
    pub(crate) columns: Vec<(u16, u32)>,
}

impl SlotHeader {
    pub(crate) fn encode(&self, block: &mut [u8]) {
        let (stage, blocks, sequence) = match self.stage {
            Stage::Open => (0, 0, 0),
            Stage::Sealed { blocks, sequence } => (1, blocks, sequence),
            Stage::Free => (2, 0, 0),
        };
        let mut writer = Writer::new(block, MAGIC);
        writer.bytes(&self.store);
        writer.bytes(&self.member);
        writer.u16(self.drive);
        writer.u32(self.slot);
        writer.u32(self.segment);
        writer.u64(self.epoch);
        writer.u8(stage);
        writer.u32(blocks);
        writer.u64(sequence);
        writer.u8(self.group.class);
        writer.u16(self.group.year);
        writer.u8(self.column);
        writer.u8(u8::try_from(self.columns.len()).expect("few columns"));
        for (drive, slot) in &self.columns {
            writer.u16(*drive);
            writer.u32(*slot);
        }
        writer.finish();
    }

    /// The header in a block that was read from `slot` of drive `drive`, which is `member`, of `store`; none if something else is there.
    pub(crate) fn decode(block: &[u8], store: &[u8; 16], member: &[u8; 16], drive: u16, slot: u32) -> Option<Self> {
        let mut reader = Reader::new(block, MAGIC)?;
        let here = (reader.bytes(), reader.bytes(), reader.u16(), reader.u32()) == (*store, *member, drive, slot);
        let (segment, epoch) = (reader.u32(), reader.u64());
        let (stage, blocks, sequence) = (reader.u8(), reader.u32(), reader.u64());
        let stage = match stage {
            0 => Stage::Open,
            1 => Stage::Sealed { blocks, sequence },
            2 => Stage::Free,
            _ => return None,
        };
        let group = Group { class: reader.u8(), year: reader.u16() };
        let (column, count) = (reader.u8(), usize::from(reader.u8()));
        if !here || count > COLUMNS_MAX {
            return None;
        }
        let columns: Vec<(u16, u32)> = (0..count).map(|_| (reader.u16(), reader.u32())).collect();
        let listed = columns.get(usize::from(column)) == Some(&(drive, slot));
        let header =
            Self { store: *store, member: *member, drive, slot, segment, epoch, stage, group, column, columns };
        listed.then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BLOCK_BYTES;

    #[test]
    fn a_slot_header_counts_only_where_it_was_written() {
        let columns = (0..40).map(|column| (column, u32::from(column) * 3)).collect();
        let header = SlotHeader {
            store: [9; 16],
            member: [4; 16],
            drive: 2,
            slot: 6,
            segment: 77,
            epoch: 5,
            stage: Stage::Sealed { blocks: 2_048, sequence: 1 << 40 },
            group: Group { class: 3, year: 2_041 },
            column: 2,
            columns,
        };
        let mut block = [0; BLOCK_BYTES];
        header.encode(&mut block);
        assert_eq!(SlotHeader::decode(&block, &[9; 16], &[4; 16], 2, 6), Some(header));
        assert_eq!(SlotHeader::decode(&block, &[9; 16], &[4; 16], 2, 7), None);
        assert_eq!(SlotHeader::decode(&block, &[9; 16], &[5; 16], 2, 6), None);
        assert_eq!(SlotHeader::decode(&block, &[8; 16], &[4; 16], 2, 6), None);
    }
}
