//! Crash cuts, corruption, archiving and concurrent reads of the block store.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::record::{RECORD_HEADER_BYTES, RecordHeader, record_bytes};
use super::segment::{SEGMENT_HEADER_BYTES, file_name};
use super::{
    ArchiveError, BLOCK_BYTES_MAX, BlockId, BlockReader, BlockStore, BlockStoreError, BlockStoreOptions,
    CERTIFICATE_BYTES_MAX, SegmentArchive,
};

/// Small zero extension, so that cuts inside it are few; large enough for the test's blocks to use it.
const SMALL: BlockStoreOptions = BlockStoreOptions { segment_bytes_max: 1 << 20, extend_bytes: 4096, durable: true };

/// Every segment takes three of the test's blocks.
const ROLLING: BlockStoreOptions = BlockStoreOptions { segment_bytes_max: 1024, extend_bytes: 4096, durable: true };

fn id(height: u64) -> BlockId {
    let mut id = [0xAB; 32];
    id[..8].copy_from_slice(&height.to_be_bytes());
    id
}

fn block(height: u64) -> Vec<u8> {
    (0..150 + height % 7).map(|at| u8::try_from((at * 31 + height) % 251).unwrap()).collect()
}

fn certificate(height: u64) -> Vec<u8> {
    vec![u8::try_from(height % 251).unwrap(); 40]
}

fn append(store: &BlockStore, height: u64) {
    store.append(height, &id(height), &block(height), &certificate(height)).unwrap();
}

fn assert_holds(store: &BlockStore, heights: std::ops::RangeInclusive<u64>) {
    assert_eq!((store.min().unwrap(), store.tip().unwrap()), (Some(*heights.start()), Some(*heights.end())));
    for height in heights {
        let stored = store.read(height).unwrap();
        assert_eq!((stored.height(), stored.id()), (height, &id(height)));
        assert_eq!((stored.block(), stored.certificate()), (&block(height)[..], &certificate(height)[..]));
    }
}

/// An archive: segments by what is used as their root.
#[derive(Default)]
struct Shelf(Mutex<Vec<Vec<u8>>>);

impl Shelf {
    /// Takes the oldest sealed segment of a store; its first height.
    fn take(&self, store: &BlockStore) -> Option<u64> {
        let (first_height, last_height) = store.oldest_sealed()?;
        let sealed = store.sealed(first_height).unwrap();
        assert_eq!(first_height + sealed.blocks() as u64 - 1, last_height);
        let bytes: Vec<u8> = (0..).map_while(|number| sealed.piece(number).unwrap()).flatten().collect();
        assert_eq!(bytes.len() as u64, sealed.bytes());
        let mut shelf = self.0.lock().unwrap();
        shelf.push(bytes);
        store.archive(&sealed, [u8::try_from(shelf.len()).unwrap(); 32]).unwrap();
        Some(first_height)
    }
}

impl SegmentArchive for Shelf {
    fn read(&self, root: &[u8; 32], from: u64, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let from = usize::try_from(from).unwrap();
        let shelf = self.0.lock().unwrap();
        let found = shelf.get(usize::from(root[0]) - 1).and_then(|bytes| bytes.get(from..from + length));
        found.map(<[u8]>::to_vec).ok_or_else(|| ArchiveError::Lost { reason: "it fell down".to_owned() })
    }
}

fn bytes_of(height: u64) -> u64 {
    record_bytes((block(height).len() + certificate(height).len()) as u64)
}

/// A store of `count` blocks from height 1 and the path of its only segment.
fn one_segment(directory: &Path, count: u64) -> PathBuf {
    let store = BlockStore::open(directory, SMALL).unwrap();
    (1..=count).for_each(|height| append(&store, height));
    directory.join(file_name(1))
}

fn code(result: Result<BlockStore, BlockStoreError>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn blocks_return_after_reopen_from_any_first_height() {
    for first in [0, 1, 500] {
        let directory = tempfile::tempdir().unwrap();
        let store = BlockStore::open(directory.path(), SMALL).unwrap();
        assert_eq!((store.min().unwrap(), store.tip().unwrap()), (None, None));
        (first..first + 9).for_each(|height| append(&store, height));
        assert_holds(&store, first..=first + 8);
        drop(store);
        let store = BlockStore::open(directory.path(), SMALL).unwrap();
        assert_holds(&store, first..=first + 8);
        append(&store, first + 9);
        assert_holds(&store, first..=first + 9);
    }
}

#[test]
fn empty_and_largest_parts_are_kept_and_larger_ones_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), BlockStoreOptions::default()).unwrap();
    store.append(1, &id(1), &[], &[]).unwrap();
    let (largest, longest) = (vec![7; BLOCK_BYTES_MAX], vec![9; CERTIFICATE_BYTES_MAX]);
    store.append(2, &id(2), &largest, &longest).unwrap();
    let too_large = store.append(3, &id(3), &vec![0; BLOCK_BYTES_MAX + 1], &[]).unwrap_err();
    assert_eq!(too_large.code(), "block_too_large");
    assert_eq!(
        store.append(3, &id(3), &[], &vec![0; CERTIFICATE_BYTES_MAX + 1]).unwrap_err().code(),
        "block_too_large"
    );
    drop(store);
    let store = BlockStore::open(directory.path(), BlockStoreOptions::default()).unwrap();
    assert!(store.read(1).unwrap().block().is_empty());
    assert!(store.read(2).unwrap().block() == largest && store.read(2).unwrap().certificate() == longest);
}

