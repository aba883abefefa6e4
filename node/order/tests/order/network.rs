//! A local network: trivial applications and software signers around real orders.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use bytes::Bytes;
use stele_order::{
    Application, ApplicationError, Candidate, Decided, Equivocation, HeightStart, Order, OrderConfig, Origin, Peer,
    PeerIdentity, Proposed, SignerError, Verdict, VoteSigner,
};
use stele_types::cbor;
use stele_types::parameters::Timeouts;
use stele_types::vote::Ballot;
use stele_types::{
    BlockId, EpochCertificate, Hash, Height, NetworkId, PartyId, ProposerSchedule, Validator, ValidatorId,
    ValidatorSet, VoteKey, VoteKind, VoteSignature,
};
use tokio::sync::Notify;

pub(crate) const NETWORK: NetworkId = NetworkId([0x5e; 32]);
/// First byte of a block that honest applications find invalid.
const POISON: u8 = 0xbd;

pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The key in `path`, made when it is missing.
    fn open(path: &Path) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        if !path.exists() {
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
            std::fs::write(path, document.as_ref()).unwrap();
        }
        Self(EcdsaKeyPair::from_pkcs8(algorithm, &std::fs::read(path).unwrap()).unwrap())
    }

    /// SEC1 compressed.
    pub(crate) fn public(&self) -> [u8; 33] {
        let point = self.0.public_key().as_ref();
        let mut compressed = [0; 33];
        compressed[0] = 2 + (point[64] & 1);
        compressed[1..].copy_from_slice(&point[1..33]);
        compressed
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap()
    }
}

type Step = (u64, u32, u8);

/// A software signer with a guard, and knobs to make it fail.
pub(crate) struct Signer {
    pub(crate) key: Key,
    pub(crate) epoch: Option<(Key, EpochCertificate)>,
    /// Every n-th request is not answered at first; 0 = never.
    pub(crate) fail_every: AtomicU32,
    /// Refuses everything as if the guard held another ballot.
    pub(crate) refuse: AtomicBool,
    requests: AtomicU32,
    guard: Mutex<HashMap<Step, (Ballot, VoteSignature)>>,
    /// Requests for a ballot that differs from the one signed for the step.
    pub(crate) conflicts: AtomicU32,
    /// Where the guard is kept, when it must outlive the process.
    file: Option<Mutex<File>>,
}

impl Signer {
    fn open(key: Key, guard: Option<&Path>) -> Self {
        let signer = Self {
            key,
            epoch: None,
            fail_every: AtomicU32::new(0),
            refuse: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            guard: Mutex::default(),
            conflicts: AtomicU32::new(0),
            file: guard.map(open_append),
        };
        if let Some(path) = guard {
            let bytes = std::fs::read(path).unwrap();
            let records = bytes.chunks_exact(GUARD_RECORD_BYTES);
            *signer.guard.lock().unwrap() = records.filter(|record| record[0] == 1).map(guard_entry).collect();
        }
        signer
    }

    fn record(&self, tag: u8, ballot: &Ballot, signature: &[u8; 64]) {
        let Some(file) = &self.file else { return };
        let mut record = vec![tag, ballot.kind as u8, u8::from(ballot.block.is_some())];
        record.extend(ballot.height.0.to_be_bytes());
        record.extend(ballot.round.to_be_bytes());
        record.extend(ballot.block.unwrap_or_default().as_bytes());
        record.extend(ballot.valid_round.map_or(0, |round| u64::from(round) + 1).to_be_bytes());
        record.extend(signature);
        assert_eq!(record.len(), GUARD_RECORD_BYTES);
        // In the page cache it survives `kill -9`; a real guard flushes.
        file.lock().unwrap().write_all(&record).unwrap();
    }
}

/// Tag (1 signed, 2 conflict), kind, whether there is a block, height, round, block, valid round + 1, signature.
const GUARD_RECORD_BYTES: usize = 3 + 8 + 4 + 32 + 8 + 64;

fn guard_entry(record: &[u8]) -> (Step, (Ballot, VoteSignature)) {
    let word =
        |range: std::ops::Range<usize>| record[range].iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let kind = [VoteKind::Proposal, VoteKind::Prevote, VoteKind::Precommit][usize::from(record[1]) - 1];
    let ballot = Ballot {
        network: NETWORK,
        kind,
        height: Height(word(3..11)),
        round: u32::try_from(word(11..15)).unwrap(),
        block: (record[2] == 1).then(|| BlockId(record[15..47].try_into().unwrap())),
        valid_round: word(47..55).checked_sub(1).map(|round| u32::try_from(round).unwrap()),
    };
    let signature = VoteSignature { key: VoteKey::Direct, signature: record[55..].try_into().unwrap() };
    ((ballot.height.0, ballot.round, step_of(kind)), (ballot, signature))
}

