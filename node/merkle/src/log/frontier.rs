//! The compact right edge of a tree: all that is needed to append and to know the root.

use alloc::vec::Vec;
use core::fmt;

use super::{EMPTY_ROOT, SIZE_MAX, node_hash};
use crate::{HASH_BYTES, Hash};

/// The longest encoding of a frontier: the size and one hash per bit of a size up to [`SIZE_MAX`].
pub const FRONTIER_BYTES_MAX: usize = 8 + 62 * HASH_BYTES;

/// The complete subtrees that a tree of `size` leaves consists of, largest first: one hash per set bit of the size.
///
/// Appending costs one hash per completed level (two on average with the leaf's own), the root one per set bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, subtrees: Vec::new() }
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root over all leaves so far, RFC 9162 section 2.1.1.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold_right(&self.subtrees)
    }

    /// The hashes of the complete subtrees, largest first.
    #[must_use]
    pub fn subtrees(&self) -> &[Hash] {
        &self.subtrees
    }

    /// Appends one leaf hash.
    pub fn append(&mut self, leaf: Hash) {
        self.append_visiting(leaf, |_, _, _| {});
    }

    /// Appends leaf hashes in order.
    pub fn append_many(&mut self, leaves: &[Hash]) {
        for leaf in leaves {
            self.append(*leaf);
        }
    }

    /// Appends one leaf hash and reports every subtree that it completes as (level, index, hash), the leaf itself
    /// first as level 0. A node writes these to flat files, which then are its [`super::HashSource`].
    pub fn append_visiting(&mut self, leaf: Hash, mut visit: impl FnMut(u8, u64, Hash)) {
        let mut hash = leaf;
        let mut index = self.size;
        let mut level = 0_u8;
        visit(level, index, hash);
        // Each trailing one bit of the size is a complete subtree as large as the one in hand: merge the two.
        while index & 1 == 1 {
            let Some(left) = self.subtrees.pop() else {
                break;
            };
            hash = node_hash(&left, &hash);
            index >>= 1;
            level += 1;
            visit(level, index, hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// The size as 8 bytes big-endian, then the subtree hashes, largest first.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.subtrees.len() * HASH_BYTES);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for hash in &self.subtrees {
            bytes.extend_from_slice(hash);
        }
        bytes
    }

    /// The inverse of [`Frontier::encode`].
    ///
    /// # Errors
    /// [`FrontierError`] when the size is above [`SIZE_MAX`] or the number of bytes is not exactly what the size
    /// demands.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrontierError> {
        let Some((size, hashes)) = bytes.split_first_chunk::<8>() else {
            return Err(FrontierError::Length { expected: 8, found: bytes.len() });
        };
        let size = u64::from_be_bytes(*size);
        if size > SIZE_MAX {
            return Err(FrontierError::Size { size });
        }
        let (hashes, rest) = hashes.as_chunks::<HASH_BYTES>();
        let count = (0..u64::BITS).filter(|bit| size >> bit & 1 == 1).count();
        if hashes.len() != count || !rest.is_empty() {
            return Err(FrontierError::Length { expected: 8 + count * HASH_BYTES, found: bytes.len() });
        }
        Ok(Self { size, subtrees: hashes.to_vec() })
    }
}

/// Combines adjacent complete subtrees, largest first, into the root over all of them.
pub(super) fn fold_right(subtrees: &[Hash]) -> Hash {
    let Some((last, larger)) = subtrees.split_last() else {
        return EMPTY_ROOT;
    };
    larger.iter().rev().fold(*last, |right, left| node_hash(left, &right))
}

/// Why bytes are not a frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontierError {
    /// The size is above [`SIZE_MAX`].
    Size {
        /// The size read.
        size: u64,
    },
    /// The number of bytes does not fit the size.
    Length {
        /// Bytes that the size demands.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

impl FrontierError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "frontier_size",
            Self::Length { .. } => "frontier_length",
        }
    }
}

impl fmt::Display for FrontierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { size } => write!(f, "log frontier of {size} entries is above the limit of {SIZE_MAX}"),
            Self::Length { expected, found } => {
                write!(f, "log frontier has {found} bytes instead of {expected}")
            }
        }
    }
}

impl core::error::Error for FrontierError {}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::super::leaf_hash;
    use super::*;

    #[test]
    fn encoding_round_trips_and_refuses_other_lengths() {
        let mut frontier = Frontier::new();
        for index in 0..300_u64 {
            let bytes = frontier.encode();
            assert!(bytes.len() <= FRONTIER_BYTES_MAX);
            assert_eq!(Frontier::decode(&bytes), Ok(frontier.clone()));
            assert!(Frontier::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(Frontier::decode(&[&bytes[..], &[0]].concat()).is_err());
            assert!(Frontier::decode(&[&bytes[..], &[0; 32]].concat()).is_err());
            frontier.append(leaf_hash(&index.to_be_bytes()));
        }
    }

    #[test]
    fn a_size_above_the_limit_is_refused() {
        let mut bytes = (SIZE_MAX + 1).to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 64]);
        assert_eq!(Frontier::decode(&bytes), Err(FrontierError::Size { size: SIZE_MAX + 1 }));
    }

    #[test]
    fn appending_reports_each_completed_subtree_once() {
        let mut frontier = Frontier::new();
        let mut seen = vec![0_u64; 8];
        for index in 0..100_u64 {
            frontier.append_visiting(leaf_hash(&index.to_be_bytes()), |level, index, _| {
                assert_eq!(index, seen[usize::from(level)]);
                seen[usize::from(level)] += 1;
            });
        }
        assert_eq!(seen, [100, 50, 25, 12, 6, 3, 1, 0]);
    }
}
