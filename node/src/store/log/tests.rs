//! Proofs against the rules of `stele-merkle`, crash cuts, corruption and concurrent reads of the log.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use stele_merkle::Hash;
use stele_merkle::log::{MemoryTree, leaf_hash, verify_consistency, verify_inclusion};
use stele_merkle::tile::{Tile, TileKind};

use super::{LogStore, LogStoreError, LogWriter};
use crate::store::Location;

fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

fn place(index: u64) -> Location {
    Location::new(index / 10 + 1, u32::try_from(index % 10).unwrap()).unwrap()
}

fn append(writer: &mut LogWriter, range: std::ops::Range<u64>) {
    let leaves: Vec<Hash> = range.clone().map(leaf).collect();
    let places: Vec<Location> = range.clone().map(place).collect();
    assert_eq!(writer.append(&leaves, &places).unwrap(), range.start);
}

fn model(size: u64) -> MemoryTree {
    (0..size).map(leaf).collect()
}

fn root(size: u64) -> Hash {
    model(size).root()
}

/// A log of `synced` durable leaves and more up to `size`, closed.
fn closed(directory: &Path, synced: u64, size: u64) {
    let (store, mut writer) = LogStore::rebuild(directory).unwrap();
    append(&mut writer, 0..synced);
    store.sync().unwrap();
    append(&mut writer, synced..size);
}