#[test]
fn heights_have_no_gaps() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    append(&store, 5);
    for given in [4, 5, 7] {
        let error = store.append(given, &id(given), b"x", b"").unwrap_err();
        assert!(matches!(error, BlockStoreError::HeightGap { expected: 6, given: refused } if refused == given));
    }
    assert_eq!(store.read(4).unwrap_err().code(), "block_not_found");
    assert_eq!(store.read(6).unwrap_err().code(), "block_not_found");
    append(&store, 6);
    assert_holds(&store, 5..=6);
}

#[test]
fn segments_roll_and_leave_for_the_archive_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=20).for_each(|height| append(&store, height));
    assert!(store.figures().segments >= 5, "{:?}", store.figures());
    assert_holds(&store, 1..=20);
    for entry in fs::read_dir(directory.path()).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() <= ROLLING.segment_bytes_max);
    }
    let shelf = Arc::new(Shelf::default());
    let store = store.with_archive(Arc::clone(&shelf) as _);
    while shelf.take(&store).is_some() {
        assert_holds(&store, 1..=20);
    }
    let figures = store.figures();
    assert_eq!(figures.archived + 1, figures.segments, "all but the newest");
    let names: Vec<u64> = store.archived().iter().map(|segment| segment.first_height).collect();
    assert!(names.is_sorted() && names.len() == figures.archived);
    assert_eq!(
        store.archived().iter().map(|segment| segment.blocks).sum::<u64>(),
        store.newest_begins_at().unwrap() - 1
    );
    drop(store);
    let reader = BlockReader::open(directory.path(), Some(Arc::clone(&shelf) as _)).unwrap();
    assert_eq!(reader.blocks(1).map(|block| block.unwrap().height()).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert_eq!(reader.blocks(7).next().unwrap().unwrap().block(), block(7));
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    assert_eq!(store.read(1).unwrap_err().code(), "block_archive_away");
    assert!(store.read(20).is_ok());
    let store = store.with_archive(shelf);
    append(&store, 21);
    assert_holds(&store, 1..=21);
}

#[test]
fn a_segment_that_is_not_full_can_be_ended() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    store.roll().unwrap();
    assert_eq!(store.newest_begins_at(), None);
    (1..=2).for_each(|height| append(&store, height));
    store.roll().unwrap();
    store.roll().unwrap();
    assert_eq!(store.oldest_sealed(), None, "the newest one stays");
    append(&store, 3);
    assert_eq!((store.oldest_sealed(), store.newest_begins_at()), (Some((1, 2)), Some(3)));
    drop(store);
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    append(&store, 4);
    store.roll().unwrap();
    drop(store);
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    append(&store, 5);
    assert_holds(&store, 1..=5);
    assert_eq!(store.newest_begins_at(), Some(5));
}

#[test]
fn a_crash_while_a_segment_leaves_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=20).for_each(|height| append(&store, height));
    let shelf = Arc::new(Shelf::default());
    let file = directory.path().join(file_name(1));
    let bytes = fs::read(&file).unwrap();
    assert_eq!(shelf.take(&store), Some(1));
    drop(store);
    // Noted as archived, and not removed yet.
    fs::write(&file, &bytes).unwrap();
    let stays = directory.path().join(super::archive::file_name(1));
    assert!(stays.exists());
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    assert!(!stays.exists() && store.archived().is_empty());
    assert_holds(&store, 1..=20);
    drop(store);
    // What stays is damaged, or gone.
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    shelf.take(&store);
    drop(store);
    let mut kept = fs::read(&stays).unwrap();
    kept[140] ^= 1;
    fs::write(&stays, &kept).unwrap();
    assert_eq!(code(BlockStore::open(directory.path(), ROLLING)), "segment_corrupt");
    fs::remove_file(&stays).unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    assert_ne!(store.min().unwrap(), Some(1), "a store may begin anywhere; the chain knows where it must");
}