/// Conflicting requests that a stored guard has seen.
pub(crate) fn stored_conflicts(directory: &Path, index: usize) -> usize {
    let bytes = std::fs::read(directory.join(format!("guard.{index}"))).unwrap();
    bytes.chunks_exact(GUARD_RECORD_BYTES).filter(|record| record[0] == 2).count()
}

fn step_of(kind: VoteKind) -> u8 {
    match kind {
        VoteKind::Proposal => 0,
        VoteKind::Prevote => 1,
        VoteKind::Precommit => 2,
    }
}

fn open_append(path: &Path) -> Mutex<File> {
    Mutex::new(OpenOptions::new().create(true).append(true).open(path).unwrap())
}

#[async_trait]
impl VoteSigner for Signer {
    async fn sign(&self, ballot: Ballot) -> Result<VoteSignature, SignerError> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let fail_every = self.fail_every.load(Ordering::Relaxed);
        if fail_every > 0 && request % fail_every == 0 {
            return Err(SignerError::Unavailable { reason: "the test says so".into() });
        }
        if self.refuse.load(Ordering::Relaxed) {
            return Err(SignerError::DoubleSign);
        }
        let kind = step_of(ballot.kind);
        let mut guard = self.guard.lock().unwrap();
        if let Some((signed, signature)) = guard.get(&(ballot.height.0, ballot.round, kind)) {
            if signed == &ballot {
                return Ok(*signature);
            }
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            self.record(2, &ballot, &[0; 64]);
            return Err(SignerError::DoubleSign);
        }
        let signature = match &self.epoch {
            Some((key, certificate)) => {
                let name = VoteKey::Delegated(certificate.hash());
                VoteSignature { key: name, signature: key.sign(&ballot.signing_bytes(&name)) }
            }
            None => {
                let name = VoteKey::Direct;
                VoteSignature { key: name, signature: self.key.sign(&ballot.signing_bytes(&name)) }
            }
        };
        self.record(1, &ballot, &signature.signature);
        guard.insert((ballot.height.0, ballot.round, kind), (ballot, signature));
        Ok(signature)
    }

    async fn prove_peer(&self, statement: &[u8]) -> Result<Option<[u8; 64]>, SignerError> {
        Ok(Some(self.key.sign(statement)))
    }
}

/// A chain in memory. It outlives the order, as a disk would; a wiped node gets a new one.
pub(crate) struct App {
    pub(crate) validator: ValidatorId,
    validators: Arc<ValidatorSet>,
    epoch_certificates: Arc<[EpochCertificate]>,
    chain: Mutex<Vec<Decided>>,
    /// Where the chain is kept, when it must outlive the process.
    file: Option<Mutex<File>>,
    pending: AtomicUsize,
    work: Notify,
    /// Heights follow each other without idling.
    pub(crate) busy: AtomicBool,
    pub(crate) heartbeat: Duration,
    pub(crate) block_bytes: AtomicUsize,
    /// Its proposals are invalid.
    pub(crate) lies: AtomicBool,
    pub(crate) halt_at: AtomicU64,
    last_commit: Mutex<Instant>,
    pub(crate) received: Mutex<Vec<(ValidatorId, Bytes)>>,
    pub(crate) equivocations: Mutex<Vec<Equivocation>>,
    pub(crate) synced: AtomicU64,
}

impl App {
    pub(crate) fn height(&self) -> u64 {
        self.chain.lock().unwrap().len() as u64
    }

    pub(crate) fn block(&self, height: u64) -> Decided {
        self.chain.lock().unwrap()[usize::try_from(height - 1).unwrap()].clone()
    }

    pub(crate) fn ids(&self) -> Vec<BlockId> {
        self.chain.lock().unwrap().iter().map(|decided| decided.certificate.block).collect()
    }

    /// Something waits for a block.
    pub(crate) fn submit(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.work.notify_waiters();
    }

    /// Whether the newest block carries something: then one more is wanted at once.
    fn owes_a_block(&self) -> bool {
        self.chain.lock().unwrap().last().is_some_and(|decided| decided.bytes[1] > 0)
    }
}

/// Length of the certificate, length of the block, both; one write, so that no record is torn by `kill -9`.
fn chain_record(decided: &Decided) -> Vec<u8> {
    let certificate = cbor::to_vec(&decided.certificate);
    let mut record = u32::try_from(certificate.len()).unwrap().to_be_bytes().to_vec();
    record.extend(u32::try_from(decided.bytes.len()).unwrap().to_be_bytes());
    record.extend(certificate);
    record.extend(&decided.bytes);
    record
}

