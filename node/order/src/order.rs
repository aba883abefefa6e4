//! The handle the node holds, and the supervisor behind it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::application::Application;
use crate::config::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_PER_SECOND_MAX, OrderConfig, Peer, Watchdog};
use crate::context::Part;
use crate::engine::{Engine, Health, directory_file, journal_path};
use crate::figures::{Figures, count};
use crate::shared::Shared;
use crate::signer::VoteSigner;
use crate::undecided::UndecidedBlocks;

/// How often the supervisor looks at the engine.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// First pause after the restarts in a row were used up.
const RESTART_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Application messages that wait for the application.
const MESSAGES_WAITING_MAX: usize = 256;
/// File of undecided blocks within the order's directory.
const UNDECIDED_FILE: &str = "undecided.blocks";

/// Why the order could not start.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The directory or a file in it.
    #[error("order directory {path}: {source}")]
    Directory {
        /// Directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The listening address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A peer's address is malformed.
    #[error("malformed address {0}")]
    Address(String),
    /// The configuration contradicts itself.
    #[error("order configuration: {0}")]
    Configuration(&'static str),
    /// A part of the engine did not start.
    #[error("the engine's {part} did not start: {reason}")]
    Engine {
        /// Which part.
        part: &'static str,
        /// What it said.
        reason: String,
    },
}

impl OrderError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "order_directory",
            Self::Listen { .. } => "order_listen",
            Self::Address(_) => "order_address",
            Self::Configuration(_) => "order_configuration",
            Self::Engine { .. } => "order_engine",
        }
    }
}

/// Why the order has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// [`Order::stop`].
    Requested,
    /// The application halts.
    Application(String),
    /// Undecided blocks cannot be written: a vote would promise what is not on disk.
    Storage(String),
    /// The engine's journal failed: going on in this process could sign twice.
    Journal,
}

impl StopReason {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Application(_) => "application",
            Self::Storage(_) => "storage",
            Self::Journal => "journal",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("requested"),
            Self::Application(reason) => write!(f, "the application halts: {reason}"),
            Self::Storage(reason) => write!(f, "undecided blocks cannot be written: {reason}"),
            Self::Journal => f.write_str("the engine's journal failed"),
        }
    }
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// Larger than [`MESSAGE_BYTES_MAX`].
    #[error("the message has {bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// More than [`MESSAGE_BYTES_PER_SECOND_MAX`]; later it may be sent.
    #[error("too many messages; the transport would queue them")]
    Busy,
    /// The engine is down or being restarted.
    #[error("the engine is not running")]
    NotRunning,
}

impl BroadcastError {
    /// Whether sending again later can help.
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

enum Control {
    Dump(oneshot::Sender<String>),
    Pin(Vec<Peer>, oneshot::Sender<Result<(), OrderError>>),
    Freeze,
}

/// A running order: blocks come out of it through [`Application::commit`].
pub struct Order {
    shared: Arc<Shared>,
    control: mpsc::Sender<Control>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    budget: Mutex<Budget>,
    ended: watch::Receiver<bool>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("validator", &self.shared.validator).finish_non_exhaustive()
    }
}

