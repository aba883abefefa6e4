//! Keys are made once, and never by a start.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use stele_hsm::{
    CheckpointGuard, EpochCertificateRequest, GuardDurability, NodeKeys, PublishedEpoch, PublishedKey, Signer,
    VoteGuard, custody::CustodyKey, tpm::TpmEpoch,
};
use stele_types::{EpochCertificate, Genesis, Hash, Height, NetworkId, ValidatorId};

use crate::{
    config::{Config, CustodySection},
    custody::CustodySeal,
    epochs,
    hardware::{Hardware, HeldKey, StateFiles},
    keys::{name, read_network},
    recovery::SharesFolder,
};

/// Makes keys, guards and the TPM's epoch in an empty state directory. Blocks.
///
/// Gives the file of the public halves, which stays in the directory, too.
///
/// # Errors
/// When the directory holds something already, and errors of files and hardware.
pub(crate) fn init(config: &Config, wanted: &Wanted) -> anyhow::Result<String> {
    let files = StateFiles::of(config);
    private_directory(files.directory())?;
    if fs::read_dir(files.directory())?.next().is_some() {
        bail!("{} is not empty: keys are never replaced", files.directory().display());
    }
    let custody = config.custody.as_ref().filter(|_| !wanted.without_custody);
    let shares = match custody {
        Some(section) => SharesFolder::create(section, wanted.shares.as_deref())?,
        None if wanted.shares.is_some() => bail!("no custody key is made: there is nothing to share"),
        None => None,
    };
    let hardware = Hardware::open(config)?;
    if let (Some(section), Some(device)) = (&config.tpm, &hardware.tpm) {
        TpmEpoch::create(device, section.counter, &files.epoch())?;
    }
    let seal = published(hardware.make(&files, "seal", &config.seal)?.signer())?;
    let (mut validator, mut epoch) = (None, None);
    if let Some(section) = &config.validator {
        let key = hardware.make(&files, "validator", section)?;
        let id = ValidatorId::of(&name(key.signer())?);
        VoteGuard::create(&files.votes(), id.0)?;
        private_directory(&files.epochs())?;
        let (signer, _) = epochs::make_in(&files.epochs(), hardware.tpm.as_ref())?;
        epoch = Some(certified(&key, id, name(&signer)?)?);
        validator = Some(published(key.signer())?);
    }
    let custody = custody.map(|section| make_custody(section, &files, &hardware, shares.as_ref())).transpose()?;
    let text = serde_json::to_string_pretty(&NodeKeys { validator, seal, epoch, custody })? + "\n";
    write_new(&files.published(), text.as_bytes())?;
    Ok(text)
}

/// What is made beside the keys that are always made.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Leaves the custody key out, although the configuration has one: it comes from elsewhere.
    pub(crate) without_custody: bool,
    /// New folder for the shares of the custody key.
    pub(crate) shares: Option<PathBuf>,
}

fn make_custody(
    section: &CustodySection,
    files: &StateFiles,
    hardware: &Hardware,
    shares: Option<&SharesFolder<'_>>,
) -> anyhow::Result<PublishedKey> {
    let key = CustodyKey::generate()?;
    let published = CustodySeal::new(section, files, hardware)?.put(&key)?;
    // There is no network yet that the shares could name.
    shares.map_or(Ok(()), |folder| folder.fill(&key, None))?;
    Ok(published)
}

/// The file of the public halves.
///
/// # Errors
/// When keys were never made, or not to the end.
pub(crate) fn published_keys(config: &Config) -> anyhow::Result<String> {
    let path = StateFiles::of(config).published();
    fs::read_to_string(&path).with_context(|| format!("{}: no keys were made to the end", path.display()))
}

/// The public halves.
///
/// # Errors
/// When keys were never made, or not to the end.
pub(crate) fn read_published(files: &StateFiles) -> anyhow::Result<NodeKeys> {
    let path = files.published();
    let text =
        fs::read_to_string(&path).with_context(|| format!("{}: no keys were made to the end", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no public halves", path.display()))
}

/// Makes a guard that was lost. Blocks.
///
/// # Errors
/// When the guard is there, and errors of files and hardware.
pub(crate) fn make_guard(config: &Config, from_height: Option<u64>, from_size: Option<u64>) -> anyhow::Result<PathBuf> {
    let files = StateFiles::of(config);
    match (from_height, from_size, &config.validator) {
        (Some(height), _, Some(section)) => {
            let key = Hardware::open(config)?.open_key(&files, "validator", section)?;
            VoteGuard::create_from(&files.votes(), ValidatorId::of(&name(key.signer())?).0, height)?;
            Ok(files.votes())
        }
        (Some(_), _, None) => bail!("there is no [validator]: nothing votes here"),
        (None, Some(size), _) => {
            CheckpointGuard::create_from(&files.checkpoints(), read_network(&files.network())?.0, size)?;
            Ok(files.checkpoints())
        }
        (None, None, _) => bail!("name a height or a size"),
    }
}

/// Binds the signer to a network, whose checkpoints it signs from now on.
///
/// # Errors
/// When it has a network already, and errors of files.
pub(crate) fn adopt(config: &Config, genesis: &Path) -> anyhow::Result<NetworkId> {
    let files = StateFiles::of(config);
    let bytes = fs::read(genesis).with_context(|| format!("cannot read {}", genesis.display()))?;
    let network =
        Genesis::from_bytes(&bytes).with_context(|| format!("{} is no genesis", genesis.display()))?.network();
    if files.network().exists() {
        bail!("{} exists: a signer serves one network", files.network().display());
    }
    // The guard first: without the network's file the signer does not start. One that is there is of an adoption that was
    // cut off; it has to be of this network, and forgets nothing.
    if files.checkpoints().exists() {
        CheckpointGuard::open(&files.checkpoints(), network.0, GuardDurability::Sync)?;
    } else {
        CheckpointGuard::create(&files.checkpoints(), network.0)?;
    }
    write_new(&files.network(), format!("{}\n", network.to_hex()).as_bytes())?;
    Ok(network)
}

/// Writes a file that is whole as soon as it has its name.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))?;
    sync(path.parent().context("a file has a directory")?)
}

fn published(signer: &dyn Signer) -> anyhow::Result<PublishedKey> {
    Ok(PublishedKey::new(signer.kind(), &name(signer)?))
}

/// Certifies an epoch key for as many heights as a certificate may cover.
fn certified(key: &HeldKey, validator: ValidatorId, public_key: [u8; 33]) -> anyhow::Result<PublishedEpoch> {
    let (from_height, until_height) = (Height(1), Height(EpochCertificate::HEIGHTS_MAX));
    let certificate = EpochCertificate {
        network: NetworkId::default(),
        validator,
        public_key,
        from_height,
        until_height,
        pcr_policy: Hash::default(),
        signature: [0; 64],
    };
    let bytes = certificate.signing_bytes();
    let request = EpochCertificateRequest {
        validator: validator.0,
        epoch_key: &public_key,
        height_first: from_height.0,
        height_last: until_height.0,
        bytes: &bytes,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let signature = runtime.block_on(key.signer().sign_epoch_certificate(&request))?;
    Ok(PublishedEpoch::new(&public_key, (from_height.0, until_height.0), &signature))
}

/// Makes a directory that only its owner may enter, if it is not there.
fn private_directory(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

fn sync(directory: &Path) -> anyhow::Result<()> {
    Ok(File::open(directory)?.sync_all()?)
}
