//! Reading the state: a consistent view, and values with proofs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{OnceLock, PoisonError};

use stele_ledger::{StateKey, StateView};
use stele_state::{StateError, StateMap, TreeMap};
use stele_types::exchange::CertifiedHeader;
use stele_types::{Hash, Height};
use tracing::error;

use super::{Chain, ChainError};

/// A state as the ledger reads it. It exists only while a [`read_whole`] runs.
///
/// The ledger takes a value that it cannot find for one that is not there, and for values that belong together that is an
/// invariant. A value that cannot be read from its file is neither: the reading ends there.
pub struct StateReader<'m> {
    map: &'m TreeMap,
    failure: OnceLock<StateError>,
}

impl StateView for StateReader<'_> {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.map.get(key).unwrap_or_else(|error| {
            // Threads of one reading may fail together; the first one counts.
            let _ = self.failure.set(error);
            // Not a panic: no hook runs, and `read_whole` ends it.
            resume_unwind(Box::new("a value of the state cannot be read"))
        })
    }
    fn prefetch(&self, keys: &[StateKey]) {
        self.map.prefetch(keys);
    }
}

/// Reads a state: what comes of it, if every value that was asked for could be read.
pub(super) fn read_whole<T>(map: &TreeMap, read: impl FnOnce(&StateReader<'_>) -> T) -> Result<T, StateError> {
    let reader = StateReader { map, failure: OnceLock::new() };
    // What the reading was about to make is gone with it, and the map is not changed by it.
    let result = catch_unwind(AssertUnwindSafe(|| read(&reader)));
    match (result, reader.failure.into_inner()) {
        (_, Some(error)) => Err(error),
        (Ok(result), None) => Ok(result),
        (Err(panic), None) => resume_unwind(panic),
    }
}

/// A value of the state with everything that proves it.
#[derive(Clone, Debug)]
pub struct ProvenState {
    /// The value, or none: then the proof shows its absence.
    pub value: Option<Vec<u8>>,
    /// Encoded proof of `stele_merkle::state`.
    pub proof: Vec<u8>,
    /// Root that the proof leads to.
    pub root: Hash,
    /// Height after which the state stands.
    pub height: Height,
    /// The header that certifies the root, once it is committed.
    pub certified_by: Option<CertifiedHeader>,
}

impl Chain {
    /// Reads the newest state; commits wait meanwhile, so be brief. After the first value that could not be read nothing is
    /// read any more: nothing is voted for or committed by it, and the node halts.
    ///
    /// # Errors
    /// `StateUnreadable`.
    pub fn reading<T>(&self, read: impl FnOnce(&StateReader<'_>) -> T) -> Result<T, ChainError> {
        if let Some(reason) = self.unreadable.get() {
            return Err(ChainError::StateUnreadable { reason: reason.clone() });
        }
        let map = self.state.read().unwrap_or_else(PoisonError::into_inner);
        read_whole(&map, read).map_err(|error| self.note_unreadable(error))
    }

    /// Takes note of a value that could not be read.
    pub(super) fn note_unreadable(&self, error: StateError) -> ChainError {
        let reason = error.to_string();
        if self.unreadable.set(reason.clone()).is_ok() {
            error!(code = error.code(), %error, "a value of the state cannot be read: nothing is decided by it");
            // A damaged file is built again by the next start.
            let _ = self.noticed::<()>(Err(ChainError::from(error)));
        }
        ChainError::StateUnreadable { reason }
    }

    /// Resolves when a value of the state could not be read, whoever asked for it: nothing can be judged from then on, so
    /// that the network's next block may never reach its commit here, which would say so. Cancel-safe.
    pub async fn unreadable(&self) -> ChainError {
        ChainError::StateUnreadable { reason: self.unreadable.wait().await.clone() }
    }

    /// A value with its proof under the newest root that a committed header certifies, for verifiers that trust the
    /// validator set of `from`.
    ///
    /// # Errors
    /// `not_certified` before the second block; `trust_path_too_long`; failure of a store.
    pub fn prove_state(&self, key: &StateKey, from: Height) -> Result<ProvenState, ChainError> {
        let (height, proven) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            // Under the lock the head cannot move past the state.
            let height = self.certified();
            (height, self.noticed(state.prove(key, height.0).map_err(ChainError::from))?)
        };
        let certified_by = self.certified_header(height.next(), from)?;
        Ok(ProvenState {
            value: proven.value,
            proof: proven.proof.encode(),
            root: Hash(proven.root),
            height,
            certified_by,
        })
    }
}
