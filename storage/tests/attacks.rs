//! Faults that were found by looking for them, on real files: each test fails without its mend.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

mod support;

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use stele_storage::{Group, Options, Store};

use support::{MIB, Rack, content, layout};

const GROUP: Group = Group { class: 1, year: 2_040 };
const PATIENCE: Duration = Duration::from_secs(10);

async fn put_some(store: &Store, count: u64, bytes: usize) -> Vec<[u8; 32]> {
    let mut roots = Vec::new();
    for seed in 0..count {
        roots.push(store.put(GROUP, 1, content(seed, bytes)).await.unwrap().root);
    }
    roots
}

#[tokio::test]
async fn many_gets_at_a_time_end() {
    let rack = Rack::new(1, 200, &layout(1, 0));
    let store = rack.open();
    let roots = put_some(&store, 64, MIB).await;
    for round in 0..5 {
        let gets = roots.iter().map(|root| store.get(root, MIB));
        let got = tokio::time::timeout(PATIENCE, futures::future::join_all(gets)).await;
        assert!(got.is_ok(), "round {round}: 64 gets of 1 MiB do not end");
    }
}

#[tokio::test]
async fn objects_that_are_held_do_not_stop_others() {
    let rack = Rack::new(1, 100, &layout(1, 0));
    let store = rack.open();
    let roots = put_some(&store, 25, 100_000).await;
    let small = store.put(GROUP, 1, content(99, 10)).await.unwrap().root;
    let mut held = Vec::new();
    for root in &roots[..24] {
        held.push(store.object(root).await.unwrap());
    }
    let long = tokio::time::timeout(PATIENCE, store.get(&roots[24], MIB)).await.is_ok();
    let short = tokio::time::timeout(PATIENCE, store.get(&small, MIB)).await.is_ok();
    println!("long {long}, short {short}");
    assert!(long && short, "24 slow readers stop all others: another long one ends: {long}, a short one: {short}");
}

#[tokio::test]
async fn an_idle_upload_does_not_stop_others() {
    let rack = Rack::new(1, 100, &layout(1, 0));
    let store = rack.open_with(&rack.paths, &Options { intake_bytes_max: 16 * MIB, ..Options::default() }).unwrap();
    // As 16 of them would with 128 MiB.
    let mut uploads = Vec::new();
    for seed in 0..3 {
        let mut upload = store.upload(GROUP, 1).unwrap();
        upload.write(&content(seed, 7 * MIB)).await.unwrap();
        uploads.push(upload);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let put = tokio::time::timeout(PATIENCE, store.put(GROUP, 1, content(99, 10))).await;
    assert!(put.is_ok(), "uploads whose clients are slow stop all puts");
}

#[tokio::test]
async fn a_replacement_that_is_refused_changes_nothing() {
    let rack = Rack::new(1, 64, &layout(1, 0));
    let store = rack.open();
    let before = put_some(&store, 20, MIB).await;
    let small = rack.new_drive("small", 12);
    assert!(store.replace(0, &small).await.is_err());
    let seen = store.get(&before[0], MIB).await;
    let put = store.put(GROUP, 1, content(99, 1000)).await;
    drop(store);
    let store = rack.open();
    if let Ok(stored) = put {
        let got = store.get(&stored.root, MIB).await;
        assert!(got.is_ok(), "acknowledged after a refused replacement, and lost: {got:?}");
    }
    assert!(seen.is_ok(), "{seen:?}");
}

#[tokio::test]
async fn what_is_put_again_over_damage_is_there() {
    let rack = Rack::new(1, 64, &layout(1, 0));
    let store = rack.open();
    let bytes = content(5, 10_000);
    let root = store.put(GROUP, 1, bytes.clone()).await.unwrap().root;
    store.close().await.unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&rack.paths[0]).unwrap();
    let mut image = std::fs::read(&rack.paths[0]).unwrap();
    let at = image.windows(64).position(|window| window == &bytes[..64]).unwrap();
    image[at] ^= 1;
    file.write_all_at(&image[at..=at], at as u64).unwrap();
    let store = rack.open();
    assert!(store.get(&root, MIB).await.is_err());
    let put = store.put(GROUP, 1, bytes.clone()).await;
    assert!(
        put.is_err() || store.get(&root, MIB).await.is_ok(),
        "the put was acknowledged, and the object is not there"
    );
}

#[tokio::test]
async fn mirrors_that_were_opened_apart_lose_nothing() {
    let rack = Rack::new(3, 32, &layout(1, 2));
    let store = rack.open_with(&rack.paths[..2], &Options::default()).unwrap();
    let root = store.put(GROUP, 1, content(1, 1000)).await.unwrap().root;
    store.close().await.unwrap();
    // The other one alone, by mistake, and only looked at.
    let other = tempfile::tempdir().unwrap();
    drop(Store::open(&rack.paths[2..], other.path(), &Options::default()));
    let store = rack.open();
    let got = store.get(&root, MIB).await;
    assert!(got.is_ok(), "acknowledged on two of three mirrors, and lost: {got:?}");
}

