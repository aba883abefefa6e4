//! The key index says of each key what was last put, or names the file that keeps it from that: after any history, after
//! any crash, with any byte damaged, and while others write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::prelude::*;
use stele_accel_hash::{HashAlgorithm, digest};
use stele_storage::index::{Index, IndexError, Key, KeyPrefix, Location, MEMTABLE_ENTRIES_MAX, Options};
use tempfile::TempDir;

/// So small that a few changes make many tables and merges.
const SMALL: Options = Options { memtable_entries: 8, shards: 4, fanout: 2 };

type Model = BTreeMap<Key, Location>;

fn key(number: u32) -> Key {
    let mut key = [0; size_of::<Key>()];
    for (bytes, part) in key.chunks_exact_mut(8).zip(1_u64..) {
        let mut mixed = (u64::from(number) << 8 | part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes());
    }
    key
}

fn location(number: u32) -> Location {
    u128::from(number).to_be_bytes()
}

fn prefix(key: &Key) -> KeyPrefix {
    *key.first_chunk().unwrap()
}

fn open(directory: &Path) -> Index {
    Index::open(directory, SMALL).unwrap()
}

/// Demands that the index has what the model has, and of these numbers' keys no other.
fn assert_same(index: &Index, model: &Model, numbers: u32) {
    for key in (0..numbers).map(key) {
        assert_eq!(index.get(&key).unwrap(), model.get(&key).copied());
    }
    let entries: Vec<(KeyPrefix, Location)> = index.entries().map(Result::unwrap).collect();
    assert_eq!(entries, model.iter().map(|(key, location)| (prefix(key), *location)).collect::<Vec<_>>());
}

/// Files by name, without the lock.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .filter(|(name, _)| name != "lock")
        .collect()
}

/// A directory whose flushes cost nothing, where there is one.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn directory_of(files: &BTreeMap<String, Vec<u8>>) -> TempDir {
    let directory = TempDir::new().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(directory.path().join(name), bytes).unwrap());
    directory
}

fn tables(directory: &Path) -> Vec<PathBuf> {
    let names = contents(directory).into_keys().filter(|name| name.starts_with("table-"));
    names.map(|name| directory.join(name)).collect()
}

/// The file that an error of damage names.
fn named(error: &IndexError) -> &Path {
    assert!(error.is_damage(), "{error}");
    match error {
        IndexError::Corrupt { path, .. } | IndexError::Version { path, .. } | IndexError::Missing { path } => path,
        error => panic!("{error} names no file"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u32, u32),
    Remove(u32),
    Flush,
    Maintain,
    Reopen,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (0..60_u32, any::<u32>()).prop_map(|(number, place)| Step::Put(number, place)),
        8 => (0..60_u32).prop_map(Step::Remove),
        4 => Just(Step::Flush),
        4 => Just(Step::Maintain),
        2 => Just(Step::Reopen),
        1 => (0..8_u8).prop_map(|dice| if dice == 0 { Step::Clear } else { Step::Flush }),
    ]
}

/// An index with the model of what it says, and of what it would say after a crash.
struct Pair {
    index: Option<Index>,
    model: Model,
    position: u64,
    durable: (Model, u64),
}

impl Pair {
    fn new(directory: &Path) -> Self {
        let (model, durable) = (Model::new(), (Model::new(), 0));
        Self { index: Some(open(directory)), model, position: 0, durable }
    }

    fn index(&self) -> &Index {
        self.index.as_ref().unwrap()
    }

    fn flush(&mut self) {
        self.index().flush(self.position).unwrap();
        self.durable = (self.model.clone(), self.position);
    }

