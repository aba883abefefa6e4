//! One running node: the stages wired together, started in order and stopped in reverse.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stele_accel::Engine;
use stele_order::{Order, OrderConfig, Peer, PeerIdentity, StopReason, Watchdog};
use stele_types::parameters::PROTOCOL_VERSION;
use stele_types::{Code, Genesis};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::accelerator::engine_config;
use crate::admission::{Admission, Limits, Verified};
use crate::alarm::Alarm;
use crate::api::{Api, ApiError, Certificates};
use crate::attestor::Attestor;
use crate::backend::NodeBackend;
use crate::chain::{Chain, ChainError, ChainOptions, Writer};
use crate::config::{Config, PeerAddress, StateSection};
use crate::control::ControlToken;
use crate::keys::NodeKeys;
use crate::metrics::Metrics;
use crate::observe::Observed;
use crate::ordering::{Ordering, Parts, forward_overdue};
use crate::payload::{Ledger, PayloadSlot};
use crate::peers::{Pinning, wanted};
use crate::receipt_clock::ReceiptClock;
use crate::seal;
use crate::signatures::Signatures;
use crate::store::blocks::BlockStore;
use crate::store::durable;
use crate::vote::Voter;

/// How often the derived stores are flushed: what a restart after a power cut has to redo.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file of the configuration.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The genesis file decodes but founds no network.
    #[error("{path}: the genesis file founds no network ({code}); ask the governors for the file that they agreed on")]
    Genesis {
        /// Which.
        path: PathBuf,
        /// The rule that it breaks.
        code: Code,
    },
    /// A validator's guard of votes is gone.
    #[error(
        "{path}: the vote guard is missing, so this node cannot know what it has signed; put the file back, or, if it \
         is lost, make one that signs nothing below a height that the network has passed: stele key guard \
         --validator-key {key} --from-height HEIGHT"
    )]
    VoteGuardMissing {
        /// Where it should be.
        path: PathBuf,
        /// The key that it belongs to.
        key: PathBuf,
    },
    /// The guard of a log's checkpoints is gone.
    #[error(
        "{path}: the checkpoint guard is missing, so this node cannot know which tree heads it has signed; put the file \
         back, or, if it is lost, make one that signs nothing smaller than the log is now: stele key guard --seal-key \
         {key} --from-size LEAVES --genesis {genesis}"
    )]
    CheckpointGuardMissing {
        /// Where it should be.
        path: PathBuf,
        /// The key that it belongs to.
        key: PathBuf,
        /// The genesis file, which names the log.
        genesis: PathBuf,
    },
    /// Old blocks are in a store that the configuration does not name.
    #[error(
        "{segments} segments of this node's blocks are in its store of bodies, and the configuration has no [payload]: put \
         the section back"
    )]
    ArchiveUnnamed {
        /// How many.
        segments: usize,
    },
    /// The committed chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A key.
    #[error(transparent)]
    Signer(#[from] stele_hsm::SignerError),
    /// The key of the peer links.
    #[error(transparent)]
    PeerIdentity(#[from] stele_order::PeerIdentityError),
    /// The order.
    #[error(transparent)]
    Order(#[from] stele_order::OrderError),
    /// The accelerator.
    #[error(transparent)]
    Accel(#[from] stele_accel::EngineError),
    /// The listeners.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The order ended by itself: the node must not go on in this process.
    #[error("the order has stopped: {0}")]
    Halted(StopReason),
}

impl NodeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "file_unusable",
            Self::Genesis { .. } => "genesis_invalid",
            Self::VoteGuardMissing { .. } => "vote_guard_missing",
            Self::CheckpointGuardMissing { .. } => "checkpoint_guard_missing",
            Self::ArchiveUnnamed { .. } => "block_archive_unnamed",
            Self::Chain(error) => error.code(),
            Self::Signer(error) => error.code(),
            Self::PeerIdentity(_) => "peer_key",
            Self::Order(error) => error.code(),
            Self::Accel(_) => "accel",
            Self::Api(error) => error.code(),
            Self::Halted(reason) => reason.code(),
        }
    }
}

