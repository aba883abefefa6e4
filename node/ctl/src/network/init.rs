//! `stele network init`: keys, certificates, genesis file and configurations of a new network.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::DecodePrivateKey as _;
use stele_hsm::custody::{Custodian as _, SoftwareCustodian};
use stele_hsm::{CheckpointGuard, NodeKeys, PublishedKey, Signer as _, SignerKind, SoftwareSigner, VoteGuard};
use stele_types::cbor::{List, Text};
use stele_types::limits::VALIDATORS_MAX;
use stele_types::party::{Founder, OrganisationCode, Role, RoleSet};
use stele_types::record::PlaceCode;
use stele_types::{
    EpochCertificate, Genesis, Hash, Height, NetworkId, Parameters, PartyId, Suite, Validator, ValidatorId,
    ValidatorSet,
};

use crate::author::random;
use crate::failure::Failure;
use crate::keys::{self, SigningKey};
use crate::network::config::{Holder, Keeper, NodeConfig};
use crate::network::genesis_view::genesis_view;
use crate::network::layout::{NetworkDir, NodeDir};
use crate::network::profile::{NodeProfile, PartyProfile, Profile, check_party_name};
use crate::pki::{Authority, Leaf, Usage};

/// Ports that one node takes, in the order peer, party, public, plain, metrics.
pub const PORTS_PER_NODE: u16 = 5;
/// First port of a new network unless another is named.
pub const BASE_PORT: u16 = 7_400;
/// Agencies that one genesis may found here; more enrol later.
const AGENCIES_MAX: usize = 64;

/// With which key a validator votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VoteMode {
    /// With its long-term key.
    Direct,
    /// With an epoch key that the long-term key certified.
    Delegated,
}

impl VoteMode {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Delegated => "delegated",
        }
    }
}

/// What a new network is made of.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Name of the network.
    pub name: String,
    /// Region of its register, six digits.
    pub region: u64,
    /// Number of validators.
    pub validators: usize,
    /// Host of each node; one host for all when there is one.
    pub hosts: Vec<String>,
    /// First port; node i takes the ports from `base_port + 10 i` on.
    pub base_port: u16,
    /// Key of the votes.
    pub mode: VoteMode,
    /// Number of founding agencies.
    pub agencies: usize,
    /// Suite of the agencies' keys; governors and registrar use ES256, the regulator SM2.
    pub agency_suite: Suite,
    /// Parameters from height 1.
    pub parameters: Parameters,
    /// Drives on which each node keeps bodies of records; none: it keeps none.
    pub payload: Option<PayloadDrives>,
    /// Keys that `stele-signer` holds, one for each node in order; none: all keys are made here, in files.
    pub held: Vec<HeldKeys>,
}

/// The keys of a node that its `stele-signer` holds.
#[derive(Clone, Debug)]
pub struct HeldKeys {
    /// Their public halves, as `stele-signer init` wrote them.
    pub keys: NodeKeys,
    /// Where the signer will listen on the node.
    pub socket: PathBuf,
}

impl HeldKeys {
    /// Reads a file of `stele-signer init`.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(path: &Path, socket: &Path) -> Result<Self> {
        Ok(Self { keys: read_node_keys(path)?, socket: socket.to_owned() })
    }
}

fn read_node_keys(path: &Path) -> Result<NodeKeys> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new("node_keys_malformed", format!("{}: {error}", path.display()))
            .hint("name a file that `stele-signer init` wrote")
            .into()
    })
}

/// Drives of a payload store that are files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadDrives {
    /// How many.
    pub drives: usize,
    /// Bytes of each.
    pub drive_bytes: u64,
    /// Columns of a segment that hold bodies.
    pub data_columns: usize,
    /// Columns that hold their parity.
    pub parity_columns: usize,
    /// Bytes of a column on one drive.
    pub slot_bytes: u64,
    /// Blocks so much older than the newest one move in; none do without it.
    pub archive_blocks_after_ms: Option<u64>,
}

