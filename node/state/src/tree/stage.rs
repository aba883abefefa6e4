//! Staging: from sorted writes to the new nodes of the paths that change.

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, key_bit};

use super::{Child, Inner, NodeRef, Place, Tree};
use crate::arena::SLOTS_MAX;
use crate::{StateError, Write, hashing};

/// How many inner nodes one write changes in a large map with large batches; a guess that saves reallocations.
const NEW_INNERS_PER_WRITE: usize = 10;

/// Writes whose paths are brought into the caches together, just before they are followed: the nodes below them fit
/// into a core's second-level cache.
const WARM_WRITES_MAX: usize = 256;

/// The difference between the newest tree and the one after a batch. Nodes of the newest tree are shared, never
/// changed.
#[derive(Debug)]
pub(crate) struct Update {
    /// New inner nodes, children before their parents.
    pub(super) inners: Vec<Inner>,
    /// New leaves in key order, with their values.
    pub(super) leaves: Vec<(Key, Vec<u8>)>,
    /// Slots of the inner nodes and leaves that the new tree does not contain any more.
    pub(super) old_inners: Vec<u32>,
    pub(super) old_leaves: Vec<u32>,
    pub(super) root: Child,
    pub(super) generation: u64,
}

impl Update {
    pub(crate) fn root_hash(&self) -> Hash {
        self.root.hash
    }

    /// The tree that the update belongs on.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// New nodes, leaves included.
    pub(crate) fn nodes(&self) -> usize {
        self.inners.len() + self.leaves.len()
    }
}

impl Tree {
    /// Stages writes whose keys are strictly ascending.
    ///
    /// # Errors
    /// [`StateError::Full`] when the arenas could not hold the new nodes beside all that are retained.
    pub(crate) fn stage(&self, mut writes: Vec<Write>) -> Result<Update, StateError> {
        let count = writes.len();
        let mut staging = Staging {
            tree: self,
            inners: Vec::with_capacity(count * NEW_INNERS_PER_WRITE),
            ranks: Vec::with_capacity(count * NEW_INNERS_PER_WRITE),
            ranked: Vec::new(),
            inner_hashes: Vec::new(),
            leaves: Vec::with_capacity(count),
            leaf_hashes: Vec::new(),
            old_inners: Vec::with_capacity(count * NEW_INNERS_PER_WRITE),
            old_leaves: Vec::with_capacity(count),
            standing: Vec::new(),
        };
        let root = if writes.is_empty() { self.root } else { staging.update(self.root, 0, &mut writes, false) };
        let inners = self.inners.used() + staging.inners.len();
        let leaves = self.leaves.used() + staging.leaves.len();
        if inners.max(leaves) > SLOTS_MAX {
            return Err(StateError::Full { nodes: inners + leaves });
        }
        staging.hash_leaves();
        staging.hash_inners();
        let root = staging.with_hash(root);
        Ok(Update {
            inners: staging.inners,
            leaves: staging.leaves,
            old_inners: staging.old_inners,
            old_leaves: staging.old_leaves,
            root,
            generation: self.generation,
        })
    }
}

struct Staging<'a> {
    tree: &'a Tree,
    inners: Vec<Inner>,
    /// For each new inner node its height above unchanged nodes and leaves: nodes of one rank can be hashed together.
    ranks: Vec<u16>,
    /// The new inner nodes of each rank.
    ranked: Vec<Vec<u32>>,
    inner_hashes: Vec<Hash>,
    leaves: Vec<(Key, Vec<u8>)>,
    leaf_hashes: Vec<Hash>,
    old_inners: Vec<u32>,
    old_leaves: Vec<u32>,
    /// Leaves that stand below one place after the batch; kept to save allocations.
    standing: Vec<(Key, Child)>,
}

