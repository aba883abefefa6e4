//! What keys in hardware have in common: threads that own the hardware, a bounded queue before them, and a signer that asks
//! its guards on those threads.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use futures::channel::oneshot;

use crate::{
    error::SignerError,
    figures::Counters,
    guard::{CheckpointGuard, VoteGuard, VotePosition},
    kind::SignerKind,
    public_key::PublicKey,
    request::{CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PeerBindingRequest, VoteRequest},
    signer::{Signature, Signer, SignerFigures},
};

/// The hardware, as the thread that owns it uses it.
pub trait Backend: Send + 'static {
    /// A key, as the hardware finds or loads it.
    type Key: fmt::Debug + Send + Sync + 'static;

    /// What the hardware is.
    const KIND: SignerKind;

    /// Told when the hardware does not answer, or its thread has ended.
    const LOST: fn() -> SignerError;

    /// Told when as many requests wait as may.
    const BUSY: fn() -> SignerError;

    /// One ECDSA signature over the SHA-256 of bytes.
    ///
    /// # Errors
    /// Those of the hardware.
    fn sign(&mut self, key: &Self::Key, bytes: &[u8]) -> Result<Signature, SignerError>;

    /// Gives up what a panic may have left half-done.
    fn reset(&mut self);
}

type Work<B> = Box<dyn FnOnce(&mut B) + Send>;

/// The way to the threads that own the hardware. They end with the last copy of it.
pub(crate) struct Queue<B> {
    shared: Arc<Shared<B>>,
}

struct Shared<B> {
    /// None once the last copy is dropped.
    sender: Option<Sender<Work<B>>>,
    overflows: AtomicU64,
    /// Closed when all threads have done their work.
    ended: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        /// Hardware that hangs must not hold the end of the process.
        const END_WAIT_MAX: Duration = Duration::from_secs(2);
        drop(self.sender.take());
        // Foreign libraries do not take it well if the process ends while a thread is in them, and that includes what they do
        // for a thread that ends: OpenSSL frees its part of the state that the end of the process frees as a whole.
        if self.ended.recv_timeout(END_WAIT_MAX) == Err(RecvTimeoutError::Disconnected) {
            for thread in self.threads.drain(..) {
                thread.join().ok();
            }
        }
    }
}

impl<B: Backend> Queue<B> {
    /// Starts a thread for each backend, which share a queue of `length_max`.
    pub(crate) fn start(name: &str, backends: Vec<B>, length_max: usize) -> Result<Self, SignerError> {
        let (sender, requests) = bounded::<Work<B>>(length_max);
        let (lives, ended) = bounded(0);
        let mut threads = Vec::with_capacity(backends.len());
        for backend in backends {
            let (requests, lives) = (requests.clone(), lives.clone());
            let run = move || {
                let _lives: Sender<()> = lives;
                // Dropped before that.
                let mut backend = backend;
                while let Ok(work) = requests.recv() {
                    // Foreign libraries assert what the hardware answers. Whoever asked is told that it was lost, which is
                    // what such an answer amounts to; the next request begins anew.
                    if panic::catch_unwind(AssertUnwindSafe(|| work(&mut backend))).is_err() {
                        backend.reset();
                    }
                }
            };
            threads.push(thread::Builder::new().name(name.into()).spawn(run).map_err(|_| (B::LOST)())?);
        }
        Ok(Self { shared: Arc::new(Shared { sender: Some(sender), overflows: AtomicU64::new(0), ended, threads }) })
    }

    /// Requests that were refused because too many waited.
    pub(crate) fn overflows(&self) -> u64 {
        self.shared.overflows.load(Ordering::Relaxed)
    }

    /// Runs work on one of the threads. Work whose future is dropped runs all the same.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut B) -> Result<T, SignerError> + Send + 'static,
    ) -> Result<T, SignerError> {
        self.enqueue(work)?.await.unwrap_or_else(|_| Err((B::LOST)()))
    }

    /// As [`Self::call`], for callers that may block: those that open and make keys.
    pub(crate) fn call_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut B) -> Result<T, SignerError> + Send + 'static,
    ) -> Result<T, SignerError> {
        futures::executor::block_on(self.call(work))
    }

    fn enqueue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut B) -> Result<T, SignerError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, SignerError>>, SignerError> {
        let (sender, receiver) = oneshot::channel();
        let work = move |backend: &mut B| {
            // Whoever asked may have gone.
            drop(sender.send(work(backend)));
        };
        match self.shared.sender.as_ref().map(|sender| sender.try_send(Box::new(work))) {
            Some(Ok(())) => Ok(receiver),
            Some(Err(TrySendError::Full(_))) => {
                self.shared.overflows.fetch_add(1, Ordering::Relaxed);
                Err((B::BUSY)())
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err((B::LOST)()),
        }
    }
}

