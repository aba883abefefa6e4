//! Checking proofs: RFC 9162 sections 2.1.3.2 and 2.1.4.2, strict in every length.

use core::fmt;

use super::{EMPTY_ROOT, SIZE_MAX, node_hash};
use crate::Hash;

/// Checks that `leaf_hash` is leaf `index` of the tree of `size` leaves with this `root`.
///
/// # Errors
/// [`ProofError`]; no input panics.
pub fn verify_inclusion(leaf_hash: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if inclusion_root(leaf_hash, index, size, path)? == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// The root that an inclusion proof leads to. A COSE receipt (RFC 9942) signs that root, so its verifier computes it
/// from the path and then checks the signature over it.
///
/// # Errors
/// [`ProofError`] when the index is not below the size, the size is above [`SIZE_MAX`], or the path is not exactly
/// as long as index and size demand.
pub fn inclusion_root(leaf_hash: &Hash, index: u64, size: u64, path: &[Hash]) -> Result<Hash, ProofError> {
    if size > SIZE_MAX {
        return Err(ProofError::Size { size });
    }
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let length = || ProofError::Length { found: path.len() };
    let (mut node, mut last) = (index, size - 1);
    let mut root = *leaf_hash;
    for sibling in path {
        if last == 0 {
            return Err(length());
        }
        if node & 1 == 1 || node == last {
            root = node_hash(sibling, &root);
            skip_missing_levels(&mut node, &mut last);
        } else {
            root = node_hash(&root, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(root) } else { Err(length()) }
}

/// Checks that the tree of `old_size` leaves with `old_root` is a prefix of the tree of `new_size` leaves with
/// `new_root`. The path is empty for equal sizes and for an empty old tree, whose root must then be [`EMPTY_ROOT`].
///
/// # Errors
/// [`ProofError`]; no input panics.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    path: &[Hash],
) -> Result<(), ProofError> {
    if new_size > SIZE_MAX {
        return Err(ProofError::Size { size: new_size });
    }
    if old_size > new_size {
        return Err(ProofError::Sizes { old_size, new_size });
    }
    let length = ProofError::Length { found: path.len() };
    if new_size == 0 && *new_root != EMPTY_ROOT {
        return Err(ProofError::Root);
    }
    if old_size == 0 || old_size == new_size {
        let expected = if old_size == 0 { &EMPTY_ROOT } else { new_root };
        return match (path.is_empty(), old_root == expected) {
            (false, _) => Err(length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // An old tree of 2^n leaves is a subtree of the new one, and the verifier knows its root already.
    let (seed, siblings) =
        if old_size.is_power_of_two() { (old_root, path) } else { path.split_first().ok_or(length)? };
    let (mut old, mut new) = (*seed, *seed);
    for sibling in siblings {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            skip_missing_levels(&mut node, &mut last);
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    if old == *old_root && new == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// At the right edge of the tree a node without a sibling moves up unchanged until it is a right child.
fn skip_missing_levels(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

/// Why a proof does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The tree size is above [`SIZE_MAX`].
    Size {
        /// The size claimed.
        size: u64,
    },
    /// There is no such leaf in a tree of that size.
    Index {
        /// The index claimed.
        index: u64,
        /// The size claimed.
        size: u64,
    },
    /// The old tree is larger than the new one.
    Sizes {
        /// The old size claimed.
        old_size: u64,
        /// The new size claimed.
        new_size: u64,
    },
    /// The path is longer or shorter than the sizes demand.
    Length {
        /// Hashes in the path.
        found: usize,
    },
    /// The path leads to another root.
    Root,
}

impl ProofError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "log_proof_size",
            Self::Index { .. } => "log_proof_index",
            Self::Sizes { .. } => "log_proof_sizes",
            Self::Length { .. } => "log_proof_length",
            Self::Root => "log_proof_root",
        }
    }
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { size } => write!(f, "tree size {size} is above the limit of {SIZE_MAX}"),
            Self::Index { index, size } => {
                write!(f, "leaf {index} is not in a tree of {size} leaves")
            }
            Self::Sizes { old_size, new_size } => {
                write!(f, "a tree of {old_size} leaves cannot be a prefix of one of {new_size}")
            }
            Self::Length { found } => {
                write!(f, "a path of {found} hashes does not fit the tree size")
            }
            Self::Root => write!(f, "the path leads to another root"),
        }
    }
}

impl core::error::Error for ProofError {}
