//! What can be wrong with a well-formed file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use stele_accel_hash::HashAlgorithm;
use stele_cold::{ColdError, Credentials};
use stele_types::parameters::PROTOCOL_REHEARSALS;
use stele_types::record::RecordClass;

use super::error::{ConfigError, Fault};
use super::sections::{ColdLock, ColdSection, Config, CustodyLevel, CustodySection, SignerName, VoteMode};
use crate::admission::SUBMISSION_STATEMENTS_MAX;

/// Bytes of a peer id, see `stele_types::Validator::peer_id`.
const PEER_ID_BYTES: usize = 38;
/// Peers: more than the largest validator set is a mistake.
const PEERS_MAX: usize = 256;
/// Drives of one payload store: those of the largest chassis, and of its neighbour.
const PAYLOAD_DRIVES_MAX: usize = 64;
/// What a drive of the payload store needs beside its slots.
const PAYLOAD_OVERHEAD_BYTES: u64 = 4 << 20;
/// Nodes that keep copies for each other: more is another design.
const KEEPERS_MAX: usize = 64;
/// Longest node name; it stands in every line of the log.
const NAME_BYTES_MAX: usize = 64;
/// No time-out is longer than this: a longer one is a unit mistaken.
const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// Collects faults.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &'static str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Fault { key, problem: problem.into(), remedy: remedy.into() });
    }
    fn within(&mut self, key: &'static str, value: u64, low: u64, high: u64) {
        if !(low..=high).contains(&value) {
            self.add(key, format!("{value} is out of range"), format!("choose a value from {low} to {high}"));
        }
    }
}

/// PCRs of a TPM.
const PCR_COUNT: u8 = 24;

