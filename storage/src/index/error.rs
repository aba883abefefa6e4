//! What can go wrong with an index.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation of an index failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The directory is open elsewhere.
    #[error("the index in {} is open already", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// An option is out of its bounds.
    #[error("{option} is {value}, which is out of bounds")]
    OutOfBounds {
        /// Which.
        option: &'static str,
        /// What was asked for.
        value: usize,
    },
    /// A file is damaged, or not the one that was written.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A file was written in a format that this version does not read.
    #[error("{} has format version {version}, which is not known here", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u16,
    },
    /// A file that has to be there is not.
    #[error("{} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The memtable takes no more changes: the owner has to flush.
    #[error("the memtable has {entries} changes and takes no more before a flush")]
    MemtableFull {
        /// Changes in it.
        entries: usize,
    },
    /// A flush failed earlier, so what the disk holds is unknown until the index is opened again.
    #[error("the index is poisoned by an earlier disk error: open it again")]
    Poisoned,
}

impl IndexError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "index_io",
            Self::Locked { .. } => "index_locked",
            Self::OutOfBounds { .. } => "index_out_of_bounds",
            Self::Corrupt { .. } => "index_corrupt",
            Self::Version { .. } => "index_version",
            Self::Missing { .. } => "index_missing",
            Self::MemtableFull { .. } => "index_memtable_full",
            Self::Poisoned => "index_poisoned",
        }
    }

    /// Whether the files are at fault, so that only building the index anew helps.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Version { .. } | Self::Missing { .. })
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what }
    }
}
