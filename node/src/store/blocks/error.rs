//! What can go wrong in the block store.

use std::io;
use std::path::PathBuf;

use super::archive::ArchiveError;

/// What to do when blocks that were once durable are gone.
const PEERS_HAVE_IT: &str = "the peers have the blocks: check the disk, move the data directory away, keep the keys \
                             and the vote guard, and start the node to fetch them";

/// Failure of a block store call.
#[derive(Debug, thiserror::Error)]
pub enum BlockStoreError {
    /// Another process has the directory open.
    #[error("block store {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// A write or fsync failed earlier; restart to recover from what is on disk.
    #[error("block store is poisoned by an earlier failed write; restart to recover")]
    Poisoned,
    /// The operating system refused an operation on a file.
    #[error("block store cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Bytes that were once durable no longer check.
    #[error("block {height} is corrupt in {} at byte {offset}; {PEERS_HAVE_IT}", segment.display())]
    Corrupt {
        /// Height of the damaged record.
        height: u64,
        /// Segment file.
        segment: PathBuf,
        /// Where the record starts in the file.
        offset: u64,
    },
    /// A segment file carries no valid header, or names another first height than its file name.
    #[error("segment header of {} is corrupt; {PEERS_HAVE_IT}", .0.display())]
    SegmentCorrupt(PathBuf),
    /// A segment file is absent: the store's heights would have a gap.
    #[error("segment that begins at height {0} is missing; {PEERS_HAVE_IT}")]
    SegmentMissing(u64),
    /// A block of an archived segment is not read.
    #[error("block {height} is in the archive")]
    Archived {
        /// Its height.
        height: u64,
        /// Why.
        #[source]
        source: ArchiveError,
    },
    /// The height to append is not the one after the tip.
    #[error("expected height {expected}, got {given}")]
    HeightGap {
        /// Height that follows the tip.
        expected: u64,
        /// Height given by the caller.
        given: u64,
    },
    /// The store holds no block of this height: never appended, or pruned.
    #[error("no block of height {0}")]
    NotFound(u64),
    /// Block or certificate exceeds its limit.
    #[error("{part} of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// `block` or `certificate`.
        part: &'static str,
        /// Length given.
        bytes: usize,
        /// Largest length allowed.
        limit: usize,
    },
}

impl BlockStoreError {
    /// Stable code for API users and metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "store_locked",
            Self::Poisoned => "store_poisoned",
            Self::Io { .. } => "store_io",
            Self::Corrupt { .. } => "block_corrupt",
            Self::SegmentCorrupt(_) => "segment_corrupt",
            Self::SegmentMissing(_) => "segment_missing",
            Self::Archived { source: ArchiveError::Away { .. }, .. } => "block_archive_away",
            Self::Archived { source: ArchiveError::Lost { .. }, .. } => "block_archive_lost",
            Self::HeightGap { .. } => "height_gap",
            Self::NotFound(_) => "block_not_found",
            Self::TooLarge { .. } => "block_too_large",
        }
    }

    pub(super) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}
