//! What the parts of one order share, across restarts of the engine.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use malachite::app::engine::network::{NetworkMsg, NetworkRef};
use malachite::app::streaming::{StreamContent, StreamId, StreamMessage};
use stele_types::{NetworkId, ValidatorId};
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use crate::application::{Application, ApplicationError};
use crate::assembly;
use crate::config::{OrderConfig, Peer};
use crate::context::{BlockStart, EngineHeight, EngineValidators, Part, Stele};
use crate::figures::{Counters, Figures, count};
use crate::order::StopReason;
use crate::signer::Unsent;
use crate::undecided::UndecidedBlocks;
use crate::verifier::EpochKeys;

/// First pause before the application is asked again.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The height the engine is at, or idles before.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) height: u64,
    pub(crate) validators: EngineValidators,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct PeerState {
    connected: bool,
    /// Newest height it is known to have started or committed.
    started: u64,
    /// Newest height it claims to have committed.
    committed: u64,
}

pub(crate) struct Shared {
    pub(crate) config: OrderConfig,
    /// The pinned peers now; at start those of the configuration.
    pinned: Mutex<Vec<Peer>>,
    /// Held while the transport's own list of peers is changed.
    pub(crate) peer_changes: tokio::sync::Mutex<()>,
    /// This node's validator id, whether it is in the set or not.
    pub(crate) validator: ValidatorId,
    pub(crate) application: Arc<dyn Application>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) epoch_keys: Arc<EpochKeys>,
    pub(crate) unsent: Arc<Unsent>,
    pub(crate) undecided: UndecidedBlocks,
    /// Application messages on their way to the application.
    pub(crate) messages: mpsc::Sender<(ValidatorId, Bytes)>,
    /// Why the order stops, once it does.
    pub(crate) stopping: watch::Sender<Option<StopReason>>,
    /// Whether a commit is running: the application may take its time then.
    pub(crate) committing: AtomicBool,
    /// The height whose block was fetched by sync last.
    pub(crate) synced_height: AtomicU64,
    /// The last height for which sync brought a block that is invalid here, and why. One peer may send any block with a
    /// valid certificate of another, so this alone proves nothing; a node that gets no further has lost the network.
    disagreement: Mutex<Option<(u64, &'static str)>>,
    current: RwLock<Option<Current>>,
    peers: Mutex<HashMap<Vec<u8>, PeerState>>,
    /// Counts changes of `peers`.
    peers_changed: watch::Sender<u64>,
    progress: Mutex<Instant>,
    outlet: Mutex<Option<NetworkRef<Stele>>>,
    stream_prefix: u64,
    streams: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        config: OrderConfig,
        application: Arc<dyn Application>,
        undecided: UndecidedBlocks,
        messages: mpsc::Sender<(ValidatorId, Bytes)>,
    ) -> Self {
        // Stream ids must not repeat after a restart; the clock is only a source of distinct numbers here.
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            validator: ValidatorId::of(&config.public_key),
            pinned: Mutex::new(config.peers.clone()),
            peer_changes: tokio::sync::Mutex::default(),
            config,
            application,
            counters: Arc::default(),
            epoch_keys: Arc::default(),
            unsent: Arc::default(),
            undecided,
            messages,
            stopping: watch::Sender::new(None),
            committing: AtomicBool::new(false),
            synced_height: AtomicU64::new(0),
            disagreement: Mutex::default(),
            current: RwLock::new(None),
            peers: Mutex::default(),
            peers_changed: watch::Sender::new(0),
            progress: Mutex::new(Instant::now()),
            outlet: Mutex::new(None),
            stream_prefix: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            streams: AtomicU64::new(0),
        }
    }

    pub(crate) fn network(&self) -> NetworkId {
        self.config.network
    }

    /// The height the engine is at, or idles before; none until the engine is ready for the first time.
    pub(crate) fn current(&self) -> Option<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_current(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
    }

    /// The validator behind a peer link.
    pub(crate) fn validator_of(&self, peer_id: &[u8]) -> Option<ValidatorId> {
        let current = self.current()?;
        let index = current.validators.set().iter().position(|validator| validator.peer_id() == peer_id)?;
        current.validators.id_of(index)
    }

    // ---- peers

    pub(crate) fn pinned(&self) -> Vec<Peer> {
        lock(&self.pinned).clone()
    }

    /// Whether a peer with this id may talk to this node.
    pub(crate) fn is_pinned(&self, peer_id: &[u8]) -> bool {
        lock(&self.pinned).iter().any(|peer| peer.peer_id == peer_id)
    }

    /// Replaces the pinned peers; returns those that are gone and those that are new.
    pub(crate) fn pin(&self, peers: Vec<Peer>) -> (Vec<Peer>, Vec<Peer>) {
        let mut pinned = lock(&self.pinned);
        let gone = pinned.iter().filter(|peer| !peers.contains(peer)).cloned().collect();
        let new = peers.iter().filter(|peer| !pinned.contains(peer)).cloned().collect();
        *pinned = peers;
        (gone, new)
    }

    pub(crate) fn peer_connected(&self, peer_id: Vec<u8>, connected: bool) {
        self.change_peer(peer_id, |peer| peer.connected = connected);
    }

    /// A validator's message shows that it started `height`.
    pub(crate) fn peer_started(&self, peer_id: Vec<u8>, height: u64) {
        self.change_peer(peer_id, |peer| peer.started = peer.started.max(height));
    }

    /// A peer says that it committed `height`.
    pub(crate) fn peer_committed(&self, peer_id: Vec<u8>, height: u64) {
        self.change_peer(peer_id, |peer| {
            peer.committed = height;
            peer.started = peer.started.max(height);
        });
    }

    fn change_peer(&self, peer_id: Vec<u8>, change: impl FnOnce(&mut PeerState)) {
        {
            let mut peers = lock(&self.peers);
            // Only pinned peers get this far; the bound holds even if the transport let others in.
            if peers.len() > 4 * stele_types::limits::VALIDATORS_MAX && !peers.contains_key(&peer_id) {
                return;
            }
            change(peers.entry(peer_id).or_default());
        }
        self.peers_changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Forgets all connections: the engine is gone.
    pub(crate) fn peers_disconnected(&self) {
        for peer in lock(&self.peers).values_mut() {
            peer.connected = false;
        }
    }

    /// Waits until `height` is known to have been started elsewhere.
    ///
    /// One validator that shows itself at exactly this height is enough: it may be the proposer. A claim to be further
    /// ahead must come from more validators than may be faulty (or from all that are connected), otherwise one liar
    /// could keep everybody from ever idling.
    pub(crate) async fn started_elsewhere(&self, height: u64) {
        let mut changes = self.peers_changed.subscribe();
        // The sender lives in `self`, so waiting ends only with the condition.
        let _ = changes.wait_for(|_| self.is_started_elsewhere(height)).await;
    }

    pub(crate) fn is_started_elsewhere(&self, height: u64) -> bool {
        let Some(current) = self.current() else { return false };
        let set = current.validators.set();
        let peers = lock(&self.peers);
        let known: Vec<PeerState> =
            set.iter().filter_map(|validator| peers.get(validator.peer_id().as_slice()).copied()).collect();
        is_started(height, set.faulty_max(), &known)
    }

    // ---- sending

    pub(crate) fn set_outlet(&self, network: Option<NetworkRef<Stele>>) {
        *lock(&self.outlet) = network;
    }

    /// Publishes a block to all validators.
    pub(crate) fn publish_block(&self, start: BlockStart, block: &Bytes) {
        self.publish(assembly::split(start, block));
    }

    /// Publishes a part that stands for itself. False when the engine is down.
    pub(crate) fn publish_single(&self, part: Part) -> bool {
        self.publish([(0, part)])
    }

    /// Tells idle validators that this node starts `height`.
    pub(crate) fn publish_wake(&self, height: u64) {
        self.publish_single(Part::Wake(EngineHeight(height)));
    }

    fn publish(&self, parts: impl IntoIterator<Item = (u64, Part)>) -> bool {
        let Some(network) = lock(&self.outlet).clone() else { return false };
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; crate::codec::STREAM_ID_BYTES];
        id[..8].copy_from_slice(&self.stream_prefix.to_be_bytes());
        id[8..].copy_from_slice(&stream.to_be_bytes());
        let id = Bytes::copy_from_slice(&id);
        parts.into_iter().all(|(sequence, part)| {
            let message = StreamMessage::new(StreamId::new(id.clone()), sequence, StreamContent::Data(part));
            network.cast(NetworkMsg::PublishProposalPart(message)).is_ok()
        })
    }

    /// Hands a peer's message to the application, or drops it when the application fell behind.
    pub(crate) fn deliver(&self, from: ValidatorId, bytes: Bytes) {
        count(&self.counters.messages_received);
        if self.messages.try_send((from, bytes)).is_err() {
            count(&self.counters.messages_dropped);
        }
    }

    // ---- progress

    pub(crate) fn note_progress(&self) {
        *lock(&self.progress) = Instant::now();
    }

    pub(crate) fn note_disagreement(&self, height: u64, code: &'static str) {
        *lock(&self.disagreement) = Some((height, code));
    }

    /// A block said to be decided at this height is valid here: what was noted before was not the decided one.
    pub(crate) fn note_agreement(&self, height: u64) {
        lock(&self.disagreement).take_if(|(at, _)| *at == height);
    }

    /// Why no decided block of `height` is valid here, if sync found that.
    pub(crate) fn disagreement_at(&self, height: u64) -> Option<&'static str> {
        lock(&self.disagreement).filter(|(at, _)| *at == height).map(|(_, code)| code)
    }

    pub(crate) fn since_progress(&self) -> Duration {
        lock(&self.progress).elapsed()
    }

    pub(crate) fn stop_for(&self, reason: StopReason) {
        error!(%reason, "the order stops");
        self.stopping.send_if_modified(|stopping| {
            let first = stopping.is_none();
            stopping.get_or_insert(reason);
            first
        });
    }

    /// Stops the order after a failed write of an undecided block: the disk cannot be trusted any more.
    pub(crate) fn storage_failed(&self, failure: &io::Error) {
        self.stop_for(StopReason::Storage(failure.to_string()));
    }

    /// Asks the application until it answers. None when it halts, or the order stops.
    pub(crate) async fn insist<T, F>(&self, question: &'static str, mut ask: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, ApplicationError>>,
    {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            match ask().await {
                Ok(answer) => return Some(answer),
                Err(ApplicationError::Halt { reason }) => {
                    self.stop_for(StopReason::Application(reason));
                    return None;
                }
                Err(ApplicationError::Unavailable { reason }) => {
                    warn!(question, reason, "the application is asked again");
                }
            }
            if self.stopping.borrow().is_some() {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let mut figures = self.counters.snapshot();
        figures.undecided_bytes = self.undecided.memory_bytes() as u64;
        let Some(current) = self.current() else { return figures };
        let set = current.validators.set();
        figures.validators = set.len();
        figures.quorum = set.quorum();
        let peers = lock(&self.peers);
        for (index, validator) in set.iter().enumerate() {
            let Some(peer) = peers.get(validator.peer_id().as_slice()) else { continue };
            if peer.connected {
                figures.peers_connected.extend(current.validators.id_of(index));
                figures.sync_lag = figures.sync_lag.max((peer.committed + 1).saturating_sub(current.height));
            }
        }
        figures
    }
}

fn is_started(height: u64, faulty_max: usize, peers: &[PeerState]) -> bool {
    let ahead = peers.iter().filter(|peer| peer.started > height).count();
    let connected = peers.iter().filter(|peer| peer.connected).count();
    peers.iter().any(|peer| peer.started == height) || ahead >= (faulty_max + 1).min(connected.max(1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(started: [u64; 3]) -> Vec<PeerState> {
        started.map(|started| PeerState { connected: true, started, committed: 0 }).into()
    }

    #[test]
    fn one_peer_wakes_at_the_height_itself_and_several_from_beyond_it() {
        assert!(!is_started(7, 1, &peers([6, 6, 6])));
        assert!(is_started(7, 1, &peers([6, 7, 6])));
        assert!(!is_started(7, 1, &peers([6, u64::MAX, 6])), "one liar keeps nobody awake");
        assert!(is_started(7, 1, &peers([8, 9, 6])));
        let mut alone = peers([9, 6, 6]);
        (alone[1].connected, alone[2].connected) = (false, false);
        assert!(is_started(7, 1, &alone), "the only peer there is must be believed");
        assert!(!is_started(7, 0, &[]));
    }
}
