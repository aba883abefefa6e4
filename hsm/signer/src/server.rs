//! Who may ask, and how many at once.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use stele_hsm::{
    SignerError,
    remote::wire::{self, ANSWER_LENGTH_MAX, Answer, REQUEST_LENGTH_MAX, Refusal, Request},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Mutex, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::{
    config::{SocketSection, UserName},
    keys::Keys,
};

/// Connections at once: the node has one, an operator's command another.
const CONNECTIONS_MAX: usize = 32;

/// Requests under way on one connection; further ones wait in the socket.
const UNDER_WAY_MAX: usize = 128;

/// Logs on their way at once: each takes some 64 MiB.
const LOGS_MAX: usize = 1;

/// How long a peer may take to take an answer.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);

/// After a failed accept, so that a full table of files does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens and answers.
pub(crate) struct Server {
    listener: UnixListener,
    users: Vec<u32>,
    shared: Arc<Shared>,
}

/// What all connections use.
struct Shared {
    keys: Arc<Keys>,
    logs: Semaphore,
}

/// The end of a connection that answers are written to; none once an answer was cut off, since the next one would be taken
/// for its rest.
type Writer = Mutex<Option<OwnedWriteHalf>>;

impl Server {
    /// Binds the socket. A socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// An unknown user, a socket that another signer listens at, and errors of the file system.
    pub(crate) async fn bind(section: &SocketSection, keys: Arc<Keys>) -> anyhow::Result<Self> {
        let mut users = section.users.iter().map(user_id).collect::<anyhow::Result<Vec<_>>>()?;
        // Whoever can read its memory and files anyway: `stele-signer status` is theirs.
        users.extend([0, rustix::process::getuid().as_raw()]);
        remove_stale(&section.path).await?;
        let listener = UnixListener::bind(&section.path)
            .with_context(|| format!("cannot listen at {}", section.path.display()))?;
        // Others reach the socket by its directory's permissions; who is answered is asked of the kernel.
        fs::set_permissions(&section.path, fs::Permissions::from_mode(0o666))
            .with_context(|| format!("cannot open {} to others", section.path.display()))?;
        Ok(Self { listener, users, shared: Arc::new(Shared { keys, logs: Semaphore::new(LOGS_MAX) }) })
    }

    /// Answers until `stop`. `turns` counts the turns of this loop: it lives.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>, turns: watch::Sender<u64>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut pulse = tokio::time::interval(Duration::from_secs(1));
        loop {
            turns.send_modify(|turns| *turns += 1);
            tokio::select! {
                _ = pulse.tick() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &places, &mut connections),
                    Err(error) => {
                        warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                _ = stop.changed() => return,
            }
        }
    }

    fn admit(&self, stream: UnixStream, places: &Arc<Semaphore>, connections: &mut JoinSet<()>) {
        let user = match stream.peer_cred() {
            Ok(credentials) => credentials.uid(),
            Err(error) => return warn!(%error, "the kernel does not say who asks"),
        };
        if !self.users.contains(&user) {
            return warn!(user, "a user who may not ask was turned away");
        }
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return warn!(user, "too many connections");
        };
        let shared = Arc::clone(&self.shared);
        connections.spawn(async move {
            debug!(user, "connected");
            if let Err(error) = serve(stream, &shared).await {
                warn!(user, %error, "a connection was cut off");
            }
            drop(place);
        });
    }
}

/// Answers the requests of one connection, each in a task of its own.
async fn serve(stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let (mut reader, writer) = stream.into_split();
    let writer: Arc<Writer> = Arc::new(Mutex::new(Some(writer)));
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    // Dropped with a connection that is cut off.
    let mut under_way = JoinSet::new();
    loop {
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
        let Some(bytes) = wire::read(&mut reader, REQUEST_LENGTH_MAX).await? else {
            // Whoever asked may still read.
            while let Some(ended) = under_way.join_next().await {
                ended??;
            }
            return Ok(());
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (shared, writer) = (Arc::clone(shared), Arc::clone(&writer));
        under_way.spawn(async move {
            let answered = answer(&shared, &bytes, &writer).await;
            drop(place);
            answered
        });
    }
}

async fn answer(shared: &Shared, bytes: &[u8], writer: &Writer) -> io::Result<()> {
    let (number, request) = wire::parse::<Request<'_>>(bytes)?;
    // Until it is written.
    let _log = match request {
        Request::Log { .. } => shared.logs.acquire().await.ok(),
        _ => None,
    };
    let answer = shared.keys.answer(request).await.unwrap_or_else(|error| refuse(&error));
    let frame =
        Zeroizing::new(wire::frame(number, &answer, ANSWER_LENGTH_MAX).map_err(|_| io::ErrorKind::InvalidData)?);
    let mut place = writer.lock().await;
    let Some(open) = place.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let written = timeout(WRITE_WAIT_MAX, open.write_all(&frame)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    if written.is_err() {
        *place = None;
    }
    written
}

fn refuse(error: &SignerError) -> Answer {
    let code = error.code();
    if error.is_guard_refusal() {
        warn!(code, %error, "a guard refused");
    } else if error.is_retryable() {
        debug!(code, %error, "not now");
    } else {
        info!(code, %error, "refused");
    }
    Answer::Refused { refusal: Refusal::from(error) }
}

fn user_id(user: &UserName) -> anyhow::Result<u32> {
    match user {
        UserName::Number(number) => Ok(*number),
        UserName::Name(name) => nix::unistd::User::from_name(name)
            .with_context(|| format!("socket.users: {name}"))?
            .map(|user| user.uid.as_raw())
            .with_context(|| format!("socket.users: this machine has no user {name}")),
    }
}

/// A socket outlives the process that listened at it.
async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => anyhow::bail!("{} is no socket", path.display()),
        Ok(_) => {}
    }
    if UnixStream::connect(path).await.is_ok() {
        anyhow::bail!("another signer listens at {}", path.display());
    }
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}
