//! A local network: trivial applications and software signers around real orders.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stele_order::{Endpoint, Order, OrderConfig, Peer, PeerIdentity};
use stele_types::{BlockId, EpochCertificate, Hash, Height, NetworkId, PartyId, Validator, ValidatorId, ValidatorSet};

use crate::application::App;
use crate::records::Records;
use crate::signer::{Key, Signer};

pub(crate) const NETWORK: NetworkId = NetworkId([0x5e; 32]);

pub(crate) struct Node {
    pub(crate) app: Arc<App>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) config: OrderConfig,
    pub(crate) order: Option<Order>,
}

impl Node {
    pub(crate) async fn start(&mut self) {
        // The last process may have been killed in the middle of a write.
        self.app.file.iter().chain(&self.signer.file).for_each(Records::cut);
        let order = Order::start(self.config.clone(), self.signer.clone(), self.app.clone()).await.unwrap();
        self.order = Some(order);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(order) = self.order.take() {
            order.stop().await;
        }
    }

    pub(crate) fn order(&self) -> &Order {
        self.order.as_ref().unwrap()
    }
}

/// What a test may change before the network starts.
pub(crate) struct Plan {
    pub(crate) busy: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) block_bytes: usize,
    pub(crate) delegated: bool,
    pub(crate) stall: Duration,
    /// Epoch certificates are signed by somebody else.
    pub(crate) forged: Option<usize>,
    /// Chains and guards outlive the process.
    pub(crate) on_disk: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            busy: true,
            heartbeat: Duration::from_secs(10),
            block_bytes: 256,
            delegated: false,
            stall: Duration::from_secs(30),
            forged: None,
            on_disk: false,
        }
    }
}

fn endpoint(address: SocketAddr) -> Option<Endpoint> {
    Some(Endpoint { host: address.ip().to_string(), port: address.port() })
}

pub(crate) struct Network {
    pub(crate) nodes: Vec<Node>,
    validators: Arc<ValidatorSet>,
    epoch_certificates: Arc<[EpochCertificate]>,
    plan: Plan,
    directory: PathBuf,
    _own_directory: Option<tempfile::TempDir>,
}

impl Network {
    /// `count` validators, not started.
    pub(crate) fn new(count: usize, plan: Plan) -> Self {
        let own_directory = tempfile::tempdir().unwrap();
        let mut network = Self::open(own_directory.path(), count, plan);
        network._own_directory = Some(own_directory);
        network
    }

