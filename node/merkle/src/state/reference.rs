//! The specification as code: a map that recomputes everything from the set of pairs.
//!
//! It is the model that engines are tested against, and it lets an auditor compute a root from a plain list of keys and
//! values without any engine. It is slow: every root hashes the whole set.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{EMPTY, Key, Proof, StateHash, Terminal, key_bit};
use crate::Hash;

type Leaf<'a> = (&'a Key, &'a [u8]);

/// A set of (key, value) pairs with the root and the proofs of the state tree's rules.
#[derive(Clone, Debug)]
pub struct ReferenceMap {
    hash: StateHash,
    pairs: BTreeMap<Key, Vec<u8>>,
}

impl ReferenceMap {
    /// The empty map.
    #[must_use]
    pub fn new(hash: StateHash) -> Self {
        Self { hash, pairs: BTreeMap::new() }
    }

    /// Sets a key's value, or deletes the key.
    pub fn set(&mut self, key: Key, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.pairs.insert(key, value),
            None => self.pairs.remove(&key),
        };
    }

    /// The pairs in key order.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<Key, Vec<u8>> {
        &self.pairs
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&[u8]> {
        self.pairs.get(key).map(Vec::as_slice)
    }

    /// The root of the set.
    #[must_use]
    pub fn root(&self) -> Hash {
        subtree(self.hash, &self.leaves(), 0)
    }

    /// The proof of a key's value or absence.
    #[must_use]
    pub fn prove(&self, key: &Key) -> Proof {
        let leaves = self.leaves();
        let (mut rest, mut siblings) = (leaves.as_slice(), Vec::new());
        while rest.len() > 1 {
            let depth = siblings.len();
            let (left, right) = split(rest, depth);
            let (own, other) = if key_bit(key, depth) { (right, left) } else { (left, right) };
            let sibling = subtree(self.hash, other, depth + 1);
            siblings.push((sibling != EMPTY).then_some(sibling));
            rest = own;
        }
        let terminal = match rest {
            [] => Terminal::Empty,
            [(own, _), ..] if *own == key => Terminal::Own,
            [(other, value), ..] => Terminal::Other { key: **other, value_hash: self.hash.value(value) },
        };
        Proof::new(terminal, siblings).expect("a path through a real tree is canonical")
    }

    fn leaves(&self) -> Vec<Leaf<'_>> {
        self.pairs.iter().map(|(key, value)| (key, value.as_slice())).collect()
    }
}

/// R(set, depth) of the specification, for pairs in key order that share their first `depth` bits.
fn subtree(hash: StateHash, leaves: &[Leaf<'_>], depth: usize) -> Hash {
    match leaves {
        [] => EMPTY,
        [(key, value)] => hash.leaf(key, &hash.value(value)),
        leaves => {
            let (left, right) = split(leaves, depth);
            hash.node(&subtree(hash, left, depth + 1), &subtree(hash, right, depth + 1))
        }
    }
}

fn split<'a>(leaves: &'a [Leaf<'_>], depth: usize) -> (&'a [Leaf<'a>], &'a [Leaf<'a>]) {
    leaves.split_at(leaves.partition_point(|(key, _)| !key_bit(key, depth)))
}
