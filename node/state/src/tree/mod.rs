//! The tree in memory: nodes in arenas, changed in place.
//!
//! A node keeps the hashes of its children, so that rehashing a changed path reads no sibling. Staging reads the tree
//! and writes elsewhere; applying exchanges what staging found new with what the tree held, and what comes out is the
//! way back to the version before ([`Undo`]). Nodes that a version no longer has keep their slots until no retained
//! version needs them.
//!
//! In a map with pages the lowest levels are not here: a node's child may be a page, which is looked into from the
//! outside only (`page.rs`). A page is never changed but replaced, so it needs no way back.

mod forest;
mod level;
mod page;
mod read;
mod sizes;
mod stage;
mod undo;
mod walk;

pub(crate) use forest::{Subtree, subtree_roots};
pub(crate) use read::View;
pub(crate) use sizes::RangeSizes;
pub(crate) use stage::Update;
pub(crate) use undo::{RetiredPage, Undo};
pub(crate) use walk::Standing;

use std::borrow::Cow;

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, StateHash};

use crate::arena::Arena;
use crate::pages::{Page, Pages};
use crate::values::{FileId, FileSet, Place as ValuePlace, ValueRef, Values};
use crate::{StateError, Write};

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
    /// A page of leaves.
    Page(u32),
    /// A new leaf, node above leaves, or page of an update.
    StagedLeaf(u32),
    StagedNode(u32),
    StagedPage(u32),
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

    const fn page(index: u32) -> Self {
        Self::tagged(6, index)
    }

    const fn staged_page(index: u32) -> Self {
        Self::tagged(7, index)
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
            5 => Place::StagedNode(index),
            6 => Place::Page(index),
            _ => Place::StagedPage(index),
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

/// A batch that was written: its writes, and where in a file their values lie.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) writes: &'a [Write],
    /// The file, where the batch begins in it, and where each value begins in the batch. None: it is in no file.
    pub(crate) place: Option<(ValuePlace, &'a [u32])>,
}

impl Written<'_> {
    /// The value of a write that stays, and where it lies.
    fn value(&self, index: u32) -> (&[u8], Option<ValuePlace>) {
        let at = index as usize;
        let bytes = self.writes[at].1.as_deref().expect("only writes with a value make leaves");
        let place = self
            .place
            .map(|(ValuePlace { file, offset }, offsets)| ValuePlace { file, offset: offset + u64::from(offsets[at]) });
        (bytes, place)
    }
}

/// A value that lies in a new place too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) key: Key,
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

/// The newest tree, with the nodes that only retained older versions need.
#[derive(Debug)]
pub(crate) struct Tree {
    hash: StateHash,
    inners: Arena<Inner>,
    links: Arena<Child>,
    leaves: Arena<Leaf>,
    values: Values,
    page_slots: Arena<Page>,
    /// Where all leaves are, in a map with pages.
    pages: Option<Pages>,
    root: Child,
    /// Pages of the newest tree.
    live_pages: usize,
    /// Leaves of the newest tree.
    keys: usize,
    /// Bytes of the newest tree's pairs.
    sizes: RangeSizes,
    /// Changes with every applied update, so that a stale one is recognised.
    generation: u64,
}

impl Tree {
    /// A tree that keeps up to `budget` bytes of values in memory that lie in a file as well.
    pub(crate) fn new(hash: StateHash, budget: usize) -> Self {
        Self::with(hash, budget, None)
    }

    /// A tree whose leaves are all in pages.
    pub(crate) fn paged(hash: StateHash, pages: Pages) -> Self {
        Self::with(hash, 0, Some(pages))
    }

    fn with(hash: StateHash, budget: usize, pages: Option<Pages>) -> Self {
        Self {
            hash,
            inners: Arena::new(),
            links: Arena::new(),
            leaves: Arena::new(),
            values: Values::new(budget),
            page_slots: Arena::new(),
            pages,
            root: Child::EMPTY,
            live_pages: 0,
            keys: 0,
            sizes: RangeSizes::new(),
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

    /// Bytes of the newest tree's pairs, as files hold them.
    pub(crate) fn sizes(&self) -> &RangeSizes {
        &self.sizes
    }

    /// Takes the place of another tree with the same root: what was staged on that one is stale.
    pub(crate) fn succeed(&mut self, other: &Self) {
        self.generation = self.generation.max(other.generation) + 1;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The values, and the files that they lie in.
    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut Values {
        &mut self.values
    }

    /// A value that the tree or a retained version refers to. What comes from a file is compared with the leaf's hash.
    pub(crate) fn value(&self, leaf: &Leaf, value: ValueRef, hash: &Hash) -> Result<Cow<'_, [u8]>, StateError> {
        let (bytes, distant) = self.values.read(value)?;
        if distant && self.hash.leaf(&leaf.key, &self.hash.value(&bytes)) != *hash {
            return Err(self.values.files.corrupt(value));
        }
        Ok(bytes)
    }

    /// Moves values that lie in one of `old` to places in `file` with the same bytes; the keys ascend. A walk from leaf to
    /// leaf visits two nodes for each, a descent to every key would visit all of its path.
    pub(crate) fn relocate(&mut self, moved: &[Moved], old: &FileSet, file: FileId) {
        let Some(first) = moved.first() else { return };
        let mut rest = moved;
        let mut found = Vec::with_capacity(moved.len());
        let mut walk = self.walk(&first.key);
        while let Some((slot, _)) = walk.next_slot() {
            let key = &self.leaves.at(slot).key;
            let passed = rest.iter().take_while(|moved| moved.key < *key).count();
            rest = &rest[passed..];
            match rest.split_first() {
                None => break,
                Some((moved, others)) if moved.key == *key => {
                    found.push((slot, *moved));
                    rest = others;
                }
                Some(_) => {}
            }
        }
        for (slot, Moved { offset, length, .. }) in found {
            Values::move_from(&mut self.leaves.at_mut(slot).value, old, ValuePlace { file, offset }, length);
        }
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        let pages = self.pages.as_ref().map_or(0, Pages::memory_bytes) + self.page_slots.bytes();
        self.inners.bytes()
            + self.links.bytes()
            + self.leaves.bytes()
            + self.values.bytes()
            + self.sizes.bytes()
            + pages
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
            Place::Page(slot) => self.page_slots.prefetch(slot),
            Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) | Place::StagedPage(_) => {}
        }
    }
}
