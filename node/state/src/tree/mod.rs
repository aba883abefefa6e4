//! The tree in memory: immutable nodes in two arenas.

mod read;
mod stage;
mod walk;

pub(crate) use stage::Update;
pub(crate) use walk::Walk;

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, StateHash};

use crate::arena::Arena;
use crate::values::{ValueRef, Values};

/// Where a node is: nowhere, or in the arena of inner nodes or of leaves; while staged, in the update's own lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRef(u32);

/// What a reference refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Empty,
    Inner(u32),
    Leaf(u32),
    StagedInner(u32),
    StagedLeaf(u32),
}

impl NodeRef {
    const TAG_SHIFT: u32 = 30;
    const INDEX_MASK: u32 = (1 << Self::TAG_SHIFT) - 1;
    /// No arena has a slot of this number, see [`crate::arena::SLOTS_MAX`].
    pub(crate) const EMPTY: Self = Self(u32::MAX);

    const fn tagged(tag: u32, index: u32) -> Self {
        Self(tag << Self::TAG_SHIFT | index)
    }

    const fn inner(index: u32) -> Self {
        Self::tagged(0, index)
    }

    const fn leaf(index: u32) -> Self {
        Self::tagged(1, index)
    }

    const fn staged_inner(index: u32) -> Self {
        Self::tagged(2, index)
    }

    const fn staged_leaf(index: u32) -> Self {
        Self::tagged(3, index)
    }

    pub(crate) const fn place(self) -> Place {
        let index = self.0 & Self::INDEX_MASK;
        if self.0 == Self::EMPTY.0 {
            return Place::Empty;
        }
        match self.0 >> Self::TAG_SHIFT {
            0 => Place::Inner(index),
            1 => Place::Leaf(index),
            2 => Place::StagedInner(index),
            _ => Place::StagedLeaf(index),
        }
    }
}

impl Default for NodeRef {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A child of an inner node. Its hash stands in the parent, so that rehashing a changed path reads no sibling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) node: NodeRef,
    pub(crate) hash: Hash,
}

impl Child {
    pub(crate) const EMPTY: Self = Self { node: NodeRef::EMPTY, hash: EMPTY };
}

/// An inner node, of whose two children at most one is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inner {
    pub(crate) left: Child,
    pub(crate) right: Child,
}

/// A leaf: its key, and where its value is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leaf {
    pub(crate) key: Key,
    pub(crate) value: ValueRef,
}

/// Nodes that a commit took out of the newest tree; older roots may still need them.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    inners: Vec<u32>,
    leaves: Vec<u32>,
    bytes: usize,
}

impl Retired {
    /// Bytes of memory that the retired nodes and this list hold.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One tree per retained root, sharing all nodes that did not change between them.
#[derive(Debug)]
pub(crate) struct Tree {
    hash: StateHash,
    inners: Arena<Inner>,
    leaves: Arena<Leaf>,
    values: Values,
    root: Child,
    /// Leaves of the newest tree.
    keys: usize,
    /// Changes with every applied update, so that a stale one is recognised.
    generation: u64,
}

impl Tree {
    pub(crate) fn new(hash: StateHash) -> Self {
        Self {
            hash,
            inners: Arena::new(),
            leaves: Arena::new(),
            values: Values::new(),
            root: Child::EMPTY,
            keys: 0,
            generation: 0,
        }
    }

    pub(crate) fn hash(&self) -> StateHash {
        self.hash
    }

    /// The newest root's node.
    pub(crate) fn root(&self) -> NodeRef {
        self.root.node
    }

    /// The newest root.
    pub(crate) fn root_hash(&self) -> Hash {
        self.root.hash
    }

    /// Keys of the newest tree.
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The value of a leaf.
    fn value(&self, leaf: &Leaf) -> &[u8] {
        self.values.at(leaf.value)
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.inners.bytes() + self.leaves.bytes() + self.values.bytes()
    }

    /// Makes an update the newest tree and returns the nodes that it replaced.
    pub(crate) fn apply(&mut self, update: Update) -> Retired {
        debug_assert_eq!(update.generation, self.generation);
        let mut retired = Retired { inners: update.old_inners, leaves: update.old_leaves, bytes: 0 };
        let values: usize = retired.leaves.iter().map(|slot| self.leaves.at(*slot).value.bytes()).sum();
        retired.bytes = retired.inners.len() * (size_of::<Inner>() + size_of::<u32>())
            + retired.leaves.len() * (size_of::<Leaf>() + size_of::<u32>())
            + values;
        self.keys = self.keys + update.leaves.len() - retired.leaves.len();
        let mut leaf_slots = Vec::with_capacity(update.leaves.len());
        for (key, value) in update.leaves {
            let value = self.values.insert(&value);
            leaf_slots.push(self.leaves.insert(Leaf { key, value }));
        }
        // Children come before their parents in an update, so every staged child already has a slot.
        let mut inner_slots: Vec<u32> = Vec::with_capacity(update.inners.len());
        let settle = |child: Child, inner_slots: &[u32]| {
            let node = match child.node.place() {
                Place::StagedInner(index) => NodeRef::inner(inner_slots[index as usize]),
                Place::StagedLeaf(index) => NodeRef::leaf(leaf_slots[index as usize]),
                Place::Empty | Place::Inner(_) | Place::Leaf(_) => child.node,
            };
            Child { node, hash: child.hash }
        };
        for Inner { left, right } in update.inners {
            let inner = Inner { left: settle(left, &inner_slots), right: settle(right, &inner_slots) };
            inner_slots.push(self.inners.insert(inner));
        }
        self.root = settle(update.root, &inner_slots);
        self.generation += 1;
        retired
    }

    /// Frees nodes that no retained root needs.
    pub(crate) fn free(&mut self, retired: Retired) {
        for slot in retired.inners {
            self.inners.release(slot);
        }
        for slot in retired.leaves {
            self.values.release(self.leaves.at(slot).value);
            self.leaves.release(slot);
        }
    }
}
