//! Why a backup is not made, not believed or not restored.

use std::io;
use std::path::{Path, PathBuf};

use stele_client::ClientError;
use stele_state::StateError;
use stele_storage::StorageError;
use stele_types::NetworkId;
use stele_verify::VerifyError;

use crate::chain::ChainError;
use crate::payload::PayloadError;

/// Why a backup is not made, not believed or not restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// There is no repository, or one that this program does not read.
    #[error("{}: {reason}", path.display())]
    Repository {
        /// Its directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process writes to the repository.
    #[error("{}: another backup is being written to it", .0.display())]
    Locked(PathBuf),
    /// The repository is of another network.
    #[error("{}: it is of network {found}, this node is of network {expected}", path.display())]
    Foreign {
        /// The repository, or its file.
        path: PathBuf,
        /// That of the node.
        expected: NetworkId,
        /// That of the repository.
        found: String,
    },
    /// There is no such backup.
    #[error("{}: it holds no {}", path.display(), number.map_or("backup".to_owned(), |number| format!("backup {number}")))]
    Missing {
        /// The repository.
        path: PathBuf,
        /// Which, if one was named.
        number: Option<u64>,
    },
    /// A manifest is not one.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of the repository is gone.
    #[error("{}: the file is missing", .0.display())]
    FileMissing(PathBuf),
    /// A file was cut off, or grew.
    #[error("{}: it has {found} bytes, the manifest says {expected}", path.display())]
    FileLength {
        /// Which.
        path: PathBuf,
        /// In the manifest.
        expected: u64,
        /// On the disk.
        found: u64,
    },
    /// A file holds something else than was written.
    #[error("{}: its SHA-256 is not that of the manifest", .0.display())]
    FileDamaged(PathBuf),
    /// Blocks are not those of the network.
    #[error("{}: height {height}: {reason}", path.display())]
    Chain {
        /// File of blocks.
        path: PathBuf,
        /// Height.
        height: u64,
        /// What does not fit.
        reason: String,
    },
    /// The state is not the one that a header certifies.
    #[error("{}: {reason}", path.display())]
    State {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A body is not the one of its root, or not where the list says.
    #[error("{}: body {root}: {reason}", path.display())]
    Body {
        /// File of bodies.
        path: PathBuf,
        /// Its root.
        root: String,
        /// Why.
        reason: String,
    },
    /// Class keys cannot be used.
    #[error("{reason}")]
    Keys {
        /// Why.
        reason: String,
    },
    /// The node's chain is not the one of the repository.
    #[error(
        "the node has another block at height {height} than the repository: its chain was begun anew since; write to a new \
         repository"
    )]
    OtherChain {
        /// Newest height of the repository.
        height: u64,
    },
    /// The node has not caught up.
    #[error("the node stands at height {node}, the repository at {repository}; wait until it has caught up")]
    Behind {
        /// Where the node is.
        node: u64,
        /// Where the repository is.
        repository: u64,
    },
    /// Too little room.
    #[error("{}: {needed} bytes are needed and {free} are free", path.display())]
    Space {
        /// Where.
        path: PathBuf,
        /// How much is to be written, and the reserve.
        needed: u64,
        /// What the file system gives.
        free: u64,
    },
    /// What is to be restored to is in use.
    #[error("{}: {reason}", path.display())]
    NotEmpty {
        /// Which directory or file.
        path: PathBuf,
        /// What to do.
        reason: String,
    },
    /// Bodies of a node are read through the node.
    #[error("{reason}")]
    NodeAway {
        /// Why it cannot be asked, and what to do.
        reason: String,
    },
    /// Two repositories contradict each other.
    #[error("{} and {} have different blocks at height {height}", one.display(), other.display())]
    Contradiction {
        /// A repository.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// The height.
        height: u64,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The node's chain.
    #[error(transparent)]
    Stores(#[from] ChainError),
    /// The node's state.
    #[error(transparent)]
    Snapshot(#[from] StateError),
    /// The node's bodies.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The store below.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The running node did not answer.
    #[error("the node's operator listener: {0}")]
    Client(#[from] ClientError),
    /// The genesis file.
    #[error(transparent)]
    Genesis(#[from] VerifyError),
}

impl BackupError {
    /// Stable code.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Repository { .. } => "backup_repository",
            Self::Locked(_) => "backup_locked",
            Self::Foreign { .. } => "backup_foreign",
            Self::Missing { .. } => "backup_missing",
            Self::Manifest { .. } => "backup_manifest",
            Self::FileMissing(_) => "backup_file_missing",
            Self::FileLength { .. } => "backup_file_length",
            Self::FileDamaged(_) => "backup_file_damaged",
            Self::Chain { .. } => "backup_chain",
            Self::State { .. } => "backup_state",
            Self::Body { .. } => "backup_body",
            Self::Keys { .. } => "backup_keys",
            Self::OtherChain { .. } => "backup_other_chain",
            Self::Behind { .. } => "backup_behind",
            Self::Space { .. } => "backup_space",
            Self::NotEmpty { .. } => "restore_not_empty",
            Self::NodeAway { .. } => "backup_node_away",
            Self::Contradiction { .. } => "backup_contradiction",
            Self::Io { .. } => "backup_io",
            Self::Stores(error) => error.code(),
            Self::Snapshot(error) => error.code(),
            Self::Payload(error) => error.code(),
            Self::Storage(error) => error.code(),
            Self::Client(error) => error.code(),
            Self::Genesis(error) => error.code(),
        }
    }

    /// Whether what was read is not what was written: damage, as opposed to what kept it from being looked at.
    pub(crate) const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Manifest { .. }
                | Self::FileMissing(_)
                | Self::FileLength { .. }
                | Self::FileDamaged(_)
                | Self::Chain { .. }
                | Self::State { .. }
                | Self::Body { .. }
        )
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn manifest(path: &Path, reason: impl Into<String>) -> Self {
        Self::Manifest { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn keys(reason: impl Into<String>) -> Self {
        Self::Keys { reason: reason.into() }
    }
}
