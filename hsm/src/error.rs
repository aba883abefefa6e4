//! Why a signature was refused or could not be made.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a signer could not be opened, or did not sign.
#[derive(Debug, Error)]
pub enum SignerError {
    /// The configuration names a backend that this build does not hold.
    #[error(
        "signer backend \"{name}\" is not part of this build; set signer.kind = \"software\" (development \
         only) or install a build with the {name} backend"
    )]
    BackendNotBuilt {
        /// Backend as named in the configuration.
        name: &'static str,
    },
    /// The configuration names no known backend.
    #[error("unknown signer backend \"{name}\"; known are \"software\", \"tpm\" and \"pkcs11\"")]
    BackendUnknown {
        /// Backend as named in the configuration.
        name: String,
    },
    /// The key file can be read or written by others than its owner.
    #[error("key file {path} has mode {mode:04o}; it must be 0600: run chmod 600 {path}", path = path.display())]
    KeyFilePermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file exists already; it is never overwritten.
    #[error("key file {path} exists already and is not overwritten", path = path.display())]
    KeyFileExists {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is not a PKCS#8 PEM of a P-256 key. Its content is never shown.
    #[error("key file {path} is not a PKCS#8 PEM file of a P-256 key", path = path.display())]
    KeyFileMalformed {
        /// The key file.
        path: PathBuf,
    },
    /// The key file could not be read or written.
    #[error("key file {path}: {source}", path = path.display())]
    KeyFileIo {
        /// The key file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes to be signed are not of the kind that the request names.
    #[error("request refused: {reason}")]
    MalformedRequest {
        /// Which rule of [`crate::request`] it breaks.
        reason: &'static str,
    },
    /// This signer was opened without the guard that the request needs.
    #[error("the signer has no {guard} guard; open it with one")]
    GuardMissing {
        /// `vote` or `checkpoint`.
        guard: &'static str,
    },
    /// The vote is of another validator than the guard belongs to.
    #[error("the vote guard belongs to another validator")]
    ForeignValidator,
    /// Another value or other bytes were signed at the same height, round and step.
    #[error("refused to sign twice at height {height} round {round} {step}")]
    DoubleSign {
        /// Height of the refused vote.
        height: u64,
        /// Round of the refused vote.
        round: u32,
        /// Step of the refused vote.
        step: crate::request::Step,
    },
    /// The vote lies before the last one that was signed.
    #[error(
        "refused to go back to height {height} round {round} {step}; \
         the last vote signed is at height {last_height} round {last_round} {last_step}"
    )]
    Regression {
        /// Height of the refused vote.
        height: u64,
        /// Round of the refused vote.
        round: u32,
        /// Step of the refused vote.
        step: crate::request::Step,
        /// Height of the last signed vote.
        last_height: u64,
        /// Round of the last signed vote.
        last_round: u32,
        /// Step of the last signed vote.
        last_step: crate::request::Step,
    },
    /// The checkpoint is of a smaller log than the last one that was signed.
    #[error("refused a checkpoint of size {tree_size}; size {last_size} is signed already")]
    CheckpointRegression {
        /// Size of the refused checkpoint.
        tree_size: u64,
        /// Size of the last signed checkpoint.
        last_size: u64,
    },
    /// Another root was signed at the same log size.
    #[error("refused a second root for log size {tree_size}")]
    CheckpointFork {
        /// The log size.
        tree_size: u64,
    },
    /// The guard file could not be read or written. After a failed write the guard refuses everything
    /// until it is opened again, because what reached the disk is unknown.
    #[error("guard file {path}: {source}", path = path.display())]
    GuardIo {
        /// The guard file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A write to the guard file failed before; restart the signer after the cause is mended.
    #[error("guard file {path} failed before and signs no more; restart after mending the disk", path = path.display())]
    GuardPoisoned {
        /// The guard file.
        path: PathBuf,
    },
    /// Another process holds the guard file: two signers of one validator must never run.
    #[error("guard file {path} is held by another process", path = path.display())]
    GuardHeld {
        /// The guard file.
        path: PathBuf,
    },
    /// The guard file is not one, or is damaged in more than the record that was being written.
    #[error("guard file {path} is damaged: {reason}", path = path.display())]
    GuardDamaged {
        /// The guard file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A guard cannot begin at height 0: genesis is not voted for.
    #[error("a guard begins at height 1 or above")]
    GuardHeight,
    /// A guard of checkpoints cannot begin at size 0: the empty log is not signed.
    #[error("a guard of checkpoints begins at a size of 1 or above")]
    GuardSize,
    /// The key refused to sign.
    #[error("the key could not sign")]
    SigningFailed,
    /// A key of custody cannot be made, opened or given on.
    #[error("custody: {reason}")]
    Custody {
        /// Why.
        reason: &'static str,
    },
}

impl SignerError {
    /// Stable snake_case code, for API users and metric labels.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BackendNotBuilt { .. } => "backend_not_built",
            Self::BackendUnknown { .. } => "backend_unknown",
            Self::KeyFilePermissions { .. } => "key_file_permissions",
            Self::KeyFileExists { .. } => "key_file_exists",
            Self::KeyFileMalformed { .. } => "key_file_malformed",
            Self::KeyFileIo { .. } => "key_file_io",
            Self::MalformedRequest { .. } => "malformed_request",
            Self::GuardMissing { .. } => "guard_missing",
            Self::ForeignValidator => "foreign_validator",
            Self::DoubleSign { .. } => "double_sign",
            Self::Regression { .. } => "regression",
            Self::CheckpointRegression { .. } => "checkpoint_regression",
            Self::CheckpointFork { .. } => "checkpoint_fork",
            Self::GuardIo { .. } => "guard_io",
            Self::GuardPoisoned { .. } => "guard_poisoned",
            Self::GuardHeld { .. } => "guard_held",
            Self::GuardDamaged { .. } => "guard_damaged",
            Self::GuardHeight => "guard_height",
            Self::GuardSize => "guard_size",
            Self::SigningFailed => "signing_failed",
            Self::Custody { .. } => "custody_key",
        }
    }

    /// Whether the guard said no: the request would have contradicted an earlier signature.
    #[must_use]
    pub const fn is_guard_refusal(&self) -> bool {
        matches!(
            self,
            Self::DoubleSign { .. }
                | Self::Regression { .. }
                | Self::CheckpointRegression { .. }
                | Self::CheckpointFork { .. }
                | Self::ForeignValidator
        )
    }

    /// Whether the same request may succeed later without anyone mending something. Only a device that
    /// was busy or away is; nothing of the software signer is.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::SigningFailed)
    }
}
