//! What can go wrong in the statement index.

use std::io;
use std::path::PathBuf;

/// Failure of an index call.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Another process has the directory open.
    #[error("index {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// A write, fsync or merge failed earlier; restart to recover.
    #[error("index is poisoned by an earlier failure; restart to recover")]
    Poisoned,
    /// The operating system refused an operation on a file.
    #[error("index cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file of the index does not check: reset it and put all blocks again.
    #[error("index file {} is corrupt: {what}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// What does not check.
        what: &'static str,
    },
    /// The block put is not the one after the last.
    #[error("expected height {expected}, got {given}")]
    HeightGap {
        /// Height that follows the last one put.
        expected: u64,
        /// Height given by the caller.
        given: u64,
    },
    /// Height or number of statements exceeds what a location can hold.
    #[error("block {height} with {statements} statements exceeds what a location holds")]
    LocationRange {
        /// Height given.
        height: u64,
        /// Statements given.
        statements: usize,
    },
}

impl IndexError {
    /// Stable code for API users and metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "store_locked",
            Self::Poisoned => "store_poisoned",
            Self::Io { .. } => "store_io",
            Self::Corrupt { .. } => "index_corrupt",
            Self::HeightGap { .. } => "height_gap",
            Self::LocationRange { .. } => "index_location_range",
        }
    }

    /// True where [`StatementIndex::reset`](super::StatementIndex::reset) followed by putting the blocks
    /// again is the remedy.
    #[must_use]
    pub fn needs_rebuild(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    pub(super) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}
