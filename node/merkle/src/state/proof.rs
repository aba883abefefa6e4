//! Membership and non-membership proofs: their form, their bytes, their check.

use alloc::vec::Vec;
use core::fmt;

use super::{EMPTY, Key, StateHash, key_bit, shared_bits};
use crate::{HASH_BYTES, Hash};

/// The deepest place in the tree: two keys differ in one of their 256 bits.
pub const DEPTH_MAX: usize = 256;

/// The longest encoding of a proof: kind, depth, full bitmap, another key's leaf, a sibling on every level.
pub const PROOF_BYTES_MAX: usize = 3 + DEPTH_MAX / 8 + 64 + DEPTH_MAX * HASH_BYTES;

/// What stands where a key's path ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Nothing: no key begins with these bits.
    Empty,
    /// The leaf of the key that was asked for.
    Own,
    /// The leaf of another key, the only one that begins with these bits.
    Other {
        /// That key.
        key: Key,
        /// Hash of that key's value, H(0x02 ‖ value).
        value_hash: Hash,
    },
}

/// Proof that a key has a certain value, or none, under a state root.
///
/// A proof can only be made in its canonical form (see the module's head), so equal bytes and equal proofs are the
/// same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    terminal: Terminal,
    siblings: Vec<Option<Hash>>,
}

impl Proof {
    /// A proof from its parts: the siblings root first, `None` for an empty one.
    ///
    /// # Errors
    /// [`ProofError`] when there are more than [`DEPTH_MAX`] siblings, the deepest one is empty, or one that is not
    /// `None` is 32 zero bytes.
    pub fn new(terminal: Terminal, siblings: Vec<Option<Hash>>) -> Result<Self, ProofError> {
        if siblings.len() > DEPTH_MAX {
            return Err(ProofError::Depth { depth: siblings.len() });
        }
        if siblings.last() == Some(&None) || siblings.contains(&Some(EMPTY)) {
            return Err(ProofError::EmptySibling);
        }
        Ok(Self { terminal, siblings })
    }

    /// What stands at the end of the path.
    #[must_use]
    pub fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// The siblings, root first, `None` for an empty one.
    #[must_use]
    pub fn siblings(&self) -> &[Option<Hash>] {
        &self.siblings
    }

    /// Checks that under `root` the key has this value, or no value.
    ///
    /// # Errors
    /// [`ProofError`]; no input panics.
    pub fn verify(&self, hash: StateHash, root: &Hash, key: &Key, value: Option<&[u8]>) -> Result<(), ProofError> {
        if self.root(hash, key, value)? == *root { Ok(()) } else { Err(ProofError::Root) }
    }

    /// The root that this proof leads to for the key and its value or absence.
    ///
    /// # Errors
    /// [`ProofError::Membership`] when the proof shows presence and absence is claimed or the other way round, and
    /// [`ProofError::OtherLeaf`] when the other key's leaf is not on this key's path.
    pub fn root(&self, hash: StateHash, key: &Key, value: Option<&[u8]>) -> Result<Hash, ProofError> {
        let end = match (&self.terminal, value) {
            (Terminal::Own, Some(value)) => hash.leaf(key, &hash.value(value)),
            (Terminal::Empty, None) => EMPTY,
            (Terminal::Other { key: other, value_hash }, None) => {
                if other == key || shared_bits(other, key) < self.siblings.len() {
                    return Err(ProofError::OtherLeaf);
                }
                hash.leaf(other, value_hash)
            }
            _ => return Err(ProofError::Membership),
        };
        Ok(self.siblings.iter().enumerate().rev().fold(end, |below, (depth, sibling)| {
            let sibling = sibling.as_ref().unwrap_or(&EMPTY);
            if key_bit(key, depth) { hash.node(sibling, &below) } else { hash.node(&below, sibling) }
        }))
    }

    /// The bytes specified in the module's head, at most [`PROOF_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, other) = match &self.terminal {
            Terminal::Empty => (0, None),
            Terminal::Own => (1, None),
            Terminal::Other { key, value_hash } => (2, Some((key, value_hash))),
        };
        Path { kind, other, siblings: &self.siblings }.encode()
    }

    /// The inverse of [`Proof::encode`].
    ///
    /// # Errors
    /// [`ProofError`] for any byte string that [`Proof::encode`] does not write. Allocates no more than 257 siblings.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let (kind, other, siblings) = decode_path(bytes, DEPTH_MAX)?;
        let terminal = match (kind, other) {
            (0, None) => Terminal::Empty,
            (1, None) => Terminal::Own,
            (2, Some((key, value_hash))) => Terminal::Other { key, value_hash },
            (kind, _) => return Err(ProofError::Terminal { kind }),
        };
        Self::new(terminal, siblings)
    }
}

/// The parts of a path as they are encoded; proofs of one key and of a range share the form.
pub(super) struct Path<'a> {
    pub(super) kind: u8,
    /// Key and value hash of another leaf, with kind 2 only.
    pub(super) other: Option<(&'a Key, &'a Hash)>,
    pub(super) siblings: &'a [Option<Hash>],
}

