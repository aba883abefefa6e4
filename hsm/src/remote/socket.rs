//! The connection to `stele-signer`.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    error::SignerError,
    kind::SignerKind,
    remote::{
        attestor::RemoteAttestor,
        custodian::RemoteCustodian,
        signer::RemoteSigner,
        wire::{
            self, ANSWER_LENGTH_MAX, Answer, Description, KeyBytes, KeyDescription, REQUEST_LENGTH_MAX, Request, Role,
        },
    },
};

/// Requests that may be under way. A TPM signs about five times a second and its own queue is shorter.
const UNDER_WAY_MAX: usize = 1024;

/// Requests that may wait to be written.
const WAITING_MAX: usize = 256;

/// How long an answer is waited for: a TPM's whole queue takes some twenty seconds.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a write may take: the signer reads at once, or it hangs.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(5);

/// After a failed connection the next is not tried for this long, so that requests fail at once and not one by one.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Who waits for an answer on a connection, by the number of the request.
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Zeroizing<Vec<u8>>>>>>;

/// The way to a signer process. Clones share one connection, which is made when it is needed and again after a loss.
#[derive(Clone)]
pub struct SignerSocket {
    path: Arc<PathBuf>,
    calls: mpsc::Sender<Call>,
    counters: Arc<Counters>,
}

/// What became of the connection since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFigures {
    /// Whether it stands.
    pub connected: bool,
    /// Connections made.
    pub connections: u64,
    /// Requests that found no signer, or lost it.
    pub losses: u64,
    /// Requests that were refused because too many were under way.
    pub overflows: u64,
    /// Requests under way.
    pub under_way: usize,
}

#[derive(Debug, Default)]
struct Counters {
    connected: AtomicBool,
    connections: AtomicU64,
    losses: AtomicU64,
    overflows: AtomicU64,
    numbers: AtomicU64,
    under_way: AtomicUsize,
}

struct Call {
    number: u64,
    frame: Vec<u8>,
    answer: oneshot::Sender<Zeroizing<Vec<u8>>>,
}

impl SignerSocket {
    /// The signer that listens at `path`. Nothing is sent yet. To be called within a runtime, which keeps the connection.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let (calls, waiting) = mpsc::channel(WAITING_MAX);
        let (path, counters) = (Arc::new(path.to_owned()), Arc::<Counters>::default());
        tokio::spawn(drive(Arc::clone(&path), waiting, Arc::clone(&counters)));
        Self { path, calls, counters }
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its keys, and what it can do.
    ///
    /// # Errors
    /// [`SignerError::SignerAway`], [`SignerError::SignerAnswer`] for a signer of another version.
    pub async fn describe(&self) -> Result<Description, SignerError> {
        match self.ask(&Request::Describe).await? {
            Answer::Description { description } if description.version == wire::VERSION => Ok(description),
            _ => Err(SignerError::SignerAnswer { reason: "it speaks another version of the protocol" }),
        }
    }

    /// The signer's only key of a role, which must be of the kind that the caller expects.
    ///
    /// # Errors
    /// [`SignerError::SignerKey`], and those of [`Self::describe`].
    pub async fn signer(&self, role: Role, kind: SignerKind) -> Result<RemoteSigner, SignerError> {
        let key = self.only_key(role).await?;
        if key.kind()? != kind {
            let reason = "another backend holds it than the configuration names";
            return Err(SignerError::SignerKey { role: role.name(), reason });
        }
        RemoteSigner::new(self, &key)
    }

    /// The signer's custody key, which must be of the kind that the caller expects. Whether the signer can open it now is
    /// told by the first class key.
    ///
    /// # Errors
    /// As [`Self::signer`].
    pub async fn custodian(&self, kind: SignerKind) -> Result<RemoteCustodian, SignerError> {
        RemoteCustodian::new(self, &self.only_key(Role::Custody).await?, kind)
    }

    async fn only_key(&self, role: Role) -> Result<KeyDescription, SignerError> {
        let missing = |reason| SignerError::SignerKey { role: role.name(), reason };
        let mut keys = self.describe().await?.keys.into_iter().filter(|key| key.role == role);
        let key = keys.next().ok_or_else(|| missing("it has none"))?;
        if keys.next().is_some() { Err(missing("it has more than one")) } else { Ok(key) }
    }

    /// The signer's epoch keys.
    ///
    /// # Errors
    /// Those of [`Self::describe`].
    pub async fn epoch_signers(&self) -> Result<Vec<RemoteSigner>, SignerError> {
        let keys = self.describe().await?.keys;
        keys.iter().filter(|key| key.role == Role::Epoch).map(|key| RemoteSigner::new(self, key)).collect()
    }

    /// Lets the signer make one more epoch key. It votes once the ledger has its certificate.
    ///
    /// # Errors
    /// Those of the signer.
    pub async fn make_epoch_key(&self) -> Result<RemoteSigner, SignerError> {
        match self.ask(&Request::MakeEpochKey).await? {
            Answer::Key { key } if key.role == Role::Epoch => RemoteSigner::new(self, &key),
            _ => Err(unexpected()),
        }
    }

