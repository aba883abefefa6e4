//! `stele key`: signing keys of parties, and epoch keys of validators.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use stele_hsm::remote::SignerSocket;
use stele_hsm::remote::wire::Role as KeyRole;
use stele_hsm::{CheckpointGuard, EpochCertificateRequest, Signer, SignerError, SoftwareSigner, VoteGuard};
use stele_ledger::value::KeyRecord;
use stele_types::governance::EpochCertify;
use stele_types::hash::KeyId;
use stele_types::party::{EnrolledKey, KeyEnrol, KeyReset, KeyRevoke, KeyRotate, PublicKey, RevocationReason};
use stele_types::{Code, Command, EpochCertificate, Genesis, Height, NetworkId, Suite, ValidatorId};

use crate::commands::governed::{DualControl, issue, party_id};
use crate::commands::{approval, ceremony, share, words};
use crate::describe::{self, Object};
use crate::failure::Failure;
use crate::keys::SigningKey;
use crate::network::init::{certify_epoch, unsigned_certificate};
use crate::network::layout::NetworkDir;
use crate::network::profile::PartyProfile;
use crate::output::Record;
use crate::session::Session;
use crate::state_query;

/// Heights that an epoch certificate covers unless another end is named.
const EPOCH_HEIGHTS: u64 = EpochCertificate::HEIGHTS_MAX;

/// Signing keys of parties, and epoch keys of validators.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a signing key in a file that only its owner can read
    Generate {
        /// Suite
        #[arg(long, value_parser = words::suite, default_value = "es256")]
        suite: Suite,
        /// File to make
        #[arg(long)]
        out: PathBuf,
    },
    /// Show the public half of a key file [default: the acting party's key]
    Show {
        /// Key file
        file: Option<PathBuf>,
    },
    /// Enrol one more key of the acting party
    Enrol {
        /// Key file
        file: PathBuf,
    },
    /// Put a new key in place of the acting party's signing key, on the ledger and in its directory
    Rotate {
        /// Key file of the new key
        file: PathBuf,
    },
    /// Sign with another enrolled key of the acting party from now on
    Use {
        /// Key file
        file: PathBuf,
    },
    /// End a key of the acting party
    Revoke {
        /// Key id
        #[arg(value_parser = words::key_id)]
        key: KeyId,
        /// Why
        #[arg(long, value_parser = words::revocation_reason, default_value = "superseded")]
        reason: RevocationReason,
    },
    /// Propose a first key again for a party that lost all of its own
    Reset {
        /// Name or id
        party: String,
        /// Key file of the new key, when it lies here
        #[arg(required_unless_present = "public_key")]
        file: Option<PathBuf>,
        /// Public half of a key that the party made, in the suite's canonical form, hexadecimal
        #[arg(long, conflicts_with = "file", value_name = "HEX")]
        public_key: Option<String>,
        /// Suite of that key
        #[arg(long, value_parser = words::suite, default_value = "es256")]
        suite: Suite,
        /// How it is decided
        #[command(flatten)]
        dual: DualControl,
    },
    /// Make an epoch key for a validator, certify it with the long-term key and publish the certificate
    Epoch(EpochArguments),
    /// Destroy an epoch key that a signer holds; its certificate should have ended, or another key should cover its heights
    RetireEpoch(RetireArguments),
    /// Make a guard of votes or of checkpoints that was lost; it signs nothing below a height, or a size of the log
    Guard(GuardArguments),
    /// Approve the PCRs of a release: custody keys that are sealed under the policy key open where it runs
    Approve(approval::ApproveArguments),
    /// Make a node's keys before witnesses, and check the protocol that they signed
    #[command(subcommand)]
    Ceremony(ceremony::CeremonyCommand),
    /// Check a share of a custody key, or seal it for the signer that recovers the key
    Share(share::ShareArguments),
}