impl PayloadDrives {
    /// Four small files that survive the loss of one: for a laptop.
    pub const SMALL: Self = Self {
        drives: 4,
        drive_bytes: 64 << 20,
        data_columns: 2,
        parity_columns: 1,
        slot_bytes: 4 << 20,
        archive_blocks_after_ms: None,
    };
    /// The layout of an appliance, on eleven files: it survives the loss of three.
    pub const APPLIANCE: Self =
        Self { drives: 11, drive_bytes: 128 << 20, data_columns: 8, parity_columns: 3, ..Self::SMALL };
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            name: "stele-local".into(),
            region: 110_000,
            validators: 4,
            hosts: vec!["127.0.0.1".into()],
            base_port: BASE_PORT,
            mode: VoteMode::Delegated,
            agencies: 1,
            agency_suite: Suite::EdDsa,
            parameters: Parameters::default(),
            payload: None,
            held: Vec::new(),
        }
    }
}

impl InitOptions {
    fn check(&self) -> Result<()> {
        let wrong =
            |what: String, hint: &str| -> Result<()> { Err(Failure::new("parameter_invalid", what).hint(hint).into()) };
        if !(1..=VALIDATORS_MAX).contains(&self.validators) {
            return wrong(
                format!("{} validators", self.validators),
                "a network has 1 to 128 validators; 4 survive one fault",
            );
        }
        if !(1..=AGENCIES_MAX).contains(&self.agencies) {
            return wrong(
                format!("{} agencies", self.agencies),
                "genesis founds 1 to 64 agencies; more enrol with `stele party enrol`",
            );
        }
        if self.hosts.len() != 1 && self.hosts.len() != self.validators {
            return wrong(
                format!("{} hosts for {} validators", self.hosts.len(), self.validators),
                "name one host for all nodes or one for each, with --host",
            );
        }
        if !self.held.is_empty() && self.held.len() != self.validators {
            return wrong(
                format!("keys of {} signers for {} validators", self.held.len(), self.validators),
                "name the file of each node's stele-signer, in order",
            );
        }
        let last = u64::from(self.base_port) + self.validators as u64 * 10;
        if last > u64::from(u16::MAX) {
            return wrong(format!("ports up to {last}"), "choose a lower --base-port");
        }
        if !self.parameters.is_sound() {
            return wrong("parameters out of bounds".into(), "see docs/protocol.md for the bounds of each parameter");
        }
        Ok(())
    }

    fn node(&self, index: usize) -> Result<NodeProfile> {
        let host = self.hosts.get(index).or(self.hosts.first()).ok_or_else(|| anyhow!("no host"))?;
        let first = self.base_port + u16::try_from(index * 10).context("port range")?;
        Ok(node_profile(&format!("node-{}", index + 1), host, first))
    }
}

/// The addresses of a node whose five ports begin at `first`.
fn node_profile(name: &str, host: &str, first: u16) -> NodeProfile {
    let address = |offset: u16| match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", first + offset),
        _ => format!("{host}:{}", first + offset),
    };
    let local = is_loopback(host);
    NodeProfile {
        name: name.to_owned(),
        peer: address(0),
        party: address(1),
        public: address(2),
        plain: local.then(|| address(3)),
        // Metrics are for the machine's own collector; they do not leave the host unless the operator says so.
        metrics: if local { address(4) } else { format!("127.0.0.1:{}", first + 4) },
    }
}

/// A network that was just made.
#[derive(Debug)]
pub struct Network {
    /// Where it lies.
    pub dir: NetworkDir,
    /// Its addresses.
    pub profile: Profile,
    /// Its first state.
    pub genesis: Genesis,
    /// Its founding parties, governors first.
    pub parties: Vec<PartyProfile>,
}

