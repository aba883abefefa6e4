//! An immutable sorted run: its file format, its writer, and the search in it.
//!
//! ```text
//!   blocks of 4 KiB | ranks (8 B each) | footer (64)
//!   block = up to 170 entries | zeros | entries in it (u32) | CRC32C
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{ENTRY_BYTES, Entry, Key};
use super::error::IndexError;
use crate::store::durable;

const BLOCK_BYTES: usize = 4096;
const BLOCK_ENTRIES: usize = 170;
const FOOTER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"STELERUN";
const FORMAT_VERSION: u32 = 1;

/// Entries between two ranks kept in RAM: 16 blocks, where the interpolation of uniform keys errs by a
/// sixth of a block (the standard deviation of a rank among n uniform keys is below √n/2 = 26).
const RANK_ENTRIES: u64 = 16 * BLOCK_ENTRIES as u64;

/// Most bits that select a rank: 2^32 ranks are far beyond the largest run.
const RANK_BITS_MAX: u32 = 32;

/// Neighbouring blocks tried after the interpolated one before the search halves the range: uniform keys
/// need one at most, ground ones must not cost a read per block.
const NEIGHBOURS_TRIED: usize = 3;

/// Blocks that a merge reads, or a writer writes, at a time.
const BLOCKS_AT_ONCE: usize = 64;

/// Bytes written between two fdatasyncs: a large merge must not let gigabytes of dirty pages pile up
/// that the block store's next fdatasync would have to wait for.
const SYNC_BYTES: u64 = 32 << 20;

/// A sealed run, open for reading.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    path: PathBuf,
    file: File,
    rank_bits: u32,
    /// `ranks[b]` entries have keys whose top bits are below b; one more at the end.
    ranks: Vec<u64>,
}

impl Run {
    pub(super) fn path(directory: &Path, id: u64) -> PathBuf {
        directory.join(format!("{id:016}.run"))
    }

