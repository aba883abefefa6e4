//! A store whose segments go to a real Ceph cluster and come back. One test, since each of its processes would start its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

#[path = "ceph/mod.rs"]
mod ceph;
mod content;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stele_cold::{ColdDriver, ColdOptions, ColdPolicy, ColdReport, ColdTier, Retention, RetentionMode, lost_stores};
use stele_device::{BlockDevice, Disk};
use stele_storage::{Group, Layout, LostStore, Options, StorageError, Store, Stored};

use ceph::Cluster;
use content::content;

const MIB: usize = 1 << 20;
const GROUP: Group = Group { class: 1, year: 2_040 };

/// Bytes of a slot: two of three hold records, so that a segment has eight.
const SLOT_BYTES: u64 = 4 << 20;

#[test]
fn segments_go_to_ceph_and_come_back() {
    let Some(mut cluster) = Cluster::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut world = runtime.block_on(World::new(&cluster));
    runtime.block_on(world.segments_are_copied_bit_by_bit());
    runtime.block_on(world.what_was_put_and_not_told_is_found_again());
    runtime.block_on(world.slots_are_given_up_and_records_are_read_from_there());
    runtime.block_on(world.a_lost_index_is_made_again_from_both());
    world.an_outage_is_told(&mut cluster, &runtime);
    world.what_is_lost_on_the_drives_is_made_from_there(&mut cluster, &runtime);
    runtime.block_on(world.objects_that_nobody_needs_are_deleted());
    runtime.block_on(a_lock_keeps_what_nobody_needs(&cluster));
    runtime.block_on(a_lost_store_is_made_again_from_there(&cluster));
}

struct World {
    rack: Rack,
    tier: ColdTier,
    store: Option<Arc<Store>>,
    kept: Vec<(Stored, Bytes)>,
    removed: Vec<Stored>,
}

struct Rack {
    directory: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

impl Rack {
    fn new() -> Self {
        Self::succeeding(None)
    }

    fn succeeding(successor_of: Option<LostStore>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..3).map(|drive| directory.path().join(format!("drive-{drive}"))).collect();
        let create = |path: &PathBuf| Disk::create(path, 96 * 256, &stele_device::Options::default()).unwrap();
        let disks: Vec<Disk> = paths.iter().map(create).collect();
        let devices: Vec<&dyn BlockDevice> = disks.iter().map(|disk| disk as _).collect();
        let layout = Layout { data: 2, parity: 1, slot_bytes: SLOT_BYTES, successor_of, ..Layout::default() };
        Store::format(&devices, &layout).unwrap();
        Self { directory, paths }
    }

    fn open(&self) -> Arc<Store> {
        Arc::new(Store::open(&self.paths, &self.directory.path().join("index"), &Options::default()).unwrap())
    }
}

async fn put_all(store: &Store, seed: u64, lengths: &[usize]) -> Vec<(Stored, Bytes)> {
    let puts = (seed..).zip(lengths).map(|(seed, length)| async move {
        let bytes = content(seed, *length);
        (store.put(GROUP, 1, bytes.clone()).await.unwrap(), bytes)
    });
    futures::future::join_all(puts).await
}

fn driver(store: &Arc<Store>, tier: &ColdTier, free_percent_min: u8) -> ColdDriver {
    let policy = ColdPolicy { age: Duration::ZERO, free_percent_min, segments_max: 100, ..ColdPolicy::default() };
    ColdDriver::new(Arc::clone(store), tier.clone(), policy)
}

impl World {
    async fn new(cluster: &Cluster) -> Self {
        let options = cluster.tls_options("segments", "seals");
        ColdTier::make_buckets(&options).await.unwrap();
        let tier = ColdTier::open(options).await.unwrap();
        let rack = Rack::new();
        let store = Some(rack.open());
        Self { rack, tier, store, kept: Vec::new(), removed: Vec::new() }
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().unwrap()
    }

