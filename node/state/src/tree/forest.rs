//! Roots of many small subtrees at once.
//!
//! A subtree alone has few nodes of one height, too few for the wide kernels. The nodes of one height of all subtrees are
//! hashed in one batch.

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, StateHash, key_bit};

use crate::hashing;

/// The leaves below one place of the tree, in key order, and the bits that their keys share there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subtree<'a> {
    pub(crate) leaves: &'a [(Key, Hash)],
    pub(crate) depth: usize,
}

/// R(pairs, depth) of the specification for each subtree.
pub(crate) fn subtree_roots(hash: StateHash, subtrees: &[Subtree<'_>]) -> Vec<Hash> {
    let mut forest = Forest::default();
    let tops: Vec<Top> = subtrees.iter().map(|subtree| forest.grow(subtree.leaves, subtree.depth).0).collect();
    forest.hash(hash);
    tops.into_iter().map(|top| forest.hash_of(top)).collect()
}

/// A node whose hash is known, or one of the forest's.
#[derive(Clone, Copy)]
enum Top {
    Known(Hash),
    Node(u32),
}

#[derive(Default)]
struct Forest {
    nodes: Vec<[Top; 2]>,
    hashes: Vec<Hash>,
    /// The nodes of each height above leaves.
    ranked: Vec<Vec<u32>>,
}

impl Forest {
    /// The subtree over leaves, and its height.
    fn grow(&mut self, leaves: &[(Key, Hash)], depth: usize) -> (Top, usize) {
        match leaves {
            [] => (Top::Known(EMPTY), 0),
            [(_, hash)] => (Top::Known(*hash), 0),
            leaves => {
                let (lower, upper) = leaves.split_at(leaves.partition_point(|(key, _)| !key_bit(key, depth)));
                let (left, left_height) = self.grow(lower, depth + 1);
                let (right, right_height) = self.grow(upper, depth + 1);
                let height = left_height.max(right_height);
                let index = u32::try_from(self.nodes.len()).expect("a batch of bounded bytes has few nodes");
                self.nodes.push([left, right]);
                if self.ranked.len() == height {
                    self.ranked.push(Vec::new());
                }
                self.ranked[height].push(index);
                (Top::Node(index), height + 1)
            }
        }
    }

    fn hash(&mut self, hash: StateHash) {
        self.hashes.resize(self.nodes.len(), EMPTY);
        let mut children = Vec::new();
        for ranked in std::mem::take(&mut self.ranked) {
            children.clear();
            children.extend(ranked.iter().map(|index| self.nodes[*index as usize].map(|child| self.hash_of(child))));
            for (index, hash) in ranked.into_iter().zip(hashing::nodes(hash, &children)) {
                self.hashes[index as usize] = hash;
            }
        }
    }

    fn hash_of(&self, top: Top) -> Hash {
        match top {
            Top::Known(hash) => hash,
            Top::Node(index) => self.hashes[index as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use stele_merkle::state::reference::ReferenceMap;

    use super::*;

    #[test]
    fn the_roots_are_those_of_the_reference_at_every_depth() {
        for hash in [StateHash::Sha256, StateHash::Sm3] {
            let forests: Vec<(Vec<(Key, Hash)>, Hash)> = [0_u8, 1, 2, 3, 17, 60]
                .into_iter()
                .map(|count| {
                    let mut map = ReferenceMap::new(hash);
                    (0..count).for_each(|at| map.set(hash.value(&[at, count]), Some(vec![at])));
                    let leaves = map.pairs().iter().map(|(key, value)| (*key, hash.leaf(key, &hash.value(value))));
                    (leaves.collect(), map.root())
                })
                .collect();
            let whole: Vec<_> = forests.iter().map(|(leaves, _)| Subtree { leaves, depth: 0 }).collect();
            let roots: Vec<Hash> = forests.iter().map(|(_, root)| *root).collect();
            assert_eq!(subtree_roots(hash, &whole), roots);
            for (leaves, root) in forests.iter().filter(|(leaves, _)| leaves.len() > 1) {
                let (lower, upper) = leaves.split_at(leaves.partition_point(|(key, _)| !key_bit(key, 0)));
                let sides = [lower, upper].map(|leaves| Subtree { leaves, depth: 1 });
                let sides = subtree_roots(hash, &sides);
                assert_eq!(hash.node(&sides[0], &sides[1]), *root);
            }
        }
    }
}
