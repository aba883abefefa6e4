//! Proof that some pairs are *all* the pairs whose keys begin with certain bits.
//!
//! A new node fetches a state in pieces, from whoever has them, and trusts none of the senders: each piece is one
//! [`KeyRange`], and its proof leads from the pairs to the root. Adding, dropping or changing a pair changes what it
//! leads to.
//!
//! The proof is the list of siblings from the root down to the node that stands for the range:
//!
//! * two or more pairs: the node at the range's own depth, over exactly these pairs;
//! * one pair or none: the path ends where the proof of a single key would end, at or above the range's depth, at the
//!   pair's own leaf, at nothing, or at a leaf of another range.
//!
//! # Encoding
//!
//! As for a proof of one key (see [`super`]), with one more kind of path end, 3: the subtree of the range. Behind that
//! kind the deepest sibling may be empty, because a subtree of two leaves and more does not move up.

use alloc::vec::Vec;

use super::proof::{Path, decode_path};
use super::{EMPTY, Key, ProofError, StateHash, key_bit, shared_bits};
use crate::Hash;

/// The deepest range: 2^48 of them are more than a map of 2^48 keys needs.
pub const RANGE_DEPTH_MAX: u8 = 48;

/// The longest encoding of a range proof: kind, depth, bitmap, another key's leaf, a sibling on every level.
pub const RANGE_PROOF_BYTES_MAX: usize = 3 + RANGE_DEPTH_MAX as usize / 8 + 64 + RANGE_DEPTH_MAX as usize * 32;

/// All keys whose first `depth` bits are a given number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    depth: u8,
    index: u64,
}

impl KeyRange {
    /// All keys.
    pub const ALL: Self = Self { depth: 0, index: 0 };

    /// The `index`-th of the 2^`depth` ranges of that depth, in key order; `None` when there is no such range.
    #[must_use]
    pub const fn new(depth: u8, index: u64) -> Option<Self> {
        if depth > RANGE_DEPTH_MAX || index >> depth != 0 { None } else { Some(Self { depth, index }) }
    }

    /// The range of a depth that a key lies in; `None` for a depth beyond [`RANGE_DEPTH_MAX`].
    #[must_use]
    pub fn of(key: &Key, depth: u8) -> Option<Self> {
        let top = u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
        Self::new(depth, if depth == 0 { 0 } else { top >> (64 - u32::from(depth)) })
    }

    /// Bits that all keys of the range share.
    #[must_use]
    pub const fn depth(self) -> u8 {
        self.depth
    }

    /// Those bits as a number: the position of the range among all of its depth.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.index
    }

    /// The lowest key of the range.
    #[must_use]
    pub fn first(self) -> Key {
        let mut key = [0; 32];
        if self.depth > 0 {
            key[..8].copy_from_slice(&(self.index << (64 - u32::from(self.depth))).to_be_bytes());
        }
        key
    }

    /// Whether a key lies in the range.
    #[must_use]
    pub fn contains(self, key: &Key) -> bool {
        shared_bits(&self.first(), key) >= usize::from(self.depth)
    }
}

/// What a range holds, as far as its proof needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeContent {
    /// No pair.
    Empty,
    /// One pair.
    One {
        /// Its key.
        key: Key,
        /// H(0x02 ‖ value).
        value_hash: Hash,
    },
    /// Two pairs or more.
    Many {
        /// R(pairs, depth of the range).
        root: Hash,
    },
}

impl RangeContent {
    /// The content of a range from its pairs, with portable code; engines hash in bulk and build it themselves.
    ///
    /// # Errors
    /// [`ProofError::Range`] when keys are not strictly ascending or one lies outside the range.
    pub fn of(hash: StateHash, range: KeyRange, pairs: &[(Key, &[u8])]) -> Result<Self, ProofError> {
        let ascending = pairs.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending || !pairs.iter().all(|(key, _)| range.contains(key)) {
            return Err(ProofError::Range);
        }
        Ok(match pairs {
            [] => Self::Empty,
            [(key, value)] => Self::One { key: *key, value_hash: hash.value(value) },
            pairs => Self::Many { root: subtree(hash, pairs, usize::from(range.depth)) },
        })
    }
}

/// R(pairs, depth) of the specification.
fn subtree(hash: StateHash, pairs: &[(Key, &[u8])], depth: usize) -> Hash {
    match pairs {
        [] => EMPTY,
        [(key, value)] => hash.leaf(key, &hash.value(value)),
        pairs => {
            let (left, right) = pairs.split_at(pairs.partition_point(|(key, _)| !key_bit(key, depth)));
            hash.node(&subtree(hash, left, depth + 1), &subtree(hash, right, depth + 1))
        }
    }
}

