//! What can go wrong in the log store.

use std::io;
use std::path::PathBuf;

use stele_merkle::log::LogError;

/// Failure of a log store call.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// Another process has the directory open.
    #[error("log {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// A write or fsync failed earlier; restart to recover.
    #[error("log is poisoned by an earlier failed write; restart to recover")]
    Poisoned,
    /// The operating system refused an operation on a file.
    #[error("log store cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is shorter than the durable size demands, or the record of that size is damaged: rebuild.
    #[error("log files do not reach their durable size: {0}")]
    Truncated(&'static str),
    /// The stored hashes give another root than the one known for this size: rebuild.
    #[error("log root at size {size} is not the known one")]
    RootMismatch {
        /// Tree size at which the roots differ.
        size: u64,
    },
    /// A stored hash is not the hash of its children, or a proof made from it does not verify: rebuild.
    #[error("log hash at level {level}, index {index} is corrupt")]
    Corrupt {
        /// Level of the subtree.
        level: u8,
        /// Index of the subtree at its level.
        index: u64,
    },
    /// The size asked for is beyond what is appended, or the index beyond the size.
    #[error("{asked} is beyond the log's size {size}")]
    OutOfRange {
        /// Size or index asked for.
        asked: u64,
        /// Size that bounds it.
        size: u64,
    },
    /// This log began at a snapshot and lacks a hash or location from before it.
    #[error("the log begins at {base}; what lies before it is not stored here")]
    BeforeBase {
        /// First log index that is stored.
        base: u64,
    },
    /// Leaf hashes and locations differ in number.
    #[error("{leaves} leaf hashes but {locations} locations")]
    Uneven {
        /// Leaf hashes given.
        leaves: usize,
        /// Locations given.
        locations: usize,
    },
    /// The tile is an entry bundle; entries are read from blocks.
    #[error("an entry bundle is not made of hashes")]
    TileKind,
    /// The proof rules refuse the request.
    #[error("log proof")]
    Proof(#[source] LogError),
}

impl LogStoreError {
    /// Stable code for API users and metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "store_locked",
            Self::Poisoned => "store_poisoned",
            Self::Io { .. } => "store_io",
            Self::Truncated(_) => "log_truncated",
            Self::RootMismatch { .. } => "log_root_mismatch",
            Self::Corrupt { .. } => "log_corrupt",
            Self::OutOfRange { .. } => "log_out_of_range",
            Self::BeforeBase { .. } => "log_before_base",
            Self::Uneven { .. } => "log_uneven",
            Self::TileKind => "log_tile_kind",
            Self::Proof(error) => error.code(),
        }
    }

    /// True where the files are wrong and [`LogStore::rebuild`](super::LogStore::rebuild) followed by
    /// feeding the blocks again is the remedy.
    #[must_use]
    pub fn needs_rebuild(&self) -> bool {
        matches!(self, Self::Truncated(_) | Self::RootMismatch { .. } | Self::Corrupt { .. })
    }

    pub(super) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}