/// A node that runs.
pub struct Node {
    chain: Arc<Chain>,
    admission: Arc<Admission>,
    order: Arc<Order>,
    alarm: Arc<Alarm>,
    metrics: Arc<Metrics>,
    config: Mutex<Config>,
    /// Peers of the configuration in force.
    configured: watch::Sender<Vec<PeerAddress>>,
    certificates: Certificates,
    api: JoinHandle<()>,
    api_stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Node {
    /// Starts every stage: opens and recovers the chain, then admission, order, seal and the listeners.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn start(config: Config, metrics: Arc<Metrics>) -> Result<Self, NodeError> {
        metrics.build.configuration(&config.hash);
        let stop = CancellationToken::new();
        let (genesis_bytes, genesis) = read_genesis(&config.node.genesis)?;
        let network = genesis.network();
        let data_dir = config.node.data_dir.clone();
        let (blocks, ledger) = open_blocks(&data_dir, &genesis).await?;
        if config.payload.is_none() && blocks.figures().archived > 0 {
            return Err(NodeError::ArchiveUnnamed { segments: blocks.figures().archived });
        }
        let storage = config.payload.is_some().then(|| PayloadSlot::begin(&config, ledger, &metrics, &stop));
        let blocks = match &storage {
            Some(slot) => blocks.with_archive(Arc::clone(slot.archive()) as _),
            None => blocks,
        };
        let opened = open_chain(blocks, &data_dir, genesis_bytes, genesis, &config.state).await;
        let (chain, writer) = opened.inspect_err(|_| stop.cancel())?;
        if let Some(slot) = &storage {
            slot.archive().recovered();
        }
        info!(%network, height = chain.tip().height.0, "chain recovered");

        let engine = Arc::new(Engine::new(&engine_config(&config.accel, &data_dir))?);
        let signatures = Signatures::new(Arc::clone(&engine), Arc::clone(&metrics));
        let verified = Arc::new(Verified::default());
        let limits = Limits {
            pool_statements_max: config.admission.queue_statements_max,
            pool_bytes_max: config.admission.queue_bytes_max,
            party_share_percent: config.admission.party_share_percent,
        };
        let admission = Admission::start(
            Arc::clone(&chain),
            signatures.clone(),
            Arc::clone(&verified),
            limits,
            Arc::clone(&metrics),
        );

        let keys = NodeKeys::new(&config);
        let voter = Voter::open(&config, &keys, &chain, &metrics).await?;
        let validator = voter.validator;
        let clock = ReceiptClock::new(Arc::clone(&metrics));
        let alarm = Alarm::new(Arc::clone(&metrics));
        let ordering = Ordering::new(Parts {
            chain: Arc::clone(&chain),
            writer,
            admission: Arc::clone(&admission),
            signatures,
            verified,
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
            validator,
            evidence: data_dir.join("evidence"),
            alarm: Arc::clone(&alarm),
            protocol_version_max: rehearsal(&config, &metrics).unwrap_or(PROTOCOL_VERSION),
        });
        let order_config = order_config(&config, &chain, &voter)?;
        durable::create_directory(&order_config.directory).map_err(|error| NodeError::File {
            path: order_config.directory.clone(),
            reason: format!("the directory of the order cannot be made: {error}"),
        })?;
        let (own, pinned) = (peer_id(&order_config.peer_identity), order_config.peers.clone());
        let epochs = voter.epochs;
        let order = Order::start(order_config, Arc::new(voter.signer), Arc::clone(&ordering) as _).await?;
        let order = Arc::new(order);

        let control = ControlToken::write(&data_dir).map_err(|error| NodeError::File {
            path: data_dir.clone(),
            reason: format!("the control token cannot be written: {error}"),
        })?;
        let sealer = keys.checkpoint_signer(&config, chain.network()).await?;
        let attestor = config
            .signer
            .as_ref()
            .map(|section| Arc::new(Attestor::new(&section.socket, section.pcrs.clone(), Arc::clone(&metrics))));
        let backend = NodeBackend::new(
            Arc::clone(&chain),
            Arc::clone(&admission),
            Arc::clone(&order),
            Arc::clone(&alarm),
            validator,
            storage.clone(),
            control,
        )
        .attesting(sealer.kind(), attestor);
        let api = Api::bind(&config.api, &config.metrics, Arc::new(backend), Arc::clone(&metrics)).await?;
        let certificates = api.certificates();
        let api_stop = CancellationToken::new();
        let api = tokio::spawn(api.serve(api_stop.clone()));
        let observed = Observed {
            chain: Arc::clone(&chain),
            admission: Arc::clone(&admission),
            order: Arc::clone(&order),
            engine,
            payload: storage.clone(),
            metrics: Arc::clone(&metrics),
            data_dir: data_dir.clone(),
            validator,
            queue_limit: limits.pool_statements_max,
            signer: keys.socket().cloned(),
        };
        let (configured, peers) = watch::channel(config.peers.persistent.clone());
        let pinning = Pinning { chain: Arc::clone(&chain), order: Arc::clone(&order), configured: peers, own, pinned };
        let mut tasks = vec![
            tokio::spawn(pinning.run(stop.clone())),
            tokio::spawn(seal::run(Arc::clone(&chain), Arc::clone(&sealer), Arc::clone(&metrics), clock, stop.clone())),
            tokio::spawn(forward_overdue(ordering, Arc::clone(&order))),
            tokio::spawn(flush(Arc::clone(&chain), stop.clone())),
            tokio::spawn(observed.run(stop.clone())),
            tokio::spawn(epochs.run(Arc::clone(&chain), stop.clone())),
            tokio::spawn(watch_state(Arc::clone(&chain), Arc::clone(&alarm), stop.clone())),
        ];
        tasks.extend(storage.map(|slot| {
            tokio::spawn(slot.run(config.clone(), Arc::clone(&chain), sealer, Arc::clone(&metrics), stop.clone()))
        }));
        let config = Mutex::new(config);
        Ok(Self {
            chain,
            admission,
            order,
            alarm,
            metrics,
            config,
            configured,
            certificates,
            api,
            api_stop,
            tasks,
            stop,
        })
    }