/// Arguments of `key guard`.
#[derive(Debug, Args)]
pub struct GuardArguments {
    /// Long-term key of the validator; the guard is made beside it
    #[arg(long, value_name = "FILE", requires = "from_height", required_unless_present = "seal_key")]
    pub validator_key: Option<PathBuf>,
    /// First height at which it may vote again: two above the newest height of the network, read after the node stopped
    #[arg(long, value_name = "HEIGHT", requires = "validator_key")]
    pub from_height: Option<u64>,
    /// Checkpoint key of the node; the guard is made beside it
    #[arg(long, value_name = "FILE", requires = "from_size", conflicts_with = "validator_key")]
    pub seal_key: Option<PathBuf>,
    /// Fewest leaves of a log that may be signed again: one more than the log has now
    #[arg(long, value_name = "LEAVES", requires = "seal_key")]
    pub from_size: Option<u64>,
    /// Genesis file of the network, for the guard of checkpoints [default: that of the network directory]
    #[arg(long, value_name = "FILE", requires = "seal_key")]
    pub genesis: Option<PathBuf>,
}

/// Arguments of `key retire-epoch`.
#[derive(Debug, Args)]
pub struct RetireArguments {
    /// Socket of the stele-signer that holds it
    #[arg(long, value_name = "SOCKET")]
    pub signer: PathBuf,
    /// The key, SEC 1 compressed, hexadecimal
    pub key: String,
}

/// Arguments of `key epoch`.
#[derive(Debug, Args)]
pub struct EpochArguments {
    /// Directory of the node, with its validator.key
    #[arg(long, required_unless_present = "signer")]
    pub node_dir: Option<PathBuf>,
    /// Socket of the stele-signer that holds the long-term key; it makes the epoch key and keeps it
    #[arg(long, value_name = "SOCKET", conflicts_with = "node_dir")]
    pub signer: Option<PathBuf>,
    /// First height at which the key votes [default: the next one]
    #[arg(long)]
    pub from_height: Option<u64>,
    /// Last height at which it votes [default: as many as a certificate may cover]
    #[arg(long)]
    pub until_height: Option<u64>,
}

impl KeyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Generate { suite, out } => {
                let key = SigningKey::generate(suite)?;
                key.save_new(&out)?;
                session.output.record(&key_record(&key).with("file", out.display().to_string()))?;
                Ok(0)
            }
            Self::Show { file } => {
                let key = match file {
                    Some(file) => SigningKey::load(&file)?,
                    None => session.author()?.key().clone(),
                };
                session.output.record(&key_record(&key))?;
                Ok(0)
            }
            Self::Enrol { file } => {
                let key = SigningKey::load(&file)?.enrolled();
                issue(session, &Command::KeyEnrol(KeyEnrol { key })).await
            }
            Self::Rotate { file } => rotate(session, &file).await,
            Self::Use { file } => use_key(session, &file).await,
            Self::Revoke { key, reason } => issue(session, &Command::KeyRevoke(KeyRevoke { key, reason })).await,
            Self::Reset { party, file, public_key, suite, dual } => {
                let key = match (&file, &public_key) {
                    (Some(file), _) => SigningKey::load(file)?.enrolled(),
                    (None, Some(text)) => public_half(suite, text)?,
                    (None, None) => bail!("name a key file or --public-key"),
                };
                let id = party_id(session, &party)?;
                let code = dual.propose(session, &Command::KeyReset(KeyReset { party: id, key })).await?;
                if code == 0 {
                    let text = "Once it is approved, the party signs with it after: stele --as PARTY key use FILE";
                    session.output.text(&format!("\n{text}"))?;
                }
                Ok(code)
            }
            Self::Epoch(arguments) => arguments.run(session).await,
            Self::RetireEpoch(arguments) => arguments.run(session).await,
            Self::Guard(arguments) => arguments.run(session),
            Self::Approve(arguments) => arguments.run(session),
            Self::Ceremony(command) => command.run(session),
            Self::Share(arguments) => arguments.run(session),
        }
    }
}

fn key_record(key: &SigningKey) -> Record {
    Record::new()
        .with("key", key.id().to_hex())
        .with("suite", key.suite().as_str())
        .with("public_key", hex::encode(key.public_key()))
}

async fn rotate(session: &Session, file: &Path) -> Result<u8> {
    let new = SigningKey::load(file)?;
    let (dir, name) = (session.dir()?, session.party_name()?);
    let old = session.author()?.key().id();
    let code = issue(session, &Command::KeyRotate(KeyRotate { old, new: new.enrolled() })).await?;
    if code == 0 {
        let kept = put_in_place(&dir, name, &new)?;
        session.output.text(&format!(
            "\n{name} signs with {} from now on; the old key is {}",
            new.id(),
            kept.display()
        ))?;
    }
    Ok(code)
}