    /// Lets the signer destroy an epoch key: it signs nothing more, and its file is gone.
    ///
    /// # Errors
    /// Those of the signer.
    pub async fn retire_epoch_key(&self, key: KeyBytes) -> Result<(), SignerError> {
        match self.ask(&Request::RetireEpochKey { key }).await? {
            Answer::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Asks the signer's TPM to attest.
    #[must_use]
    pub fn attestor(&self) -> RemoteAttestor {
        RemoteAttestor::new(self)
    }

    /// Counters since it was opened.
    #[must_use]
    pub fn figures(&self) -> SocketFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SocketFigures {
            connected: self.counters.connected.load(Ordering::Relaxed),
            connections: read(&self.counters.connections),
            losses: read(&self.counters.losses),
            overflows: read(&self.counters.overflows),
            under_way: self.counters.under_way.load(Ordering::Relaxed),
        }
    }

    /// Asks, and waits for the answer. A refusal is an error.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Answer, SignerError> {
        let number = self.counters.numbers.fetch_add(1, Ordering::Relaxed);
        let frame = wire::frame(number, request, REQUEST_LENGTH_MAX)?;
        let (answer, receiver) = oneshot::channel();
        let place = Place::take(&self.counters.under_way).ok_or_else(|| self.overflow())?;
        self.calls.try_send(Call { number, frame, answer }).map_err(|_| self.overflow())?;
        let bytes = timeout(ANSWER_WAIT_MAX, receiver).await.ok().and_then(Result::ok);
        drop(place);
        let Some(bytes) = bytes else {
            self.counters.losses.fetch_add(1, Ordering::Relaxed);
            return Err(SignerError::SignerAway { path: self.path.to_path_buf() });
        };
        match wire::parse::<Answer>(&bytes) {
            Ok((_, Answer::Refused { refusal })) => Err(refusal.into()),
            Ok((_, answer)) => Ok(answer),
            Err(_) => Err(SignerError::SignerAnswer { reason: "it cannot be read" }),
        }
    }

    fn overflow(&self) -> SignerError {
        self.counters.overflows.fetch_add(1, Ordering::Relaxed);
        SignerError::SignerBusy
    }
}

impl fmt::Debug for SignerSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignerSocket").field("path", &self.path).finish_non_exhaustive()
    }
}

pub(super) const fn unexpected() -> SignerError {
    SignerError::SignerAnswer { reason: "it answers something else" }
}

/// The place of a request among those under way, left when it ends, or is given up.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(under_way: &'a AtomicUsize) -> Option<Self> {
        let taken = under_way.fetch_add(1, Ordering::Relaxed);
        // Dropped at once if there was none.
        let place = Self(under_way);
        (taken < UNDER_WAY_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes requests, and connects when there is no connection. Ends with the last handle. Whoever asked is told by the end of
/// its channel that there will be no answer.
async fn drive(path: Arc<PathBuf>, mut calls: mpsc::Receiver<Call>, counters: Arc<Counters>) {
    let mut connection: Option<Connection> = None;
    let mut failed_at: Option<Instant> = None;
    while let Some(call) = calls.recv().await {
        if connection.as_ref().is_none_or(Connection::is_lost) {
            connection = None;
            if failed_at.is_none_or(|failed_at| failed_at.elapsed() >= RECONNECT_PAUSE) {
                match Connection::open(&path, &counters).await {
                    Ok(opened) => (connection, failed_at) = (Some(opened), None),
                    Err(_) => failed_at = Some(Instant::now()),
                }
            }
        }
        if let Some(open) = &mut connection
            && open.write(call).await.is_err()
        {
            connection = None;
        }
    }
}

struct Connection {
    writer: OwnedWriteHalf,
    pending: Pending,
    reader: tokio::task::JoinHandle<()>,
}

impl Connection {
    async fn open(path: &Path, counters: &Arc<Counters>) -> io::Result<Self> {
        let stream = timeout(WRITE_WAIT_MAX, UnixStream::connect(path)).await??;
        let (reader, writer) = stream.into_split();
        counters.connections.fetch_add(1, Ordering::Relaxed);
        counters.connected.store(true, Ordering::Relaxed);
        let pending = Pending::default();
        let end = End { counters: Arc::clone(counters), pending: Arc::clone(&pending) };
        Ok(Self { writer, pending, reader: tokio::spawn(receive(reader, end)) })
    }

    fn is_lost(&self) -> bool {
        self.reader.is_finished()
    }

    async fn write(&mut self, call: Call) -> io::Result<()> {
        {
            let mut pending = lock(&self.pending);
            if pending.len() >= 2 * UNDER_WAY_MAX {
                // Those who gave up.
                pending.retain(|_, answer| !answer.is_closed());
            }
            pending.insert(call.number, call.answer);
        }
        timeout(WRITE_WAIT_MAX, self.writer.write_all(&call.frame)).await?
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Gives answers to those who wait for them.
async fn receive(mut stream: OwnedReadHalf, end: End) {
    while let Ok(Some(bytes)) = wire::read(&mut stream, ANSWER_LENGTH_MAX).await {
        let Some(number) = number(&bytes) else { return };
        let waiting = lock(&end.pending).remove(&number);
        // Whoever asked may have gone.
        drop(waiting.map(|waiting| waiting.send(bytes)));
    }
}

/// The number of an answer's frame.
fn number(bytes: &[u8]) -> Option<u64> {
    let mut decoder = minicbor::Decoder::new(bytes);
    (decoder.array().ok()? == Some(2)).then(|| decoder.u64().ok()).flatten()
}

/// Tells all who wait on a connection that it ended, also when its task is aborted.
struct End {
    counters: Arc<Counters>,
    pending: Pending,
}

impl Drop for End {
    fn drop(&mut self) {
        self.counters.connected.store(false, Ordering::Relaxed);
        lock(&self.pending).clear();
    }
}

fn lock(pending: &Pending) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Zeroizing<Vec<u8>>>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