impl Path<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let depth = self.siblings.len();
        let mut bytes = Vec::with_capacity(3 + depth.div_ceil(8) + 64 + depth * HASH_BYTES);
        bytes.push(self.kind);
        let depth = u16::try_from(depth).expect("a proof has at most 256 siblings");
        bytes.extend_from_slice(&depth.to_be_bytes());
        for eight in self.siblings.chunks(8) {
            let byte = eight.iter().enumerate().filter(|(_, sibling)| sibling.is_some());
            bytes.push(byte.fold(0_u8, |byte, (bit, _)| byte | 0x80 >> bit));
        }
        if let Some((key, value_hash)) = self.other {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value_hash);
        }
        for sibling in self.siblings.iter().flatten() {
            bytes.extend_from_slice(sibling);
        }
        bytes
    }
}

/// What [`Path`] encodes, owned.
type DecodedPath = (u8, Option<(Key, Hash)>, Vec<Option<Hash>>);

/// The inverse of [`Path::encode`] for paths of at most `depth_max` siblings.
pub(super) fn decode_path(bytes: &[u8], depth_max: usize) -> Result<DecodedPath, ProofError> {
    let malformed = ProofError::Length { found: bytes.len() };
    let (&[kind, high, low], rest) = bytes.split_first_chunk::<3>().ok_or(malformed)?;
    let depth = usize::from(u16::from_be_bytes([high, low]));
    if depth > depth_max {
        return Err(ProofError::Depth { depth });
    }
    let (bitmap, rest) = rest.split_at_checked(depth.div_ceil(8)).ok_or(malformed)?;
    let present = |depth: usize| bitmap[depth / 8] >> (7 - depth % 8) & 1 == 1;
    if (depth..bitmap.len() * 8).any(present) {
        return Err(ProofError::Bitmap);
    }
    let (other, rest) = if kind == 2 {
        let (key, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (value_hash, rest) = rest.split_first_chunk().ok_or(malformed)?;
        (Some((*key, *value_hash)), rest)
    } else {
        (None, rest)
    };
    let (hashes, rest) = rest.as_chunks::<HASH_BYTES>();
    let count = (0..depth).filter(|depth| present(*depth)).count();
    if hashes.len() != count || !rest.is_empty() {
        return Err(malformed);
    }
    let mut hashes = hashes.iter().copied();
    let siblings = (0..depth).map(|depth| if present(depth) { hashes.next() } else { None }).collect();
    Ok((kind, other, siblings))
}

/// Why a proof is malformed or does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The number of bytes does not fit what they announce.
    Length {
        /// Bytes given.
        found: usize,
    },
    /// More than [`DEPTH_MAX`] siblings.
    Depth {
        /// Siblings announced.
        depth: usize,
    },
    /// An unused bit of the bitmap is set.
    Bitmap,
    /// No such kind of path end.
    Terminal {
        /// The number read.
        kind: u8,
    },
    /// The deepest sibling is empty, or an empty sibling is written out: not the canonical form.
    EmptySibling,
    /// The proof shows presence where absence is claimed, or the other way round.
    Membership,
    /// The other leaf is the key's own or lies on another path.
    OtherLeaf,
    /// The pairs of a range are not strictly ascending, or one lies outside it.
    Range,
    /// The keys of a multi-proof are none, too many or not strictly ascending.
    Claims,
    /// The path leads to another root.
    Root,
}

impl ProofError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "state_proof_length",
            Self::Depth { .. } => "state_proof_depth",
            Self::Bitmap => "state_proof_bitmap",
            Self::Terminal { .. } => "state_proof_terminal",
            Self::EmptySibling => "state_proof_empty_sibling",
            Self::Membership => "state_proof_membership",
            Self::OtherLeaf => "state_proof_other_leaf",
            Self::Range => "state_proof_range",
            Self::Claims => "state_proof_claims",
            Self::Root => "state_proof_root",
        }
    }
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found } => write!(f, "{found} bytes are not the state proof that they announce"),
            Self::Depth { depth } => write!(f, "a state proof of depth {depth} is deeper than {DEPTH_MAX}"),
            Self::Bitmap => write!(f, "the state proof's bitmap has bits beyond its depth"),
            Self::Terminal { kind } => write!(f, "a state proof's path cannot end in kind {kind}"),
            Self::EmptySibling => write!(f, "the state proof is not in canonical form"),
            Self::Membership => write!(f, "the state proof does not speak about this presence or absence"),
            Self::OtherLeaf => write!(f, "the state proof shows a leaf that is not on the key's path"),
            Self::Range => write!(f, "the pairs are not the ascending pairs of that key range"),
            Self::Claims => write!(f, "a state proof speaks about 1 to 1,024 keys in ascending order"),
            Self::Root => write!(f, "the state proof leads to another root"),
        }
    }
}

impl core::error::Error for ProofError {}
