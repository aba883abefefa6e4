//! Epoch keys: in memory while the process runs, sealed by the TPM while it does not.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use stele_hsm::{
    Signer, SignerError, SoftwareSigner, VoteGuard,
    remote::wire::KeyBytes,
    tpm::{TpmDevice, TpmSealed},
};
use tracing::{error, info, warn};

/// Keys at most: one votes, the next is certified before it ends, and some may not be retired yet.
const KEYS_MAX: usize = 16;

/// A key and its file.
struct EpochKey {
    name: KeyBytes,
    path: PathBuf,
    signer: Arc<dyn Signer>,
}

/// The epoch keys of a validator.
pub(crate) struct EpochKeys {
    directory: PathBuf,
    /// Seals the keys; without one they lie in files of mode 0600.
    tpm: Option<TpmDevice>,
    guard: Arc<VoteGuard>,
    /// Held while a key is made or retired.
    making: Mutex<()>,
    keys: RwLock<Vec<EpochKey>>,
}

impl EpochKeys {
    /// Opens the keys of a directory. What a power cut left half-made is removed, and a key that cannot be opened is left
    /// out and told: the long-term key can vote and certify another, a signer that does not start can do neither. Blocks.
    ///
    /// # Errors
    /// Those of the directory, and [`SignerError::EpochKeyUnsealed`] for a key in a plain file beside a TPM.
    pub(crate) fn open(directory: &Path, tpm: Option<&TpmDevice>, guard: &Arc<VoteGuard>) -> Result<Self, SignerError> {
        let failed = |source| SignerError::KeyFileIo { path: directory.to_owned(), source };
        let mut keys = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let opened = match (path.extension().and_then(std::ffi::OsStr::to_str), tpm) {
                (Some(PARTIAL), _) => {
                    fs::remove_file(&path).map_err(failed)?;
                    continue;
                }
                (Some("sealed"), Some(tpm)) => {
                    TpmSealed::open(tpm, &path).and_then(|secret| SoftwareSigner::from_secret(&secret))
                }
                (Some("key"), None) => SoftwareSigner::open(&path),
                (Some("key"), Some(_)) => return Err(SignerError::EpochKeyUnsealed { path }),
                _ => {
                    warn!(path = %path.display(), "this is no epoch key");
                    continue;
                }
            };
            match opened {
                Ok(signer) => keys.push(EpochKey::of(signer, path, guard)?),
                // The TPM is away: a start without its keys would look like their loss.
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => error!(path = %path.display(), code = error.code(), %error, "an epoch key is left out"),
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            tpm: tpm.cloned(),
            guard: Arc::clone(guard),
            making: Mutex::new(()),
            keys: keys.into(),
        })
    }

    /// Makes a key. Blocks.
    ///
    /// # Errors
    /// [`SignerError::EpochKeysFull`], and those of files and TPM.
    pub(crate) fn make(&self) -> Result<Arc<dyn Signer>, SignerError> {
        // Votes look keys up meanwhile: a TPM takes its time to seal.
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.names().len();
        if count >= KEYS_MAX {
            return Err(SignerError::EpochKeysFull { count });
        }
        let key = make_in(&self.directory, self.tpm.as_ref())?;
        let key = EpochKey::of(key.0, key.1, &self.guard)?;
        info!(key = hex::encode(key.name), "an epoch key was made");
        let signer = Arc::clone(&key.signer);
        self.keys.write().unwrap_or_else(PoisonError::into_inner).push(key);
        Ok(signer)
    }

    /// Destroys a key; one that is not there is destroyed already. Blocks.
    ///
    /// # Errors
    /// Those of its file; the key then still signs.
    pub(crate) fn retire(&self, name: &KeyBytes) -> Result<(), SignerError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |key: &EpochKey| (key.name == *name).then(|| key.path.clone());
        let path = self.keys.read().unwrap_or_else(PoisonError::into_inner).iter().find_map(known);
        let Some(path) = path else { return Ok(()) };
        let removed = fs::remove_file(&path).and_then(|()| sync(&self.directory));
        removed.map_err(|source| SignerError::KeyFileIo { path, source })?;
        self.keys.write().unwrap_or_else(PoisonError::into_inner).retain(|key| key.name != *name);
        info!(key = hex::encode(name), "an epoch key was retired");
        Ok(())
    }

    pub(crate) fn find(&self, name: &KeyBytes) -> Option<Arc<dyn Signer>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.name == *name).map(|key| Arc::clone(&key.signer))
    }

    pub(crate) fn names(&self) -> Vec<KeyBytes> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| key.name).collect()
    }
}

impl EpochKey {
    fn of(signer: SoftwareSigner, path: PathBuf, guard: &Arc<VoteGuard>) -> Result<Self, SignerError> {
        let name = crate::keys::name(&signer)?;
        Ok(Self { name, path, signer: Arc::new(signer.with_vote_guard(Arc::clone(guard))) })
    }
}

/// Extension of a file that is being written.
const PARTIAL: &str = "partial";

/// Makes a key and its file, which is named after its public half and whole as soon as it has that name.
pub(crate) fn make_in(directory: &Path, tpm: Option<&TpmDevice>) -> Result<(SoftwareSigner, PathBuf), SignerError> {
    let (signer, secret) = SoftwareSigner::ephemeral_with_secret()?;
    let stem = directory.join(hex::encode(crate::keys::name(&signer)?));
    let partial = stem.with_extension(PARTIAL);
    let path = match tpm {
        Some(tpm) => {
            TpmSealed::seal(tpm, &*secret, &partial)?;
            stem.with_extension("sealed")
        }
        None => {
            SoftwareSigner::save_secret(&secret, &partial)?;
            stem.with_extension("key")
        }
    };
    let named = fs::rename(&partial, &path).and_then(|()| sync(directory));
    named.map_err(|source| SignerError::KeyFileIo { path: path.clone(), source })?;
    Ok((signer, path))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