/// Makes a new network in `root`, which must be empty or missing.
///
/// # Errors
/// When an option is out of range, the directory is in use or a file cannot be written.
pub fn init(root: &Path, options: &InitOptions) -> Result<Network> {
    options.check()?;
    let dir = NetworkDir::new(root);
    if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            Failure::new("network_dir_in_use", format!("{} is not empty", root.display()))
                .hint("choose another --dir; keys of a network are never overwritten")
        );
    }
    fs::create_dir_all(dir.parties()).with_context(|| format!("cannot create {}", root.display()))?;
    let authority = Authority::create(&options.name)?;
    authority.save_new(&dir.ca_certificate(), &dir.ca_key())?;

    let mut parties = Vec::new();
    let mut founders = Vec::new();
    let mut found = |name: String, role: Role, suite: Suite| -> Result<PartyId> {
        let (profile, founder) =
            found_party(&dir, &authority, &NewParty { name: &name, roles: &[role], suite, organisation: None })?;
        let id = founder.party;
        parties.push(profile);
        founders.push(founder);
        Ok(id)
    };
    for number in 1..=2 {
        found(format!("governor-{number}"), Role::Governor, Suite::Es256)?;
    }
    found("registrar".into(), Role::Registrar, Suite::Es256)?;
    for number in 1..=options.agencies {
        found(format!("agency-{number}"), Role::Agency, options.agency_suite)?;
    }
    found("regulator".into(), Role::Regulator, Suite::Sm2Sm3)?;

    let mut nodes = Vec::new();
    let mut validators = Vec::new();
    let mut epoch_certificates = Vec::new();
    for index in 0..options.validators {
        let operator = found(format!("operator-{}", index + 1), Role::Operator, Suite::Es256)?;
        let node = options.node(index)?;
        let node_dir = dir.node(&node.name);
        fs::create_dir_all(node_dir.root()).with_context(|| format!("cannot create {}", node_dir.root().display()))?;
        let (validator, certificate) = make_keys(&node_dir, operator, options.mode, options.held.get(index))?;
        validators.push(validator);
        epoch_certificates.extend(certificate);
        nodes.push(node);
    }
    founders.sort_by_key(|founder| founder.party.0);

    let now_ms =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?.as_millis();
    let genesis = Genesis {
        name: Text::new(options.name.as_str()).map_err(|_| anyhow!("the name of the network has at most 64 bytes"))?,
        region: PlaceCode::new(options.region)
            .filter(|code| (100_000..1_000_000).contains(&code.get()))
            .ok_or_else(|| anyhow!("region {} is not a division code of six digits", options.region))?,
        time_ms: u64::try_from(now_ms).context("the clock is far ahead")?,
        parameters: options.parameters.clone(),
        validators: ValidatorSet::new(validators.clone()).context("validators")?,
        epoch_certificates: List::new(epoch_certificates).context("epoch certificates")?,
        founders: List::new(founders).context("founders")?,
    };
    let bytes = genesis.to_bytes();
    let genesis = Genesis::from_bytes(&bytes).context("the genesis file that was made")?;
    stele_ledger::check_genesis(&genesis).map_err(|code| {
        Failure::new("genesis_invalid", format!("the genesis file would found no network ({code})"))
            .hint("ask the operators for the files that `stele-signer init` wrote, unchanged")
    })?;
    fs::write(dir.genesis(), &bytes).context("cannot write genesis.cbor")?;
    let view = serde_json::to_string_pretty(&genesis_view(&genesis)).context("genesis.json")?;
    fs::write(dir.genesis_view(), view + "\n").context("cannot write genesis.json")?;

    for (index, node) in nodes.iter().enumerate() {
        let persistent: Vec<(String, String)> = nodes
            .iter()
            .zip(&validators)
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, (node, validator))| (node.peer.clone(), hex::encode(validator.peer_id())))
            .collect();
        let node_dir = dir.node(&node.name);
        // A copy on the only node would be none.
        let others: Vec<Keeper> = match options.payload {
            Some(_) => nodes
                .iter()
                .filter(|other| other.name != node.name)
                .map(|other| keeper(&dir, other))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        if !others.is_empty() {
            let operator = dir.party(&format!("operator-{}", index + 1));
            fs::copy(operator.tls_certificate(), node_dir.file("operator.pem")).context("cannot write operator.pem")?;
            keys::write_secret_new(&node_dir.file("operator.key"), keys::read_secret(&operator.tls_key())?.as_bytes())?;
        }
        let parts = NodeParts { mode: options.mode, payload: options.payload, keepers: &others };
        write_node(&node_dir, node, (parts, options.held.get(index)), &persistent, &authority, &bytes)?;
    }
    let profile = Profile { name: options.name.clone(), network: genesis.network().to_hex(), nodes };
    profile.save(&dir)?;
    Ok(Network { dir, profile, genesis, parties })
}

