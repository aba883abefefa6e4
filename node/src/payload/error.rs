//! Why a body is not taken or not given.

use std::path::Path;

use stele_cold::ColdError;
use stele_hsm::SignerError;
use stele_storage::StorageError;

/// Why a body is not taken or not given.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The custody key.
    #[error(transparent)]
    Custody(#[from] SignerError),
    /// The cold tier.
    #[error(transparent)]
    Cold(Box<ColdError>),
    /// The table of class keys.
    #[error("class keys: {reason}")]
    Keys {
        /// Which file, and why.
        reason: String,
    },
    /// The journal of bodies without a statement.
    #[error("the journal of unreferenced bodies: {reason}")]
    Journal {
        /// Why.
        reason: String,
    },
    /// Too many bodies wait for a statement that refers to them.
    #[error("too many bodies wait for a statement")]
    TooManyWaiting,
    /// So many bodies of one party, or copies for one node, wait that others would find no room.
    #[error("too many bodies of the same sender wait for a statement")]
    WaitingShare,
    /// The retention of the body is over: it would be removed at once.
    #[error("the year {year} is over, and bodies are removed then")]
    RetentionOver {
        /// The year in which it ends.
        year: u16,
    },
    /// The body is sealed under a class key that this node does not have.
    #[error("the body is sealed under a class key that this node does not have")]
    KeyUnknown,
    /// What is stored under this root is no sealed body.
    #[error("no sealed body is stored under this root")]
    NotSealed,
    /// The stored bytes are right and do not open under their key.
    #[error("the body does not open under its key")]
    DoesNotOpen,
    /// The cipher fails, which it has no reason for.
    #[error("the cipher fails")]
    Cipher,
    /// Bodies that other nodes listed could not be had from them.
    #[error("{bodies} bodies could not be brought back; the node's own log names them")]
    NotBroughtBack {
        /// How many.
        bodies: u64,
    },
    /// Old blocks are not archived, or not brought back.
    #[error("old blocks: {reason}")]
    Blocks {
        /// Why.
        reason: String,
    },
    /// A drive cannot be prepared.
    #[error("{drive}: {reason}")]
    Drive {
        /// Its path.
        drive: String,
        /// Why.
        reason: String,
    },
}

impl PayloadError {
    /// Stable code for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Custody(error) => error.code(),
            Self::Cold(error) => error.code(),
            Self::Keys { .. } => "payload_class_keys",
            Self::Journal { .. } => "payload_journal",
            Self::TooManyWaiting => "payload_too_many_waiting",
            Self::WaitingShare => "payload_waiting_share",
            Self::RetentionOver { .. } => "payload_retention_over",
            Self::KeyUnknown => "payload_key_unknown",
            Self::NotSealed => "payload_not_sealed",
            Self::DoesNotOpen => "payload_does_not_open",
            Self::Cipher => "payload_cipher",
            Self::NotBroughtBack { .. } => "payload_not_brought_back",
            Self::Blocks { .. } => "payload_blocks",
            Self::Drive { .. } => "payload_drive",
        }
    }

    pub(super) fn keys(path: &Path, reason: &str) -> Self {
        Self::Keys { reason: format!("{}: {reason}", path.display()) }
    }

    pub(super) fn journal(reason: &str) -> Self {
        Self::Journal { reason: reason.to_owned() }
    }

    pub(super) fn blocks(reason: impl ToString) -> Self {
        Self::Blocks { reason: reason.to_string() }
    }

    pub(super) fn drive(path: &Path, reason: impl ToString) -> Self {
        Self::Drive { drive: path.display().to_string(), reason: reason.to_string() }
    }
}

impl From<ColdError> for PayloadError {
    fn from(error: ColdError) -> Self {
        Self::Cold(Box::new(error))
    }
}
