//! The custody key: in memory while the process runs, sealed by the TPM while it does not.
//!
//! A start goes on without it: what was not approved must not open bodies, and may vote. Each request for a class key then
//! looks again, at the TPM and at the folder of approvals.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use stele_evidence::{Approval, PolicyKey, approval::APPROVAL_LENGTH_MAX};
use stele_hsm::{
    PublishedKey, SignerError, SignerKind,
    custody::{ClassKey, CustodyKey, SealedClassKey},
    remote::wire::{KeyBytes, KeyDescription, Refusal, Role},
    tpm::{TpmDevice, TpmSealed},
};
use tracing::{error, info, warn};

use crate::{
    config::CustodySection,
    hardware::{Hardware, StateFiles},
};

/// How long a refusal stands: a node asks for every body, and the TPM has votes to sign.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Files of the folder that are looked at.
const FILES_MAX: usize = 256;

/// Where the key lies while the process does not run.
pub(crate) struct CustodySeal {
    kind: SignerKind,
    path: PathBuf,
    tpm: Option<TpmDevice>,
    policy_key: Option<PolicyKey>,
    approvals: PathBuf,
}

impl CustodySeal {
    /// The place that the configuration names.
    ///
    /// # Errors
    /// [`SignerError::AttestationMissing`] without a TPM to seal it.
    pub(crate) fn new(section: &CustodySection, files: &StateFiles, hardware: &Hardware) -> Result<Self, SignerError> {
        let kind = section.signer.0;
        let tpm = match kind {
            SignerKind::Tpm => Some(hardware.tpm.clone().ok_or(SignerError::AttestationMissing)?),
            SignerKind::Software | SignerKind::Pkcs11 => None,
        };
        let path = if tpm.is_some() { files.sealed("custody") } else { files.key("custody") };
        // The configuration was checked: a key that is there is one.
        let policy_key = section.policy_key().ok().flatten();
        Ok(Self { kind, path, tpm, policy_key, approvals: section.approvals.clone() })
    }

    /// Puts a key there. Whole as soon as it has its name; one that was there and is published nowhere is replaced. Blocks.
    ///
    /// # Errors
    /// Those of file and TPM.
    pub(crate) fn put(&self, key: &CustodyKey) -> Result<PublishedKey, SignerError> {
        let failed = |source| SignerError::KeyFileIo { path: self.path.clone(), source };
        let partial = self.path.with_extension("partial");
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let secret = key.secret();
        match (&self.tpm, &self.policy_key) {
            (Some(tpm), Some(policy_key)) => TpmSealed::seal_approved(tpm, &*secret, policy_key, &partial)?,
            (Some(tpm), None) => TpmSealed::seal(tpm, &*secret, &partial)?,
            (None, _) => key.save_new(&partial)?,
        }
        fs::rename(&partial, &self.path).map_err(failed)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(PublishedKey::new(self.kind, &compressed(key)))
    }

    /// Takes the key from there. Blocks.
    ///
    /// # Errors
    /// Those of file and TPM, and of approvals.
    pub(crate) fn take(&self) -> Result<CustodyKey, SignerError> {
        let secret = match (&self.tpm, &self.policy_key) {
            (Some(tpm), Some(policy_key)) => {
                let approvals = read_approvals(&self.approvals)?;
                TpmSealed::open_approved(tpm, &self.path, policy_key, &approvals, &self.approvals)?
            }
            (Some(tpm), None) => TpmSealed::open(tpm, &self.path)?,
            (None, _) => return CustodyKey::read(&self.path),
        };
        CustodyKey::from_secret(&secret)
    }
}

/// The custody key of a process that runs.
pub(crate) struct Custody {
    seal: CustodySeal,
    name: KeyBytes,
    state: Mutex<State>,
}

enum State {
    Closed,
    Refused { refusal: Refusal, at: Instant },
    Open(Arc<CustodyKey>),
}

impl Custody {
    /// The key that was published. Tries to open it, and goes on if that is refused. Blocks.
    ///
    /// # Errors
    /// [`SignerError::SignerKey`] if none was made.
    pub(crate) fn open(seal: CustodySeal, published: Option<&PublishedKey>) -> Result<Self, SignerError> {
        let missing = SignerError::SignerKey {
            role: Role::Custody.name(),
            reason: "none was made; run `stele-signer custody import` or `stele-signer custody recover`",
        };
        let published = published.ok_or(missing)?;
        if published.kind()? != seal.kind {
            let reason = "another backend holds it than the configuration names";
            return Err(SignerError::SignerKey { role: Role::Custody.name(), reason });
        }
        let custody = Self { seal, name: published.point()?, state: Mutex::new(State::Closed) };
        if let Err(error) = custody.key() {
            error!(code = error.code(), %error, "the custody key does not open: no body is opened, everything else goes on");
        }
        Ok(custody)
    }

    /// What is there.
    pub(crate) fn describe(&self) -> KeyDescription {
        KeyDescription { role: Role::Custody, provider: self.seal.kind.name().into(), public_key: self.name }
    }

    /// Whether it is the key of this name.
    pub(crate) fn is_named(&self, name: &KeyBytes) -> bool {
        self.name == *name
    }

    /// Opens a class key. Blocks.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when it was not sealed for this key under its name, and whatever keeps the key shut.
    pub(crate) fn open_class_key(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError> {
        self.key()?.open_class_key(key)
    }

    fn key(&self) -> Result<Arc<CustodyKey>, SignerError> {
        // Held while the TPM works: whoever asks meanwhile waits for the same answer.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(key) => return Ok(Arc::clone(key)),
            State::Refused { refusal, at } if at.elapsed() < REFUSAL_TIME => return Err(refusal.clone().into()),
            State::Refused { .. } | State::Closed => {}
        }
        match self.take() {
            Ok(key) => {
                let key = Arc::new(key);
                *state = State::Open(Arc::clone(&key));
                info!("the custody key is open");
                Ok(key)
            }
            Err(error) => {
                *state = State::Refused { refusal: Refusal::from(&error), at: Instant::now() };
                Err(error)
            }
        }
    }

    fn take(&self) -> Result<CustodyKey, SignerError> {
        let key = self.seal.take()?;
        if compressed(&key) == self.name {
            Ok(key)
        } else {
            Err(SignerError::Custody { reason: "the key that was sealed is another than was published" })
        }
    }
}

/// The public half, SEC 1 compressed: the sign of y, then x.
pub(crate) fn compressed(key: &CustodyKey) -> KeyBytes {
    let point = key.public_key();
    let mut bytes = [0; size_of::<KeyBytes>()];
    bytes[0] = 2 + (point[64] & 1);
    bytes[1..].copy_from_slice(&point[1..33]);
    bytes
}

/// The approvals of a folder, by name; what is none is told and left out. A folder that is not there has none.
fn read_approvals(folder: &Path) -> Result<Vec<Approval>, SignerError> {
    let failed = |source| SignerError::KeyFileIo { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries.take(FILES_MAX) {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let parsed = read_bounded(path).map_err(|error| error.to_string());
        match parsed.and_then(|bytes| Approval::parse(&bytes).map_err(|error| error.to_string())) {
            Ok(approval) => Some(approval),
            Err(error) => {
                warn!(path = %path.display(), error, "an approval is left out");
                None
            }
        }
    };
    Ok(paths.iter().filter_map(read).collect())
}

/// One byte more than an approval may have, which is then refused as too long.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(APPROVAL_LENGTH_MAX).unwrap_or(u64::MAX).saturating_add(1);
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
