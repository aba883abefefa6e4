//! The trait that every key holder implements.

use async_trait::async_trait;

use crate::{
    error::SignerError,
    guard::VotePosition,
    kind::SignerKind,
    public_key::PublicKey,
    request::{CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PeerBindingRequest, VoteRequest},
};

/// A signature in fixed form: `r ‖ s`, 32 bytes each, big-endian. `s` is not normalised, because a TPM
/// does not normalise it either.
pub type Signature = [u8; 64];

/// Holds one private key and signs the typed requests of [`crate::request`].
///
/// An implementation first validates the request, then asks its guard, signs, stores what it signed, and
/// only then returns the signature. A future that is dropped half-way may have stored a signature; asked
/// again for the same value, the signer returns that one.
#[async_trait]
pub trait Signer: Send + Sync {
    /// The public half of the key.
    fn public_key(&self) -> &PublicKey;

    /// What holds the private half.
    fn kind(&self) -> SignerKind;

    /// Signs one consensus message.
    ///
    /// # Errors
    /// [`SignerError::DoubleSign`] and [`SignerError::Regression`] from the guard, besides malformed
    /// requests and failures of key or disk.
    async fn sign_vote(&self, request: &VoteRequest<'_>) -> Result<Signature, SignerError>;

    /// Signs one checkpoint of the log.
    ///
    /// # Errors
    /// [`SignerError::CheckpointRegression`] and [`SignerError::CheckpointFork`] from the guard, besides
    /// malformed requests and failures of key or disk.
    async fn sign_checkpoint(&self, request: &CheckpointRequest<'_>) -> Result<Signature, SignerError>;

    /// Signs a certificate for an epoch key, which then votes for this validator over a height range.
    ///
    /// # Errors
    /// Malformed requests and failures of the key.
    async fn sign_epoch_certificate(&self, request: &EpochCertificateRequest<'_>) -> Result<Signature, SignerError>;

    /// Signs the statement that this node holds a copy of a sealed body.
    ///
    /// # Errors
    /// Malformed requests and failures of the key.
    async fn sign_custody_receipt(&self, request: &CustodyReceiptRequest<'_>) -> Result<Signature, SignerError>;

    /// Signs the statement that a network peer id speaks for this validator.
    ///
    /// # Errors
    /// Malformed requests and failures of the key.
    async fn sign_peer_binding(&self, request: &PeerBindingRequest<'_>) -> Result<Signature, SignerError>;

    /// The last vote that the validator's guard has recorded, with whichever of its keys.
    ///
    /// # Errors
    /// [`SignerError::GuardMissing`], and failures to reach the guard.
    async fn last_vote(&self) -> Result<Option<VotePosition>, SignerError>;

    /// Signs no vote at `height` or below it any more, durably, with whichever key of the validator: it no longer knows
    /// what it is bound to by its votes there.
    ///
    /// # Errors
    /// [`SignerError::GuardMissing`], and failures of the guard.
    async fn abstain(&self, height: u64) -> Result<(), SignerError>;

    /// What this signer did since it was opened.
    fn figures(&self) -> SignerFigures;
}

/// Counters of a signer since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignerFigures {
    /// Consensus messages signed, stored signatures given again included.
    pub votes_signed: u64,
    /// Checkpoints signed, stored signatures given again included.
    pub checkpoints_signed: u64,
    /// Epoch certificates signed.
    pub epoch_certificates_signed: u64,
    /// Custody receipts signed.
    pub custody_receipts_signed: u64,
    /// Peer bindings signed.
    pub peer_bindings_signed: u64,
    /// Requests that a guard refused.
    pub guard_refusals: u64,
    /// Requests that failed for any other reason.
    pub failures: u64,
    /// Time spent in calls that signed, in nanoseconds.
    pub signing_nanoseconds: u64,
}
