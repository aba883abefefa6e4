//! Crashes, torn writes and damaged files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use stele_state::{
    Durability, Hash, HistoryBounds, Key, Opened, Options, StateError, StateHash, StateMap, TreeMap, Write,
};
use tempfile::TempDir;

const OPTIONS: Options = Options::new(StateHash::Sha256);

fn open(directory: &Path, options: Options) -> Opened<TreeMap> {
    TreeMap::open(directory, options).unwrap()
}

fn key(seed: u64) -> Key {
    StateHash::Sha256.value(&seed.to_be_bytes())
}

/// A batch that depends on nothing but its height: some new keys, some rewritten, some deleted.
fn batch(height: u64) -> Vec<Write> {
    let mut batch = BTreeMap::new();
    for offset in 0..8 {
        batch.insert(key(height * 4 + offset), Some(height.to_be_bytes().repeat(3)));
    }
    batch.insert(key(height), None);
    batch.into_iter().collect()
}

fn commit(map: &mut TreeMap, height: u64) -> Hash {
    let staged = map.stage(&map.root(), batch(height)).unwrap();
    map.commit(staged, height).unwrap()
}

/// Roots after each height from a map without files.
fn roots(heights: u64) -> Vec<Hash> {
    let mut map = TreeMap::ephemeral(StateHash::Sha256);
    (0..heights).map(|height| commit(&mut map, height)).collect()
}

fn files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn commits_above_the_greatest_height_wanted_are_dropped_and_can_be_made_again() {
    let roots = roots(40);
    for (durability, snapshot_log_bytes) in
        [(Durability::Sync, u64::MAX), (Durability::None, u64::MAX), (Durability::None, 2_000)]
    {
        let options = Options { durability, snapshot_log_bytes, ..OPTIONS };
        let directory = TempDir::new().unwrap();
        let mut map = open(directory.path(), options).map;
        for height in 0..40 {
            commit(&mut map, height);
        }
        map.sync().unwrap();
        drop(map);
        for max in [39, 38, 37, 30] {
            let copy = copy(directory.path());
            let opened = open(copy.path(), Options { height_max: Some(max), ..options });
            assert_eq!((opened.height, opened.root), (Some(max), roots[usize::try_from(max).unwrap()]));
            assert_eq!(opened.recovery.bytes_dropped, 0);
            let mut map = opened.map;
            for height in max + 1..40 {
                assert_eq!(commit(&mut map, height), roots[usize::try_from(height).unwrap()]);
            }
            map.sync().unwrap();
            drop(map);
            let again = open(copy.path(), options);
            assert_eq!((again.height, again.root), (Some(39), roots[39]));
        }
    }
}

#[test]
fn a_new_directory_opens_empty_and_a_reopened_one_where_it_was() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state");
    let opened = open(&path, OPTIONS);
    assert_eq!((opened.height, opened.root), (None, [0; 32]));
    let mut map = opened.map;
    for height in 0..20 {
        commit(&mut map, height);
    }
    let pairs: Vec<_> = map.iter().map(Result::unwrap).collect();
    drop(map);
    let opened = open(&path, OPTIONS);
    assert_eq!((opened.height, opened.root), (Some(19), roots(20)[19]));
    assert_eq!(opened.recovery.records_redone, 20);
    assert!(opened.map.iter().map(Result::unwrap).eq(pairs));
    // Roots that the redone log passed are provable again.
    let proven = opened.map.prove(&key(40), 15).unwrap();
    assert_eq!(proven.proof.verify(StateHash::Sha256, &roots(16)[15], &key(40), proven.value.as_deref()), Ok(()));
}

