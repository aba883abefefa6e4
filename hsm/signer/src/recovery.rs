//! How a custody key comes from elsewhere, and is split for those who may bring it back.
//!
//! ```text
//!  signer that has the key ── split ──► shares, each sealed for its holder
//!  signer that is to have it ── recovery key ──► holders seal their shares for it ──► recover: joined, sealed, published
//! ```
//!
//! Of these commands none runs beside a signer that runs: they change what it holds.

use std::{
    fs::{self, DirBuilder},
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use stele_hsm::{
    NodeKeys, SignerError,
    custody::{CustodyKey, SealedShare, ShareError},
    tpm::TpmSealed,
};

use crate::{
    config::{Config, CustodySection, SharesSection},
    custody::{CustodySeal, compressed},
    hardware::{Hardware, StateFiles},
    keys::read_network,
    provision::{read_published, write_new},
};

/// Longest file of a share in bytes: one of sixteen has some 2 KiB.
const SHARE_LENGTH_MAX: u64 = 64 << 10;

/// A new folder for the shares that the configuration asks for. Made before any key is.
pub(crate) struct SharesFolder<'a> {
    section: &'a SharesSection,
    path: PathBuf,
}

impl<'a> SharesFolder<'a> {
    /// Makes the folder; none if nobody keeps shares.
    ///
    /// # Errors
    /// When the configuration wants shares and no folder is named, or the other way round, and errors of the file system.
    pub(crate) fn create(section: &'a CustodySection, path: Option<&Path>) -> anyhow::Result<Option<Self>> {
        match (&section.shares, path) {
            (None, None) => Ok(None),
            (Some(_), None) => bail!("[custody.shares] wants shares: name a new folder for them with --shares"),
            (None, Some(_)) => bail!("there is no [custody.shares]: nobody keeps a share"),
            (Some(section), Some(path)) => {
                let made = DirBuilder::new().mode(0o700).create(path);
                made.with_context(|| format!("cannot create {}", path.display()))?;
                Ok(Some(Self { section, path: path.to_owned() }))
            }
        }
    }