#[test]
fn a_segment_that_the_archive_lost_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap().with_archive(Arc::new(Shelf::default()));
    (1..=20).for_each(|height| append(&store, height));
    let shelf = Shelf::default();
    shelf.take(&store);
    let second = shelf.take(&store).unwrap();
    assert_eq!(store.read(second).unwrap_err().code(), "block_archive_lost");
    assert_eq!(store.rebuild(second + 1).err().unwrap().code(), "block_not_found");
    let unfinished = store.rebuild(second).unwrap();
    assert_eq!(unfinished.finish().unwrap_err().code(), "height_gap");
    // Two at a time: one comes first, and the other changes nothing.
    let (mut rebuild, mut late) = (store.rebuild(second).unwrap(), store.rebuild(second).unwrap());
    for (height, _) in late.wanted().collect::<Vec<_>>() {
        late.add(&block(height), &[8; 12]).unwrap();
    }
    for (height, wanted) in rebuild.wanted().collect::<Vec<_>>() {
        assert_eq!(wanted, id(height));
        // Another node's certificate is not as long.
        rebuild.add(&block(height), &[7; 99]).unwrap();
    }
    assert_eq!(rebuild.add(b"", b"").unwrap_err().code(), "height_gap");
    rebuild.finish().unwrap();
    assert_eq!(late.finish().unwrap_err().code(), "block_not_found");
    let unfinished = directory.path().join("00000000000000000001.blocks.7.new");
    fs::write(&unfinished, b"what a crash left").unwrap();
    assert_eq!((store.read(second).unwrap().block(), store.archived().len()), (&block(second)[..], 1));
    assert_eq!(store.read(second).unwrap().certificate(), [7; 99]);
    assert_eq!(store.oldest_sealed().unwrap().0, second, "it can be archived again");
    drop(store);
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    assert_eq!(store.read(second).unwrap().certificate(), [7; 99]);
    assert!(!unfinished.exists());
}

#[test]
fn damage_keeps_a_segment_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=20).for_each(|height| append(&store, height));
    let file = OpenOptions::new().write(true).open(directory.path().join(file_name(1))).unwrap();
    file.write_all_at(&[0xFF], SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES as u64 + 5).unwrap();
    assert_eq!(store.sealed(1).unwrap_err().code(), "block_corrupt");
}

#[test]
fn a_tail_cut_at_every_byte_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = one_segment(directory.path(), 3);
    let whole = fs::read(&path).unwrap();
    let end_of_two = SEGMENT_HEADER_BYTES + bytes_of(1) + bytes_of(2);
    let payload_end = end_of_two + (RECORD_HEADER_BYTES + block(3).len() + certificate(3).len()) as u64;
    for cut in end_of_two..=end_of_two + bytes_of(3) {
        let kept = usize::try_from(cut).unwrap();
        // The file may have been cut, or the lost pages may read as zeros.
        for length in [kept, whole.len()] {
            let mut bytes = whole[..kept].to_vec();
            bytes.resize(length, 0);
            fs::write(&path, &bytes).unwrap();
            let store = BlockStore::open(directory.path(), SMALL).unwrap();
            // Zero padding that is lost in a cut file shortens the record, in zeros it does not.
            let three = if length == kept { cut == end_of_two + bytes_of(3) } else { cut >= payload_end };
            assert_holds(&store, 1..=if three { 3 } else { 2 });
            (store.tip().unwrap().unwrap() + 1..=4).for_each(|height| append(&store, height));
            drop(store);
            assert_holds(&BlockStore::open(directory.path(), SMALL).unwrap(), 1..=4);
        }
    }
}

#[test]
fn damage_before_a_valid_record_is_corruption_and_damage_to_the_last_is_a_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    let path = one_segment(directory.path(), 3);
    let whole = fs::read(&path).unwrap();
    let second = SEGMENT_HEADER_BYTES + bytes_of(1);
    let third = second + bytes_of(2);
    for at in SEGMENT_HEADER_BYTES..third + bytes_of(3) {
        let mut bytes = whole.clone();
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        match BlockStore::open(directory.path(), SMALL) {
            Ok(store) if at >= third => assert!(store.tip().unwrap() >= Some(2)),
            // Padding is not part of any promise.
            Ok(store) => assert_holds(&store, 1..=3),
            Err(error) => {
                assert_eq!(error.code(), "block_corrupt", "at {at}");
                assert!(at < third);
            }
        }
    }
    // A damaged payload byte in the middle is always caught.
    let mut bytes = whole;
    bytes[usize::try_from(second).unwrap() + RECORD_HEADER_BYTES + 5] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = BlockStore::open(directory.path(), SMALL).unwrap_err();
    assert!(matches!(error, BlockStoreError::Corrupt { height: 2, offset, .. } if offset == second));
}

