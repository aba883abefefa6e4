//! One running node: the stages wired together, started in order and stopped in reverse.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stele_accel::{Engine, EngineConfig};
use stele_hsm::{CheckpointGuard, GuardDurability, Signer, SoftwareSigner, VoteGuard};
use stele_order::{Order, OrderConfig, Peer, PeerIdentity, StopReason, Watchdog};
use stele_types::{Genesis, Hash, ValidatorId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admission::{Admission, Limits, Verified};
use crate::api::{Api, ApiError};
use crate::backend::NodeBackend;
use crate::chain::{Chain, ChainError, Writer};
use crate::config::{Config, VoteMode};
use crate::metrics::{Metrics, Version};
use crate::observe::Observed;
use crate::ordering::{BallotSigner, EpochKey, Ordering, Parts, forward_overdue};
use crate::receipt_clock::ReceiptClock;
use crate::seal;
use crate::signatures::Signatures;

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

/// A node that runs.
pub struct Node {
    chain: Arc<Chain>,
    admission: Arc<Admission>,
    order: Arc<Order>,
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
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        let metrics = Metrics::new(&Version::built());
        let stop = CancellationToken::new();
        let (genesis_bytes, genesis) = read_genesis(&config.node.genesis)?;
        let network = genesis.network();
        let data_dir = config.node.data_dir.clone();
        let (chain, writer) = open_chain(&data_dir, genesis_bytes, genesis).await?;
        info!(%network, height = chain.tip().height.0, "chain recovered");

        let engine = Arc::new(Engine::new(&EngineConfig { threads: config.accel.threads, ..EngineConfig::default() })?);
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

        let voter = Voter::open(&config, &chain)?;
        let validator = voter.validator;
        let clock = ReceiptClock::new(Arc::clone(&metrics));
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
        });
        let order_config = order_config(&config, &chain, &voter)?;
        let order = Order::start(order_config, Arc::new(voter.signer), Arc::clone(&ordering) as _).await?;
        let order = Arc::new(order);

        let sealer = checkpoint_signer(&config, &chain)?;
        let backend = NodeBackend::new(
            Arc::clone(&chain),
            Arc::clone(&admission),
            Arc::clone(&order),
            ordering.alarm(),
            config.validator.is_some(),
        );
        let api = Api::bind(&config.api, &config.metrics, Arc::new(backend), Arc::clone(&metrics)).await?;
        let api_stop = CancellationToken::new();
        let api = tokio::spawn(api.serve(api_stop.clone()));
        let observed = Observed {
            chain: Arc::clone(&chain),
            admission: Arc::clone(&admission),
            order: Arc::clone(&order),
            engine,
            metrics: Arc::clone(&metrics),
            validator,
            queue_limit: limits.pool_statements_max,
        };
        let tasks = vec![
            tokio::spawn(seal::run(Arc::clone(&chain), sealer, metrics, clock, stop.clone())),
            tokio::spawn(forward_overdue(ordering, Arc::clone(&order))),
            tokio::spawn(flush(Arc::clone(&chain), stop.clone())),
            tokio::spawn(observed.run(stop.clone())),
        ];
        Ok(Self { chain, admission, order, api, api_stop, tasks, stop })
    }

    /// The committed chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The front door.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Resolves when the order has ended by itself.
    pub async fn halted(&self) -> StopReason {
        self.order.stopped().await
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

fn read_genesis(path: &Path) -> Result<(Vec<u8>, Genesis), NodeError> {
    let failed = |reason: String| NodeError::File { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let genesis = Genesis::from_bytes(&bytes).map_err(|error| failed(error.to_string()))?;
    Ok((bytes, genesis))
}

async fn open_chain(directory: &Path, bytes: Vec<u8>, genesis: Genesis) -> Result<(Arc<Chain>, Writer), NodeError> {
    let directory = directory.join("chain");
    let opened = tokio::task::spawn_blocking(move || Chain::open(&directory, &bytes, genesis)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// This node's vote.
struct Voter {
    validator: ValidatorId,
    public_key: [u8; 33],
    signer: BallotSigner,
}

impl Voter {
    fn open(config: &Config, chain: &Arc<Chain>) -> Result<Self, NodeError> {
        let Some(section) = &config.validator else {
            // A follower votes on nothing; the engine wants a key all the same.
            let signer = SoftwareSigner::ephemeral()?;
            let public_key = p256_key(&signer)?;
            let validator = ValidatorId::of(&public_key);
            return Ok(Self {
                validator,
                public_key,
                signer: BallotSigner::new(validator, Arc::new(signer), Arc::new(Vec::new)),
            });
        };
        let long_term = SoftwareSigner::open(&section.long_term_key)?;
        let public_key = p256_key(&long_term)?;
        let validator = ValidatorId::of(&public_key);
        // The guard lies beside the key, not in the data directory: a wiped node must still not sign twice.
        let guard_path = section.long_term_key.with_extension("votes");
        if !guard_path.exists() {
            if chain.tip().height.0 > 0 {
                let reason = "the vote guard is missing though this node has a chain; restore it, or remove the data \
                              directory to join as a new node after the network moved on"
                    .to_owned();
                return Err(NodeError::File { path: guard_path, reason });
            }
            VoteGuard::create(&guard_path, validator.0)?;
        }
        let guard = Arc::new(VoteGuard::open(&guard_path, validator.0, GuardDurability::Sync)?);
        let long_term: Arc<dyn Signer> = Arc::new(long_term.with_vote_guard(Arc::clone(&guard)));
        let mut keys: HashMap<[u8; 33], Arc<dyn Signer>> = HashMap::new();
        if section.mode == VoteMode::Delegated {
            for path in &section.epoch_keys {
                let signer = SoftwareSigner::open(path)?.with_vote_guard(Arc::clone(&guard));
                keys.insert(p256_key(&signer)?, Arc::new(signer));
            }
        }
        Ok(Self {
            validator,
            public_key,
            signer: BallotSigner::new(validator, long_term, certified_epochs(chain, validator, keys)),
        })
    }
}

/// The epoch keys that the ledger certifies now, worked out again when the list of certificates changes.
fn certified_epochs(
    chain: &Arc<Chain>,
    validator: ValidatorId,
    keys: HashMap<[u8; 33], Arc<dyn Signer>>,
) -> Arc<dyn Fn() -> Vec<Arc<EpochKey>> + Send + Sync> {
    type Cached = (Vec<Hash>, Vec<Arc<EpochKey>>);
    let chain = Arc::clone(chain);
    let cache: Mutex<Cached> = Mutex::default();
    Arc::new(move || {
        if keys.is_empty() {
            return Vec::new();
        }
        let head = chain.head();
        let own = || head.frame.epoch_certificates.iter().filter(|certificate| certificate.validator == validator);
        let hashes: Vec<Hash> = own().map(stele_types::EpochCertificate::hash).collect();
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.0 != hashes {
            let epochs = own()
                .filter_map(|certificate| {
                    let signer = Arc::clone(keys.get(&certificate.public_key)?);
                    Some(Arc::new(EpochKey { certificate: certificate.clone(), signer }))
                })
                .collect();
            *cache = (hashes, epochs);
        }
        cache.1.clone()
    })
}

fn p256_key(signer: &SoftwareSigner) -> Result<[u8; 33], NodeError> {
    let key = &signer.public_key().sec1_compressed;
    Ok(key.as_slice().try_into().map_err(|_| stele_hsm::SignerError::SigningFailed)?)
}

fn checkpoint_signer(config: &Config, chain: &Chain) -> Result<Arc<dyn Signer>, NodeError> {
    let path = config.seal.key.with_extension("checkpoints");
    let owner = chain.network().0;
    if !path.exists() {
        CheckpointGuard::create(&path, owner)?;
    }
    let guard = Arc::new(CheckpointGuard::open(&path, owner, GuardDurability::Sync)?);
    Ok(Arc::new(SoftwareSigner::open(&config.seal.key)?.with_checkpoint_guard(guard)))
}

fn order_config(config: &Config, chain: &Chain, voter: &Voter) -> Result<OrderConfig, NodeError> {
    let peers = config.peers.persistent.iter().filter_map(|peer| {
        // `Config::load` refused entries without either.
        let (host, port) = peer.split()?;
        let peer_id = peer.peer_id_bytes()?;
        Some(Peer { host: host.to_owned(), port, peer_id })
    });
    let identity = PeerIdentity::load(&config.peers.key)?;
    let directory = config.node.data_dir.join("order");
    let mut order =
        OrderConfig::new(chain.network(), voter.public_key, config.peers.listen, peers.collect(), identity, directory);
    order.watchdog = Watchdog {
        stall: Duration::from_millis(config.order.watchdog_stall_ms),
        restarts_max: config.order.watchdog_restarts_max,
        pause_max: Duration::from_millis(config.order.watchdog_pause_max_ms),
    };
    Ok(order)
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