/// Values that are not in memory come from the log, then from the snapshot, and are what they were in every version.
#[test]
fn values_out_of_memory_come_from_their_files_through_snapshots_and_restarts() {
    for values_memory_bytes in [0, 500, 1 << 20] {
        let directory = TempDir::new().unwrap();
        let options = Options { values_memory_bytes, snapshot_log_bytes: 3_000, ..OPTIONS };
        let mut map = open(directory.path(), options).map;
        let mut model = TreeMap::ephemeral(StateHash::Sha256);
        let mut snapshots = std::collections::BTreeSet::new();
        let mut proven = 0;
        for height in 0..400 {
            assert_eq!(commit(&mut map, height), commit(&mut model, height));
            snapshots.extend(map.figures().snapshot_height);
            if height % 37 == 0 {
                assert!(map.iter().map(Result::unwrap).eq(model.iter().map(Result::unwrap)), "{height}");
            }
            for back in [1, 20, 100, 127] {
                // A restart forgets what lies below the snapshot that it began with.
                let Some(past) = height.checked_sub(back).filter(|past| map.root_at(*past).is_some()) else { continue };
                proven += 1;
                let (found, expected) = (map.prove(&key(past * 4), past).unwrap(), model.prove(&key(past * 4), past));
                assert_eq!(found, expected.unwrap(), "{past} at {height}");
            }
            if matches!(height % 90, 0 | 30) {
                // Beside those that begin by themselves, of which a busy machine ends few.
                map.checkpoint().unwrap();
                snapshots.extend(map.figures().snapshot_height);
            }
            if height % 90 == 89 {
                drop(map);
                map = open(directory.path(), options).map;
            }
        }
        assert!(snapshots.len() > 5 && proven > 800, "{snapshots:?}, {proven} proofs");
        assert!(map.figures().snapshot_failures == 0);
    }
}

#[test]
fn a_damaged_value_is_an_error_and_never_an_answer() {
    let directory = TempDir::new().unwrap();
    let options = Options { values_memory_bytes: 0, ..OPTIONS };
    let mut map = open(directory.path(), options).map;
    commit(&mut map, 0);
    assert_eq!(map.get(&key(1)).unwrap(), Some(vec![0; 24]));
    let log = files(directory.path(), "writes-").pop().unwrap();
    let content = fs::read(&log).unwrap();
    let at = content.windows(32).position(|window| window == key(1)).unwrap() + 34;
    let mut damaged = content.clone();
    damaged[at] ^= 1;
    // In place: the map has the file open.
    fs::write(&log, &damaged).unwrap();
    let error = map.get(&key(1)).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { offset, .. } if offset == at as u64), "{error}");
    assert!(map.prove(&key(1), 0).is_err() && map.iter().any(|pair| pair.is_err()));
    assert!(map.get(&key(2)).is_ok(), "other values are served");
    fs::write(&log, &content).unwrap();
    assert_eq!(map.get(&key(1)).unwrap(), Some(vec![0; 24]));
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = TempDir::new().unwrap();
    let first = open(directory.path(), OPTIONS);
    assert!(matches!(TreeMap::open(directory.path(), OPTIONS), Err(StateError::Locked { .. })));
    drop(first);
    open(directory.path(), OPTIONS);
}

#[test]
fn another_hash_function_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut map = open(directory.path(), OPTIONS).map;
    commit(&mut map, 0);
    let other = Options::new(StateHash::Sm3);
    drop(map);
    assert!(matches!(TreeMap::open(directory.path(), other), Err(StateError::OtherHash { .. })));
    let mut map = open(directory.path(), OPTIONS).map;
    map.checkpoint().unwrap();
    drop(map);
    assert!(matches!(TreeMap::open(directory.path(), other), Err(StateError::OtherHash { .. })));
}

/// A crash can leave any prefix of the last write. Whatever it is, the map opens at the last whole record, and goes on.
#[test]
fn a_log_cut_at_any_byte_opens_at_the_last_whole_record() {
    for (durability, step) in [(Durability::Sync, 1), (Durability::None, 13)] {
        let options = Options { durability, ..OPTIONS };
        let directory = TempDir::new().unwrap();
        let mut map = open(directory.path(), options).map;
        let mut ends = Vec::new();
        let log = files(directory.path(), "writes-").remove(0);
        let start = fs::metadata(&log).unwrap().len();
        for height in 0..4 {
            commit(&mut map, height);
            ends.push(fs::metadata(&log).unwrap().len());
        }
        drop(map);
        let roots = roots(5);
        let content = fs::read(&log).unwrap();
        for length in (start..ends[1]).step_by(29).chain((ends[1]..=ends[3]).step_by(step)) {
            fs::write(&log, &content[..usize::try_from(length).unwrap()]).unwrap();
            let mut opened = open(directory.path(), options);
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(opened.height, (whole as u64).checked_sub(1), "cut at {length}");
            let expected = whole.checked_sub(1).map_or([0; 32], |last| roots[last]);
            assert_eq!(opened.root, expected, "cut at {length}");
            let whole_end = whole.checked_sub(1).map_or(start, |last| ends[last]);
            assert_eq!(opened.recovery.bytes_dropped, length - whole_end);
            // The rest is gone for good, and the log goes on behind the last whole record.
            if length % 97 == 0 {
                assert_eq!(commit(&mut opened.map, whole as u64), roots[whole]);
                drop(opened);
                assert_eq!(open(directory.path(), options).height, Some(whole as u64));
            }
        }
    }
}