impl RetireArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let bytes = hex::decode(&self.key).ok().and_then(|bytes| <[u8; 33]>::try_from(bytes).ok());
        let key = bytes.ok_or_else(|| Failure::new("key_invalid", "a key is 66 hexadecimal digits"))?;
        let signer = SignerSocket::new(&self.signer);
        let held = signer.describe().await?.keys;
        if !held.iter().any(|held| held.role == KeyRole::Epoch && held.public_key == key) {
            bail!(Failure::new("signer_key", "this signer has no such epoch key").hint("see `stele-signer status`"));
        }
        signer.retire_epoch_key(key).await?;
        session.output.record(&Record::new().with("retired", self.key))?;
        Ok(0)
    }
}

impl GuardArguments {
    fn run(self, session: &Session) -> Result<u8> {
        let record = match (self.validator_key, self.from_height, self.seal_key, self.from_size) {
            (Some(key), Some(height), ..) => {
                let validator = ValidatorId::of(&compressed(&SoftwareSigner::open(&key)?)?);
                let path = key.with_extension("votes");
                VoteGuard::create_from(&path, validator.0, height)
                    .map_err(|error| guard_not_made("vote_guard_not_made", &error))?;
                let record = Record::new().with("guard", path.display().to_string());
                record.with("validator", validator.to_hex()).with("from_height", height)
            }
            (_, _, Some(key), Some(size)) => {
                SoftwareSigner::open(&key)?;
                let genesis = self.genesis.map_or_else(|| Ok(session.dir()?.genesis()), Ok::<_, anyhow::Error>)?;
                let bytes = fs::read(&genesis).with_context(|| format!("cannot read {}", genesis.display()))?;
                let network = Genesis::from_bytes(&bytes).context("genesis")?.network();
                let path = key.with_extension("checkpoints");
                CheckpointGuard::create_from(&path, network.0, size)
                    .map_err(|error| guard_not_made("checkpoint_guard_not_made", &error))?;
                let record = Record::new().with("guard", path.display().to_string());
                record.with("network", network.to_hex()).with("from_size", size)
            }
            _ => bail!("name a key and where signing may begin again"),
        };
        session.output.record(&record)?;
        Ok(0)
    }
}

fn guard_not_made(code: &'static str, error: &SignerError) -> Failure {
    Failure::new(code, error.to_string()).hint("a guard that is there is never replaced: it knows what was signed")
}

fn compressed(signer: &dyn Signer) -> Result<[u8; 33]> {
    signer.public_key().sec1_compressed.as_slice().try_into().context("compressed public key")
}

/// Puts a key in the place of the party's signing key; returns where the old one is kept.
fn put_in_place(dir: &NetworkDir, name: &str, new: &SigningKey) -> Result<PathBuf> {
    let mut profile = PartyProfile::load(dir, name)?;
    let path = dir.party(name).signing_key();
    // Under its own id, so that no key is ever overwritten.
    let kept = path.with_file_name(format!("signing-{}.key", profile.key));
    fs::rename(&path, &kept).with_context(|| format!("cannot move {}", path.display()))?;
    new.save_new(&path)?;
    (profile.suite, profile.key) = (new.suite().as_str().into(), new.id().to_hex());
    profile.save(&dir.party(name))?;
    Ok(kept)
}

async fn use_key(session: &Session, file: &Path) -> Result<u8> {
    let new = SigningKey::load(file)?;
    let (dir, name) = (session.dir()?, session.party_name()?);
    let profile = PartyProfile::load(&dir, name)?;
    let id = new.id();
    if profile.key == id.to_hex() {
        bail!(Failure::new("already_exists", format!("{name} signs with {id} already")).hint("nothing is left to do"));
    }
    let object = Object::Key(id);
    let proven = state_query::query(&session.party_client()?, &session.anchor()?, &object).await?;
    let known =
        proven.first().and_then(|proven| proven.value.as_deref()).map(describe::read::<KeyRecord>).transpose()?;
    let party = profile.party_id()?;
    if known.is_none_or(|known| known.party != party || known.ended.is_some()) {
        bail!(
            Failure::new(Code::KeyUnknown.as_str(), format!("{id} is no live key of {name}, and that is proven"))
                .hint("enrol it first: `stele key enrol`, or `stele key reset` when the party has no other key")
        );
    }
    let kept = put_in_place(&dir, name, &new)?;
    session.output.record(&key_record(&new).with("party", name).with("old_key_file", kept.display().to_string()))?;
    Ok(0)
}

