//! Proofs about ranges and about many keys at once, on the reference map, and forged ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use proptest::sample::Index;
use stele_merkle::state::reference::ReferenceMap;
use stele_merkle::state::{
    Claim, EMPTY, Key, KeyRange, MULTI_KEYS_MAX, MultiProof, MultiProofWriter, ProofError, RANGE_DEPTH_MAX,
    RANGE_PROOF_BYTES_MAX, RangeContent, RangeEnd, RangeProof, StateHash,
};

const BOTH: [StateHash; 2] = [StateHash::Sha256, StateHash::Sm3];

/// Keys that are dense at the top and share long prefixes too, so that small sets reach every shape of tree.
fn keys() -> impl Strategy<Value = Key> {
    (0_u8..16, prop_oneof![Just(0_usize), Just(1), Just(3), Just(30), Just(31)], 0_u8..4).prop_map(|(top, at, low)| {
        let mut key = [0_u8; 32];
        key[0] = top << 4;
        key[at] ^= low;
        key
    })
}

fn maps() -> impl Strategy<Value = ReferenceMap> {
    (proptest::collection::btree_map(keys(), proptest::collection::vec(any::<u8>(), 0..5), 0..14), any::<bool>())
        .prop_map(|(pairs, sm3)| {
            let mut map = ReferenceMap::new(BOTH[usize::from(sm3)]);
            for (key, value) in pairs {
                map.set(key, Some(value));
            }
            map
        })
}

/// The hash function of a map made by [`maps`], found by what it proves.
fn hash_of(map: &ReferenceMap) -> StateHash {
    BOTH.into_iter()
        .find(|hash| map.prove(&[0; 32]).verify(*hash, &map.root(), &[0; 32], map.get(&[0; 32])) == Ok(()))
        .unwrap()
}

fn pairs_in(map: &ReferenceMap, range: KeyRange) -> Vec<(Key, &[u8])> {
    map.pairs().iter().filter(|(key, _)| range.contains(key)).map(|(key, value)| (*key, value.as_slice())).collect()
}

#[test]
fn ranges_of_a_depth_divide_all_keys() {
    assert_eq!(KeyRange::new(0, 0), Some(KeyRange::ALL));
    assert_eq!(KeyRange::new(3, 8), None);
    assert_eq!(KeyRange::new(RANGE_DEPTH_MAX + 1, 0), None);
    let range = KeyRange::new(12, 0xABC).unwrap();
    assert_eq!(range.first()[..3], [0xAB, 0xC0, 0]);
    for (key, inside) in [([0xAB; 32], false), ([0xFF; 32], false), (range.first(), true)] {
        assert_eq!(range.contains(&key), inside);
        assert_eq!(KeyRange::of(&key, 12) == Some(range), inside);
    }
    assert!(KeyRange::ALL.contains(&[0xFF; 32]));
    assert_eq!(KeyRange::of(&[0xFF; 32], 0), Some(KeyRange::ALL));
}

#[test]
fn the_widest_range_proof_round_trips() {
    let end = RangeEnd::Other { key: [1; 32], value_hash: [2; 32] };
    let widest = RangeProof::new(end, vec![Some([3; 32]); RANGE_DEPTH_MAX.into()]).unwrap();
    assert_eq!(widest.encode().len(), RANGE_PROOF_BYTES_MAX);
    assert_eq!(RangeProof::decode(&widest.encode()), Ok(widest));
    let deeper = RangeProof::new(RangeEnd::Subtree, vec![Some([3; 32]); usize::from(RANGE_DEPTH_MAX) + 1]);
    assert_eq!(deeper, Err(ProofError::Depth { depth: 49 }));
    assert_eq!(RangeProof::new(RangeEnd::Empty, vec![None]), Err(ProofError::EmptySibling));
    assert!(RangeProof::new(RangeEnd::Subtree, vec![None]).is_ok(), "a subtree may stand beside nothing");
    assert_eq!(RangeProof::new(RangeEnd::Subtree, vec![Some(EMPTY)]), Err(ProofError::EmptySibling));
}

#[test]
fn claims_are_bounded_and_ascending() {
    let map = ReferenceMap::new(StateHash::Sha256);
    let proof = map.prove_many(&[[1; 32]]);
    assert_eq!(proof.verify(StateHash::Sha256, &EMPTY, &[([1; 32], None)]), Ok(()));
    for claims in [vec![], vec![([1; 32], None); 2], vec![([2; 32], None), ([1; 32], None)]] {
        assert_eq!(proof.root(StateHash::Sha256, &claims), Err(ProofError::Claims));
    }
    let many: Vec<Claim<'_>> = (0..=MULTI_KEYS_MAX)
        .map(|index| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(index as u64).to_be_bytes());
            (key, None)
        })
        .collect();
    assert_eq!(proof.root(StateHash::Sha256, &many), Err(ProofError::Claims));
    assert_eq!(proof.root(StateHash::Sha256, &many[1..]), Ok(EMPTY));
}

