//! Why a copy is not made or not kept.

use stele_client::ClientError;
use stele_hsm::SignerError;
use stele_storage::StorageError;

use crate::payload::PayloadError;

/// Why a copy is not made or not kept.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The store of bodies.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The key that signs receipts.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The configuration's section.
    #[error("payload.custody: {reason}")]
    Configuration {
        /// What is wrong.
        reason: String,
    },
    /// Another node does not answer, or refuses.
    #[error("{name}: {error}")]
    Keeper {
        /// Its address.
        name: String,
        /// What it said.
        error: Box<ClientError>,
    },
    /// What another node gives is not what it was asked for.
    #[error("{name} gave {what}")]
    Foreign {
        /// Its address.
        name: String,
        /// What it gave.
        what: &'static str,
    },
    /// The asking node is none of those that this one keeps copies for.
    #[error("this node keeps no copies for who asks")]
    Stranger,
    /// The body is longer than this node takes.
    #[error("this node takes bodies of at most {bytes_max} bytes")]
    TooLong {
        /// How long a sealed body may be.
        bytes_max: u64,
    },
    /// The body is being copied already.
    #[error("the body is being copied already")]
    Busy,
    /// The body is a copy; the node that it came to looks after it.
    #[error("the body is a copy, which the node that it came to looks after")]
    Elsewhere,
    /// No other node could be asked.
    #[error("no node that keeps copies can be reached")]
    Nobody,
}

impl CustodyError {
    /// Stable code for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Payload(error) => error.code(),
            Self::Signer(error) => error.code(),
            Self::Configuration { .. } => "custody_configuration",
            Self::Keeper { .. } => "custody_keeper",
            Self::Foreign { .. } => "custody_foreign",
            Self::Stranger => "custody_stranger",
            Self::TooLong { .. } => "custody_too_long",
            Self::Busy => "custody_busy",
            Self::Elsewhere => "custody_elsewhere",
            Self::Nobody => "custody_nobody",
        }
    }
}

impl From<StorageError> for CustodyError {
    fn from(error: StorageError) -> Self {
        Self::Payload(error.into())
    }
}
