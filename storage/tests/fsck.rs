//! Checking a store: what it finds, and that it changes nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "not every test program needs all of it")]
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use stele_storage::fsck::{CheckReport, check};
use stele_storage::{Group, Options, Store};

use support::{MIB, Rack, content, layout};

const GROUP: Group = Group { class: 1, year: 2_040 };

/// Every file below a folder, with its bytes.
fn files(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![(path.clone(), fs::read(path).unwrap())] }
        })
        .collect();
    files.sort();
    files
}

/// Checks, and sees to it that nothing changed.
async fn checked(rack: &Rack) -> (CheckReport, BTreeSet<[u8; 32]>) {
    let before = files(rack.directory.path());
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    let index = rack.directory.path().join("index");
    let note = |root| assert!(seen.insert(root), "told twice");
    let report = check(&rack.paths, &index, scratch.path(), &Options::default(), note).await.unwrap();
    assert!(files(rack.directory.path()) == before, "a check changes nothing");
    (report, seen)
}

async fn filled(rack: &Rack, store: Store) -> BTreeSet<[u8; 32]> {
    let mut roots = BTreeSet::new();
    for (seed, length) in (1..).zip([0, 100, 70_000, MIB, MIB + 1, 5 * MIB]) {
        roots.insert(store.put(GROUP, 1, content(seed, length)).await.unwrap().root);
    }
    let gone = store.put(GROUP, 1, content(99, 3 * MIB)).await.unwrap().root;
    assert!(store.remove(&gone, 2).await.unwrap());
    assert!(
        check(&rack.paths, rack.directory.path(), rack.directory.path(), &Options::default(), |_| ()).await.is_err(),
        "it is open"
    );
    store.close().await.unwrap();
    roots
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_store_is_sound_and_all_its_objects_are_seen() {
    let rack = Rack::new(6, 48, &layout(4, 2));
    let roots = filled(&rack, rack.open()).await;
    let (report, seen) = checked(&rack).await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((seen, report.drives), (roots.clone(), 6));
    assert_eq!(report.object_bytes, (100 + 70_000 + 2 * MIB + 1 + 5 * MIB) as u64);
    // As it is after a crash: the index lacks what was put last.
    let store = rack.open();
    let more = store.put(GROUP, 1, content(7, 300_000)).await.unwrap().root;
    drop(store);
    let (report, seen) = checked(&rack).await;
    assert!(report.is_sound(), "{report:?}");
    assert!(seen.contains(&more) && seen.len() == roots.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_counted_and_what_it_costs_is_named() {
    let rack = Rack::new(6, 48, &layout(4, 2));
    let roots = filled(&rack, rack.open()).await;
    let spoil = |drive: usize| {
        let file = File::options().read(true).write(true).open(&rack.paths[drive]).unwrap();
        // Behind the superblocks, in the middle of what was written.
        for offset in (4 * MIB as u64 + 8192..12 * MIB as u64).step_by(4096) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset + 77).unwrap();
            file.write_all_at(&[byte[0] ^ 4], offset + 77).unwrap();
        }
    };
    spoil(0);
    spoil(1);
    let (report, seen) = checked(&rack).await;
    assert!(report.repairable > 0 && report.lost == 0 && !report.is_sound(), "{report:?}");
    assert_eq!(seen, roots, "two of six are made again");
    spoil(2);
    let (report, seen) = checked(&rack).await;
    assert!(report.lost > 0 && report.unreadable_count > 0, "{report:?}");
    let unreadable: BTreeSet<[u8; 32]> = report.unreadable.iter().map(|(root, _)| *root).collect();
    assert!(seen.is_disjoint(&unreadable) && unreadable.is_subset(&roots));
    // A store is not lost by being looked at: the drives can still be mended.
    (0..3).for_each(spoil);
    assert!(checked(&rack).await.0.is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_not_what_the_segments_give_is_told() {
    let rack = Rack::new(3, 48, &layout(2, 1));
    let roots = filled(&rack, rack.open()).await;
    let tables: Vec<_> = files(&rack.directory.path().join("index"));
    let (path, bytes) = tables.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(path, damaged).unwrap();
    let (report, seen) = checked(&rack).await;
    assert!(report.index.is_some() && !report.is_sound(), "{report:?}");
    assert_eq!(seen, roots, "the segments have it all");
    // No index at all is one that lacks nothing that the segments do not have.
    fs::remove_dir_all(rack.directory.path().join("index")).unwrap();
    fs::create_dir(rack.directory.path().join("index")).unwrap();
    assert!(checked(&rack).await.0.is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_drive_is_no_damage_and_too_few_drives_are_an_error() {
    let mut rack = Rack::new(6, 48, &layout(4, 2));
    let roots = filled(&rack, rack.open()).await;
    rack.paths.remove(3);
    let (report, seen) = checked(&rack).await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((seen, report.drives_failed.len(), report.drives), (roots, 1, 6));
    rack.paths.truncate(3);
    let scratch = tempfile::tempdir().unwrap();
    let index = rack.directory.path().join("index");
    assert!(check(&rack.paths, &index, scratch.path(), &Options::default(), |_| ()).await.is_err());
}
