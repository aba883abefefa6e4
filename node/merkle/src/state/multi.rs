//! One proof for many keys: what their paths share is said once.
//!
//! The proof lists, in pre-order, the nodes on the paths of the keys. The verifier walks it with its sorted keys, so the
//! proof carries neither keys nor directions:
//!
//! | byte | node | followed by |
//! |---|---|---|
//! | 0 | nothing stands here: none of the keys that lead here is present | |
//! | 1 | the leaf of the one key that leads here and is present | |
//! | 2 | the leaf of another key: none of the keys that lead here is present | that key (32), hash of its value (32) |
//! | 3 | an inner node with keys on both sides | the left side, the right side |
//! | 4 | an inner node with keys on one side, the other is not empty | hash of the other side (32), the side with keys |
//! | 5 | an inner node with keys on one side, the other is empty | the side with keys |
//!
//! As in a proof of one key there is exactly one proof per root and set of keys: an inner node never has an empty side
//! beside a leaf or another empty side, and nothing may follow the last node.

use alloc::vec::Vec;

use super::{DEPTH_MAX, EMPTY, Key, ProofError, StateHash, key_bit, shared_bits};
use crate::Hash;

/// Keys that one multi-proof may speak about.
pub const MULTI_KEYS_MAX: usize = 1024;

const NOTHING: u8 = 0;
const OWN: u8 = 1;
const OTHER: u8 = 2;
const FORK: u8 = 3;
const BESIDE: u8 = 4;
const ALONE: u8 = 5;

/// A key with its claimed value, or `None` for its absence.
pub type Claim<'a> = (Key, Option<&'a [u8]>);

/// Proof of the values or absences of several keys under one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiProof {
    bytes: Vec<u8>,
}

impl MultiProof {
    /// Checks that under `root` every key has its claimed value, or none. Keys must be strictly ascending.
    ///
    /// # Errors
    /// [`ProofError`]; no input panics.
    pub fn verify(&self, hash: StateHash, root: &Hash, claims: &[Claim<'_>]) -> Result<(), ProofError> {
        if self.root(hash, claims)? == *root { Ok(()) } else { Err(ProofError::Root) }
    }

    /// The root that this proof leads to for keys in strictly ascending order, one at least.
    ///
    /// # Errors
    /// [`ProofError::Claims`] when there are none, more than [`MULTI_KEYS_MAX`], or they are not ascending;
    /// [`ProofError::Membership`] when the proof shows presence where absence is claimed or the other way round, or was
    /// made for other keys; [`ProofError::OtherLeaf`], [`ProofError::EmptySibling`], [`ProofError::Depth`].
    pub fn root(&self, hash: StateHash, claims: &[Claim<'_>]) -> Result<Hash, ProofError> {
        let ascending = claims.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending || claims.is_empty() || claims.len() > MULTI_KEYS_MAX {
            return Err(ProofError::Claims);
        }
        let mut walk = Walk { hash, rest: &self.bytes, length: self.bytes.len() };
        let (root, _) = walk.node(claims, 0)?;
        if walk.rest.is_empty() { Ok(root) } else { Err(walk.malformed()) }
    }

    /// The bytes specified in the module's head.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// The inverse of [`MultiProof::encode`].
    ///
    /// # Errors
    /// [`ProofError::Length`] and [`ProofError::Terminal`] when the bytes are not a whole list of nodes,
    /// [`ProofError::EmptySibling`] when an empty side is written out. Whether the nodes fit the keys shows in
    /// [`MultiProof::root`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let mut walk = Walk { hash: StateHash::Sha256, rest: bytes, length: bytes.len() };
        let mut expected = 1_usize;
        while expected > 0 {
            expected -= 1;
            match walk.byte()? {
                NOTHING | OWN => {}
                OTHER => {
                    walk.array()?;
                    walk.array()?;
                }
                FORK => expected += 2,
                BESIDE => {
                    if walk.array()? == EMPTY {
                        return Err(ProofError::EmptySibling);
                    }
                    expected += 1;
                }
                ALONE => expected += 1,
                kind => return Err(ProofError::Terminal { kind }),
            }
        }
        if walk.rest.is_empty() { Ok(Self { bytes: bytes.to_vec() }) } else { Err(walk.malformed()) }
    }
}

/// Writes the nodes of a proof in pre-order. Whoever walks a real tree with its keys writes a proof that verifies.
#[derive(Debug, Default)]
pub struct MultiProofWriter {
    bytes: Vec<u8>,
}

impl MultiProofWriter {
    /// Nothing stands where these keys lead.
    pub fn nothing(&mut self) {
        self.bytes.push(NOTHING);
    }