    /// Nothing is closed: what is sealed is found out at the next opening.
    fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        assert_eq!(Arc::strong_count(&store), 1, "somebody holds the store");
        drop(store);
        self.store = Some(self.rack.open());
    }

    async fn put(&mut self, seed: u64, lengths: &[usize]) {
        self.kept.extend(put_all(self.store(), seed, lengths).await);
    }

    async fn check(&self) {
        for (object, bytes) in &self.kept {
            let read = self.store().get(&object.root, 64 * MIB).await;
            assert_eq!(read.unwrap(), *bytes, "an object of {} bytes", bytes.len());
        }
        for object in &self.removed {
            assert!(
                matches!(self.store().get(&object.root, 64 * MIB).await, Err(StorageError::NotFound)),
                "it is back"
            );
        }
    }

    async fn segments_are_copied_bit_by_bit(&mut self) {
        // Small ones share blocks, some fill a record, one has parts of its own.
        let lengths: Vec<usize> = (0..200).map(|number| if number % 5 == 0 { 700 } else { 65_536 }).collect();
        self.put(1, &lengths).await;
        self.put(1_000, &[6 * MIB + 77, 9 * MIB]).await;
        // A tombstone is in a segment that goes.
        let (object, _) = self.kept.swap_remove(3);
        assert!(self.store().remove(&object.root, 2).await.unwrap());
        self.removed.push(object);
        self.reopen();
        let driver = driver(self.store(), &self.tier, 0);
        // What is too young stays.
        assert_eq!(driver.step(1).await.unwrap(), ColdReport::default());
        let report = driver.step(10).await.unwrap();
        assert!(report.copied >= 3 && report.dropped == 0, "{report:?}");
        assert_eq!(driver.step(10).await.unwrap(), ColdReport::default(), "nothing is copied twice");
        let mut bytes = 0;
        for status in self.store().cold_list().await.unwrap() {
            assert!(status.held && status.local && !status.unread, "{status:?}");
            let image = self.store().cold_image(status.segment).await.unwrap();
            let sealed = self.tier.find(&image.name()).await.unwrap().unwrap();
            self.tier.verify(&sealed).await.unwrap();
            bytes += sealed.bytes;
            for number in 0..image.batches() {
                let cells = self.store().cold_cells(&image, number).await.unwrap();
                let read = self.tier.read(&sealed, image.batch(number).unwrap()).await.unwrap();
                assert!(read == cells, "batch {number} of segment {}", status.segment);
            }
        }
        assert_eq!(bytes, report.copied_bytes);
        self.check().await;
    }

    /// The process dies between the object's seal and the store's record.
    async fn what_was_put_and_not_told_is_found_again(&mut self) {
        self.put(2_000, &[65_536; 20]).await;
        self.reopen();
        let store = Arc::clone(self.store());
        let candidates = store.cold_candidates(|_| 10, 10).await.unwrap();
        let image = store.cold_begin(candidates[0]).await.unwrap();
        let mut object = image.header().to_vec();
        for number in 0..image.batches() {
            object.extend_from_slice(&store.cold_cells(&image, number).await.unwrap());
        }
        let bytes = Bytes::from(object);
        let source = futures::stream::iter([Ok(bytes.clone())]);
        let sealed = self.tier.put(&image.name(), bytes.len() as u64, source).await.unwrap();
        drop(store);
        self.reopen();
        let begun = self.store().cold_list().await.unwrap();
        let begun = begun.iter().find(|status| status.segment == candidates[0]).unwrap();
        assert!(!begun.held && begun.local, "that a copy was begun is known: {begun:?}");
        let report = driver(self.store(), &self.tier, 0).step(10).await.unwrap();
        assert_eq!(report.copied, candidates.len() as u64);
        assert_eq!(self.tier.find(&image.name()).await.unwrap(), Some(sealed), "it was not put again");
    }

    async fn slots_are_given_up_and_records_are_read_from_there(&mut self) {
        let before = self.store().status().await.unwrap();
        let report = driver(self.store(), &self.tier, 100).step(10).await.unwrap();
        assert_eq!(report.dropped, before.segments_cold);
        let after = self.store().status().await.unwrap();
        assert!(after.segments_free > before.segments_free, "{before:?}, then {after:?}");
        assert!(self.store().cold_list().await.unwrap().iter().all(|status| status.held && !status.local));
        self.check().await;
        // A range costs its parts.
        let (object, bytes) = self.kept.last().unwrap().clone();
        let large = self.kept.iter().find(|(object, _)| object.bytes > 5 * MIB as u64).unwrap().clone();
        for (object, bytes) in [(object, bytes), large] {
            let mut open = self.store().object(&object.root).await.unwrap();
            let from = bytes.len() / 2;
            let read = open.read(from as u64, 10_000).await.unwrap();
            assert_eq!(read, bytes[from..from + read.len()]);
        }
        // A removal of what is there, and another restart.
        let (object, _) = self.kept.swap_remove(7);
        assert!(self.store().remove(&object.root, 3).await.unwrap());
        self.removed.push(object);
        self.reopen();
        let driver = driver(self.store(), &self.tier, 0);
        assert_eq!(driver.recall().await.unwrap(), 0, "the index has it all");
        self.check().await;
    }

    async fn a_lost_index_is_made_again_from_both(&mut self) {
        self.put(3_000, &[65_536; 10]).await;
        drop(self.store.take());
        std::fs::remove_dir_all(self.rack.directory.path().join("index")).unwrap();
        self.store = Some(self.rack.open());
        let unread = self.store().cold_list().await.unwrap();
        assert!(!unread.is_empty() && unread.iter().all(|status| status.unread), "{unread:?}");
        // What is only there is not said to be absent, and nothing is taken for dead.
        let cold = self.kept[0].0.root;
        let error = self.store().get(&cold, MIB).await.unwrap_err();
        assert!(matches!(error, StorageError::Busy { .. }), "{error}");
        assert!(self.store().remove(&cold, 4).await.is_err());
        assert!(self.store().collect(100, 10).await.is_err());
        let driver = driver(self.store(), &self.tier, 0);
        assert_eq!(driver.recall().await.unwrap(), unread.len() as u64);
        self.check().await;
        assert!(matches!(self.store().get(&[9; 32], MIB).await, Err(StorageError::NotFound)));
        drop(driver);
        self.reopen();
        assert!(
            self.store().cold_list().await.unwrap().iter().all(|status| status.unread),
            "the index was not flushed"
        );
        let driver = driver_of(self);
        driver.recall().await.unwrap();
        drop(driver);
        let store = Arc::into_inner(self.store.take().unwrap()).unwrap();
        store.close().await.unwrap();
        self.store = Some(self.rack.open());
        assert!(self.store().cold_list().await.unwrap().iter().all(|status| !status.unread), "it was made durable");
        drop(driver_of(self));
        self.check().await;
    }

    fn an_outage_is_told(&mut self, cluster: &mut Cluster, runtime: &tokio::runtime::Runtime) {
        let mut options = cluster.options("segments", "seals");
        (options.retries_max, options.request_timeout) = (0, Duration::from_secs(3));
        let tier = runtime.block_on(ColdTier::open(options)).unwrap();
        self.reopen();
        let driver = driver(self.store(), &tier, 0);
        let cold = self.kept[0].0.root;
        runtime.block_on(self.store().get(&cold, MIB)).unwrap();
        cluster.stop("radosgw");
        let error = runtime.block_on(self.store().get(&cold, MIB)).unwrap_err();
        assert!(matches!(error, StorageError::Cold { retry_after: Some(_), .. }) && error.is_retryable(), "{error}");
        // What the drives have is served, and taken.
        let (object, bytes) = runtime.block_on(put_all(self.store(), 4_000, &[MIB])).pop().unwrap();
        assert_eq!(runtime.block_on(self.store().get(&object.root, MIB)).unwrap(), bytes);
        self.kept.push((object, bytes));
        // A removal of what is there needs nothing of it.
        let at = self.kept.iter().position(|(object, _)| object.bytes <= MIB as u64 && object.root != cold).unwrap();
        let (object, _) = self.kept.swap_remove(at);
        assert!(runtime.block_on(self.store().remove(&object.root, 3)).unwrap());
        self.removed.push(object);
        cluster.restart("radosgw");
        runtime.block_on(self.store().get(&cold, MIB)).unwrap();
        drop(driver);
    }

    fn what_is_lost_on_the_drives_is_made_from_there(
        &mut self,
        cluster: &mut Cluster,
        runtime: &tokio::runtime::Runtime,
    ) {
        let objects = runtime.block_on(put_all(self.store(), 5_000, &[65_536; 60]));
        self.kept.extend(objects.clone());
        self.reopen();
        let driver = driver(self.store(), &self.tier, 0);
        let report = runtime.block_on(driver.step(10)).unwrap();
        assert!(report.copied > 0, "{report:?}");
        let list = runtime.block_on(self.store().cold_list()).unwrap();
        let both = list.iter().filter(|status| status.local).map(|status| status.segment).next_back().unwrap();
        // Of two of its three columns everything but the slots' headers: one more than there is parity for.
        let spoilt = self.rack.paths.iter().filter(|path| spoil(path, both)).count();
        assert_eq!(spoilt, 2);
        for (object, bytes) in &objects {
            assert_eq!(
                runtime.block_on(self.store().get(&object.root, MIB)).unwrap(),
                *bytes,
                "not from the cold tier"
            );
        }
        let alone = runtime.block_on(self.store().scrub_some(both, 1, 10)).unwrap();
        assert!(alone.lost > 0, "it can be made again without the cold tier: {alone:?}");
        let report = runtime.block_on(driver.scrub(both, 10)).unwrap();
        assert!(report.repaired > 0 && report.lost == 0, "{report:?}");
        // Now without the cold tier.
        cluster.stop("radosgw");
        for (object, bytes) in &objects {
            assert_eq!(runtime.block_on(self.store().get(&object.root, MIB)).unwrap(), *bytes, "from the drives");
        }
        let report = runtime.block_on(self.store().scrub_some(both, 1, 10)).unwrap();
        assert_eq!((report.repaired, report.lost), (0, 0), "{report:?}");
        cluster.restart("radosgw");
    }

    async fn objects_that_nobody_needs_are_deleted(&mut self) {
        for (object, _) in std::mem::take(&mut self.kept) {
            assert!(self.store().remove(&object.root, 5).await.unwrap());
            self.removed.push(object);
        }
        // The youngest are still written to; and what has tombstones gives them on.
        self.reopen();
        let all = driver(self.store(), &self.tier, 100);
        let held = self.store().status().await.unwrap().segments_cold;
        let report = all.step(10).await.unwrap();
        assert_eq!(report.deleted, held + report.copied, "{report:?}, of {held}");
        assert!(self.store().cold_list().await.unwrap().is_empty());
        assert!(self.tier.list("", None).await.unwrap().is_empty());
        drop(all);
        self.check().await;
        self.reopen();
        drop(driver(self.store(), &self.tier, 0));
        self.check().await;
    }
}