impl Config {
    /// Looks at the machine as well: do the files exist, are the keys private, can the data directory be used?
    /// `path` is the configuration's own path, for messages.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every fault found.
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let mut faults = Faults(self.faults());
        readable(&mut faults, "node.genesis", &self.node.genesis, "write it with `stele network init`");
        readable(&mut faults, "api.certificate", &self.api.certificate, "write it with `stele network init`");
        readable(&mut faults, "api.client_ca", &self.api.client_ca, "copy the network CA there");
        private(&mut faults, "api.key", &self.api.key);
        private(&mut faults, "peers.key", &self.peers.key);
        if let Some(key) = &self.seal.key {
            private(&mut faults, "seal.key", key);
        }
        if let Some(validator) = &self.validator {
            if let Some(key) = &validator.long_term_key {
                private(&mut faults, "validator.long_term_key", key);
            }
            for key in &validator.epoch_keys {
                private(&mut faults, "validator.epoch_keys", key);
            }
        }
        if let Some(payload) = &self.payload {
            if let Some(key) = &payload.custody_key {
                private(&mut faults, "payload.custody_key", key);
            }
            if let Some(custody) = &payload.custody {
                private(&mut faults, "payload.custody.key", &custody.key);
            }
        }
        if let Some(cold) = self.payload.as_ref().and_then(|payload| payload.cold.as_ref()) {
            match Credentials::read(&cold.credentials) {
                Ok(_) => private(&mut faults, "payload.cold.credentials", &cold.credentials),
                Err(error) => {
                    let remedy = "write the name of the access key, and the key, a line each, and run `chmod 600`";
                    faults.add("payload.cold.credentials", error.to_string(), remedy);
                }
            }
            if let Some(authorities) = &cold.authorities {
                readable(&mut faults, "payload.cold.authorities", authorities, "copy the gateway's CA there");
            }
        }
        if let Ok(metadata) = fs::metadata(&self.node.data_dir)
            && !metadata.is_dir()
        {
            let problem = format!("{} is not a directory", self.node.data_dir.display());
            faults.add("node.data_dir", problem, "name a directory, or a path that does not exist yet");
        }
        if faults.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { path: path.to_owned(), faults: faults.0 }) }
    }

    /// Faults that the file alone shows.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.name(&mut faults);
        self.addresses(&mut faults);
        self.peers(&mut faults);
        self.signers(&mut faults);
        self.limits(&mut faults);
        self.payload(&mut faults);
        faults.0
    }

    fn name(&self, faults: &mut Faults) {
        let name = &self.node.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            let remedy = format!("use 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
            faults.add("node.name", "not a name", remedy);
        }
    }

    fn addresses(&self, faults: &mut Faults) {
        if let Some(plain) = self.api.plain_listen
            && !plain.ip().is_loopback()
        {
            let remedy = "use 127.0.0.1 or [::1], or serve the network with api.public_listen";
            faults.add("api.plain_listen", format!("{plain} is not a loopback address"), remedy);
        }
        let named: [(&'static str, Option<SocketAddr>); 5] = [
            ("peers.listen", Some(self.peers.listen)),
            ("api.party_listen", Some(self.api.party_listen)),
            ("api.public_listen", self.api.public_listen),
            ("api.plain_listen", self.api.plain_listen),
            ("metrics.listen", self.metrics.listen),
        ];
        let mut seen = BTreeMap::new();
        for (key, address) in named.into_iter().filter_map(|(key, address)| Some((key, address?))) {
            // Port 0 asks the system for any free port; tests use it.
            if address.port() == 0 {
                continue;
            }
            if let Some(other) = seen.insert(address.port(), key) {
                faults.add(key, format!("port {} is taken by {other}", address.port()), "give each listener its own");
            }
        }
    }

    fn peers(&self, faults: &mut Faults) {
        const KEY: &str = "peers.persistent";
        if self.peers.persistent.len() > PEERS_MAX {
            faults.add(KEY, "too many peers", format!("name at most {PEERS_MAX}"));
        }
        for peer in &self.peers.persistent {
            if peer.split().is_none() {
                faults.add(KEY, format!("{:?} is not host:port", peer.address), "write it as in \"10.0.0.2:7400\"");
            }
            if peer.peer_id_bytes().is_none() {
                let problem = format!("the peer id of {:?} is not {PEER_ID_BYTES} bytes in hexadecimal", peer.address);
                faults.add(KEY, problem, "copy it from the validator record (`stele query validators`)");
            }
        }
    }

    fn signers(&self, faults: &mut Faults) {
        self.holder(faults, ("seal.signer", "seal.key"), self.seal.signer, self.seal.key.is_some());
        if let Some(signer) = &self.signer
            && signer.pcrs.iter().any(|pcr| *pcr >= PCR_COUNT)
        {
            faults.add("signer.pcrs", format!("{:?}", signer.pcrs), format!("name PCRs below {PCR_COUNT}"));
        }
        let Some(validator) = &self.validator else { return };
        let key = validator.long_term_key.is_some();
        self.holder(faults, ("validator.signer", "validator.long_term_key"), validator.signer, key);
        if !key && !validator.epoch_keys.is_empty() {
            let remedy = "leave it out: stele-signer holds them";
            faults.add("validator.epoch_keys", "epoch keys are where the long-term key is", remedy);
        }
        if validator.mode == VoteMode::Delegated && key && validator.epoch_keys.is_empty() {
            let remedy = "name an epoch key in validator.epoch_keys, or use mode = \"direct\"";
            faults.add("validator.mode", "delegated votes need an epoch key", remedy);
        }
    }

    /// A key lies in a file, or `stele-signer` holds it; the configuration says which, and what holds it.
    fn holder(
        &self,
        faults: &mut Faults,
        (signer, key): (&'static str, &'static str),
        name: SignerName,
        in_file: bool,
    ) {
        if in_file && name != SignerName::Software {
            let problem = format!("a key in a file is not in a {}", name.as_str());
            faults.add(key, problem, "leave it out and name stele-signer's socket in [signer], or use \"software\"");
        } else if !in_file && self.signer.is_none() {
            let problem = format!("nothing holds the {} key", name.as_str());
            faults.add(signer, problem, format!("name stele-signer's socket in [signer], or a file in {key}"));
        }
    }

    fn payload(&self, faults: &mut Faults) {
        const DRIVES: &str = "payload.drives";
        let Some(payload) = &self.payload else { return };
        let key = ("payload.signer", "payload.custody_key");
        self.holder(faults, key, payload.signer, payload.custody_key.is_some());
        let columns = payload.data_columns.saturating_add(payload.parity_columns);
        if payload.data_columns == 0 || columns > payload.drives.len() {
            let problem = format!("{columns} columns on {} drives", payload.drives.len());
            faults.add(
                DRIVES,
                problem,
                "name as many drives as payload.data_columns and payload.parity_columns, or more",
            );
        }
        if payload.drives.len() > PAYLOAD_DRIVES_MAX {
            faults.add(DRIVES, "too many drives", format!("name at most {PAYLOAD_DRIVES_MAX}"));
        }
        let mut seen = BTreeSet::new();
        for drive in &payload.drives {
            if !seen.insert(&drive.path) {
                faults.add(DRIVES, format!("{} is named twice", drive.path.display()), "name each drive once");
            }
            if let Some(bytes) = drive.bytes {
                // Superblocks, and two slots.
                let least = (2 * payload.slot_bytes).saturating_add(PAYLOAD_OVERHEAD_BYTES);
                faults.within("payload.drives.bytes", bytes, least, 1 << 50);
            }
        }
        faults.within("payload.slot_bytes", payload.slot_bytes, 1 << 20, 256 << 20);
        if !payload.slot_bytes.is_multiple_of(4096) {
            faults.add("payload.slot_bytes", "not whole blocks", "choose a multiple of 4096");
        }
        faults.within("payload.blob_bytes_max", payload.blob_bytes_max, 1 << 20, stele_storage::OBJECT_BYTES_MAX / 2);
        faults.within("payload.unreferenced_ms", payload.unreferenced_ms, 1_000, 30 * 86_400_000);
        faults.within("payload.scrub_days", u64::from(payload.scrub_days), 1, 365);
        faults.within("payload.collect_live_percent", u64::from(payload.collect_live_percent), 1, 90);
        if let Some(after) = payload.archive_blocks_after_ms {
            faults.within("payload.archive_blocks_after_ms", after, 1_000, 100 * 365 * 86_400_000);
        }
        if let Some(cold) = &payload.cold {
            check_cold(cold, faults);
        }
        let levels = payload.custody.as_ref().map(|custody| custody.levels.values().chain([&custody.level]));
        if payload.cold.is_none() && levels.into_iter().flatten().any(|level| *level == CustodyLevel::Cold) {
            let problem = "bodies are to be in a cold tier, and none is named";
            faults.add("payload.cold", problem, "write the section payload.cold, or another level");
        }
        if let Some(custody) = &payload.custody {
            check_custody(custody, faults);
        }
    }

    fn limits(&self, faults: &mut Faults) {
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let limits = &self.api.limits;
        faults.within("api.limits.connections_max", wide(limits.connections_max), 2, 1_000_000);
        faults.within("api.limits.requests_max", wide(limits.requests_max), 2, 1_000_000);
        faults.within("api.limits.transfers_max", wide(limits.transfers_max), 2, 100_000);
        faults.within("api.limits.streams_max", u64::from(limits.streams_max), 1, 10_000);
        faults.within("api.limits.body_bytes_max", wide(limits.body_bytes_max), 16 * 1024, 1 << 20);
        faults.within("api.limits.batch_bytes_max", wide(limits.batch_bytes_max), 16 * 1024, 64 << 20);
        faults.within(
            "api.limits.batch_statements_max",
            wide(limits.batch_statements_max),
            1,
            wide(SUBMISSION_STATEMENTS_MAX),
        );
        // No party gets more than half of it.
        let memory_min = 2 * wide(limits.batch_bytes_max.max(limits.body_bytes_max));
        faults.within("api.limits.body_memory_bytes_max", wide(limits.body_memory_bytes_max), memory_min, 1 << 40);
        for (key, value) in [
            ("api.limits.handshake_timeout_ms", limits.handshake_timeout_ms),
            ("api.limits.header_timeout_ms", limits.header_timeout_ms),
            ("api.limits.body_timeout_ms", limits.body_timeout_ms),
            ("api.limits.idle_timeout_ms", limits.idle_timeout_ms),
            ("api.limits.write_timeout_ms", limits.write_timeout_ms),
            ("api.limits.wait_max_ms", limits.wait_max_ms),
            ("order.watchdog_stall_ms", self.order.watchdog_stall_ms),
            ("order.watchdog_pause_max_ms", self.order.watchdog_pause_max_ms),
        ] {
            faults.within(key, value, 100, TIMEOUT_MS_MAX);
        }
        faults.within("api.limits.shutdown_grace_ms", limits.shutdown_grace_ms, 0, TIMEOUT_MS_MAX);
        let admission = &self.admission;
        faults.within("admission.queue_statements_max", wide(admission.queue_statements_max), 1, 10_000_000);
        faults.within("admission.queue_bytes_max", wide(admission.queue_bytes_max), 64 * 1024, 1 << 36);
        faults.within("admission.party_share_percent", u64::from(admission.party_share_percent), 1, 100);
        faults.within("accel.threads", wide(self.accel.threads), 0, 1_024);
        faults.within("accel.key_table_bytes_max", wide(self.accel.key_table_bytes_max), 0, 1 << 40);
        faults.within("state.threads", wide(self.state.threads), 1, 256);
        let gpu = &self.accel.gpu;
        faults.within("accel.gpu.slots", wide(gpu.slots), 1, 64);
        // A slot holds at least one subtree of a Merkle job.
        faults.within("accel.gpu.slot_bytes", wide(gpu.slot_bytes), 256 << 10, 1 << 30);
        faults.within("accel.gpu.batch_items_max", wide(gpu.batch_items_max), 128, 1 << 22);
        faults.within("accel.gpu.table_bytes_max", wide(gpu.table_bytes_max), 1 << 20, 1 << 36);
        faults.within("accel.gpu.recheck_one_in", u64::from(gpu.recheck_one_in), 1, 65_536);
        faults.within("accel.gpu.retained_items_max", wide(gpu.retained_items_max), 0, 1 << 24);
        faults.within("accel.gpu.retained_bytes_max", wide(gpu.retained_bytes_max), 0, 1 << 34);
        if (1..PROTOCOL_REHEARSALS).contains(&self.order.rehearse_version) {
            let remedy = format!(
                "name a version from {PROTOCOL_REHEARSALS} on in a test network; a real version needs a release that \
                 implements it"
            );
            faults.add("order.rehearse_version", "not the version of a rehearsal", remedy);
        }
    }
}

