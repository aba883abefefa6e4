//! The store on real files, through io_uring.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stele_accel_hash::HashAlgorithm;
use stele_device::Disk;
use stele_storage::{DriveState, Group, Layout, Options, StorageError, Store, Stored, content_root};

use support::{MIB, Rack, content, layout};

const GROUP: Group = Group { class: 1, year: 2_040 };

/// Puts objects of these lengths together.
async fn put_all(store: &Store, seed: u64, lengths: &[usize]) -> Vec<(Stored, Bytes)> {
    let puts = (seed..).zip(lengths).map(|(seed, length)| async move {
        let bytes = content(seed, *length);
        (store.put(GROUP, 1, bytes.clone()).await.unwrap(), bytes)
    });
    futures::future::join_all(puts).await
}

async fn check_all(store: &Store, stored: &[(Stored, Bytes)]) {
    for (object, bytes) in stored {
        assert_eq!(store.get(&object.root, 64 * MIB).await.unwrap(), *bytes, "an object of {} bytes", bytes.len());
    }
}

/// Flips a bit of every block of a file, but for the superblocks.
fn spoil(path: &Path, from: u64, to: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for offset in (from..to).step_by(4096) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset + 77).unwrap();
        file.write_all_at(&[byte[0] ^ 4], offset + 77).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_length_come_back_also_after_a_restart() {
    for hash in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
        let rack = Rack::new(6, 64, &Layout { hash, ..layout(4, 2) });
        let store = rack.open();
        let lengths = [0, 1, 63, 64, 65, 4_095, 4_096, 4_097, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 5 * MIB + 777];
        let stored = put_all(&store, 1, &lengths).await;
        for (object, bytes) in &stored {
            assert_eq!(object.root, content_root(hash, bytes));
            assert_eq!(object.bytes, bytes.len() as u64);
        }
        check_all(&store, &stored).await;
        // Without closing: the index is what it was when the store was opened, and everything is replayed.
        drop(store);
        let store = rack.open();
        check_all(&store, &stored).await;
        store.close().await.unwrap();
        let store = rack.open();
        check_all(&store, &stored).await;
        // Without its index: it is made again.
        drop(store);
        std::fs::remove_dir_all(rack.directory.path().join("index")).unwrap();
        let store = rack.open();
        check_all(&store, &stored).await;
        assert!(matches!(store.get(&[9; 32], MIB).await, Err(StorageError::NotFound)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_verify_alone() {
    let rack = Rack::new(3, 64, &layout(2, 1));
    let store = rack.open();
    let bytes = content(3, 9 * MIB + 12_345);
    let mut upload = store.upload(GROUP, 1).unwrap();
    // In pieces that fit no border.
    for piece in bytes.chunks(333_333) {
        upload.write(piece).await.unwrap();
    }
    let stored = upload.finish().await.unwrap();
    assert_eq!(stored.root, content_root(HashAlgorithm::Sha256, &bytes));
    let mut object = store.object(&stored.root).await.unwrap();
    for (from, length) in
        [(0, 1), (65_535, 2), (MIB - 1, 2), (3 * MIB + 7, 300_000), (9 * MIB, 12_345), (9 * MIB + 12_344, 9)]
    {
        let mut read = Vec::new();
        let end = bytes.len().min(from + length);
        while from + read.len() < end {
            read.extend(object.read((from + read.len()) as u64, end - from - read.len()).await.unwrap());
        }
        assert_eq!(read, bytes[from..end], "{length} bytes from {from}");
    }
    assert!(object.read(bytes.len() as u64, 1).await.unwrap().is_empty());
    assert!(matches!(object.read(bytes.len() as u64 + 1, 1).await, Err(StorageError::Range { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_eleven_drives_may_rot_and_are_mended() {
    let rack = Rack::new(11, 48, &layout(8, 3));
    let store = rack.open();
    let stored = put_all(&store, 100, &[65_536; 300]).await;
    for drive in [1, 5, 8] {
        spoil(&rack.paths[drive], MIB as u64, 24 * MIB as u64);
    }
    check_all(&store, &stored).await;
    let status = store.status().await.unwrap();
    assert!(status.counters.reconstructed > 0, "{status:?}");
    let report = store.scrub(3).await.unwrap();
    assert_eq!(report.lost, 0, "{report:?}");
    let again = store.scrub(3).await.unwrap();
    assert_eq!((again.repaired, again.lost), (0, 0), "everything was mended at once: {report:?}, then {again:?}");
    drop(store);
    let store = rack.open();
    check_all(&store, &stored).await;
    assert_eq!(store.status().await.unwrap().counters.reconstructed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_four_of_eleven_the_rest_is_served_and_the_loss_is_told() {
    let rack = Rack::new(11, 48, &layout(8, 3));
    let store = rack.open();
    let stored = put_all(&store, 500, &[65_536; 300]).await;
    // The same blocks of four drives: what lies there is gone.
    for drive in [0, 3, 6, 9] {
        spoil(&rack.paths[drive], 2 * MIB as u64, 2 * MIB as u64 + 128 * 1024);
    }
    let (mut served, mut lost) = (0, 0);
    for (object, bytes) in &stored {
        match store.get(&object.root, MIB).await {
            Ok(read) => {
                assert_eq!(read, *bytes);
                served += 1;
            }
            Err(StorageError::Damaged { needed: 8, .. }) => lost += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(served > 200 && lost > 0, "{served} served, {lost} lost");
    assert!(store.scrub(3).await.unwrap().lost > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_listed_by_the_year_of_their_group() {
    let rack = Rack::new(3, 64, &layout(2, 1));
    let store = rack.open();
    let mut by_year = Vec::new();
    for (seed, year) in (1..).zip([2_020, 0, 2_024, 2_025, 2_020]) {
        let group = Group { year, ..GROUP };
        by_year.push((year, store.put(group, 1, content(seed, 3 * MIB)).await.unwrap().root));
    }
    for years in [1..=2_019, 1..=2_024, 2_025..=2_025] {
        let (mut found, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let listing = store.list_years(from, years.clone()).await.unwrap();
            assert!(listing.roots.iter().all(|(_, group)| years.contains(&group.year)), "{listing:?}");
            found.extend(listing.roots.into_iter().map(|(root, _)| root));
            next = listing.next;
        }
        let mut expected: Vec<_> =
            by_year.iter().filter(|(year, _)| years.contains(year)).map(|(_, root)| *root).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{years:?}");
    }
}

/// A scrub named the batches that were lost, and whoever brings bodies back found only those whose manifests lay there, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_parts_lead_to_their_objects_wherever_the_manifests_lie() {
    let rack = Rack::new(3, 64, &layout(2, 1));
    let store = rack.open();
    let long = content(1, 13 * MIB);
    let root = store.put(GROUP, 1, long.clone()).await.unwrap().root;
    let small = store.put(GROUP, 1, content(2, 70_000)).await.unwrap().root;
    let first = store.list(0, 1).await.unwrap();
    assert!(first.roots.is_empty() && first.next.is_some(), "the first segment holds parts alone: {first:?}");
    assert!(store.losses(0).await.unwrap().roots.is_empty(), "nothing is lost yet");

    for drive in [0, 1] {
        // In the middle of a part.
        spoil(&rack.paths[drive], 3 * MIB as u64 / 2, 3 * MIB as u64 / 2 + 128 * 1024);
    }
    assert!(store.scrub_some(0, 1, 3).await.unwrap().lost > 0);
    let losses = store.losses(0).await.unwrap();
    assert_eq!((losses.roots, losses.unknown, losses.next), (vec![root], 0, first.next));
    let mut next = first.next;
    while let Some(from) = next {
        let losses = store.losses(from).await.unwrap();
        assert!(losses.roots.is_empty(), "what lies there can be read: {losses:?}");
        next = losses.next;
    }

    // Put again it is whole, and what was lost of it is nobody's.
    store.put(GROUP, 2, long.clone()).await.unwrap();
    assert_eq!(store.get(&root, 64 * MIB).await.unwrap(), long);
    assert!(store.losses(0).await.unwrap().roots.is_empty());
    assert!(store.get(&small, MIB).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drives_are_replaced_while_the_store_serves() {
    let rack = Rack::new(6, 64, &layout(4, 2));
    let mut stored = {
        let store = rack.open();
        let stored = put_all(&store, 900, &[65_536; 600]).await;
        store.close().await.unwrap();
        stored
    };
    // Two drives are gone; everything is served, and nothing is written, since one more loss would be too much.
    let left: Vec<PathBuf> =
        rack.paths.iter().enumerate().filter(|(at, _)| ![2, 4].contains(at)).map(|(_, path)| path.clone()).collect();
    let store = rack.try_open(&left).unwrap();
    check_all(&store, &stored).await;
    assert!(matches!(store.put(GROUP, 1, content(1, 10)).await, Err(StorageError::ReadOnly { .. })));
    let states: Vec<DriveState> = store.status().await.unwrap().drives.iter().map(|drive| drive.state).collect();
    let missing: Vec<usize> = (0..6).filter(|drive| states[*drive] == DriveState::Failed).collect();
    assert_eq!(missing, [2, 4]);

    let too_small = rack.new_drive("small", 8);
    assert!(matches!(store.replace(2, &too_small).await, Err(StorageError::Shape { .. })));
    let new = rack.new_drive("new-2", 64);
    let report = store.replace(2, &new).await.unwrap();
    assert!(report.repaired > 0 && report.lost == 0, "{report:?}");
    stored.extend(put_all(&store, 5_000, &[65_536; 50]).await);
    let other = rack.new_drive("new-4", 64);
    store.replace(4, &other).await.unwrap();
    check_all(&store, &stored).await;
    drop(store);

    // The new drives carry their share: two of the old ones can go.
    let paths = [&rack.paths[0], &rack.paths[1], &new, &other].map(Clone::clone);
    let store = rack.try_open(&paths).unwrap();
    check_all(&store, &stored).await;
    drop(store);
    let few = rack.try_open(&paths[..3]);
    assert!(matches!(few, Err(StorageError::TooFewDrives { sound: 3, drives: 6, needed: 4 })), "{few:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drive_was_asked_for_is_counted_beyond_its_replacement() {
    let rack = Rack::new(3, 40, &layout(2, 1));
    let store = rack.open();
    let stored = put_all(&store, 7, &[MIB; 12]).await;
    check_all(&store, &stored).await;
    let before = store.traffic().await.unwrap();
    assert_eq!(before.len(), 3);
    let written: u64 = before.iter().map(|drive| drive.writes.bytes).sum();
    assert!(before.iter().all(|drive| drive.writes.operations() > 0 && drive.writes.latency_ns > 0));
    assert!(written >= 18 * MIB as u64, "{written} bytes for 12 MiB and their parity");
    assert!(before.iter().map(|drive| drive.reads.bytes).sum::<u64>() >= 12 * MIB as u64);

    store.replace(1, &rack.new_drive("new-1", 40)).await.unwrap();
    let after = store.traffic().await.unwrap();
    // The new drive begins with what is made again on it; what the old one did stays counted.
    assert!(after[1].reads.operations() >= before[1].reads.operations());
    assert!(after[1].writes.operations() > before[1].writes.operations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_before_harm_and_is_emptied_by_collecting() {
    let rack = Rack::new(3, 40, &layout(2, 1));
    let store = rack.open();
    let mut stored = Vec::new();
    let refused = loop {
        let seed = stored.len() as u64;
        match store.put(GROUP, 1, content(seed, MIB)).await {
            Ok(object) => stored.push((object, content(seed, MIB))),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StorageError::Full { .. }), "{refused}");
    check_all(&store, &stored).await;
    // Every other one goes; what is left is moved together.
    for (at, (object, _)) in stored.iter().enumerate() {
        if at % 4 > 0 {
            assert!(store.remove(&object.root, 2).await.unwrap());
        }
    }
    let (kept, gone): (Vec<_>, Vec<_>) = stored.into_iter().enumerate().partition(|(at, _)| at % 4 == 0);
    let kept: Vec<_> = kept.into_iter().map(|(_, stored)| stored).collect();
    let mut freed = 0;
    for _ in 0..8 {
        freed += store.collect(60, 4).await.unwrap().segments;
    }
    assert!(freed >= 4, "{freed} segments were freed");
    check_all(&store, &kept).await;
    for (_, (object, _)) in &gone {
        assert!(matches!(store.get(&object.root, MIB).await, Err(StorageError::NotFound)));
    }
    put_all(&store, 70_000, &[MIB; 8]).await;
    drop(store);
    let store = rack.open();
    check_all(&store, &kept).await;
    for (_, (object, _)) in &gone {
        assert!(matches!(store.get(&object.root, MIB).await, Err(StorageError::NotFound)), "it is back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_is_removed_with_its_parts() {
    let rack = Rack::new(3, 64, &layout(2, 1));
    let store = rack.open();
    let stored = put_all(&store, 7, &[6 * MIB + 1]).await;
    // Parts, a section, the upload's end and the manifest.
    assert_eq!(store.status().await.unwrap().records, 7 + 1 + 1 + 1);
    assert!(store.remove(&stored[0].0.root, 2).await.unwrap());
    assert!(!store.remove(&stored[0].0.root, 2).await.unwrap());
    assert_eq!(store.status().await.unwrap().records, 0);
    // It can be put again.
    let again = put_all(&store, 7, &[6 * MIB + 1]).await;
    check_all(&store, &again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_uploads_leave_that_never_end_is_removed_by_a_scrub() {
    const DAY_MS: u64 = 24 * 3_600 * 1_000;
    let rack = Rack::new(3, 64, &layout(2, 1));
    let store = rack.open();
    let kept = put_all(&store, 7, &[6 * MIB + 1]).await;
    let mut upload = store.upload(GROUP, 1).unwrap();
    upload.write(&content(8, 6 * MIB)).await.unwrap();
    drop(upload);
    let records = || async { store.status().await.unwrap().records };
    // Those that were on their way land in the end.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let before = records().await;
    assert!(before > 10, "{before} records");
    // Only what is settled is looked at.
    drop(store);
    let store = rack.open();
    assert_eq!(store.scrub(DAY_MS).await.unwrap().orphans, 0, "it may still be going on");
    let report = store.scrub(DAY_MS + 2).await.unwrap();
    assert_eq!(report.orphans, before - 10, "{report:?}");
    assert_eq!(store.scrub(DAY_MS + 2).await.unwrap().orphans, 0);
    check_all(&store, &kept).await;
}

#[test]
fn drives_without_a_store_or_of_another_are_refused() {
    let rack = Rack::new(3, 40, &layout(2, 1));
    let other = Rack::new(3, 40, &layout(2, 1));
    let mixed = [&rack.paths[0], &rack.paths[1], &other.paths[2]].map(Clone::clone);
    assert!(matches!(rack.try_open(&mixed), Err(StorageError::Foreign { .. })));
    let empty = rack.new_drive("empty", 40);
    assert!(matches!(rack.try_open(&[empty]), Err(StorageError::Foreign { .. })));
    let shape = |data, parity, slot_bytes| {
        let disk = Disk::open(&rack.paths[0], &stele_device::Options::default()).unwrap();
        Store::format(&[&disk], &Layout { data, parity, slot_bytes, ..Layout::default() }).unwrap_err().code()
    };
    assert_eq!(shape(2, 1, 4 << 20), "storage_shape");
    assert_eq!(shape(0, 1, 4 << 20), "storage_shape");
    assert_eq!(shape(1, 0, 4096), "storage_shape");
    assert_eq!(shape(1, 0, 1 << 40), "storage_shape");
    assert_eq!(shape(1, 0, 38 << 20), "storage_shape");
}

/// An object of 18 MB took four segments of 32 MiB: each part had a stripe to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_shares_its_stripes_with_itself() {
    let rack = Rack::new(11, 32, &layout(8, 3));
    let store = rack.open();
    let bytes = content(1, 18 * MIB);
    let mut upload = store.upload(GROUP, 1).unwrap();
    for piece in bytes.chunks(MIB) {
        upload.write(piece).await.unwrap();
        // The engine has done what it can before more comes.
        store.status().await.unwrap();
    }
    let stored = upload.finish().await.unwrap();
    assert_eq!(store.status().await.unwrap().segments, 1);
    check_all(&store, &[(stored, bytes)]).await;
    store.close().await.unwrap();
}

/// Parts that wait for more hold places of the intake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_wait_for_more_hold_up_nobody() {
    let rack = Rack::new(6, 64, &layout(4, 2));
    let store = rack.open_with(&rack.paths, &Options { intake_bytes_max: 2 * MIB, ..Options::default() }).unwrap();
    let bytes = content(2, 9 * MIB + 1);
    let mut upload = store.upload(GROUP, 1).unwrap();
    // More than there are places for.
    upload.write(&bytes[..5 * MIB + 1]).await.unwrap();
    // The client pauses, and others go on.
    let others = put_all(&store, 3, &[MIB, 10, MIB, MIB]).await;
    assert!(store.remove(&others[1].0.root, 2).await.unwrap());
    upload.write(&bytes[5 * MIB + 1..]).await.unwrap();
    let stored = upload.finish().await.unwrap();
    check_all(&store, &[(stored, bytes), others[0].clone()]).await;
    // One that never ends is left behind.
    let mut broken = store.upload(GROUP, 1).unwrap();
    broken.write(&content(4, 2 * MIB)).await.unwrap();
    drop(broken);
    store.close().await.unwrap();
}
