//! What lies on the drives, byte for byte.
//!
//! ```text
//!  drive    superblock ×2 │ slot 0 │ slot 1 │ …                             │ superblock ×2
//!  slot     slot header │ cell │ cell │ cell │ …        one column of one segment
//!  cell     header │ records, each at a unit or a block │ directory        one column of one batch
//! ```
//!
//! A *segment* has a slot on each of k + m drives. Its *batches* lie one behind the other at the same place of every slot:
//! the cells of the first k columns hold records, those of the other m their parity. A cell says where it belongs, what is
//! in it and what its bytes sum to, so that all there is to know can be read from the drives alone.
//!
//! Integers are little-endian. Whatever is read is checked before a byte of it is used, and says of itself where it lies:
//! a block that a drive wrote to, or read from, another place is not taken for its neighbour.

mod cell;
mod codec;
mod cold;
mod slot;
mod superblock;

pub(crate) use cell::{CellHeader, DIRECTORY_ENTRY_BYTES, Directory, Entry, Kind, sums};
pub(crate) use cold::{ColdBatch, ColdHeader};
pub(crate) use slot::{SlotHeader, Stage};
pub use superblock::DriveState;
pub(crate) use superblock::{MARGIN_BYTES, Member, SUPERBLOCK_COPIES, Superblock, superblock_offsets};

/// Bytes of a block: what is written and read is a multiple of it.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// What a record shorter than a block begins at a multiple of, in bytes. Longer ones begin with a block, so that reading
/// one reads nothing else.
pub(crate) const UNIT_BYTES: usize = 64;

/// Bytes of a cell of which one checksum is kept: a fault costs the reading of so much of each other column.
pub(crate) const SUM_BYTES: usize = 64 << 10;

/// Most bytes of a record: a column of a batch, and with its header about the write of which a drive is fastest.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

/// Most entries of one cell's directory. Records shorter than 4 KiB do not fill a cell then, and should come in bundles.
pub(crate) const ENTRIES_MAX: usize = 256;

/// Most blocks of a cell behind its header: one longest record, or as many short ones, and the directory.
pub(crate) const CELL_BLOCKS_MAX: usize = (RECORD_BYTES_MAX + ENTRIES_MAX * DIRECTORY_ENTRY_BYTES) / BLOCK_BYTES;

/// Least blocks of a slot: its header, and the longest cell with its own.
#[allow(clippy::cast_possible_truncation, reason = "a cell has a few hundred blocks")]
pub(crate) const SLOT_BLOCKS_MIN: u32 = CELL_BLOCKS_MAX as u32 + 2;

/// Most columns of a segment: what a slot header lists and a location can name.
pub(crate) const COLUMNS_MAX: usize = 40;

/// Most drives of a store.
pub(crate) const DRIVES_MAX: usize = 128;

/// CRC-32C (RFC 3720 section B.4).
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