    /// Takes over what can change while the node runs: peers, and certificate, key and authorities of the listeners, which
    /// are read from their files even when their paths are the same. Returns the sections that differ otherwise: they
    /// wait for a restart.
    ///
    /// # Errors
    /// `Api` when certificates cannot be used; then nothing has changed.
    pub fn reload(&self, fresh: Config) -> Result<Vec<&'static str>, NodeError> {
        self.certificates.reload(&fresh.api).map_err(ApiError::from)?;
        self.configured.send_replace(fresh.peers.persistent.clone());
        self.metrics.build.configuration(&fresh.hash);
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = config.waits_for_restart(&fresh);
        self.metrics.build.restart_pending(waiting.len());
        config.adopt(fresh);
        Ok(waiting)
    }

    /// The committed chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The front door.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Resolves when the node must not go on: the order has ended by itself, or the alarm was raised.
    pub async fn halted(&self) -> StopReason {
        tokio::select! {
            reason = self.order.stopped() => reason,
            reason = self.alarm.raised() => StopReason::Application(reason),
        }
    }

    /// Whether what halted the node may be gone after a restart: a failed store or journal, not a divergence or a version.
    pub fn recovers_by_restart(&self, reason: &StopReason) -> bool {
        matches!(reason, StopReason::Storage(_) | StopReason::Journal) || self.alarm.is_storage_failure()
    }

    /// Stops in reverse order: no new requests, no new blocks, then the stores.
    pub async fn stop(self) {
        self.api_stop.cancel();
        let mut tasks = vec![self.api];
        self.order.stop().await;
        self.stop.cancel();
        tasks.extend(self.tasks);
        for task in tasks {
            if let Err(failure) = task.await {
                error!(%failure, "a task of the node panicked");
            }
        }
        let chain = self.chain;
        let flushed = tokio::task::spawn_blocking(move || Writer::flush(&chain)).await;
        if let Ok(Err(error)) = flushed {
            warn!(code = error.code(), %error, "the last flush failed; the next start redoes blocks");
        }
    }
}

