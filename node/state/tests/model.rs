//! The engine against the reference map: roots, values, proofs, history.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use stele_merkle::Hash;
use stele_merkle::state::reference::ReferenceMap;
use stele_merkle::state::{EMPTY, Proof, Terminal, key_bit};
use stele_state::{
    Durability, HistoryBounds, Key, Layout, Options, StateError, StateHash, StateMap, TreeMap, VALUE_BYTES_MAX, Write,
};

use crate::support::{HASH, commit, key, keys};

const HISTORY_ROOTS_MAX: usize = HistoryBounds::DEFAULT.roots;
const BOTH: [StateHash; 2] = [StateHash::Sha256, StateHash::Sm3];

fn batches() -> impl Strategy<Value = Vec<Vec<Write>>> {
    let value = proptest::option::weighted(0.6, proptest::collection::vec(0_u8..3, 0..3));
    let batch = proptest::collection::btree_map(keys(), value, 0..24).prop_map(|batch| batch.into_iter().collect());
    proptest::collection::vec(batch, 1..10)
}

proptest! {
    // The reference hashes everything for every root and proof.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_batch_leads_to_the_reference_root_and_proofs(batches in batches(), sm3: bool, probe in keys()) {
        let hash = BOTH[usize::from(sm3)];
        let mut map = TreeMap::ephemeral(hash);
        let mut model = ReferenceMap::new(hash);
        let mut past = Vec::new();
        for batch in batches {
            let asked: Vec<Key> = batch.iter().map(|(key, _)| *key).chain([probe]).collect();
            for (key, value) in &batch {
                model.set(*key, value.clone());
            }
            let root = commit(&mut map, batch);
            prop_assert_eq!(root, model.root());
            prop_assert_eq!(map.figures().keys, model.pairs().len() as u64);
            let pairs: Vec<(Key, Vec<u8>)> = map.iter().map(Result::unwrap).collect();
            let expected: Vec<(Key, Vec<u8>)> = model.pairs().iter().map(|(k, v)| (*k, v.clone())).collect();
            prop_assert_eq!(pairs, expected);
            past.push((map.height().unwrap(), model.clone(), asked));
        }
        // Every retained height proves what it held, not what the newest holds.
        for (height, model, asked) in &past {
            let root = model.root();
            prop_assert_eq!(map.root_at(*height), Some(root));
            for key in asked {
                let proven = map.prove(key, *height).unwrap();
                prop_assert_eq!(proven.value.as_deref(), model.get(key));
                prop_assert_eq!(&proven.proof, &model.prove(key));
                prop_assert_eq!(proven.proof.verify(hash, &root, key, model.get(key)), Ok(()));
            }
            // One proof for all of them is the reference's, too.
            let keys: Vec<Key> = asked.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
            let many = map.prove_many(&keys, *height).unwrap();
            prop_assert_eq!(&many.proof, &model.prove_many(&keys));
            let claims: Vec<_> = keys.iter().zip(&many.values).map(|(key, value)| (*key, value.as_deref())).collect();
            prop_assert_eq!(many.proof.verify(hash, &root, &claims), Ok(()));
        }
    }

    #[test]
    fn how_writes_are_batched_does_not_change_the_root(batches in batches()) {
        let mut by_batch = TreeMap::ephemeral(StateHash::Sha256);
        let mut one_by_one = TreeMap::ephemeral(StateHash::Sha256);
        for batch in batches {
            for write in batch.iter().rev() {
                commit(&mut one_by_one, vec![write.clone()]);
            }
            commit(&mut by_batch, batch);
            prop_assert_eq!(by_batch.root(), one_by_one.root());
        }
    }
}

#[test]
fn deleting_everything_leads_back_to_the_empty_root_and_frees_the_memory() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    let mut keys: Vec<Key> = (0..5_000).map(key).collect();
    keys.sort_unstable();
    for round in 0..5_u8 {
        commit(&mut map, keys.iter().map(|key| (*key, Some(vec![round; 100]))).collect());
        commit(&mut map, keys.iter().map(|key| (*key, None)).collect());
        assert_eq!(map.root(), [0; 32]);
        assert_eq!(map.figures().keys, 0);
    }
    let held = map.figures().memory_bytes;
    for _ in 0..3 * HISTORY_ROOTS_MAX {
        commit(&mut map, Vec::new());
    }
    let figures = map.figures();
    commit(&mut map, keys.iter().map(|key| (*key, Some(vec![5; 100]))).collect());
    assert!(map.figures().memory_bytes <= held + held / 10, "what old roots held is used again");
    assert_eq!(figures.history_bytes, 0);
}