    /// Opens a run and checks its footer and ranks.
    pub(super) fn open(directory: &Path, id: u64) -> Result<Self, IndexError> {
        let path = Self::path(directory, id);
        let corrupt = |what| IndexError::Corrupt { file: path.clone(), what };
        let io_error = || IndexError::io("open a run");
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(corrupt("missing")),
            other => other.map_err(io_error())?,
        };
        let bytes = file.metadata().map_err(io_error())?.len();
        let footer_at = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| corrupt("too short"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at).map_err(io_error())?;
        let footer = Footer::decode(&footer).ok_or_else(|| corrupt("footer"))?;
        let ranks_at = footer.entries.div_ceil(BLOCK_ENTRIES as u64).checked_mul(BLOCK_BYTES as u64);
        let rank_count = (1_u64 << footer.rank_bits) + 1;
        if footer.id != id || ranks_at.and_then(|at| at.checked_add(rank_count * 8)) != Some(footer_at) {
            return Err(corrupt("footer"));
        }
        let ranks_at = footer_at - rank_count * 8;
        let mut rank_bytes = vec![0; usize::try_from(rank_count * 8).map_err(|_| corrupt("too large for memory"))?];
        file.read_exact_at(&mut rank_bytes, ranks_at).map_err(io_error())?;
        if crc32c::crc32c(&rank_bytes) != footer.ranks_crc {
            return Err(corrupt("ranks"));
        }
        let (ranks, _) = rank_bytes.as_chunks::<8>();
        let ranks = ranks.iter().map(|rank| u64::from_le_bytes(*rank)).collect();
        Ok(Self { id, entries: footer.entries, bytes, path, file, rank_bits: footer.rank_bits, ranks })
    }

    /// Location of a key, packed.
    pub(super) fn lookup(&self, key: Key) -> Result<Option<u64>, IndexError> {
        let bucket = bucket_of(key, self.rank_bits);
        let (mut low, mut high) = (self.ranks[bucket], self.ranks[bucket + 1]);
        let mut block = self.interpolate(key, low, high);
        let mut bytes = [0; BLOCK_BYTES];
        let mut reads = 0;
        while low < high {
            let entries = self.read_block(block, &mut bytes)?;
            let first_rank = block * BLOCK_ENTRIES as u64;
            let key_at = |at: usize| Entry::read(&entries[at]).key;
            if key < key_at(0) {
                high = first_rank;
                block = block.saturating_sub(1);
            } else if key > key_at(entries.len() - 1) {
                low = first_rank + entries.len() as u64;
                block += 1;
            } else {
                let found = entries.binary_search_by(|entry| Entry::read(entry).key.cmp(&key));
                return Ok(found.ok().map(|at| Entry::read(&entries[at]).location));
            }
            reads += 1;
            if reads > NEIGHBOURS_TRIED {
                block = (low + (high.max(low) - low) / 2) / BLOCK_ENTRIES as u64;
            }
        }
        Ok(None)
    }

    /// Block where a uniform key of this rank range is expected.
    fn interpolate(&self, key: Key, low: u64, high: u64) -> u64 {
        let rest = match self.rank_bits {
            0 => key.high,
            bits => key.high << bits | key.low >> (64 - bits),
        };
        let share = (u128::from(high - low) * u128::from(rest)) >> 64;
        (low + u64::try_from(share).expect("below high - low")) / BLOCK_ENTRIES as u64
    }

    /// Reads and checks one block.
    fn read_block<'a>(
        &self,
        block: u64,
        bytes: &'a mut [u8; BLOCK_BYTES],
    ) -> Result<&'a [[u8; ENTRY_BYTES]], IndexError> {
        self.file.read_exact_at(bytes, block * BLOCK_BYTES as u64).map_err(IndexError::io("read a run"))?;
        self.entries_of(bytes)
    }

    fn entries_of<'a>(&self, block: &'a [u8; BLOCK_BYTES]) -> Result<&'a [[u8; ENTRY_BYTES]], IndexError> {
        let corrupt = || IndexError::Corrupt { file: self.path.clone(), what: "block checksum" };
        let (body, crc) = block.split_last_chunk::<4>().expect("a block is larger");
        let (body, count) = body.split_last_chunk::<4>().expect("a block is larger");
        let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_| corrupt())?;
        if *crc != crc32c::crc32c(&block[..BLOCK_BYTES - 4]).to_le_bytes() || !(1..=BLOCK_ENTRIES).contains(&count) {
            return Err(corrupt());
        }
        let (entries, _) = body.as_chunks::<ENTRY_BYTES>();
        Ok(&entries[..count])
    }

    /// Removes the file; readers that hold the run keep reading it.
    pub(super) fn remove(&self) -> io::Result<()> {
        durable::remove_if_present(&self.path)
    }
}

/// Reads a run from its first entry to its last, many blocks at a time.
pub(super) struct RunReader {
    run: Arc<Run>,
    next_block: u64,
    blocks: u64,
    entries: std::vec::IntoIter<Entry>,
    bytes: Vec<u8>,
}

impl RunReader {
    pub(super) fn new(run: Arc<Run>) -> Self {
        let blocks = run.entries.div_ceil(BLOCK_ENTRIES as u64);
        Self { run, next_block: 0, blocks, entries: Vec::new().into_iter(), bytes: Vec::new() }
    }

    /// The next entry, `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, IndexError> {
        match self.entries.next() {
            Some(entry) => Ok(Some(entry)),
            None if self.next_block == self.blocks => Ok(None),
            None => {
                self.fill()?;
                Ok(self.entries.next())
            }
        }
    }

    fn fill(&mut self) -> Result<(), IndexError> {
        let take =
            usize::try_from(self.blocks - self.next_block).map_or(BLOCKS_AT_ONCE, |left| left.min(BLOCKS_AT_ONCE));
        self.bytes.resize(take * BLOCK_BYTES, 0);
        self.run
            .file
            .read_exact_at(&mut self.bytes, self.next_block * BLOCK_BYTES as u64)
            .map_err(IndexError::io("read a run to merge"))?;
        let mut entries = Vec::with_capacity(take * BLOCK_ENTRIES);
        let (blocks, _) = self.bytes.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            entries.extend(self.run.entries_of(block)?.iter().map(Entry::read));
        }
        self.next_block += take as u64;
        self.entries = entries.into_iter();
        Ok(())
    }
}