impl Order {
    /// Starts the engine. It runs in tasks of the current tokio runtime until [`Order::stop`], or until it must not go
    /// on; see [`Order::stopped`].
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn start(
        config: OrderConfig,
        signer: Arc<dyn VoteSigner>,
        application: Arc<dyn Application>,
    ) -> Result<Self, OrderError> {
        check(&config)?;
        let directory_error = |path: &PathBuf| {
            let path = path.clone();
            move |source| OrderError::Directory { path, source }
        };
        std::fs::create_dir_all(&config.directory).map_err(directory_error(&config.directory))?;
        let undecided_path = directory_file(&config.directory, UNDECIDED_FILE);
        let undecided = UndecidedBlocks::open(&undecided_path).map_err(directory_error(&undecided_path))?;
        // The file's name must be as durable as what will be flushed into it.
        std::fs::File::open(&config.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(directory_error(&config.directory))?;
        // The engine only logs that it cannot listen; asked first, the error names the address.
        TcpListener::bind(config.listen).map_err(|source| OrderError::Listen { address: config.listen, source })?;

        let (messages, messages_receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
        let shared = Arc::new(Shared::new(config, application, undecided, messages));
        let engine = Engine::start(shared.clone(), signer.clone(), false).await?;
        tokio::spawn(deliver_messages(shared.clone(), messages_receiver));
        let (control, control_receiver) = mpsc::channel(8);
        let (ended_sender, ended) = watch::channel(false);
        let supervisor = Supervisor { shared: shared.clone(), signer, restarts: 0, pause: RESTART_PAUSE_MIN };
        let supervisor = tokio::spawn(async move {
            supervisor.run(engine, control_receiver).await;
            ended_sender.send_replace(true);
        });
        let supervisor = Mutex::new(Some(supervisor));
        Ok(Self { shared, control, supervisor, budget: Mutex::new(Budget::full()), ended })
    }

    /// Sends `bytes` to all connected validators over the engine's links; there [`Application::message`] gets it.
    /// Nothing is confirmed or repeated: whoever is not connected misses it.
    ///
    /// # Errors
    /// See [`BroadcastError`].
    pub fn broadcast(&self, bytes: Bytes) -> Result<(), BroadcastError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(BroadcastError::TooLarge { bytes: bytes.len() });
        }
        if !self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(bytes.len()) {
            count(&self.shared.counters.messages_dropped);
            return Err(BroadcastError::Busy);
        }
        if !self.shared.publish_single(Part::Message(bytes)) {
            return Err(BroadcastError::NotRunning);
        }
        count(&self.shared.counters.messages_sent);
        Ok(())
    }

    /// Replaces the pinned peers, when the ledger changed the validators: new ones are dialled and let in, those that
    /// are gone are no longer.
    ///
    /// # Errors
    /// `Address` and `Engine`; the peers are pinned all the same when the engine starts again.
    pub async fn pin_peers(&self, peers: Vec<Peer>) -> Result<(), OrderError> {
        let (sender, receiver) = oneshot::channel();
        let not_running = || OrderError::Engine { part: "supervisor", reason: "the order has stopped".to_owned() };
        self.control.send(Control::Pin(peers, sender)).await.map_err(|_| not_running())?;
        receiver.await.unwrap_or_else(|_| Err(not_running()))
    }

    /// A snapshot for metrics.
    pub fn figures(&self) -> Figures {
        let mut figures = self.shared.figures();
        figures.journal_bytes = std::fs::metadata(journal_path(&self.shared.config)).map_or(0, |file| file.len());
        figures
    }

    /// The engine's state in words, for an operator who looks for the reason of a stall. Holds no keys and no contents.
    pub async fn state_dump(&self) -> String {
        let (sender, receiver) = oneshot::channel();
        if self.control.send(Control::Dump(sender)).await.is_err() {
            return "the order has stopped".to_owned();
        }
        receiver.await.unwrap_or_else(|_| "the order has stopped".to_owned())
    }

    /// Resolves when the order has stopped, with the reason. Cancel-safe.
    pub async fn stopped(&self) -> StopReason {
        let mut ended = self.ended.clone();
        // An error means that the supervisor is gone, which is the end as well.
        let _ = ended.wait_for(|ended| *ended).await;
        self.shared.stopping.borrow().clone().unwrap_or(StopReason::Requested)
    }

    /// Why the order stops or has stopped; none while it runs.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.shared.stopping.borrow().clone()
    }

    /// Stops the engine; a commit that has begun is finished. Idempotent.
    pub async fn stop(&self) {
        self.shared.stopping.send_if_modified(|stopping| {
            let first = stopping.is_none();
            stopping.get_or_insert(StopReason::Requested);
            first
        });
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        match supervisor {
            Some(supervisor) => {
                if let Err(failure) = supervisor.await {
                    error!(%failure, "the supervisor of the order panicked");
                }
            }
            None => {
                let _ = self.stopped().await;
            }
        }
    }

    /// Makes the engine fall silent, as a stuck one would; for tests of the watchdog.
    #[doc(hidden)]
    pub async fn freeze_engine(&self) {
        let _ = self.control.send(Control::Freeze).await;
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        // Without a handle nobody could stop it any more.
        self.shared.stopping.send_if_modified(|stopping| {
            let first = stopping.is_none();
            stopping.get_or_insert(StopReason::Requested);
            first
        });
    }
}