/// A party whose keys are made here.
#[derive(Clone, Copy, Debug)]
pub struct NewParty<'a> {
    /// Name on this machine.
    pub name: &'a str,
    /// Its roles.
    pub roles: &'a [Role],
    /// Suite of its signing key.
    pub suite: Suite,
    /// Its organisation, when it has a code.
    pub organisation: Option<OrganisationCode>,
}

/// Makes the directory of a party: signing key, client certificate, description.
///
/// # Errors
/// When the party exists here or a file cannot be written.
pub fn found_party(dir: &NetworkDir, authority: &Authority, new: &NewParty<'_>) -> Result<(PartyProfile, Founder)> {
    let name = new.name;
    check_party_name(name)?;
    let party_dir = dir.party(name);
    fs::create_dir(party_dir.root()).map_err(|error| {
        Failure::new("party_exists_here", format!("cannot create {}: {error}", party_dir.root().display()))
            .hint("choose another name; keys are never overwritten")
    })?;
    let party = PartyId(random()?);
    let key = SigningKey::generate(new.suite)?;
    key.save_new(&party_dir.signing_key())?;
    let leaf = authority.issue(name, &[], Usage::Client)?;
    write_leaf(&leaf, &party_dir.tls_certificate(), &party_dir.tls_key())?;
    let profile = PartyProfile {
        name: name.into(),
        party: party.to_hex(),
        roles: new.roles.iter().map(|role| role.as_str().into()).collect(),
        suite: new.suite.as_str().into(),
        key: key.id().to_hex(),
        tls_pin: leaf.pin.to_hex(),
    };
    profile.save(&party_dir)?;
    let founder = Founder {
        party,
        organisation: new.organisation,
        roles: RoleSet::of(new.roles),
        key: key.enrolled(),
        tls_pins: List::new(vec![leaf.pin]).context("client certificate pin")?,
    };
    Ok((profile, founder))
}

/// A party whose directory [`found_party`] made before, with the roles and the organisation of `new`.
///
/// # Errors
/// When its keys cannot be read or are of another suite.
pub fn found_again(dir: &NetworkDir, new: &NewParty<'_>) -> Result<Founder> {
    let mut profile = PartyProfile::load(dir, new.name)?;
    let key = profile.signing_key(dir)?;
    if key.suite() != new.suite {
        bail!(
            Failure::new("suite_differs", format!("the key of {} is of suite {}", new.name, key.suite()))
                .hint(format!("name it with --suite {}, or choose another name", key.suite()))
        );
    }
    let pin = Hash::from_hex(&profile.tls_pin).ok_or_else(|| anyhow!("malformed tls_pin in party.toml"))?;
    profile.roles = new.roles.iter().map(|role| role.as_str().into()).collect();
    profile.save(&dir.party(new.name))?;
    Ok(Founder {
        party: profile.party_id()?,
        organisation: new.organisation,
        roles: RoleSet::of(new.roles),
        key: key.enrolled(),
        tls_pins: List::new(vec![pin]).context("client certificate pin")?,
    })
}

/// The validator record of a node whose keys lie in `dir`.
///
/// # Errors
/// When a key cannot be read.
pub fn validator_of(dir: &Path, party: PartyId) -> Result<Validator> {
    let public_key = match dir.join(NODE_KEYS) {
        held if held.exists() => validator_point(&read_node_keys(&held)?)?,
        _ => compressed(&SoftwareSigner::open(&dir.join("validator.key"))?)?,
    };
    let text = keys::read_secret(&dir.join("peer.key"))?;
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), seed.as_mut_slice()).map_err(|_| anyhow!("malformed peer.key"))?;
    let peer = SigningKey::from_ed25519_seed(*seed);
    let peer_key = peer.public_key().try_into().context("peer key")?;
    Ok(Validator { public_key, peer_key, party })
}

