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
    /// The configuration does not name a TPM.
    #[error("\"{name}\" names no TPM; write device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321")]
    TpmAddress {
        /// What it names.
        name: String,
    },
    /// The TPM key file is not one. Its content is never shown.
    #[error("key file {path} is not a TSS2 PRIVATE KEY file of a P-256 signing key", path = path.display())]
    TpmKeyFileMalformed {
        /// The key file.
        path: PathBuf,
    },
    /// The key file was made by another TPM, or by this one before it was cleared.
    #[error("the key belongs to another TPM, or to this one before it was cleared")]
    TpmKeyForeign,
    /// The TPM does not answer. The next request tries to reach it again.
    #[error("the TPM does not answer; it is tried again with the next request")]
    TpmLost,
    /// The TPM was reset again and again while the request ran.
    #[error("the TPM was reset while the request ran")]
    TpmReset,
    /// Requests wait already for the TPM, as many as may, or the TPM itself says that it is busy.
    #[error("the TPM is busy")]
    TpmBusy,
    /// The TPM locked itself against guessed passwords. It opens by itself after its recovery time.
    #[error("the TPM is locked against guessing; it opens by itself, or by tpm2_dictionarylockout --clear-lockout")]
    TpmLockout,
    /// The TPM failed its own test and does nothing any more.
    #[error("the TPM is in failure mode; restart the machine, and replace the TPM if it stays so")]
    TpmFailure,
    /// The TPM refused for another reason.
    #[error("the TPM refused with response code 0x{code:08x}; tpm2_rc_decode explains it")]
    TpmRefused {
        /// Its response code, with the layer that it comes from.
        code: u32,
    },
    /// The counter in the TPM is not where the epoch file saw it last.
    #[error(
        "the TPM's counter is at {found}, but the epoch file says {recorded}: an old copy of this disk was restored, another \
         copy of it ran, or this is another TPM"
    )]
    TpmEpochMismatch {
        /// Its value.
        found: u64,
        /// What the file says.
        recorded: u64,
    },
    /// The epoch file is not one, or could not be read or written.
    #[error("epoch file {path}: {source}", path = path.display())]
    TpmEpochFile {
        /// The epoch file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The vendor's PKCS#11 library cannot be used.
    #[error("PKCS#11 module {path}: {reason}", path = path.display())]
    TokenModule {
        /// The library.
        path: PathBuf,
        /// What the loader or the library said.
        reason: String,
    },
    /// The token does not answer, or no token has that label. The next request tries to reach it again.
    #[error("the token does not answer, or none has that label; it is tried again with the next request")]
    TokenLost,
    /// Requests wait already for the token, as many as may.
    #[error("the token is busy")]
    TokenBusy,
    /// The token refused the PIN. It is not given again, because tokens lock themselves.
    #[error("the token refused the PIN, which is not tried again; mend the configuration and restart")]
    TokenPin,
    /// The token has no key of that label, or one that is not of P-256.
    #[error("the token has no P-256 key pair labelled {label}")]
    TokenKeyMissing {
        /// The key's label.
        label: String,
    },
    /// The token has a key of that label already; it is never replaced.
    #[error("the token has a key labelled {label} already, which is not replaced")]
    TokenKeyExists {
        /// The key's label.
        label: String,
    },
    /// The key can be taken out of the token, or could once be.
    #[error("the key labelled {label} can leave the token, or could once; have the token make another")]
    TokenKeyExtractable {
        /// The key's label.
        label: String,
    },
    /// The token refused for another reason.
    #[error("the token refused: {reason}")]
    TokenRefused {
        /// Function and return value.
        reason: String,
    },
    /// `stele-signer` does not answer. The next request tries to reach it again.
    #[error("stele-signer does not answer at {path}; it is tried again with the next request", path = path.display())]
    SignerAway {
        /// Its socket.
        path: PathBuf,
    },
    /// As many requests are under way to `stele-signer` as may be.
    #[error("stele-signer is busy")]
    SignerBusy,
    /// `stele-signer` answers what it must not.
    #[error("stele-signer cannot be believed: {reason}")]
    SignerAnswer {
        /// What is wrong.
        reason: &'static str,
    },
    /// `stele-signer` does not hold the key that the configuration asks for.
    #[error("the {role} key of stele-signer cannot be used: {reason}")]
    SignerKey {
        /// What the key is for.
        role: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// `stele-signer` refused.
    #[error("{message}")]
    Remote {
        /// Its code, or `signer_refused` if this build does not know it.
        code: &'static str,
        /// Its message.
        message: String,
        /// What [`Self::is_retryable`] says.
        retryable: bool,
        /// What [`Self::is_guard_refusal`] says.
        guard: bool,
    },
    /// `stele-signer` holds as many epoch keys as it may.
    #[error("stele-signer holds {count} epoch keys; retire those whose certificates ended")]
    EpochKeysFull {
        /// How many.
        count: usize,
    },
    /// An epoch key lies in a plain file although there is a TPM to seal it.
    #[error("{path} is an epoch key in a plain file beside a TPM: remove it, and let the signer make another", path = path.display())]
    EpochKeyUnsealed {
        /// The file.
        path: PathBuf,
    },
    /// This machine has no TPM that could attest.
    #[error("this node has no TPM: it cannot attest")]
    AttestationMissing,
    /// A log of what was measured cannot be read.
    #[error("{path}: {source}", path = path.display())]
    AttestationLog {
        /// The log.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The key refused to sign.
    #[error("the key could not sign")]
    SigningFailed,
    /// A key of custody cannot be made, opened or given on.
    #[error("custody: {reason}")]
    Custody {
        /// Why.
        reason: &'static str,
    },
    /// Nothing approves the state of this machine: there is no file of an approval.
    #[error("nothing approves this machine's PCRs: put the release's approval into {folder}", folder = folder.display())]
    ApprovalMissing {
        /// Where approvals are looked for.
        folder: PathBuf,
    },
    /// Every approval that is there is signed by another key than the secret was sealed under.
    #[error("no approval in {folder} is signed by the policy key", folder = folder.display())]
    ApprovalForeign {
        /// Where approvals are looked for.
        folder: PathBuf,
    },
    /// The approvals that are there are of other values of PCRs than this machine has.
    #[error("no approval in {folder} is of this machine's PCRs: it runs what was not approved", folder = folder.display())]
    ApprovalStale {
        /// Where approvals are looked for.
        folder: PathBuf,
    },
    /// The secret was sealed under another policy key, or under none.
    #[error("{path} was sealed under another policy key than the configuration names", path = path.display())]
    SealPolicy {
        /// Its file.
        path: PathBuf,
    },
    /// A share of a custody key.
    #[error(transparent)]
    Share(#[from] crate::custody::ShareError),
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
            Self::TpmAddress { .. } => "tpm_address",
            Self::TpmKeyFileMalformed { .. } => "tpm_key_file_malformed",
            Self::TpmKeyForeign => "tpm_key_foreign",
            Self::TpmLost => "tpm_lost",
            Self::TpmReset => "tpm_reset",
            Self::TpmBusy => "tpm_busy",
            Self::TpmLockout => "tpm_lockout",
            Self::TpmFailure => "tpm_failure",
            Self::TpmRefused { .. } => "tpm_refused",
            Self::TpmEpochMismatch { .. } => "tpm_epoch_mismatch",
            Self::TpmEpochFile { .. } => "tpm_epoch_file",
            Self::TokenModule { .. } => "token_module",
            Self::TokenLost => "token_lost",
            Self::TokenBusy => "token_busy",
            Self::TokenPin => "token_pin",
            Self::TokenKeyMissing { .. } => "token_key_missing",
            Self::TokenKeyExists { .. } => "token_key_exists",
            Self::TokenKeyExtractable { .. } => "token_key_extractable",
            Self::TokenRefused { .. } => "token_refused",
            Self::SignerAway { .. } => "signer_away",
            Self::SignerBusy => "signer_busy",
            Self::SignerAnswer { .. } => "signer_answer",
            Self::SignerKey { .. } => "signer_key",
            Self::Remote { code, .. } => code,
            Self::EpochKeysFull { .. } => "epoch_keys_full",
            Self::EpochKeyUnsealed { .. } => "epoch_key_unsealed",
            Self::AttestationMissing => "attestation_missing",
            Self::AttestationLog { .. } => "attestation_log",
            Self::SigningFailed => "signing_failed",
            Self::Custody { .. } => "custody_key",
            Self::ApprovalMissing { .. } => "approval_missing",
            Self::ApprovalForeign { .. } => "approval_foreign",
            Self::ApprovalStale { .. } => "approval_stale",
            Self::SealPolicy { .. } => "seal_policy",
            Self::Share(error) => error.code(),
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
                | Self::Remote { guard: true, .. }
        )
    }

    /// Whether the same request may succeed later without anyone mending something: a device or the signer's process was
    /// busy or away, or hardware gave no signature this once.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::SigningFailed
                | Self::TpmLost
                | Self::TpmReset
                | Self::TpmBusy
                | Self::TpmLockout
                | Self::TokenLost
                | Self::TokenBusy
                | Self::SignerAway { .. }
                | Self::SignerBusy
                | Self::Remote { retryable: true, .. }
        )
    }

    /// Whether a secret stays sealed because nothing approves the machine's state. An approval opens it, without a restart.
    #[must_use]
    pub fn is_unapproved(&self) -> bool {
        ["approval_missing", "approval_foreign", "approval_stale"].contains(&self.code())
    }

    /// Whether another value was signed at the same position, here or in `stele-signer`.
    #[must_use]
    pub fn is_double_sign(&self) -> bool {
        self.code() == "double_sign"
    }

    /// The code that another process told.
    #[cfg(feature = "remote")]
    pub(crate) fn known_code(told: &str) -> &'static str {
        /// Codes that a signer may tell; all others are of callers or of its start.
        const KNOWN: [&str; 34] = [
            "malformed_request",
            "guard_missing",
            "foreign_validator",
            "double_sign",
            "regression",
            "checkpoint_regression",
            "checkpoint_fork",
            "guard_io",
            "guard_poisoned",
            "key_file_exists",
            "key_file_io",
            "tpm_key_foreign",
            "tpm_lost",
            "tpm_reset",
            "tpm_busy",
            "tpm_lockout",
            "tpm_failure",
            "tpm_refused",
            "token_lost",
            "token_busy",
            "token_pin",
            "token_key_missing",
            "token_refused",
            "attestation_missing",
            "attestation_log",
            "signer_key",
            "signer_busy",
            "signing_failed",
            "custody_key",
            "epoch_keys_full",
            "approval_missing",
            "approval_foreign",
            "approval_stale",
            "seal_policy",
        ];
        KNOWN.into_iter().find(|known| *known == told).unwrap_or("signer_refused")
    }
}

/// A key of custody cannot be used.
pub(crate) const fn custody(reason: &'static str) -> SignerError {
    SignerError::Custody { reason }
}
