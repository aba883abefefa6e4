//! A key in a file: for development, tests and the demo, chosen by name in the configuration.

use std::{fmt, path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use p256::{
    SecretKey,
    ecdsa::{self, SigningKey, signature::Signer as _},
};
use rand_core::OsRng;
use zeroize::Zeroizing;

use crate::{
    error::SignerError,
    figures::Counters,
    guard::{CheckpointGuard, VoteGuard, VotePosition},
    key_file,
    kind::SignerKind,
    public_key::PublicKey,
    request::{CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PeerBindingRequest, VoteRequest},
    signer::{Signature, Signer, SignerFigures},
};

/// A P-256 key read from a file; nonces are those of RFC 6979, so equal requests get equal signatures.
///
/// The key is wiped from memory when the signer is dropped. Signing takes some tens of microseconds of
/// processor time and, with a guard, one `fdatasync`; both happen inside the future's first poll.
pub struct SoftwareSigner {
    key: SigningKey,
    public_key: PublicKey,
    votes: Option<Arc<VoteGuard>>,
    checkpoints: Option<Arc<CheckpointGuard>>,
    counters: Counters,
}

impl SoftwareSigner {
    /// Makes a new key, writes it to a new file of mode 0600 and opens it.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`].
    pub fn generate(path: &Path) -> Result<Self, SignerError> {
        let key = SecretKey::random(&mut OsRng);
        key_file::write_new(path, &key)?;
        Self::from_key(&key)
    }

    /// Opens a key file. Guards are added with [`Self::with_vote_guard`] and
    /// [`Self::with_checkpoint_guard`]; without one the signer refuses requests of that kind.
    ///
    /// # Errors
    /// [`SignerError::KeyFilePermissions`] unless only the owner may touch the file,
    /// [`SignerError::KeyFileMalformed`], [`SignerError::KeyFileIo`].
    pub fn open(path: &Path) -> Result<Self, SignerError> {
        Self::from_key(&key_file::read(path)?)
    }

    /// Makes a key that lives in memory only, as epoch keys do.
    ///
    /// # Errors
    /// [`SignerError::SigningFailed`] if the key has no encoding, which no valid key lacks.
    pub fn ephemeral() -> Result<Self, SignerError> {
        Self::from_key(&SecretKey::random(&mut OsRng))
    }

    /// Makes a key that lives in memory only, and gives its secret, a scalar of 32 bytes, to be sealed.
    ///
    /// # Errors
    /// As [`Self::ephemeral`].
    pub fn ephemeral_with_secret() -> Result<(Self, Zeroizing<[u8; 32]>), SignerError> {
        let key = SecretKey::random(&mut OsRng);
        Ok((Self::from_key(&key)?, Zeroizing::new(key.to_bytes().into())))
    }

    /// Writes a secret to a new key file of mode 0600.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`], [`SignerError::SigningFailed`] for bytes that are no such
    /// scalar.
    pub fn save_secret(secret: &[u8; 32], path: &Path) -> Result<(), SignerError> {
        let key = SecretKey::from_slice(secret).map_err(|_| SignerError::SigningFailed)?;
        key_file::write_new(path, &key)
    }

    /// The key of a secret that was sealed.
    ///
    /// # Errors
    /// [`SignerError::SigningFailed`] for bytes that are no such scalar.
    pub fn from_secret(secret: &[u8]) -> Result<Self, SignerError> {
        Self::from_key(&SecretKey::from_slice(secret).map_err(|_| SignerError::SigningFailed)?)
    }

    /// Lets this signer vote; the guard may be shared with other keys of the same validator.
    #[must_use]
    pub fn with_vote_guard(mut self, guard: Arc<VoteGuard>) -> Self {
        self.votes = Some(guard);
        self
    }

    /// Lets this signer sign checkpoints.
    #[must_use]
    pub fn with_checkpoint_guard(mut self, guard: Arc<CheckpointGuard>) -> Self {
        self.checkpoints = Some(guard);
        self
    }

    fn from_key(key: &SecretKey) -> Result<Self, SignerError> {
        let key = SigningKey::from(key);
        let public_key = PublicKey::from_verifying_key(key.verifying_key())?;
        Ok(Self { key, public_key, votes: None, checkpoints: None, counters: Counters::default() })
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError> {
        let signature: ecdsa::Signature = self.key.try_sign(bytes).map_err(|_| SignerError::SigningFailed)?;
        Ok(signature.to_bytes().into())
    }
}

#[async_trait]
impl Signer for SoftwareSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn kind(&self) -> SignerKind {
        SignerKind::Software
    }

    async fn sign_vote(&self, request: &VoteRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = request.validate().and_then(|()| {
            let guard = self.votes.as_ref().ok_or(SignerError::GuardMissing { guard: "vote" })?;
            guard.sign_once(request, |bytes| self.sign(bytes))
        });
        self.counters.settle(&self.counters.votes, started, result)
    }

    async fn sign_checkpoint(&self, request: &CheckpointRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = request.validate().and_then(|()| {
            let missing = SignerError::GuardMissing { guard: "checkpoint" };
            let guard = self.checkpoints.as_ref().ok_or(missing)?;
            guard.sign_once(request, |bytes| self.sign(bytes))
        });
        self.counters.settle(&self.counters.checkpoints, started, result)
    }

    async fn sign_epoch_certificate(&self, request: &EpochCertificateRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = request.validate().and_then(|()| self.sign(request.bytes));
        self.counters.settle(&self.counters.epoch_certificates, started, result)
    }

    async fn sign_custody_receipt(&self, request: &CustodyReceiptRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = request.validate().and_then(|()| self.sign(request.bytes));
        self.counters.settle(&self.counters.custody_receipts, started, result)
    }

    async fn sign_peer_binding(&self, request: &PeerBindingRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = request.signing_bytes().and_then(|bytes| {
            if request.public_key == self.public_key.sec1_compressed {
                self.sign(&bytes)
            } else {
                Err(SignerError::MalformedRequest { reason: "the public key is not this signer's" })
            }
        });
        self.counters.settle(&self.counters.peer_bindings, started, result)
    }

    async fn last_vote(&self) -> Result<Option<VotePosition>, SignerError> {
        let guard = self.votes.as_ref().ok_or(SignerError::GuardMissing { guard: "vote" })?;
        Ok(guard.last())
    }

    async fn abstain(&self, height: u64) -> Result<(), SignerError> {
        self.votes.as_ref().ok_or(SignerError::GuardMissing { guard: "vote" })?.abstain(height)
    }

    fn figures(&self) -> SignerFigures {
        self.counters.read()
    }
}

impl fmt::Debug for SoftwareSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SoftwareSigner").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}
