//! A key of another process that signs the typed requests.

use std::{fmt, time::Instant};

use async_trait::async_trait;
use p256::ecdsa::{self, VerifyingKey, signature::Verifier as _};

use crate::{
    error::SignerError,
    figures::Counters,
    guard::VotePosition,
    kind::SignerKind,
    public_key::PublicKey,
    remote::{
        socket::{SignerSocket, unexpected},
        wire::{Answer, KeyBytes, KeyDescription, Request},
    },
    request::{CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PeerBindingRequest, VoteRequest},
    signer::{Signature, Signer, SignerFigures},
};

/// A key that `stele-signer` holds.
pub struct RemoteSigner {
    socket: SignerSocket,
    name: KeyBytes,
    kind: SignerKind,
    public_key: PublicKey,
    verifying_key: VerifyingKey,
    counters: Counters,
}

impl RemoteSigner {
    /// The key of a description.
    ///
    /// # Errors
    /// [`SignerError::SignerAnswer`] if it describes no key, [`SignerError::BackendUnknown`].
    pub(super) fn new(socket: &SignerSocket, key: &KeyDescription) -> Result<Self, SignerError> {
        let invalid = |_| SignerError::SignerAnswer { reason: "its key is no point of P-256" };
        let verifying_key = VerifyingKey::from_sec1_bytes(&key.public_key).map_err(invalid)?;
        let (public_key, kind) = (PublicKey::from_verifying_key(&verifying_key)?, key.kind()?);
        let (socket, counters) = (socket.clone(), Counters::default());
        Ok(Self { socket, name: key.public_key, kind, public_key, verifying_key, counters })
    }

    async fn sign(&self, request: &Request<'_>, bytes: &[u8]) -> Result<Signature, SignerError> {
        let Answer::Signature { signature } = self.socket.ask(request).await? else { return Err(unexpected()) };
        let verified =
            ecdsa::Signature::from_slice(&signature).and_then(|signature| self.verifying_key.verify(bytes, &signature));
        match verified {
            Ok(()) => Ok(signature),
            Err(_) => Err(SignerError::SignerAnswer { reason: "its signature is not of the key that was asked" }),
        }
    }
}

#[async_trait]
impl Signer for RemoteSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn kind(&self) -> SignerKind {
        self.kind
    }

    async fn sign_vote(&self, request: &VoteRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match request.validate() {
            Ok(()) => self.sign(&Request::vote(self.name, request), request.bytes).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.votes, started, result)
    }

    async fn sign_checkpoint(&self, request: &CheckpointRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match request.validate() {
            Ok(()) => self.sign(&Request::checkpoint(self.name, request), request.sig_structure).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.checkpoints, started, result)
    }

    async fn sign_epoch_certificate(&self, request: &EpochCertificateRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match request.validate() {
            Ok(()) => self.sign(&Request::epoch_certificate(self.name, request), request.bytes).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.epoch_certificates, started, result)
    }

    async fn sign_custody_receipt(&self, request: &CustodyReceiptRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match request.validate() {
            Ok(()) => self.sign(&Request::custody_receipt(self.name, request), request.bytes).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.custody_receipts, started, result)
    }

    async fn sign_peer_binding(&self, request: &PeerBindingRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let asked = request.signing_bytes().and_then(|bytes| Ok((bytes, Request::peer_binding(self.name, request)?)));
        let result = match asked {
            Ok((bytes, asked)) => self.sign(&asked, &bytes).await,
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.peer_bindings, started, result)
    }

    async fn last_vote(&self) -> Result<Option<VotePosition>, SignerError> {
        match self.socket.ask(&Request::LastVote { key: self.name }).await? {
            Answer::LastVote { position } => position.map(VotePosition::try_from).transpose(),
            _ => Err(unexpected()),
        }
    }

    async fn abstain(&self, height: u64) -> Result<(), SignerError> {
        match self.socket.ask(&Request::Abstain { key: self.name, height }).await? {
            Answer::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    fn figures(&self) -> SignerFigures {
        self.counters.read()
    }
}

impl fmt::Debug for RemoteSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("RemoteSigner");
        shown.field("kind", &self.kind).field("public_key", &self.public_key).finish_non_exhaustive()
    }
}
