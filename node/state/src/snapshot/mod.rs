//! Snapshots: all pairs of one height, in ranges of keys that each prove themselves.
//!
//! | bytes | content, integers big-endian |
//! |---|---|
//! | 8, 2, 1 | `STELESNP`, format version 2, hash function |
//! | 8, 32, 8, 1 | height, root, number of pairs, depth d |
//! | 4 | CRC-32C of the header so far |
//! | … | 2^d chunks, one for each [`KeyRange`](stele_merkle::state::KeyRange) of depth d, in any order |
//! | 2^d × 85 | the table: for each range in order offset (8), length (4), number of pairs (4), CRC-32C (4) of its chunk, and what it holds: kind (1), 64 bytes |
//! | 4 | CRC-32C of the table |
//!
//! A chunk is the pairs of its range as in a log record. What a range holds is 0 nothing; 1 one pair: its key and the
//! hash of its value; 2 more: the root of their subtree and 32 zero bytes. The table therefore leads to the root without
//! the chunks, and gives each chunk its proof.
//!
//! The owner of the map copies pairs between its commits; what commits change behind the copy is copied as it was, so a
//! snapshot is exactly of its height. A thread writes the chunks and hashes them again: a file that does not lead to the
//! root never gets its name. It appears under that name only when it is complete and flushed.
//!
//! [`Chunk`] is the form in which ranges travel between nodes. Whoever knows a root checks each by itself, and
//! [`SnapshotBuilder`] makes a file of them.

mod builder;
mod chunk;
mod format;
mod job;
mod listing;
mod reader;
mod relocation;

pub use builder::SnapshotBuilder;
pub use chunk::{CHUNK_BYTES_MAX, Chunk, ChunkError};
pub use format::SNAPSHOT_DEPTH_MAX;
pub(crate) use format::SnapshotHeader;
pub(crate) use job::SnapshotJob;
pub(crate) use listing::{GENERATIONS, Listing, file_name, list, prune};
pub use reader::SnapshotReader;
pub(crate) use reader::load;
pub(crate) use relocation::Relocation;