    /// Writes the shares of a key, a file for each holder.
    ///
    /// # Errors
    /// [`ShareError`], and errors of the file system.
    pub(crate) fn fill(&self, key: &CustodyKey, network: Option<[u8; 32]>) -> anyhow::Result<()> {
        let shares = key.split(self.section.required, &self.section.holders, network).map_err(SignerError::from)?;
        for share in shares {
            let text = serde_json::to_string_pretty(&share)? + "\n";
            let path = self.path.join(format!("share-{}-{}.json", share.index(), share.holder()));
            write_new(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// Takes a custody key from a file. Blocks.
///
/// # Errors
/// When there is a key already, and errors of files, TPM and shares.
pub(crate) fn import(config: &Config, file: &Path, shares: Option<&Path>) -> anyhow::Result<String> {
    let (section, files) = vacant(config)?;
    let folder = SharesFolder::create(section, shares)?;
    let key = CustodyKey::read(file)?;
    let seal = CustodySeal::new(section, &files, &Hardware::open(config)?)?;
    if let Some(folder) = &folder {
        folder.fill(&key, adopted(&files)?)?;
    }
    publish(&files, &seal, &key)
}

/// Splits the custody key anew. Old shares stay good among themselves, and join with none of the new ones. Blocks.
///
/// # Errors
/// Whatever keeps the key shut, and errors of files and shares.
pub(crate) fn split(config: &Config, folder: &Path) -> anyhow::Result<()> {
    let section = config.custody.as_ref().context("there is no [custody]")?;
    let files = StateFiles::of(config);
    let seal = CustodySeal::new(section, &files, &Hardware::open(config)?)?;
    let key = seal.take()?;
    let folder = SharesFolder::create(section, Some(folder))?.context("there is no [custody.shares]")?;
    folder.fill(&key, adopted(&files)?)
}

/// Makes the key for which holders seal their shares, if it is not there; gives its public half. Blocks.
///
/// # Errors
/// When there is a custody key already, and errors of files and TPM.
pub(crate) fn recovery_key(config: &Config) -> anyhow::Result<String> {
    let (section, files) = vacant(config)?;
    let hardware = Hardware::open(config)?;
    let transport = Transport::new(section, &files, &hardware);
    if !transport.path.exists() {
        transport.put(&CustodyKey::generate()?)?;
    }
    Ok(hex::encode(compressed(&transport.take()?)))
}

/// Joins shares that were sealed for the recovery key, seals the key and publishes it. Blocks.
///
/// # Errors
/// [`ShareError`] with the code of what is wrong with them; when there is a key already, and errors of files and TPM.
pub(crate) fn recover(config: &Config, shares: &[PathBuf]) -> anyhow::Result<String> {
    let (section, files) = vacant(config)?;
    let hardware = Hardware::open(config)?;
    let transport = Transport::new(section, &files, &hardware);
    let recovery_key = transport.take().context("no recovery key was made: run `stele-signer custody recovery-key`")?;
    let network = adopted(&files)?;
    let mut open = Vec::with_capacity(shares.len());
    for path in shares {
        let share = read_share(path)?;
        if let (Some(own), Some(other)) = (network, share.network())
            && own != other
        {
            bail!("{}: it is a share of another network's key than was adopted", path.display());
        }
        let opened = share.open(&recovery_key).map_err(SignerError::from);
        open.push(opened.with_context(|| path.display().to_string())?);
    }
    let key = CustodyKey::join(&open).map_err(SignerError::from)?;
    drop(open);
    let seal = CustodySeal::new(section, &files, &hardware)?;
    let text = publish(&files, &seal, &key)?;
    transport.remove()?;
    Ok(text)
}

/// The key for which holders seal their shares. It is of no further use once the custody key is there.
struct Transport<'a> {
    path: PathBuf,
    hardware: &'a Hardware,
    sealed: bool,
}

impl<'a> Transport<'a> {
    fn new(section: &CustodySection, files: &StateFiles, hardware: &'a Hardware) -> Self {
        let sealed = section.signer.0 == stele_hsm::SignerKind::Tpm;
        let path = if sealed { files.sealed("recovery") } else { files.key("recovery") };
        Self { path, hardware, sealed }
    }

    fn put(&self, key: &CustodyKey) -> Result<(), SignerError> {
        match (&self.hardware.tpm, self.sealed) {
            (Some(tpm), true) => TpmSealed::seal(tpm, &*key.secret(), &self.path),
            _ => key.save_new(&self.path),
        }
    }

    fn take(&self) -> Result<CustodyKey, SignerError> {
        match (&self.hardware.tpm, self.sealed) {
            (Some(tpm), true) => CustodyKey::from_secret(&TpmSealed::open(tpm, &self.path)?),
            _ => CustodyKey::read(&self.path),
        }
    }

    fn remove(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// The section and the files of a signer that has no custody key yet.
fn vacant(config: &Config) -> anyhow::Result<(&CustodySection, StateFiles)> {
    let section = config.custody.as_ref().context("there is no [custody]")?;
    let files = StateFiles::of(config);
    if read_published(&files)?.custody.is_some() {
        bail!("there is a custody key already: keys are never replaced");
    }
    Ok((section, files))
}

/// Seals a key and names it among the public halves, which is what makes it the signer's. Gives their file.
fn publish(files: &StateFiles, seal: &CustodySeal, key: &CustodyKey) -> anyhow::Result<String> {
    let custody = Some(seal.put(key)?);
    let text = serde_json::to_string_pretty(&NodeKeys { custody, ..read_published(files)? })? + "\n";
    write_new(&files.published(), text.as_bytes())?;
    Ok(text)
}

fn adopted(files: &StateFiles) -> anyhow::Result<Option<[u8; 32]>> {
    let path = files.network();
    Ok(if path.exists() { Some(read_network(&path)?.0) } else { None })
}

fn read_share(path: &Path) -> anyhow::Result<SealedShare> {
    let malformed = || SignerError::from(ShareError::Malformed { reason: "it is no JSON of a share" });
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let read = file.take(SHARE_LENGTH_MAX).read_to_string(&mut text).map_err(|_| malformed());
    read.and_then(|_| serde_json::from_str(&text).map_err(|_| malformed())).with_context(|| path.display().to_string())
}
