//! Append-only block store: the source of truth of a node.
//!
//! Records follow one another in *segment* files named after their first height. One [`append`] is one
//! positioned write and one `fdatasync`; when it returns, the block survives a power cut. Heights have
//! no gaps. Where a block lies is kept in RAM, 16 bytes a height.
//!
//! ```text
//!   segment = header (64) | record | record | … | zeros, or footer (12 B a record) | trailer (64)
//!   record  = header (64): magic, height, block id, lengths, CRC32C of the payload, CRC32C of the header
//!             block bytes | certificate bytes | zeros up to 8-byte alignment
//! ```
//!
//! A full segment is *sealed* with a footer that lists its records, so opening a store of a million
//! blocks reads footers and scans one segment. The segment being written is extended by zeros ahead of
//! small records: `fdatasync` then has no file size to commit, only data, which makes it a third faster.
//!
//! **Torn tail.** A record that does not check and has no valid record behind it is the append that a
//! crash cut short: nobody was told that it is durable, so it is dropped. With a valid record behind it
//! the damage is corruption, and opening fails with `block_corrupt`. The header checksum is seeded with
//! a number drawn per segment, so block bytes chosen by an outsider cannot pass for a record. Damage to
//! exactly the last record cannot be told from a torn append; a caller that knows a durable height (the
//! state map does) compares it with [`tip`] and fetches what is missing from its peers.
//!
//! [`append`]: BlockStore::append
//! [`tip`]: BlockStore::tip

mod archive;
mod error;
mod heights;
mod reader;
mod rebuild;
mod record;
mod sealed;
mod segment;
mod store;
#[cfg(test)]
mod tests;

pub use archive::{ArchiveError, ArchivedSegment, SegmentArchive};
pub use error::BlockStoreError;
pub use reader::{BlockReader, Blocks};
pub use rebuild::SegmentRebuild;
pub use record::{BLOCK_BYTES_MAX, BlockId, CERTIFICATE_BYTES_MAX, StoredBlock};
pub use sealed::SealedSegment;
pub use store::{BlockFigures, BlockStore, BlockStoreOptions};
