//! The state tree's rules and proofs on the reference map, and forged proofs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use stele_merkle::state::reference::ReferenceMap;
use stele_merkle::state::{
    DEPTH_MAX, EMPTY, Key, PROOF_BYTES_MAX, Proof, ProofError, StateHash, Terminal, shared_bits,
};

const BOTH: [StateHash; 2] = [StateHash::Sha256, StateHash::Sm3];

/// Keys that are dense at the top and share long prefixes too, so that small sets reach every shape of tree.
fn keys() -> impl Strategy<Value = Key> {
    (0_u8..16, prop_oneof![Just(0_usize), Just(1), Just(30), Just(31)], 0_u8..4).prop_map(|(top, at, low)| {
        let mut key = [0_u8; 32];
        key[0] = top << 4;
        key[at] ^= low;
        key
    })
}

fn map(hash: StateHash, pairs: &[(Key, &[u8])]) -> ReferenceMap {
    let mut map = ReferenceMap::new(hash);
    for (key, value) in pairs {
        map.set(*key, Some(value.to_vec()));
    }
    map
}

#[test]
fn small_trees_have_the_roots_that_the_rules_say() {
    for hash in BOTH {
        let (low, high) = ([0x20; 32], [0xA0; 32]);
        let leaf = |key: &Key, value: &[u8]| hash.leaf(key, &hash.value(value));
        assert_eq!(map(hash, &[]).root(), EMPTY);
        assert_eq!(map(hash, &[(low, b"a")]).root(), leaf(&low, b"a"));
        let both = hash.node(&leaf(&low, b"a"), &leaf(&high, b"b"));
        assert_eq!(map(hash, &[(high, b"b"), (low, b"a")]).root(), both);
        // 0x20 and 0x30 part at bit 3, so three nodes with an empty side lie above their own.
        let near = [0x30; 32];
        let pair = hash.node(&leaf(&low, b"a"), &leaf(&near, b"c"));
        let deep = hash.node(&hash.node(&hash.node(&EMPTY, &pair), &EMPTY), &EMPTY);
        assert_eq!(map(hash, &[(low, b"a"), (near, b"c")]).root(), deep);
    }
}

#[test]
fn keys_that_differ_in_the_last_bit_have_the_deepest_proof() {
    for hash in BOTH {
        let mut twin = [0x55; 32];
        twin[31] ^= 1;
        let map = map(hash, &[([0x55; 32], b"a"), (twin, b"b")]);
        let proof = map.prove(&twin);
        assert_eq!(proof.siblings().len(), DEPTH_MAX);
        assert_eq!(proof.verify(hash, &map.root(), &twin, Some(b"b")), Ok(()));
        assert_eq!(Proof::decode(&proof.encode()), Ok(proof));
    }
    let widest =
        Proof::new(Terminal::Other { key: [1; 32], value_hash: [2; 32] }, vec![Some([3; 32]); DEPTH_MAX]).unwrap();
    assert_eq!(widest.encode().len(), PROOF_BYTES_MAX);
    assert_eq!(Proof::decode(&widest.encode()), Ok(widest));
}

