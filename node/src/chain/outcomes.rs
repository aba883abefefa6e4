//! Outcomes as flat arrays: code and log index of every statement, by height and position.
//!
//! `outcomes.dat` holds 16 bytes per statement: log index + 1 as u64 (0: none), code as u16, six zero bytes, all little
//! endian. `heights.dat` holds 24 bytes per height: statements up to and including it (u64), log size after it (u64),
//! CRC32C of its outcome bytes (u32), CRC32C of the 20 bytes before (u32). Nothing is flushed per block.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use stele_types::{Code, LogIndex, Outcome};

use super::ChainError;
use crate::store::durable;

const OUTCOME_BYTES: u64 = 16;
const HEIGHT_BYTES: u64 = 24;

/// Code and log index of one statement.
pub(super) type Result16 = (Code, Option<LogIndex>);

/// See the [module](self).
pub(super) struct OutcomeStore {
    outcomes: File,
    heights: File,
    end: RwLock<End>,
    /// Older heights that were read lately, the last one at the end: polls of one statement must not read its block each
    /// time.
    checked: Mutex<VecDeque<(u64, Arc<[Result16]>)>>,
}

/// Heights whose outcomes stay in memory: clients ask for what was just decided. 64 blocks of 10,000 statements are
/// 10 MB.
const RECENT_HEIGHTS: usize = 64;

/// Older heights that stay in memory once their checksum was checked: 8 blocks of 10,000 statements are 2 MB.
const CHECKED_HEIGHTS: usize = 8;

/// What is written so far, and the newest of it.
#[derive(Default)]
struct End {
    height: u64,
    statements: u64,
    /// Outcomes of the heights up to `height`, as they were encoded; the newest last.
    recent: VecDeque<Vec<u8>>,
}

impl End {
    /// Outcomes of a height that is still in memory.
    fn recent(&self, height: u64) -> Option<&[u8]> {
        let back = usize::try_from(self.height.checked_sub(height)?).ok()?;
        let at = self.recent.len().checked_sub(back + 1)?;
        self.recent.get(at).map(Vec::as_slice)
    }
}

/// One entry of `heights.dat`.
#[derive(Clone, Copy)]
struct HeightEntry {
    statements: u64,
    log_size: u64,
    crc: u32,
}

