//! Looking up and proving under any retained root.

use stele_merkle::state::{Key, Proof, Terminal, key_bit};

use super::{Child, Leaf, NodeRef, Place, Tree};

impl Tree {
    /// The value of a key under a root.
    pub(crate) fn get(&self, root: NodeRef, key: &Key) -> Option<&[u8]> {
        let leaf = self.descend(root, key, |_| {})?;
        (leaf.key == *key).then(|| self.value(leaf))
    }

    /// The value of a key under a root and the proof of its presence or absence.
    pub(crate) fn prove(&self, root: NodeRef, key: &Key) -> (Option<&[u8]>, Proof) {
        let mut siblings = Vec::new();
        let leaf = self.descend(root, key, |sibling| {
            siblings.push((sibling.node != NodeRef::EMPTY).then_some(sibling.hash));
        });
        let (value, terminal) = match leaf {
            None => (None, Terminal::Empty),
            Some(leaf) if leaf.key == *key => (Some(self.value(leaf)), Terminal::Own),
            Some(leaf) => (None, Terminal::Other { key: leaf.key, value_hash: self.hash.value(self.value(leaf)) }),
        };
        (value, Proof::new(terminal, siblings).expect("a path through the tree is canonical"))
    }

    /// Brings the paths of keys below a node into the processor's caches. All paths go down one level at a time: their
    /// loads do not depend on each other, so the processor overlaps them, which a descent key by key cannot.
    pub(crate) fn warm<'a>(&self, node: NodeRef, depth: usize, keys: impl Iterator<Item = &'a Key>) {
        let mut paths: Vec<(&Key, NodeRef)> = keys.map(|key| (key, node)).collect();
        let mut touched = 0_u8;
        for depth in depth.. {
            paths.retain_mut(|(key, node)| match node.place() {
                Place::Inner(slot) => {
                    let inner = self.inners.at(slot);
                    *node = if key_bit(key, depth) { inner.right.node } else { inner.left.node };
                    true
                }
                Place::Leaf(slot) => {
                    touched ^= self.leaves.at(slot).key[0];
                    false
                }
                Place::Empty | Place::StagedInner(_) | Place::StagedLeaf(_) => false,
            });
            if paths.is_empty() {
                break;
            }
        }
        // Otherwise the compiler may see that nothing uses the leaves and leave them alone.
        std::hint::black_box(touched);
    }

    /// Follows a key's bits to where they end, showing each sibling on the way.
    fn descend(&self, root: NodeRef, key: &Key, mut sibling: impl FnMut(&Child)) -> Option<&Leaf> {
        let (mut node, mut depth) = (root, 0);
        loop {
            match node.place() {
                Place::Inner(slot) => {
                    let inner = self.inners.at(slot);
                    let (own, other) =
                        if key_bit(key, depth) { (&inner.right, &inner.left) } else { (&inner.left, &inner.right) };
                    sibling(other);
                    node = own.node;
                    depth += 1;
                }
                Place::Leaf(slot) => return Some(self.leaves.at(slot)),
                Place::Empty | Place::StagedInner(_) | Place::StagedLeaf(_) => return None,
            }
        }
    }
}