/// Where the path of a range ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// At nothing: the range is empty.
    Empty,
    /// At the leaf of the range's only pair.
    Own,
    /// At the only leaf that begins with the path's bits, which lies in another range: this one is empty.
    Other {
        /// That leaf's key.
        key: Key,
        /// Hash of that key's value, H(0x02 ‖ value).
        value_hash: Hash,
    },
    /// At the subtree of the range's pairs, two or more.
    Subtree,
}

/// Proof that a range holds certain pairs and no other, under a state root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeProof {
    end: RangeEnd,
    siblings: Vec<Option<Hash>>,
}

impl RangeProof {
    /// A proof from its parts: the siblings root first, `None` for an empty one.
    ///
    /// # Errors
    /// [`ProofError`] when there are more than [`RANGE_DEPTH_MAX`] siblings, one that is not `None` is 32 zero bytes, or
    /// the deepest one is empty although the path does not end at a subtree.
    pub fn new(end: RangeEnd, siblings: Vec<Option<Hash>>) -> Result<Self, ProofError> {
        if siblings.len() > usize::from(RANGE_DEPTH_MAX) {
            return Err(ProofError::Depth { depth: siblings.len() });
        }
        if siblings.contains(&Some(EMPTY)) || end != RangeEnd::Subtree && siblings.last() == Some(&None) {
            return Err(ProofError::EmptySibling);
        }
        Ok(Self { end, siblings })
    }

    /// Checks that under `root` the range holds exactly this content.
    ///
    /// # Errors
    /// [`ProofError`]; no input panics.
    pub fn verify(
        &self,
        hash: StateHash,
        root: &Hash,
        range: KeyRange,
        content: &RangeContent,
    ) -> Result<(), ProofError> {
        if self.root(hash, range, content)? == *root { Ok(()) } else { Err(ProofError::Root) }
    }

    /// The root that this proof leads to for a range and its content.
    ///
    /// # Errors
    /// [`ProofError::Membership`] when the proof speaks about another number of pairs, [`ProofError::Depth`] when it does
    /// not end where the range does, [`ProofError::OtherLeaf`] when the other leaf is not on the path or in the range,
    /// [`ProofError::Range`] when the only pair lies outside the range.
    pub fn root(&self, hash: StateHash, range: KeyRange, content: &RangeContent) -> Result<Hash, ProofError> {
        let (depth, path) = (self.siblings.len(), range.first());
        let whole = usize::from(range.depth);
        if depth > whole {
            return Err(ProofError::Depth { depth });
        }
        let end = match (&self.end, content) {
            (RangeEnd::Empty, RangeContent::Empty) => EMPTY,
            (RangeEnd::Other { key, value_hash }, RangeContent::Empty) => {
                if range.contains(key) || shared_bits(key, &path) < depth {
                    return Err(ProofError::OtherLeaf);
                }
                hash.leaf(key, value_hash)
            }
            (RangeEnd::Own, RangeContent::One { key, value_hash }) => {
                if !range.contains(key) {
                    return Err(ProofError::Range);
                }
                hash.leaf(key, value_hash)
            }
            (RangeEnd::Subtree, RangeContent::Many { root }) if depth == whole => *root,
            (RangeEnd::Subtree, RangeContent::Many { .. }) => return Err(ProofError::Depth { depth }),
            _ => return Err(ProofError::Membership),
        };
        Ok(self.siblings.iter().enumerate().rev().fold(end, |below, (depth, sibling)| {
            let sibling = sibling.as_ref().unwrap_or(&EMPTY);
            if key_bit(&path, depth) { hash.node(sibling, &below) } else { hash.node(&below, sibling) }
        }))
    }

    /// The bytes specified in the module's head, at most [`RANGE_PROOF_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, other) = match &self.end {
            RangeEnd::Empty => (0, None),
            RangeEnd::Own => (1, None),
            RangeEnd::Other { key, value_hash } => (2, Some((key, value_hash))),
            RangeEnd::Subtree => (3, None),
        };
        Path { kind, other, siblings: &self.siblings }.encode()
    }

    /// The inverse of [`RangeProof::encode`].
    ///
    /// # Errors
    /// [`ProofError`] for any byte string that [`RangeProof::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let (kind, other, siblings) = decode_path(bytes, usize::from(RANGE_DEPTH_MAX))?;
        let end = match (kind, other) {
            (0, None) => RangeEnd::Empty,
            (1, None) => RangeEnd::Own,
            (2, Some((key, value_hash))) => RangeEnd::Other { key, value_hash },
            (3, None) => RangeEnd::Subtree,
            (kind, _) => return Err(ProofError::Terminal { kind }),
        };
        Self::new(end, siblings)
    }
}
