//! The sections of the file, with their defaults and the reason for each bound.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use stele_accel_hash::HashAlgorithm;
use stele_cold::{ColdError, ColdOptions, Credentials, Retention, RetentionMode};
use stele_hsm::SignerKind;
use stele_types::record::RecordClass;

/// The whole file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this node is.
    pub node: NodeSection,
    /// How validators reach each other.
    pub peers: PeersSection,
    /// The process that holds the keys which no file of this node holds.
    pub signer: Option<SignerSection>,
    /// Voting; without this section the node follows and votes on nothing.
    pub validator: Option<ValidatorSection>,
    /// Who signs checkpoints.
    pub seal: SealSection,
    /// The listeners for parties and the public.
    pub api: ApiSection,
    /// How much may wait before it is ordered.
    #[serde(default)]
    pub admission: AdmissionSection,
    /// How signatures are verified.
    #[serde(default)]
    pub accel: AccelSection,
    /// Snapshots of the state.
    #[serde(default)]
    pub state: StateSection,
    /// Bodies of records; without this section the node keeps none.
    pub payload: Option<PayloadSection>,
    /// The watchdog over the order.
    #[serde(default)]
    pub order: OrderSection,
    /// The listener for the operator: metrics and health.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// The node's own log.
    #[serde(default)]
    pub log: LogSection,
    /// First 16 hexadecimal digits of the SHA-256 of the file.
    #[serde(skip)]
    pub hash: String,
}

/// `[node]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Name of this node in its own log, for the operator's eyes only.
    pub name: String,
    /// Where blocks, state, log and journal live. Created when missing.
    pub data_dir: PathBuf,
    /// The genesis file; its hash is the network.
    pub genesis: PathBuf,
}

/// `[peers]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PeersSection {
    /// Address on which peers reach this node.
    pub listen: SocketAddr,
    /// File with the key of the peer links.
    pub key: PathBuf,
    /// The other nodes. Nobody else may connect.
    #[serde(default)]
    pub persistent: Vec<PeerAddress>,
}

/// One entry of `peers.persistent`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PeerAddress {
    /// `host:port`; a name is resolved whenever a link is made.
    pub address: String,
    /// The libp2p peer id as the validator record pins it: 38 bytes in lower-case hexadecimal.
    pub peer_id: String,
}

/// Which key signs votes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum VoteMode {
    /// The long-term key signs each vote.
    Direct,
    /// An epoch key that the long-term key certified.
    Delegated,
}

/// Who holds a key. Never chosen silently: a software key in production has to be asked for by this word.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SignerName {
    /// A key file; development, tests and demonstrations.
    Software,
    /// A TPM 2.0.
    Tpm,
    /// A hardware security module.
    Pkcs11,
}

impl SignerName {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Tpm => "tpm",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

impl From<SignerName> for SignerKind {
    fn from(name: SignerName) -> Self {
        match name {
            SignerName::Software => Self::Software,
            SignerName::Tpm => Self::Tpm,
            SignerName::Pkcs11 => Self::Pkcs11,
        }
    }
}

/// `[signer]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SignerSection {
    /// The socket that `stele-signer` listens at.
    pub socket: PathBuf,
    /// PCRs of the SHA-256 bank that a quote names unless its asker chooses; empty: those of `stele-signer`.
    #[serde(default)]
    pub pcrs: Vec<u8>,
}

/// `[validator]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ValidatorSection {
    /// Who holds the keys.
    pub signer: SignerName,
    /// File of the long-term key; none if `stele-signer` holds it.
    pub long_term_key: Option<PathBuf>,
    /// Files of epoch keys, each with a certificate on the ledger or in genesis; none if `stele-signer` holds them.
    #[serde(default)]
    pub epoch_keys: Vec<PathBuf>,
    /// Which key signs votes.
    pub mode: VoteMode,
}

/// `[seal]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SealSection {
    /// Who holds the checkpoint key.
    pub signer: SignerName,
    /// File of the checkpoint key; none if `stele-signer` holds it.
    pub key: Option<PathBuf>,
}