/// A page of the last record that never reached the disk reads as zeros, or as anything.
#[test]
fn a_last_record_with_holes_is_dropped_and_damage_before_it_is_an_error() {
    let directory = TempDir::new().unwrap();
    let mut map = open(directory.path(), OPTIONS).map;
    let log = files(directory.path(), "writes-").remove(0);
    let mut ends = vec![usize::try_from(fs::metadata(&log).unwrap().len()).unwrap()];
    for height in 0..4 {
        commit(&mut map, height);
        ends.push(usize::try_from(fs::metadata(&log).unwrap().len()).unwrap());
    }
    drop(map);
    let content = fs::read(&log).unwrap();
    let roots = roots(4);
    for at in (ends[0]..content.len()).step_by(3) {
        let mut damaged = content.clone();
        damaged[at] ^= 0x41;
        fs::write(&log, &damaged).unwrap();
        let opened = TreeMap::open(directory.path(), OPTIONS);
        if at >= ends[3] {
            let opened = opened.unwrap();
            assert_eq!((opened.height, opened.root), (Some(2), roots[2]), "byte {at}");
        } else {
            let error = opened.unwrap_err();
            assert!(matches!(error, StateError::Corrupt { .. }), "byte {at}: {error}");
            assert!(error.is_fatal());
        }
    }
    for (from, to) in [(ends[3], ends[3] + 92), (ends[3] + 92, ends[4]), (ends[3] + 50, ends[4])] {
        let mut holes = content.clone();
        holes[from..to].fill(0);
        fs::write(&log, &holes).unwrap();
        assert_eq!(open(directory.path(), OPTIONS).root, roots[2]);
    }
    // The file's own header is written before any record and flushed: damage there is never a crash.
    for at in 0..ends[0] {
        let mut damaged = content.clone();
        damaged[at] ^= 1;
        fs::write(&log, &damaged).unwrap();
        assert!(matches!(TreeMap::open(directory.path(), OPTIONS), Err(StateError::Corrupt { .. })), "byte {at}");
    }
}

/// Without a flush per commit the disk may lose any of them: the map opens before the first that is lost.
#[test]
fn without_flushes_a_lost_record_ends_the_log() {
    let options = Options { durability: Durability::None, ..OPTIONS };
    let directory = TempDir::new().unwrap();
    let mut map = open(directory.path(), options).map;
    let log = files(directory.path(), "writes-").remove(0);
    commit(&mut map, 0);
    assert_eq!(map.durable_height(), None);
    map.sync().unwrap();
    assert_eq!(map.durable_height(), Some(0));
    let end = usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();
    for height in 1..5 {
        commit(&mut map, height);
    }
    assert_eq!(map.durable_height(), Some(0));
    drop(map);
    let mut content = fs::read(&log).unwrap();
    content[end + 5..end + 80].fill(0);
    fs::write(&log, &content).unwrap();
    let mut opened = open(directory.path(), options);
    assert_eq!((opened.height, opened.root), (Some(0), roots(1)[0]));
    assert!(opened.recovery.bytes_dropped > 0);
    assert_eq!(opened.map.durable_height(), Some(0));
    for height in 1..5 {
        commit(&mut opened.map, height);
    }
    drop(opened);
    assert_eq!(open(directory.path(), options).root, roots(5)[4]);
}

#[test]
fn durability_can_change_between_runs() {
    let directory = TempDir::new().unwrap();
    let roots = roots(12);
    for (round, durability) in
        [Durability::Sync, Durability::None, Durability::None, Durability::Sync].iter().enumerate()
    {
        let mut opened = open(directory.path(), Options { durability: *durability, ..OPTIONS });
        for height in round as u64 * 3..round as u64 * 3 + 3 {
            assert_eq!(commit(&mut opened.map, height), roots[usize::try_from(height).unwrap()]);
        }
    }
    assert_eq!(open(directory.path(), OPTIONS).root, roots[11]);
    assert_eq!(files(directory.path(), "writes-").len(), 3, "a file per change of mode");
}

