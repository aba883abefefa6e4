//! The specification as code: a map that recomputes everything from the set of pairs.
//!
//! It is the model that engines are tested against, and it lets an auditor compute a root from a plain list of keys and
//! values without any engine. It is slow: every root hashes the whole set.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{
    EMPTY, Key, KeyRange, MultiProof, MultiProofWriter, Proof, RangeEnd, RangeProof, StateHash, Terminal, key_bit,
};
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

    /// The proof that a range holds the pairs that it holds.
    #[must_use]
    pub fn prove_range(&self, range: KeyRange) -> RangeProof {
        let (leaves, path) = (self.leaves(), range.first());
        let (mut rest, mut siblings) = (leaves.as_slice(), Vec::new());
        while rest.len() > 1 && siblings.len() < usize::from(range.depth()) {
            let depth = siblings.len();
            let (left, right) = split(rest, depth);
            let (own, other) = if key_bit(&path, depth) { (right, left) } else { (left, right) };
            let sibling = subtree(self.hash, other, depth + 1);
            siblings.push((sibling != EMPTY).then_some(sibling));
            rest = own;
        }
        let end = match rest {
            [] => RangeEnd::Empty,
            [(key, _)] if range.contains(key) => RangeEnd::Own,
            [(key, value)] => RangeEnd::Other { key: **key, value_hash: self.hash.value(value) },
            _ => RangeEnd::Subtree,
        };
        RangeProof::new(end, siblings).expect("a path through a real tree is canonical")
    }

    /// The proof of the values or absences of keys in strictly ascending order, one at least.
    #[must_use]
    pub fn prove_many(&self, keys: &[Key]) -> MultiProof {
        let mut writer = MultiProofWriter::default();
        self.write_paths(&mut writer, &self.leaves(), keys, 0);
        writer.finish().expect("a walk through a real tree is canonical")
    }

    fn write_paths(&self, writer: &mut MultiProofWriter, leaves: &[Leaf<'_>], keys: &[Key], depth: usize) {
        match leaves {
            [] => writer.nothing(),
            [(key, _)] if keys.binary_search(key).is_ok() => writer.own(),
            [(key, value)] => writer.other(key, &self.hash.value(value)),
            leaves => {
                let (left, right) = split(leaves, depth);
                let (left_keys, right_keys) = keys.split_at(keys.partition_point(|key| !key_bit(key, depth)));
                match (left_keys.is_empty(), right_keys.is_empty()) {
                    (false, false) => {
                        writer.fork();
                        self.write_paths(writer, left, left_keys, depth + 1);
                        self.write_paths(writer, right, right_keys, depth + 1);
                    }
                    (true, _) => {
                        writer.beside(&subtree(self.hash, left, depth + 1));
                        self.write_paths(writer, right, right_keys, depth + 1);
                    }
                    (false, true) => {
                        writer.beside(&subtree(self.hash, right, depth + 1));
                        self.write_paths(writer, left, left_keys, depth + 1);
                    }
                }
            }
        }
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