#[test]
fn parts_that_are_not_canonical_make_no_proof() {
    let new = |siblings| Proof::new(Terminal::Own, siblings);
    assert_eq!(new(vec![Some([1; 32]), None]), Err(ProofError::EmptySibling));
    assert_eq!(new(vec![Some(EMPTY), Some([1; 32])]), Err(ProofError::EmptySibling));
    assert_eq!(new(vec![Some([1; 32]); 257]), Err(ProofError::Depth { depth: 257 }));
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    let proof = Proof::new(Terminal::Own, vec![Some([1; 32]), None, Some([2; 32])]).unwrap();
    let good = proof.encode();
    assert_eq!(good[..4], [1, 0, 3, 0b1010_0000]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Proof::decode(&bytes)
    };
    assert_eq!(with(0, 3), Err(ProofError::Terminal { kind: 3 }));
    assert_eq!(with(0, 2), Err(ProofError::Length { found: good.len() }));
    assert_eq!(with(1, 2), Err(ProofError::Depth { depth: 515 }));
    assert_eq!(with(3, 0b1010_0001), Err(ProofError::Bitmap));
    assert_eq!(with(3, 0b1100_0000), Err(ProofError::EmptySibling));
    assert_eq!(with(3, 0b1000_0000), Err(ProofError::Length { found: good.len() }));
    let mut zero = good.clone();
    zero[4..36].fill(0);
    assert_eq!(Proof::decode(&zero), Err(ProofError::EmptySibling));
    for length in 0..good.len() {
        assert!(Proof::decode(&good[..length]).is_err(), "{length} bytes");
    }
    assert!(Proof::decode(&[&good[..], &[0]].concat()).is_err());
    assert!(Proof::decode(&[&good[..], &[0; 32]].concat()).is_err());
}

/// Every forgery of an honest proof that needs no collision.
fn forgeries(proof: &Proof, key: &Key, value_hash: [u8; 32]) -> Vec<(&'static str, Option<Proof>)> {
    let (terminal, siblings) = (*proof.terminal(), proof.siblings());
    let make = |terminal, siblings: Vec<_>| Proof::new(terminal, siblings).ok();
    let mut all = vec![
        ("extended below", make(terminal, [siblings, &[Some([7; 32])]].concat())),
        ("extended above", make(terminal, [&[Some([7; 32])], siblings].concat())),
        ("extended above by an empty sibling", make(terminal, [&[None], siblings].concat())),
        ("own leaf as another's", make(Terminal::Other { key: *key, value_hash }, siblings.to_vec())),
    ];
    if terminal != Terminal::Empty {
        all.push(("a leaf left out", make(Terminal::Empty, siblings.to_vec())));
    }
    for at in 0..siblings.len() {
        all.push(("truncated below", make(terminal, siblings[..at].to_vec())));
        all.push(("truncated above", make(terminal, siblings[at + 1..].to_vec())));
        all.push(("stopped at an inner node", make(Terminal::Empty, siblings[..at].to_vec())));
        if at > 0 && siblings[at] != siblings[at - 1] {
            let mut swapped = siblings.to_vec();
            swapped.swap(at, at - 1);
            all.push(("swapped siblings", make(terminal, swapped)));
        }
        let mut changed = siblings.to_vec();
        changed[at] = match changed[at] {
            None => Some([7; 32]),
            Some(mut sibling) => {
                sibling[at % 32] ^= 1;
                Some(sibling)
            }
        };
        all.push(("changed sibling", make(terminal, changed.clone())));
        changed[at] = siblings[at].is_none().then_some([9; 32]);
        all.push(("sibling emptied or filled", make(terminal, changed)));
    }
    all
}