    fn take(&mut self, step: Step, directory: &Path) {
        if matches!(step, Step::Put(..) | Step::Remove(_)) {
            self.position += 1;
            if self.index().needs_flush() {
                self.position -= 1;
                self.flush();
                self.position += 1;
            }
        }
        match step {
            Step::Put(number, place) => {
                self.index().put(&key(number), location(place)).unwrap();
                self.model.insert(key(number), location(place));
            }
            Step::Remove(number) => {
                self.index().remove(&key(number)).unwrap();
                self.model.remove(&key(number));
            }
            Step::Flush => self.flush(),
            Step::Maintain => drop(self.index().maintain().unwrap()),
            Step::Reopen => {
                self.index = None;
                self.index = Some(open(directory));
                (self.model, self.position) = self.durable.clone();
            }
            Step::Clear => {
                self.index().clear().unwrap();
                (self.model, self.position) = (Model::new(), 0);
                self.durable = (Model::new(), 0);
            }
        }
        assert_eq!(self.index().position(), self.durable.1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_what_a_map_gives(steps in prop::collection::vec(step(), 1..300)) {
        let directory = in_memory();
        let mut pair = Pair::new(directory.path());
        for (step, number) in steps.into_iter().zip(1_u32..) {
            pair.take(step, directory.path());
            if number.is_multiple_of(8) || !matches!(step, Step::Put(..) | Step::Remove(_)) {
                assert_same(pair.index(), &pair.model, 70);
            }
        }
        while pair.index().maintain().unwrap() {}
        assert_same(pair.index(), &pair.model, 70);
    }
}

/// Some changes: most keys are put more than once, some are removed.
fn change(pair: &mut Pair, directory: &Path, round: u32) {
    for number in 0..8 {
        let number = (round * 5 + number) % 40;
        let step = if (number + round).is_multiple_of(5) { Step::Remove(number) } else { Step::Put(number, round) };
        pair.take(step, directory);
    }
}

/// Opens what a crash left, and demands that it is the index of a position with nothing else in its directory.
fn assert_recovers(files: &BTreeMap<String, Vec<u8>>, (model, position): &(Model, u64)) {
    let directory = directory_of(files);
    let index = open(directory.path());
    assert_eq!(index.position(), *position);
    assert_same(&index, model, 40);
    assert_eq!(tables(directory.path()).len(), index.figures().tables, "leftovers are removed");
    assert!(!directory.path().join("manifest.tmp").exists());
}

/// What the disk may have after a crash in the midst of a step that led from `before` to `after`: files are created and
/// written, then the manifest is replaced, then files are removed.
fn assert_survives_crashes(
    (before, old): (&BTreeMap<String, Vec<u8>>, &(Model, u64)),
    (after, new): (&BTreeMap<String, Vec<u8>>, &(Model, u64)),
) {
    let mut files = before.clone();
    for (name, bytes) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            files.insert(name.clone(), bytes[..length].to_vec());
            assert_recovers(&files, old);
        }
        files.insert(name.clone(), bytes.clone());
        assert_recovers(&files, old);
    }
    let manifest = &after["manifest"];
    for length in [0, manifest.len() / 2, manifest.len()] {
        files.insert("manifest.tmp".to_owned(), manifest[..length].to_vec());
        assert_recovers(&files, old);
    }
    files.remove("manifest.tmp");
    files.insert("manifest".to_owned(), manifest.clone());
    assert_recovers(&files, new);
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        files.remove(name);
        assert_recovers(&files, new);
    }
    assert_eq!(&files, after);
}

#[test]
fn a_crash_in_any_step_leaves_an_index_of_a_position() {
    let directory = TempDir::new().unwrap();
    let mut pair = Pair::new(directory.path());
    for round in 0..10 {
        change(&mut pair, directory.path(), round);
        for step in [Step::Flush, Step::Maintain, Step::Maintain] {
            let (before, old) = (contents(directory.path()), pair.durable.clone());
            pair.take(step, directory.path());
            let after = contents(directory.path());
            assert_survives_crashes((&before, &old), (&after, &pair.durable));
        }
    }
}

#[test]
fn a_table_that_is_cut_or_gone_is_named() {
    let directory = TempDir::new().unwrap();
    let mut pair = Pair::new(directory.path());
    for round in 0..3 {
        change(&mut pair, directory.path(), round);
        pair.flush();
    }
    let sound = contents(directory.path());
    for name in sound.keys().filter(|name| name.starts_with("table-")) {
        for length in [0, 1, 64, 4096, 8192, sound[name].len() - 1] {
            let mut files = sound.clone();
            files.get_mut(name).unwrap().truncate(length);
            let damaged = directory_of(&files);
            let error = Index::open(damaged.path(), SMALL).unwrap_err();
            assert_eq!((error.code(), named(&error)), ("index_corrupt", &*damaged.path().join(name)));
        }
        let mut files = sound.clone();
        files.remove(name);
        let damaged = directory_of(&files);
        let error = Index::open(damaged.path(), SMALL).unwrap_err();
        assert_eq!((error.code(), named(&error)), ("index_missing", &*damaged.path().join(name)));
    }
}

