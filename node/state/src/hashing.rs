//! The batched hashing that this crate needs, on the kernels of `stele-accel-hash`.
//!
//! The three prefixes are those of `stele_merkle::state`; a test compares.

use stele_accel_hash::{HashAlgorithm, digest_batch, node_pairs};
use stele_merkle::Hash;
use stele_merkle::state::{Key, StateHash};

use crate::Write;

const fn algorithm(hash: StateHash) -> HashAlgorithm {
    match hash {
        StateHash::Sha256 => HashAlgorithm::Sha256,
        StateHash::Sm3 => HashAlgorithm::Sm3,
    }
}

/// Puts the hash of the leaf that each write makes at the write's position; what a deletion has is left as it is.
pub(crate) fn leaves_into(hash: StateHash, writes: &[Write], hashes: &mut [Hash]) {
    let values: Vec<&[u8]> = writes.iter().filter_map(|(_, value)| value.as_deref()).collect();
    let values = digest_batch(algorithm(hash), &[0x02], &values);
    let keys = writes.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key);
    let pairs: Vec<[Hash; 2]> = keys.zip(values).map(|(key, value)| [key, value]).collect();
    let places = writes.iter().zip(hashes).filter(|((_, value), _)| value.is_some()).map(|(_, place)| place);
    for (place, leaf) in places.zip(node_pairs(algorithm(hash), &[0x00], &pairs)) {
        *place = leaf;
    }
}

/// Hashes of leaves, given as (key, value).
pub(crate) fn leaves(hash: StateHash, pairs: &[(Key, &[u8])]) -> Vec<Hash> {
    let values: Vec<&[u8]> = pairs.iter().map(|(_, value)| *value).collect();
    let values = digest_batch(algorithm(hash), &[0x02], &values);
    let pairs: Vec<[Hash; 2]> = pairs.iter().zip(values).map(|((key, _), value)| [*key, value]).collect();
    node_pairs(algorithm(hash), &[0x00], &pairs)
}

/// Hashes of inner nodes, given as their children.
pub(crate) fn nodes(hash: StateHash, children: &[[Hash; 2]]) -> Vec<Hash> {
    node_pairs(algorithm(hash), &[0x01], children)
}

#[cfg(test)]
mod tests {
    use stele_merkle::state::EMPTY;

    use super::*;

    #[test]
    fn batches_equal_the_rules() {
        for hash in [StateHash::Sha256, StateHash::Sm3] {
            let value = |index: u8| (!index.is_multiple_of(5)).then(|| vec![index; usize::from(index)]);
            let writes: Vec<Write> = (0..70).map(|index| (hash.value(&[index]), value(index))).collect();
            let leaf = |(key, value): &Write| value.as_ref().map_or(EMPTY, |value| hash.leaf(key, &hash.value(value)));
            let mut found = vec![EMPTY; writes.len()];
            leaves_into(hash, &writes, &mut found);
            assert_eq!(found, writes.iter().map(leaf).collect::<Vec<_>>());
            let standing = writes.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?)));
            let standing: Vec<(Key, &[u8])> = standing.collect();
            let expected = found.iter().copied().filter(|hash| *hash != EMPTY);
            assert_eq!(leaves(hash, &standing), expected.collect::<Vec<_>>());
            let keys: Vec<Key> = writes.iter().map(|(key, _)| *key).collect();
            let (children, _) = keys.as_chunks::<2>();
            let expected: Vec<Hash> = children.iter().map(|[left, right]| hash.node(left, right)).collect();
            assert_eq!(nodes(hash, children), expected);
        }
    }
}