/// What is known here of the keys that a node's `stele-signer` holds.
const NODE_KEYS: &str = "node-keys.json";

fn validator_point(keys: &NodeKeys) -> Result<[u8; 33]> {
    let missing =
        || Failure::new("node_keys_follower", "these keys are of a node that follows: it has no validator key");
    Ok(keys.validator.as_ref().ok_or_else(missing)?.point()?)
}

/// Keys of one node: long-term validator key with its vote guard, seal key, peer key and, for delegated votes, an epoch
/// key.
fn make_keys(
    dir: &NodeDir,
    operator: PartyId,
    mode: VoteMode,
    held: Option<&HeldKeys>,
) -> Result<(Validator, Option<EpochCertificate>)> {
    if held.is_none_or(|held| held.keys.custody.is_none()) {
        SoftwareCustodian::generate(&dir.file("custody.key")).context("custody key")?;
    }
    let peer = SigningKey::generate(Suite::EdDsa)?;
    keys::write_secret_new(&dir.file("peer.key"), peer_key_text(&peer)?.as_bytes())?;
    let peer_key = peer.public_key().try_into().context("peer key")?;
    if let Some(held) = held {
        let validator = Validator { public_key: validator_point(&held.keys)?, peer_key, party: operator };
        let text = serde_json::to_string_pretty(&held.keys).context(NODE_KEYS)?;
        fs::write(dir.file(NODE_KEYS), text + "\n").with_context(|| format!("cannot write {NODE_KEYS}"))?;
        let certificate = match mode {
            VoteMode::Direct => None,
            VoteMode::Delegated => Some(held_certificate(&held.keys, validator.id())?),
        };
        return Ok((validator, certificate));
    }
    let long_term = SoftwareSigner::generate(&dir.file("validator.key")).context("validator key")?;
    SoftwareSigner::generate(&dir.file("seal.key")).context("seal key")?;
    let validator = Validator { public_key: compressed(&long_term)?, peer_key, party: operator };
    // Made with the key and never again by itself: a guard that is missing later was lost.
    VoteGuard::create(&dir.file("validator.votes"), validator.id().0).context("vote guard")?;
    let certificate = match mode {
        VoteMode::Direct => None,
        VoteMode::Delegated => {
            let epoch = SoftwareSigner::generate(&dir.file("epoch.key")).context("epoch key")?;
            // The network field of a certificate in genesis is zeros, because the network id hashes the file.
            let heights = (Height(1), Height(EpochCertificate::HEIGHTS_MAX));
            let long_term = dir.file("validator.key");
            Some(certify_epoch(&long_term, NetworkId::default(), validator.id(), compressed(&epoch)?, heights)?)
        }
    };
    Ok((validator, certificate))
}

/// The certificate of the first epoch key, which the signer made with its keys.
fn held_certificate(keys: &NodeKeys, validator: ValidatorId) -> Result<EpochCertificate> {
    let missing = || Failure::new("node_keys_no_epoch", "these keys have no epoch key: votes can only be direct");
    let epoch = keys.epoch.as_ref().ok_or_else(missing)?;
    let heights = (Height(epoch.from_height), Height(epoch.until_height));
    let mut certificate = unsigned_certificate(NetworkId::default(), validator, epoch.point()?, heights);
    certificate.signature = epoch.signature()?;
    Ok(certificate)
}

/// A certificate of an epoch key that nobody has signed yet.
pub fn unsigned_certificate(
    network: NetworkId,
    validator: ValidatorId,
    public_key: [u8; 33],
    (from_height, until_height): (Height, Height),
) -> EpochCertificate {
    let (pcr_policy, signature) = (Hash::default(), [0; 64]);
    EpochCertificate { network, validator, public_key, from_height, until_height, pcr_policy, signature }
}

