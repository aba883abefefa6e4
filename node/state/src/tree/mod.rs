//! The tree in memory: nodes in arenas, changed in place.
//!
//! A node keeps the hashes of its children, so that rehashing a changed path reads no sibling. Staging reads the tree
//! and writes elsewhere; applying exchanges what staging found new with what the tree held, and what comes out is the
//! way back to the version before ([`Undo`]). Nodes that a version no longer has keep their slots until no retained
//! version needs them.

mod level;
mod read;
mod stage;
mod undo;
mod walk;

pub(crate) use read::View;
pub(crate) use stage::{Update, subtree_root};
pub(crate) use undo::Undo;

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, StateHash};

use crate::arena::Arena;
use crate::values::{ValueRef, Values};

/// Where a node is: nowhere, or in one of the arenas; while staged, in the update's own list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRef(u32);

/// What a reference refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Empty,
    /// A node with something on both sides.
    Inner(u32),
    /// A node with something on this side only.
    Link(Side, u32),
    Leaf(u32),
    /// A new leaf of an update, or a new node above leaves.
    StagedLeaf(u32),
    StagedNode(u32),
}

/// A side of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) const fn of_bit(bit: bool) -> Self {
        if bit { Self::Right } else { Self::Left }
    }
}

impl NodeRef {
    const TAG_SHIFT: u32 = 29;
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

    const fn link(side: Side, index: u32) -> Self {
        match side {
            Side::Left => Self::tagged(2, index),
            Side::Right => Self::tagged(3, index),
        }
    }

    const fn staged_leaf(index: u32) -> Self {
        Self::tagged(4, index)
    }

    const fn staged_node(index: u32) -> Self {
        Self::tagged(5, index)
    }

    pub(crate) const fn place(self) -> Place {
        let index = self.0 & Self::INDEX_MASK;
        if self.0 == Self::EMPTY.0 {
            return Place::Empty;
        }
        match self.0 >> Self::TAG_SHIFT {
            0 => Place::Inner(index),
            1 => Place::Leaf(index),
            2 => Place::Link(Side::Left, index),
            3 => Place::Link(Side::Right, index),
            4 => Place::StagedLeaf(index),
            _ => Place::StagedNode(index),
        }
    }
}

impl Default for NodeRef {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A child of a node, with its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) node: NodeRef,
    pub(crate) hash: Hash,
}

impl Child {
    pub(crate) const EMPTY: Self = Self { node: NodeRef::EMPTY, hash: EMPTY };

    fn is_empty(&self) -> bool {
        self.node == NodeRef::EMPTY
    }

    fn is_leaf(&self) -> bool {
        matches!(self.node.place(), Place::Leaf(_) | Place::StagedLeaf(_))
    }
}

/// A node with two children. Nodes with one, a third of all, are kept as a bare [`Child`].
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

/// A place that holds a child: a side of a node with two, or a node with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

impl Slot {
    const fn inner(side: Side, index: u32) -> Self {
        match side {
            Side::Left => Self(index),
            Side::Right => Self(1 << NodeRef::TAG_SHIFT | index),
        }
    }

    const fn link(index: u32) -> Self {
        Self(2 << NodeRef::TAG_SHIFT | index)
    }
}

/// The newest tree, with the nodes that only retained older versions need.
#[derive(Debug)]
pub(crate) struct Tree {
    hash: StateHash,
    inners: Arena<Inner>,
    links: Arena<Child>,
    leaves: Arena<Leaf>,
    values: Values,
    root: Child,
    /// Leaves of the newest tree.
    keys: usize,
    /// Bytes of all pairs of the newest tree as files hold them.
    pair_bytes: u64,
    /// Changes with every applied update, so that a stale one is recognised.
    generation: u64,
}

impl Tree {
    pub(crate) fn new(hash: StateHash) -> Self {
        Self {
            hash,
            inners: Arena::new(),
            links: Arena::new(),
            leaves: Arena::new(),
            values: Values::new(),
            root: Child::EMPTY,
            keys: 0,
            pair_bytes: 0,
            generation: 0,
        }
    }

    pub(crate) fn hash(&self) -> StateHash {
        self.hash
    }

    /// The newest root.
    pub(crate) fn root(&self) -> Child {
        self.root
    }

    /// Keys of the newest tree.
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes of all pairs of the newest tree in a file.
    pub(crate) fn pair_bytes(&self) -> u64 {
        self.pair_bytes
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// A value that the tree or a retained version refers to.
    pub(crate) fn value(&self, value: ValueRef) -> &[u8] {
        self.values.at(value)
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.inners.bytes() + self.links.bytes() + self.leaves.bytes() + self.values.bytes()
    }

    fn child(&self, slot: Slot) -> &Child {
        let index = slot.0 & NodeRef::INDEX_MASK;
        match slot.0 >> NodeRef::TAG_SHIFT {
            0 => &self.inners.at(index).left,
            1 => &self.inners.at(index).right,
            _ => self.links.at(index),
        }
    }

    fn child_mut(&mut self, slot: Slot) -> &mut Child {
        let index = slot.0 & NodeRef::INDEX_MASK;
        match slot.0 >> NodeRef::TAG_SHIFT {
            0 => &mut self.inners.at_mut(index).left,
            1 => &mut self.inners.at_mut(index).right,
            _ => self.links.at_mut(index),
        }
    }

    /// Asks the processor to load a node that is read soon.
    fn prefetch(&self, node: NodeRef) {
        match node.place() {
            Place::Inner(slot) => self.inners.prefetch(slot),
            Place::Link(_, slot) => self.links.prefetch(slot),
            Place::Leaf(slot) => self.leaves.prefetch(slot),
            Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) => {}
        }
    }
}
