//! The authenticated state map: keys, values and one root per block, durable and provable.
//!
//! The ledger reads through [`StateMap::get`], hands the writes of a block to [`StateMap::stage`], learns the root that
//! they lead to, and makes them the state with [`StateMap::commit`]. Staging has no side effects, so a proposal can be
//! executed, compared and thrown away. The rules of the tree are those of `stele_merkle::state`; this crate holds an
//! engine for them and never decides a root itself.
//!
//! ```text
//!             stage (no side effects)                 commit(height)
//!  writes ──► descend, hash what is new ──► Staged ──► write-set log ── fdatasync ──► tree changed in place
//!             level by level                + root      │                                │   (and the way back kept)
//!                                                       └─ redo at open ◄── checkpoint ◄─┘ (beside the commits)
//! ```
//!
//! * [`StateMap`] is the interface. An engine may be replaced by another without changing a root.
//! * [`TreeMap`] is the engine: a binary tree in memory, changed in place level by level. What a commit exchanges is the way
//!   back to the version before, which is what keeps older roots provable ([`HistoryBounds`]). Its leaves are in memory too,
//!   and know where in a file their values lie; or, from some hundred million keys on, they lie with their values in pages
//!   on a device ([`Layout`]).
//! * The *write-set log* has one record per commit: heights, roots, sorted writes, checksum. Opening loads the newest
//!   checkpoint that is sound and redoes the log, comparing the root of every record. A torn record at the end is dropped,
//!   damage anywhere else is an error.
//! * *Checkpoints* are written beside the commits when the log has grown enough: *snapshots*, files of all pairs in ranges
//!   of keys, or *tables* of where the pages lie. Two generations are kept, with the log since the older one. [`StateMap::export`] writes the same for others, who fetch it
//!   in [`Chunk`]s that prove themselves and put it together with [`SnapshotBuilder`].
//! * [`fsck`] reads every file of a stopped map and names what is damaged; it writes nothing.
//!
//! What it is not: it knows no ledger types, no blocks and no clock but for the age of roots; keys and values are bytes.
//! The tree is in memory, about 140 bytes per key, or 5 with its leaves in pages.

#![forbid(unsafe_code)]

mod arena;
mod checkpoint;
mod engine;
mod error;
mod fsck;
mod handover;
mod hashing;
mod history;
mod interface;
mod moving;
mod pages;
mod record;
mod recovery;
mod snapshot;
mod tree;
mod values;
mod write_log;

pub use engine::{Staged, TreeMap};
pub use error::StateError;
pub use fsck::{FINDINGS_MAX, Finding, FindingKind, Report, fsck};
pub use history::HistoryBounds;
pub use interface::{
    Durability, Figures, Layout, Opened, Options, Pairs, Proven, ProvenMany, Recovery, StateMap, Write,
};
pub use record::BATCH_BYTES_MAX;
pub use snapshot::{CHUNK_BYTES_MAX, Chunk, ChunkError, SNAPSHOT_DEPTH_MAX, SnapshotBuilder, SnapshotReader};
pub use stele_merkle::Hash;
pub use stele_merkle::state::{Key, KeyRange, MULTI_KEYS_MAX, MultiProof, Proof, RangeProof, StateHash};

/// The longest value, in bytes. What is longer belongs into an ordinary store, with its hash here: proofs carry values
/// and stay small, and a page holds a value.
pub const VALUE_BYTES_MAX: usize = 4096;
