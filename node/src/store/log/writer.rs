//! Appending leaves.

use std::sync::Arc;

use stele_merkle::Hash;
use stele_merkle::log::Frontier;

use super::error::LogStoreError;
use super::files::LEVELS;
use super::tree::LogStore;
use crate::store::Location;

/// Leaves hashed between two writes; bounds the buffers to 5 MiB however large the batch is.
const LEAVES_AT_ONCE: usize = 65_536;

/// The one writer of a log.
#[derive(Debug)]
pub struct LogWriter {
    store: Arc<LogStore>,
    frontier: Frontier,
    /// Completed subtree hashes of each level that are not written yet.
    levels: Vec<Vec<u8>>,
    locations: Vec<u8>,
}

impl LogWriter {
    pub(super) fn new(store: Arc<LogStore>, frontier: Frontier) -> Self {
        let levels = vec![Vec::new(); usize::from(LEVELS)];
        Self { store, frontier, levels, locations: Vec::new() }
    }

    /// Appends the leaves of one block and returns the log index of the first. Readers see all of them
    /// or none. Nothing is durable before the next [`LogStore::sync`].
    ///
    /// # Errors
    /// `log_uneven` changes nothing; `store_io` poisons the log; `store_poisoned`.
    pub fn append(&mut self, leaf_hashes: &[Hash], locations: &[Location]) -> Result<u64, LogStoreError> {
        if self.store.poison.is_set() {
            return Err(LogStoreError::Poisoned);
        }
        if leaf_hashes.len() != locations.len() {
            return Err(LogStoreError::Uneven { leaves: leaf_hashes.len(), locations: locations.len() });
        }
        let first = self.frontier.size();
        let batches = leaf_hashes.chunks(LEAVES_AT_ONCE).zip(locations.chunks(LEAVES_AT_ONCE));
        for (leaf_hashes, locations) in batches {
            self.append_batch(leaf_hashes, locations)
                .inspect_err(|_| self.store.poison.set())
                .map_err(LogStoreError::io("append to the log"))?;
        }
        self.store.publish(self.frontier.size());
        Ok(first)
    }

    /// The reading half.
    #[must_use]
    pub fn store(&self) -> &Arc<LogStore> {
        &self.store
    }

    /// Root over all leaves appended, without a read.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Leaves appended.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    fn append_batch(&mut self, leaf_hashes: &[Hash], locations: &[Location]) -> std::io::Result<()> {
        let before = self.frontier.size();
        let levels = &mut self.levels;
        for leaf in leaf_hashes {
            self.frontier.append_visiting(*leaf, |level, _, hash| {
                levels[usize::from(level)].extend_from_slice(&hash);
            });
        }
        self.locations.clear();
        self.locations.extend(locations.iter().flat_map(|location| location.pack().to_le_bytes()));
        for (level, bytes) in (0..LEVELS).zip(levels.iter_mut()) {
            if !bytes.is_empty() {
                self.store.files.write_hashes(level, before >> level, bytes)?;
                bytes.clear();
            }
        }
        self.store.files.write_locations(before, &self.locations)
    }
}