impl super::PeerAddress {
    /// Host and port, when the address has both.
    pub fn split(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then_some((host, port))
    }
    /// The peer id, when it has the form of one.
    pub fn peer_id_bytes(&self) -> Option<[u8; PEER_ID_BYTES]> {
        let mut bytes = [0; PEER_ID_BYTES];
        hex::decode_to_slice(&self.peer_id, &mut bytes).ok()?;
        // Identity multihash of an Ed25519 key: anything else is an id of another kind.
        bytes.starts_with(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]).then_some(bytes)
    }
}

fn readable(faults: &mut Faults, key: &'static str, path: &Path, remedy: &str) {
    match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => faults.add(key, format!("{} is not a file", path.display()), remedy),
        Err(error) => faults.add(key, format!("{}: {error}", path.display()), remedy),
    }
}

/// A key that others can read is no key.
fn private(faults: &mut Faults, key: &'static str, path: &Path) {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            faults.add(key, format!("{} is not a file", path.display()), "name the key file");
        }
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                let problem = format!("{} has mode {mode:04o}, so others can read it", path.display());
                faults.add(key, problem, format!("run `chmod 600 {}`", path.display()));
            }
        }
        Err(error) => faults.add(key, format!("{}: {error}", path.display()), "make it with `stele key generate`"),
    }
}