pub(crate) fn read_genesis(path: &Path) -> Result<(Vec<u8>, Genesis), NodeError> {
    let failed = |reason: String| NodeError::File { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let genesis = Genesis::from_bytes(&bytes).map_err(|error| failed(error.to_string()))?;
    stele_ledger::check_genesis(&genesis).map_err(|code| NodeError::Genesis { path: path.to_owned(), code })?;
    Ok((bytes, genesis))
}

/// The protocol version that the configuration lets this node rehearse.
fn rehearsal(config: &Config, metrics: &Metrics) -> Option<u32> {
    let version = config.order.rehearse_version;
    metrics.order.rehearses(version);
    if version == 0 {
        return None;
    }
    warn!(version, "this node rehearses a protocol version that does not exist; no verifier accepts its receipts");
    Some(version)
}

/// The blocks of the chain, and what they say of the ledger.
async fn open_blocks(data_dir: &Path, genesis: &Genesis) -> Result<(BlockStore, Ledger), NodeError> {
    let (directory, genesis) = (data_dir.join("chain"), genesis.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let blocks = Chain::open_blocks(&directory, genesis.network())?;
        let ledger = Ledger::of(&genesis, &blocks)?;
        Ok::<_, ChainError>((blocks, ledger))
    });
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn open_chain(
    blocks: BlockStore,
    directory: &Path,
    bytes: Vec<u8>,
    genesis: Genesis,
    section: &StateSection,
) -> Result<(Arc<Chain>, Writer), NodeError> {
    let directory = directory.join("chain");
    let StateSection { snapshot_interval, values_memory_bytes, page_cache_bytes, threads, .. } = *section;
    let layout = section.layout();
    let options = ChainOptions { snapshot_interval, values_memory_bytes, layout, page_cache_bytes, threads };
    let blocks = Arc::new(blocks);
    let opened =
        tokio::task::spawn_blocking(move || Chain::open_on(blocks, &directory, &bytes, genesis, options)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The peer id that a validator record with this key pins.
fn peer_id(identity: &PeerIdentity) -> [u8; 38] {
    let peer_key = *identity.public_key();
    stele_types::Validator { public_key: [0; 33], peer_key, party: stele_types::PartyId([0; 16]) }.peer_id()
}

fn order_config(config: &Config, chain: &Chain, voter: &Voter) -> Result<OrderConfig, NodeError> {
    let identity = PeerIdentity::load(&config.peers.key)?;
    let peers: Vec<Peer> = wanted(chain, &config.peers.persistent, &peer_id(&identity));
    let directory = config.node.data_dir.join("order");
    let mut order =
        OrderConfig::new(chain.network(), voter.public_key, config.peers.listen, peers, identity, directory);
    order.watchdog = Watchdog {
        stall: Duration::from_millis(config.order.watchdog_stall_ms),
        restarts_max: config.order.watchdog_restarts_max,
        pause_max: Duration::from_millis(config.order.watchdog_pause_max_ms),
    };
    Ok(order)
}

/// Raises the alarm when the state cannot be read.
async fn watch_state(chain: Arc<Chain>, alarm: Arc<Alarm>, stop: CancellationToken) {
    tokio::select! {
        error = chain.unreadable() => {
            alarm.raise_for(&error);
        }
        () = stop.cancelled() => {}
    }
}

async fn flush(chain: Arc<Chain>, stop: CancellationToken) {
    let mut flushed = chain.tip().height;
    loop {
        tokio::select! {
            () = tokio::time::sleep(FLUSH_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        let tip = chain.tip().height;
        if tip == flushed {
            continue;
        }
        flushed = tip;
        let chain = Arc::clone(&chain);
        match tokio::task::spawn_blocking(move || Writer::flush(&chain)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(code = error.code(), %error, "derived stores were not flushed"),
            Err(failure) => error!(%failure, "the flush panicked"),
        }
    }
}
