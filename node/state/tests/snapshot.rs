//! Snapshots for others: divided, carried chunk by chunk, checked, put together again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use stele_state::{
    CHUNK_BYTES_MAX, Chunk, ChunkError, Hash, Key, KeyRange, Layout, Options, SnapshotBuilder, SnapshotReader,
    StateError, StateHash, StateMap, TreeMap, VALUE_BYTES_MAX, Write,
};
use tempfile::TempDir;

const HASH: StateHash = StateHash::Sm3;
/// Long values make a few thousand pairs several chunks.
const VALUE_BYTES: usize = 2_000;

fn key(seed: u64) -> Key {
    HASH.value(&seed.to_be_bytes())
}

fn batch(height: u64, keys: std::ops::Range<u64>) -> Vec<Write> {
    let value = |seed: u64| (!(seed + height).is_multiple_of(7)).then(|| vec![height.to_be_bytes()[7]; VALUE_BYTES]);
    keys.map(|seed| (key(seed), value(seed))).collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn commit(map: &mut TreeMap, height: u64, writes: Vec<Write>) -> Hash {
    let staged = map.stage(&map.root(), writes).unwrap();
    map.commit(staged, height).unwrap()
}

fn pairs(map: &TreeMap) -> Vec<(Key, Vec<u8>)> {
    map.iter().map(Result::unwrap).collect()
}

/// A map of some thousand keys, and the snapshot of one of its heights, with commits before and after.
fn exported(directory: &Path) -> (TreeMap, Hash, Vec<(Key, Vec<u8>)>) {
    let mut map = TreeMap::ephemeral(HASH);
    for height in 0..4 {
        commit(&mut map, height, batch(height, height * 500..height * 500 + 1_500));
    }
    let (root, expected) = (map.root(), pairs(&map));
    assert!(map.export(directory).unwrap());
    assert!(!map.export(directory).unwrap(), "one at a time");
    for height in 4..2_000 {
        // Keys before and behind the copy change, go and come.
        commit(&mut map, height, batch(height, height * 13 % 3_000..height * 13 % 3_000 + 5));
        if map.figures().export_height.is_some() {
            break;
        }
    }
    assert_eq!((map.figures().export_height, map.figures().snapshot_failures), (Some(3), 0));
    assert_ne!(map.root(), root);
    (map, root, expected)
}

fn newest(directory: &Path) -> SnapshotReader {
    SnapshotReader::open(&SnapshotReader::files(directory).unwrap()[0].1).unwrap()
}

fn ranges(depth: u8) -> impl Iterator<Item = KeyRange> {
    (0..1 << depth).map(move |index| KeyRange::new(depth, index).unwrap())
}

#[test]
fn a_snapshot_travels_in_chunks_that_prove_themselves_and_opens_as_the_same_map() {
    let (source, target) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (_, root, expected) = exported(source.path());
    let reader = newest(source.path());
    assert_eq!((reader.height(), reader.root(), reader.pairs()), (3, root, expected.len() as u64));
    assert!(reader.depth() > 2, "several chunks: depth {}", reader.depth());
    reader.check().unwrap();

    let state = target.path().join("state");
    let mut builder = SnapshotBuilder::create(&state, HASH, 3, root, reader.depth()).unwrap();
    // In any order.
    let mut order: Vec<KeyRange> = ranges(reader.depth()).collect();
    order.reverse();
    for range in &order {
        let bytes = reader.chunk(*range).unwrap().unwrap().encode();
        let chunk = Chunk::decode(&bytes).unwrap();
        assert_eq!(chunk.encode(), bytes);
        let inside: Vec<_> = expected.iter().filter(|(key, _)| range.contains(key)).cloned().collect();
        assert_eq!(chunk.check(HASH, &root).unwrap(), inside);
        assert!(builder.missing().any(|missing| missing == *range));
        builder.add(&chunk).unwrap().unwrap();
        assert_eq!(builder.add(&chunk).unwrap(), Err(ChunkError::Unwanted), "once is enough");
    }
    assert!(builder.is_complete());
    builder.finish().unwrap();
    let opened = TreeMap::open(&state, Options::new(HASH)).unwrap();
    assert_eq!((opened.height, opened.root), (Some(3), root));
    assert_eq!(pairs(&opened.map), expected);
}

#[test]
fn a_wrong_chunk_is_refused_by_itself_and_the_right_one_can_still_come() {
    let (source, target) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (later, root, _) = exported(source.path());
    let reader = newest(source.path());
    let mut builder = SnapshotBuilder::create(target.path(), HASH, 3, root, reader.depth()).unwrap();
    let range = KeyRange::new(reader.depth(), 2).unwrap();
    let right = reader.chunk(range).unwrap().unwrap();
    let bytes = right.encode();
    // Any byte flipped: it does not decode, or it does not prove itself.
    for at in (0..bytes.len()).step_by(bytes.len() / 500) {
        let mut forged = bytes.clone();
        forged[at] ^= 0x20;
        if let Ok(chunk) = Chunk::decode(&forged) {
            assert!(chunk.check(HASH, &root).is_err() || chunk.range() != range, "byte {at}");
            assert!(builder.add(&chunk).unwrap().is_err(), "byte {at}");
        }
        assert!(Chunk::decode(&bytes[..at]).is_err());
    }
    assert!(matches!(right.check(StateHash::Sha256, &root), Err(ChunkError::Proof(_))));
    assert!(matches!(right.check(HASH, &later.root()), Err(ChunkError::Proof(_))));
    // A range of another depth, however sound.
    let shallow = KeyRange::new(0, 0).unwrap();
    assert!(reader.chunk(shallow).unwrap().is_none());
    builder.add(&right).unwrap().unwrap();
    let missing = builder.missing().count();
    assert_eq!(missing, (1 << reader.depth()) - 1);
    assert!(matches!(builder.finish(), Err(StateError::Incomplete { missing: found }) if found == missing));
    assert!(fs::read_dir(target.path()).unwrap().all(|entry| entry.unwrap().file_name() == "lock"));
}

#[test]
fn a_snapshot_goes_only_where_there_is_no_map() {
    let directory = TempDir::new().unwrap();
    let mut map = TreeMap::open(directory.path(), Options::new(HASH)).unwrap().map;
    let root = commit(&mut map, 0, batch(0, 0..10));
    let create = |depth| SnapshotBuilder::create(directory.path(), HASH, 0, root, depth);
    assert!(matches!(create(3), Err(StateError::Locked { .. })));
    drop(map);
    assert!(matches!(create(3), Err(StateError::NotEmpty { .. })));
    assert!(matches!(create(40), Err(StateError::Depth { depth: 40, .. })));
}

#[test]
fn a_damaged_byte_of_a_snapshot_is_found_and_its_chunk_named() {
    let directory = TempDir::new().unwrap();
    exported(directory.path());
    let path = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "map")).unwrap();
    let sound = fs::read(&path).unwrap();
    for at in (0..sound.len()).step_by(sound.len() / 300) {
        let mut damaged = sound.clone();
        damaged[at] ^= 4;
        fs::write(&path, &damaged).unwrap();
        let found = SnapshotReader::open(&path).and_then(|reader| reader.check());
        let Err(StateError::Corrupt { offset, .. }) = found else { panic!("byte {at}: {found:?}") };
        assert!(offset <= at as u64 || at < 64, "byte {at} was looked for at {offset}");
        assert!(TreeMap::open(directory.path(), Options::new(HASH)).is_err());
    }
    for length in (0..sound.len()).step_by(sound.len() / 50) {
        fs::write(&path, &sound[..length]).unwrap();
        assert!(SnapshotReader::open(&path).is_err());
    }
}