#[test]
fn memory_is_bounded_under_endless_updates() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    let mut keys: Vec<Key> = (0..500).map(key).collect();
    keys.sort_unstable();
    let mut after_warming = 0;
    for round in 0..600_u32 {
        let value = round.to_be_bytes().repeat(10);
        commit(&mut map, keys.iter().step_by(7).map(|key| (*key, Some(value.clone()))).collect());
        if round == 200 {
            after_warming = map.figures().memory_bytes;
        }
    }
    assert_eq!(map.figures().roots, HISTORY_ROOTS_MAX as u64);
    assert!(map.figures().memory_bytes <= after_warming + after_warming / 50);
}

#[test]
fn only_the_newest_roots_are_provable() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    for round in 0..300_u64 {
        commit(&mut map, vec![(key(round % 10), Some(round.to_be_bytes().to_vec()))]);
    }
    for height in 0..300 {
        let provable = height + HISTORY_ROOTS_MAX as u64 >= 300;
        assert_eq!(map.root_at(height).is_some(), provable, "{height}");
        match map.prove(&key(height % 10), height) {
            Ok(proven) => {
                assert!(provable);
                assert_eq!(proven.value, Some(height.to_be_bytes().to_vec()));
                let value = proven.value.as_deref();
                let root = map.root_at(height).unwrap();
                assert_eq!(proven.proof.verify(StateHash::Sha256, &root, &key(height % 10), value), Ok(()));
            }
            Err(error) => assert!(!provable && error.code() == "state_unknown_height", "{error}"),
        }
    }
    assert!(matches!(map.prove(&key(0), 300), Err(StateError::UnknownHeight { height: 300 })));
}

#[test]
fn staging_has_no_side_effects_and_stale_batches_are_refused() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    commit(&mut map, vec![(key(1), Some(b"one".to_vec()))]);
    let (root, figures) = (map.root(), map.figures());
    let first = map.stage(&root, vec![(key(1), Some(b"two".to_vec()))]).unwrap();
    let second = map.stage(&root, vec![(key(1), None)]).unwrap();
    assert_ne!(first.root(), second.root());
    assert_eq!(TreeMap::staged_root(&second), [0; 32]);
    assert_eq!((map.root(), map.figures()), (root, figures));
    assert_eq!(map.get(&key(1)).unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(map.get_many(&[key(1), key(2)]).unwrap(), [Some(b"one".to_vec()), None]);
    map.commit(first, 1).unwrap();
    assert!(matches!(map.commit(second, 2), Err(StateError::Stale)));
    assert!(matches!(map.stage(&root, Vec::new()), Err(StateError::UnknownParent)));
    // The same root again, but another commit in between: the nodes that the batch refers to may be gone.
    let staged = map.stage(&map.root(), vec![(key(9), Some(Vec::new()))]).unwrap();
    commit(&mut map, Vec::new());
    assert!(matches!(map.commit(staged, 5), Err(StateError::Stale)));
}

#[test]
fn writes_that_break_the_contract_are_refused() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    let root = map.root();
    let put = |key: u8, length: usize| ([key; 32], Some(vec![0; length]));
    let code = |result: Result<_, StateError>| result.map(drop).unwrap_err().code();
    assert_eq!(code(map.stage(&root, vec![put(2, 1), put(1, 1)])), "state_unsorted");
    assert_eq!(code(map.stage(&root, vec![put(1, 1), put(1, 1)])), "state_unsorted");
    assert_eq!(code(map.stage(&root, vec![put(1, VALUE_BYTES_MAX + 1)])), "state_value_too_long");
    let staged = map.stage(&root, vec![put(1, VALUE_BYTES_MAX)]).unwrap();
    map.commit(staged, 7).unwrap();
    for height in [0, 6, 7] {
        let staged = map.stage(&map.root(), Vec::new()).unwrap();
        assert!(matches!(map.commit(staged, height), Err(StateError::Height { newest: 7, .. })));
    }
    let staged = map.stage(&map.root(), Vec::new()).unwrap();
    map.commit(staged, 9).unwrap();
    assert_eq!(map.height(), Some(9));
    assert_eq!(map.root_at(8), None);
}

