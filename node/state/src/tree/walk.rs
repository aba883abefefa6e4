//! Walking the newest tree's leaves in key order.

use stele_merkle::state::{Key, key_bit};

use super::{NodeRef, Place, Side, Tree};
use crate::values::ValueRef;

/// A walk over leaves, from a key on.
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    pending: Vec<NodeRef>,
}

impl Tree {
    /// The leaves whose keys are at or above `from`, in key order.
    pub(crate) fn walk(&self, from: &Key) -> Walk<'_> {
        let (mut pending, mut node) = (Vec::new(), self.root.node);
        for depth in 0.. {
            match node.place() {
                Place::Inner(slot) => {
                    let inner = self.inners.at(slot);
                    if key_bit(from, depth) {
                        node = inner.right.node;
                    } else {
                        pending.push(inner.right.node);
                        node = inner.left.node;
                    }
                }
                Place::Link(side, slot) => match (side, key_bit(from, depth)) {
                    (Side::Right, true) | (Side::Left, false) => node = self.links.at(slot).node,
                    (Side::Right, false) => {
                        pending.push(self.links.at(slot).node);
                        break;
                    }
                    (Side::Left, true) => break,
                },
                Place::Leaf(slot) => {
                    if self.leaves.at(slot).key >= *from {
                        pending.push(node);
                    }
                    break;
                }
                Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) => break,
            }
        }
        Walk { tree: self, pending }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a Key, ValueRef);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.pending.pop()?.place() {
                Place::Inner(slot) => {
                    let inner = self.tree.inners.at(slot);
                    self.tree.prefetch(inner.right.node);
                    self.pending.push(inner.right.node);
                    self.pending.push(inner.left.node);
                }
                Place::Link(_, slot) => self.pending.push(self.tree.links.at(slot).node),
                Place::Leaf(slot) => {
                    let leaf = self.tree.leaves.at(slot);
                    return Some((&leaf.key, leaf.value));
                }
                Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) => {}
            }
        }
    }
}