fn check_cold(cold: &ColdSection, faults: &mut Faults) {
    faults.within("payload.cold.age_hours", u64::from(cold.age_hours), 0, 365 * 24);
    faults.within("payload.cold.free_percent_min", u64::from(cold.free_percent_min), 0, 90);
    faults.within("payload.cold.seal_ms", cold.seal_ms, 0, 24 * 3_600_000);
    if (cold.lock == ColdLock::None) != (cold.lock_days == 0) {
        let remedy = "name days with lock = \"governance\" or \"compliance\", and none without";
        faults.add("payload.cold.lock_days", "a lock without days, or days without a lock", remedy);
    }
    // Whatever is in the file, which is looked at when the node starts.
    let credentials = Credentials { key_id: "id".to_owned(), secret: "secret".to_owned() };
    if let Err(error) = cold.options_with(credentials, HashAlgorithm::Sha256).check() {
        let key = match &error {
            ColdError::Option { option: "endpoint", .. } => "payload.cold.endpoint",
            ColdError::Option { option: "objects", .. } => "payload.cold.objects",
            ColdError::Option { option: "seals", .. } => "payload.cold.seals",
            ColdError::Option { option: "prefix", .. } => "payload.cold.prefix",
            ColdError::Option { option: "authorities", .. } => "payload.cold.authorities",
            ColdError::Option { option: "retention", .. } => "payload.cold.lock_days",
            ColdError::Option { option: "requests_max", .. } => "payload.cold.requests_max",
            ColdError::Option { option: "memory_bytes_max", .. } => "payload.cold.memory_bytes_max",
            _ => "payload.cold",
        };
        faults.add(key, error.to_string(), "see docs/steled.example.toml");
    }
}

