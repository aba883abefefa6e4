//! A map with pages against the reference map, across checkpoints, opens and changes of layout.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use proptest::prelude::*;
use stele_merkle::state::reference::ReferenceMap;
use stele_state::{
    Figures, HistoryBounds, Key, Layout, Options, SnapshotReader, StateError, StateHash, StateMap, TreeMap, Write,
};
use tempfile::TempDir;

use crate::support::{HASH, commit, key, keys};

fn options() -> Options {
    // No pages stay in memory unless a test says so: everything is read back from the device.
    let options = Options { layout: Layout::Paged, page_cache_bytes: 0, ..Options::new(HASH) };
    Options { history: HistoryBounds { roots: 6, ..HistoryBounds::ROOTS }, ..options }
}

fn open(directory: &Path, options: Options) -> TreeMap {
    TreeMap::open(directory, options).unwrap().map
}

fn batch(range: std::ops::Range<u64>, value: impl Fn(u64) -> Option<Vec<u8>>) -> Vec<Write> {
    let mut writes: Vec<Write> = range.map(|seed| (key(seed), value(seed))).collect();
    writes.sort_unstable();
    writes
}

fn pairs(map: &TreeMap) -> Vec<(Key, Vec<u8>)> {
    map.iter().map(Result::unwrap).collect()
}

/// Values of which a page holds many, few, or one.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![0_usize..3, 400_usize..900, 1900_usize..2100, 4000_usize..=4096];
    (length, 0_u8..3).prop_map(|(length, byte)| vec![byte; length])
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Write>),
    Checkpoint,
    Export,
    /// Opens again, as a crash would: what was not copied is lost.
    Open(Layout),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = proptest::option::weighted(0.6, values());
    let batch = proptest::collection::btree_map(keys(), write, 0..24);
    let batch = batch.prop_map(|batch| Step::Batch(batch.into_iter().collect()));
    let layout = prop_oneof![6 => Just(Layout::Paged), 1 => Just(Layout::Memory), 2 => Just(Layout::Auto { keys: 8 })];
    let step = prop_oneof![
        8 => batch,
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Export),
        2 => layout.prop_map(Step::Open),
    ];
    proptest::collection::vec(step, 1..24)
}

proptest! {
    // The reference hashes everything for every root and proof.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_map_with_pages_is_the_reference_whatever_happens(steps in steps(), probe in keys(), cache: bool, small: bool) {
        let directory = TempDir::new().unwrap();
        let exports = TempDir::new().unwrap();
        let options = Options {
            page_cache_bytes: if cache { 1 << 20 } else { 0 },
            // A checkpoint at almost every commit, or none by itself.
            snapshot_log_bytes: if small { 1 } else { 1 << 30 },
            ..options()
        };
        let mut map = open(directory.path(), options);
        let mut model = ReferenceMap::new(HASH);
        let mut past: Vec<(u64, ReferenceMap, Vec<Key>)> = Vec::new();
        for step in steps {
            match step {
                Step::Batch(batch) => {
                    let asked: Vec<Key> = batch.iter().map(|(key, _)| *key).chain([probe]).collect();
                    for (key, value) in &batch {
                        model.set(*key, value.clone());
                    }
                    map.prefetch(&asked);
                    prop_assert_eq!(commit(&mut map, batch), model.root());
                    prop_assert_eq!(map.figures().keys, model.pairs().len() as u64);
                    prop_assert_eq!(map.figures().snapshot_failures, 0);
                    past.push((map.height().unwrap(), model.clone(), asked));
                }
                Step::Checkpoint => map.checkpoint().unwrap(),
                Step::Export => {
                    map.export(exports.path()).unwrap();
                }
                Step::Open(layout) => {
                    drop(map);
                    let opened = TreeMap::open(directory.path(), Options { layout, ..options }).unwrap();
                    prop_assert!(opened.recovery.snapshots_refused.is_empty());
                    prop_assert_eq!(opened.root, model.root());
                    map = opened.map;
                }
            }
            let expected: Vec<(Key, Vec<u8>)> = model.pairs().iter().map(|(k, v)| (*k, v.clone())).collect();
            let asked: Vec<Key> = expected.iter().rev().map(|(key, _)| *key).chain([probe, probe]).collect();
            let values = asked.iter().map(|key| model.get(key).map(<[u8]>::to_vec)).collect::<Vec<_>>();
            prop_assert_eq!(map.get_many(&asked).unwrap(), values);
            prop_assert_eq!(pairs(&map), expected);
            // Every retained height proves what it held, not what the newest holds.
            for (height, model, asked) in past.iter().rev().take_while(|(height, ..)| map.root_at(*height).is_some()) {
                let root = model.root();
                prop_assert_eq!(map.root_at(*height), Some(root));
                let keys: Vec<Key> =
                    asked.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
                for key in &keys {
                    let proven = map.prove(key, *height).unwrap();
                    prop_assert_eq!(proven.value.as_deref(), model.get(key));
                    prop_assert_eq!(&proven.proof, &model.prove(key));
                }
                let many = map.prove_many(&keys, *height).unwrap();
                prop_assert_eq!(&many.proof, &model.prove_many(&keys));
            }
        }
        let heights: Vec<u64> = past.iter().map(|(height, ..)| *height).collect();
        drop(map);
        for (height, path) in SnapshotReader::files(exports.path()).unwrap() {
            let reader = SnapshotReader::open(&path).unwrap();
            reader.check().unwrap();
            let at = heights.iter().position(|other| *other == height).unwrap();
            prop_assert_eq!(reader.root(), past[at].1.root());
        }
    }
}