/// `[api]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    /// Listener for parties: TLS with client certificates.
    pub party_listen: SocketAddr,
    /// Listener for the public: TLS without client certificates.
    pub public_listen: Option<SocketAddr>,
    /// Listener without TLS, with the public's rights; refused unless the address is loopback.
    pub plain_listen: Option<SocketAddr>,
    /// Certificate chain of this node, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its key, PKCS#8 PEM, mode 0600.
    pub key: PathBuf,
    /// The network CA, PEM: issuer of client certificates.
    pub client_ca: PathBuf,
    /// Bounds.
    #[serde(default)]
    pub limits: ApiLimits,
}

/// `[api.limits]`: what one listener or one request may cost.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    /// Connections of one listener. An idle one costs about 30 KB with TLS, so ten thousand are 300 MB. One client
    /// certificate gets half of them at most, and no more than it leaves to others.
    pub connections_max: usize,
    /// Requests in progress on one listener; more are answered `saturated`. One party gets half of them at most, and no
    /// more than it leaves to others; then it is answered `share_exceeded`.
    pub requests_max: usize,
    /// Concurrent streams of one HTTP/2 connection: one client cannot take all requests.
    pub streams_max: u32,
    /// Body of a request, batches excepted: one statement and then some.
    pub body_bytes_max: usize,
    /// Body of a batch.
    pub batch_bytes_max: usize,
    /// Statements in a batch, and ids in a bulk query.
    pub batch_statements_max: usize,
    /// Bodies of records on their way in or out on all listeners, some 3 MiB each, shared as `requests_max` is.
    pub transfers_max: usize,
    /// Bytes of request bodies in memory at once on all listeners, shared as `requests_max` is; as much again, and at least
    /// 128 MiB, is for answers that are not taken yet, of which the public as a whole counts as one party.
    pub body_memory_bytes_max: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout_ms: u64,
    /// Time from the first byte of a request's head to its last.
    pub header_timeout_ms: u64,
    /// Time for a request's body.
    pub body_timeout_ms: u64,
    /// How long a connection may stay without a request.
    pub idle_timeout_ms: u64,
    /// How long a peer may leave an answer unread.
    pub write_timeout_ms: u64,
    /// Longest `wait_ms` of a long poll.
    pub wait_max_ms: u64,
    /// Time for requests in progress when the node stops.
    pub shutdown_grace_ms: u64,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            requests_max: 4_096,
            streams_max: 64,
            body_bytes_max: 64 * 1024,
            batch_bytes_max: 4 * 1024 * 1024,
            batch_statements_max: 4_096,
            transfers_max: 128,
            body_memory_bytes_max: 256 * 1024 * 1024,
            handshake_timeout_ms: 5_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            idle_timeout_ms: 120_000,
            write_timeout_ms: 30_000,
            wait_max_ms: 30_000,
            shutdown_grace_ms: 5_000,
        }
    }
}

/// `[admission]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionSection {
    /// Statements that wait to be ordered: about two seconds of the target rate.
    pub queue_statements_max: usize,
    /// Their bytes.
    pub queue_bytes_max: usize,
    /// Part of the queue that one party may hold, in percent.
    pub party_share_percent: u8,
}

impl Default for AdmissionSection {
    fn default() -> Self {
        Self { queue_statements_max: 65_536, queue_bytes_max: 64 * 1024 * 1024, party_share_percent: 25 }
    }
}

/// What verifies signatures.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AccelBackend {
    /// The cores of this machine.
    #[default]
    Cpu,
    /// A GPU for bulk work, the cores for the rest and for whatever the GPU does not do.
    Gpu,
}

/// `[accel]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AccelSection {
    /// Where batches are verified.
    pub backend: AccelBackend,
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// Memory for tables of keys of each suite, 86 KiB for a key: a key that has one is verified about four times as
    /// fast. What is given here may be taken three times. 0: no tables.
    pub key_table_bytes_max: usize,
    /// The GPU.
    pub gpu: GpuSection,
}

impl Default for AccelSection {
    fn default() -> Self {
        Self { backend: AccelBackend::Cpu, threads: 0, key_table_bytes_max: 128 << 20, gpu: GpuSection::default() }
    }
}

/// Which part of the bulk work a GPU gets.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum GpuShare {
    /// What it is predicted to finish before the cores would, by measured costs.
    #[default]
    Measured,
    /// All that it can do: to test it.
    All,
}

