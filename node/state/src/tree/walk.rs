//! Walking all leaves in key order.

use stele_merkle::state::Key;

use super::{NodeRef, Place, Tree};

/// A position in a walk over the leaves below a root. It borrows nothing, so a walk can be interrupted by commits as
/// long as its root is retained.
#[derive(Debug)]
pub(crate) struct Walk {
    pending: Vec<NodeRef>,
}

impl Walk {
    pub(crate) fn new(root: NodeRef) -> Self {
        Self { pending: vec![root] }
    }

    /// The next pair in key order.
    pub(crate) fn next<'a>(&mut self, tree: &'a Tree) -> Option<(&'a Key, &'a [u8])> {
        loop {
            match self.pending.pop()?.place() {
                Place::Inner(slot) => {
                    let inner = tree.inners.at(slot);
                    self.pending.push(inner.right.node);
                    self.pending.push(inner.left.node);
                }
                Place::Leaf(slot) => {
                    let leaf = tree.leaves.at(slot);
                    return Some((&leaf.key, tree.value(leaf)));
                }
                Place::Empty | Place::StagedInner(_) | Place::StagedLeaf(_) => {}
            }
        }
    }
}