#[test]
fn pages_hold_what_memory_would_and_take_less_of_it() {
    let directories = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut paged = open(directories[0].path(), options());
    let mut memory = open(directories[1].path(), Options { layout: Layout::Memory, ..options() });
    for round in 0..20_u64 {
        let value = |seed: u64| (seed % 7 != round % 7).then(|| vec![round.to_le_bytes()[0]; 100]);
        let writes = batch(round * 1000..round * 1000 + 5000, value);
        assert_eq!(commit(&mut paged, writes.clone()), commit(&mut memory, writes));
    }
    let figures = paged.figures();
    assert_eq!((figures.keys, memory.figures().pages), (memory.figures().keys, 0));
    let fill = figures.keys as f64 * 134.0 / (figures.pages * 4096) as f64;
    assert!(fill > 0.5, "pages are {fill} full");
    assert!(figures.pages_written > figures.pages && figures.pages_read > 0);
    assert_eq!(pairs(&paged), pairs(&memory));
}

#[test]
fn a_device_is_used_again_and_does_not_grow_for_ever() {
    let directory = TempDir::new().unwrap();
    let options = Options { snapshot_log_bytes: 1 << 20, ..options() };
    let mut map = open(directory.path(), options);
    let mut sizes = Vec::new();
    for round in 0..120_u8 {
        commit(&mut map, batch(0..3000, |_| Some(vec![round; 100])));
        let Figures { device_bytes, device_used_bytes, .. } = map.figures();
        assert!(device_used_bytes <= device_bytes);
        sizes.push(device_bytes);
    }
    assert!(map.figures().snapshot_height.is_some_and(|height| height > 60), "checkpoints go on");
    // How large it becomes depends on when the checkpoints are complete.
    let written = map.figures().pages_written * 4096;
    assert!(2 * sizes[119] < written, "{} bytes for {written} that were written", sizes[119]);
}

#[test]
fn an_open_after_a_checkpoint_redoes_the_log_since_then_only() {
    let directory = TempDir::new().unwrap();
    let mut map = open(directory.path(), options());
    commit(&mut map, batch(0..2000, |_| Some(vec![1; 100])));
    map.checkpoint().unwrap();
    let root = commit(&mut map, batch(1000..1010, |_| None));
    drop(map);
    let opened = TreeMap::open(directory.path(), options()).unwrap();
    assert_eq!((opened.root, opened.recovery.records_redone, opened.recovery.snapshot_height), (root, 1, Some(0)));
    assert_eq!(opened.map.figures().keys, 1990);
}

/// A map of several generations: the directory, its options, the newest root.
fn generations() -> (TempDir, Options, [u8; 32]) {
    let directory = TempDir::new().unwrap();
    let mut map = open(directory.path(), options());
    for round in 0..4_u8 {
        commit(&mut map, batch(0..3000, |_| Some(vec![round; 100])));
        map.checkpoint().unwrap();
    }
    let root = commit(&mut map, batch(0..10, |_| Some(vec![9; 100])));
    drop(map);
    (directory, options(), root)
}