fn driver_of(world: &World) -> ColdDriver {
    driver(world.store(), &world.tier, 0)
}

/// Flips a bit of each block of a segment's slot on a drive but the first; whether the drive was to be spoilt: the first two.
fn spoil(path: &std::path::Path, segment: u32) -> bool {
    if path.ends_with("drive-2") {
        return false;
    }
    let file = File::options().read(true).write(true).open(path).unwrap();
    let slots = (0..23).map(|slot| (1 << 20) + slot * SLOT_BYTES);
    for slot in slots {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, slot).unwrap();
        // Magic, store and drive, number of the drive and of the slot, number of the segment.
        if header[..8] != *b"SteleSL1" || header[46..50] != segment.to_le_bytes() {
            continue;
        }
        for block in 1..SLOT_BYTES / 4_096 {
            let mut byte = [0];
            file.read_exact_at(&mut byte, slot + block * 4_096 + 77).unwrap();
            file.write_all_at(&[byte[0] ^ 4], slot + block * 4_096 + 77).unwrap();
        }
        return true;
    }
    false
}

async fn a_lock_keeps_what_nobody_needs(cluster: &Cluster) {
    let retention = Some(Retention { mode: RetentionMode::Compliance, days: 30 });
    let options = ColdOptions { retention, ..cluster.options("law-segments", "law-seals") };
    ColdTier::make_buckets(&options).await.unwrap();
    let tier = ColdTier::open(options).await.unwrap();
    let rack = Rack::new();
    let store = rack.open();
    let stored = put_all(&store, 1, &[65_536; 20]).await;
    Arc::into_inner(store).unwrap().close().await.unwrap();
    let store = rack.open();
    let driver = driver(&store, &tier, 100);
    let report = driver.step(10).await.unwrap();
    assert_eq!((report.copied, report.dropped), (1, 1), "{report:?}");
    for (object, bytes) in &stored {
        assert_eq!(store.get(&object.root, MIB).await.unwrap(), *bytes);
        assert!(store.remove(&object.root, 2).await.unwrap());
    }
    let report = driver.step(1).await.unwrap();
    assert_eq!((report.deleted, report.locked), (0, 1), "{report:?}");
    assert_eq!(store.cold_list().await.unwrap().len(), 1, "it is not forgotten");
}