fn read_chain(path: &Path, validators: &Arc<ValidatorSet>) -> Vec<Decided> {
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut chain) = (0, Vec::new());
    // The last record may be in the middle of its write when another process reads along.
    while bytes.len() >= at + 8 && bytes.len() >= at + 8 + word(at) + word(at + 4) {
        let block = at + 8 + word(at);
        let end = block + word(at + 4);
        let certificate = cbor::from_slice(&bytes[at + 8..block]).unwrap();
        chain.push(Decided { certificate, validators: validators.clone(), bytes: bytes.slice(block..end) });
        at = end;
    }
    chain
}

/// The chain that a validator in another process has committed.
pub(crate) fn stored_chain(directory: &Path, index: usize) -> Vec<Decided> {
    let path = directory.join(format!("chain.{index}"));
    let nobody = Validator { public_key: [2; 33], peer_key: [0; 32], party: PartyId([0; 16]) };
    if path.exists() { read_chain(&path, &Arc::new(ValidatorSet::new(vec![nobody]).unwrap())) } else { Vec::new() }
}

fn id_of(bytes: &[u8]) -> BlockId {
    BlockId(Hash::tagged("test/block", &[bytes]).0)
}

pub(crate) fn timeouts() -> Timeouts {
    Timeouts {
        propose_ms: 1_000,
        propose_step_ms: 200,
        prevote_ms: 300,
        prevote_step_ms: 100,
        precommit_ms: 300,
        precommit_step_ms: 100,
    }
}

#[async_trait]
impl Application for App {
    async fn next(&self) -> Result<HeightStart, ApplicationError> {
        let height = self.height() + 1;
        if self.halt_at.load(Ordering::Relaxed) == height {
            return Err(ApplicationError::Halt { reason: "an unknown protocol version".into() });
        }
        Ok(HeightStart {
            height: Height(height),
            validators: self.validators.clone(),
            proposers: Arc::new(ProposerSchedule::new(self.validators.len())),
            timeouts: timeouts(),
            epoch_certificates: self.epoch_certificates.clone(),
        })
    }

    async fn work(&self, _height: Height) {
        let heartbeat = *self.last_commit.lock().unwrap() + self.heartbeat;
        loop {
            let notified = self.work.notified();
            if self.busy.load(Ordering::Relaxed) || self.pending.load(Ordering::Relaxed) > 0 || self.owes_a_block() {
                return;
            }
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep_until(heartbeat.into()) => return,
            }
        }
    }

    async fn propose(&self, height: Height, round: u32) -> Result<Proposed, ApplicationError> {
        let pending = self.pending.load(Ordering::Relaxed);
        let size = self.block_bytes.load(Ordering::Relaxed).max(64);
        let mut bytes = vec![0; size];
        // Not compressible, and different for every proposer and round.
        let mut state = height.0 << 32 | u64::from(round) << 8 | u64::from(self.validator.0[0]) | 1;
        for chunk in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        bytes[0] = if self.lies.load(Ordering::Relaxed) { POISON } else { 0 };
        bytes[1] = u8::try_from(pending.min(255)).unwrap();
        bytes[2..10].copy_from_slice(&height.0.to_be_bytes());
        bytes[10..42].copy_from_slice(self.validator.as_bytes());
        Ok(Proposed { id: id_of(&bytes), bytes: bytes.into() })
    }

    async fn validate(&self, candidate: Candidate) -> Verdict {
        if candidate.height.0 <= self.height() {
            return Verdict::Undecided;
        }
        assert_eq!(candidate.height.0, self.height() + 1, "nothing is judged before its parent is committed");
        let bytes = &candidate.bytes;
        if candidate.origin == Origin::Sync {
            self.synced.fetch_add(1, Ordering::Relaxed);
        }
        if bytes.len() < 42 || bytes[2..10] != candidate.height.0.to_be_bytes() {
            return Verdict::Malformed;
        }
        if bytes[0] == POISON { Verdict::Invalid(id_of(bytes), "poison") } else { Verdict::Valid(id_of(bytes)) }
    }

    async fn commit(&self, decided: Decided) -> Result<(), ApplicationError> {
        let mut chain = self.chain.lock().unwrap();
        assert_eq!(decided.certificate.height.0, chain.len() as u64 + 1, "heights are committed in order");
        assert_eq!(decided.certificate.block, id_of(&decided.bytes));
        assert!(decided.certificate.signatures.len() >= decided.validators.quorum());
        assert!(decided.certificate.is_ordered());
        if decided.bytes[10..42] == *self.validator.as_bytes() {
            self.pending.fetch_sub(usize::from(decided.bytes[1]), Ordering::Relaxed);
        }
        if let Some(file) = &self.file {
            file.lock().unwrap().write_all(&chain_record(&decided)).unwrap();
        }
        chain.push(decided);
        *self.last_commit.lock().unwrap() = Instant::now();
        Ok(())
    }

    async fn blocks(&self, from: Height, until: Height, bytes_max: usize) -> Result<Vec<Decided>, ApplicationError> {
        let chain = self.chain.lock().unwrap();
        let mut bytes = 0;
        let wanted = (from.0..=until.0).map_while(|height| chain.get(usize::try_from(height).ok()?.checked_sub(1)?));
        Ok(wanted
            .enumerate()
            .take_while(|(index, decided)| {
                bytes += decided.bytes.len();
                *index == 0 || bytes <= bytes_max
            })
            .map(|(_, decided)| decided.clone())
            .collect())
    }

    async fn history_start(&self) -> Height {
        Height(1)
    }

    async fn equivocation(&self, equivocation: Equivocation) {
        self.equivocations.lock().unwrap().push(equivocation);
    }

    async fn message(&self, from: ValidatorId, bytes: Bytes) {
        self.received.lock().unwrap().push((from, bytes));
    }
}

