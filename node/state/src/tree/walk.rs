//! Walking the newest tree's leaves in key order.

use stele_merkle::Hash;
use stele_merkle::state::{Key, key_bit};

use super::{Child, Leaf, Place, Side, Tree};

/// A walk over leaves, from a key on.
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    pending: Vec<Child>,
}

impl Tree {
    /// The leaves whose keys are at or above `from`, in key order.
    pub(crate) fn walk(&self, from: &Key) -> Walk<'_> {
        let (mut pending, mut child) = (Vec::new(), self.root);
        for depth in 0.. {
            match child.node.place() {
                Place::Inner(slot) => {
                    let inner = self.inners.at(slot);
                    if key_bit(from, depth) {
                        child = inner.right;
                    } else {
                        pending.push(inner.right);
                        child = inner.left;
                    }
                }
                Place::Link(side, slot) => match (side, key_bit(from, depth)) {
                    (Side::Right, true) | (Side::Left, false) => child = *self.links.at(slot),
                    (Side::Right, false) => {
                        pending.push(*self.links.at(slot));
                        break;
                    }
                    (Side::Left, true) => break,
                },
                Place::Leaf(slot) => {
                    if self.leaves.at(slot).key >= *from {
                        pending.push(child);
                    }
                    break;
                }
                Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) => break,
            }
        }
        Walk { tree: self, pending }
    }
}

impl Walk<'_> {
    /// The slot of the next leaf, and its hash.
    pub(super) fn next_slot(&mut self) -> Option<(u32, Hash)> {
        loop {
            let child = self.pending.pop()?;
            match child.node.place() {
                Place::Inner(slot) => {
                    let inner = self.tree.inners.at(slot);
                    self.tree.prefetch(inner.right.node);
                    self.pending.push(inner.right);
                    self.pending.push(inner.left);
                }
                Place::Link(_, slot) => self.pending.push(*self.tree.links.at(slot)),
                Place::Leaf(slot) => return Some((slot, child.hash)),
                Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) => {}
            }
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    /// A leaf, and its hash.
    type Item = (&'a Leaf, Hash);

    fn next(&mut self) -> Option<Self::Item> {
        let (slot, hash) = self.next_slot()?;
        Some((self.tree.leaves.at(slot), hash))
    }
}