/// Writes a run, entry after entry.
pub(super) struct RunWriter {
    directory: PathBuf,
    id: u64,
    file: File,
    entries: u64,
    last: Option<Key>,
    rank_bits: u32,
    ranks: Vec<u64>,
    /// Entries of the block that is being filled.
    block: Vec<u8>,
    /// Whole blocks that are not written yet.
    blocks: Vec<u8>,
    unsynced: u64,
}

impl RunWriter {
    /// Begins a run of about `expected` entries.
    pub(super) fn create(directory: &Path, id: u64, expected: u64) -> io::Result<Self> {
        let path = Run::path(directory, id);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let rank_bits = (expected / RANK_ENTRIES).max(1).next_power_of_two().trailing_zeros().min(RANK_BITS_MAX);
        Ok(Self {
            directory: directory.to_owned(),
            id,
            file,
            entries: 0,
            last: None,
            rank_bits,
            ranks: vec![0],
            block: Vec::with_capacity(BLOCK_BYTES),
            blocks: Vec::with_capacity(BLOCKS_AT_ONCE * BLOCK_BYTES),
            unsynced: 0,
        })
    }

    /// Adds an entry whose key is above the last one's.
    pub(super) fn push(&mut self, entry: Entry) -> io::Result<()> {
        assert!(self.last < Some(entry.key), "entries of a run ascend");
        self.last = Some(entry.key);
        self.fill_ranks(bucket_of(entry.key, self.rank_bits));
        entry.write(&mut self.block);
        self.entries += 1;
        if self.block.len() == BLOCK_ENTRIES * ENTRY_BYTES {
            self.close_block()?;
        }
        Ok(())
    }

    /// Completes the run and makes it durable, its directory entry excepted.
    pub(super) fn finish(mut self) -> Result<Run, IndexError> {
        let io_error = || IndexError::io("write a run");
        if !self.block.is_empty() {
            self.close_block().map_err(io_error())?;
        }
        let mut bytes = std::mem::take(&mut self.blocks);
        self.fill_ranks(1 << self.rank_bits);
        let ranks_from = bytes.len();
        bytes.extend(self.ranks.iter().flat_map(|rank| rank.to_le_bytes()));
        let footer = Footer {
            id: self.id,
            entries: self.entries,
            rank_bits: self.rank_bits,
            ranks_crc: crc32c::crc32c(&bytes[ranks_from..]),
        };
        bytes.extend_from_slice(&footer.encode());
        self.file.write_all(&bytes).and_then(|()| self.file.sync_all()).map_err(io_error())?;
        Run::open(&self.directory, self.id)
    }

    /// Ranks of all buckets up to `bucket` are the entries so far.
    fn fill_ranks(&mut self, bucket: usize) {
        if self.ranks.len() <= bucket {
            self.ranks.resize(bucket + 1, self.entries);
        }
    }