impl OutcomeStore {
    /// Opens the arrays for a node whose state stands at `height`, and cuts off what lies beyond.
    ///
    /// # Errors
    /// `Damaged` when they are shorter or the last entry is not sound.
    pub(super) fn open(directory: &Path, height: u64) -> Result<Self, ChainError> {
        durable::create_directory(directory).map_err(ChainError::io("create the outcomes directory"))?;
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(directory.join(name))
                .map_err(ChainError::io("open the outcomes"))
        };
        let store = Self {
            outcomes: open("outcomes.dat")?,
            heights: open("heights.dat")?,
            end: RwLock::default(),
            checked: Mutex::default(),
        };
        let statements = if height == 0 { 0 } else { store.entry(height)?.statements };
        let length = |file: &File| file.metadata().map(|m| m.len()).map_err(ChainError::io("measure the outcomes"));
        if length(&store.outcomes)? < statements * OUTCOME_BYTES {
            return Err(ChainError::Damaged { store: "outcomes", height });
        }
        let cut = ChainError::io("cut the outcomes");
        store
            .heights
            .set_len(height * HEIGHT_BYTES)
            .and_then(|()| store.outcomes.set_len(statements * OUTCOME_BYTES))
            .map_err(cut)?;
        *store.end.write().unwrap_or_else(PoisonError::into_inner) =
            End { height, statements, recent: VecDeque::new() };
        Ok(store)
    }

    /// Opens the arrays to read them beside their node: nothing is written or cut off.
    pub(super) fn open_to_read(directory: &Path) -> Result<Self, ChainError> {
        let open = |name: &str| File::open(directory.join(name)).map_err(ChainError::io("open the outcomes"));
        Ok(Self {
            outcomes: open("outcomes.dat")?,
            heights: open("heights.dat")?,
            end: RwLock::default(),
            checked: Mutex::default(),
        })
    }

    /// Height of the newest outcomes, as far as the file's length tells.
    pub(super) fn written(&self) -> Result<u64, ChainError> {
        let length = self.heights.metadata().map_err(ChainError::io("measure the outcomes"))?.len();
        Ok(length / HEIGHT_BYTES)
    }

    /// Makes the arrays of a node that begins after `height`: they know the outcomes of that height and none below.
    pub(super) fn adopt(directory: &Path, height: u64, outcomes: &[Outcome], log_size: u64) -> Result<(), ChainError> {
        let store = Self::open(directory, 0)?;
        {
            let mut end = store.end.write().unwrap_or_else(PoisonError::into_inner);
            end.height = height - 1;
        }
        if height > 1 {
            // The entry below says where the outcomes begin. Older ones are zeros, which no checksum fits.
            let applied = outcomes.iter().filter(|outcome| outcome.index.is_some()).count() as u64;
            let entry = encode_height(0, log_size.saturating_sub(applied), &[]);
            store
                .heights
                .write_all_at(&entry, (height - 2) * HEIGHT_BYTES)
                .map_err(ChainError::io("begin the outcomes"))?;
        }
        store.append(height, outcomes, log_size)?;
        store.sync()
    }

    /// Appends the outcomes of the next height.
    pub(super) fn append(&self, height: u64, outcomes: &[Outcome], log_size: u64) -> Result<(), ChainError> {
        let mut end = self.end.write().unwrap_or_else(PoisonError::into_inner);
        if height != end.height + 1 {
            return Err(ChainError::Damaged { store: "outcomes", height });
        }
        let mut bytes = Vec::with_capacity(outcomes.len() * 16);
        for outcome in outcomes {
            let index = outcome.index.map_or(0, |index| index.0 + 1);
            bytes.extend_from_slice(&index.to_le_bytes());
            bytes.extend_from_slice(&outcome.code.number().to_le_bytes());
            bytes.extend_from_slice(&[0; 6]);
        }
        let statements = end.statements + outcomes.len() as u64;
        let entry = encode_height(statements, log_size, &bytes);
        self.outcomes
            .write_all_at(&bytes, end.statements * OUTCOME_BYTES)
            .and_then(|()| self.heights.write_all_at(&entry, (height - 1) * HEIGHT_BYTES))
            .map_err(ChainError::io("append outcomes"))?;
        (end.height, end.statements) = (height, statements);
        if end.recent.len() == RECENT_HEIGHTS {
            end.recent.pop_front();
        }
        end.recent.push_back(bytes);
        Ok(())
    }

    /// Outcomes of a height, checked.
    pub(super) fn block(&self, height: u64) -> Result<Vec<Result16>, ChainError> {
        let damaged = ChainError::Damaged { store: "outcomes", height };
        let entry = self.entry(height)?;
        let first = self.first(height)?;
        let Some(length) =
            entry.statements.checked_sub(first).and_then(|count| usize::try_from(count * OUTCOME_BYTES).ok())
        else {
            return Err(damaged);
        };
        let mut bytes = vec![0; length];
        match self.outcomes.read_exact_at(&mut bytes, first * OUTCOME_BYTES) {
            Ok(()) if crc32c::crc32c(&bytes) == entry.crc => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(ChainError::io("read outcomes")(error));
            }
            // Another checksum, or a file that ends before its heights do.
            _ => return Err(damaged),
        }
        bytes.chunks_exact(16).map(|chunk| decode(chunk, height)).collect()
    }

    /// Outcome of one statement; none when there is no such position.
    pub(super) fn one(&self, height: u64, position: u32) -> Result<Option<Result16>, ChainError> {
        {
            let end = self.end.read().unwrap_or_else(PoisonError::into_inner);
            if height == 0 || height > end.height {
                return Ok(None);
            }
            if let Some(outcomes) = end.recent(height) {
                let Some(outcome) = outcomes.as_chunks::<16>().0.get(position as usize) else { return Ok(None) };
                return decode(outcome, height).map(Some);
            }
        }
        // The whole height, because its checksum covers all of it: a wrong outcome would be a false acknowledgement.
        Ok(self.checked(height)?.get(position as usize).copied())
    }

    /// Outcomes of a height as [`OutcomeStore::block`] gives them, from memory when they were asked for lately. A height
    /// never changes once it is written, so there is nothing to forget.
    fn checked(&self, height: u64) -> Result<Arc<[Result16]>, ChainError> {
        let memory = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, results)) = memory().iter().find(|(held, _)| *held == height) {
            return Ok(Arc::clone(results));
        }
        // Not under the lock: one slow read must not hold up those that are answered from memory.
        let results: Arc<[Result16]> = self.block(height)?.into();
        let mut checked = memory();
        if checked.len() == CHECKED_HEIGHTS {
            checked.pop_front();
        }
        checked.push_back((height, Arc::clone(&results)));
        Ok(results)
    }

    /// The first height from `oldest` on after which the log has more than `log_size` leaves; used to feed the log again.
    pub(super) fn height_beyond(&self, log_size: u64, oldest: u64) -> Result<u64, ChainError> {
        let (mut low, mut high) = (oldest, self.end.read().unwrap_or_else(PoisonError::into_inner).height + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.log_size > log_size { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// Flushes both files.
    pub(super) fn sync(&self) -> Result<(), ChainError> {
        self.outcomes.sync_data().and_then(|()| self.heights.sync_data()).map_err(ChainError::io("flush outcomes"))
    }

    fn first(&self, height: u64) -> Result<u64, ChainError> {
        if height <= 1 { Ok(0) } else { Ok(self.entry(height - 1)?.statements) }
    }

    fn entry(&self, height: u64) -> Result<HeightEntry, ChainError> {
        let damaged = ChainError::Damaged { store: "outcomes", height };
        let mut bytes = [0; 24];
        let at = height.saturating_sub(1) * HEIGHT_BYTES;
        if self.heights.read_exact_at(&mut bytes, at).is_err() {
            return Err(damaged);
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if crc32c::crc32c(&bytes[..20]) != word(20) {
            return Err(damaged);
        }
        Ok(HeightEntry { statements: long(0), log_size: long(8), crc: word(16) })
    }
}

/// The entry of a height: statements up to it, log size after it, checksum of its outcomes.
fn encode_height(statements: u64, log_size: u64, outcomes: &[u8]) -> [u8; 24] {
    let mut entry = [0; 24];
    entry[..8].copy_from_slice(&statements.to_le_bytes());
    entry[8..16].copy_from_slice(&log_size.to_le_bytes());
    entry[16..20].copy_from_slice(&crc32c::crc32c(outcomes).to_le_bytes());
    let check = crc32c::crc32c(&entry[..20]);
    entry[20..].copy_from_slice(&check.to_le_bytes());
    entry
}

fn decode(chunk: &[u8], height: u64) -> Result<Result16, ChainError> {
    let damaged = || ChainError::Damaged { store: "outcomes", height };
    let index = chunk.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(damaged)?;
    let code = Code::from_number(u16::from_le_bytes([chunk[8], chunk[9]])).ok_or_else(damaged)?;
    Ok((code, index.checked_sub(1).map(LogIndex)))
}

#[cfg(test)]
mod tests {
    use stele_types::StatementId;

    use super::*;

    fn outcomes(count: u64, first: u64) -> Vec<Outcome> {
        (0..count)
            .map(|n| match n % 3 {
                0 => Outcome { statement: StatementId([0; 32]), code: Code::Stale, index: None },
                _ => Outcome { statement: StatementId([0; 32]), code: Code::Applied, index: Some(LogIndex(first + n)) },
            })
            .collect()
    }

    #[test]
    fn outcomes_return_and_survive_being_cut_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = OutcomeStore::open(directory.path(), 0).unwrap();
        for height in 1..=20 {
            store.append(height, &outcomes(height, 100 * height), 10 * height).unwrap();
        }
        assert!(store.append(22, &[], 0).is_err(), "heights have no gaps");
        assert_eq!(store.height_beyond(49, 1).unwrap(), 5);
        assert_eq!(store.height_beyond(50, 3).unwrap(), 6);
        drop(store);
        let store = OutcomeStore::open(directory.path(), 12).unwrap();
        for height in 1..=12 {
            let expected: Vec<_> =
                outcomes(height, 100 * height).into_iter().map(|outcome| (outcome.code, outcome.index)).collect();
            assert_eq!(store.block(height).unwrap(), expected);
            assert_eq!(store.one(height, 0).unwrap(), Some(expected[0]));
            assert_eq!(store.one(height, u32::try_from(height).unwrap()).unwrap(), None);
        }
        assert_eq!(store.one(13, 0).unwrap(), None);
        drop(store);
        assert!(OutcomeStore::open(directory.path(), 13).is_err(), "what was cut is not there");
    }

    #[test]
    fn a_node_that_begins_at_a_height_knows_it_and_none_below() {
        for height in [1, 2, 1_000] {
            let directory = tempfile::tempdir().unwrap();
            OutcomeStore::adopt(directory.path(), height, &outcomes(5, 100), 107).unwrap();
            let store = OutcomeStore::open(directory.path(), height).unwrap();
            assert_eq!(store.block(height).unwrap().len(), 5);
            assert_eq!(store.height_beyond(107, height).unwrap(), height + 1);
            store.append(height + 1, &outcomes(3, 107), 109).unwrap();
            assert_eq!(store.block(height + 1).unwrap().len(), 3);
            assert_eq!(store.height_beyond(107, height).unwrap(), height + 1);
            if height > 2 {
                assert!(store.block(height - 1).is_err() && store.one(height - 1, 0).is_err());
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let store = OutcomeStore::open(directory.path(), 0).unwrap();
        store.append(1, &outcomes(5, 0), 5).unwrap();
        store.outcomes.write_all_at(&[9], 3).unwrap();
        assert!(matches!(store.block(1), Err(ChainError::Damaged { height: 1, .. })));
    }

    fn outcome(number: u8) -> Outcome {
        Outcome { statement: StatementId([number; 32]), code: Code::Applied, index: Some(LogIndex(number.into())) }
    }

    #[test]
    fn no_flipped_byte_of_an_old_height_is_another_outcome() {
        let directory = tempfile::tempdir().unwrap();
        let store = OutcomeStore::open(directory.path(), 0).unwrap();
        for height in 1..=3_u8 {
            store
                .append(height.into(), &[outcome(2 * height), outcome(2 * height + 1)], 2 * u64::from(height))
                .unwrap();
        }
        drop(store);
        // Opened again, nothing is in memory.
        let opened = || OutcomeStore::open(directory.path(), 3).unwrap();
        let store = opened();
        assert_eq!(store.one(1, 1).unwrap(), Some((Code::Applied, Some(LogIndex(3)))));
        assert_eq!(store.one(1, 2).unwrap(), None);
        drop(store);
        let path = directory.path().join("outcomes.dat");
        let sound = std::fs::read(&path).unwrap();
        for at in 0..2 * 16 {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let store = opened();
            assert!(matches!(store.one(1, 0), Err(ChainError::Damaged { .. })), "byte {at}");
            assert!(store.one(2, 0).unwrap().is_some(), "other heights are served");
        }
    }

    #[test]
    fn heights_in_memory_are_bounded_and_answered_without_a_read() {
        let directory = tempfile::tempdir().unwrap();
        let heights = CHECKED_HEIGHTS as u64 + 1;
        let store = OutcomeStore::open(directory.path(), 0).unwrap();
        for height in 1..=heights {
            store.append(height, &[outcome(1)], height).unwrap();
        }
        drop(store);
        let store = OutcomeStore::open(directory.path(), heights).unwrap();
        for height in 1..=heights {
            assert!(store.one(height, 0).unwrap().is_some());
            assert!(store.one(height, 0).unwrap().is_some());
        }
        store.outcomes.set_len(0).unwrap();
        assert!(store.one(heights, 0).unwrap().is_some(), "from memory");
        assert!(matches!(store.one(1, 0), Err(ChainError::Damaged { height: 1, .. })), "the oldest had to go");
    }
}