fn check(config: &OrderConfig) -> Result<(), OrderError> {
    if config.block_bytes_max == 0 || config.block_bytes_max > stele_types::limits::BLOCK_BYTES_MAX {
        return Err(OrderError::Configuration("block_bytes_max must be between 1 and BLOCK_BYTES_MAX"));
    }
    if config.listen.port() == 0 {
        return Err(OrderError::Configuration("the listening port must be fixed, peers dial it"));
    }
    // Those in force, those who come, those suspended, and followers.
    if config.peers.len() >= 4 * stele_types::limits::VALIDATORS_MAX {
        return Err(OrderError::Configuration("more peers than a network has nodes"));
    }
    if config.watchdog.stall.is_zero() || config.sync.request_timeout.is_zero() {
        return Err(OrderError::Configuration("a timeout is zero"));
    }
    Ok(())
}

/// Waits until the order is told to stop. The lock on the reason is not held afterwards.
async fn stop_requested(stopping: &mut watch::Receiver<Option<StopReason>>) {
    // An error means that nobody is left to ask for it: then it is time to stop as well.
    let _ = stopping.wait_for(Option::is_some).await;
}

async fn deliver_messages(shared: Arc<Shared>, mut messages: mpsc::Receiver<(stele_types::ValidatorId, Bytes)>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let message = tokio::select! {
            () = stop_requested(&mut stopping) => return,
            message = messages.recv() => message,
        };
        let Some((from, bytes)) = message else { return };
        shared.application.message(from, bytes).await;
    }
}

/// Watches the engine and starts it again when it ends or gets stuck.
struct Supervisor {
    shared: Arc<Shared>,
    signer: Arc<dyn VoteSigner>,
    /// Restarts in a row without a committed block in between.
    restarts: u32,
    pause: Duration,
}

impl Supervisor {
    async fn run(mut self, engine: Engine, mut control: mpsc::Receiver<Control>) {
        let mut engine = Some(engine);
        let mut stopping = self.shared.stopping.subscribe();
        let mut committed = 0;
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.shared.note_progress();
        while let Some(running) = engine.take() {
            tokio::select! {
                biased;
                () = stop_requested(&mut stopping) => {
                    running.stop().await;
                    return;
                }
                message = control.recv() => {
                    match message {
                        Some(Control::Dump(reply)) => {
                            let _ = reply.send(running.dump().await);
                        }
                        Some(Control::Pin(peers, reply)) => {
                            let _ = reply.send(running.repin(peers).await);
                        }
                        Some(Control::Freeze) => running.freeze(),
                        // The handle is gone; `stopping` is set.
                        None => tokio::task::yield_now().await,
                    }
                    engine = Some(running);
                }
                _ = tick.tick() => {
                    let committed_now = self.shared.counters.committed.load(Ordering::Relaxed);
                    if committed_now > committed {
                        committed = committed_now;
                        (self.restarts, self.pause) = (0, RESTART_PAUSE_MIN);
                    }
                    engine = self.look(running, &mut stopping).await;
                }
            }
        }
    }

