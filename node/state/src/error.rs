//! What can go wrong with a state map.

use std::io;
use std::path::{Path, PathBuf};

use stele_device::DeviceError;
use stele_merkle::state::MULTI_KEYS_MAX;

use crate::VALUE_BYTES_MAX;
use crate::record::BATCH_BYTES_MAX;

/// Why an operation of a state map failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
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
    /// The device of the pages failed.
    #[error("the pages in {} failed", path.display())]
    Device {
        /// The device.
        path: PathBuf,
        /// Why.
        source: DeviceError,
    },
    /// Another process has the directory open.
    #[error("state directory {} is open in another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier write or flush failed, so what the disk holds is unknown until the map is opened again.
    #[error("the state map is poisoned by an earlier disk error: restart to recover")]
    Poisoned,
    /// A file is damaged in a way that no crash causes.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// No sound snapshot together with the log since then is left.
    #[error("no sound snapshot with its log in {}: {}", path.display(), if refused.is_empty() { "none found" } else { refused })]
    NoBase {
        /// The directory.
        path: PathBuf,
        /// Why each snapshot was refused.
        refused: String,
    },
    /// A snapshot can only be put where there is no map yet.
    #[error("there is a state map in {} already", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A snapshot cannot be divided so finely.
    #[error("a snapshot of depth {depth} is deeper than {most}")]
    Depth {
        /// The depth asked for.
        depth: u8,
        /// The greatest possible.
        most: u8,
    },
    /// So many bytes of pairs lie in one of the smallest ranges that a snapshot is divided into.
    #[error("{bytes} bytes of the state lie in one range of keys: a chunk of a snapshot has at most {most}")]
    ChunkTooLong {
        /// Their bytes.
        bytes: u64,
        /// The most that are possible.
        most: usize,
    },
    /// A snapshot is not complete.
    #[error("{missing} chunks of the snapshot are missing")]
    Incomplete {
        /// Chunks missing.
        missing: usize,
    },
    /// The files were written with another hash function.
    #[error("{} was written with another hash function", path.display())]
    OtherHash {
        /// The file.
        path: PathBuf,
    },
    /// Writes can only be staged on the newest committed root.
    #[error("the parent root is not the newest committed root")]
    UnknownParent,
    /// Something else was committed since the writes were staged.
    #[error("the staged writes are stale: another batch was committed since")]
    Stale,
    /// The keys of a batch must be strictly ascending.
    #[error("write {index} of the batch is not above the one before it")]
    Unsorted {
        /// Position of the offending write.
        index: usize,
    },
    /// A multi-proof speaks about some keys, and not too many.
    #[error("a proof cannot speak about {count} keys: 1 to {MULTI_KEYS_MAX} are possible")]
    Keys {
        /// The keys asked for.
        count: usize,
    },
    /// A value is too long.
    #[error("a value of {length} bytes is longer than {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A batch is too large for one record.
    #[error("a batch of {bytes} bytes is larger than {BATCH_BYTES_MAX}")]
    BatchTooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// The engine cannot address more nodes.
    #[error("the state map is full at {nodes} nodes")]
    Full {
        /// Nodes in use.
        nodes: usize,
    },
    /// Too many files hold values at once.
    #[error("{open} files of values are open already")]
    TooManyFiles {
        /// Files open.
        open: usize,
    },
    /// Heights must ascend.
    #[error("height {height} is not above the newest committed height {newest}")]
    Height {
        /// The newest committed height.
        newest: u64,
        /// The height given.
        height: u64,
    },
    /// That height was not committed or is not provable any more.
    #[error("the state after height {height} is not provable here (any more)")]
    UnknownHeight {
        /// The height asked for.
        height: u64,
    },
}

impl StateError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "state_io",
            Self::Device { .. } => "state_device",
            Self::Locked { .. } => "state_locked",
            Self::Poisoned => "state_poisoned",
            Self::Corrupt { .. } => "state_corrupt",
            Self::NoBase { .. } => "state_no_base",
            Self::NotEmpty { .. } => "state_not_empty",
            Self::Depth { .. } => "state_depth",
            Self::ChunkTooLong { .. } => "state_chunk_too_long",
            Self::Incomplete { .. } => "state_incomplete",
            Self::OtherHash { .. } => "state_other_hash",
            Self::UnknownParent => "state_unknown_parent",
            Self::Stale => "state_stale",
            Self::Unsorted { .. } => "state_unsorted",
            Self::Keys { .. } => "state_keys",
            Self::ValueTooLong { .. } => "state_value_too_long",
            Self::BatchTooLarge { .. } => "state_batch_too_large",
            Self::Full { .. } => "state_full",
            Self::TooManyFiles { .. } => "state_too_many_files",
            Self::Height { .. } => "state_height",
            Self::UnknownHeight { .. } => "state_unknown_height",
        }
    }

    /// Whether only a restart helps: the disk failed or its content is not to be trusted.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Device { .. } | Self::Poisoned | Self::Corrupt { .. } | Self::NoBase { .. }
        )
    }

    pub(crate) fn device(path: &Path) -> impl FnOnce(DeviceError) -> Self {
        let path = path.to_owned();
        move |source| Self::Device { path, source }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
