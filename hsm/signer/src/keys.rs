//! The keys of the process, by role.

use std::{fs, path::Path, sync::Arc};

use stele_hsm::{
    CheckpointGuard, CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, GuardDurability,
    PeerBindingRequest, Signer, SignerError, VoteGuard, VoteRequest,
    custody::{ClassKeyName, SealedClassKey},
    guard::VotePosition,
    remote::wire::{
        Answer, Description, Identity, KeyBytes, KeyDescription, KeyEvidence, Request, Role, Secret, VERSION,
    },
    tpm::{KeyQuoteRequest, QuoteRequest, TpmAttestor, TpmDevice, TpmEpoch},
};
use stele_types::{Checkpoint, EpochCertificate, NetworkId, ValidatorId};
use tokio::{
    runtime::Handle,
    sync::OnceCell,
    task::{block_in_place, spawn_blocking},
};
use zeroize::Zeroizing;

use crate::{
    config::{Config, TpmSection},
    custody::{Custody, CustodySeal},
    epochs::EpochKeys,
    hardware::{Hardware, HeldKey, StateFiles},
    logs,
    provision::read_published,
};

/// All that requests are answered with.
pub(crate) struct Keys {
    network: NetworkId,
    validator: Option<Validator>,
    seal: Arc<HeldKey>,
    custody: Option<Arc<Custody>>,
    attestation: Option<Attestation>,
}

struct Validator {
    id: ValidatorId,
    key: Arc<HeldKey>,
    epochs: Arc<EpochKeys>,
}

struct Attestation {
    section: TpmSection,
    device: TpmDevice,
    attestor: TpmAttestor,
    epoch: TpmEpoch,
    /// Certifications do not age, and cost the TPM a signature for each key.
    identity: OnceCell<Identity>,
}