    /// The leaf of one of the keys that lead here.
    pub fn own(&mut self) {
        self.bytes.push(OWN);
    }

    /// The leaf of a key that was not asked for.
    pub fn other(&mut self, key: &Key, value_hash: &Hash) {
        self.bytes.push(OTHER);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value_hash);
    }

    /// An inner node with keys on both sides; the left side is written next, then the right one.
    pub fn fork(&mut self) {
        self.bytes.push(FORK);
    }

    /// An inner node with keys on one side, which is written next, and the hash of the other side.
    pub fn beside(&mut self, sibling: &Hash) {
        if *sibling == EMPTY {
            self.bytes.push(ALONE);
        } else {
            self.bytes.push(BESIDE);
            self.bytes.extend_from_slice(sibling);
        }
    }

    /// The proof.
    ///
    /// # Errors
    /// [`ProofError`] when what was written is not a whole list of nodes.
    pub fn finish(self) -> Result<MultiProof, ProofError> {
        MultiProof::decode(&self.bytes)
    }
}

/// What stands at a place, as far as the canonical form asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Empty,
    Leaf,
    Inner,
}

struct Walk<'a> {
    hash: StateHash,
    rest: &'a [u8],
    length: usize,
}

impl Walk<'_> {
    fn malformed(&self) -> ProofError {
        ProofError::Length { found: self.length }
    }

    fn byte(&mut self) -> Result<u8, ProofError> {
        let (byte, rest) = self.rest.split_first().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*byte)
    }

    fn array(&mut self) -> Result<Hash, ProofError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*array)
    }

    /// The hash of the node to which these keys lead, at least one. The recursion is bounded by the bits of a key.
    fn node(&mut self, claims: &[Claim<'_>], depth: usize) -> Result<(Hash, Kind), ProofError> {
        let kind = self.byte()?;
        if matches!(kind, FORK | BESIDE | ALONE) {
            return self.inner(kind, claims, depth);
        }
        let mut present = claims.iter().filter_map(|(key, value)| value.map(|value| (key, value)));
        match (kind, present.next(), present.next()) {
            (NOTHING, None, _) => Ok((EMPTY, Kind::Empty)),
            (OWN, Some((key, value)), None) => Ok((self.hash.leaf(key, &self.hash.value(value)), Kind::Leaf)),
            (OTHER, None, _) => {
                let (other, value_hash) = (self.array()?, self.array()?);
                let on_path = claims.first().is_some_and(|(key, _)| shared_bits(key, &other) >= depth);
                if !on_path || claims.binary_search_by(|(key, _)| key.cmp(&other)).is_ok() {
                    return Err(ProofError::OtherLeaf);
                }
                Ok((self.hash.leaf(&other, &value_hash), Kind::Leaf))
            }
            (NOTHING | OWN | OTHER, ..) => Err(ProofError::Membership),
            (kind, ..) => Err(ProofError::Terminal { kind }),
        }
    }

    fn inner(&mut self, kind: u8, claims: &[Claim<'_>], depth: usize) -> Result<(Hash, Kind), ProofError> {
        if depth >= DEPTH_MAX {
            return Err(ProofError::Depth { depth: depth + 1 });
        }
        let (left, right) = claims.split_at(claims.partition_point(|(key, _)| !key_bit(key, depth)));
        if (kind == FORK) != (!left.is_empty() && !right.is_empty()) {
            return Err(ProofError::Membership);
        }
        let sibling = match kind {
            FORK => None,
            BESIDE => Some(self.array()?),
            _ => Some(EMPTY),
        };
        let (left, right, kinds) = match sibling {
            None => {
                let (left, left_kind) = self.node(left, depth + 1)?;
                let (right, right_kind) = self.node(right, depth + 1)?;
                (left, right, (left_kind, right_kind))
            }
            Some(sibling) => {
                // What stands on the other side is unknown, unless it is empty; anything else may stand beside a leaf.
                let other = if sibling == EMPTY { Kind::Empty } else { Kind::Inner };
                let (below, below_kind) = self.node(claims, depth + 1)?;
                let (left, right) = if left.is_empty() { (sibling, below) } else { (below, sibling) };
                (left, right, (below_kind, other))
            }
        };
        match kinds {
            (Kind::Empty, Kind::Empty | Kind::Leaf) | (Kind::Leaf, Kind::Empty) => Err(ProofError::EmptySibling),
            _ => Ok((self.hash.node(&left, &right), Kind::Inner)),
        }
    }
}
