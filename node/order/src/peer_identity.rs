//! The key of a node's peer links.
//!
//! An Ed25519 key in a file of its own: 32 bytes of seed in lower-case hex and a line feed, mode 0600. It is apart from
//! the validator's voting keys on purpose: losing it lets nobody vote. The validator record pins its public half, from
//! which anyone computes the peer id (`stele_types::Validator::peer_id`): the identity multihash of the protobuf public
//! key, `00 24 08 01 12 20 ‖ public key`. Generating one needs nothing of the engine's transport either.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

/// Length of the file: 64 hex digits and a line feed.
const FILE_BYTES: usize = 65;

/// Why a peer key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PeerIdentityError {
    /// The file could not be read or written.
    #[error("peer key {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a peer key.
    #[error("peer key {path} is not 64 hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("peer key {path} has mode {mode:o}; it must be 600 or stricter")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a peer key")]
    Randomness,
}

/// The key of a node's peer links. Its `Debug` shows the public key only.
#[derive(Clone)]
pub struct PeerIdentity {
    seed: [u8; 32],
    public_key: [u8; 32],
}

impl PeerIdentity {
    /// A new random key, not yet in a file.
    ///
    /// # Errors
    /// `Randomness` when the system gives no random bytes.
    pub fn random() -> Result<Self, PeerIdentityError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| PeerIdentityError::Randomness)?;
        Self::from_seed(seed).ok_or(PeerIdentityError::Randomness)
    }

    /// Makes a key and writes it to `path`, which must not exist.
    ///
    /// # Errors
    /// `File` when it exists or cannot be written, `Randomness`.
    pub fn generate(path: &Path) -> Result<Self, PeerIdentityError> {
        let identity = Self::random()?;
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            let hex = identity.seed.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            writeln!(file, "{hex}")?;
            file.sync_all()
        };
        write().map_err(|source| PeerIdentityError::File { path: path.to_owned(), source })?;
        Ok(identity)
    }

    /// Reads a key that [`PeerIdentity::generate`] wrote.
    ///
    /// # Errors
    /// `File`, `Malformed`, or `Permissions` when others may read the file.
    pub fn load(path: &Path) -> Result<Self, PeerIdentityError> {
        let file_error = |source| PeerIdentityError::File { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(file_error)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(PeerIdentityError::Permissions { path: path.to_owned(), mode });
        }
        let malformed = || PeerIdentityError::Malformed { path: path.to_owned() };
        if metadata.len() > FILE_BYTES as u64 {
            return Err(malformed());
        }
        let text = fs::read_to_string(path).map_err(file_error)?;
        let digits = text.trim_end().as_bytes();
        if digits.len() != 64 {
            return Err(malformed());
        }
        let mut seed = [0; 32];
        for (byte, pair) in seed.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        Self::from_seed(seed).ok_or_else(malformed)
    }

    /// The Ed25519 public key: what the validator record pins.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    pub(crate) const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    fn from_seed(seed: [u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let public_key = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { seed, public_key })
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use malachite::app::types::Keypair;
    use stele_types::{PartyId, Validator};

    use super::*;

    #[test]
    fn a_generated_key_loads_and_has_the_peer_id_of_its_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.key");
        let made = PeerIdentity::generate(&path).unwrap();
        let loaded = PeerIdentity::load(&path).unwrap();
        assert_eq!(made.public_key(), loaded.public_key());

        let record = Validator { public_key: [2; 33], peer_key: *loaded.public_key(), party: PartyId([0; 16]) };
        let keypair = Keypair::ed25519_from_bytes(*loaded.seed()).unwrap();
        assert_eq!(keypair.public().to_peer_id().to_bytes(), record.peer_id());
        assert!(!format!("{loaded:?}").contains("seed"));
    }

    #[test]
    fn a_key_others_can_read_and_a_broken_one_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.key");
        PeerIdentity::generate(&path).unwrap();
        assert!(matches!(PeerIdentity::generate(&path), Err(PeerIdentityError::File { .. })), "never overwritten");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(PeerIdentity::load(&path), Err(PeerIdentityError::Permissions { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "é".repeat(32)).unwrap();
        assert!(matches!(PeerIdentity::load(&path), Err(PeerIdentityError::Malformed { .. })));
    }
}