impl Keys {
    /// Opens keys and guards, and begins an epoch. Nothing is made: what is missing was lost. Blocks.
    ///
    /// # Errors
    /// Those of guards, files and hardware.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let files = StateFiles::of(config);
        check_private(files.directory())?;
        let hardware = Hardware::open(config)?;
        // Before any guard: an old copy of the disk must not sign.
        let attestation = match (&config.tpm, &hardware.tpm) {
            (Some(section), Some(device)) => Some(Attestation {
                section: section.clone(),
                device: device.clone(),
                attestor: TpmAttestor::new(device),
                epoch: TpmEpoch::begin(device, section.counter, &files.epoch())?,
                identity: OnceCell::new(),
            }),
            _ => None,
        };
        let network = read_network(&files.network())?;
        let checkpoints = Arc::new(CheckpointGuard::open(&files.checkpoints(), network.0, GuardDurability::Sync)?);
        let seal = hardware.open_key(&files, "seal", &config.seal)?.with_checkpoint_guard(checkpoints);
        let validator = match &config.validator {
            Some(section) => {
                let key = hardware.open_key(&files, "validator", section)?;
                let id = ValidatorId::of(&name(key.signer())?);
                let guard = Arc::new(VoteGuard::open(&files.votes(), id.0, GuardDurability::Sync)?);
                let epochs = Arc::new(EpochKeys::open(&files.epochs(), hardware.tpm.as_ref(), &guard)?);
                Some(Validator { id, key: Arc::new(key.with_vote_guard(guard)), epochs })
            }
            None => None,
        };
        let custody = match &config.custody {
            Some(section) => {
                let published = read_published(&files)?.custody;
                let seal = CustodySeal::new(section, &files, &hardware)?;
                Some(Arc::new(Custody::open(seal, published.as_ref())?))
            }
            None => None,
        };
        Ok(Self { network, validator, seal: Arc::new(seal), custody, attestation })
    }

    /// Ends in order. Blocks.
    ///
    /// # Errors
    /// Those of the TPM and of the epoch's file.
    pub(crate) fn end(&self, files: &StateFiles) -> Result<(), SignerError> {
        match &self.attestation {
            Some(Attestation { section, device, epoch, .. }) => epoch.end(device, section.counter, &files.epoch()),
            None => Ok(()),
        }
    }

    /// How often this signer was started with its TPM.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.attestation.as_ref().map(|attestation| attestation.epoch.number())
    }

    /// What is there.
    pub(crate) fn describe(&self) -> Result<Description, SignerError> {
        let mut keys = vec![describe(Role::Seal, self.seal.signer())?];
        if let Some(validator) = &self.validator {
            keys.push(describe(Role::Validator, validator.key.signer())?);
            for public_key in validator.epochs.names() {
                keys.push(KeyDescription { role: Role::Epoch, provider: "software".into(), public_key });
            }
        }
        keys.extend(self.custody.as_ref().map(|custody| custody.describe()));
        Ok(Description { version: VERSION, keys, attests: self.attestation.is_some(), epoch: self.epoch() })
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Why it was refused.
    pub(crate) async fn answer(&self, request: Request<'_>) -> Result<Answer, SignerError> {
        Ok(match request {
            Request::Describe => Answer::Description { description: self.describe()? },
            Request::Vote { key, validator, position, value_id, bytes } => {
                let VotePosition { height, round, step } = position.try_into()?;
                let request = VoteRequest { validator, height, round, step, value_id, bytes };
                self.check_network(network_of(bytes))?;
                let ballot = self.ballot(&key)?;
                signature(ballot.wait(ballot.signer().sign_vote(&request)).await?)
            }
            Request::Checkpoint { key, tree_size, root, bytes } => {
                let request = CheckpointRequest { tree_size, root, sig_structure: bytes };
                self.check_network(network_of_checkpoint(bytes))?;
                signature(self.seal(&key)?.sign_checkpoint(&request).await?)
            }
            Request::EpochCertificate { key, validator, epoch_key, height_first, height_last, bytes } => {
                let request = EpochCertificateRequest { validator, epoch_key, height_first, height_last, bytes };
                self.check_certificate(&request)?;
                signature(self.validator(&key)?.signer().sign_epoch_certificate(&request).await?)
            }
            Request::CustodyReceipt { key, root, length, bytes } => {
                let request = CustodyReceiptRequest { root, length, bytes };
                self.check_network(network_of(bytes))?;
                signature(self.seal(&key)?.sign_custody_receipt(&request).await?)
            }
            Request::PeerBinding { key, peer_id } => {
                let request = PeerBindingRequest { public_key: &key, peer_id };
                signature(self.validator(&key)?.signer().sign_peer_binding(&request).await?)
            }
            Request::LastVote { key } => {
                let ballot = self.ballot(&key)?;
                let position = ballot.wait(ballot.signer().last_vote()).await?;
                Answer::LastVote { position: position.map(Into::into) }
            }
            Request::Abstain { key, height } => {
                let ballot = self.ballot(&key)?;
                ballot.wait(ballot.signer().abstain(height)).await?;
                Answer::Done
            }
            Request::MakeEpochKey => {
                let epochs = Arc::clone(&self.validating()?.epochs);
                let made = blocking(move || epochs.make()).await?;
                Answer::Key { key: describe(Role::Epoch, &*made)? }
            }
            Request::RetireEpochKey { key } => {
                let epochs = Arc::clone(&self.validating()?.epochs);
                blocking(move || epochs.retire(&key)).await?;
                Answer::Done
            }
            Request::Identity => Answer::Identity { identity: Box::new(self.identity().await?) },
            Request::Activate { id_object, encrypted_seed } => {
                let (id_object, encrypted_seed) = (id_object.to_vec(), encrypted_seed.to_vec());
                let credential = stele_hsm::tpm::Credential { id_object, encrypted_seed };
                let secret = self.attestation()?.attestor.activate(credential).await?;
                Answer::Secret { secret: Secret(secret) }
            }
            Request::Quote { nonce, tree_size, root, bytes, pcrs } => {
                let attestation = self.attestation()?;
                let checkpoint = CheckpointRequest { tree_size, root, sig_structure: bytes };
                let pcrs = if pcrs.is_empty() { &attestation.section.pcrs } else { pcrs };
                Answer::Quote { quote: attestation.attestor.quote(&QuoteRequest { nonce, checkpoint, pcrs }).await? }
            }
            Request::Log { log } => {
                let section = self.attestation()?.section.clone();
                Answer::Log { bytes: blocking(move || logs::read(&section, log)).await? }
            }
            Request::OpenClassKey { key, network, class, id, sealed } => {
                let custody =
                    self.custody.as_ref().filter(|custody| custody.is_named(&key)).ok_or(not_here("custody"))?;
                self.check_network(Some(NetworkId(network)))?;
                let class_key = SealedClassKey { name: ClassKeyName { network, class, id }, sealed };
                let custody = Arc::clone(custody);
                let opened = blocking(move || custody.open_class_key(&class_key)).await?;
                Answer::Secret { secret: Secret(Zeroizing::new(opened.as_bytes().to_vec())) }
            }
        })
    }

    /// A signer serves one network; what is of no network is refused by the request's own rules.
    fn check_network(&self, network: Option<NetworkId>) -> Result<(), SignerError> {
        match network {
            Some(network) if network != self.network => {
                Err(SignerError::MalformedRequest { reason: "it is of another network than was adopted" })
            }
            _ => Ok(()),
        }
    }

    /// Only a key that the guard judges gets a certificate: one that was made here. A certificate for a key of somebody
    /// else's would let them vote as this validator, past the guard and for as long as it says.
    fn check_certificate(&self, request: &EpochCertificateRequest<'_>) -> Result<(), SignerError> {
        let refused = |reason| Err(SignerError::MalformedRequest { reason });
        let validator = self.validating()?;
        let own = <KeyBytes>::try_from(request.epoch_key).is_ok_and(|key| validator.epochs.find(&key).is_some());
        if !own {
            return refused("the key that it certifies was not made by this signer");
        }
        if request.validator != validator.id.0 {
            return refused("it is of another validator");
        }
        if request.height_last.saturating_sub(request.height_first) >= EpochCertificate::HEIGHTS_MAX {
            return refused("it covers more heights than a certificate may");
        }
        self.check_network(network_of(request.bytes))
    }

    fn validating(&self) -> Result<&Validator, SignerError> {
        self.validator.as_ref().ok_or(not_here("validator"))
    }

    fn attestation(&self) -> Result<&Attestation, SignerError> {
        self.attestation.as_ref().ok_or(SignerError::AttestationMissing)
    }

    /// The checkpoint key, if it is the one that is named.
    fn seal(&self, key: &KeyBytes) -> Result<&dyn Signer, SignerError> {
        let seal = self.seal.signer();
        if seal.public_key().sec1_compressed == key { Ok(seal) } else { Err(not_here("seal")) }
    }

    /// The long-term key, if it is the one that is named.
    fn validator(&self, key: &KeyBytes) -> Result<Ballot, SignerError> {
        let held = &self.validating()?.key;
        if held.signer().public_key().sec1_compressed == key {
            Ok(Ballot::LongTerm(Arc::clone(held)))
        } else {
            Err(not_here("validator"))
        }
    }

    /// A key that votes.
    fn ballot(&self, key: &KeyBytes) -> Result<Ballot, SignerError> {
        if let Some(epoch) = self.validating()?.epochs.find(key) {
            return Ok(Ballot::Epoch(epoch));
        }
        self.validator(key)
    }

    async fn identity(&self) -> Result<Identity, SignerError> {
        let attestation = self.attestation()?;
        attestation.identity.get_or_try_init(|| self.ask_identity(attestation)).await.cloned()
    }

    async fn ask_identity(&self, attestation: &Attestation) -> Result<Identity, SignerError> {
        let known = attestation.attestor.identity().await?;
        let (attestor, pcrs) = (&attestation.attestor, &attestation.section.pcrs);
        let mut keys = vec![evidence(attestor, pcrs, Role::Seal, &self.seal).await?];
        if let Some(validator) = &self.validator {
            keys.push(evidence(attestor, pcrs, Role::Validator, &validator.key).await?);
        }
        Ok(Identity {
            endorsement_key: known.endorsement_key,
            endorsement_certificate: known.endorsement_certificate,
            attestation_key: known.attestation_key,
            keys,
        })
    }
}