/// All drives of a store are gone, and so is its index.
async fn a_lost_store_is_made_again_from_there(cluster: &Cluster) {
    let options = cluster.options("lost-segments", "lost-seals");
    ColdTier::make_buckets(&options).await.unwrap();
    let tier = ColdTier::open(options).await.unwrap();
    let rack = Rack::new();
    let store = rack.open();
    let at_once = ColdPolicy { at_once: vec![GROUP.class], free_percent_min: 0, ..ColdPolicy::default() };
    let first = ColdDriver::new(Arc::clone(&store), tier.clone(), at_once.clone());
    // Small ones, and one of which a part lies in a segment that is still written to.
    let stored = put_all(&store, 1, &[65_536, 700, 12 * MIB, 300_000]).await;
    let mut kept = Vec::new();
    for (object, bytes) in stored {
        assert!(!store.is_cold(&object.root).await.unwrap());
        kept.push((object, bytes));
    }
    // What is being written to does not go by itself.
    first.step(10).await.unwrap();
    assert!(!store.is_cold(&kept[2].0.root).await.unwrap(), "a part of it is on the drives alone");
    first.seal(GROUP).await.unwrap();
    first.seal(Group { class: 7, year: 0 }).await.unwrap();
    assert!(first.step(10).await.unwrap().copied > 0);
    for (object, _) in &kept {
        assert!(store.is_cold(&object.root).await.unwrap());
        assert_eq!(store.group(&object.root).await.unwrap(), GROUP);
    }
    // Young, and of a class that is in no hurry.
    let young = store.put(Group { class: 2, year: 0 }, 10, content(9, 5_000)).await.unwrap();
    store.seal(Group { class: 2, year: 0 }).await.unwrap();
    assert_eq!(first.step(10).await.unwrap().copied, 0);
    assert!(matches!(store.is_cold(&[9; 32]).await, Err(StorageError::NotFound)));
    let id = store.id();
    drop((first, store, rack));

    // Somebody who may write there puts what is no segment under a name of the store.
    let strange = content(8, 100_000);
    let source = futures::stream::iter([Ok(strange.clone())]);
    tier.put(&format!("{}/00000063", stele_storage::cold_prefix(&id)), strange.len() as u64, source).await.unwrap();

    let lost = lost_stores(&tier).await.unwrap();
    assert_eq!(lost.iter().map(|lost| lost.id).collect::<Vec<_>>(), [id]);
    let rack = Rack::succeeding(Some(lost[0]));
    let store = rack.open();
    assert_eq!(store.id(), id);
    let second = ColdDriver::new(Arc::clone(&store), tier.clone(), at_once);
    let adopted = second.reconcile().await.unwrap();
    assert!(adopted >= 2, "{adopted} objects");
    assert_eq!(second.recall().await.unwrap(), adopted);
    for (object, bytes) in &kept {
        assert_eq!(store.get(&object.root, 64 * MIB).await.unwrap(), *bytes);
        assert!(store.is_cold(&object.root).await.unwrap());
    }
    // What had not gone is lost, and told so.
    assert!(matches!(store.get(&young.root, MIB).await, Err(StorageError::NotFound)));
    // It goes on as a store, under numbers that were never given.
    assert!(store.remove(&kept[0].0.root, 20).await.unwrap());
    let more = put_all(&store, 50, &[65_536; 10]).await;
    second.seal(GROUP).await.unwrap();
    assert!(second.step(30).await.unwrap().copied > 0);
    drop(second);
    Arc::into_inner(store).unwrap().close().await.unwrap();
    let store = rack.open();
    let third = ColdDriver::new(Arc::clone(&store), tier, ColdPolicy::default());
    for (object, bytes) in kept[1..].iter().chain(&more) {
        assert_eq!(store.get(&object.root, 64 * MIB).await.unwrap(), *bytes);
    }
    assert!(matches!(store.get(&kept[0].0.root, MIB).await, Err(StorageError::NotFound)), "it is back");
    assert_eq!(third.reconcile().await.unwrap(), 0);
}