fn files(directory: &Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    files.sort();
    files
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_damaged_table_is_passed_over_for_the_one_before() {
    let (directory, options, root) = generations();
    let tables = files(directory.path(), ".table");
    assert_eq!(tables.len(), 2, "two generations are kept");
    let size = std::fs::metadata(&tables[1]).unwrap().len();
    for at in [0, 30, 78, 79, 85, 200, size / 2, size - 1] {
        let damaged = TempDir::new().unwrap();
        copy(directory.path(), damaged.path());
        flip(&damaged.path().join(tables[1].file_name().unwrap()), at);
        let opened = TreeMap::open(damaged.path(), options).unwrap();
        assert_eq!(opened.root, root);
        assert_eq!(opened.recovery.snapshots_refused.len(), 1, "{:?}", opened.recovery);
        assert_eq!((opened.recovery.snapshot_height, opened.recovery.records_redone), (Some(2), 2));
        // Its pages are all still there.
        assert_eq!(pairs(&opened.map).len(), 3000);
    }
    std::fs::remove_file(&tables[1]).unwrap();
    assert_eq!(TreeMap::open(directory.path(), options).unwrap().root, root);
}

#[test]
fn a_table_that_ends_early_or_goes_on_is_refused() {
    let (directory, options, root) = generations();
    let table = files(directory.path(), ".table").pop().unwrap();
    let bytes = std::fs::read(&table).unwrap();
    for bytes in [&bytes[..bytes.len() - 1], &bytes[..40], &[], &[&bytes[..], &[0]].concat()] {
        std::fs::write(&table, bytes).unwrap();
        let opened = TreeMap::open(directory.path(), options).unwrap();
        assert_eq!((opened.root, opened.recovery.snapshots_refused.len()), (root, 1));
        std::fs::remove_file(table.with_extension("refused")).unwrap();
    }
}

#[test]
fn a_damaged_page_is_named_and_never_an_answer() {
    let (directory, options, _) = generations();
    let device = directory.path().join("pages.data");
    let map = open(directory.path(), options);
    let blocks = std::fs::metadata(&device).unwrap().len() / 4096;
    let expected = pairs(&map);
    drop(map);
    // The first page in use by the newest table is found by its content: one of its pairs' keys.
    let bytes = std::fs::read(&device).unwrap();
    let probe = expected[1500].0;
    let holds = |block: &&u64| {
        let from = usize::try_from(**block).unwrap() * 4096;
        bytes[from..from + 4096].windows(32).any(|window| window == probe)
    };
    let all: Vec<u64> = (1..blocks).collect();
    let damaged: Vec<u64> = all.iter().filter(holds).copied().collect();
    assert!(!damaged.is_empty());
    for block in &damaged {
        flip(&device, block * 4096 + 7);
    }
    let opened = TreeMap::open(directory.path(), options);
    let map = opened.unwrap().map;
    let Err(StateError::Corrupt { path, offset, .. }) = map.get(&probe) else { panic!("a damaged page was an answer") };
    assert_eq!((path, offset % 4096), (device, 0));
    assert!(damaged.contains(&(offset / 4096)));
    assert!(matches!(map.prove(&probe, map.height().unwrap()), Err(StateError::Corrupt { .. })));
    assert!(matches!(map.prove_many(&[probe], map.height().unwrap()), Err(StateError::Corrupt { .. })));
    let write = vec![(probe, Some(vec![1]))];
    assert!(matches!(map.stage(&map.root(), write), Err(StateError::Corrupt { .. })));
    assert!(map.iter().any(|pair| pair.is_err()));
    // The others are as they were.
    let found: Vec<(Key, Vec<u8>)> = map.iter().filter_map(Result::ok).collect();
    assert!(found.len() > 2900 && found.iter().all(|pair| expected.contains(pair)));
}

#[test]
fn the_tables_of_another_device_and_a_damaged_device_are_refused() {
    let (directory, options, root) = generations();
    let (other, ..) = generations();
    let device = directory.path().join("pages.data");
    let own = std::fs::read(&device).unwrap();
    std::fs::copy(other.path().join("pages.data"), &device).unwrap();
    let error = TreeMap::open(directory.path(), options).unwrap_err();
    assert!(error.to_string().contains("another device"), "{error}");
    std::fs::write(&device, &own[..4096 * 3]).unwrap();
    assert!(matches!(TreeMap::open(directory.path(), options), Err(StateError::NoBase { .. })));
    std::fs::write(&device, &own).unwrap();
    flip(&device, 12);
    assert!(matches!(TreeMap::open(directory.path(), options), Err(StateError::NoBase { .. })));
    flip(&device, 12);
    assert_eq!(TreeMap::open(directory.path(), options).unwrap().root, root);
    assert!(matches!(
        TreeMap::open(directory.path(), Options { hash: StateHash::Sm3, ..options }),
        Err(StateError::OtherHash { .. })
    ));
}

#[test]
fn a_map_moves_into_pages_and_back_without_a_change_of_its_root() {
    let directory = TempDir::new().unwrap();
    let memory = Options { layout: Layout::Memory, ..options() };
    let mut map = open(directory.path(), memory);
    let root = commit(&mut map, batch(0..5000, |seed| Some(vec![1; usize::from(seed.to_le_bytes()[0])])));
    map.checkpoint().unwrap();
    let expected = pairs(&map);
    drop(map);
    // By itself once it is large enough.
    let auto = |keys| Options { layout: Layout::Auto { keys }, ..options() };
    let map = open(directory.path(), auto(5001));
    assert_eq!((map.root(), map.figures().pages), (root, 0));
    drop(map);
    let mut map = open(directory.path(), auto(5000));
    assert!(map.figures().pages > 100);
    assert_eq!((map.root(), pairs(&map)), (root, expected.clone()));
    let root = commit(&mut map, batch(0..10, |_| None));
    map.checkpoint().unwrap();
    drop(map);
    // And stays there.
    let map = open(directory.path(), auto(1_000_000));
    assert!(map.figures().pages > 100);
    drop(map);
    let mut map = open(directory.path(), memory);
    assert_eq!((map.root(), map.figures().pages, map.figures().keys), (root, 0, 4990));
    for round in 0..3_u8 {
        commit(&mut map, batch(100..101, |_| Some(vec![round])));
        map.checkpoint().unwrap();
    }
    let root = map.root();
    drop(map);
    assert!(files(directory.path(), ".table").is_empty());
    let map = open(directory.path(), memory);
    assert_eq!((map.root(), directory.path().join("pages.data").exists()), (root, false));
}

#[test]
fn batches_beyond_the_cache_and_many_threads_lead_to_the_same_roots() {
    let roots = [1, 4].map(|threads| {
        let directory = TempDir::new().unwrap();
        let options = Options { threads, page_cache_bytes: 300 << 10, ..options() };
        let mut map = open(directory.path(), options);
        let mut roots = Vec::new();
        for round in 0..4_u64 {
            let value = |seed: u64| (seed % 5 != round).then(|| vec![round.to_le_bytes()[0]; 80]);
            roots.push(commit(&mut map, batch(round * 3000..round * 3000 + 12_000, value)));
        }
        map.checkpoint().unwrap();
        roots
    });
    assert_eq!(roots[0], roots[1]);
    let mut memory = TreeMap::ephemeral(HASH);
    for (round, root) in (0..4_u64).zip(&roots[0]) {
        let value = |seed: u64| (seed % 5 != round).then(|| vec![round.to_le_bytes()[0]; 80]);
        assert_eq!(commit(&mut memory, batch(round * 3000..round * 3000 + 12_000, value)), *root);
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// What a power cut leaves of writes that nobody waited for: of every sector the old content or the new.
fn torn(flushed: &[u8], written: &[u8], random: &mut impl FnMut() -> u64) -> Vec<u8> {
    const SECTOR_BYTES: usize = 512;
    let old = flushed.chunks(SECTOR_BYTES).map(Some).chain(std::iter::repeat(None));
    let sectors = written.chunks(SECTOR_BYTES).zip(old);
    let (all, none) = (random().is_multiple_of(8), random().is_multiple_of(8));
    sectors
        .flat_map(|(new, old)| {
            // A file that has grown is zero where it was not written.
            let lost = !all && (none || random().is_multiple_of(2));
            if lost { old.map_or_else(|| vec![0; new.len()], <[u8]>::to_vec) } else { new.to_vec() }
        })
        .collect()
}

#[test]
fn a_power_cut_between_checkpoints_loses_no_commit_whatever_it_leaves_of_the_pages() {
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let directory = TempDir::new().unwrap();
    let device = directory.path().join("pages.data");
    let mut model = ReferenceMap::new(HASH);
    // No older root keeps the blocks that the checkpoints need.
    let history = HistoryBounds { roots: 1, ..HistoryBounds::ROOTS };
    let mut blocks = 0;
    for round in 0..8_u64 {
        let mut map = open(directory.path(), Options { history, ..options() });
        map.checkpoint().unwrap();
        // A checkpoint waits for its writes and flushes them; what comes after it is nobody's promise.
        let flushed = std::fs::read(&device).unwrap();
        for step in 0..1 + random() % 4 {
            let from = random() % 3000;
            let writes = batch(from..from + 1000, |seed| {
                (!(seed + round + step).is_multiple_of(5))
                    .then(|| vec![seed.to_le_bytes()[0]; 20 + 30 * usize::from(round.to_le_bytes()[0])])
            });
            writes.iter().for_each(|(key, value)| model.set(*key, value.clone()));
            commit(&mut map, writes);
        }
        blocks += map.figures().pages_written;
        drop(map);
        let written = std::fs::read(&device).unwrap();
        for trial in 0..4 {
            let crashed = TempDir::new().unwrap();
            copy(directory.path(), crashed.path());
            std::fs::write(crashed.path().join("pages.data"), torn(&flushed, &written, &mut random)).unwrap();
            if trial == 3 {
                // The generation before is as good.
                let newest = files(crashed.path(), ".table").pop();
                newest.filter(|_| round > 1).into_iter().for_each(|table| std::fs::remove_file(table).unwrap());
            }
            let map = open(crashed.path(), options());
            assert_eq!(map.root(), model.root(), "round {round}, trial {trial}");
            let expected: Vec<(Key, Vec<u8>)> = model.pairs().iter().map(|(k, v)| (*k, v.clone())).collect();
            assert_eq!(pairs(&map), expected);
        }
    }
    let size = std::fs::metadata(&device).unwrap().len() / 4096;
    assert!(blocks > 2 * size, "{blocks} pages were written to {size} blocks: none of them twice");
}

#[test]
fn a_map_that_outgrows_the_memory_moves_into_pages_while_commits_go_on() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        layout: Layout::Auto { keys: 3000 },
        page_cache_bytes: 1 << 20,
        snapshot_log_bytes: 100_000,
        ..options()
    };
    let mut map = open(directory.path(), options);
    let mut model = TreeMap::ephemeral(HASH);
    let (mut moved, mut round) = (None, 0_u64);
    while moved.is_none_or(|at| round < at + 40) {
        let writes = batch(round * 20..round * 20 + 100, |seed| {
            (!(seed + round).is_multiple_of(3)).then(|| vec![round.to_le_bytes()[0]; 60])
        });
        assert_eq!(commit(&mut map, writes.clone()), commit(&mut model, writes), "round {round}");
        if moved.is_none() && map.figures().pages > 0 {
            moved = Some(round);
            // What was retained by the new tree is proven by it.
            for height in (0..round).rev().take_while(|height| map.root_at(*height).is_some()) {
                let (key, root) = (key(round * 20), map.root_at(height).unwrap());
                let proven = map.prove(&key, height).unwrap();
                assert_eq!(proven.proof.verify(HASH, &root, &key, proven.value.as_deref()), Ok(()));
            }
        }
        round += 1;
        assert!(round < 5000, "{} keys and still in memory", map.figures().keys);
        // The thread that moves has to come to its turn.
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    assert_eq!(map.figures().snapshot_failures, 0);
    assert!(pairs(&map) == pairs(&model));
    assert!(!files(directory.path(), ".table").is_empty(), "a table was written");
    drop(map);
    let opened = TreeMap::open(directory.path(), options).unwrap();
    assert_eq!(opened.root, model.root());
    assert!(opened.recovery.snapshots_refused.is_empty() && opened.map.figures().pages > 0);
}

#[test]
fn a_move_that_is_cut_off_or_has_no_room_leaves_the_map_as_it_is() {
    let directory = TempDir::new().unwrap();
    let options = Options { layout: Layout::Auto { keys: 1000 }, snapshot_log_bytes: 1, ..options() };
    let mut map = open(directory.path(), options);
    // Nothing can be created where a directory stands that is not empty.
    std::fs::create_dir_all(directory.path().join("pages.data").join("taken")).unwrap();
    commit(&mut map, batch(0..2000, |_| Some(vec![1; 60])));
    for round in 0..20_u8 {
        commit(&mut map, batch(0..10, |_| Some(vec![round])));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(map.figures().snapshot_failures > 0);
    assert_eq!((map.figures().pages, pairs(&map).len()), (0, 2000));
    std::fs::remove_dir_all(directory.path().join("pages.data")).unwrap();
    // Dropped in the middle of it: whatever is there, the next open finds the newest state.
    for round in 0..8_u8 {
        let root = commit(&mut map, batch(0..10, |_| Some(vec![round; 2])));
        if round % 2 == 0 {
            map.checkpoint().unwrap();
        }
        drop(map);
        let opened = TreeMap::open(directory.path(), options).unwrap();
        assert_eq!(opened.root, root);
        assert!(opened.recovery.snapshots_refused.is_empty());
        map = opened.map;
    }
}
