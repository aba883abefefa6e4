//! Staging: from sorted writes to the new nodes of the paths that change.

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, key_bit};

use super::{Inner, Leaf, NodeRef, Place, Tree};
use crate::arena::SLOTS_MAX;
use crate::{StateError, Write, hashing};

/// The difference between the newest tree and the one after a batch. Nodes of the newest tree are shared, never
/// changed.
#[derive(Debug)]
pub(crate) struct Update {
    /// New inner nodes, children before their parents.
    pub(super) inners: Vec<Inner>,
    /// New leaves, in key order.
    pub(super) leaves: Vec<Leaf>,
    /// Slots of the inner nodes and leaves that the new tree does not contain any more.
    pub(super) old_inners: Vec<u32>,
    pub(super) old_leaves: Vec<u32>,
    pub(super) root: NodeRef,
    pub(super) generation: u64,
    root_hash: Hash,
}

impl Update {
    pub(crate) fn root_hash(&self) -> Hash {
        self.root_hash
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
        let mut staging = Staging {
            tree: self,
            inners: Vec::with_capacity(writes.len() * 8),
            ranks: Vec::with_capacity(writes.len() * 8),
            leaves: Vec::with_capacity(writes.len()),
            old_inners: Vec::with_capacity(writes.len() * 8),
            old_leaves: Vec::with_capacity(writes.len()),
            standing: Vec::new(),
        };
        let root = if writes.is_empty() { self.root } else { staging.update(self.root, 0, &mut writes) };
        let nodes = self.inners.used() + self.leaves.used();
        if self.inners.used() + staging.inners.len() > SLOTS_MAX
            || self.leaves.used() + staging.leaves.len() > SLOTS_MAX
        {
            return Err(StateError::Full { nodes });
        }
        staging.hash_leaves();
        staging.hash_inners();
        Ok(Update {
            root_hash: staging.hash_of(root),
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
    leaves: Vec<Leaf>,
    old_inners: Vec<u32>,
    old_leaves: Vec<u32>,
    /// Leaves that stand below one place after the batch; kept to save allocations.
    standing: Vec<(Key, NodeRef)>,
}

impl Staging<'_> {
    /// The node that takes the place of `node` after these writes, of which there is at least one. Returns `node`
    /// itself when they change nothing. The recursion is bounded by the 256 bits of a key.
    fn update(&mut self, node: NodeRef, depth: usize, writes: &mut [Write]) -> NodeRef {
        let Place::Inner(slot) = node.place() else { return self.plant(node, depth, writes) };
        let &Inner { left, right, .. } = self.tree.inners.at(slot);
        let (lower, upper) = writes.split_at_mut(writes.partition_point(|(key, _)| !key_bit(key, depth)));
        let new_left = if lower.is_empty() { left } else { self.update(left, depth + 1, lower) };
        let new_right = if upper.is_empty() { right } else { self.update(right, depth + 1, upper) };
        if (new_left, new_right) == (left, right) {
            return node;
        }
        self.old_inners.push(slot);
        self.join(new_left, new_right)
    }

    /// The node over two children: none over nothing, and a single leaf moves up instead.
    fn join(&mut self, left: NodeRef, right: NodeRef) -> NodeRef {
        match (left.place(), right.place()) {
            (_, Place::Empty) if !is_inner(left) => left,
            (Place::Empty, _) if !is_inner(right) => right,
            _ => self.add_inner(left, right),
        }
    }

    /// Applies writes at a place that holds one leaf or none.
    fn plant(&mut self, node: NodeRef, depth: usize, writes: &mut [Write]) -> NodeRef {
        let mut standing = std::mem::take(&mut self.standing);
        standing.clear();
        let old = match node.place() {
            Place::Leaf(slot) => Some((slot, self.tree.leaves.at(slot))),
            _ => None,
        };
        let mut old_pending = old;
        for (key, value) in writes {
            if let Some((_, leaf)) = old_pending
                && leaf.key <= *key
            {
                old_pending = None;
                if leaf.key < *key {
                    standing.push((leaf.key, node));
                }
            }
            let replaced = old.filter(|(_, leaf)| leaf.key == *key);
            match (value.take(), replaced) {
                (Some(value), Some((_, leaf))) if *leaf.value == *value => standing.push((*key, node)),
                (Some(value), replaced) => {
                    self.old_leaves.extend(replaced.map(|(slot, _)| slot));
                    let leaf = self.add_leaf(*key, value);
                    standing.push((*key, leaf));
                }
                (None, replaced) => self.old_leaves.extend(replaced.map(|(slot, _)| slot)),
            }
        }
        if let Some((_, leaf)) = old_pending {
            standing.push((leaf.key, node));
        }
        let grown = self.grow(&standing, depth);
        self.standing = standing;
        grown
    }

    /// The subtree over leaves in key order.
    fn grow(&mut self, standing: &[(Key, NodeRef)], depth: usize) -> NodeRef {
        match standing {
            [] => NodeRef::EMPTY,
            [(_, leaf)] => *leaf,
            standing => {
                let (lower, upper) = standing.split_at(standing.partition_point(|(key, _)| !key_bit(key, depth)));
                let left = self.grow(lower, depth + 1);
                let right = self.grow(upper, depth + 1);
                self.add_inner(left, right)
            }
        }
    }

    fn add_leaf(&mut self, key: Key, value: Vec<u8>) -> NodeRef {
        let index = staged_index(self.leaves.len());
        self.leaves.push(Leaf { key, hash: EMPTY, value: value.into_boxed_slice() });
        NodeRef::staged_leaf(index)
    }

    fn add_inner(&mut self, left: NodeRef, right: NodeRef) -> NodeRef {
        let rank = |node: NodeRef| match node.place() {
            Place::StagedInner(index) => self.ranks[index as usize] + 1,
            _ => 0,
        };
        let rank = rank(left).max(rank(right));
        let index = staged_index(self.inners.len());
        self.inners.push(Inner { left, right, hash: EMPTY });
        self.ranks.push(rank);
        NodeRef::staged_inner(index)
    }

    fn hash_leaves(&mut self) {
        let pairs: Vec<(&Key, &[u8])> = self.leaves.iter().map(|leaf| (&leaf.key, &*leaf.value)).collect();
        let hashes = hashing::leaves(self.tree.hash, &pairs);
        for (leaf, hash) in self.leaves.iter_mut().zip(hashes) {
            leaf.hash = hash;
        }
    }

    /// Hashes the new inner nodes bottom-up, all of one rank in one batch.
    fn hash_inners(&mut self) {
        let mut ranked: Vec<u32> = (0..staged_index(self.inners.len())).collect();
        ranked.sort_by_key(|index| self.ranks[*index as usize]);
        for batch in ranked.chunk_by(|left, right| self.ranks[*left as usize] == self.ranks[*right as usize]) {
            let children: Vec<[Hash; 2]> = batch
                .iter()
                .map(|index| {
                    let inner = &self.inners[*index as usize];
                    [self.hash_of(inner.left), self.hash_of(inner.right)]
                })
                .collect();
            for (index, hash) in batch.iter().zip(hashing::nodes(self.tree.hash, &children)) {
                self.inners[*index as usize].hash = hash;
            }
        }
    }

    fn hash_of(&self, node: NodeRef) -> Hash {
        match node.place() {
            Place::StagedInner(index) => self.inners[index as usize].hash,
            Place::StagedLeaf(index) => self.leaves[index as usize].hash,
            Place::Empty | Place::Inner(_) | Place::Leaf(_) => self.tree.node_hash(node),
        }
    }
}

fn is_inner(node: NodeRef) -> bool {
    matches!(node.place(), Place::Inner(_) | Place::StagedInner(_))
}

/// A batch is bounded by its bytes, so it never has more new nodes than 32 bits count.
fn staged_index(index: usize) -> u32 {
    u32::try_from(index).expect("a batch of bounded bytes has fewer than 2^30 nodes")
}