pub(crate) struct Node {
    pub(crate) app: Arc<App>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) config: OrderConfig,
    pub(crate) order: Option<Order>,
}

impl Node {
    pub(crate) async fn start(&mut self) {
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
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        }
        let own_directory = tempfile::tempdir().unwrap();
        let mut network = Self::open(own_directory.path(), count, plan);
        network._own_directory = Some(own_directory);
        network
    }

    /// The network whose keys and addresses lie in `directory`; made there when it is empty.
    pub(crate) fn open(directory: &Path, count: usize, plan: Plan) -> Self {
        let directory = directory.to_owned();
        let mut signers: Vec<Signer> = (0..count)
            .map(|index| {
                let guard = directory.join(format!("guard.{index}"));
                let key = Key::open(&directory.join(format!("key.{index}")));
                Signer::open(key, plan.on_disk.then_some(guard.as_path()))
            })
            .collect();
        if plan.delegated {
            for index in 0..count {
                let epoch = Key::new();
                let issuer = if plan.forged == Some(index) { &Key::new() } else { &signers[index].key };
                let mut certificate = EpochCertificate {
                    network: NETWORK,
                    validator: ValidatorId::of(&signers[index].key.public()),
                    public_key: epoch.public(),
                    from_height: Height(1),
                    until_height: Height(100_000),
                    pcr_policy: Hash([0; 32]),
                    signature: [0; 64],
                };
                certificate.signature = issuer.sign(&certificate.signing_bytes());
                signers[index].epoch = Some((epoch, certificate));
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
                .map(|other| Peer {
                    host: addresses[other].ip().to_string(),
                    port: addresses[other].port(),
                    peer_id: records[other].peer_id(),
                })
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
        let file = self.plan.on_disk.then(|| open_append(&path));
        let chain = if file.is_some() { read_chain(&path, &self.validators) } else { Vec::new() };
        Arc::new(App {
            validator,
            validators: self.validators.clone(),
            epoch_certificates: self.epoch_certificates.clone(),
            chain: Mutex::new(chain),
            file,
            pending: AtomicUsize::new(0),
            work: Notify::new(),
            busy: AtomicBool::new(self.plan.busy),
            heartbeat: self.plan.heartbeat,
            block_bytes: AtomicUsize::new(self.plan.block_bytes),
            lies: AtomicBool::new(false),
            halt_at: AtomicU64::new(0),
            last_commit: Mutex::new(Instant::now()),
            received: Mutex::default(),
            equivocations: Mutex::default(),
            synced: AtomicU64::new(0),
        })
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
        let twin_peer = Peer { host: address.ip().to_string(), port: address.port(), peer_id: record.peer_id() };
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
            node.app.busy.store(busy, Ordering::Relaxed);
            node.app.work.notify_waiters();
        }
    }

    /// Waits until the nodes have committed `height`.
    pub(crate) async fn reach(&self, nodes: &[usize], height: u64, within: Duration) -> Duration {
        let started = Instant::now();
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
        let deadline = Instant::now() + within;
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

/// Addresses nobody listens on, all different; kept in `path`.
fn addresses(path: &Path, count: usize) -> Vec<SocketAddr> {
    if !path.exists() {
        let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let lines = listeners.iter().map(|listener| format!("{}\n", listener.local_addr().unwrap()));
        std::fs::write(path, lines.collect::<String>()).unwrap();
    }
    std::fs::read_to_string(path).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}