/// Opens, appends what is missing up to `size` and checks everything.
fn reopen_and_check(directory: &Path, size: u64) -> u64 {
    let (store, mut writer) = LogStore::open(directory, size, Some(&root(size))).unwrap();
    let opened = store.size();
    append(&mut writer, opened..size);
    assert_eq!((store.root(size).unwrap(), writer.root()), (root(size), root(size)));
    store.verify().unwrap();
    for index in 0..size {
        assert_eq!((store.leaf_hash(index).unwrap(), store.location(index).unwrap()), (leaf(index), place(index)));
    }
    opened
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn proofs_tiles_and_locations_agree_with_a_tree_in_memory(
        batches in proptest::collection::vec((0_u64..90, any::<bool>(), any::<bool>()), 1..8),
        picks in proptest::collection::vec((any::<u64>(), any::<u64>()), 20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut writer) = LogStore::open(directory.path(), 0, None).unwrap();
        let mut size = 0;
        for (count, sync, reopen) in batches {
            append(&mut writer, size..size + count);
            size += count;
            if sync {
                store.sync().unwrap();
            }
            if reopen {
                drop((store, writer));
                (store, writer) = LogStore::open(directory.path(), size, Some(&root(size))).unwrap();
                let opened = store.size();
                prop_assert!(opened == size || !sync);
                append(&mut writer, opened..size);
            }
        }
        let tree = model(size);
        prop_assert_eq!(store.size(), size);
        for (one, other) in picks {
            let (mut old, mut new) = (one % (size + 1), other % (size + 1));
            if old > new {
                std::mem::swap(&mut old, &mut new);
            }
            prop_assert_eq!(store.root(new).unwrap(), tree.root_at(new).unwrap());
            let proof = store.consistency_proof(old, new).unwrap();
            verify_consistency(old, &tree.root_at(old).unwrap(), new, &tree.root_at(new).unwrap(), &proof).unwrap();
            prop_assert_eq!(store.frontier(new).unwrap().root(), tree.root_at(new).unwrap());
            if old < new {
                let proof = store.inclusion_proof(old, new).unwrap();
                verify_inclusion(&leaf(old), old, new, &proof, &tree.root_at(new).unwrap()).unwrap();
                let tile = Tile::covering(TileKind::Hashes { level: 0 }, old, new).unwrap();
                prop_assert_eq!(store.tile(&tile).unwrap(), tile.hash_bytes(&tree).unwrap());
                let count = usize::try_from(new - old).unwrap();
                prop_assert_eq!(store.locations(old, count).unwrap(), (old..new).map(place).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn large_batches_fill_higher_tiles() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut writer) = LogStore::open(directory.path(), 0, None).unwrap();
    append(&mut writer, 0..70_000);
    let tree = model(70_000);
    assert_eq!(store.root(70_000).unwrap(), tree.root());
    let tile = Tile::new(TileKind::Hashes { level: 1 }, 0, 256).unwrap();
    assert_eq!(store.tile(&tile).unwrap(), tile.hash_bytes(&tree).unwrap());
    let tile = Tile::new(TileKind::Hashes { level: 2 }, 0, 1).unwrap();
    assert_eq!(store.tile(&tile).unwrap(), tile.hash_bytes(&tree).unwrap());
    let beyond = Tile::new(TileKind::Hashes { level: 2 }, 0, 2).unwrap();
    assert_eq!(store.tile(&beyond).unwrap_err().code(), "log_out_of_range");
    let bundle = Tile::new(TileKind::Entries, 0, 256).unwrap();
    assert_eq!(store.tile(&bundle).unwrap_err().code(), "log_tile_kind");
}

#[test]
fn what_lies_beyond_the_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut writer) = LogStore::open(directory.path(), 0, None).unwrap();
    append(&mut writer, 0..10);
    let codes = [
        store.root(11).unwrap_err().code(),
        store.frontier(11).unwrap_err().code(),
        store.leaf_hash(10).unwrap_err().code(),
        store.location(10).unwrap_err().code(),
        store.locations(11, 1).unwrap_err().code(),
        store.inclusion_proof(10, 10).unwrap_err().code(),
        store.inclusion_proof(u64::MAX, 10).unwrap_err().code(),
        store.inclusion_proof(0, 11).unwrap_err().code(),
        store.consistency_proof(3, 11).unwrap_err().code(),
        store.consistency_proof(4, 3).unwrap_err().code(),
    ];
    assert_eq!(codes, ["log_out_of_range"; 10]);
    assert_eq!(store.locations(10, 5).unwrap(), []);
    assert_eq!(store.locations(8, usize::MAX).unwrap(), [place(8), place(9)]);
    assert_eq!(writer.append(&[leaf(10)], &[]).unwrap_err().code(), "log_uneven");
}

#[test]
fn nothing_beyond_the_durable_size_is_trusted_wherever_a_crash_cuts() {
    let directory = tempfile::tempdir().unwrap();
    let (synced, size) = (37_u64, 45_u64);
    closed(directory.path(), synced, size);
    for (name, width, shift) in [("level-00", 32, 0), ("level-01", 32, 1), ("level-03", 32, 3), ("entries", 8, 0)] {
        let path = directory.path().join(name);
        let whole = fs::read(&path).unwrap();
        for cut in (synced >> shift) * width..=(size >> shift) * width {
            let cut = usize::try_from(cut).unwrap();
            // Lost bytes: the file is short, reads as zeros, or holds what was there before.
            for fill in [None, Some(0), Some(0x77)] {
                let mut bytes = whole[..cut].to_vec();
                if let Some(fill) = fill {
                    bytes.resize(whole.len() + 13, fill);
                }
                fs::write(&path, &bytes).unwrap();
                assert_eq!(reopen_and_check(directory.path(), size), synced, "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn damage_below_the_durable_size_asks_for_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    for (name, length) in [("level-00", 99 * 32), ("level-02", 24 * 32 + 31), ("entries", 100 * 8 - 1), ("synced", 63)]
    {
        closed(directory.path(), 100, 100);
        OpenOptions::new().write(true).open(directory.path().join(name)).unwrap().set_len(length).unwrap();
        let error = LogStore::open(directory.path(), 100, None).unwrap_err();
        assert_eq!((error.code(), error.needs_rebuild()), ("log_truncated", true), "{name}");
    }
    closed(directory.path(), 100, 100);
    let (_, writer) = LogStore::open(directory.path(), 100, Some(&root(100))).unwrap();
    drop(writer);
    // 100 leaves = subtrees of 64, 32 and 4: the last one's hash.
    flip(directory.path(), "level-02", 24 * 32);
    let error = LogStore::open(directory.path(), 100, None).unwrap_err();
    assert!(matches!(error, LogStoreError::RootMismatch { size: 100 }) && error.needs_rebuild());
    let (store, mut writer) = LogStore::rebuild(directory.path()).unwrap();
    append(&mut writer, 0..100);
    assert_eq!(store.root(100).unwrap(), root(100));
}

fn flip(directory: &Path, name: &str, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(directory.join(name)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn another_history_than_the_known_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), 100, 100);
    assert_eq!(LogStore::open(directory.path(), 100, Some(&[9; 32])).unwrap_err().code(), "log_root_mismatch");
    assert_eq!(LogStore::open(directory.path(), 60, Some(&root(61))).unwrap_err().code(), "log_root_mismatch");
}

#[test]
fn a_damaged_inner_hash_never_leaves_in_a_proof() {
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), 100, 100);
    // Not under any root directly: opening cannot see it.
    flip(directory.path(), "level-03", 2 * 32 + 7);
    let (store, _writer) = LogStore::open(directory.path(), 100, Some(&root(100))).unwrap();
    assert!(matches!(store.verify(), Err(LogStoreError::Corrupt { level: 3, index: 2 })));
    let refused = (0..100).filter(|&index| match store.inclusion_proof(index, 100) {
        Ok(proof) => {
            verify_inclusion(&leaf(index), index, 100, &proof, &root(100)).unwrap();
            false
        }
        Err(error) => {
            assert_eq!(error.code(), "log_corrupt");
            true
        }
    });
    assert_eq!(refused.count(), 8);
    assert_eq!(store.consistency_proof(24, 100).unwrap_err().code(), "log_corrupt");
}

#[test]
fn a_damaged_hash_never_leaves_in_a_tile() {
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), 70_000, 70_000);
    let (store, _writer) = LogStore::open(directory.path(), 70_000, Some(&root(70_000))).unwrap();
    let code = |level, index, width| {
        let tile = Tile::new(TileKind::Hashes { level }, index, width).unwrap();
        store.tile(&tile).map_or_else(|error| error.code(), |_| "whole")
    };
    flip(directory.path(), "level-00", 300 * 32);
    assert_eq!([code(0, 0, 256), code(0, 1, 256), code(0, 1, 44)], ["whole", "log_corrupt", "whole"]);
    // The last single hash of a tile has no hash above it; those below tell.
    flip(directory.path(), "level-08", 272 * 32 + 31);
    assert_eq!([code(1, 0, 256), code(1, 1, 16), code(1, 1, 17)], ["whole", "whole", "log_corrupt"]);
}

