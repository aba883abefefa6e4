//! What tests of the engine in its several forms share.

use proptest::prelude::*;
use stele_state::{Key, StateHash, StateMap, TreeMap, Write};

pub(crate) const HASH: StateHash = StateHash::Sha256;

/// Commits at the next height; the root.
pub(crate) fn commit(map: &mut TreeMap, writes: Vec<Write>) -> [u8; 32] {
    let staged = map.stage(&map.root(), writes).unwrap();
    let height = map.height().map_or(0, |height| height + 1);
    let root = staged.root();
    assert_eq!(map.commit(staged, height).unwrap(), root);
    root
}

/// One of many keys, uniform as those of the ledger are.
pub(crate) fn key(seed: u64) -> Key {
    HASH.value(&seed.to_be_bytes())
}

/// Few distinct keys with short and with very long shared prefixes, so that every shape of tree comes about.
pub(crate) fn keys() -> impl Strategy<Value = Key> {
    (0_u8..16, prop_oneof![Just(0_usize), Just(1), Just(5), Just(31)], 0_u8..4).prop_map(|(top, at, low)| {
        let mut key = [0_u8; 32];
        key[0] = top << 4;
        key[at] ^= low;
        key
    })
}
