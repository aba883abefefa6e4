//! Blocks that were proposed but not decided yet.
//!
//! A precommit for a block is a promise that the block can be had: when the power fails everywhere at once, some of the
//! nodes that made a quorum must still hold it. So a block is on disk before the engine may vote for it. Votes
//! themselves, and which block they are for, are in the engine's journal.
//!
//! All undecided blocks of a height lie one after the other in a single file, which the next height overwrites from its
//! start: after the first blocks the file's extent is allocated, and making a block durable is one flush of data
//! without a journal commit of the file system. A record that is torn or from another height ends the reading.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use bytes::Bytes;
use stele_types::{BlockId, ValidatorId};

/// First bytes of a record; the digit is the version of the layout.
const MAGIC: &[u8; 8] = b"stele-u1";
/// Magic, height, round, valid round + 1 (0 = none), proposer, length, digest of all of these and the block.
const HEADER_BYTES: usize = 8 + 8 + 4 + 8 + 32 + 4 + 32;
/// Blocks of one height kept, in memory and on disk. Each takes a proposer its round; a height that needs more rounds
/// than this has other troubles, and blocks beyond it are fetched by sync when decided.
const BLOCKS_MAX: usize = 16;

/// What a block was proposed as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undecided {
    pub(crate) height: u64,
    pub(crate) round: u32,
    pub(crate) valid_round: Option<u32>,
    pub(crate) proposer: ValidatorId,
    pub(crate) bytes: Bytes,
}

struct Entry {
    block: Undecided,
    valid: bool,
}

struct Records {
    file: Option<File>,
    height: u64,
    end: u64,
    count: usize,
}

/// The undecided blocks of the current height.
pub(crate) struct UndecidedBlocks {
    entries: Mutex<HashMap<BlockId, Entry>>,
    records: Arc<Mutex<Records>>,
}

impl UndecidedBlocks {
    /// Opens the file; its records are read with [`UndecidedBlocks::recover`].
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let records = Records { file: Some(file), height: 0, end: 0, count: 0 };
        Ok(Self { entries: Mutex::default(), records: Arc::new(Mutex::new(records)) })
    }

    /// The blocks of `height` that were durable when the process last ended.
    pub(crate) fn recover(&self, height: u64, block_bytes_max: usize) -> io::Result<Vec<Undecided>> {
        let mut records = lock(&self.records);
        let Some(file) = &records.file else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut end = 0;
        while found.len() < BLOCKS_MAX {
            match read_record(file, end, block_bytes_max)? {
                Some(block) if block.height == height => {
                    end += (HEADER_BYTES + block.bytes.len()) as u64;
                    found.push(block);
                }
                _ => break,
            }
        }
        (records.height, records.end, records.count) = (height, end, found.len());
        Ok(found)
    }

    /// Makes `block` durable. False when it is not kept: its height is over, or already holds as many as are kept.
    pub(crate) async fn make_durable(&self, block: Undecided) -> io::Result<bool> {
        self.write(block, true).await
    }

    /// Writes `block` so that it outlives the process, not the machine: enough for what others have committed.
    pub(crate) async fn make_restartable(&self, block: Undecided) -> io::Result<bool> {
        self.write(block, false).await
    }

    async fn write(&self, block: Undecided, durable: bool) -> io::Result<bool> {
        let records = self.records.clone();
        tokio::task::spawn_blocking(move || lock(&records).append(&block, durable)).await.map_err(io::Error::other)?
    }

    /// Keeps a block in memory under its id. A valid verdict replaces an invalid one, as in the engine.
    pub(crate) fn insert(&self, id: BlockId, block: Undecided, valid: bool) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&id) {
            entry.valid |= valid;
        } else if entries.len() < BLOCKS_MAX {
            entries.insert(id, Entry { block, valid });
        } else if let Some(oldest) = evictable(&entries) {
            entries.remove(&oldest);
            entries.insert(id, Entry { block, valid });
        }
    }

    /// A block by its id.
    pub(crate) fn bytes(&self, id: &BlockId) -> Option<Bytes> {
        self.entries().get(id).map(|entry| entry.block.bytes.clone())
    }

    /// The block that `proposer` proposed first in that round, if it is known.
    pub(crate) fn proposed_by(&self, height: u64, round: u32, proposer: &ValidatorId) -> Option<(BlockId, Bytes)> {
        self.entries()
            .iter()
            .find(|(_, entry)| {
                let block = &entry.block;
                (block.height, block.round, &block.proposer) == (height, round, proposer)
            })
            .map(|(id, entry)| (*id, entry.block.bytes.clone()))
    }

    /// Every block of `height` with its verdict.
    pub(crate) fn of_height(&self, height: u64) -> Vec<(BlockId, Undecided, bool)> {
        self.entries()
            .iter()
            .filter(|(_, entry)| entry.block.height == height)
            .map(|(id, entry)| (*id, entry.block.clone(), entry.valid))
            .collect()
    }

    /// Forgets everything below `height`.
    pub(crate) fn forget_below(&self, height: u64) {
        self.entries().retain(|_, entry| entry.block.height >= height);
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries().values().map(|entry| entry.block.bytes.len()).sum()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<BlockId, Entry>> {
        lock(&self.entries)
    }
}

/// The oldest entry that cannot be voted for any more; failing that, the one of the lowest round.
fn evictable(entries: &HashMap<BlockId, Entry>) -> Option<BlockId> {
    entries.iter().min_by_key(|(_, entry)| (entry.valid, entry.block.height, entry.block.round)).map(|(id, _)| *id)
}

