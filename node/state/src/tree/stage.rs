//! Staging: from sorted writes to what changes in the tree.
//!
//! Large batches are divided at the top of the tree into groups of some hundred writes, small enough that everything
//! about a group stays in a core's caches; with several threads, into one part for each before. A group goes down and up
//! level by level (`level.rs`).

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, key_bit};

use super::page::NewPage;
use super::undo::Retired;
use super::{Child, Inner, NodeRef, Place, Side, Slot, Tree};
use crate::arena::SLOTS_MAX;
use crate::pages::Loaded;
use crate::{StateError, Write, hashing};

/// Writes of a group.
const GROUP_WRITES_MAX: usize = 512;

/// Writes of a part that is worth a thread of its own.
const PART_WRITES_MIN: usize = 2048;

/// Places that one write changes in a large map with large batches; a guess that saves reallocations.
const CHANGES_PER_WRITE: usize = 11;

/// The difference between the newest tree and the one after a batch.
#[derive(Debug)]
pub(crate) struct Update {
    /// Places of nodes that stay, with their new children.
    pub(super) children: Vec<(Slot, Child)>,
    /// Leaves that stay, with the position of the write that has their new value.
    pub(super) values: Vec<(u32, u32)>,
    /// New leaves: key and position of the write.
    pub(super) leaves: Vec<(Key, u32)>,
    /// New nodes, children before their parents.
    pub(super) nodes: Vec<NewNode>,
    /// New pages; `None` for one that did not last to the end of the batch.
    pub(super) pages: Vec<Option<NewPage>>,
    pub(super) retired: Retired,
    pub(super) root: Child,
    pub(super) generation: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum NewNode {
    Inner(Inner),
    Link(Side, Child),
}

impl Update {
    pub(crate) fn root_hash(&self) -> Hash {
        self.root.hash
    }

    /// The tree that the update belongs on.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Places and nodes that change.
    pub(crate) fn changes(&self) -> usize {
        self.children.len() + self.values.len() + self.leaves.len() + self.nodes.len() + self.pages.len()
    }
}

impl Tree {
    /// Stages writes whose keys are strictly ascending, on up to `threads` threads.
    ///
    /// # Errors
    /// [`StateError::Full`] when the arenas could not hold the new nodes beside all that are retained; those of reading
    /// pages.
    pub(crate) fn stage(&self, writes: &[Write], threads: usize) -> Result<Update, StateError> {
        let loaded = self.load_touched(writes.iter().map(|(key, _)| key))?;
        let mut batch = Batch::new(self, &loaded, writes, 0);
        batch.children.reserve(writes.len() * CHANGES_PER_WRITE);
        if self.pages.is_none() {
            batch.values.reserve(writes.len());
        }
        let root = if writes.is_empty() { self.root } else { batch.part(self.root, 0, writes.len(), threads) };
        let nodes = batch.nodes.len();
        let leaves = self.leaves.used() + batch.leaves.len();
        let pages = self.page_slots.used() + batch.pages.len();
        let most = (self.inners.used().max(self.links.used()) + nodes).max(leaves).max(pages);
        if let Some(error) = batch.failure {
            return Err(error);
        }
        if most > SLOTS_MAX {
            return Err(StateError::Full { nodes: most });
        }
        Ok(Update {
            children: batch.children,
            values: batch.values,
            leaves: batch.leaves,
            nodes: batch.nodes,
            pages: batch.pages,
            retired: batch.retired,
            root,
            generation: self.generation,
        })
    }
}

/// A batch, or one thread's part of it, in the making.
pub(crate) struct Batch<'a> {
    pub(super) tree: &'a Tree,
    /// The pages that the whole batch touches.
    pub(super) loaded: &'a Loaded,
    pub(super) writes: &'a [Write],
    /// Position of the first of `writes` in the whole batch.
    first: usize,
    pub(super) children: Vec<(Slot, Child)>,
    values: Vec<(u32, u32)>,
    leaves: Vec<(Key, u32)>,
    nodes: Vec<NewNode>,
    pub(super) pages: Vec<Option<NewPage>>,
    pub(super) retired: Retired,
    /// A page that could not be read.
    pub(super) failure: Option<StateError>,
    /// Hashes of the leaves that the current group's writes make, zeros for deletions.
    pub(super) leaf_hashes: Vec<Hash>,
    /// Position of the current group's first write.
    pub(super) group_first: usize,
    pub(super) grown: Grown,
    pub(super) scratch: super::level::Scratch,
}