/// Certifies an epoch key with the long-term key in a file.
///
/// # Errors
/// When the key cannot be read.
pub fn certify_epoch(
    long_term_key: &Path,
    network: NetworkId,
    validator: ValidatorId,
    public_key: [u8; 33],
    heights: (Height, Height),
) -> Result<EpochCertificate> {
    let key = p256::SecretKey::from_pkcs8_pem(&keys::read_secret(long_term_key)?)
        .map_err(|_| anyhow!("{} is not a P-256 key", long_term_key.display()))?;
    let mut certificate = unsigned_certificate(network, validator, public_key, heights);
    let signature: p256::ecdsa::Signature = p256::ecdsa::SigningKey::from(key)
        .try_sign(&certificate.signing_bytes())
        .map_err(|_| anyhow!("signature of the epoch certificate"))?;
    certificate.signature = signature.to_bytes().into();
    Ok(certificate)
}

fn compressed(signer: &SoftwareSigner) -> Result<[u8; 33]> {
    signer.public_key().sec1_compressed.as_slice().try_into().context("compressed public key")
}

/// The file form of a peer key: 64 hexadecimal digits of the Ed25519 seed and a line feed.
fn peer_key_text(key: &SigningKey) -> Result<zeroize::Zeroizing<String>> {
    let seed = key.ed25519_seed().ok_or_else(|| anyhow!("a peer key is Ed25519"))?;
    Ok(zeroize::Zeroizing::new(format!("{}\n", hex::encode(*seed))))
}

/// A node that joins a network that runs.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Its name.
    pub name: String,
    /// Its host.
    pub host: String,
    /// First of its five ports.
    pub first_port: u16,
    /// The party that operates it.
    pub operator: PartyId,
    /// Drives on which it keeps bodies of records; none: it keeps none.
    pub payload: Option<PayloadDrives>,
    /// Keys that its `stele-signer` holds; none: they are made here, in files.
    pub held: Option<HeldKeys>,
}

/// Makes the directory of one more node: keys, guard, certificate, and a configuration that names every other node. It
/// votes with its long-term key until an epoch key is made for it. Its addresses are added to the profile. Who it is on
/// the ledger has to be decided: see `network upgrade validators`.
///
/// # Errors
/// When there is such a node, the authority's key is not here, or a file cannot be written.
pub fn add_node(dir: &NetworkDir, new: &NewNode) -> Result<(NodeProfile, Validator)> {
    let mut profile = Profile::load(dir)?;
    check_party_name(&new.name)?;
    let node_dir = dir.node(&new.name);
    fs::create_dir(node_dir.root()).map_err(|error| {
        Failure::new("node_exists_here", format!("cannot create {}: {error}", node_dir.root().display()))
            .hint("choose another name; keys are never overwritten")
    })?;
    let authority = Authority::open(&dir.ca_certificate(), &dir.ca_key())?;
    let genesis = fs::read(dir.genesis()).context("cannot read genesis.cbor")?;
    let node = node_profile(&new.name, &new.host, new.first_port);
    let (validator, _) = make_keys(&node_dir, new.operator, VoteMode::Direct, new.held.as_ref())?;
    let mut persistent = Vec::new();
    for other in &profile.nodes {
        let peer_id = validator_of(dir.node(&other.name).root(), new.operator)?.peer_id();
        persistent.push((other.peer.clone(), hex::encode(peer_id)));
    }
    let parts = NodeParts { mode: VoteMode::Direct, payload: new.payload, keepers: &[] };
    write_node(&node_dir, &node, (parts, new.held.as_ref()), &persistent, &authority, &genesis)?;
    profile.nodes.push(node.clone());
    profile.save(dir)?;
    Ok((node, validator))
}