impl Staging<'_> {
    /// What takes the place of `child` after these writes, of which there is at least one: `child` itself when they
    /// change nothing. `warm` says that the paths are in the caches. The hashes of new nodes are filled in later. The
    /// recursion is bounded by the 256 bits of a key.
    fn update(&mut self, child: Child, depth: usize, writes: &mut [Write], warm: bool) -> Child {
        let Place::Inner(slot) = child.node.place() else { return self.plant(child, depth, writes) };
        let warm = warm
            || writes.len() <= WARM_WRITES_MAX && {
                self.tree.warm(child.node, depth, writes.iter().map(|(key, _)| key));
                true
            };
        let Inner { left, right } = *self.tree.inners.at(slot);
        let (lower, upper) = writes.split_at_mut(writes.partition_point(|(key, _)| !key_bit(key, depth)));
        let new_left = if lower.is_empty() { left } else { self.update(left, depth + 1, lower, warm) };
        let new_right = if upper.is_empty() { right } else { self.update(right, depth + 1, upper, warm) };
        if (new_left.node, new_right.node) == (left.node, right.node) {
            return child;
        }
        self.old_inners.push(slot);
        self.join(new_left, new_right)
    }

    /// The node over two children: none over nothing, and a single leaf moves up instead.
    fn join(&mut self, left: Child, right: Child) -> Child {
        match (left.node.place(), right.node.place()) {
            (_, Place::Empty) if !is_inner(left) => left,
            (Place::Empty, _) if !is_inner(right) => right,
            _ => self.add_inner(left, right),
        }
    }

    /// Applies writes at a place that holds one leaf or none.
    fn plant(&mut self, child: Child, depth: usize, writes: &mut [Write]) -> Child {
        let mut standing = std::mem::take(&mut self.standing);
        standing.clear();
        let mut old = match child.node.place() {
            Place::Leaf(slot) => Some((slot, self.tree.leaves.at(slot).key)),
            _ => None,
        };
        for (key, value) in writes {
            match old {
                Some((_, old_key)) if old_key < *key => {
                    standing.push((old_key, child));
                    old = None;
                }
                Some((slot, old_key)) if old_key == *key => {
                    self.old_leaves.push(slot);
                    old = None;
                }
                _ => {}
            }
            if let Some(value) = value.take() {
                let leaf = self.add_leaf(*key, value);
                standing.push((*key, leaf));
            }
        }
        if let Some((_, old_key)) = old {
            standing.push((old_key, child));
        }
        let grown = self.grow(&standing, depth);
        self.standing = standing;
        grown
    }

    /// The subtree over leaves in key order.
    fn grow(&mut self, standing: &[(Key, Child)], depth: usize) -> Child {
        match standing {
            [] => Child::EMPTY,
            [(_, leaf)] => *leaf,
            standing => {
                let (lower, upper) = standing.split_at(standing.partition_point(|(key, _)| !key_bit(key, depth)));
                let left = self.grow(lower, depth + 1);
                let right = self.grow(upper, depth + 1);
                self.add_inner(left, right)
            }
        }
    }

    fn add_leaf(&mut self, key: Key, value: Vec<u8>) -> Child {
        let index = staged_index(self.leaves.len());
        self.leaves.push((key, value));
        Child { node: NodeRef::staged_leaf(index), hash: EMPTY }
    }

    fn add_inner(&mut self, left: Child, right: Child) -> Child {
        let rank = |child: Child| match child.node.place() {
            Place::StagedInner(index) => self.ranks[index as usize] + 1,
            _ => 0,
        };
        let rank = rank(left).max(rank(right));
        let index = staged_index(self.inners.len());
        self.inners.push(Inner { left, right });
        self.ranks.push(rank);
        let rank = usize::from(rank);
        if rank == self.ranked.len() {
            self.ranked.push(Vec::new());
        }
        self.ranked[rank].push(index);
        Child { node: NodeRef::staged_inner(index), hash: EMPTY }
    }

    fn hash_leaves(&mut self) {
        let pairs: Vec<(&Key, &[u8])> = self.leaves.iter().map(|(key, value)| (key, &**value)).collect();
        self.leaf_hashes = hashing::leaves(self.tree.hash, &pairs);
    }

    /// Hashes the new inner nodes bottom-up, all of one rank in one batch.
    fn hash_inners(&mut self) {
        self.inner_hashes = vec![EMPTY; self.inners.len()];
        let mut children: Vec<[Hash; 2]> = Vec::new();
        for batch in std::mem::take(&mut self.ranked) {
            children.clear();
            for index in &batch {
                let Inner { left, right } = self.inners[*index as usize];
                let inner = Inner { left: self.with_hash(left), right: self.with_hash(right) };
                children.push([inner.left.hash, inner.right.hash]);
                self.inners[*index as usize] = inner;
            }
            for (index, hash) in batch.iter().zip(hashing::nodes(self.tree.hash, &children)) {
                self.inner_hashes[*index as usize] = hash;
            }
        }
    }

    /// A child with its hash, once that is known.
    fn with_hash(&self, child: Child) -> Child {
        let hash = match child.node.place() {
            Place::StagedInner(index) => self.inner_hashes[index as usize],
            Place::StagedLeaf(index) => self.leaf_hashes[index as usize],
            Place::Empty | Place::Inner(_) | Place::Leaf(_) => child.hash,
        };
        Child { node: child.node, hash }
    }
}

fn is_inner(child: Child) -> bool {
    matches!(child.node.place(), Place::Inner(_) | Place::StagedInner(_))
}

/// A batch is bounded by its bytes, so it never has more new nodes than 32 bits count.
fn staged_index(index: usize) -> u32 {
    u32::try_from(index).expect("a batch of bounded bytes has fewer than 2^30 nodes")
}