#[test]
fn an_endless_descent_is_refused() {
    let mut writer = MultiProofWriter::default();
    (0..300).for_each(|_| writer.beside(&[7; 32]));
    writer.own();
    let proof = writer.finish().unwrap();
    let found = proof.root(StateHash::Sha256, &[([1; 32], Some(b"v"))]);
    assert_eq!(found, Err(ProofError::Depth { depth: 257 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_range_holds_what_its_proof_says_and_nothing_else(map in maps(), depth in 0_u8..=12, at: Index, extra in keys()) {
        let (hash, root) = (hash_of(&map), map.root());
        let range = KeyRange::new(depth, at.index(1 << depth) as u64).unwrap();
        let pairs = pairs_in(&map, range);
        let content = RangeContent::of(hash, range, &pairs).unwrap();
        let proof = map.prove_range(range);
        prop_assert_eq!(proof.verify(hash, &root, range, &content), Ok(()));
        prop_assert_eq!(RangeProof::decode(&proof.encode()), Ok(proof.clone()));
        prop_assert!(proof.encode().len() <= RANGE_PROOF_BYTES_MAX);
        // A pair left out, changed, or added.
        for left_out in 0..pairs.len() {
            let mut fewer = pairs.clone();
            fewer.remove(left_out);
            prop_assert!(proof.verify(hash, &root, range, &RangeContent::of(hash, range, &fewer).unwrap()).is_err());
            let mut other = pairs.clone();
            other[left_out].1 = b"another value";
            prop_assert!(proof.verify(hash, &root, range, &RangeContent::of(hash, range, &other).unwrap()).is_err());
        }
        if map.get(&extra).is_none() {
            let mut more = pairs.clone();
            more.push((extra, b"v"));
            more.sort_unstable();
            let more = RangeContent::of(hash, range, &more);
            prop_assert_eq!(more.is_err(), !range.contains(&extra));
            if let Ok(more) = more {
                prop_assert!(proof.verify(hash, &root, range, &more).is_err());
            }
        }
        // The proof of another range, unless both are empty and end at the same place.
        let next = KeyRange::new(depth, (range.index() + 1) % (1 << depth)).unwrap();
        if next != range && !(pairs.is_empty() && pairs_in(&map, next).is_empty()) {
            prop_assert!(map.prove_range(next).verify(hash, &root, range, &content).is_err());
        }
        // Half the range with the whole one's proof.
        if let Some(half) = KeyRange::new(depth + 1, range.index() * 2) {
            let halved = RangeContent::of(hash, half, &pairs_in(&map, half)).unwrap();
            if let RangeContent::Many { .. } = halved {
                prop_assert!(proof.verify(hash, &root, half, &halved).is_err());
            }
        }
    }

    #[test]
    fn a_changed_range_proof_is_noticed(map in maps(), depth in 0_u8..=12, at: Index, flip: Index) {
        let (hash, root) = (hash_of(&map), map.root());
        let range = KeyRange::new(depth, at.index(1 << depth) as u64).unwrap();
        let content = RangeContent::of(hash, range, &pairs_in(&map, range)).unwrap();
        let mut bytes = map.prove_range(range).encode();
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(forged) = RangeProof::decode(&bytes) {
            prop_assert!(forged.verify(hash, &root, range, &content).is_err());
        }
        bytes.pop();
        if let Ok(forged) = RangeProof::decode(&bytes) {
            prop_assert!(forged.verify(hash, &root, range, &content).is_err());
        }
    }

    #[test]
    fn many_keys_share_one_proof_and_lies_do_not_verify(
        map in maps(), asked in proptest::collection::btree_set(keys(), 1..10), flip: Index, also in keys(),
    ) {
        let (hash, root) = (hash_of(&map), map.root());
        let asked: Vec<Key> = asked.into_iter().collect();
        let claims: Vec<Claim<'_>> = asked.iter().map(|key| (*key, map.get(key))).collect();
        let proof = map.prove_many(&asked);
        prop_assert_eq!(proof.verify(hash, &root, &claims), Ok(()));
        prop_assert_eq!(MultiProof::decode(&proof.encode()), Ok(proof.clone()));
        let alone: usize = asked.iter().map(|key| map.prove(key).siblings().iter().flatten().count()).sum();
        let many = proof.encode();
        prop_assert!(many.len() <= asked.len() * (65 + 256) + alone * 33, "no longer than one by one");
        for at in 0..claims.len() {
            let mut lie = claims.clone();
            lie[at].1 = Some(b"another value");
            prop_assert!(proof.verify(hash, &root, &lie).is_err());
            if claims[at].1.is_some() {
                lie[at].1 = None;
                prop_assert!(proof.verify(hash, &root, &lie).is_err(), "a present key proven absent");
            }
        }
        // A key that was not asked for can at most be shown to be what it is.
        if let Err(place) = claims.binary_search_by(|(key, _)| key.cmp(&also)) {
            for value in [None, Some(&b"v"[..])] {
                let mut more = claims.clone();
                more.insert(place, (also, value));
                let shown = proof.verify(hash, &root, &more) == Ok(());
                prop_assert!(!shown || map.get(&also) == value);
            }
        }
        let mut forged = many.clone();
        let bit = flip.index(forged.len() * 8);
        forged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(forged) = MultiProof::decode(&forged) {
            prop_assert!(forged.verify(hash, &root, &claims).is_err());
        }
        for length in 0..many.len() {
            prop_assert!(MultiProof::decode(&many[..length]).is_err());
        }
        prop_assert!(MultiProof::decode(&[&many[..], &[0]].concat()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kinds in proptest::collection::vec(0_u8..6, 0..40)) {
        let claims: [Claim<'_>; 3] = [([0; 32], None), ([7; 32], Some(b"v")), ([0x80; 32], None)];
        for bytes in [bytes, kinds] {
            if let Ok(proof) = MultiProof::decode(&bytes) {
                prop_assert_eq!(proof.encode(), bytes.clone());
                let _ = proof.root(StateHash::Sha256, &claims);
            }
            if let Ok(proof) = RangeProof::decode(&bytes) {
                prop_assert_eq!(proof.encode(), bytes.clone());
                let _ = proof.root(StateHash::Sm3, KeyRange::ALL, &RangeContent::Empty);
            }
        }
    }
}