    /// The network whose keys and addresses lie in `directory`; made there when it is empty.
    pub(crate) fn open(directory: &Path, count: usize, plan: Plan) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        }
        let directory = directory.to_owned();
        let mut signers: Vec<Signer> = (0..count)
            .map(|index| {
                let guard = directory.join(format!("guard.{index}"));
                let key = Key::open(&directory.join(format!("key.{index}")));
                Signer::open(key, plan.on_disk.then_some(guard.as_path()))
            })
            .collect();
        if plan.delegated {
            for (index, signer) in signers.iter_mut().enumerate() {
                let epoch = Key::new();
                let issuer = if plan.forged == Some(index) { &Key::new() } else { &signer.key };
                let mut certificate = EpochCertificate {
                    network: NETWORK,
                    validator: ValidatorId::of(&signer.key.public()),
                    public_key: epoch.public(),
                    from_height: Height(1),
                    until_height: Height(100_000),
                    pcr_policy: Hash([0; 32]),
                    signature: [0; 64],
                };
                certificate.signature = issuer.sign(&certificate.signing_bytes());
                signer.epoch = Some((epoch, certificate));
            }
        }
        let epoch_certificates: Arc<[EpochCertificate]> =
            signers.iter().filter_map(|signer| signer.epoch.as_ref()).map(|epoch| epoch.1.clone()).collect();
        let identities: Vec<PeerIdentity> = (0..count)
            .map(|index| {
                let path = directory.join(format!("peer.{index}"));
                PeerIdentity::load(&path).unwrap_or_else(|_| PeerIdentity::generate(&path).unwrap())
            })
            .collect();
        let records: Vec<Validator> = signers
            .iter()
            .zip(&identities)
            .map(|(signer, identity)| Validator {
                public_key: signer.key.public(),
                peer_key: *identity.public_key(),
                party: PartyId([0; 16]),
            })
            .collect();
        let validators = Arc::new(ValidatorSet::new(records.clone()).unwrap());
        let addresses = addresses(&directory.join("addresses"), count);
        let mut network =
            Self { nodes: Vec::new(), validators, epoch_certificates, plan, directory, _own_directory: None };
        for (index, (signer, identity)) in signers.into_iter().zip(identities).enumerate() {
            let peers = (0..count)
                .filter(|other| *other != index)
                .map(|other| Peer { endpoint: endpoint(addresses[other]), peer_id: records[other].peer_id() })
                .collect();
            let data: PathBuf = network.directory.join(index.to_string());
            let mut config = OrderConfig::new(NETWORK, signer.key.public(), addresses[index], peers, identity, data);
            config.watchdog.stall = network.plan.stall;
            let app = network.app(index, ValidatorId::of(&signer.key.public()));
            network.nodes.push(Node { app, signer: Arc::new(signer), config, order: None });
        }
        network
    }

    fn app(&self, index: usize, validator: ValidatorId) -> Arc<App> {
        let path = self.directory.join(format!("chain.{index}"));
        App::open(&path, validator, self.validators.clone(), self.epoch_certificates.clone(), &self.plan)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) async fn start_all(&mut self) {
        for node in &mut self.nodes {
            node.start().await;
        }
    }

    pub(crate) async fn stop_all(&mut self) {
        for node in &mut self.nodes {
            node.stop().await;
        }
    }

    /// A second node with the keys of the first one, but another guard and another peer link: an operator's mistake.
    /// The others let it in. Before the start.
    pub(crate) fn add_twin(&mut self) {
        let original = &self.nodes[0];
        let identity = PeerIdentity::random().unwrap();
        let record = Validator { public_key: [2; 33], peer_key: *identity.public_key(), party: PartyId([0; 16]) };
        let address = addresses(&self.directory.join("address.twin"), 1)[0];
        let twin_peer = Peer { endpoint: endpoint(address), peer_id: record.peer_id() };
        let mut config = original.config.clone();
        (config.listen, config.peer_identity, config.directory) = (address, identity, self.directory.join("twin"));
        let signer = Signer::open(Key::open(&self.directory.join("key.0")), None);
        let app = self.app(self.nodes.len(), original.app.validator);
        app.block_bytes.store(100, Ordering::Relaxed);
        for node in &mut self.nodes[1..] {
            node.config.peers.push(twin_peer.clone());
        }
        self.nodes.push(Node { app, signer: Arc::new(signer), config, order: None });
    }

    /// Loses everything a node has on disk, but for its keys and the signer's guard.
    pub(crate) fn wipe(&mut self, index: usize) {
        let app = self.app(index, self.nodes[index].app.validator);
        let _ = std::fs::remove_dir_all(&self.nodes[index].config.directory);
        self.nodes[index].app = app;
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        for node in &self.nodes {
            node.app.set_busy(busy);
        }
    }

    /// Waits until the nodes have committed `height`, three times as long as it takes an idle machine at the worst.
    pub(crate) async fn reach(&self, nodes: &[usize], height: u64, within: Duration) -> Duration {
        let started = Instant::now();
        let within = 3 * within;
        loop {
            let heights: Vec<u64> = nodes.iter().map(|index| self.nodes[*index].app.height()).collect();
            if heights.iter().all(|reached| *reached >= height) {
                return started.elapsed();
            }
            if started.elapsed() > within {
                let figures: Vec<_> =
                    self.nodes.iter().filter_map(|node| node.order.as_ref()).map(Order::figures).collect();
                panic!("nodes {nodes:?} reached {heights:?} instead of {height} within {within:?}: {figures:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the nodes idle before the same height.
    pub(crate) async fn fall_idle(&self, nodes: &[usize], within: Duration) {
        let deadline = Instant::now() + 3 * within;
        loop {
            let figures: Vec<_> = nodes.iter().map(|index| self.nodes[*index].order().figures()).collect();
            if figures.iter().all(|node| node.idle && node.height == figures[0].height) {
                return;
            }
            assert!(Instant::now() < deadline, "not idle: {figures:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The highest height any node has committed.
    pub(crate) fn top(&self) -> u64 {
        self.nodes.iter().map(|node| node.app.height()).max().unwrap()
    }

    /// Asserts that all chains are prefixes of the longest one.
    pub(crate) fn assert_one_chain(&self) {
        let chains: Vec<Vec<BlockId>> = self.nodes.iter().map(|node| node.app.ids()).collect();
        let longest = chains.iter().max_by_key(|chain| chain.len()).unwrap();
        for chain in &chains {
            assert_eq!(chain[..], longest[..chain.len()], "the chains fork");
        }
    }
}

/// Addresses nobody listens on, all different; kept in `path`. They lie below the range from which the system takes the
/// ports of outgoing connections, which other tests open all the time.
fn addresses(path: &Path, count: usize) -> Vec<SocketAddr> {
    if !path.exists() {
        let from = 12_000 + std::process::id() * 97 % 18_000;
        // Tests of one process must not find the same ports free either.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let candidates = std::iter::repeat_with(|| from + NEXT.fetch_add(1, Ordering::Relaxed)).take(2_000);
        let free = candidates.filter_map(|port| {
            let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
            TcpListener::bind(address).ok().map(|_| address)
        });
        let lines: String = free.take(count).map(|address| format!("{address}\n")).collect();
        std::fs::write(path, lines).unwrap();
    }
    std::fs::read_to_string(path).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}
