//! Making proofs from stored subtree hashes.

use alloc::vec::Vec;
use core::fmt;

use super::frontier::fold_right;
use super::{EMPTY_ROOT, SIZE_MAX};
use crate::Hash;

/// The hashes of complete subtrees: at `level` l and `index` i the root over the leaves i·2^l … (i+1)·2^l − 1.
/// Level 0 holds the leaf hashes.
pub trait HashSource {
    /// The hash, or `None` when that subtree is not complete or not stored.
    fn hash(&self, level: u8, index: u64) -> Option<Hash>;
}

impl<S: HashSource + ?Sized> HashSource for &S {
    fn hash(&self, level: u8, index: u64) -> Option<Hash> {
        (**self).hash(level, index)
    }
}

/// Root of the first `size` leaves, from one hash per set bit of the size.
///
/// # Errors
/// [`LogError`] when the size is above [`SIZE_MAX`] or the source lacks a hash.
pub fn source_root(source: &impl HashSource, size: u64) -> Result<Hash, LogError> {
    check_size(size)?;
    if size == 0 { Ok(EMPTY_ROOT) } else { range_root(source, 0, size) }
}

/// Inclusion proof of leaf `index` in the tree of the first `size` leaves, RFC 9162 section 2.1.3.1: siblings from
/// the leaf upwards.
///
/// # Errors
/// [`LogError`] when the index is not below the size, the size is above [`SIZE_MAX`], or the source lacks a hash.
pub fn inclusion_proof(source: &impl HashSource, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
    check_size(size)?;
    if index >= size {
        return Err(LogError::Index { index, size });
    }
    let mut path = Vec::new();
    let (mut start, mut count) = (0, size);
    // From the root down to the leaf; the proof lists the siblings the other way round.
    while count > 1 {
        let split = largest_power_below(count);
        if index - start < split {
            path.push(range_root(source, start + split, count - split)?);
            count = split;
        } else {
            path.push(range_root(source, start, split)?);
            start += split;
            count -= split;
        }
    }
    path.reverse();
    Ok(path)
}

/// Consistency proof between the trees of the first `old_size` and the first `new_size` leaves, RFC 9162 section
/// 2.1.4.1. Empty when the sizes are equal or the old tree is empty.
///
/// # Errors
/// [`LogError`] when the old size is above the new one, a size is above [`SIZE_MAX`], or the source lacks a hash.
pub fn consistency_proof(source: &impl HashSource, old_size: u64, new_size: u64) -> Result<Vec<Hash>, LogError> {
    check_size(new_size)?;
    if old_size > new_size {
        return Err(LogError::Sizes { old_size, new_size });
    }
    let mut path = Vec::new();
    if old_size == 0 || old_size == new_size {
        return Ok(path);
    }
    // SUBPROOF of RFC 9162: `known` says that the subtree in hand is the whole old tree, whose root the verifier has.
    let (mut start, mut count, mut old, mut known) = (0, new_size, old_size, true);
    while old < count {
        let split = largest_power_below(count);
        if old <= split {
            path.push(range_root(source, start + split, count - split)?);
            count = split;
        } else {
            path.push(range_root(source, start, split)?);
            start += split;
            count -= split;
            old -= split;
            known = false;
        }
    }
    if !known {
        path.push(range_root(source, start, count)?);
    }
    path.reverse();
    Ok(path)
}

/// Root over `count` leaves from `start`, where `start` is a multiple of the smallest power of two not below `count`
/// (true for every range that the splits of RFC 9162 produce).
fn range_root(source: &impl HashSource, start: u64, count: u64) -> Result<Hash, LogError> {
    let mut subtrees = Vec::new();
    let mut offset = start;
    for level in (0..64_u8).rev() {
        if count >> level & 1 == 1 {
            let index = offset >> level;
            subtrees.push(source.hash(level, index).ok_or(LogError::Missing { level, index })?);
            offset += 1 << level;
        }
    }
    Ok(fold_right(&subtrees))
}

/// The largest power of two strictly below `count`, for `count` of at least 2.
fn largest_power_below(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

fn check_size(size: u64) -> Result<(), LogError> {
    if size > SIZE_MAX { Err(LogError::Size { size }) } else { Ok(()) }
}

/// Why a proof or a root could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The tree size is above [`SIZE_MAX`].
    Size {
        /// The size asked for.
        size: u64,
    },
    /// There is no such leaf.
    Index {
        /// The leaf asked for.
        index: u64,
        /// The tree size asked for.
        size: u64,
    },
    /// The old tree is larger than the new one.
    Sizes {
        /// The old size.
        old_size: u64,
        /// The new size.
        new_size: u64,
    },
    /// The source lacks a subtree hash.
    Missing {
        /// Level of the subtree.
        level: u8,
        /// Index of the subtree at its level.
        index: u64,
    },
}

impl LogError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "log_size",
            Self::Index { .. } => "log_index",
            Self::Sizes { .. } => "log_sizes",
            Self::Missing { .. } => "log_hash_missing",
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { size } => write!(f, "log size {size} is above the limit of {SIZE_MAX}"),
            Self::Index { index, size } => {
                write!(f, "log index {index} is not in a tree of {size} entries")
            }
            Self::Sizes { old_size, new_size } => {
                write!(f, "a log of {old_size} entries cannot be a prefix of one of {new_size}")
            }
            Self::Missing { level, index } => {
                write!(f, "log subtree {index} of level {level} is not stored")
            }
        }
    }
}

impl core::error::Error for LogError {}
