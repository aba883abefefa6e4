//! Every damage of a stopped map is found and named, and nothing is changed by looking.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use stele_state::{
    Durability, Finding, FindingKind, Hash, Key, Layout, Options, Report, StateError, StateHash, StateMap, TreeMap,
    Write, fsck,
};
use tempfile::TempDir;

const HASH: StateHash = StateHash::Sha256;
const OPTIONS: Options = Options::new(HASH);
/// Bytes of the headers of a log file, of a record and of a snapshot.
const FILE_HEADER_BYTES: usize = 73;
const RECORD_HEADER_BYTES: usize = 92;
const SNAPSHOT_HEADER_BYTES: usize = 64;

fn key(seed: u64) -> Key {
    HASH.value(&seed.to_be_bytes())
}

fn batch(height: u64) -> Vec<Write> {
    let mut batch: BTreeMap<Key, Option<Vec<u8>>> =
        (0..8).map(|offset| (key(height * 4 + offset), Some(height.to_be_bytes().repeat(3)))).collect();
    batch.insert(key(height), None);
    batch.into_iter().collect()
}

fn commit(map: &mut TreeMap, height: u64) -> Hash {
    let staged = map.stage(&map.root(), batch(height)).unwrap();
    map.commit(staged, height).unwrap()
}

/// Snapshots of heights 9 and 19, a log from each of them on, and the last root.
fn two_generations(durability: Durability) -> (TempDir, Hash) {
    let directory = TempDir::new().unwrap();
    let mut map = TreeMap::open(directory.path(), Options { durability, ..OPTIONS }).unwrap().map;
    for height in 0..30 {
        commit(&mut map, height);
        if height == 9 || height == 19 {
            map.checkpoint().unwrap();
        }
    }
    map.sync().unwrap();
    let root = map.root();
    (directory, root)
}

/// The state files by name.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.ends_with("lock")).map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn file(directory: &Path, name: &str) -> PathBuf {
    contents(directory).into_keys().find(|path| path.to_str().unwrap().contains(name)).unwrap()
}

/// Checks, and compares the directory with what it was.
fn check(directory: &Path) -> Report {
    let before = contents(directory);
    let report = fsck(directory, HASH).unwrap();
    assert_eq!(contents(directory), before, "a check changes nothing");
    assert_eq!(report.damages, report.findings.iter().filter(|finding| finding.kind.is_damage()).count() as u64);
    report
}

/// The finding about a file; there has to be one.
fn about<'r>(report: &'r Report, path: &Path) -> &'r Finding {
    let found = report.findings.iter().find(|finding| finding.path == path);
    found.unwrap_or_else(|| panic!("{} is not named: {report:?}", path.display()))
}

#[test]
fn a_sound_map_is_clean_and_its_log_is_redone_from_the_older_snapshot_on() {
    for durability in [Durability::Sync, Durability::None] {
        let (directory, root) = two_generations(durability);
        let report = check(directory.path());
        assert_eq!(report.findings, []);
        assert_eq!((report.reaches, report.damages), (Some((29, root)), 0));
        assert_eq!((report.snapshots, report.chunks, report.logs, report.records), (2, 2, 2, 20));
    }
}

#[test]
fn snapshots_alone_are_checked_too() {
    let (original, _) = two_generations(Durability::Sync);
    let directory = TempDir::new().unwrap();
    for (path, content) in contents(original.path()) {
        if path.extension().is_some_and(|kind| kind == "map") {
            fs::write(directory.path().join(path.file_name().unwrap()), content).unwrap();
        }
    }
    let report = check(directory.path());
    assert_eq!((report.reaches.map(|(height, _)| height), report.snapshots, report.damages), (Some(19), 2, 0));
    assert!(!directory.path().join("lock").exists(), "no file is made");
    let path = file(directory.path(), "snapshot-00000000000000000009");
    let mut content = fs::read(&path).unwrap();
    content[100] ^= 1;
    fs::write(&path, content).unwrap();
    assert_eq!(about(&check(directory.path()), &path).kind, FindingKind::Damaged);
}

#[test]
fn every_flipped_byte_is_found_and_its_place_named() {
    for durability in [Durability::Sync, Durability::None] {
        let (directory, root) = two_generations(durability);
        let last_log = file(directory.path(), "writes-00000000000000000002");
        for (path, sound) in contents(directory.path()) {
            for at in (0..sound.len()).step_by(sound.len() / 40 + 1).chain([sound.len() - 1]) {
                let mut damaged = sound.clone();
                damaged[at] ^= 0x20;
                fs::write(&path, &damaged).unwrap();
                let report = check(directory.path());
                let finding = about(&report, &path);
                assert!(finding.offset <= at as u64 || at < SNAPSHOT_HEADER_BYTES, "byte {at}: {finding:?}");
                // Nothing tells the last record from one that a crash interrupted.
                let last_record = sound.windows(4).rposition(|window| window == b"SWSR");
                if path == last_log && last_record.is_some_and(|last| at >= last) {
                    assert_eq!((finding.kind, report.damages), (FindingKind::Torn, 0), "byte {at}");
                    assert_eq!(report.reaches.map(|(height, _)| height), Some(28));
                } else {
                    assert_eq!(finding.kind, FindingKind::Damaged, "byte {at} of {}", path.display());
                    // Any one damage but that of the newest log leaves a way to the newest state.
                    assert!(path == last_log || report.reaches == Some((29, root)), "byte {at} of {}", path.display());
                }
            }
            fs::write(&path, sound).unwrap();
        }
    }
}