/// A key that votes.
enum Ballot {
    LongTerm(Arc<HeldKey>),
    Epoch(Arc<dyn Signer>),
}

impl Ballot {
    /// Waits for an answer. A key in memory signs within the first poll, and writes its guard: the other requests go on
    /// meanwhile on another thread.
    async fn wait<T>(&self, answer: impl Future<Output = Result<T, SignerError>>) -> Result<T, SignerError> {
        match self {
            Self::LongTerm(_) => answer.await,
            Self::Epoch(_) => block_in_place(|| Handle::current().block_on(answer)),
        }
    }

    fn signer(&self) -> &dyn Signer {
        match self {
            Self::LongTerm(key) => key.signer(),
            Self::Epoch(key) => &**key,
        }
    }
}

/// What the TPM says of a key: its certification if the TPM holds it, else a quote that is qualified by the key. Of a key in
/// a file it says nothing.
pub(crate) async fn evidence(
    attestor: &TpmAttestor,
    pcrs: &[u8],
    role: Role,
    key: &HeldKey,
) -> Result<KeyEvidence, SignerError> {
    let signer = key.signer();
    let spki = signer.public_key().spki_der.clone();
    let mut evidence = KeyEvidence { key: describe(role, signer)?, spki, certification: None, quote: None };
    match key {
        HeldKey::Tpm(signer) => {
            evidence.certification = Some(attestor.certify(signer).await?);
        }
        HeldKey::Pkcs11(_) => {
            let request = KeyQuoteRequest { spki: &evidence.spki, pcrs };
            evidence.quote = Some(attestor.quote_key(&request).await?);
        }
        HeldKey::Software(_) => {}
    }
    Ok(evidence)
}