proptest! {
    // A case forges about a thousand proofs of up to 250 levels.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn proofs_of_every_key_verify_and_forgeries_do_not(
        pairs in proptest::collection::btree_map(keys(), proptest::collection::vec(any::<u8>(), 0..5), 0..12),
        absent in keys(),
        sm3: bool,
    ) {
        let hash = BOTH[usize::from(sm3)];
        let mut map = ReferenceMap::new(hash);
        for (key, value) in &pairs {
            map.set(*key, Some(value.clone()));
        }
        let root = map.root();
        let asked: BTreeSet<_> = pairs.keys().copied().chain([absent]).collect();
        for key in &asked {
            let proof = map.prove(key);
            let value = map.get(key);
            prop_assert_eq!(proof.verify(hash, &root, key, value), Ok(()));
            prop_assert_eq!(Proof::decode(&proof.encode()), Ok(proof.clone()));
            // The same proof says nothing else.
            prop_assert!(proof.verify(hash, &root, key, Some(b"another value")).is_err());
            prop_assert_eq!(proof.verify(hash, &[1; 32], key, value), Err(ProofError::Root));
            match value {
                Some(_) => prop_assert_eq!(proof.verify(hash, &root, key, None), Err(ProofError::Membership)),
                None => prop_assert_eq!(proof.verify(hash, &root, key, Some(b"")), Err(ProofError::Membership)),
            }
            let other_hash = BOTH[usize::from(!sm3)];
            prop_assert!(proof.verify(other_hash, &root, key, value).is_err() || root == EMPTY);
            // Presence cannot be proven with another key's leaf, nor absence with one's own.
            for other in asked.iter().filter(|other| *other != key) {
                if map.get(other).is_some() {
                    prop_assert!(proof.verify(hash, &root, other, map.get(other)).is_err());
                    let absent = proof.verify(hash, &root, other, None);
                    prop_assert!(absent.is_err(), "a present key proven absent");
                }
            }
            let value_hash = hash.value(value.unwrap_or_default());
            for (what, forged) in forgeries(&proof, key, value_hash) {
                if let Some(forged) = forged {
                    prop_assert!(forged.verify(hash, &root, key, value).is_err(), "{what}");
                    if value.is_some() {
                        prop_assert!(forged.verify(hash, &root, key, None).is_err(), "{what}: proves absence");
                    }
                }
            }
        }
    }

}

proptest! {
    #[test]
    fn order_and_detours_do_not_change_the_root(
        steps in proptest::collection::vec((keys(), proptest::option::of(0_u8..3)), 0..40),
    ) {
        let hash = StateHash::Sha256;
        let mut walked = ReferenceMap::new(hash);
        for (key, value) in &steps {
            walked.set(*key, value.map(|value| vec![value]));
        }
        let mut direct = ReferenceMap::new(hash);
        for (key, value) in walked.pairs().iter().rev() {
            direct.set(*key, Some(value.clone()));
        }
        prop_assert_eq!(direct.root(), walked.root());
    }

    #[test]
    fn different_sets_have_different_roots(
        left in proptest::collection::btree_map(keys(), 0_u8..3, 0..6),
        right in proptest::collection::btree_map(keys(), 0_u8..3, 0..6),
    ) {
        let root = |pairs: &std::collections::BTreeMap<Key, u8>| {
            let mut map = ReferenceMap::new(StateHash::Sm3);
            pairs.iter().for_each(|(key, value)| map.set(*key, Some(vec![*value])));
            map.root()
        };
        prop_assert_eq!(root(&left) == root(&right), left == right);
    }

    #[test]
    fn flipping_any_bit_of_a_proof_is_noticed(seed in 0_u8..255, flip in any::<proptest::sample::Index>()) {
        let hash = StateHash::Sha256;
        let mut map = ReferenceMap::new(hash);
        for index in 0..40_u8 {
            map.set(hash.value(&[seed, index]), Some(vec![index]));
        }
        let key = hash.value(&[seed, 7]);
        let good = map.prove(&key).encode();
        let bit = flip.index(good.len() * 8);
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(forged) = Proof::decode(&bytes) {
            prop_assert!(forged.verify(hash, &map.root(), &key, Some(&[7])).is_err());
            prop_assert!(forged.verify(hash, &map.root(), &key, None).is_err());
        }
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics_and_is_canonical(
        head in (0_u8..4, 0_u16..40), bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let bytes = [&[head.0][..], &head.1.to_be_bytes(), &bytes].concat();
        if let Ok(proof) = Proof::decode(&bytes) {
            prop_assert_eq!(proof.encode(), bytes);
        }
    }

    #[test]
    fn shared_bits_is_where_keys_part(left: Key, at in 0_usize..256) {
        let mut right = left;
        right[at / 8] ^= 0x80 >> (at % 8);
        prop_assert_eq!(shared_bits(&left, &right), at);
        prop_assert_eq!(shared_bits(&left, &left), 256);
    }
}
