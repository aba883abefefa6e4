//! Reading the state: a consistent view, and values with proofs.

use std::sync::{OnceLock, PoisonError, RwLockReadGuard};

use stele_ledger::{StateKey, StateView};
use stele_state::{MemoryMap, StateError, StateMap};
use stele_types::exchange::CertifiedHeader;
use stele_types::{Hash, Height};
use tracing::error;

use super::{Chain, ChainError};

/// The newest state; commits wait while it is held, so hold it briefly.
///
/// A value that cannot be read from its file looks absent here. The chain takes note of it: nothing that was read since is
/// voted for or committed ([`Chain::check_state`]), and the node halts.
pub struct StateReader<'c> {
    chain: &'c Chain,
    map: RwLockReadGuard<'c, MemoryMap>,
}

impl StateView for StateReader<'_> {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        match self.map.get(key) {
            Ok(value) => value,
            Err(error) => {
                self.chain.note_unreadable(error);
                None
            }
        }
    }
    fn prefetch(&self, keys: &[StateKey]) {
        self.map.prefetch(keys);
    }
}

/// A state map as the ledger reads it; [`MapView::finish`] says whether all of it could be read.
pub(super) struct MapView<'m> {
    map: &'m MemoryMap,
    failure: OnceLock<StateError>,
}

impl<'m> MapView<'m> {
    pub(super) fn new(map: &'m MemoryMap) -> Self {
        Self { map, failure: OnceLock::new() }
    }

    /// The first failure, if there was one: then what was read is not the state.
    pub(super) fn finish(self) -> Result<(), StateError> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }
}

impl StateView for MapView<'_> {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.map.get(key).unwrap_or_else(|error| {
            // Only the first one counts.
            let _ = self.failure.set(error);
            None
        })
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
    /// The newest state.
    pub fn view(&self) -> StateReader<'_> {
        StateReader { chain: self, map: self.state.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Whether every value that was asked for so far could be read. Asked before anything that depends on values is voted
    /// for or committed.
    ///
    /// # Errors
    /// `StateUnreadable`.
    pub fn check_state(&self) -> Result<(), ChainError> {
        match self.unreadable.get() {
            Some(reason) => Err(ChainError::StateUnreadable { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn note_unreadable(&self, error: StateError) {
        let reason = error.to_string();
        if self.unreadable.set(reason).is_ok() {
            error!(code = error.code(), %error, "a value of the state cannot be read: nothing is decided by it");
            // A damaged file is built again by the next start.
            let _ = self.noticed::<()>(Err(ChainError::from(error)));
        }
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
