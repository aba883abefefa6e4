//! Trees over a block's entries and outcomes (RFC 9162 section 2.1.1), by the accelerator's multi-buffer kernels.
//!
//! On a core: a block has ten thousand leaves at most, and a GPU gains nothing on so few.

use stele_accel_hash::{HashAlgorithm, LEAF_PREFIX, digest_batch, tree_root};
use stele_merkle::log::EMPTY_ROOT;

/// SHA-256(0x00 ‖ entry) of each entry.
pub(crate) fn leaf_hashes<'e>(entries: impl Iterator<Item = &'e [u8]>) -> Vec<[u8; 32]> {
    let entries: Vec<&[u8]> = entries.collect();
    digest_batch(HashAlgorithm::Sha256, &[LEAF_PREFIX], &entries)
}

/// The tree head over leaf hashes.
pub(crate) fn root_of(leaf_hashes: &[[u8; 32]]) -> [u8; 32] {
    tree_root(HashAlgorithm::Sha256, leaf_hashes).unwrap_or(EMPTY_ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pure crate, which verifiers use, is the definition.
    #[test]
    fn trees_are_those_of_the_portable_code() {
        let entries: Vec<Vec<u8>> = (0..300usize).map(|length| vec![0x5a; 3 * length]).collect();
        let leaves = leaf_hashes(entries.iter().map(Vec::as_slice));
        let expected: Vec<_> = entries.iter().map(|entry| stele_merkle::log::leaf_hash(entry)).collect();
        assert_eq!(leaves, expected);
        for size in 0..=leaves.len() {
            assert_eq!(root_of(&leaves[..size]), stele_merkle::log::root_of(&leaves[..size]), "{size}");
        }
    }
}