fn check_custody(custody: &CustodySection, faults: &mut Faults) {
    const KEEPERS: &str = "payload.custody.keepers";
    for class in custody.levels.keys().filter(|class| RecordClass::from_word(class).is_none()) {
        faults.add(
            "payload.custody.levels",
            format!("{class} is no class"),
            "name a class of records, such as medical",
        );
    }
    faults.within("payload.custody.wait_ms", custody.wait_ms, 0, 60_000);
    let wants_copies =
        custody.levels.values().chain([&custody.level]).any(|level| *level == CustodyLevel::TwoCustodians);
    if custody.keepers.is_empty() && wants_copies {
        faults.add(KEEPERS, "nobody keeps the copies that are asked for", "name the other nodes that keep bodies");
    }
    if custody.keepers.len() > KEEPERS_MAX {
        faults.add(KEEPERS, "too many nodes", format!("name at most {KEEPERS_MAX}"));
    }
    let mut seen = BTreeSet::new();
    for keeper in &custody.keepers {
        let bytes = |text: &str, length: usize| hex::decode(text).is_ok_and(|bytes| bytes.len() == length);
        if !bytes(&keeper.custody_key, 65) || !bytes(&keeper.receipt_key, 33) {
            let problem = format!("the keys of {} are no points of P-256", keeper.address);
            faults.add(KEEPERS, problem, "write what `steled storage identity` prints on that node");
        }
        if !seen.insert(&keeper.custody_key) {
            faults.add(KEEPERS, format!("{} is named twice", keeper.address), "name each node once");
        }
    }
}

#[cfg(test)]
mod tests;