#[test]
fn an_export_that_cannot_be_begun_is_counted() {
    let directory = TempDir::new().unwrap();
    let mut map = TreeMap::ephemeral(HASH);
    commit(&mut map, 0, batch(0, 0..20));
    assert!(matches!(map.export(&directory.path().join("none")), Err(StateError::Io { .. })));
    assert_eq!(map.figures().snapshot_failures, 1);
    assert!(map.export(directory.path()).unwrap(), "the next one can be begun");
}

#[test]
fn the_two_newest_exports_are_kept() {
    let directory = TempDir::new().unwrap();
    let mut map = TreeMap::ephemeral(HASH);
    let mut wanted = Vec::new();
    for height in 0..60 {
        commit(&mut map, height, batch(height, height..height + 20));
        if height % 10 == 0 && map.export(directory.path()).unwrap() {
            wanted.push(height);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    drop(map);
    let files = SnapshotReader::files(directory.path()).unwrap();
    let kept: Vec<u64> = files.iter().map(|(_, path)| SnapshotReader::open(path).unwrap().height()).collect();
    wanted.reverse();
    assert_eq!(kept, wanted[..2], "of {wanted:?}");
}

/// Pairs of `bits` common bits, of so many bytes in all.
fn ground(bits: usize, bytes: usize) -> Vec<Write> {
    let pairs = u64::try_from(bytes / (34 + VALUE_BYTES_MAX)).unwrap();
    let mut writes: Vec<Write> = (0..pairs)
        .map(|seed| {
            let mut ground = key(seed);
            ground[..bits / 8].fill(0xa5);
            ground[bits / 8] >>= bits % 8;
            (ground, Some(vec![1; VALUE_BYTES_MAX]))
        })
        .collect();
    writes.sort_unstable();
    writes
}

/// Whoever chooses what keys are hashes of can try until they begin with the same bits. The division followed the mean, so
/// a range of 6 bits held all of this, a chunk longer than readers take: such a snapshot was complete, older ones were
/// deleted for it, and it could not be opened.
#[test]
fn keys_that_were_ground_into_one_range_make_a_finer_division() {
    for layout in [Layout::Memory, Layout::Paged] {
        let (directory, exports) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let options = Options { layout, ..Options::new(HASH) };
        let mut map = TreeMap::open(directory.path(), options).unwrap().map;
        let root = commit(&mut map, 0, ground(13, 20 << 20));
        assert!(map.export(exports.path()).unwrap());
        for height in 1.. {
            commit(&mut map, height, batch(height, 0..500));
            if map.figures().export_height.is_some() {
                break;
            }
        }
        map.checkpoint().unwrap();
        let newest_root = map.root();
        drop(map);
        let reader = newest(exports.path());
        assert_eq!(reader.root(), root);
        reader.check().unwrap();
        let longest = ranges(reader.depth()).map(|range| reader.chunk(range).unwrap().unwrap().encode().len()).max();
        assert!(longest.unwrap() < CHUNK_BYTES_MAX, "depth {}: {longest:?}", reader.depth());
        assert!((14..18).contains(&reader.depth()), "{} is deeper than necessary", reader.depth());
        let opened = TreeMap::open(directory.path(), options).unwrap();
        assert_eq!((opened.root, opened.recovery.records_redone), (newest_root, 0));
        // What has gone counts no more.
        let mut map = opened.map;
        let keys: Vec<Key> = pairs(&map).into_iter().map(|(key, _)| key).filter(|key| key[0] == 0xa5).collect();
        commit(&mut map, 200, keys.into_iter().map(|key| (key, None)).collect());
        map.checkpoint().unwrap();
        drop(map);
        if layout == Layout::Memory {
            assert!(newest(directory.path()).depth() < 4);
        }
    }
}

#[test]
fn keys_that_no_division_parts_keep_a_snapshot_from_others_and_nothing_else() {
    let (directory, exports) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut map = TreeMap::open(directory.path(), Options::new(HASH)).unwrap().map;
    commit(&mut map, 0, batch(0, 0..10));
    assert!(map.export(exports.path()).unwrap());
    let root = commit(&mut map, 1, ground(40, 20 << 20));
    while map.figures().export_height.is_none() {
        let height = map.height().unwrap() + 1;
        commit(&mut map, height, Vec::new());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let refused = map.export(exports.path()).unwrap_err();
    assert_eq!(
        (refused.code(), refused.is_fatal(), map.figures().snapshot_failures),
        ("state_chunk_too_long", false, 1)
    );
    assert_eq!(newest(exports.path()).height(), 0, "the one before stays");
    // The map's own is nobody else's to take.
    map.checkpoint().unwrap();
    drop(map);
    let opened = TreeMap::open(directory.path(), Options::new(HASH)).unwrap();
    assert_eq!((opened.root, opened.recovery.records_redone), (root, 0));
    let reader = newest(directory.path());
    let range = ranges(reader.depth()).find(|range| range.contains(&[0xa5; 32])).unwrap();
    assert_eq!(reader.chunk(range).unwrap_err().code(), "state_chunk_too_long");
    reader.check().unwrap();
}
