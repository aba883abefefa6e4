//! Signed checkpoints: the newest few, and the newest one across restarts.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use stele_types::cbor::{self, CborError};
use stele_types::{Checkpoint, Hash, Height};

use super::{Chain, ChainError};

/// Signed checkpoints kept in memory: at ten a second, those of the last half minute. A receipt takes the newest one that
/// covers its leaf and is certified, so older ones are never asked for.
const SEALS_MAX: usize = 256;

/// A tree head with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The claims.
    pub checkpoint: Checkpoint,
    /// Root of the log at that size.
    pub log_root: Hash,
    /// Signature of the checkpoint key.
    pub signature: [u8; 64],
    /// The checkpoint key, P-256 SEC1 compressed.
    pub public_key: [u8; 33],
}

stele_types::record! {
    /// The file that keeps the newest signed checkpoint.
    pub struct SealRecord {
        /// Protected header.
        1 => protected: cbor::Blob<{ stele_types::limits::PROTECTED_BYTES_MAX }>,
        /// Root of the log.
        2 => log_root: Hash,
        /// Signature.
        3 => signature: [u8; 64],
        /// Public key.
        4 => public_key: [u8; 33],
    }
}

pub(super) struct Seals {
    file: PathBuf,
    signed: Mutex<VecDeque<SignedCheckpoint>>,
}

impl Seals {
    pub(super) fn open(file: &Path) -> Result<Self, ChainError> {
        let mut signed = VecDeque::new();
        match std::fs::read(file) {
            Ok(bytes) => signed.extend(read(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ChainError::io("read the newest checkpoint")(error)),
        }
        Ok(Self { file: file.to_owned(), signed: Mutex::new(signed) })
    }
}

fn read(bytes: &[u8]) -> Result<SignedCheckpoint, CborError> {
    let record: SealRecord = cbor::from_slice(bytes)?;
    let checkpoint = Checkpoint::from_protected(&record.protected)?;
    Ok(SignedCheckpoint {
        checkpoint,
        log_root: record.log_root,
        signature: record.signature,
        public_key: record.public_key,
    })
}

impl Chain {
    /// The newest signed checkpoint.
    pub fn checkpoint(&self) -> Option<SignedCheckpoint> {
        self.seals.signed.lock().unwrap_or_else(PoisonError::into_inner).back().cloned()
    }

    /// The newest signed checkpoint at or above `height` whose results a committed header certifies.
    pub fn certified_checkpoint(&self, height: Height) -> Option<SignedCheckpoint> {
        let certified = self.certified();
        let signed = self.seals.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed
            .iter()
            .rev()
            .find(|seal| seal.checkpoint.height <= certified)
            .filter(|seal| seal.checkpoint.height >= height)
            .cloned()
    }

    /// Adds a signed checkpoint. It is kept across a restart when the file system allows; if it does not, the next one
    /// is signed anyway.
    ///
    /// # Errors
    /// Failure to write its file.
    pub fn add_checkpoint(&self, seal: SignedCheckpoint) -> Result<(), ChainError> {
        let record = SealRecord {
            protected: cbor::Blob::new(seal.checkpoint.protected())?,
            log_root: seal.log_root,
            signature: seal.signature,
            public_key: seal.public_key,
        };
        {
            let mut signed = self.seals.signed.lock().unwrap_or_else(PoisonError::into_inner);
            signed.push_back(seal);
            while signed.len() > SEALS_MAX {
                signed.pop_front();
            }
        }
        let temporary = self.seals.file.with_extension("new");
        std::fs::write(&temporary, cbor::to_vec(&record))
            .and_then(|()| std::fs::rename(&temporary, &self.seals.file))
            .map_err(ChainError::io("write the newest checkpoint"))
    }
}
