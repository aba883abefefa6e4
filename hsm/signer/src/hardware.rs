//! TPM and token of the configuration, and the keys that they hold.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use stele_hsm::{
    CheckpointGuard, Signer, SignerError, SignerKind, SoftwareSigner, VoteGuard,
    pkcs11::{Pkcs11Options, Pkcs11Signer, Pkcs11Token},
    tpm::{TpmDevice, TpmSigner},
};
use zeroize::Zeroizing;

use crate::config::{Config, KeySection, TokenSection};

/// Longest PIN file in bytes.
const PIN_LENGTH_MAX: usize = 256;

/// What the configuration names.
pub(crate) struct Hardware {
    pub(crate) tpm: Option<TpmDevice>,
    token: Option<Pkcs11Token>,
}

/// Files of the state directory.
#[derive(Clone, Debug)]
pub(crate) struct StateFiles(PathBuf);

impl StateFiles {
    pub(crate) fn of(config: &Config) -> Self {
        Self(config.state.directory.clone())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// A key in a file: a software key, or one that the TPM wraps.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    /// A key that the TPM seals.
    pub(crate) fn sealed(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.sealed"))
    }

    /// The guard of votes.
    pub(crate) fn votes(&self) -> PathBuf {
        self.0.join("validator.votes")
    }

    /// The guard of checkpoints.
    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.0.join("seal.checkpoints")
    }

    /// What remembers the TPM's counter.
    pub(crate) fn epoch(&self) -> PathBuf {
        self.0.join("tpm.epoch")
    }

    /// The network's id.
    pub(crate) fn network(&self) -> PathBuf {
        self.0.join("network")
    }

    /// The public halves of the keys.
    pub(crate) fn published(&self) -> PathBuf {
        self.0.join("node-keys.json")
    }

    /// Directory of epoch keys.
    pub(crate) fn epochs(&self) -> PathBuf {
        self.0.join("epochs")
    }
}

impl Hardware {
    /// Reaches what the configuration names. Blocks.
    ///
    /// # Errors
    /// Those of TPM and token.
    pub(crate) fn open(config: &Config) -> Result<Self, SignerError> {
        let tpm = config.tpm.as_ref().map(|section| TpmDevice::open(&section.address)).transpose()?;
        let token = config.token.as_ref().map(open_token).transpose()?;
        Ok(Self { tpm, token })
    }

    fn tpm(&self) -> Result<&TpmDevice, SignerError> {
        self.tpm.as_ref().ok_or(SignerError::AttestationMissing)
    }

    fn token(&self) -> Result<&Pkcs11Token, SignerError> {
        self.token.as_ref().ok_or(SignerError::TokenLost)
    }

    /// Makes a key. Blocks.
    ///
    /// # Errors
    /// Those of the backend; none replaces a key.
    pub(crate) fn make(&self, files: &StateFiles, name: &str, key: &KeySection) -> Result<HeldKey, SignerError> {
        let path = files.key(name);
        Ok(match key.signer.0 {
            SignerKind::Software => HeldKey::Software(SoftwareSigner::generate(&path)?),
            SignerKind::Tpm => HeldKey::Tpm(TpmSigner::generate(self.tpm()?, &path)?),
            SignerKind::Pkcs11 => HeldKey::Pkcs11(Pkcs11Signer::generate(self.token()?, label(key))?),
        })
    }

    /// Opens a key. Blocks.
    ///
    /// # Errors
    /// Those of the backend.
    pub(crate) fn open_key(&self, files: &StateFiles, name: &str, key: &KeySection) -> Result<HeldKey, SignerError> {
        let path = files.key(name);
        Ok(match key.signer.0 {
            SignerKind::Software => HeldKey::Software(SoftwareSigner::open(&path)?),
            SignerKind::Tpm => HeldKey::Tpm(TpmSigner::open(self.tpm()?, &path)?),
            SignerKind::Pkcs11 => HeldKey::Pkcs11(Pkcs11Signer::open(self.token()?, label(key))?),
        })
    }
}

/// The configuration was checked to have one.
fn label(key: &KeySection) -> &str {
    key.label.as_deref().unwrap_or_default()
}

/// A key, before it is known how its TPM certifies it.
pub(crate) enum HeldKey {
    Software(SoftwareSigner),
    Tpm(TpmSigner),
    Pkcs11(Pkcs11Signer),
}

impl HeldKey {
    pub(crate) fn signer(&self) -> &dyn Signer {
        match self {
            Self::Software(signer) => signer,
            Self::Tpm(signer) => signer,
            Self::Pkcs11(signer) => signer,
        }
    }

    pub(crate) fn with_vote_guard(self, guard: Arc<VoteGuard>) -> Self {
        match self {
            Self::Software(signer) => Self::Software(signer.with_vote_guard(guard)),
            Self::Tpm(signer) => Self::Tpm(signer.with_vote_guard(guard)),
            Self::Pkcs11(signer) => Self::Pkcs11(signer.with_vote_guard(guard)),
        }
    }

    pub(crate) fn with_checkpoint_guard(self, guard: Arc<CheckpointGuard>) -> Self {
        match self {
            Self::Software(signer) => Self::Software(signer.with_checkpoint_guard(guard)),
            Self::Tpm(signer) => Self::Tpm(signer.with_checkpoint_guard(guard)),
            Self::Pkcs11(signer) => Self::Pkcs11(signer.with_checkpoint_guard(guard)),
        }
    }
}

fn open_token(section: &TokenSection) -> Result<Pkcs11Token, SignerError> {
    let options =
        Pkcs11Options { module: section.module.clone(), token: section.label.clone(), sessions: section.sessions };
    Pkcs11Token::open(&options, &read_pin(&section.pin)?)
}

/// The PIN, without the line feed that editors leave.
fn read_pin(path: &Path) -> Result<Zeroizing<String>, SignerError> {
    let failed = |source| SignerError::KeyFileIo { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    // The service manager gives a credential to its unit's user by an access list, whose mask shows as the group's rights.
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.starts_with(directory));
    if mode != 0o600 && mode != 0o400 && !(is_credential && mode == 0o440) {
        return Err(SignerError::KeyFilePermissions { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new([0; PIN_LENGTH_MAX]);
    let mut length = 0;
    while length < PIN_LENGTH_MAX {
        match file.read(&mut bytes[length..]).map_err(failed)? {
            0 => break,
            read => length += read,
        }
    }
    let text = std::str::from_utf8(&bytes[..length]).map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}