    /// Looks at the engine, and restarts it if need be.
    async fn look(&mut self, engine: Engine, stopping: &mut watch::Receiver<Option<StopReason>>) -> Option<Engine> {
        match engine.health() {
            Health::Running if self.shared.unsent.is_contradicted() => self.restart(engine, stopping).await,
            Health::Running if !self.is_stuck() => Some(engine),
            Health::Running => {
                let state = engine.dump().await;
                let height = self.shared.counters.height.load(Ordering::Relaxed);
                if let Some(code) = self.shared.disagreement_at(height) {
                    // A new engine would meet the same block: this node and the network disagree about its validity.
                    let reason =
                        format!("this node stops voting: the block decided at height {height} is invalid here: {code}");
                    self.shared.stop_for(StopReason::Application(reason));
                    return Some(engine);
                }
                let stalled_ms = crate::figures::milliseconds(self.shared.since_progress());
                error!(height, stalled_ms, state, "the engine is stuck");
                self.restart(engine, stopping).await
            }
            Health::Ended => {
                error!("the engine has ended by itself");
                self.restart(engine, stopping).await
            }
            Health::Unsafe => {
                self.shared.stop_for(StopReason::Journal);
                Some(engine)
            }
        }
    }

    fn is_stuck(&self) -> bool {
        let Watchdog { stall, .. } = self.shared.config.watchdog;
        let counters = &self.shared.counters;
        if counters.idle.load(Ordering::Relaxed) || self.shared.committing.load(Ordering::Relaxed) {
            self.shared.note_progress();
            return false;
        }
        // Without a quorum nothing can be decided, and that is nobody's fault here. Before the first height the
        // validators are unknown, and the engine is expected to start anyway.
        let figures = self.shared.figures();
        if figures.validators > 0 && !figures.has_quorum() {
            self.shared.note_progress();
            return false;
        }
        self.shared.since_progress() > stall
    }

    /// Stops the engine and starts a new one, after a pause if the last ones did not help. None when the order stops.
    async fn restart(&mut self, engine: Engine, stopping: &mut watch::Receiver<Option<StopReason>>) -> Option<Engine> {
        engine.stop().await;
        loop {
            self.restarts = self.restarts.saturating_add(1);
            let pause = if self.restarts > self.shared.config.watchdog.restarts_max {
                let pause = self.pause;
                self.pause = (self.pause * 2).min(self.shared.config.watchdog.pause_max);
                pause
            } else {
                Duration::ZERO
            };
            if !pause.is_zero() {
                warn!(restarts = self.restarts, pause_ms = crate::figures::milliseconds(pause), "the engine rests");
            }
            tokio::select! {
                biased;
                () = stop_requested(stopping) => return None,
                () = tokio::time::sleep(pause) => {}
            }
            count(&self.shared.counters.engine_restarts);
            match Engine::start(self.shared.clone(), self.signer.clone(), true).await {
                Ok(engine) => {
                    info!(restarts = self.restarts, "the engine was started again");
                    self.shared.note_progress();
                    return Some(engine);
                }
                Err(failure) => error!(%failure, "the engine could not be started again"),
            }
        }
    }
}

/// Bytes that may still be sent, refilled with time.
struct Budget {
    bytes: usize,
    refilled: Instant,
}

impl Budget {
    fn full() -> Self {
        Self { bytes: MESSAGE_BYTES_PER_SECOND_MAX, refilled: Instant::now() }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let elapsed_ms = crate::figures::milliseconds(self.refilled.elapsed());
        if elapsed_ms > 0 {
            let refill = (MESSAGE_BYTES_PER_SECOND_MAX / 1_000)
                .saturating_mul(usize::try_from(elapsed_ms).unwrap_or(usize::MAX));
            self.bytes = self.bytes.saturating_add(refill).min(MESSAGE_BYTES_PER_SECOND_MAX);
            self.refilled = Instant::now();
        }
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_runs_out_and_fills_up() {
        let mut budget = Budget::full();
        let mut sent = 0;
        while budget.take(MESSAGE_BYTES_MAX) {
            sent += MESSAGE_BYTES_MAX;
            assert!(sent < 4 * MESSAGE_BYTES_PER_SECOND_MAX, "the budget never ends");
        }
        assert!(sent >= MESSAGE_BYTES_PER_SECOND_MAX);
        budget.refilled -= Duration::from_millis(100);
        assert!(budget.take(MESSAGE_BYTES_MAX));
    }
}
