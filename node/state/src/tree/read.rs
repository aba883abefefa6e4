//! Looking up and proving under any retained root.

use stele_merkle::state::{Key, Proof, Terminal, key_bit};

use super::{Leaf, NodeRef, Place, Tree};

impl Tree {
    /// The value of a key under a root.
    pub(crate) fn get(&self, root: NodeRef, key: &Key) -> Option<&[u8]> {
        let leaf = self.descend(root, key, |_| {})?;
        (leaf.key == *key).then_some(&*leaf.value)
    }

    /// The value of a key under a root and the proof of its presence or absence.
    pub(crate) fn prove(&self, root: NodeRef, key: &Key) -> (Option<&[u8]>, Proof) {
        let mut siblings = Vec::new();
        let leaf = self.descend(root, key, |sibling| {
            siblings.push((sibling != NodeRef::EMPTY).then(|| self.node_hash(sibling)));
        });
        let (value, terminal) = match leaf {
            None => (None, Terminal::Empty),
            Some(leaf) if leaf.key == *key => (Some(&*leaf.value), Terminal::Own),
            Some(leaf) => (None, Terminal::Other { key: leaf.key, value_hash: self.hash.value(&leaf.value) }),
        };
        (value, Proof::new(terminal, siblings).expect("a path through the tree is canonical"))
    }

    /// Follows a key's bits to where they end, showing each sibling on the way.
    fn descend(&self, root: NodeRef, key: &Key, mut sibling: impl FnMut(NodeRef)) -> Option<&Leaf> {
        let (mut node, mut depth) = (root, 0);
        loop {
            match node.place() {
                Place::Inner(slot) => {
                    let inner = self.inners.at(slot);
                    let (own, other) =
                        if key_bit(key, depth) { (inner.right, inner.left) } else { (inner.left, inner.right) };
                    sibling(other);
                    node = own;
                    depth += 1;
                }
                Place::Leaf(slot) => return Some(self.leaves.at(slot)),
                Place::Empty | Place::StagedInner(_) | Place::StagedLeaf(_) => return None,
            }
        }
    }
}