/// `[accel.gpu]`; counts for nothing unless `accel.backend` is `gpu`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct GpuSection {
    /// Part of the name of the device to use; empty: the best there is, discrete ones first.
    pub adapter: String,
    /// Whether a software device may serve. It is slower than the cores that it runs on, so it is for tests.
    pub software_device: bool,
    /// Whether live work goes there too: admission, and blocks that this node votes on. Quorum signatures never do.
    pub live: bool,
    /// Which part of the work it gets.
    pub share: GpuShare,
    /// Batches in flight.
    pub slots: usize,
    /// Bytes of input, and of answers, of a batch; a slot takes four times as much of the device's memory.
    pub slot_bytes: usize,
    /// Signatures of a batch, 1.5 KiB of the device's memory each.
    pub batch_items_max: usize,
    /// Memory of the device for tables of keys of each suite, 86 KiB for a key, 129 KiB for one of Ed25519.
    pub table_bytes_max: usize,
    /// One in so many answers is computed again on the cores.
    pub recheck_one_in: u32,
    /// Signatures last accepted there that are kept, to be verified again should the device be found wrong.
    pub retained_items_max: usize,
    /// Bytes of these.
    pub retained_bytes_max: usize,
}

impl Default for GpuSection {
    fn default() -> Self {
        Self {
            adapter: String::new(),
            software_device: false,
            live: false,
            share: GpuShare::Measured,
            slots: 3,
            slot_bytes: 16 << 20,
            batch_items_max: 65_536,
            table_bytes_max: 64 << 20,
            recheck_one_in: 256,
            retained_items_max: 65_536,
            retained_bytes_max: 64 << 20,
        }
    }
}

/// Where the leaves of the state's tree are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StateLayout {
    /// In memory, and in pages once there are `paged_from_keys` keys; the node moves them while it works.
    #[default]
    Auto,
    /// In memory: about 140 bytes per key.
    Memory,
    /// In pages on disk, with those used last in memory: about 5 bytes of memory per key beside them.
    Paged,
}

/// `[state]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// Heights between snapshots for nodes that join: one is written at every multiple, and the two newest are kept. The
    /// same on all nodes, so that a joiner can fetch from several. 0: none.
    pub snapshot_interval: u64,
    /// Bytes of values that stay in memory, those written last; the others are read from their files.
    pub values_memory_bytes: usize,
    /// Where the leaves are. It changes no root, and may be another at every start.
    pub layout: StateLayout,
    /// Keys from which on they are in pages, with `layout = "auto"`.
    pub paged_from_keys: u64,
    /// Bytes of pages that stay in memory, those used last.
    pub page_cache_bytes: usize,
    /// Threads that may work on one block's writes. Small blocks take one anyway, and order, admission and execution want
    /// the other cores: more are worth it where cores idle while a large block is committed.
    pub threads: usize,
}

impl StateSection {
    /// The layout for the state map.
    #[must_use]
    pub const fn layout(&self) -> stele_state::Layout {
        match self.layout {
            StateLayout::Auto => stele_state::Layout::Auto { keys: self.paged_from_keys },
            StateLayout::Memory => stele_state::Layout::Memory,
            StateLayout::Paged => stele_state::Layout::Paged,
        }
    }
}

impl Default for StateSection {
    fn default() -> Self {
        Self {
            snapshot_interval: 10_000,
            values_memory_bytes: 1 << 30,
            layout: StateLayout::Auto,
            paged_from_keys: 100_000_000,
            page_cache_bytes: 1 << 30,
            threads: 1,
        }
    }
}

