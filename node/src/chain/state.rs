//! Reading the state: a consistent view, and values with proofs.

use std::sync::{PoisonError, RwLockReadGuard};

use stele_ledger::{StateKey, StateView};
use stele_state::{MemoryMap, StateMap};
use stele_types::exchange::CertifiedHeader;
use stele_types::{Hash, Height};

use super::{Chain, ChainError};

/// The newest state; commits wait while it is held, so hold it briefly.
pub struct StateReader<'c>(pub(super) RwLockReadGuard<'c, MemoryMap>);

impl StateView for StateReader<'_> {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        MapView(&self.0).get(key)
    }
    fn prefetch(&self, keys: &[StateKey]) {
        self.0.prefetch(keys);
    }
}

/// A state map as the ledger reads it.
pub(super) struct MapView<'m>(pub(super) &'m MemoryMap);

impl StateView for MapView<'_> {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        // The map is in memory; its `get` fails only in engines that keep values on disk.
        self.0.get(key).ok().flatten()
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
        StateReader(self.state.read().unwrap_or_else(PoisonError::into_inner))
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