#[test]
fn a_log_ahead_of_the_blocks_is_cut_back_durably() {
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), 90, 100);
    {
        let (store, mut writer) = LogStore::open(directory.path(), 50, Some(&root(50))).unwrap();
        assert_eq!((store.size(), store.figures().synced), (50, 50));
        append(&mut writer, 50..55);
        // The process ends before anything else is durable.
    }
    assert_eq!(reopen_and_check(directory.path(), 55), 50);
}

#[test]
fn a_log_from_a_snapshot_proves_what_follows_it() {
    for base in [3, 37, 64, 100] {
        let directory = tempfile::tempdir().unwrap();
        let frontier = {
            let whole = tempfile::tempdir().unwrap();
            let (store, mut writer) = LogStore::rebuild(whole.path()).unwrap();
            append(&mut writer, 0..base);
            store.frontier(base).unwrap()
        };
        let (store, mut writer) = LogStore::adopt(directory.path(), &frontier).unwrap();
        append(&mut writer, base..base + 80);
        store.sync().unwrap();
        drop((store, writer));
        let size = base + 80;
        let (store, _writer) = LogStore::open(directory.path(), size, Some(&root(size))).unwrap();
        assert_eq!((store.size(), store.figures().base), (size, base));
        store.verify().unwrap();
        for index in base..size {
            let proof = store.inclusion_proof(index, size).unwrap();
            verify_inclusion(&leaf(index), index, size, &proof, &root(size)).unwrap();
            let proof = store.consistency_proof(index, size).unwrap();
            verify_consistency(index, &root(index), size, &root(size), &proof).unwrap();
            assert_eq!(store.location(index).unwrap(), place(index));
        }
        assert_eq!(store.location(base - 1).unwrap_err().code(), "log_before_base");
        assert_eq!(store.inclusion_proof(0, size).unwrap_err().code(), "log_before_base");
        let tile = Tile::covering(TileKind::Hashes { level: 0 }, 0, size).unwrap();
        assert_eq!(store.tile(&tile).unwrap_err().code(), "log_before_base");
    }
}

#[test]
fn a_failed_write_poisons_every_later_call() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut writer) = LogStore::open(directory.path(), 0, None).unwrap();
    append(&mut writer, 0..1);
    // The next leaf needs the file of level 1, which cannot be created any more.
    fs::remove_dir_all(directory.path()).unwrap();
    assert_eq!(writer.append(&[leaf(1)], &[place(1)]).unwrap_err().code(), "store_io");
    assert_eq!(store.size(), 1);
    assert_eq!(writer.append(&[leaf(1)], &[place(1)]).unwrap_err().code(), "store_poisoned");
    assert_eq!(store.root(1).unwrap_err().code(), "store_poisoned");
    assert_eq!(store.location(0).unwrap_err().code(), "store_poisoned");
    assert_eq!(store.sync().unwrap_err().code(), "store_poisoned");
    assert_eq!(store.verify().unwrap_err().code(), "store_poisoned");
}

#[test]
fn a_second_opener_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let (store, writer) = LogStore::open(directory.path(), 0, None).unwrap();
    assert_eq!(LogStore::open(directory.path(), 0, None).unwrap_err().code(), "store_locked");
    assert_eq!(LogStore::rebuild(directory.path()).unwrap_err().code(), "store_locked");
    drop((store, writer));
    LogStore::open(directory.path(), 0, None).unwrap();
}

#[test]
fn readers_beside_the_writer_prove_every_size_they_see() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut writer) = LogStore::open(directory.path(), 0, None).unwrap();
    let roots: Vec<Hash> = {
        let tree = model(3000);
        (0..=3000).map(|size| tree.root_at(size).unwrap()).collect()
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3_u64 {
            let (store, done, roots) = (Arc::clone(&store), &done, &roots);
            scope.spawn(move || {
                let mut step = reader;
                while !done.load(Ordering::Relaxed) {
                    let size = store.size();
                    if size == 0 {
                        continue;
                    }
                    step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    let index = step % size;
                    let root = &roots[usize::try_from(size).unwrap()];
                    let proof = store.inclusion_proof(index, size).unwrap();
                    verify_inclusion(&leaf(index), index, size, &proof, root).unwrap();
                    assert_eq!(store.location(index).unwrap(), place(index));
                    if reader == 0 {
                        store.sync().unwrap();
                    }
                }
            });
        }
        for block in 0..300_u64 {
            append(&mut writer, block * 10..block * 10 + 10);
        }
        done.store(true, Ordering::Relaxed);
    });
    store.sync().unwrap();
    assert_eq!(store.figures().synced, 3000);
}
