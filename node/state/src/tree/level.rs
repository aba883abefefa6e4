//! One group of writes, down the tree and up again, a whole level at a time.
//!
//! Going down, the nodes of the next level are asked for while those of this level are read, so their loads overlap; a
//! descent key by key would wait for each. Going up, all changed nodes of a level are hashed in one batch.

use stele_merkle::Hash;
use stele_merkle::state::key_bit;

use super::stage::{Batch, Settled, position};
use super::{Child, Inner, NodeRef, Place, Side};
use crate::hashing;

/// Lists that live as long as a batch, to save allocations.
#[derive(Default)]
pub(super) struct Scratch {
    levels: Vec<Vec<Visit>>,
    ends: Vec<End>,
    pairs: Vec<[Hash; 2]>,
    unhashed: Vec<(u32, NodeRef)>,
}

/// A node on the path of some writes.
struct Visit {
    node: NodeRef,
    parent: Parent,
    /// Its writes: position of the first, and how many.
    first: u32,
    count: u32,
    /// Its children, as they are and later as they become.
    left: Child,
    right: Child,
    changed: [bool; 2],
}

/// A leaf or an empty place on the path of some writes.
struct End {
    child: Child,
    /// Level of the parent.
    level: u32,
    parent: Parent,
    first: u32,
    count: u32,
}

/// Which visit of the level above led here, and by which side.
#[derive(Clone, Copy)]
struct Parent {
    visit: u32,
    side: Side,
}

impl Batch<'_> {
    /// What takes the place of `child` after a group of writes.
    pub(super) fn group(&mut self, child: Child, depth: usize, first: usize, count: usize) -> Child {
        self.begin_group(first, count);
        if !matches!(child.node.place(), Place::Inner(_) | Place::Link(..)) {
            let planted = self.plant(child, depth, first, count);
            self.hash_grown();
            return self.hashed(planted);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let depths = self.descend(&mut scratch, child, depth, first, count);
        for at in 0..scratch.ends.len() {
            let End { child, level, first, count, .. } = scratch.ends[at];
            scratch.ends[at].child = self.plant(child, depth + level as usize + 1, first as usize, count as usize);
        }
        self.hash_grown();
        for End { child, level, parent, .. } in &scratch.ends {
            deliver(&mut scratch.levels[*level as usize], *parent, self.hashed(*child));
        }
        let changed = self.ascend(&mut scratch, depths, child, depth);
        self.scratch = scratch;
        changed
    }

    /// Follows the writes down to leaves and empty places; returns the number of levels.
    fn descend(&self, scratch: &mut Scratch, child: Child, depth: usize, first: usize, count: usize) -> usize {
        scratch.ends.clear();
        if scratch.levels.is_empty() {
            scratch.levels.push(Vec::new());
        }
        scratch.levels[0].clear();
        let parent = Parent { visit: 0, side: Side::Left };
        scratch.levels[0].push(Visit::new(child.node, parent, position(first), position(count)));
        for level in 0.. {
            if scratch.levels.len() == level + 1 {
                scratch.levels.push(Vec::new());
            }
            let (above, below) = scratch.levels.split_at_mut(level + 1);
            let (visits, next) = (&mut above[level], &mut below[0]);
            next.clear();
            for (at, visit) in visits.iter_mut().enumerate() {
                (visit.left, visit.right) = match visit.node.place() {
                    Place::Inner(slot) => {
                        let Inner { left, right } = *self.tree.inners.at(slot);
                        (left, right)
                    }
                    Place::Link(Side::Left, slot) => (*self.tree.links.at(slot), Child::EMPTY),
                    Place::Link(Side::Right, slot) => (Child::EMPTY, *self.tree.links.at(slot)),
                    Place::Empty
                    | Place::Leaf(_)
                    | Place::Page(_)
                    | Place::StagedLeaf(_)
                    | Place::StagedNode(_)
                    | Place::StagedPage(_) => continue,
                };
                let writes = &self.writes[visit.first as usize..(visit.first + visit.count) as usize];
                let lower = position(writes.partition_point(|(key, _)| !key_bit(key, depth + level)));
                for (side, child, first, count) in [
                    (Side::Left, visit.left, visit.first, lower),
                    (Side::Right, visit.right, visit.first + lower, visit.count - lower),
                ] {
                    if count == 0 {
                        continue;
                    }
                    self.tree.prefetch(child.node);
                    let parent = Parent { visit: position(at), side };
                    if matches!(child.node.place(), Place::Inner(_) | Place::Link(..)) {
                        next.push(Visit::new(child.node, parent, first, count));
                    } else {
                        scratch.ends.push(End { child, level: position(level), parent, first, count });
                    }
                }
            }
            if next.is_empty() {
                return level + 1;
            }
        }
        unreachable!("a path has at most 256 levels")
    }

    /// Settles the visited nodes bottom-up; returns what takes the place of the first.
    fn ascend(&mut self, scratch: &mut Scratch, depths: usize, top: Child, depth: usize) -> Child {
        for level in (0..depths).rev() {
            let (above, visits) = scratch.levels.split_at_mut(level);
            let (mut parents, visits) = (above.last_mut(), &visits[0]);
            let mut result = None;
            let mut send = |visit: &Visit, child: Child| match &mut parents {
                Some(parents) => deliver(parents, visit.parent, child),
                None => result = Some(child),
            };
            scratch.pairs.clear();
            scratch.unhashed.clear();
            for (at, visit) in visits.iter().enumerate().filter(|(_, visit)| visit.changed != [false, false]) {
                match self.settle(visit.node, visit.left, visit.right, visit.changed, depth + level) {
                    Settled::Done(child) => send(visit, child),
                    Settled::Unhashed(node) => {
                        scratch.unhashed.push((position(at), node));
                        scratch.pairs.push([visit.left.hash, visit.right.hash]);
                    }
                }
            }
            let hashes = hashing::nodes(self.tree.hash, &scratch.pairs);
            for ((at, node), hash) in scratch.unhashed.iter().zip(hashes) {
                send(&visits[*at as usize], Child { node: *node, hash });
            }
            if level == 0 {
                return result.unwrap_or(top);
            }
        }
        top
    }
}

impl Visit {
    const fn new(node: NodeRef, parent: Parent, first: u32, count: u32) -> Self {
        Self { node, parent, first, count, left: Child::EMPTY, right: Child::EMPTY, changed: [false, false] }
    }
}

/// Gives a visit of the level above its new child.
fn deliver(parents: &mut [Visit], parent: Parent, child: Child) {
    let visit = &mut parents[parent.visit as usize];
    let (place, changed) = match parent.side {
        Side::Left => (&mut visit.left, 0),
        Side::Right => (&mut visit.right, 1),
    };
    if *place != child {
        *place = child;
        visit.changed[changed] = true;
    }
}