#[test]
fn writing_what_is_there_already_changes_nothing() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    let mut writes: Vec<Write> = (0..100).map(|seed| (key(seed), Some(seed.to_be_bytes().to_vec()))).collect();
    writes.sort_unstable();
    let root = commit(&mut map, writes.clone());
    writes.push(([0xFF; 32], None));
    assert_eq!(commit(&mut map, writes), root);
    let absent = (100..200).map(|seed| (key(seed), None));
    let mut absent: Vec<Write> = absent.collect();
    absent.sort_unstable();
    assert_eq!(commit(&mut map, absent), root);
    assert_eq!(map.figures().batch_nodes, 0, "deleting what is absent adds no node");
}

#[test]
fn several_threads_stage_what_one_does() {
    let batch = |height: u64| -> Vec<Write> {
        let value = |seed: u64| (!(seed ^ height).is_multiple_of(5)).then(|| seed.to_be_bytes().repeat(4));
        let writes = (0..20_000).map(|seed| (key(seed * (height + 1) % 30_000), value(seed)));
        writes.collect::<BTreeMap<_, _>>().into_iter().collect()
    };
    let directory = tempfile::TempDir::new().unwrap();
    let options = Options { threads: 8, ..Options::new(StateHash::Sha256) };
    let mut threads = TreeMap::open(directory.path(), options).unwrap().map;
    let mut one = TreeMap::ephemeral(StateHash::Sha256);
    for height in 0..6 {
        assert_eq!(commit(&mut threads, batch(height)), commit(&mut one, batch(height)));
    }
    assert!(threads.iter().map(Result::unwrap).eq(one.iter().map(Result::unwrap)));
}

#[test]
fn a_proof_about_many_keys_is_asked_for_in_order_and_in_bounds() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    let mut keys: Vec<Key> = (0..20_000).map(key).collect();
    keys.sort_unstable();
    commit(&mut map, keys.iter().map(|key| (*key, Some(vec![1; 40]))).collect());
    let code = |keys: &[Key]| map.prove_many(keys, 0).map(drop).unwrap_err().code();
    assert_eq!(code(&[]), "state_keys");
    assert_eq!(code(&keys[..1025]), "state_keys");
    assert_eq!(code(&[keys[1], keys[0]]), "state_unsorted");
    assert!(matches!(map.prove_many(&keys[..1], 1), Err(StateError::UnknownHeight { height: 1 })));
    // Neighbours share nearly all of their paths, and even scattered keys share the top.
    for (asked, most) in [(keys[..256].to_vec(), 15), (keys.iter().copied().step_by(80).collect(), 65)] {
        let alone: usize = asked.iter().map(|key| map.prove(key, 0).unwrap().proof.encode().len()).sum();
        let together = map.prove_many(&asked, 0).unwrap().proof.encode().len();
        assert!(together * 100 <= alone * most, "{together} bytes instead of {alone}");
    }
}

/// Longer than the property tests: a map that grows, shrinks and is rewritten at random over many commits.
#[test]
fn a_long_random_walk_stays_equal_to_the_reference() {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    let mut model = ReferenceMap::new(StateHash::Sha256);
    let mut state = 42_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..120_u64 {
        let mut batch = BTreeMap::new();
        let deletions = if round / 20 % 2 == 0 { 2 } else { 8 };
        for _ in 0..random(400) {
            let value = (random(10) >= deletions).then(|| vec![1; usize::try_from(random(50)).unwrap()]);
            batch.insert(key(random(2_000)), value);
        }
        for (key, value) in &batch {
            model.set(*key, value.clone());
        }
        assert_eq!(commit(&mut map, batch.into_iter().collect()), model.root(), "round {round}");
    }
    let height = map.height().unwrap();
    for seed in 0..40 {
        assert_eq!(map.prove(&key(seed), height).unwrap().proof, model.prove(&key(seed)));
    }
    assert!(map.iter().map(Result::unwrap).eq(model.pairs().clone()));
}