#[test]
fn block_bytes_cannot_pass_for_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    append(&store, 1);
    // An outsider who knows the format but not the segment's seed embeds aligned headers in a block.
    let forged = RecordHeader { height: 3, id: id(3), block_bytes: 0, certificate_bytes: 0, payload_crc: 0 };
    store.append(2, &id(2), &forged.encode(0).repeat(3), &[]).unwrap();
    drop(store);
    let path = directory.path().join(file_name(1));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xFF], SEGMENT_HEADER_BYTES + bytes_of(1) + 70).unwrap();
    assert_holds(&BlockStore::open(directory.path(), SMALL).unwrap(), 1..=1);
}

#[test]
fn damage_in_a_sealed_segment_is_found_by_the_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=9).for_each(|height| append(&store, height));
    drop(store);
    let path = directory.path().join(file_name(1));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x55; 3], SEGMENT_HEADER_BYTES + bytes_of(1) + 90).unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    assert_eq!(store.read(2).unwrap_err().code(), "block_corrupt");
    assert_eq!(store.read(3).unwrap().block(), block(3));
}

#[test]
fn a_lost_footer_costs_a_scan_and_a_lost_record_is_corruption() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=9).for_each(|height| append(&store, height));
    drop(store);
    let path = directory.path().join(file_name(1));
    let sealed = fs::read(&path).unwrap();
    let mut bytes = sealed.clone();
    let trailer_at = bytes.len() - 64;
    bytes[trailer_at + 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_holds(&BlockStore::open(directory.path(), ROLLING).unwrap(), 1..=9);
    // Cut inside the last record of the segment: later segments prove that it was durable.
    fs::write(&path, &sealed[..trailer_at - 60]).unwrap();
    assert_eq!(code(BlockStore::open(directory.path(), ROLLING)), "block_corrupt");
}

#[test]
fn a_missing_segment_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=12).for_each(|height| append(&store, height));
    drop(store);
    let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some());
    names.sort();
    fs::remove_file(&names[1]).unwrap();
    assert_eq!(code(BlockStore::open(directory.path(), ROLLING)), "segment_missing");
}

#[test]
fn an_unfinished_segment_is_discarded_and_a_damaged_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), ROLLING).unwrap();
    (1..=3).for_each(|height| append(&store, height));
    drop(store);
    // Creation was cut short at every length of the header.
    for length in 0..64 {
        fs::write(directory.path().join(file_name(4)), vec![0x53; length]).unwrap();
        assert_holds(&BlockStore::open(directory.path(), ROLLING).unwrap(), 1..=3);
    }
    let path = directory.path().join(file_name(1));
    // In the seed, which is random: whatever is there becomes something else.
    let at = 24;
    let flipped = fs::read(&path).unwrap()[at] ^ 1;
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[flipped], at as u64).unwrap();
    assert_eq!(code(BlockStore::open(directory.path(), ROLLING)), "segment_corrupt");
}

#[test]
fn a_failed_write_poisons_every_later_call() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    append(&store, 1);
    store.break_active_file();
    assert_eq!(store.append(2, &id(2), b"lost", b"").unwrap_err().code(), "store_io");
    assert_eq!(store.append(2, &id(2), b"lost", b"").unwrap_err().code(), "store_poisoned");
    assert_eq!(store.read(1).unwrap_err().code(), "store_poisoned");
    assert_eq!(store.tip().unwrap_err().code(), "store_poisoned");
    assert_eq!(store.min().unwrap_err().code(), "store_poisoned");
    assert_eq!(store.roll().unwrap_err().code(), "store_poisoned");
    assert_eq!(store.sealed(1).unwrap_err().code(), "store_poisoned");
    drop(store);
    assert_holds(&BlockStore::open(directory.path(), SMALL).unwrap(), 1..=1);
}

#[test]
fn a_second_opener_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::open(directory.path(), SMALL).unwrap();
    assert_eq!(code(BlockStore::open(directory.path(), SMALL)), "store_locked");
    drop(store);
    BlockStore::open(directory.path(), SMALL).unwrap();
}

#[test]
fn readers_beside_the_writer_see_whole_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::default());
    let store = BlockStore::open(directory.path(), ROLLING).unwrap().with_archive(Arc::clone(&shelf) as _);
    append(&store, 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut height = 1;
                while !done.load(Ordering::Relaxed) {
                    let tip = store.tip().unwrap().unwrap();
                    height = height % tip + 1;
                    assert_eq!(store.read(height).unwrap().block(), block(height));
                }
            });
        }
        for height in 2..=300 {
            append(&store, height);
            if height % 50 == 0 {
                (0..8).for_each(|_| _ = shelf.take(&store));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
