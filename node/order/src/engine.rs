//! One life of the consensus engine: its actors, started and stopped together.
//!
//! ```text
//!            ┌── wal (thread, fsync)
//!  network ──┼── consensus ── host ──► application          supervised by `node`
//!    ├─ gate ── sync ────────┘
//!    └─ inbox ──► blocks, messages, signs of life
//! ```
//!
//! The network is not under the engine's own supervisor: were it killed with the others, its listener would live on.
//! It is stopped by hand, and waited for, so that the next life can listen on the same port.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use malachite::NetworkIdentity;
use malachite::app::config::{ConsensusConfig, P2pConfig, PubSubProtocol, ValueSyncConfig};
use malachite::app::engine::consensus::{ConsensusMsg, ConsensusRef};
use malachite::app::engine::network::{Multiaddr, NetworkMsg, NetworkRef, PersistentPeersOp};
use malachite::app::engine::node::NodeRef;
use malachite::app::engine::sync::SyncRef;
use malachite::app::engine::util::events::TxEvent;
use malachite::app::engine::util::output_port::{OutputPort, OutputPortSubscriberTrait as _};
use malachite::app::engine::wal::WalRef;
use malachite::app::metrics::{Metrics, SharedRegistry};
use malachite::app::spawn::{
    spawn_consensus_actor, spawn_network_actor, spawn_node_actor, spawn_sync_actor, spawn_wal_actor,
};
use malachite::app::types::{Keypair, PeerId};
use ractor::{Actor, ActorCell, ActorRef, ActorStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::codec::EngineCodec;
use crate::config::{Endpoint, OrderConfig, PUBSUB_BYTES_MAX, Peer, SYNC_OVERHEAD_BYTES, SYNC_RESPONSE_BYTES};
use crate::context::{Address, Stele};
use crate::gate::Gate;
use crate::heights::Heights;
use crate::host::Host;
use crate::inbox::{Inbox, InboxMessage};
use crate::order::OrderError;
use crate::shared::Shared;
use crate::signer::{EngineSigner, Signing, VoteSigner, peer_proof};
use crate::verifier::EngineVerifier;

/// How long an actor may take to stop before it is killed.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(3);
/// How long the running commit may take when the engine is restarted under it.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How long a state dump is waited for; a stuck engine gives none.
const DUMP_WAIT: Duration = Duration::from_secs(2);
/// Bytes of a state dump that are kept: enough for the votes of a few rounds.
const DUMP_BYTES_MAX: usize = 64 * 1024;
/// Heights ahead for which the engine keeps messages, and messages per height: four votes and a proposal of each of 128
/// validators.
const QUEUE_HEIGHTS: usize = 16;
const QUEUE_PER_HEIGHT: usize = 1_024;
/// Requests a lagging peer may make in ten seconds, by far enough for `SyncConfig::requests_parallel` at full speed.
const SYNC_REQUESTS_PER_WINDOW: u32 = 2_000;

/// Connections beyond two for each peer: room for peers pinned later.
const SPARE_CONNECTIONS: usize = 16;

/// File of the engine's journal within the order's directory.
pub(crate) const JOURNAL_FILE: &str = "consensus.wal";

/// A running engine.
pub(crate) struct Engine {
    node: NodeRef,
    node_task: JoinHandle<()>,
    network: NetworkRef<Stele>,
    consensus: ConsensusRef<Stele>,
    sync: Option<SyncRef<Stele>>,
    wal: WalRef<Stele>,
    host: ActorCell,
    inbox: ActorCell,
    gate: ActorCell,
    heights: JoinHandle<()>,
    stop_heights: watch::Sender<bool>,
    metrics: Metrics,
    frozen: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

/// How an engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Running,
    /// An actor failed: the engine may be started again.
    Ended,
    /// The journal failed: starting again could sign twice.
    Unsafe,
}

impl Engine {
    /// Starts all actors. On failure those already started are stopped. If `leaves`, a round in which nothing went on is left
    /// where the vote in it was signed and never sent.
    pub(crate) async fn start(
        shared: Arc<Shared>,
        signer: Arc<dyn VoteSigner>,
        leaves: bool,
    ) -> Result<Self, OrderError> {
        let failed = |part: &'static str| move |reason: String| OrderError::Engine { part, reason };
        let config = &shared.config;
        let (consensus_config, sync_config) = engine_config(config, &shared.pinned())?;
        let identity = identity(config, &*signer).await?;

        if let Some(start) = shared.insist("next", || shared.application.next()).await {
            let prepared =
                crate::journal::prepare(&config.directory, start.height, shared.validator, &*signer, leaves).await;
            shared.unsent.set(prepared.map_err(|e| failed("journal")(e.to_string()))?);
        }

        // A registry of its own: the engine's global one would grow with every restart.
        let registry = SharedRegistry::new(Default::default(), None);
        let metrics = Metrics::register(&registry);
        let (node, node_task) =
            spawn_node_actor(metrics.clone()).await.map_err(|e| failed("supervisor")(e.to_string()))?;
        let mut stopper = Stopper(vec![node.get_cell()]);

        let network: NetworkRef<Stele> =
            spawn_network_actor(&consensus_config, &sync_config, identity, &registry, EngineCodec)
                .await
                .map_err(|e| failed("network")(e.to_string()))?;
        stopper.0.push(network.get_cell());

        let wal: WalRef<Stele> = spawn_wal_actor(&Stele, EngineCodec, &journal_path(config), &registry, node.clone())
            .await
            .map_err(|e| failed("journal")(e.to_string()))?;
        wal.link(node.get_cell());

        let frozen = Arc::new(AtomicBool::new(false));
        let (heights_sender, heights_receiver) = mpsc::unbounded_channel();
        let signing = Arc::new(Signing::new(shared.network(), signer, shared.counters.clone(), shared.unsent.clone()));
        let host =
            Host { shared: shared.clone(), signing: signing.clone(), heights: heights_sender, frozen: frozen.clone() };
        let (host, _) = Actor::spawn(None, host, ()).await.map_err(|e| failed("host")(e.to_string()))?;
        host.link(node.get_cell());

        let sync_port = Arc::new(OutputPort::new());
        let verifier = EngineVerifier { network: shared.network(), epoch_keys: shared.epoch_keys.clone() };
        let consensus = spawn_consensus_actor(
            Stele,
            Address(shared.validator),
            consensus_config,
            Box::new(verifier),
            Some(Box::new(EngineSigner(signing))),
            network.clone(),
            host.clone(),
            wal.clone(),
            sync_port.clone(),
            metrics.clone(),
            TxEvent::new(),
            node.clone(),
        )
        .await
        .map_err(|e| failed("consensus")(e.to_string()))?;
        consensus.link(node.get_cell());

        let gate = Gate { shared: shared.clone(), network: network.clone() };
        let (gate, _) = Actor::spawn(None, gate, ()).await.map_err(|e| failed("gate")(e.to_string()))?;
        gate.link(node.get_cell());
        let sync = spawn_sync_actor(
            Stele,
            gate.clone(),
            host.clone(),
            consensus.clone(),
            EngineCodec,
            &sync_config,
            &registry,
        )
        .await
        .map_err(|e| failed("sync")(e.to_string()))?;
        if let Some(sync) = &sync {
            sync.link(node.get_cell());
            sync.subscribe_to_port(&sync_port);
        }

        let inbox = Inbox { shared: shared.clone(), consensus: consensus.clone() };
        let (inbox, _): (ActorRef<InboxMessage>, _) =
            Actor::spawn(None, inbox, ()).await.map_err(|e| failed("inbox")(e.to_string()))?;
        inbox.link(node.get_cell());
        network.cast(NetworkMsg::Subscribe(Box::new(inbox.clone()))).map_err(|e| failed("network")(e.to_string()))?;
        shared.set_outlet(Some(network.clone()));

        let (stop_heights, stop) = watch::channel(false);
        let heights =
            Heights { shared: shared.clone(), consensus: consensus.clone(), inbox: inbox.clone(), committed: 0 };
        let heights = tokio::spawn(heights.run(heights_receiver, stop));

        stopper.0.clear();
        Ok(Self {
            node,
            node_task,
            network,
            consensus,
            sync,
            wal,
            host: host.get_cell(),
            inbox: inbox.get_cell(),
            gate: gate.get_cell(),
            heights,
            stop_heights,
            metrics,
            frozen,
            shared,
        })
    }

    pub(crate) fn health(&self) -> Health {
        if self.metrics.node_safety_failure.get() != 0 {
            return Health::Unsafe;
        }
        let network_ended = matches!(self.network.get_status(), ActorStatus::Stopping | ActorStatus::Stopped);
        let heights_panicked = self.heights.is_finished() && !*self.stop_heights.borrow();
        if self.node_task.is_finished() || network_ended || heights_panicked { Health::Ended } else { Health::Running }
    }

    /// Makes the engine fall silent, as if it were stuck; a test of the watchdog.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// The engine's state in words, cut to a bounded length. It holds votes and ids, no keys and no block contents.
    pub(crate) async fn dump(&self) -> String {
        let dump = self.consensus.call(ConsensusMsg::DumpState, Some(DUMP_WAIT)).await;
        let mut text = match dump {
            Ok(ractor::rpc::CallResult::Success(Some(dump))) => format!("{dump:#?}"),
            Ok(ractor::rpc::CallResult::Success(None)) => "the engine has not started a height".to_owned(),
            _ => "the engine does not answer".to_owned(),
        };
        if text.len() > DUMP_BYTES_MAX {
            let end = (0..=DUMP_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }

    /// Pins `peers` instead of those pinned now, in the running network too. What fails for one peer does not keep the
    /// others back; the first failure is returned.
    pub(crate) async fn repin(&self, peers: Vec<Peer>) -> Result<(), OrderError> {
        // While a stranger is being turned away, the network's list holds it for a moment: see `gate`.
        let _turn = self.shared.peer_changes.lock().await;
        let (gone, new) = self.shared.pin(peers);
        let remove = gone.iter().map(|peer| (PersistentPeersOp::Remove as fn(Multiaddr) -> _, peer));
        let add = new.iter().map(|peer| (PersistentPeersOp::Add as fn(Multiaddr) -> _, peer));
        let mut outcome = Ok(());
        for (operation, peer) in remove.chain(add) {
            outcome = outcome.and(self.change_peer(operation, peer).await);
        }
        outcome
    }

    async fn change_peer(&self, operation: fn(Multiaddr) -> PersistentPeersOp, peer: &Peer) -> Result<(), OrderError> {
        let operation = operation(multiaddr(peer)?);
        let answer =
            self.network.call(|reply| NetworkMsg::UpdatePersistentPeers(operation, reply), Some(STOP_WAIT)).await;
        let reason = match answer {
            Ok(ractor::rpc::CallResult::Success(Ok(()))) => return Ok(()),
            Ok(ractor::rpc::CallResult::Success(Err(failure))) => failure.to_string(),
            _ => "no answer".to_owned(),
        };
        Err(OrderError::Engine { part: "network", reason })
    }

    /// Stops everything, in an order in which nothing waits for something that is gone. A running commit is waited for.
    pub(crate) async fn stop(self) {
        self.shared.set_outlet(None);
        self.stop_heights.send_replace(true);
        let mut heights = self.heights;
        let wait = if self.shared.committing.load(Ordering::Relaxed) { COMMIT_WAIT } else { STOP_WAIT };
        if tokio::time::timeout(wait, &mut heights).await.is_err() {
            warn!("the application does not answer; its last call is abandoned");
            heights.abort();
        }
        // Who is unlinked stops without the supervisor stopping the rest.
        let supervisor = self.node.get_cell();
        let stop_linked = async |actor: ActorCell, name| {
            actor.unlink(supervisor.clone());
            stop_actor(actor, name).await;
        };
        // Those that speak stop before those that are spoken to.
        stop_linked(self.consensus.get_cell(), "consensus").await;
        if let Some(sync) = &self.sync {
            stop_linked(sync.get_cell(), "sync").await;
        }
        stop_linked(self.gate, "gate").await;
        stop_linked(self.inbox, "inbox").await;
        stop_linked(self.host, "host").await;
        stop_linked(self.wal.get_cell(), "journal").await;
        stop_actor(self.network.get_cell(), "network").await;
        stop_actor(supervisor.clone(), "supervisor").await;
        journal_released(&journal_path(&self.shared.config)).await;
        self.shared.peers_disconnected();
    }
}

/// Stops what was started when a later part could not be.
struct Stopper(Vec<ActorCell>);

impl Drop for Stopper {
    fn drop(&mut self) {
        for actor in &self.0 {
            actor.stop(Some("the engine could not be started".into()));
        }
    }
}

async fn stop_actor(actor: ActorCell, name: &'static str) {
    if matches!(actor.get_status(), ActorStatus::Stopped) {
        return;
    }
    if actor.stop_and_wait(Some("stopped".into()), Some(STOP_WAIT)).await.is_err()
        && !matches!(actor.get_status(), ActorStatus::Stopped)
    {
        warn!(actor = name, "killed: it did not stop in time");
        let _ = actor.kill_and_wait(Some(STOP_WAIT)).await;
    }
}

/// Waits until the journal's thread, which outlives its actor for a moment, has given up its lock on the file.
async fn journal_released(path: &Path) {
    let deadline = tokio::time::Instant::now() + STOP_WAIT;
    while tokio::time::Instant::now() < deadline {
        // The lock taken here to look is released when the file is closed, at the end of the statement.
        let released = std::fs::File::open(path).map_or(true, |file| file.try_lock().is_ok());
        if released {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    warn!("the journal is still locked");
}

/// Where the engine's journal lies.
pub(crate) fn journal_path(config: &OrderConfig) -> PathBuf {
    directory_file(&config.directory, JOURNAL_FILE)
}

pub(crate) fn directory_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

async fn identity(config: &OrderConfig, signer: &dyn VoteSigner) -> Result<NetworkIdentity, OrderError> {
    let keypair = Keypair::ed25519_from_bytes(*config.peer_identity.seed())
        .map_err(|e| OrderError::Engine { part: "network", reason: e.to_string() })?;
    let peer_id = keypair.public().to_peer_id().to_bytes();
    let address = Address(stele_types::ValidatorId::of(&config.public_key)).to_string();
    Ok(match peer_proof(signer, &config.public_key, &peer_id).await {
        Some(proof) => NetworkIdentity::new_validator(address.clone(), keypair, address, proof),
        None => NetworkIdentity::new(address.clone(), keypair, Some(address)),
    })
}

fn engine_config(config: &OrderConfig, peers: &[Peer]) -> Result<(ConsensusConfig, ValueSyncConfig), OrderError> {
    let network = config.network.to_hex();
    let listen = match config.listen {
        SocketAddr::V4(address) => format!("/ip4/{}/tcp/{}", address.ip(), address.port()),
        SocketAddr::V6(address) => format!("/ip6/{}/tcp/{}", address.ip(), address.port()),
    };
    let mut p2p = P2pConfig {
        listen_addr: listen.parse().map_err(|_| OrderError::Address(listen.clone()))?,
        persistent_peers: peers.iter().map(multiaddr).collect::<Result<_, _>>()?,
        persistent_peers_only: true,
        protocol: PubSubProtocol::Broadcast,
        ..P2pConfig::default()
    };
    let response_bytes = (SYNC_RESPONSE_BYTES.max(config.block_bytes_max) + SYNC_OVERHEAD_BYTES) as u64;
    p2p.rpc_max_size = bytesize::ByteSize::b(response_bytes + SYNC_OVERHEAD_BYTES as u64);
    p2p.pubsub_max_size = bytesize::ByteSize::b(PUBSUB_BYTES_MAX);
    // Networks differ in the version they identify with, so a peer of another one is disconnected.
    p2p.protocol_names.consensus = format!("/stele/{network}/order/1");
    p2p.protocol_names.sync = format!("/stele/{network}/sync/1");
    p2p.protocol_names.validator_proof = format!("/stele/{network}/validator/1");
    p2p.discovery.enabled = false;
    // Both ends dial each other, and several validators may sit behind one address.
    let connections = 2 * peers.len() + SPARE_CONNECTIONS;
    p2p.discovery.num_inbound_peers = connections;
    p2p.discovery.num_outbound_peers = connections;
    p2p.discovery.max_connections_per_ip = connections;
    // Only pinned peers get in, and they shall be back at once after a restart.
    p2p.discovery.ip_throttle_duration = Duration::ZERO;
    let consensus = ConsensusConfig {
        enabled: true,
        p2p,
        value_payload: malachite_config::ValuePayload::ProposalAndParts,
        queue_capacity: QUEUE_HEIGHTS,
        queue_per_height_capacity: QUEUE_PER_HEIGHT,
    };
    let sync = ValueSyncConfig {
        enabled: true,
        status_update_interval: config.sync.status_interval,
        request_timeout: config.sync.request_timeout,
        max_response_size: bytesize::ByteSize::b(response_bytes),
        parallel_requests: config.sync.requests_parallel.max(1),
        batch_size: config.sync.batch_heights.max(1),
        max_inbound_requests_per_window: SYNC_REQUESTS_PER_WINDOW,
        ..ValueSyncConfig::default()
    };
    Ok((consensus, sync))
}

fn multiaddr(peer: &Peer) -> Result<Multiaddr, OrderError> {
    let malformed = || {
        let endpoint = peer.endpoint.as_ref().map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
        OrderError::Address(endpoint.unwrap_or_else(|| "of a peer without endpoint".to_owned()))
    };
    let id = PeerId::from_bytes(&peer.peer_id).map_err(|_| malformed())?;
    let transport = peer.endpoint.as_ref().map_or_else(String::new, |Endpoint { host, port }| {
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => format!("/ip4/{address}"),
            Ok(IpAddr::V6(address)) => format!("/ip6/{address}"),
            Err(_) => format!("/dns/{host}"),
        };
        format!("{host}/tcp/{port}")
    });
    format!("{transport}/p2p/{id}").parse().map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_become_pinned_addresses() {
        let mut peer_id = [7; 38];
        peer_id[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        for (host, prefix) in [
            ("192.0.2.1", "/ip4/192.0.2.1/tcp/7"),
            ("2001:db8::1", "/ip6/2001:db8::1/tcp/7"),
            ("n.example", "/dns/n.example/tcp/7"),
        ] {
            let endpoint = Some(Endpoint { host: host.into(), port: 7 });
            let address = multiaddr(&Peer { endpoint, peer_id }).unwrap().to_string();
            assert!(address.starts_with(&format!("{prefix}/p2p/12D3Koo")), "{address}");
        }
        let unknown = multiaddr(&Peer { endpoint: None, peer_id }).unwrap().to_string();
        assert!(unknown.starts_with("/p2p/12D3Koo"), "{unknown}");
        let sneaky = Peer { endpoint: Some(Endpoint { host: "n.example/tcp/1".into(), port: 7 }), peer_id };
        assert!(
            multiaddr(&sneaky).is_err() || !multiaddr(&sneaky).unwrap().to_string().starts_with("/dns/n.example/tcp/7")
        );
    }
}