/// A tree built anew from all pairs, without any cleverness: what the engine's roots and proofs are compared with where the
/// reference, which hashes everything for every proof, would take days.
enum Naive {
    Empty,
    Leaf(Key, Hash),
    Node(Hash, Box<[Naive; 2]>),
}

impl Naive {
    fn of(leaves: &[(Key, Hash)], depth: usize) -> Self {
        match leaves {
            [] => Self::Empty,
            [(key, hash)] => Self::Leaf(*key, *hash),
            leaves => {
                let (left, right) = leaves.split_at(leaves.partition_point(|(key, _)| !key_bit(key, depth)));
                let sides = [Self::of(left, depth + 1), Self::of(right, depth + 1)];
                Self::Node(HASH.node(&sides[0].hash(), &sides[1].hash()), Box::new(sides))
            }
        }
    }

    fn hash(&self) -> Hash {
        match self {
            Self::Empty => EMPTY,
            Self::Leaf(_, hash) | Self::Node(hash, _) => *hash,
        }
    }

    fn prove(&self, key: &Key, value_hash: impl Fn(&Key) -> Hash) -> Proof {
        let (mut node, mut siblings) = (self, Vec::new());
        while let Self::Node(_, sides) = node {
            let side = usize::from(key_bit(key, siblings.len()));
            let sibling = sides[1 - side].hash();
            siblings.push((sibling != EMPTY).then_some(sibling));
            node = &sides[side];
        }
        let terminal = match node {
            Self::Leaf(own, _) if own == key => Terminal::Own,
            Self::Leaf(other, _) => Terminal::Other { key: *other, value_hash: value_hash(other) },
            _ => Terminal::Empty,
        };
        Proof::new(terminal, siblings).unwrap()
    }
}

/// A million random inserts, updates and deletes in the slow tier: after every thousand the root of the naive tree, and its
/// proofs of a thousand keys, in memory and in pages.
#[test]
fn many_random_operations_lead_to_the_roots_and_proofs_of_a_naive_tree() {
    const BATCH: u64 = 1_000;
    let slow = std::env::var_os("STELE_SLOW").is_some();
    let batches: u64 = if slow { 1_000 } else { 30 };
    let keys = batches * BATCH / 3;
    let mut seed = 1_u64;
    let mut random = move |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 20) % bound
    };
    let directory = tempfile::TempDir::new().unwrap();
    let paged = Options { layout: Layout::Paged, page_cache_bytes: 8 << 20, ..Options::new(HASH) };
    let paged = Options { durability: Durability::None, snapshot_log_bytes: 8 << 20, ..paged };
    let mut maps = [TreeMap::ephemeral(HASH), TreeMap::open(directory.path(), paged).unwrap().map];
    let mut model: BTreeMap<Key, (Vec<u8>, Hash)> = BTreeMap::new();
    for round in 0..batches {
        let write = |_| {
            let value = (random(10) < 7)
                .then(|| (0..random(64)).map(|byte| (byte ^ round).to_le_bytes()[0]).collect::<Vec<u8>>());
            (key(random(keys)), value)
        };
        let writes: BTreeMap<Key, Option<Vec<u8>>> = (0..BATCH).map(write).collect();
        for (key, value) in &writes {
            match value {
                Some(value) => model.insert(*key, (value.clone(), HASH.leaf(key, &HASH.value(value)))),
                None => model.remove(key),
            };
        }
        let leaves: Vec<(Key, Hash)> = model.iter().map(|(key, (_, hash))| (*key, *hash)).collect();
        let naive = Naive::of(&leaves, 0);
        for map in &mut maps {
            assert_eq!(commit(map, writes.clone().into_iter().collect()), naive.hash(), "batch {round}");
        }
        for _ in 0..BATCH {
            let key = key(random(keys * 2));
            let expected = naive.prove(&key, |key| HASH.value(&model[key].0));
            for map in &maps {
                let proven = map.prove(&key, round).unwrap();
                assert_eq!(proven.value.as_ref(), model.get(&key).map(|(value, _)| value));
                assert_eq!(proven.proof, expected);
            }
        }
    }
    assert!(model.len() as u64 > keys / 3);
}
