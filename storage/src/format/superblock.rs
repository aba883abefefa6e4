//! What a drive says of itself and of the store that it is a part of.

use stele_accel_hash::HashAlgorithm;

use super::codec::{Reader, Writer};
use super::{BLOCK_BYTES, COLUMNS_MAX, DRIVES_MAX, SLOT_BLOCKS_MIN};
use crate::location::SLOT_BLOCKS_MAX;

const MAGIC: [u8; 8] = *b"SteleSB1";

/// Copies of the superblock on each drive: two at either end, since tools that write to a drive by mistake do it there, and
/// mostly at one.
pub(crate) const SUPERBLOCK_COPIES: usize = 4;

/// Bytes at either end of a drive that hold superblocks and nothing else.
pub(crate) const MARGIN_BYTES: u64 = 1 << 20;

/// Where the copies lie on a drive of `bytes` bytes.
pub(crate) fn superblock_offsets(bytes: u64) -> [u64; SUPERBLOCK_COPIES] {
    [0, MARGIN_BYTES / 2, bytes - MARGIN_BYTES, bytes - BLOCK_BYTES as u64]
}

/// What a drive is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriveState {
    /// Holds everything that was written to it.
    Sound,
    /// New in its place; what its predecessor held is being made again.
    Rebuilding,
    /// Failed a write or a flush, or was away when the others were written to: nothing is expected of it, and it comes
    /// back only as a new drive.
    Failed,
}

impl DriveState {
    const fn code(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Rebuilding => 1,
            Self::Failed => 2,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Sound),
            1 => Some(Self::Rebuilding),
            2 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A drive of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: [u8; 16],
    pub(crate) state: DriveState,
}

/// The same on all drives of a store, but for [`Superblock::drive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The newest of a store counts.
    pub(crate) generation: u64,
    pub(crate) store: [u8; 16],
    /// How often the store was opened: what was written since is told from what was left of before.
    pub(crate) epoch: u64,
    /// Which of the members this drive is.
    pub(crate) drive: u16,
    pub(crate) data: u8,
    pub(crate) parity: u8,
    pub(crate) hash: HashAlgorithm,
    /// Blocks of a slot.
    pub(crate) slot_blocks: u32,
    /// Segments were numbered up to this, and no further. It counts also where no header can be read.
    pub(crate) segments: u32,
    pub(crate) members: Vec<Member>,
}

impl Superblock {
    pub(crate) fn encode(&self, block: &mut [u8]) {
        let mut writer = Writer::new(block, MAGIC);
        writer.u64(self.generation);
        writer.bytes(&self.store);
        writer.u64(self.epoch);
        writer.u16(self.drive);
        writer.u8(self.data);
        writer.u8(self.parity);
        writer.u8(match self.hash {
            HashAlgorithm::Sha256 => 0,
            HashAlgorithm::Sm3 => 1,
        });
        writer.u32(self.slot_blocks);
        writer.u32(self.segments);
        writer.u16(u16::try_from(self.members.len()).expect("a store has few drives"));
        for member in &self.members {
            writer.bytes(&member.id);
            writer.u8(member.state.code());
        }
        writer.finish();
    }

    /// The superblock in a block; none if it is not one, or of a shape that no store has.
    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(block, MAGIC)?;
        let (generation, store, epoch) = (reader.u64(), reader.bytes(), reader.u64());
        let (drive, data, parity) = (reader.u16(), reader.u8(), reader.u8());
        let hash = match reader.u8() {
            0 => HashAlgorithm::Sha256,
            1 => HashAlgorithm::Sm3,
            _ => return None,
        };
        let (slot_blocks, segments, count) = (reader.u32(), reader.u32(), usize::from(reader.u16()));
        let columns = usize::from(data) + usize::from(parity);
        let possible = data > 0
            && columns <= COLUMNS_MAX
            && (columns..=DRIVES_MAX).contains(&count)
            && (SLOT_BLOCKS_MIN..=SLOT_BLOCKS_MAX).contains(&slot_blocks);
        if !possible || usize::from(drive) >= count {
            return None;
        }
        let members = (0..count)
            .map(|_| Some(Member { id: reader.bytes(), state: DriveState::of_code(reader.u8())? }))
            .collect::<Option<_>>()?;
        Some(Self { generation, store, epoch, drive, data, parity, hash, slot_blocks, segments, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            generation: 7,
            store: [1; 16],
            epoch: 3,
            drive: 127,
            data: 36,
            parity: 4,
            hash: HashAlgorithm::Sm3,
            slot_blocks: 2_048,
            segments: 9,
            members: (0..128).map(|drive| Member { id: [drive; 16], state: DriveState::Rebuilding }).collect(),
        }
    }

    #[test]
    fn the_largest_store_has_a_superblock() {
        let mut block = [0; BLOCK_BYTES];
        superblock().encode(&mut block);
        assert_eq!(Superblock::decode(&block), Some(superblock()));
    }

    #[test]
    fn a_flipped_bit_is_no_superblock() {
        let mut block = [0; BLOCK_BYTES];
        superblock().encode(&mut block);
        for bit in 0..BLOCK_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::decode(&block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn shapes_that_no_store_has_are_refused() {
        let refused = |change: fn(&mut Superblock)| {
            let (mut changed, mut block) = (superblock(), [0; BLOCK_BYTES]);
            change(&mut changed);
            changed.encode(&mut block);
            Superblock::decode(&block).is_none()
        };
        assert!(refused(|superblock| superblock.data = 0));
        assert!(refused(|superblock| superblock.parity = 5));
        assert!(refused(|superblock| superblock.drive = 128));
        assert!(refused(|superblock| superblock.slot_blocks = 0));
        assert!(refused(|superblock| superblock.members.truncate(39)));
    }
}