#[test]
fn files_that_end_early_are_named() {
    let (directory, _) = two_generations(Durability::Sync);
    let last_log = file(directory.path(), "writes-00000000000000000002");
    for (path, sound) in contents(directory.path()) {
        for length in (0..sound.len()).step_by(sound.len() / 20 + 1).chain([sound.len() - 1]) {
            fs::write(&path, &sound[..length]).unwrap();
            let report = check(directory.path());
            // A log that ends between two records is a shorter log.
            if path == last_log && report.findings.is_empty() {
                assert!(report.reaches.is_some_and(|(height, _)| height < 29), "{length}");
                continue;
            }
            let finding = about(&report, &path);
            let torn = path == last_log && length >= FILE_HEADER_BYTES;
            assert_eq!(finding.kind, if torn { FindingKind::Torn } else { FindingKind::Damaged }, "{length}");
        }
        fs::write(&path, sound).unwrap();
    }
}

#[test]
fn a_torn_tail_is_told_and_left_where_it_is() {
    let (directory, root) = two_generations(Durability::Sync);
    let path = file(directory.path(), "writes-00000000000000000002");
    let sound = fs::read(&path).unwrap();
    fs::write(&path, [&sound[..], &[7; 50]].concat()).unwrap();
    let report = check(directory.path());
    let finding = about(&report, &path);
    assert_eq!((finding.kind, finding.offset), (FindingKind::Torn, sound.len() as u64));
    assert!(finding.what.contains("drops its 50 bytes"), "{}", finding.what);
    assert_eq!((report.reaches, report.damages), (Some((29, root)), 0));
}

#[test]
fn a_file_that_is_gone_is_named() {
    for (name, kind, named, reaches) in [
        ("snapshot-00000000000000000009", FindingKind::Missing, "snapshot-00000000000000000009", Some(29)),
        // No crash, but none is needed either: the log before leads there.
        ("snapshot-00000000000000000019", FindingKind::Unsupported, "snapshot-00000000000000000019", Some(29)),
        ("writes-00000000000000000001", FindingKind::Missing, "snapshot-00000000000000000009", Some(29)),
        // The log before it leads up to it, and what it held is gone.
        ("writes-00000000000000000002", FindingKind::Missing, "snapshot-00000000000000000019", Some(19)),
    ] {
        let (directory, _) = two_generations(Durability::Sync);
        fs::remove_file(file(directory.path(), name)).unwrap();
        let report = check(directory.path());
        let [finding] = &report.findings[..] else { panic!("{name}: {report:?}") };
        assert_eq!(finding.kind, kind, "{name}");
        assert!(finding.path.to_str().unwrap().contains(named), "{name}: {finding:?}");
        assert_eq!(report.reaches.map(|(height, _)| height), reaches, "{name}");
    }
    // A log file begins whenever the mode of writing changes.
    let directory = TempDir::new().unwrap();
    for (round, durability) in [Durability::Sync, Durability::None, Durability::Sync].into_iter().enumerate() {
        let mut map = TreeMap::open(directory.path(), Options { durability, ..OPTIONS }).unwrap().map;
        commit(&mut map, round as u64);
    }
    let missing = file(directory.path(), "writes-00000000000000000001");
    fs::remove_file(&missing).unwrap();
    let report = check(directory.path());
    assert_eq!(about(&report, &missing).kind, FindingKind::Missing);
    assert_eq!(report.reaches, None);
}