    fn close_block(&mut self) -> io::Result<()> {
        let count = u32::try_from(self.block.len() / ENTRY_BYTES).map_err(io::Error::other)?;
        self.block.resize(BLOCK_BYTES - 8, 0);
        self.block.extend_from_slice(&count.to_le_bytes());
        self.block.extend_from_slice(&crc32c::crc32c(&self.block).to_le_bytes());
        self.blocks.append(&mut self.block);
        if self.blocks.len() < BLOCKS_AT_ONCE * BLOCK_BYTES {
            return Ok(());
        }
        self.file.write_all(&self.blocks)?;
        self.unsynced += self.blocks.len() as u64;
        self.blocks.clear();
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// The last 64 bytes of a run.
struct Footer {
    id: u64,
    entries: u64,
    rank_bits: u32,
    ranks_crc: u32,
}

impl Footer {
    fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rank_bits.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.entries.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.ranks_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let valid = bytes.starts_with(&MAGIC)
            && short(8) == FORMAT_VERSION
            && short(60) == crc32c::crc32c(&bytes[..60])
            && short(12) <= RANK_BITS_MAX;
        valid.then(|| Self { rank_bits: short(12), id: long(16), entries: long(24), ranks_crc: short(32) })
    }
}

/// The rank bucket of a key: its top bits.
fn bucket_of(key: Key, rank_bits: u32) -> usize {
    // A shift by all 64 bits is the bucket of a run with one bucket only.
    let bucket = key.high.checked_shr(64 - rank_bits).unwrap_or(0);
    usize::try_from(bucket).expect("at most 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run over keys with even low halves; the other keys are absent.
    fn run_of(directory: &Path, highs: impl Iterator<Item = u64>) -> (Run, Vec<Key>) {
        let mut keys: Vec<Key> = highs.map(|high| Key { high, low: high << 1 }).collect();
        keys.sort();
        keys.dedup();
        let mut writer = RunWriter::create(directory, 7, keys.len() as u64).unwrap();
        for (location, key) in (0..).zip(&keys) {
            writer.push(Entry { key: *key, location }).unwrap();
        }
        (writer.finish().unwrap(), keys)
    }

    fn assert_finds_all(run: &Run, keys: &[Key]) {
        for (location, key) in (0..).zip(keys) {
            assert_eq!(run.lookup(*key).unwrap(), Some(location));
            for absent in [key.low.wrapping_add(1), key.low.wrapping_sub(1)] {
                assert_eq!(run.lookup(Key { high: key.high, low: absent }).unwrap(), None);
            }
        }
    }

    #[test]
    fn every_key_of_uniform_runs_is_found_and_no_other() {
        for count in [1, 2, 169, 170, 171, 2_719, 20_000] {
            let directory = tempfile::tempdir().unwrap();
            let uniform = (0..count).map(|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let (run, keys) = run_of(directory.path(), uniform);
            assert_finds_all(&run, &keys);
            for high in [0, 1, u64::MAX, u64::MAX / 2] {
                assert_eq!(run.lookup(Key { high, low: u64::MAX }).unwrap(), None);
            }
        }
    }

    #[test]
    fn keys_ground_into_a_corner_are_found_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let corners = (0..9_000).chain((0..9_000).map(|number| u64::MAX - number * number));
        let (run, keys) = run_of(directory.path(), corners);
        assert_finds_all(&run, &keys);
    }

    #[test]
    fn a_reader_returns_all_entries_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let uniform = (0..30_000).map(|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (run, keys) = run_of(directory.path(), uniform);
        let mut reader = RunReader::new(Arc::new(run));
        let mut read = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            read.push(entry.key);
        }
        assert_eq!(read, keys);
    }

    #[test]
    fn damage_anywhere_in_a_run_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let uniform = (0..400).map(|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (run, keys) = run_of(directory.path(), uniform);
        let path = Run::path(directory.path(), 7);
        let whole = std::fs::read(&path).unwrap();
        drop(run);
        for at in (0..whole.len()).step_by(29).chain(whole.len() - FOOTER_BYTES - 16..whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            let found = Run::open(directory.path(), 7)
                .and_then(|run| keys.iter().map(|key| run.lookup(*key)).collect::<Result<Vec<_>, _>>());
            assert_eq!(found.unwrap_err().code(), "index_corrupt", "byte {at}");
        }
        for length in [0, 63, 64, 4096, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Run::open(directory.path(), 7).unwrap_err().code(), "index_corrupt");
        }
    }
}
