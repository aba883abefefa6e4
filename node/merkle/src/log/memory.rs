//! A whole tree in memory.

use alloc::vec::Vec;

use super::{Frontier, HashSource, LogError, consistency_proof, inclusion_proof, source_root};
use crate::{HASH_BYTES, Hash};

/// A tree with all its complete subtrees in memory: the statements and outcomes trees of one block, and tests.
///
/// Building from n leaves costs at most n hashes, and the tree holds two hashes per leaf.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    frontier: Frontier,
    /// Complete subtrees by level, level 0 = leaf hashes.
    levels: Vec<Vec<Hash>>,
}

impl MemoryTree {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { frontier: Frontier::new(), levels: Vec::new() }
    }

    /// The tree over these leaf hashes.
    #[must_use]
    pub fn from_leaf_hashes(leaf_hashes: &[Hash]) -> Self {
        leaf_hashes.iter().copied().collect()
    }

    /// Appends one leaf hash.
    pub fn append(&mut self, leaf_hash: Hash) {
        let levels = &mut self.levels;
        self.frontier.append_visiting(leaf_hash, |level, _, hash| {
            let level = usize::from(level);
            if level == levels.len() {
                levels.push(Vec::new());
            }
            levels[level].push(hash);
        });
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Root over the first `size` leaves.
    ///
    /// # Errors
    /// [`LogError`] when the tree is smaller.
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        source_root(self, size)
    }

    /// Inclusion proof of leaf `index` in the whole tree.
    ///
    /// # Errors
    /// [`LogError::Index`] when there is no such leaf.
    pub fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, LogError> {
        inclusion_proof(self, index, self.size())
    }

    /// Consistency proof from the first `old_size` leaves to the whole tree.
    ///
    /// # Errors
    /// [`LogError::Sizes`] when the tree is smaller.
    pub fn consistency_proof(&self, old_size: u64) -> Result<Vec<Hash>, LogError> {
        consistency_proof(self, old_size, self.size())
    }
}

impl HashSource for MemoryTree {
    fn hash(&self, level: u8, index: u64) -> Option<Hash> {
        self.levels.get(usize::from(level))?.get(usize::try_from(index).ok()?).copied()
    }
}

impl FromIterator<[u8; HASH_BYTES]> for MemoryTree {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaf_hashes: I) -> Self {
        let mut tree = Self::new();
        for leaf_hash in leaf_hashes {
            tree.append(leaf_hash);
        }
        tree
    }
}