impl Records {
    fn append(&mut self, block: &Undecided, durable: bool) -> io::Result<bool> {
        if block.height > self.height {
            (self.height, self.end, self.count) = (block.height, 0, 0);
        }
        // A block of a height that is already decided must not overwrite those of the running one.
        if block.height < self.height || self.count == BLOCKS_MAX {
            return Ok(false);
        }
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("a flush of undecided blocks failed before"))?;
        let header = record_header(block);
        file.write_all_at(&header, self.end)?;
        file.write_all_at(&block.bytes, self.end + HEADER_BYTES as u64)?;
        if durable && let Err(error) = file.sync_data() {
            // After a failed flush the page cache no longer tells the truth about the disk: never try again.
            self.file = None;
            return Err(error);
        }
        self.end += (HEADER_BYTES + block.bytes.len()) as u64;
        self.count += 1;
        Ok(true)
    }
}

fn record_header(block: &Undecided) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let length = u32::try_from(block.bytes.len()).unwrap_or(u32::MAX);
    let valid_round = block.valid_round.map_or(0, |round| u64::from(round) + 1);
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&block.height.to_be_bytes());
    header[16..20].copy_from_slice(&block.round.to_be_bytes());
    header[20..28].copy_from_slice(&valid_round.to_be_bytes());
    header[28..60].copy_from_slice(block.proposer.as_bytes());
    header[60..64].copy_from_slice(&length.to_be_bytes());
    let digest = record_digest(&header, &block.bytes);
    header[64..].copy_from_slice(&digest);
    header
}

fn record_digest(header: &[u8; HEADER_BYTES], block: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&header[..64]);
    context.update(block);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The record at `offset`, or none where no whole record lies.
fn read_record(file: &File, offset: u64, block_bytes_max: usize) -> io::Result<Option<Undecided>> {
    let mut header = [0; HEADER_BYTES];
    if !read_whole(file, &mut header, offset)? || &header[..8] != MAGIC {
        return Ok(None);
    }
    let word =
        |range: std::ops::Range<usize>| header[range].iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let length = usize::try_from(word(60..64)).unwrap_or(usize::MAX);
    if length > block_bytes_max {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    if !read_whole(file, &mut bytes, offset + HEADER_BYTES as u64)?
        || record_digest(&header, &bytes)[..] != header[64..]
    {
        return Ok(None);
    }
    let mut proposer = [0; 32];
    proposer.copy_from_slice(&header[28..60]);
    Ok(Some(Undecided {
        height: word(8..16),
        round: u32::try_from(word(16..20)).unwrap_or(u32::MAX),
        valid_round: word(20..28).checked_sub(1).and_then(|round| u32::try_from(round).ok()),
        proposer: ValidatorId(proposer),
        bytes: bytes.into(),
    }))
}

fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn block(height: u64, round: u32, fill: u8) -> Undecided {
        Undecided {
            height,
            round,
            valid_round: round.checked_sub(1),
            proposer: ValidatorId([fill; 32]),
            bytes: Bytes::from(vec![fill; 1_000 + usize::from(fill)]),
        }
    }

    #[tokio::test]
    async fn blocks_of_the_height_come_back_and_others_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks");
        let store = UndecidedBlocks::open(&path).unwrap();
        for round in 0..3 {
            assert!(store.make_durable(block(5, round, 200)).await.unwrap());
        }
        assert!(store.make_durable(block(6, 0, 1)).await.unwrap());
        assert!(store.make_restartable(block(6, 1, 2)).await.unwrap());
        drop(store);

        let store = UndecidedBlocks::open(&path).unwrap();
        assert_eq!(store.recover(6, MAX).unwrap(), [block(6, 0, 1), block(6, 1, 2)]);
        assert!(store.recover(5, MAX).unwrap().is_empty(), "height 6 wrote over the start of height 5");
        let size = std::fs::metadata(&path).unwrap().len();
        for height in 7..40 {
            store.make_durable(block(height, 0, 9)).await.unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "the file does not grow with heights");
    }

    #[tokio::test]
    async fn a_torn_record_ends_the_reading() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks");
        let store = UndecidedBlocks::open(&path).unwrap();
        store.make_durable(block(5, 0, 1)).await.unwrap();
        store.make_durable(block(5, 1, 2)).await.unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff], (HEADER_BYTES + 1_001 + HEADER_BYTES + 500) as u64).unwrap();
        assert_eq!(store.recover(5, MAX).unwrap(), [block(5, 0, 1)]);
        assert!(store.make_durable(block(5, 2, 3)).await.unwrap());
        assert_eq!(store.recover(5, MAX).unwrap(), [block(5, 0, 1), block(5, 2, 3)], "written over the torn one");
        assert!(store.recover(5, 100).unwrap().is_empty(), "a length beyond the limit is not believed");
    }

    #[tokio::test]
    async fn memory_and_file_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let store = UndecidedBlocks::open(&directory.path().join("blocks")).unwrap();
        let mut written = 0;
        for round in 0..40u8 {
            let block = block(5, u32::from(round), round);
            store.insert(BlockId([round; 32]), block.clone(), round >= 20);
            written += usize::from(store.make_durable(block).await.unwrap());
        }
        assert_eq!(written, BLOCKS_MAX);
        assert_eq!(store.of_height(5).len(), BLOCKS_MAX);
        assert!(store.bytes(&BlockId([39; 32])).is_some());
        assert!(store.bytes(&BlockId([3; 32])).is_none(), "blocks that were found invalid go first");
        assert_eq!(store.proposed_by(5, 39, &ValidatorId([39; 32])).map(|found| found.0), Some(BlockId([39; 32])));
        store.forget_below(6);
        assert_eq!(store.memory_bytes(), 0);
    }
}
