//! Tree interiors: 64 bytes in, 32 bytes out, many times.

use crate::{
    algorithm::{Digest, HashAlgorithm},
    kernel,
};

/// Domain byte of a leaf, RFC 9162 section 2.1.1.
pub const LEAF_PREFIX: u8 = 0x00;

/// Domain byte of an interior node, RFC 9162 section 2.1.1.
pub const NODE_PREFIX: u8 = 0x01;

/// Hashes `prefix ‖ left ‖ right` for each pair; digests are in the order of `pairs`.
#[must_use]
pub fn node_pairs(algorithm: HashAlgorithm, prefix: &[u8], pairs: &[[Digest; 2]]) -> Vec<Digest> {
    let mut parents = vec![[0; 32]; pairs.len()];
    kernel::pairs_into(algorithm, prefix, pairs, &mut parents);
    parents
}

/// One level of an RFC 9162 tree: neighbours are hashed under [`NODE_PREFIX`], an odd last node moves
/// up unchanged. The result has `⌈n / 2⌉` nodes; repeated until one is left, it is the tree head of
/// section 2.1.1, because splitting at the largest power of two below `n` pairs the same neighbours.
#[must_use]
pub fn node_level(algorithm: HashAlgorithm, children: &[Digest]) -> Vec<Digest> {
    let (pairs, odd) = children.as_chunks::<2>();
    let mut parents = node_pairs(algorithm, &[NODE_PREFIX], pairs);
    parents.extend_from_slice(odd);
    parents
}

/// The root over leaf *hashes*, or `None` for no leaf (the empty tree's head is the hash of the empty
/// string, which is the caller's rule, not this crate's).
#[must_use]
pub fn tree_root(algorithm: HashAlgorithm, leaves: &[Digest]) -> Option<Digest> {
    match leaves {
        [] => None,
        [only] => Some(*only),
        _ => {
            let mut level = node_level(algorithm, leaves);
            while level.len() > 1 {
                level = node_level(algorithm, &level);
            }
            level.first().copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::digest;

    /// RFC 9162 section 2.1.1, word for word: split at the largest power of two smaller than n.
    fn naive_root(algorithm: HashAlgorithm, leaves: &[Digest]) -> Digest {
        if let [only] = leaves {
            return *only;
        }
        let split = leaves.len().next_power_of_two() / 2;
        let left = naive_root(algorithm, &leaves[..split]);
        let right = naive_root(algorithm, &leaves[split..]);
        digest(algorithm, &[NODE_PREFIX], [left, right].as_flattened())
    }

    #[test]
    fn levels_give_the_root_of_rfc_9162_at_every_size() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            let leaves: Vec<Digest> =
                (0..131u32).map(|index| digest(algorithm, &[LEAF_PREFIX], &index.to_be_bytes())).collect();
            assert_eq!(tree_root(algorithm, &[]), None);
            for size in 1..=leaves.len() {
                let root = tree_root(algorithm, &leaves[..size]);
                assert_eq!(root, Some(naive_root(algorithm, &leaves[..size])), "size {size}");
            }
        }
    }
}