const fn signature(signature: stele_hsm::Signature) -> Answer {
    Answer::Signature { signature }
}

const fn not_here(role: &'static str) -> SignerError {
    SignerError::SignerKey { role, reason: "this signer has no such key" }
}

fn describe(role: Role, signer: &dyn Signer) -> Result<KeyDescription, SignerError> {
    Ok(KeyDescription { role, provider: signer.kind().name().into(), public_key: name(signer)? })
}

/// The network that an array of a domain, a network and more names: votes, certificates, custody receipts.
fn network_of(bytes: &[u8]) -> Option<NetworkId> {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.array().ok()?;
    decoder.str().ok()?;
    decoder.bytes().ok()?.try_into().ok().map(NetworkId)
}

/// The network that a checkpoint names. A header that is not written as the node writes it is of no network, and refused as
/// such: its other readers could see another.
fn network_of_checkpoint(bytes: &[u8]) -> Option<NetworkId> {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.array().ok()?;
    decoder.str().ok()?;
    let protected = decoder.bytes().ok()?;
    Some(Checkpoint::from_protected(protected).map_or(NetworkId([0xff; 32]), |checkpoint| checkpoint.network))
}

/// By what a key is named: its public half, SEC 1 compressed.
pub(crate) fn name(signer: &dyn Signer) -> Result<KeyBytes, SignerError> {
    signer.public_key().sec1_compressed.as_slice().try_into().map_err(|_| SignerError::SigningFailed)
}

/// What lies in the state directory is for its owner alone.
fn check_private(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = fs::metadata(directory).map_err(|error| anyhow::anyhow!("{}: {error}", directory.display()))?.mode();
    if mode & 0o077 != 0 {
        anyhow::bail!("{} has mode {:04o}: run chmod 700 {0}", directory.display(), mode & 0o7777);
    }
    Ok(())
}

/// The network that was adopted.
pub(crate) fn read_network(path: &Path) -> anyhow::Result<NetworkId> {
    use anyhow::Context as _;
    let hint = "run `stele-signer adopt --genesis FILE` once";
    let text =
        fs::read_to_string(path).with_context(|| format!("{}: no network was adopted; {hint}", path.display()))?;
    NetworkId::from_hex(text.trim_end()).with_context(|| format!("{} is no network id", path.display()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SignerError> + Send + 'static,
) -> Result<T, SignerError> {
    spawn_blocking(work).await.unwrap_or(Err(SignerError::SigningFailed))
}