/// A public key that was made elsewhere.
///
/// # Errors
/// When it does not have the form of its suite.
pub fn public_half(suite: Suite, text: &str) -> Result<EnrolledKey> {
    let bytes = hex::decode(text).context("--public-key is not hexadecimal")?;
    let key =
        EnrolledKey { suite, public_key: PublicKey::new(bytes).map_err(|_| anyhow!("--public-key is too long"))? };
    if !key.has_suite_length() {
        bail!(
            Failure::new("key_invalid", format!("a {suite} key has {} bytes", suite.public_key_len()))
                .hint("the curves take the compressed SEC1 point, Ed25519 the raw key")
        );
    }
    Ok(key)
}

impl EpochArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let client = session.party_client()?;
        let from = match self.from_height {
            Some(height) => height,
            None => client.network().await?.height + 1,
        };
        let until = self.until_height.unwrap_or_else(|| from.saturating_add(EPOCH_HEIGHTS - 1));
        if from == 0 || until < from || until - from >= EPOCH_HEIGHTS {
            bail!(
                Failure::new("epoch_invalid", format!("heights {from} to {until}"))
                    .hint(format!("a certificate covers 1 to {EPOCH_HEIGHTS} heights, from height 1 on"))
            );
        }
        let network = session.profile()?.network_id()?;
        let heights = (Height(from), Height(until));
        let node_dir = match (self.node_dir, self.signer) {
            (_, Some(socket)) => return certify_held(session, &SignerSocket::new(&socket), network, heights).await,
            (Some(node_dir), None) => node_dir,
            (None, None) => bail!("name the node's directory, or its signer's socket"),
        };
        let long_term_key = node_dir.join("validator.key");
        let long_term = SoftwareSigner::open(&long_term_key)?;
        let file = node_dir.join(format!("epoch-{from}.key"));
        let epoch = SoftwareSigner::generate(&file)?;
        let validator = ValidatorId::of(&compressed(&long_term)?);
        let certificate = certify_epoch(&long_term_key, network, validator, compressed(&epoch)?, heights)?;
        let code = issue(session, &Command::EpochCertify(EpochCertify { certificate })).await?;
        if code != 0 {
            // It was refused for good, so nothing will ever be signed with this key.
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        } else {
            let name = file.file_name().ok_or_else(|| anyhow!("file name"))?.to_string_lossy().into_owned();
            session.output.text(&format!(
                "\nThe key is {}. Add \"{name}\" to validator.epoch_keys in steled.toml and restart the node.",
                file.display()
            ))?;
        }
        Ok(code)
    }
}

/// Lets a signer make an epoch key and certify it with the long-term key, and publishes the certificate. The node takes the
/// key over when the ledger has its certificate.
async fn certify_held(
    session: &Session,
    signer: &SignerSocket,
    network: NetworkId,
    heights: (Height, Height),
) -> Result<u8> {
    let described = signer.describe().await?;
    let key = described.keys.iter().find(|key| key.role == KeyRole::Validator);
    let key = key.ok_or_else(|| Failure::new("signer_key", "this signer has no validator key: its node follows"))?;
    let long_term = signer.signer(KeyRole::Validator, key.kind()?).await?;
    let validator = ValidatorId::of(&compressed(&long_term)?);
    let epoch = compressed(&signer.make_epoch_key().await?)?;
    let mut certificate = unsigned_certificate(network, validator, epoch, heights);
    let bytes = certificate.signing_bytes();
    let request = EpochCertificateRequest {
        validator: validator.0,
        epoch_key: &epoch,
        height_first: heights.0.0,
        height_last: heights.1.0,
        bytes: &bytes,
    };
    certificate.signature = long_term.sign_epoch_certificate(&request).await?;
    let code = issue(session, &Command::EpochCertify(EpochCertify { certificate })).await?;
    if code == 0 {
        session.output.text(&format!("\nThe signer holds the key {}; the node votes with it.", hex::encode(epoch)))?;
    } else {
        // It was refused for good, so nothing will ever be signed with this key.
        signer.retire_epoch_key(epoch).await?;
    }
    Ok(code)
}