/// `[payload]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PayloadSection {
    /// Who holds the custody key, under which the keys of bodies are sealed.
    pub signer: SignerName,
    /// File of the custody key; none if `stele-signer` holds it.
    pub custody_key: Option<PathBuf>,
    /// The drives, all of one store.
    pub drives: Vec<DriveEntry>,
    /// Columns of a segment that hold bodies.
    #[serde(default = "PayloadSection::data_columns")]
    pub data_columns: usize,
    /// Columns that hold their parity: so many drives may be lost. With the others together no more than there are drives.
    #[serde(default = "PayloadSection::parity_columns")]
    pub parity_columns: usize,
    /// Bytes of a segment's column on one drive, when the store is made.
    #[serde(default = "PayloadSection::slot_bytes")]
    pub slot_bytes: u64,
    /// Bytes of one body at most.
    #[serde(default = "PayloadSection::blob_bytes_max")]
    pub blob_bytes_max: u64,
    /// How long a body may be without a statement that refers to it.
    #[serde(default = "PayloadSection::unreferenced_ms")]
    pub unreferenced_ms: u64,
    /// Everything that is stored is read, and mended where it is damaged, once in so many days.
    #[serde(default = "PayloadSection::scrub_days")]
    pub scrub_days: u16,
    /// Segments of which no more than so much is alive, in percent, are freed by moving what lives.
    #[serde(default = "PayloadSection::collect_live_percent")]
    pub collect_live_percent: u8,
    /// Blocks so much older than the newest one move into the store, whole segments at a time; without it none do.
    pub archive_blocks_after_ms: Option<u64>,
    /// Whether bodies are removed when the year of their retention is over; the same on all nodes.
    #[serde(default)]
    pub delete_after_retention: bool,
    /// Copies of bodies on other nodes; without it there are none.
    pub custody: Option<CustodySection>,
    /// Where segments go that are old, or that there is no room for; without it nowhere.
    pub cold: Option<ColdSection>,
}

impl PayloadSection {
    const fn data_columns() -> usize {
        8
    }
    const fn parity_columns() -> usize {
        3
    }
    const fn slot_bytes() -> u64 {
        16 << 20
    }
    const fn blob_bytes_max() -> u64 {
        64 << 30
    }
    const fn unreferenced_ms() -> u64 {
        24 * 3_600_000
    }
    const fn scrub_days() -> u16 {
        14
    }
    const fn collect_live_percent() -> u8 {
        50
    }
}

/// Where a body has to be before it is acknowledged.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum CustodyLevel {
    /// On the drives of this node.
    Local,
    /// On those of another node, too, which has signed for it.
    TwoCustodians,
    /// In the cold tier, and besides where two custodians are.
    Cold,
}

impl CustodyLevel {
    /// The word in the file, and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::TwoCustodians => "two-custodians",
            Self::Cold => "cold",
        }
    }
}

/// `[payload.custody]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CustodySection {
    /// Where bodies of all classes have to be that `levels` does not name.
    pub level: CustodyLevel,
    /// Where bodies of a class have to be.
    #[serde(default)]
    pub levels: BTreeMap<String, CustodyLevel>,
    /// How long a body waits for a copy before its sender is told that there is none yet.
    #[serde(default = "CustodySection::wait_ms")]
    pub wait_ms: u64,
    /// Authorities of the network's certificates, PEM.
    pub authorities: PathBuf,
    /// Certificate of an operator of the network, PEM: as whom this node asks the others.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The nodes that keep copies for this one, and for which this one does.
    pub keepers: Vec<KeeperEntry>,
}

impl CustodySection {
    const fn wait_ms() -> u64 {
        10_000
    }

    /// Where bodies of a class have to be.
    pub fn level(&self, class: RecordClass) -> CustodyLevel {
        self.levels.get(class.as_str()).copied().unwrap_or(self.level)
    }

    /// Numbers of the classes whose bodies have to be in the cold tier.
    pub fn classes_at_once(&self) -> Vec<u8> {
        let classes = (0..=u8::MAX).filter_map(RecordClass::from_number);
        classes.filter(|class| self.level(*class) == CustodyLevel::Cold).map(RecordClass::number).collect()
    }
}

/// `[payload.cold]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ColdSection {
    /// The S3 gateway: `https://host:port`, or `http` on this host.
    pub endpoint: String,
    /// The region that requests are signed for.
    #[serde(default = "ColdSection::region")]
    pub region: String,
    /// The bucket of segments; with Object Lock if `lock` asks for one.
    pub objects: String,
    /// The bucket of seals, in which nothing is ever replaced.
    pub seals: String,
    /// What all names in both buckets begin with.
    #[serde(default = "ColdSection::prefix")]
    pub prefix: String,
    /// File with the id of the access key in its first line and the secret in its second.
    pub credentials: PathBuf,
    /// Authorities of the gateway's certificate, PEM; for `https`.
    pub authorities: Option<PathBuf>,
    /// Who may delete an object before its time.
    #[serde(default)]
    pub lock: ColdLock,
    /// Days for which an object is locked.
    #[serde(default)]
    pub lock_days: u32,
    /// Segments go when their newest record is so old.
    #[serde(default = "ColdSection::age_hours")]
    pub age_hours: u32,
    /// With fewer free segments, in percent, those that are there are given up here, the oldest first.
    #[serde(default = "ColdSection::free_percent_min")]
    pub free_percent_min: u8,
    /// A segment with a body whose class asks for `cold` goes when it is full, or so long after that came.
    #[serde(default = "ColdSection::seal_ms")]
    pub seal_ms: u64,
    /// Requests at a time.
    #[serde(default = "ColdSection::requests_max")]
    pub requests_max: usize,
    /// Bytes of segments that are in memory at a time, on their way in either direction.
    #[serde(default = "ColdSection::memory_bytes_max")]
    pub memory_bytes_max: usize,
}

