//! The index against a hash map, its crash rules, back-pressure, and lookups beside the writer.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::manifest::MANIFEST_FILE;
use super::{IndexError, IndexOptions, StatementId, StatementIndex};
use crate::store::{HEIGHT_MAX, Location};

/// Flushes every few blocks, so that a test of a second sees several tiers.
const SMALL: IndexOptions = IndexOptions { memtable_entries: 60, lag_statements_max: 100, fresh_runs_max: 5 };

/// A uniform id from a number: SplitMix64, four times over.
fn id(number: u64) -> StatementId {
    let mut id = [0; 32];
    for (part, bytes) in (1_u64..).zip(id.chunks_exact_mut(8)) {
        let mut mixed = number.wrapping_add(part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes());
    }
    id
}

fn ids(numbers: std::ops::Range<u64>) -> Vec<StatementId> {
    numbers.map(id).collect()
}

fn at(height: u64, position: usize) -> Location {
    Location::new(height, u32::try_from(position).unwrap()).unwrap()
}

/// Waits for the background until `condition` holds.
fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn run_files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut runs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "run")).collect();
    runs.sort();
    runs
}

/// Blocks of one id each thousand, flushed one by one: as many runs as blocks before merges.
fn filled(directory: &Path, blocks: u64) {
    let index = StatementIndex::open(directory, SMALL).unwrap();
    for height in 1..=blocks {
        index.put_block(height, &ids(height * 1000..height * 1000 + 50)).unwrap();
    }
    index.flush().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    /// Numbers are few, so ids return in later blocks and twice in one.
    Put(Vec<u64>),
    Flush,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = proptest::collection::vec(0_u64..400, 0..40).prop_map(Step::Put);
    proptest::collection::vec(prop_oneof![12 => put, 1 => Just(Step::Flush), 1 => Just(Step::Reopen)], 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn lookups_agree_with_a_map_in_which_the_newest_wins(steps in steps(), first in 0_u64..3) {
        let directory = tempfile::tempdir().unwrap();
        let mut index = StatementIndex::open(directory.path(), SMALL).unwrap();
        let mut blocks: Vec<Vec<u64>> = Vec::new();
        let mut model: HashMap<u64, Location> = HashMap::new();
        for step in steps {
            match step {
                Step::Put(numbers) => {
                    let height = first + blocks.len() as u64;
                    index.put_block(height, &numbers.iter().map(|&number| id(number)).collect::<Vec<_>>()).unwrap();
                    model.extend(numbers.iter().enumerate().map(|(position, &number)| (number, at(height, position))));
                    for &number in &numbers {
                        prop_assert_eq!(index.lookup(&id(number)).unwrap(), model.get(&number).copied());
                    }
                    blocks.push(numbers);
                }
                Step::Flush => {
                    index.flush().unwrap();
                    prop_assert_eq!(index.complete_through(), index.put_through());
                }
                Step::Reopen => {
                    drop(index);
                    index = StatementIndex::open(directory.path(), SMALL).unwrap();
                    let next = index.complete_through().map_or(first, |complete| complete + 1);
                    for (height, numbers) in (first..).zip(&blocks).filter(|(height, _)| *height >= next) {
                        index.put_block(height, &numbers.iter().map(|&number| id(number)).collect::<Vec<_>>()).unwrap();
                    }
                }
            }
        }
        for number in 0..420 {
            prop_assert_eq!(index.lookup(&id(number)).unwrap(), model.get(&number).copied());
        }
    }
}

#[test]
fn runs_are_merged_in_tiers_and_their_files_removed() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    for height in 1..=85 {
        index.put_block(height, &ids(height * 1000..height * 1000 + 60)).unwrap();
    }
    index.flush().unwrap();
    // 85 runs of one block: 64 + 16 + 4 + 1.
    eventually(|| index.figures().runs == 4 && run_files(directory.path()).len() == 4);
    let figures = index.figures();
    assert_eq!((figures.entries, figures.lag_statements), (85 * 60, 0));
    assert!(figures.merge_seconds > 0.0 && figures.bytes > 85 * 60 * 24);
    for height in 1..=85 {
        for position in 0..60 {
            let found = index.lookup(&id(height * 1000 + position as u64)).unwrap();
            assert_eq!(found, Some(at(height, position)));
        }
        assert_eq!(index.lookup(&id(height * 1000 + 60)).unwrap(), None);
    }
}

#[test]
fn heights_follow_one_another_and_stay_in_range() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    assert_eq!((index.complete_through(), index.put_through()), (None, None));
    index.flush().unwrap();
    let error = index.put_block(HEIGHT_MAX + 1, &[]).unwrap_err();
    assert_eq!(error.code(), "index_location_range");
    index.put_block(40, &ids(0..3)).unwrap();
    for given in [39, 40, 42] {
        let error = index.put_block(given, &[]).unwrap_err();
        assert!(matches!(error, IndexError::HeightGap { expected: 41, given: refused } if refused == given));
    }
    index.put_block(41, &[]).unwrap();
    index.flush().unwrap();
    drop(index);
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    assert_eq!((index.complete_through(), index.put_through()), (Some(41), Some(41)));
    assert_eq!(index.put_block(41, &[]).unwrap_err().code(), "height_gap");
    assert_eq!(index.lookup(&id(2)).unwrap(), Some(at(40, 2)));
}