#[test]
fn snapshots_are_written_while_blocks_go_on_and_old_files_go() {
    let directory = TempDir::new().unwrap();
    let options = Options { snapshot_log_bytes: 4_000, ..OPTIONS };
    let mut map = open(directory.path(), options).map;
    let roots = roots(400);
    let mut seen = std::collections::BTreeSet::new();
    for height in 0..400 {
        assert_eq!(commit(&mut map, height), roots[usize::try_from(height).unwrap()]);
        seen.extend(map.figures().snapshot_height);
    }
    assert!(seen.len() > 3, "{seen:?}");
    assert_eq!(map.figures().snapshot_failures, 0);
    map.checkpoint().unwrap();
    assert_eq!(map.figures().snapshot_height, Some(399));
    let (pairs, log_bytes) = (map.figures().keys, map.figures().log_bytes);
    assert_eq!(log_bytes, 0);
    drop(map);
    assert_eq!(files(directory.path(), "snapshot-").len(), 2, "two generations");
    let opened = open(directory.path(), options);
    assert_eq!((opened.height, opened.root), (Some(399), roots[399]));
    assert_eq!(opened.recovery.snapshot_height, Some(399));
    assert_eq!(opened.recovery.records_redone, 0);
    assert_eq!(opened.map.figures().keys, pairs);
}