#[test]
fn every_flipped_byte_is_found_or_does_no_harm() {
    let directory = TempDir::new().unwrap();
    let mut pair = Pair::new(directory.path());
    for round in 0..2 {
        change(&mut pair, directory.path(), round);
        pair.flush();
    }
    let model = pair.model.clone();
    drop(pair);
    for (name, sound) in contents(directory.path()) {
        let path = directory.path().join(&name);
        let file = fs::File::options().write(true).open(&path).unwrap();
        for (at, byte) in sound.iter().enumerate() {
            file.write_all_at(&[byte ^ 1 << (at % 8)], at as u64).unwrap();
            let found = match Index::open(directory.path(), SMALL) {
                Err(error) => vec![error],
                Ok(index) => {
                    let gets = (0..40).map(|number| (index.get(&key(number)), model.get(&key(number)).copied()));
                    let errors = gets.filter_map(|(got, wanted)| got.map(|got| assert_eq!(got, wanted)).err());
                    errors.chain(index.entries().filter_map(Result::err)).collect()
                }
            };
            assert!(!found.is_empty(), "byte {at} of {name} is not covered");
            found.iter().for_each(|error| assert_eq!(named(error), path, "byte {at}: {error}"));
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
    }
    assert_same(&open(directory.path()), &model, 40);
}

#[test]
fn files_of_another_index_are_refused() {
    let make = |place: u32| {
        let directory = TempDir::new().unwrap();
        let index = open(directory.path());
        (0..8).for_each(|number| index.put(&key(number), location(place)).unwrap());
        index.flush(8).unwrap();
        directory
    };
    let (one, other) = (make(1), make(2));
    let (here, there) = (tables(one.path()).remove(0), tables(other.path()).remove(0));
    assert_eq!(here.file_name(), there.file_name());
    fs::copy(there, &here).unwrap();
    let error = Index::open(one.path(), SMALL).unwrap_err();
    assert_eq!((error.code(), named(&error)), ("index_corrupt", &*here));
    fs::write(&here, vec![7; fs::metadata(&here).unwrap().len().try_into().unwrap()]).unwrap();
    assert_eq!(Index::open(one.path(), SMALL).unwrap_err().code(), "index_corrupt");
    fs::write(one.path().join("manifest"), "not a manifest of an index").unwrap();
    assert_eq!(Index::open(one.path(), SMALL).unwrap_err().code(), "index_corrupt");
    fs::remove_file(one.path().join("manifest")).unwrap();
    assert_eq!(Index::open(one.path(), SMALL).unwrap_err().code(), "index_missing");
    let index = Index::open_empty(one.path(), SMALL).unwrap();
    assert_eq!((index.position(), tables(one.path()).len()), (0, 0));
    assert_same(&index, &Model::new(), 40);
}

#[test]
fn the_format_is_pinned() {
    let directory = TempDir::new().unwrap();
    let index = Index::open(directory.path(), Options::default()).unwrap();
    (0..300).for_each(|number| index.put(&key(number), location(number)).unwrap());
    (0..30).for_each(|number| index.remove(&key(number * 10)).unwrap());
    index.flush(330).unwrap();
    let table = fs::read(tables(directory.path()).remove(0)).unwrap();
    assert_eq!(table.len(), 4096 + 3 * (4096 + 16 + 160) + 64);
    let hash = digest(HashAlgorithm::Sha256, &[], &table);
    assert_eq!(hash[..8], [0xbd, 0xeb, 0xba, 0xa9, 0x76, 0x34, 0x40, 0x6e]);
}

#[test]
fn gets_are_right_while_others_flush_and_merge() {
    const KEYS: u32 = 2000;
    const ROUNDS: u32 = 12;
    let directory = TempDir::new().unwrap();
    let options = Options { memtable_entries: 200, shards: 4, fanout: 2 };
    let index = Index::open(directory.path(), options).unwrap();
    let known: Vec<AtomicU32> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (index, known, done) = (&index, &known, &done);
            scope.spawn(move || {
                for number in (0..KEYS).cycle().skip(reader).step_by(7) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let least = known[number as usize].load(Ordering::Acquire);
                    let got = index.get(&key(number)).unwrap();
                    assert!(got >= (least > 0).then(|| location(least)), "key {number} fell behind round {least}");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if !index.maintain().unwrap() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for round in 1..=ROUNDS {
            for number in 0..KEYS {
                index.put(&key(number), location(round)).unwrap();
                known[number as usize].store(round, Ordering::Release);
                if index.needs_flush() {
                    index.flush((round * KEYS + number).into()).unwrap();
                }
            }
            assert_eq!(index.entries().map(Result::unwrap).count(), KEYS as usize);
        }
        done.store(true, Ordering::Relaxed);
    });
    let model: Model = (0..KEYS).map(|number| (key(number), location(ROUNDS))).collect();
    assert_same(&index, &model, KEYS);
    while index.maintain().unwrap() {}
    let figures = index.figures();
    let bound = u64::from(KEYS) * 7 / 6 + 2 * 200 * 2;
    assert!(figures.entries <= bound, "{figures:?}: no more than a sixth and level zero is superseded");
}

#[test]
fn an_iteration_shows_what_was_when_it_began() {
    let directory = TempDir::new().unwrap();
    let mut pair = Pair::new(directory.path());
    (0..6).for_each(|round| change(&mut pair, directory.path(), round));
    let (entries, model) = (pair.index().entries(), pair.model.clone());
    (6..12).for_each(|round| change(&mut pair, directory.path(), round));
    while pair.index().maintain().unwrap() {}
    pair.take(Step::Clear, directory.path());
    let shown: Vec<(KeyPrefix, Location)> = entries.map(Result::unwrap).collect();
    assert_eq!(shown, model.iter().map(|(key, location)| (prefix(key), *location)).collect::<Vec<_>>());
    assert_same(pair.index(), &Model::new(), 40);
    assert_eq!(pair.index().len_estimate(), 0);
}

#[test]
fn what_was_removed_leaves_nothing_behind() {
    let directory = TempDir::new().unwrap();
    let index = open(directory.path());
    for (number, position) in (0..200).zip(1..) {
        index.put(&key(number), location(number)).unwrap();
        if index.needs_flush() {
            index.flush(position).unwrap();
        }
    }
    assert_eq!(index.len_estimate(), 200);
    for (number, position) in (0..200).zip(201..) {
        index.remove(&key(number)).unwrap();
        if index.needs_flush() {
            index.flush(position).unwrap();
        }
        while index.maintain().unwrap() {}
    }
    assert_eq!(index.len_estimate(), 0);
    let figures = index.figures();
    assert!(figures.entries <= 40, "{figures:?}");
}

#[test]
fn a_failed_flush_poisons_and_reopening_recovers() {
    let directory = TempDir::new().unwrap();
    let mut pair = Pair::new(directory.path());
    change(&mut pair, directory.path(), 0);
    pair.flush();
    change(&mut pair, directory.path(), 1);
    let next = tables(directory.path()).len() + 1;
    fs::write(directory.path().join(format!("table-{next:020}.keys")), "in the way").unwrap();
    assert_eq!(pair.index().flush(16).unwrap_err().code(), "index_io");
    assert_eq!(pair.index().flush(16).unwrap_err().code(), "index_poisoned");
    assert_same(pair.index(), &pair.model, 40);
    pair.take(Step::Reopen, directory.path());
    assert_same(pair.index(), &pair.model, 40);
    change(&mut pair, directory.path(), 1);
    pair.flush();
    assert_same(pair.index(), &pair.model, 40);
}

#[test]
fn limits_are_kept() {
    let directory = TempDir::new().unwrap();
    let index = open(directory.path());
    (0..16).for_each(|number| index.put(&key(number), location(number)).unwrap());
    assert_eq!(index.put(&key(16), location(16)).unwrap_err().code(), "index_memtable_full");
    assert_eq!(index.remove(&key(0)).unwrap_err().code(), "index_memtable_full");
    index.flush(16).unwrap();
    index.put(&key(16), location(16)).unwrap();
    assert_eq!(Index::open(directory.path(), SMALL).unwrap_err().code(), "index_locked");
    drop(index);
    let wider = Index::open(directory.path(), Options { shards: 16, ..SMALL }).unwrap();
    assert_eq!(wider.options(), SMALL, "an index keeps its shards");
    for options in [
        Options { memtable_entries: 0, ..SMALL },
        Options { memtable_entries: MEMTABLE_ENTRIES_MAX + 1, ..SMALL },
        Options { shards: 3, ..SMALL },
        Options { shards: 0, ..SMALL },
        Options { shards: 512, ..SMALL },
        Options { fanout: 1, ..SMALL },
        Options { fanout: 33, ..SMALL },
    ] {
        assert_eq!(Index::open(TempDir::new().unwrap().path(), options).unwrap_err().code(), "index_out_of_bounds");
    }
}