#[test]
fn a_block_beyond_every_bound_is_still_taken() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    index.put_block(1, &ids(0..5_000)).unwrap();
    index.put_block(2, &ids(5_000..5_010)).unwrap();
    index.flush().unwrap();
    for number in [0, 1, 4_999] {
        assert_eq!(index.lookup(&id(number)).unwrap(), Some(at(1, usize::try_from(number).unwrap())));
    }
    assert_eq!(index.lookup(&id(5_009)).unwrap(), Some(at(2, 9)));
}

#[test]
fn callers_wait_while_too_much_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    for height in 1..=200 {
        index.put_block(height, &ids(height * 100..height * 100 + 50)).unwrap();
        let lag = index.figures().lag_statements;
        assert!(lag <= SMALL.lag_statements_max, "{lag} queued");
    }
    // Every block makes a flush with two fsyncs, a put takes microseconds.
    let figures = index.figures();
    assert!(figures.stalls > 0 && figures.stall_seconds > 0.0, "{figures:?}");
    index.flush().unwrap();
    assert!(index.figures().runs < SMALL.fresh_runs_max + 3 * 4);
}

#[test]
fn many_empty_blocks_become_complete_without_a_flush() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), IndexOptions::default()).unwrap();
    for height in 1..=66_000 {
        index.put_block(height, &[]).unwrap();
    }
    eventually(|| index.complete_through().is_some_and(|complete| complete >= 65_536));
    assert_eq!(index.figures().runs, 0);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 3);
    let runs = run_files(directory.path());
    fs::write(directory.path().join("0000000000009999.run"), b"half a merge").unwrap();
    fs::write(directory.path().join("manifest.new"), b"half a manifest").unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    assert_eq!(run_files(directory.path()), runs);
    assert_eq!(index.lookup(&id(3049)).unwrap(), Some(at(3, 49)));
    index.put_block(4, &ids(0..1)).unwrap();
    index.flush().unwrap();
}

#[test]
fn damage_asks_for_a_rebuild_and_a_reset_gives_it() {
    let directory = tempfile::tempdir().unwrap();
    let damages: [fn(&Path); 4] = [
        |directory| fs::remove_file(&run_files(directory)[0]).unwrap(),
        |directory| fs::write(&run_files(directory)[1], b"").unwrap(),
        |directory| {
            let runs = run_files(directory);
            fs::copy(&runs[0], &runs[1]).unwrap();
        },
        |directory| fs::write(directory.join(MANIFEST_FILE), b"STELEIDX").unwrap(),
    ];
    for damage in damages {
        filled(directory.path(), 3);
        damage(directory.path());
        let error = StatementIndex::open(directory.path(), SMALL).unwrap_err();
        assert_eq!((error.code(), error.needs_rebuild()), ("index_corrupt", true));
        StatementIndex::reset(directory.path()).unwrap();
        let index = StatementIndex::open(directory.path(), SMALL).unwrap();
        assert_eq!((index.complete_through(), index.lookup(&id(1000)).unwrap()), (None, None));
        assert!(run_files(directory.path()).is_empty());
    }
}

#[test]
fn a_damaged_block_of_a_run_is_reported_by_the_lookup() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 1);
    let path = &run_files(directory.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[77] ^= 1;
    fs::write(path, bytes).unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    assert_eq!(index.lookup(&id(1000)).unwrap_err().code(), "index_corrupt");
}

#[test]
fn a_failed_flush_poisons_every_later_call() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    index.put_block(1, &ids(0..10)).unwrap();
    fs::remove_dir_all(directory.path()).unwrap();
    assert_eq!(index.flush().unwrap_err().code(), "store_poisoned");
    assert_eq!(index.put_block(2, &[]).unwrap_err().code(), "store_poisoned");
    assert_eq!(index.lookup(&id(0)).unwrap_err().code(), "store_poisoned");
}

#[test]
fn a_second_opener_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    assert_eq!(StatementIndex::open(directory.path(), SMALL).unwrap_err().code(), "store_locked");
    assert_eq!(StatementIndex::reset(directory.path()).unwrap_err().code(), "store_locked");
    drop(index);
    StatementIndex::open(directory.path(), SMALL).unwrap();
}

#[test]
fn lookups_never_miss_an_entry_on_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let index = StatementIndex::open(directory.path(), SMALL).unwrap();
    let (put, blocks) = (AtomicU64::new(0), 400);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (index, put) = (&index, &put);
            scope.spawn(move || {
                let mut step: u64 = reader;
                while put.load(Ordering::Acquire) < blocks {
                    let through = put.load(Ordering::Acquire);
                    step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // The last blocks are the ones that move.
                    let height = through.saturating_sub(step >> 33 & 7);
                    let position = (step >> 40) % 20;
                    if height > 0 {
                        let found = index.lookup(&id(height * 100 + position)).unwrap();
                        assert_eq!(found, Some(at(height, usize::try_from(position).unwrap())));
                    }
                }
            });
        }
        for height in 1..=blocks {
            index.put_block(height, &ids(height * 100..height * 100 + 20)).unwrap();
            put.store(height, Ordering::Release);
        }
    });
}