/// Checksums protect against accidents; what leads to another root is found whoever made it.
#[test]
fn what_carries_a_right_checksum_and_a_wrong_value_is_found() {
    let (directory, _) = two_generations(Durability::Sync);
    let path = file(directory.path(), "snapshot-00000000000000000019");
    let sound = fs::read(&path).unwrap();
    let mut forged = sound.clone();
    // One chunk, one entry of the table: offset, length, pairs, checksum, content.
    let table = sound.len() - 4 - 85;
    forged[table - 1] ^= 1;
    let crc = crc32c::crc32c(&forged[SNAPSHOT_HEADER_BYTES..table]).to_be_bytes();
    forged[table + 16..table + 20].copy_from_slice(&crc);
    let crc = crc32c::crc32c(&forged[table..table + 85]).to_be_bytes();
    forged[table + 85..].copy_from_slice(&crc);
    fs::write(&path, forged).unwrap();
    let report = check(directory.path());
    let finding = about(&report, &path);
    assert_eq!((finding.kind, finding.offset), (FindingKind::Damaged, SNAPSHOT_HEADER_BYTES as u64));
    assert!(finding.what.contains("not those of the state"), "{}", finding.what);
    fs::write(&path, sound).unwrap();

    let path = file(directory.path(), "writes-00000000000000000001");
    let mut forged = fs::read(&path).unwrap();
    let record = FILE_HEADER_BYTES;
    let length = u32::from_be_bytes(forged[record + 80..record + 84].try_into().unwrap()) as usize;
    let body = record + RECORD_HEADER_BYTES..record + RECORD_HEADER_BYTES + length;
    let value = 10_u64.to_be_bytes().repeat(3);
    let at = forged[body.clone()].windows(value.len()).position(|window| window == value).unwrap();
    forged[body.start + at] ^= 1;
    let crc = crc32c::crc32c(&forged[body]).to_be_bytes();
    forged[record + 84..record + 88].copy_from_slice(&crc);
    let salted = crc32c::crc32c_append(crc32c::crc32c(&forged[12..28]), &forged[record..record + 88]);
    forged[record + 88..record + 92].copy_from_slice(&salted.to_be_bytes());
    fs::write(&path, forged).unwrap();
    let report = check(directory.path());
    let finding = about(&report, &path);
    assert_eq!((finding.kind, finding.offset), (FindingKind::Damaged, record as u64));
    assert!(finding.what.contains("another root"), "{}", finding.what);
}

#[test]
fn leftovers_are_told_and_files_of_others_are_not() {
    let (directory, _) = two_generations(Durability::Sync);
    for name in ["snapshot-00000000000000000029.tmp", "snapshot-00000000000000000028.refused", "notes.txt"] {
        fs::write(directory.path().join(name), b"half").unwrap();
    }
    let report = check(directory.path());
    assert_eq!((report.findings.len(), report.damages), (2, 0));
    assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::LeftOver));
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let (directory, _) = two_generations(Durability::Sync);
    let map = TreeMap::open(directory.path(), OPTIONS).unwrap();
    assert!(matches!(fsck(directory.path(), HASH), Err(StateError::Locked { .. })));
    drop(map);
    assert!(matches!(fsck(directory.path(), StateHash::Sm3), Err(StateError::OtherHash { .. })));
    let empty = TempDir::new().unwrap();
    assert!(matches!(fsck(empty.path(), HASH), Err(StateError::NoBase { .. })));
    assert!(matches!(fsck(&empty.path().join("none"), HASH), Err(StateError::Io { .. })));
}

/// The same with pages.
fn two_tables() -> (TempDir, Hash) {
    let directory = TempDir::new().unwrap();
    let options = Options { layout: Layout::Paged, ..OPTIONS };
    let mut map = TreeMap::open(directory.path(), options).unwrap().map;
    for height in 0..30 {
        let long = batch(height).into_iter().map(|(key, value)| (key, value.map(|value| value.repeat(20))));
        let staged = map.stage(&map.root(), long.collect()).unwrap();
        map.commit(staged, height).unwrap();
        if height == 9 || height == 19 {
            map.checkpoint().unwrap();
        }
    }
    let root = map.root();
    (directory, root)
}

#[test]
fn a_sound_map_with_pages_is_sound_and_stays_as_it_is() {
    let (directory, root) = two_tables();
    let before = contents(directory.path());
    let report = fsck(directory.path(), HASH).unwrap();
    assert_eq!((report.findings.as_slice(), report.reaches), (&[][..], Some((29, root))), "{report:?}");
    assert_eq!((report.tables, report.snapshots, report.logs, report.records), (2, 0, 2, 20));
    assert!(report.pages > 8);
    assert_eq!(contents(directory.path()), before);
}

#[test]
fn every_damaged_page_table_and_record_behind_a_table_is_named() {
    let (directory, root) = two_tables();
    let sound = fsck(directory.path(), HASH).unwrap();
    let mut named = 0;
    for name in ["pages.data", "19.table", "9.table", "writes-"] {
        let path = file(directory.path(), name);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 97 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            fs::write(&path, &damaged).unwrap();
            let report = fsck(directory.path(), HASH).unwrap();
            // Most blocks of the device hold nothing that is still needed, and zeros follow a page's pairs.
            assert!(report.damages > 0 || name == "pages.data", "{name}, byte {at}: {report:?}");
            for Finding { kind, path: found, offset, .. } in &report.findings {
                named += 1;
                // What begins at a damaged table, or goes on behind a damaged record, has nothing to go on from.
                let beginning = found.extension().is_some_and(|kind| kind == "log") && *offset == 0;
                let consequence = matches!(kind, FindingKind::Missing | FindingKind::Unsupported) || beginning;
                assert!(*found == path || consequence, "{name}, byte {at}: {report:?}");
                assert!(consequence || *offset <= at as u64, "{name}, byte {at}: {report:?}");
            }
            if report.damages == 0 {
                assert_eq!((report.reaches, report.pages), (Some((29, root)), sound.pages));
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(named > 250, "{named} findings");
    fs::remove_file(file(directory.path(), "pages.data")).unwrap();
    assert!(fsck(directory.path(), HASH).unwrap().damages > 0);
}
