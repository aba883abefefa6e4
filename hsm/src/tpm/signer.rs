//! A key in a TPM that signs the typed requests.

use std::{path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use stele_evidence::{SignatureScheme, TpmSignature};
use tss_esapi::traits::Marshall;

use crate::{
    error::SignerError,
    figures::Counters,
    guard::{CheckpointGuard, VoteGuard},
    public_key::PublicKey,
    request::{CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PeerBindingRequest, VoteRequest},
    signer::{Signature, Signer, SignerFigures},
    tpm::{
        connection::Key,
        device::{TpmDevice, Worker},
        fault::Fault,
        key_file::TpmKeyFile,
    },
};

/// A P-256 key that a TPM made and never gives away. Signatures are not deterministic, and `s` is not normalised.
///
/// Guards are asked on the TPM's thread, in the order in which requests came: what waits for the TPM does not block whoever
/// asked, but another signer of the same validator waits for the guard while the TPM signs.
#[derive(Debug)]
pub struct TpmSigner {
    device: TpmDevice,
    key: Arc<TpmKeyFile>,
    votes: Option<Arc<VoteGuard>>,
    checkpoints: Option<Arc<CheckpointGuard>>,
    counters: Counters,
}

impl TpmSigner {
    /// Lets the TPM make a new key, and writes its wrapped half to a new file of mode 0600. Blocks.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`], and errors of the TPM.
    pub fn generate(device: &TpmDevice, path: &Path) -> Result<Self, SignerError> {
        let made = device.call_blocking(|worker| {
            worker.attempt(|connection| {
                let (public, private) = connection.create_signing_key()?;
                Ok((public.marshall()?, private.value().to_vec()))
            })
        });
        let (public, private) = made?;
        let key = TpmKeyFile::from_parts(&public, private).ok_or(SignerError::SigningFailed)?;
        key.write_new(path)?;
        Self::with_key(device, key)
    }

    /// Opens a key file and lets the TPM load it. Guards are added with [`Self::with_vote_guard`] and
    /// [`Self::with_checkpoint_guard`]; without one the signer refuses requests of that kind. Blocks.
    ///
    /// # Errors
    /// Those of [`TpmKeyFile::read`], [`SignerError::TpmKeyForeign`] for the key of another TPM, and errors of the TPM.
    pub fn open(device: &TpmDevice, path: &Path) -> Result<Self, SignerError> {
        Self::with_key(device, TpmKeyFile::read(path)?)
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

    /// The key as its file holds it.
    #[must_use]
    pub fn key(&self) -> &Arc<TpmKeyFile> {
        &self.key
    }

    fn with_key(device: &TpmDevice, key: TpmKeyFile) -> Result<Self, SignerError> {
        let key = Arc::new(key);
        let loaded = Arc::clone(&key);
        device.call_blocking(move |worker| {
            worker.attempt(|connection| connection.public(Key::Signing(&loaded)).map(drop))
        })?;
        Ok(Self { device: device.clone(), key, votes: None, checkpoints: None, counters: Counters::default() })
    }

    /// Signs bytes of a request that was validated and that no guard judges.
    async fn sign_unguarded(&self, bytes: Vec<u8>) -> Result<Signature, SignerError> {
        let key = Arc::clone(&self.key);
        self.device.call(move |worker| sign(worker, &key, &bytes)).await
    }
}

#[async_trait]
impl Signer for TpmSigner {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    async fn sign_vote(&self, request: &VoteRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match (request.validate(), &self.votes) {
            (Err(malformed), _) => Err(malformed),
            (Ok(()), None) => Err(SignerError::GuardMissing { guard: "vote" }),
            (Ok(()), Some(guard)) => {
                let (guard, key, bytes) = (Arc::clone(guard), Arc::clone(&self.key), request.bytes.to_vec());
                let VoteRequest { validator, height, round, step, value_id, .. } = *request;
                let work = move |worker: &mut Worker| {
                    let request = VoteRequest { validator, height, round, step, value_id, bytes: &bytes };
                    guard.sign_once(&request, |bytes| sign(worker, &key, bytes))
                };
                self.device.call(work).await
            }
        };
        self.counters.settle(&self.counters.votes, started, result)
    }

    async fn sign_checkpoint(&self, request: &CheckpointRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match (request.validate(), &self.checkpoints) {
            (Err(malformed), _) => Err(malformed),
            (Ok(()), None) => Err(SignerError::GuardMissing { guard: "checkpoint" }),
            (Ok(()), Some(guard)) => {
                let (guard, key, bytes) = (Arc::clone(guard), Arc::clone(&self.key), request.sig_structure.to_vec());
                let CheckpointRequest { tree_size, root, .. } = *request;
                let work = move |worker: &mut Worker| {
                    let request = CheckpointRequest { tree_size, root, sig_structure: &bytes };
                    guard.sign_once(&request, |bytes| sign(worker, &key, bytes))
                };
                self.device.call(work).await
            }
        };
        self.counters.settle(&self.counters.checkpoints, started, result)
    }

    async fn sign_epoch_certificate(&self, request: &EpochCertificateRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match request.validate() {
            Ok(()) => self.sign_unguarded(request.bytes.to_vec()).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.epoch_certificates, started, result)
    }

    async fn sign_custody_receipt(&self, request: &CustodyReceiptRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match request.validate() {
            Ok(()) => self.sign_unguarded(request.bytes.to_vec()).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.custody_receipts, started, result)
    }

    async fn sign_peer_binding(&self, request: &PeerBindingRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let own = request.public_key == self.public_key().sec1_compressed;
        let result = match request.signing_bytes() {
            Ok(bytes) if own => self.sign_unguarded(bytes).await,
            Ok(_) => Err(SignerError::MalformedRequest { reason: "the public key is not this signer's" }),
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.peer_bindings, started, result)
    }

    fn figures(&self) -> SignerFigures {
        self.counters.read()
    }
}

/// One ECDSA signature over the SHA-256 of bytes.
fn sign(worker: &mut Worker, key: &TpmKeyFile, bytes: &[u8]) -> Result<Signature, SignerError> {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let signature: Result<Vec<u8>, SignerError> = worker.attempt(|connection| {
        let signature = connection.sign(Key::Signing(key), &digest)?;
        signature.marshall().map_err(Fault::from)
    });
    fixed(&signature?).ok_or(SignerError::SigningFailed)
}

/// `r ‖ s` at full width: a TPM may leave leading zeros out.
fn fixed(signature: &[u8]) -> Option<Signature> {
    let SignatureScheme::Ecdsa { r, s } = TpmSignature::parse(signature).ok()?.scheme else { return None };
    let mut bytes = [0; 64];
    for (half, value) in bytes.chunks_exact_mut(32).zip([r, s]) {
        half.get_mut(32_usize.checked_sub(value.len())?..)?.copy_from_slice(value);
    }
    Some(bytes)
}