impl<B> Clone for Queue<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// A P-256 key that hardware made and never gives away. Signatures are not deterministic, and `s` is not normalised.
///
/// Guards are asked on the hardware's thread: what waits for it does not block whoever asked, but another signer of the same
/// validator waits for the guard while the hardware signs.
pub struct HardwareSigner<B: Backend> {
    queue: Queue<B>,
    key: Arc<B::Key>,
    public_key: PublicKey,
    votes: Option<Arc<VoteGuard>>,
    checkpoints: Option<Arc<CheckpointGuard>>,
    counters: Counters,
}

impl<B: Backend> HardwareSigner<B> {
    pub(crate) fn new(queue: &Queue<B>, key: B::Key, public_key: PublicKey) -> Self {
        let (queue, key) = (queue.clone(), Arc::new(key));
        Self { queue, key, public_key, votes: None, checkpoints: None, counters: Counters::default() }
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

    /// The key, as the hardware finds or loads it.
    #[must_use]
    pub const fn key(&self) -> &Arc<B::Key> {
        &self.key
    }

    /// Signs bytes of a request that was validated and that no guard judges.
    async fn sign_unguarded(&self, bytes: Vec<u8>) -> Result<Signature, SignerError> {
        let key = Arc::clone(&self.key);
        self.queue.call(move |backend| backend.sign(&key, &bytes)).await
    }
}

#[async_trait]
impl<B: Backend> Signer for HardwareSigner<B> {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn kind(&self) -> SignerKind {
        B::KIND
    }

    async fn sign_vote(&self, request: &VoteRequest<'_>) -> Result<Signature, SignerError> {
        let started = Instant::now();
        let result = match (request.validate(), &self.votes) {
            (Err(malformed), _) => Err(malformed),
            (Ok(()), None) => Err(SignerError::GuardMissing { guard: "vote" }),
            (Ok(()), Some(guard)) => {
                let (guard, key, bytes) = (Arc::clone(guard), Arc::clone(&self.key), request.bytes.to_vec());
                let VoteRequest { validator, height, round, step, value_id, .. } = *request;
                let work = move |backend: &mut B| {
                    let request = VoteRequest { validator, height, round, step, value_id, bytes: &bytes };
                    guard.sign_once(&request, |bytes| backend.sign(&key, bytes))
                };
                self.queue.call(work).await
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
                let work = move |backend: &mut B| {
                    let request = CheckpointRequest { tree_size, root, sig_structure: &bytes };
                    guard.sign_once(&request, |bytes| backend.sign(&key, bytes))
                };
                self.queue.call(work).await
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
        let own = request.public_key == self.public_key.sec1_compressed;
        let result = match request.signing_bytes() {
            Ok(bytes) if own => self.sign_unguarded(bytes).await,
            Ok(_) => Err(SignerError::MalformedRequest { reason: "the public key is not this signer's" }),
            Err(malformed) => Err(malformed),
        };
        self.counters.settle(&self.counters.peer_bindings, started, result)
    }

    async fn last_vote(&self) -> Result<Option<VotePosition>, SignerError> {
        let guard = Arc::clone(self.votes.as_ref().ok_or(SignerError::GuardMissing { guard: "vote" })?);
        // On the hardware's thread: while that signs, the guard is locked.
        self.queue.call(move |_| Ok(guard.last())).await
    }

    async fn abstain(&self, height: u64) -> Result<(), SignerError> {
        let guard = Arc::clone(self.votes.as_ref().ok_or(SignerError::GuardMissing { guard: "vote" })?);
        self.queue.call(move |_| guard.abstain(height)).await
    }

    fn figures(&self) -> SignerFigures {
        self.counters.read()
    }
}

impl<B: Backend> fmt::Debug for HardwareSigner<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HardwareSigner").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}
