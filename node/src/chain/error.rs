//! What can go wrong below the readers.

use stele_state::StateError;
use stele_types::Code;
use stele_types::cbor::CborError;

use crate::store::blocks::BlockStoreError;
use crate::store::index::IndexError;
use crate::store::log::LogStoreError;

/// Failure of the committed chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlockStoreError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// The state map failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The statement index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Stored bytes do not decode.
    #[error("stored bytes do not decode: {0}")]
    Encoding(#[from] CborError),
    /// A stored statement does not parse.
    #[error("a stored statement does not parse: {code}")]
    Statement {
        /// Why.
        code: Code,
    },
    /// A derived store does not agree with the blocks.
    #[error("the {store} do not agree with the block at height {height}")]
    Damaged {
        /// Which store.
        store: &'static str,
        /// At which height.
        height: u64,
    },
    /// A file operation failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The block's header certifies other results than this node has: the node has diverged and must not vote.
    #[error("height {height} certifies another {what} than this node computed")]
    Diverged {
        /// The certified height.
        height: u64,
        /// Which result differs.
        what: &'static str,
    },
    /// The data directory belongs to another network.
    #[error("the data directory holds network {found}, the genesis file is of network {expected}")]
    ForeignData {
        /// The genesis file's network.
        expected: stele_types::NetworkId,
        /// The directory's network.
        found: String,
    },
    /// Blocks below the first one held are needed to rebuild the derived stores.
    #[error(
        "the derived stores need blocks from height 1, the oldest held is {oldest}: move the chain directory away and \
             begin at a snapshot again with `stele network join`"
    )]
    HistoryMissing {
        /// Oldest block held.
        oldest: u64,
    },
    /// A value of the state could not be read: what depends on it is unknown.
    #[error("the state cannot be read: {reason}")]
    StateUnreadable {
        /// Why.
        reason: String,
    },
    /// A chain cannot begin at a snapshot where there is one.
    #[error("{} exists: only a node without a chain can join by a snapshot; move the directory away first", path.display())]
    NotEmpty {
        /// The chain's directory.
        path: std::path::PathBuf,
    },
    /// Results are not certified by a committed header yet.
    #[error("the result is not certified by a header yet")]
    NotCertified,
    /// Too many changes of validators lie between the trusted height and a header for one answer.
    #[error("{links} changes of validators do not fit into one proof; begin it at a later height")]
    TrustPathTooLong {
        /// How many.
        links: usize,
    },
}

impl ChainError {
    /// Stable code for metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Blocks(error) => error.code(),
            Self::Log(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Index(error) => error.code(),
            Self::Encoding(_) | Self::Statement { .. } => "stored_bytes_invalid",
            Self::Damaged { .. } => "store_damaged",
            Self::Io { .. } => "store_io",
            Self::Diverged { .. } => "state_diverged",
            Self::ForeignData { .. } => "foreign_data",
            Self::HistoryMissing { .. } => "history_missing",
            Self::StateUnreadable { .. } => "state_unreadable",
            Self::NotEmpty { .. } => "chain_exists",
            Self::NotCertified => "not_certified",
            Self::TrustPathTooLong { .. } => "trust_path_too_long",
        }
    }
    pub(crate) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