#[tokio::test]
async fn as_many_drives_as_hold_the_data_are_not_replaced_together() {
    let rack = Rack::new(1, 32, &layout(1, 0));
    let store = rack.open();
    let root = store.put(GROUP, 1, content(1, 1000)).await.unwrap().root;
    let new = rack.new_drive("new", 32);
    let replaced = store.replace(0, &new).await;
    let got = store.get(&root, MIB).await;
    assert!(got.is_ok(), "the only copy was replaced by an empty drive: {replaced:?}, {got:?}");
}

#[tokio::test]
async fn an_object_that_is_put_twice_leaves_nothing_when_it_is_removed() {
    let rack = Rack::new(1, 64, &layout(1, 0));
    let store = rack.open();
    let bytes = content(5, 3 * MIB + 1);
    let root = store.put(GROUP, 1, bytes.clone()).await.unwrap().root;
    assert_eq!(store.put(GROUP, 1, bytes).await.unwrap().root, root);
    assert!(store.remove(&root, 2).await.unwrap());
    drop(store);
    // What the first upload left belongs to nobody.
    let store = rack.open();
    store.scrub(3 * 24 * 3_600 * 1_000).await.unwrap();
    store.close().await.unwrap();
    let figures = rack.open().index_figures();
    // The object and, of one upload, four parts and a section are ended.
    assert_eq!(figures.entries - figures.removals, 0, "records that nothing refers to: {figures:?}");
}

#[tokio::test]
async fn a_member_does_not_replace_another() {
    let rack = Rack::new(3, 32, &layout(1, 2));
    let store = rack.open();
    put_some(&store, 4, 1000).await;
    let replaced = store.replace(0, &rack.paths[1]).await;
    assert!(replaced.is_err(), "drive 1 is sound, and was taken in the place of drive 0: {replaced:?}");
}

#[tokio::test]
async fn an_index_with_a_rotten_page_is_made_again() {
    let rack = Rack::new(1, 64, &layout(1, 0));
    let index = stele_storage::index::Options { memtable_entries: 50, shards: 1, fanout: 2 };
    let options = Options { index, ..Options::default() };
    let store = rack.open_with(&rack.paths, &options).unwrap();
    let roots = put_some(&store, 400, 100).await;
    store.close().await.unwrap();
    let mut spoilt = 0;
    let index = std::fs::read_dir(rack.directory.path().join("index")).unwrap().next().unwrap().unwrap().path();
    for entry in std::fs::read_dir(index).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "keys") {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[0xff; 64], 4096 + 200).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0);
    let (mut failed, mut refused) = (0, 0);
    for round in 0..2_u64 {
        let opened = Store::open(&rack.paths, &rack.directory.path().join("index"), &options);
        assert!(opened.is_ok(), "round {round}: the store does not open: {opened:?}");
        let store = opened.unwrap();
        (failed, refused) = (0, 0);
        for root in &roots {
            failed += usize::from(store.get(root, MIB).await.is_err());
        }
        for seed in 0..400 {
            refused += usize::from(store.put(GROUP, 1, content(1_000 + round * 1_000 + seed, 100)).await.is_err());
        }
        store.close().await.ok();
    }
    assert_eq!((failed, refused), (0, 0), "gets that fail, and puts, after opening twice");
}

#[tokio::test]
async fn an_upload_that_lost_a_part_is_no_object() {
    let rack = Rack::new(1, 40, &layout(1, 0));
    let store = rack.open();
    let mut upload = store.upload(GROUP, 1).unwrap();
    let mut failed = false;
    for seed in 0..64 {
        failed |= upload.write(&content(seed, MIB)).await.is_err();
    }
    assert!(failed, "the store is full");
    let finished = upload.finish().await;
    assert!(finished.is_err(), "an object with a hole was acknowledged: {finished:?}");
    // One that is dropped in the middle of a write, too.
    let rack = Rack::new(1, 100, &layout(1, 0));
    let store = rack.open();
    let mut upload = store.upload(GROUP, 1).unwrap();
    let bytes = content(99, 32 * MIB);
    drop(tokio::time::timeout(Duration::ZERO, upload.write(&bytes)).await);
    assert!(upload.finish().await.is_err());
}

#[tokio::test]
async fn a_store_is_opened_once() {
    let rack = Rack::new(2, 32, &layout(1, 1));
    let store = rack.open();
    let other = tempfile::tempdir().unwrap();
    let again = Store::open(&rack.paths, other.path(), &Options::default());
    assert!(again.is_err(), "two stores write to the same drives");
    drop(store);
    drop(Store::open(&rack.paths, other.path(), &Options::default()).unwrap());
}