/// What others name a node by that keeps copies for them.
fn keeper(dir: &NetworkDir, node: &NodeProfile) -> Result<Keeper> {
    let node_dir = dir.node(&node.name);
    let held = match node_dir.file(NODE_KEYS) {
        held if held.exists() => Some(read_node_keys(&held)?),
        _ => None,
    };
    let seal = match &held {
        Some(held) => held.seal.point()?,
        None => compressed(&SoftwareSigner::open(&node_dir.file("seal.key")).context("seal key")?)?,
    };
    let custody = match held.and_then(|held| held.custody) {
        Some(held) => uncompressed(&held.point()?)?,
        None => {
            let custodian = SoftwareCustodian::open(&node_dir.file("custody.key")).context("custody key")?;
            hex::encode(custodian.public_key())
        }
    };
    Ok(Keeper { address: node.party.clone(), custody_key: custody, receipt_key: hex::encode(seal) })
}

/// A point, SEC 1 uncompressed, as nodes name each other's custody keys.
fn uncompressed(point: &[u8; 33]) -> Result<String> {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    let point = p256::PublicKey::from_sec1_bytes(point).ok().context("custody key")?;
    Ok(hex::encode(point.to_encoded_point(false).as_bytes()))
}

/// What a node's configuration says beyond its addresses.
struct NodeParts<'a> {
    mode: VoteMode,
    payload: Option<PayloadDrives>,
    keepers: &'a [Keeper],
}

fn write_node(
    dir: &NodeDir,
    node: &NodeProfile,
    (parts, held): (NodeParts<'_>, Option<&HeldKeys>),
    persistent: &[(String, String)],
    authority: &Authority,
    genesis: &[u8],
) -> Result<()> {
    let host = host_of(&node.party);
    let mut hosts = vec![host.to_owned(), node.name.clone()];
    if is_loopback(host) {
        hosts.push("localhost".into());
    }
    let leaf = authority.issue(&node.name, &hosts, Usage::Server)?;
    write_leaf(&leaf, &dir.file("tls.pem"), &dir.file("tls.key"))?;
    fs::write(dir.file("ca.pem"), authority.certificate()).context("cannot write ca.pem")?;
    fs::write(dir.file("genesis.cbor"), genesis).context("cannot write genesis.cbor")?;
    let network = Genesis::from_bytes(genesis).context("genesis")?.network();
    let holder = match held {
        // Its guards are the signer's, too: `stele-signer adopt` makes that of checkpoints.
        Some(held) => Some(Holder {
            socket: &held.socket,
            validator: held.keys.validator.as_ref().map_or(Ok(SignerKind::Software), PublishedKey::kind)?,
            seal: held.keys.seal.kind()?,
            custody: held.keys.custody.as_ref().map(PublishedKey::kind).transpose()?,
        }),
        None => {
            CheckpointGuard::create(&dir.file("seal.checkpoints"), network.0).context("checkpoint guard")?;
            None
        }
    };
    let listen = |address: &str| listen_address(address);
    let config = NodeConfig {
        name: &node.name,
        mode: parts.mode,
        holder,
        peer_listen: &listen(&node.peer),
        persistent,
        party_listen: &listen(&node.party),
        public_listen: &listen(&node.public),
        plain_listen: node.plain.as_deref(),
        metrics_listen: &node.metrics,
        payload: parts.payload.as_ref(),
        keepers: parts.keepers,
    };
    fs::write(dir.config(), config.to_toml()).with_context(|| format!("cannot write {}", dir.config().display()))
}

pub(crate) fn write_leaf(leaf: &Leaf, certificate: &Path, key: &Path) -> Result<()> {
    fs::write(certificate, &leaf.certificate).with_context(|| format!("cannot write {}", certificate.display()))?;
    keys::write_secret_new(key, leaf.key.as_bytes())
}

/// Host part of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A listener binds the address that peers dial when it is an IP address, and every address for a host name.
fn listen_address(address: &str) -> String {
    let host = host_of(address);
    if host.parse::<IpAddr>().is_ok() {
        return address.to_owned();
    }
    let port = address.rsplit_once(':').map_or("0", |(_, port)| port);
    if host == "localhost" { format!("127.0.0.1:{port}") } else { format!("0.0.0.0:{port}") }
}
