//! The batched hashing that this crate needs, on the kernels of `stele-accel-hash`.
//!
//! The three prefixes are those of `stele_merkle::state`; a test compares.

use stele_accel_hash::{HashAlgorithm, digest_batch, node_pairs};
use stele_merkle::Hash;
use stele_merkle::state::{Key, StateHash};

const fn algorithm(hash: StateHash) -> HashAlgorithm {
    match hash {
        StateHash::Sha256 => HashAlgorithm::Sha256,
        StateHash::Sm3 => HashAlgorithm::Sm3,
    }
}

/// Hashes of leaves, given as (key, value).
pub(crate) fn leaves(hash: StateHash, pairs: &[(&Key, &[u8])]) -> Vec<Hash> {
    let values: Vec<&[u8]> = pairs.iter().map(|(_, value)| *value).collect();
    let values = digest_batch(algorithm(hash), &[0x02], &values);
    let pairs: Vec<[Hash; 2]> = pairs.iter().zip(values).map(|((key, _), value)| [**key, value]).collect();
    node_pairs(algorithm(hash), &[0x00], &pairs)
}

/// Hashes of inner nodes, given as their children.
pub(crate) fn nodes(hash: StateHash, children: &[[Hash; 2]]) -> Vec<Hash> {
    node_pairs(algorithm(hash), &[0x01], children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_equal_the_rules() {
        for hash in [StateHash::Sha256, StateHash::Sm3] {
            let values: Vec<Vec<u8>> = (0..70_u8).map(|index| vec![index; usize::from(index)]).collect();
            let keys: Vec<Key> = values.iter().map(|value| hash.value(value)).collect();
            let pairs: Vec<(&Key, &[u8])> = keys.iter().zip(values.iter().map(Vec::as_slice)).collect();
            let expected: Vec<Hash> = pairs.iter().map(|(key, value)| hash.leaf(key, &hash.value(value))).collect();
            assert_eq!(leaves(hash, &pairs), expected);
            let (children, _) = keys.as_chunks::<2>();
            let expected: Vec<Hash> = children.iter().map(|[left, right]| hash.node(left, right)).collect();
            assert_eq!(nodes(hash, children), expected);
        }
    }
}