/// Two snapshots and some log behind each, as a directory to damage.
fn two_generations() -> (TempDir, Vec<Hash>) {
    let directory = TempDir::new().unwrap();
    let mut map = open(directory.path(), OPTIONS).map;
    for height in 0..30 {
        commit(&mut map, height);
        if height == 9 || height == 19 {
            map.checkpoint().unwrap();
        }
    }
    (directory, roots(30))
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before_it() {
    let (original, roots) = two_generations();
    let newest = files(original.path(), "snapshot-").pop().unwrap();
    let length = usize::try_from(fs::metadata(&newest).unwrap().len()).unwrap();
    let name = newest.file_name().unwrap();
    for at in (0..length).step_by(length / 60) {
        let directory = copy(original.path());
        let path = directory.path().join(name);
        let mut content = fs::read(&path).unwrap();
        if at % 2 == 0 {
            content[at] ^= 0x10;
        } else {
            content.truncate(at);
        }
        fs::write(&path, content).unwrap();
        let mut opened = open(directory.path(), OPTIONS);
        assert_eq!((opened.height, opened.root), (Some(29), roots[29]), "byte {at}");
        assert_eq!(opened.recovery.snapshot_height, Some(9));
        assert_eq!(opened.recovery.snapshots_refused.len(), 1);
        assert_eq!(opened.recovery.records_redone, 20);
        // The damaged one no longer counts as a generation.
        opened.map.checkpoint().unwrap();
        drop(opened);
        let opened = open(directory.path(), OPTIONS);
        assert_eq!(opened.recovery.snapshot_height, Some(29));
        assert_eq!(files(directory.path(), "snapshot-").len(), 2);
    }
}

#[test]
fn with_both_snapshots_damaged_the_map_does_not_open() {
    let (directory, _) = two_generations();
    // The log before the older snapshot is needed only as long as there is no second snapshot.
    let mut map = open(directory.path(), OPTIONS).map;
    map.checkpoint().unwrap();
    drop(map);
    for path in files(directory.path(), "snapshot-") {
        let mut content = fs::read(&path).unwrap();
        content[100] ^= 1;
        fs::write(&path, content).unwrap();
    }
    let error = TreeMap::open(directory.path(), OPTIONS).unwrap_err();
    assert!(matches!(error, StateError::NoBase { .. }), "{error}");
    assert!(error.to_string().contains("snapshot-"), "{error}");
}

#[test]
fn a_missing_log_file_is_noticed() {
    let (directory, _) = two_generations();
    let logs = files(directory.path(), "writes-");
    fs::remove_file(logs.last().unwrap()).unwrap();
    let opened = open(directory.path(), OPTIONS);
    // The newest snapshot has lost its log, the one before leads up to it: nothing contradicts, but blocks 20 to 29 are
    // gone, which the owner sees by the height.
    assert_eq!(opened.height, Some(19));
    assert_eq!(opened.recovery.snapshots_refused.len(), 1);
}

#[test]
fn a_snapshot_alone_starts_a_new_directory() {
    let (original, roots) = two_generations();
    let newest = files(original.path(), "snapshot-").pop().unwrap();
    let directory = TempDir::new().unwrap();
    fs::copy(&newest, directory.path().join(newest.file_name().unwrap())).unwrap();
    let mut opened = open(directory.path(), OPTIONS);
    assert_eq!((opened.height, opened.root), (Some(19), roots[19]));
    for height in 20..30 {
        commit(&mut opened.map, height);
    }
    drop(opened);
    assert_eq!(open(directory.path(), OPTIONS).root, roots[29]);
}

#[test]
fn an_unfinished_snapshot_is_swept_away() {
    let (directory, roots) = two_generations();
    let leftover = directory.path().join("snapshot-00000000000000000029.tmp");
    fs::write(&leftover, b"half").unwrap();
    fs::write(directory.path().join("writes-00000000000000000077.tmp"), b"half").unwrap();
    fs::write(directory.path().join("notes.txt"), b"somebody's").unwrap();
    assert_eq!(open(directory.path(), OPTIONS).root, roots[29]);
    assert!(!leftover.exists());
    assert!(directory.path().join("notes.txt").exists(), "files of others are left alone");
}

#[test]
fn a_snapshot_that_cannot_be_written_is_counted_and_commits_go_on() {
    let directory = TempDir::new().unwrap();
    let options = Options { snapshot_log_bytes: 2_000, ..OPTIONS };
    let mut map = open(directory.path(), options).map;
    // A directory where the snapshot's temporary file should go makes its creation fail for some heights.
    for height in 0..60 {
        fs::create_dir(directory.path().join(format!("snapshot-{height:020}.tmp"))).unwrap();
    }
    for height in 0..60 {
        commit(&mut map, height);
    }
    assert!(map.checkpoint().is_err());
    assert!(map.figures().snapshot_failures > 0);
    assert_eq!(map.figures().snapshot_height, None);
    for height in 60..100 {
        commit(&mut map, height);
    }
    map.checkpoint().unwrap();
    assert_eq!(map.figures().snapshot_height, Some(99));
    assert_eq!(map.root(), roots(100)[99]);
}

#[test]
fn values_stay_readable_while_files_come_and_go_and_older_roots_need_some_of_them() {
    let directory = TempDir::new().unwrap();
    // A snapshot as often as can be, and roots that outlive several.
    let history = HistoryBounds { roots: 30, ..HistoryBounds::ROOTS };
    let options = Options { snapshot_log_bytes: 1, values_memory_bytes: 0, history, ..Options::new(StateHash::Sha256) };
    let mut map = TreeMap::open(directory.path(), options).unwrap().map;
    let mut model = BTreeMap::new();
    let mut past = std::collections::VecDeque::new();
    for height in 0..400_u64 {
        // Some keys are written once, some again and again.
        let keys = [height, height % 7, height % 31 + 1_000].map(|key| StateHash::Sha256.value(&key.to_be_bytes()));
        let writes: BTreeMap<_, _> = keys.into_iter().map(|key| (key, Some(height.to_be_bytes().repeat(5)))).collect();
        model.extend(writes.clone());
        let staged = map.stage(&map.root(), writes.into_iter().collect()).unwrap();
        map.commit(staged, height).unwrap();
        // The writers come to their turn.
        std::thread::sleep(std::time::Duration::from_micros(300));
        past.push_back((height, keys[2], height.to_be_bytes().repeat(5)));
        while past.len() > 25 {
            past.pop_front();
        }
        for (key, value) in &model {
            assert_eq!(map.get(key).unwrap().as_ref(), value.as_ref(), "height {height}");
        }
        for (height, key, value) in &past {
            assert_eq!(map.prove(key, *height).unwrap().value.as_ref(), Some(value));
        }
    }
    // The next one waits for twice as much log as the last had pairs, so the last is of height 258 or more, if its writer was not late.
    let last = map.figures().snapshot_height;
    assert!(last.is_some_and(|height| height > 200), "{last:?}");
    assert_eq!(map.figures().snapshot_failures, 0);
}