impl ColdSection {
    fn region() -> String {
        "default".to_owned()
    }
    fn prefix() -> String {
        "stele".to_owned()
    }
    const fn age_hours() -> u32 {
        24
    }
    const fn free_percent_min() -> u8 {
        20
    }
    const fn seal_ms() -> u64 {
        60_000
    }
    const fn requests_max() -> usize {
        16
    }
    const fn memory_bytes_max() -> usize {
        64 << 20
    }

    /// The section as the tier takes it.
    ///
    /// # Errors
    /// `Option` if a value, or the file of the credentials, is not what it can be.
    pub fn options(&self, hash: HashAlgorithm) -> Result<ColdOptions, ColdError> {
        let credentials = Credentials::read(&self.credentials)?;
        let options = self.options_with(credentials, hash);
        options.check()?;
        Ok(options)
    }

    pub(super) fn options_with(&self, credentials: Credentials, hash: HashAlgorithm) -> ColdOptions {
        let retention = |mode| Some(Retention { mode, days: self.lock_days });
        ColdOptions {
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            authorities: self.authorities.clone(),
            retention: match self.lock {
                ColdLock::None => None,
                ColdLock::Governance => retention(RetentionMode::Governance),
                ColdLock::Compliance => retention(RetentionMode::Compliance),
            },
            hash,
            requests_max: self.requests_max,
            memory_bytes_max: self.memory_bytes_max,
            ..ColdOptions::new(&self.endpoint, &self.objects, &self.seals, credentials)
        }
    }
}

/// Who may delete an object of the cold tier before its time.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ColdLock {
    /// Whoever has the credentials.
    #[default]
    None,
    /// Who has a right of its own to.
    Governance,
    /// Nobody.
    Compliance,
}

/// One of `payload.custody.keepers`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct KeeperEntry {
    /// Its party listener, HOST:PORT.
    pub address: String,
    /// Its custody key: an uncompressed point of P-256, 130 hexadecimal digits.
    pub custody_key: String,
    /// Its checkpoint key, which signs for copies: a compressed point of P-256, 66 hexadecimal digits.
    pub receipt_key: String,
}

/// One of `payload.drives`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DriveEntry {
    /// A block device, an NVMe character device (`/dev/ngXnY`), a file, or `spdk:` and a transport id.
    pub path: PathBuf,
    /// A file of so many bytes, made by the node where there is no store yet. Devices have their own size.
    pub bytes: Option<u64>,
}

/// `[order]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct OrderSection {
    /// No new height for this long, while a quorum is connected and blocks are due: the engine is restarted.
    pub watchdog_stall_ms: u64,
    /// Restarts in a row without progress, after which the pause before the next one doubles each time.
    pub watchdog_restarts_max: u32,
    /// Longest such pause.
    pub watchdog_pause_max_ms: u64,
    /// A protocol version that this program does not implement and runs with the rules of its own all the same: to
    /// rehearse an upgrade in a test network. 0: none.
    pub rehearse_version: u32,
}

impl Default for OrderSection {
    fn default() -> Self {
        Self {
            watchdog_stall_ms: 30_000,
            watchdog_restarts_max: 3,
            watchdog_pause_max_ms: 600_000,
            rehearse_version: 0,
        }
    }
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Listener for `/metrics`, `/livez` and `/readyz`: plain on loopback, elsewhere TLS with a certificate of the
    /// network CA. Without it there are no metrics.
    pub listen: Option<SocketAddr>,
}

/// Form of the node's own log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for journald and collectors.
    #[default]
    Json,
    /// For people at a terminal.
    Text,
}

/// Least severity that is logged.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// How it happened.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Form.
    pub format: LogFormat,
    /// Least severity.
    pub level: LogLevel,
}