/// New nodes above new leaves, whose hashes are made together, all of one height at a time.
#[derive(Default)]
pub(super) struct Grown {
    /// Position of the first in the batch's nodes.
    first: usize,
    /// For each its height above leaves and unchanged nodes.
    ranks: Vec<u16>,
    /// The nodes of each height.
    ranked: Vec<Vec<u32>>,
    hashes: Vec<Hash>,
    /// Leaves that stand below one place after the batch; kept to save allocations.
    standing: Vec<(Key, Child)>,
    /// Position of the group's first new page in the batch's, and their hashes.
    pub(super) first_page: usize,
    pub(super) page_hashes: Vec<Hash>,
}

impl<'a> Batch<'a> {
    fn new(tree: &'a Tree, loaded: &'a Loaded, writes: &'a [Write], first: usize) -> Self {
        Self {
            tree,
            loaded,
            writes,
            first,
            children: Vec::new(),
            values: Vec::new(),
            leaves: Vec::new(),
            nodes: Vec::new(),
            pages: Vec::new(),
            retired: Retired::default(),
            failure: None,
            leaf_hashes: Vec::new(),
            group_first: 0,
            grown: Grown::default(),
            scratch: super::level::Scratch::default(),
        }
    }

    /// What takes the place of `child` after all writes, with their work divided over threads.
    fn part(&mut self, child: Child, depth: usize, count: usize, threads: usize) -> Child {
        let Place::Inner(slot) = child.node.place() else { return self.divide(child, depth, 0, count) };
        if threads < 2 || count < 2 * PART_WRITES_MIN {
            return self.divide(child, depth, 0, count);
        }
        let Inner { left, right } = *self.tree.inners.at(slot);
        let middle = self.writes.partition_point(|(key, _)| !key_bit(key, depth));
        let (lower, upper) = self.writes.split_at(middle);
        let (tree, loaded, first) = (self.tree, self.loaded, self.first);
        let run = |child, writes: &'a [Write], first, threads| {
            let mut batch = Batch::new(tree, loaded, writes, first);
            let child = if writes.is_empty() { child } else { batch.part(child, depth + 1, writes.len(), threads) };
            (batch, child)
        };
        let (low, high) = std::thread::scope(|scope| {
            let high = scope.spawn(|| run(right, upper, first + middle, threads / 2));
            let low = run(left, lower, first, threads - threads / 2);
            (low, high.join())
        });
        let high = high.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let new_left = self.adopt(low.0, low.1);
        let new_right = self.adopt(high.0, high.1);
        self.renew(child, (left, new_left), (right, new_right), depth)
    }

    /// Takes over what a part found.
    fn adopt(&mut self, part: Batch<'_>, child: Child) -> Child {
        let leaves = position(self.leaves.len());
        let nodes = position(self.nodes.len());
        let pages = position(self.pages.len());
        let moved = |child: Child| {
            let node = match child.node.place() {
                Place::StagedLeaf(index) => NodeRef::staged_leaf(index + leaves),
                Place::StagedNode(index) => NodeRef::staged_node(index + nodes),
                Place::StagedPage(index) => NodeRef::staged_page(index + pages),
                _ => child.node,
            };
            Child { node, hash: child.hash }
        };
        self.children.extend(part.children.into_iter().map(|(slot, child)| (slot, moved(child))));
        self.values.extend(part.values);
        self.leaves.extend(part.leaves);
        self.nodes.extend(part.nodes.into_iter().map(|node| match node {
            NewNode::Inner(Inner { left, right }) => NewNode::Inner(Inner { left: moved(left), right: moved(right) }),
            NewNode::Link(side, child) => NewNode::Link(side, moved(child)),
        }));
        self.retired.inners.extend(part.retired.inners);
        self.retired.links.extend(part.retired.links);
        self.pages.extend(part.pages);
        self.retired.leaves.extend(part.retired.leaves);
        self.retired.pages.extend(part.retired.pages);
        self.failure = self.failure.take().or(part.failure);
        moved(child)
    }

    /// What takes the place of `child` after some writes, of which there is at least one: `child` itself when they change
    /// nothing. The recursion ends at groups.
    fn divide(&mut self, child: Child, depth: usize, first: usize, count: usize) -> Child {
        let Place::Inner(slot) = child.node.place() else { return self.group(child, depth, first, count) };
        if count <= GROUP_WRITES_MAX {
            return self.group(child, depth, first, count);
        }
        let Inner { left, right } = *self.tree.inners.at(slot);
        let lower = self.writes[first..first + count].partition_point(|(key, _)| !key_bit(key, depth));
        let new_left = if lower == 0 { left } else { self.divide(left, depth + 1, first, lower) };
        let new_right =
            if lower == count { right } else { self.divide(right, depth + 1, first + lower, count - lower) };
        self.renew(child, (left, new_left), (right, new_right), depth)
    }

    /// What takes the place of a node with two children, given as before and after.
    fn renew(&mut self, child: Child, left: (Child, Child), right: (Child, Child), depth: usize) -> Child {
        let changed = [left.0 != left.1, right.0 != right.1];
        if changed == [false, false] {
            return child;
        }
        match self.settle(child.node, left.1, right.1, changed, depth) {
            Settled::Done(child) => child,
            Settled::Unhashed(node) => {
                let hashes = hashing::nodes(self.tree.hash, &[[left.1.hash, right.1.hash]]);
                Child { node, hash: hashes[0] }
            }
        }
    }

    /// What takes the place of a node at a depth whose children are now these.
    pub(super) fn settle(
        &mut self,
        node: NodeRef,
        left: Child,
        right: Child,
        changed: [bool; 2],
        depth: usize,
    ) -> Settled {
        let merged = self.merge(left, right, depth);
        let same = match (node.place(), left.is_empty(), right.is_empty()) {
            _ if merged.is_some() => false,
            (Place::Inner(slot), false, false) => {
                let sides = [(Side::Left, left), (Side::Right, right)];
                for ((side, child), changed) in sides.into_iter().zip(changed) {
                    if changed {
                        self.children.push((Slot::inner(side, slot), child));
                    }
                }
                true
            }
            (Place::Link(Side::Left, slot), false, true) if !self.is_lone(left) => {
                self.children.push((Slot::link(slot), left));
                true
            }
            (Place::Link(Side::Right, slot), true, false) if !self.is_lone(right) => {
                self.children.push((Slot::link(slot), right));
                true
            }
            _ => false,
        };
        if same {
            return Settled::Unhashed(node);
        }
        match node.place() {
            Place::Inner(slot) => self.retired.inners.push(slot),
            Place::Link(_, slot) => self.retired.links.push(slot),
            _ => {}
        }
        match merged {
            Some(page) => Settled::Done(page),
            None => self.join(left, right, depth),
        }
    }

    /// The node at a depth over two children: none over nothing, and a single leaf moves up instead.
    fn join(&mut self, left: Child, right: Child, depth: usize) -> Settled {
        let node = match (left.is_empty(), right.is_empty()) {
            (true, true) => return Settled::Done(Child::EMPTY),
            (false, true) if self.is_lone(left) => return Settled::Done(self.lift(left, depth)),
            (true, false) if self.is_lone(right) => return Settled::Done(self.lift(right, depth)),
            (false, true) => NewNode::Link(Side::Left, left),
            (true, false) => NewNode::Link(Side::Right, right),
            (false, false) => NewNode::Inner(Inner { left, right }),
        };
        self.nodes.push(node);
        Settled::Unhashed(NodeRef::staged_node(position(self.nodes.len() - 1)))
    }

    /// Begins a group: hashes the leaves that its writes make.
    pub(super) fn begin_group(&mut self, first: usize, count: usize) {
        let writes = &self.writes[first..first + count];
        self.group_first = first;
        self.grown.first = self.nodes.len();
        self.grown.first_page = self.pages.len();
        self.leaf_hashes.clear();
        self.leaf_hashes.resize(count, EMPTY);
        hashing::leaves_into(self.tree.hash, writes, &mut self.leaf_hashes);
    }

    /// Applies writes at a place that holds one leaf or none. The hashes of new nodes are filled in by
    /// [`Batch::hash_grown`].
    pub(super) fn plant(&mut self, child: Child, depth: usize, first: usize, count: usize) -> Child {
        if self.tree.pages.is_some() {
            return self.replant(child, depth, first, count);
        }
        if let (Place::Leaf(slot), 1) = (child.node.place(), count)
            && self.tree.leaves.at(slot).key == self.writes[first].0
        {
            return self.overwrite(child, slot, first);
        }
        let mut standing = std::mem::take(&mut self.grown.standing);
        standing.clear();
        let mut old = match child.node.place() {
            Place::Leaf(slot) => Some((slot, self.tree.leaves.at(slot).key)),
            _ => None,
        };
        for at in first..first + count {
            let (key, value) = &self.writes[at];
            match old {
                Some((_, old_key)) if old_key < *key => {
                    standing.push((old_key, child));
                    old = None;
                }
                Some((slot, old_key)) if old_key == *key => {
                    let kept = self.overwrite(child, slot, at);
                    if !kept.is_empty() {
                        standing.push((old_key, kept));
                    }
                    old = None;
                    continue;
                }
                _ => {}
            }
            if value.is_some() {
                let leaf = NodeRef::staged_leaf(position(self.leaves.len()));
                self.leaves.push((*key, position(self.first + at)));
                standing.push((*key, Child { node: leaf, hash: self.leaf_hashes[at - self.group_first] }));
            }
        }
        if let Some((_, old_key)) = old {
            standing.push((old_key, child));
        }
        let grown = self.grow(&standing, depth);
        self.grown.standing = standing;
        grown
    }

    /// The leaf with the value of a write for its key, or nothing when that deletes it.
    fn overwrite(&mut self, child: Child, slot: u32, at: usize) -> Child {
        if self.writes[at].1.is_none() {
            self.retired.leaves.push(slot);
            return Child::EMPTY;
        }
        let hash = self.leaf_hashes[at - self.group_first];
        // The same value again changes nothing.
        if hash != child.hash {
            self.values.push((slot, position(self.first + at)));
        }
        Child { node: child.node, hash }
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
                self.add(left, right, depth)
            }
        }
    }

    /// A new node at a depth over leaves, hashed later.
    pub(super) fn add(&mut self, left: Child, right: Child, depth: usize) -> Child {
        let rank = |child: Child| match child.node.place() {
            Place::StagedNode(index) => self.grown.ranks[index as usize - self.grown.first] + 1,
            _ => 0,
        };
        let rank = rank(left).max(rank(right));
        let Settled::Unhashed(node) = self.join(left, right, depth) else {
            unreachable!("there are two leaves below, so none moves up")
        };
        self.grown.ranks.push(rank);
        let rank = usize::from(rank);
        if rank >= self.grown.ranked.len() {
            self.grown.ranked.push(Vec::new());
        }
        self.grown.ranked[rank].push(position(self.nodes.len() - 1));
        Child { node, hash: EMPTY }
    }

    /// Hashes the group's new nodes over leaves bottom-up, all of one height in one batch.
    pub(super) fn hash_grown(&mut self) {
        self.hash_pages();
        if self.grown.ranks.is_empty() {
            return;
        }
        self.grown.hashes.clear();
        self.grown.hashes.resize(self.grown.ranks.len(), EMPTY);
        let mut pairs: Vec<[Hash; 2]> = Vec::new();
        for rank in 0..self.grown.ranked.len() {
            let ranked = std::mem::take(&mut self.grown.ranked[rank]);
            pairs.clear();
            for index in &ranked {
                let node = match self.nodes[*index as usize] {
                    NewNode::Inner(Inner { left, right }) => {
                        NewNode::Inner(Inner { left: self.hashed(left), right: self.hashed(right) })
                    }
                    NewNode::Link(side, child) => NewNode::Link(side, self.hashed(child)),
                };
                self.nodes[*index as usize] = node;
                pairs.push(match node {
                    NewNode::Inner(Inner { left, right }) => [left.hash, right.hash],
                    NewNode::Link(Side::Left, child) => [child.hash, EMPTY],
                    NewNode::Link(Side::Right, child) => [EMPTY, child.hash],
                });
            }
            for (index, hash) in ranked.iter().zip(hashing::nodes(self.tree.hash, &pairs)) {
                self.grown.hashes[*index as usize - self.grown.first] = hash;
            }
            self.grown.ranked[rank] = ranked;
            self.grown.ranked[rank].clear();
        }
        self.grown.ranks.clear();
    }

    /// A child with its hash, once [`Batch::hash_grown`] has made it.
    pub(super) fn hashed(&self, child: Child) -> Child {
        match child.node.place() {
            Place::StagedNode(index) if index as usize >= self.grown.first => {
                Child { hash: self.grown.hashes[index as usize - self.grown.first], ..child }
            }
            // Of those made later the hash is known.
            Place::StagedPage(index) => {
                let made = (index as usize).checked_sub(self.grown.first_page);
                let hash = made.and_then(|at| self.grown.page_hashes.get(at));
                hash.map_or(child, |hash| Child { hash: *hash, ..child })
            }
            _ => child,
        }
    }
}

/// What takes the place of a node.
pub(super) enum Settled {
    Done(Child),
    /// A node whose hash is that of its children.
    Unhashed(NodeRef),
}

/// A batch is bounded by its bytes, so it never has more new nodes than 29 bits count.
pub(super) fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a batch of bounded bytes has fewer than 2^29 nodes")
}
