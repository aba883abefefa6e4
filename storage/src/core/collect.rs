//! Collecting: what lives in segments that mostly died is written again elsewhere, and their slots are free.
//!
//! Records are grouped by class and retention year, so that most segments die as a whole and cost nothing but their seal.
//! The rest is moved into the group's open segment, like any put. A segment is given up only when the index is durable
//! without it, since a tombstone that is no longer carried on cannot be replayed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::recover::FoundBatch;
use super::write::{ReadOnly, index_failed, unless_empty};
use super::{Inner, Put};
use crate::StorageError;
use crate::format::{BLOCK_BYTES, DIRECTORY_ENTRY_BYTES, Entry, Kind, Stage};
use crate::location::Location;

/// Entries of the index that are looked at before others have their turn.
const ENTRIES_AT_ONCE: usize = 4096;

/// Records that are moved at a time.
const MOVES_MAX: usize = 16;

/// What collecting came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Segments whose slots are free now.
    pub segments: u64,
    /// Records that were moved out of them, and their bytes.
    pub moved: u64,
    /// Bytes of the records that were moved.
    pub moved_bytes: u64,
}

/// A record on its way from one segment to another.
pub(super) struct Move {
    pub(super) key: [u8; 32],
    pub(super) answer: oneshot::Receiver<Result<(), StorageError>>,
}

impl Inner {
    /// Empties the segments of which at most `live_percent` is alive, the emptiest first, `segments_max` at most.
    pub(super) async fn collect(&self, live_percent: u8, segments_max: usize) -> Result<CollectReport, StorageError> {
        // One after the other: two would move the same.
        self.tasks.until(|| (!self.collecting.replace(true)).then_some(())).await;
        let report = self.collect_alone(live_percent, segments_max).await;
        self.collecting.set(false);
        self.tasks.touch();
        report
    }

    async fn collect_alone(&self, live_percent: u8, segments_max: usize) -> Result<CollectReport, StorageError> {
        if let Some(refusal) = self.writing.borrow().read_only.as_ref().map(ReadOnly::refusal) {
            return Err(refusal);
        }
        if self.is_incomplete() {
            return Err(self.unknown());
        }
        let mut report = CollectReport::default();
        let live = self.live_bytes().await?;
        let mut victims: Vec<(u64, u32)> = {
            let (segments, cold) = (self.segments.borrow(), self.cold.borrow());
            // What is in the cold tier, or on its way there, makes room as a whole.
            let sealed = segments.all.iter().filter(|(id, segment)| segment.is_settled() && !cold.contains_key(id));
            let share = |(id, segment): (&u32, &super::segment::Segment)| {
                let room = u64::from(segment.used) * BLOCK_BYTES as u64 * self.shape.data as u64;
                (live.get(id).copied().unwrap_or(0) * 100 / room.max(1), *id)
            };
            sealed.map(share).filter(|(share, _)| *share <= u64::from(live_percent)).collect()
        };
        victims.sort_unstable();
        victims.truncate(segments_max);
        let mut emptied = Vec::with_capacity(victims.len());
        for (_, id) in victims {
            // What cannot be moved stays where it is; a scrub, or the next put, tells why.
            if self.empty(id, &mut report).await.is_ok() {
                emptied.push(id);
            }
        }
        if emptied.is_empty() {
            return Ok(report);
        }
        // What was moved, and what was ended, must not be looked for in them after a crash.
        self.index.flush(self.position()).map_err(index_failed)?;
        for id in emptied {
            report.segments += u64::from(self.free_slots(id).await);
        }
        Ok(report)
    }

    /// Gives up a segment's slots; whether a drive took it. The index must durably do without what is in them.
    pub(super) async fn free_slots(&self, id: u32) -> bool {
        if let Some(segment) = self.segments.borrow_mut().all.get_mut(&id) {
            segment.leaving = true;
        }
        let idle = || self.segments.borrow().all.get(&id).is_none_or(|segment| segment.pins == 0);
        self.tasks.until(|| idle().then_some(())).await;
        let written = self.write_slot_headers(id, Stage::Free).await;
        if written > 0 {
            self.segments.borrow_mut().give_up(id);
        } else if let Some(segment) = self.segments.borrow_mut().all.get_mut(&id) {
            segment.leaving = false;
        }
        written > 0
    }

    /// Bytes of the records of each segment that the index knows.
    pub(super) async fn live_bytes(&self) -> Result<BTreeMap<u32, u64>, StorageError> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        let mut entries = self.index.entries();
        loop {
            for _ in 0..ENTRIES_AT_ONCE {
                let Some(entry) = entries.next() else { return Ok(live) };
                let (_, location) = entry.map_err(index_failed)?;
                let Some(location) = Location::decode(&location) else { continue };
                *live.entry(location.segment).or_default() += u64::from(location.bytes);
            }
            self.tasks.pause().await;
        }
    }

    /// Moves what lives in a segment.
    async fn empty(&self, id: u32, report: &mut CollectReport) -> Result<(), StorageError> {
        let mut moves: VecDeque<Move> = VecDeque::new();
        let result = self.begin_moves(id, &mut moves, report).await;
        let mut moved = Ok(());
        while let Some(oldest) = moves.pop_front() {
            moved = moved.and(self.finish_move(oldest).await);
        }
        result.and(moved)
    }

    async fn begin_moves(
        &self,
        id: u32,
        moves: &mut VecDeque<Move>,
        report: &mut CollectReport,
    ) -> Result<(), StorageError> {
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return Ok(()) };
        let stage = Stage::Sealed { blocks: segment.used, sequence: segment.sequence };
        let batches = self.walk(id, stage).await;
        let end = batches.last().map_or(1, FoundBatch::end);
        if end != segment.used {
            // Batches that cannot be found may hold what lives.
            return Err(StorageError::Damaged { segment: id, sound: 0, needed: self.shape.data });
        }
        for batch in &batches {
            for (column, directory) in batch.header.directories.iter().enumerate() {
                if directory.entries == 0 {
                    continue;
                }
                let listing = self.directory(id, batch, column, directory).await?;
                for entry in listing.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode) {
                    // One that is on its way already would be waited for in vain.
                    while moves.iter().any(|other| other.key == entry.key) {
                        let oldest = moves.pop_front().expect("there are some");
                        self.finish_move(oldest).await?;
                    }
                    let Some(put) = self.moved(&entry, entry.location(id, batch.start, column), segment.group).await?
                    else {
                        continue;
                    };
                    report.moved += 1;
                    report.moved_bytes += put.bytes.len() as u64;
                    let (reply, answer) = oneshot::channel();
                    moves.push_back(Move { key: put.key, answer });
                    self.put(Put { reply, ..put });
                    if moves.len() > MOVES_MAX {
                        let oldest = moves.pop_front().expect("there are some");
                        self.finish_move(oldest).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The put of a record that is to be moved; none if it is dead. Until the move is finished the record cannot be ended,
    /// or its copy would come after its tombstone.
    pub(super) async fn moved(
        &self,
        entry: &Entry,
        location: Location,
        group: crate::Group,
    ) -> Result<Option<Put>, StorageError> {
        let key = entry.key;
        self.tasks.until(|| (!self.busy.borrow().contains(&key)).then_some(())).await;
        let known = self.find(&key)?;
        let bytes = if entry.kind == Kind::Tombstone {
            // It is carried on as long as there is a segment in which a copy of the record may lie, whatever became of it.
            let older = {
                let segments = self.segments.borrow();
                let mut range = segments.all.range(..=entry.ends);
                range.any(|(id, segment)| *id != location.segment && !segment.leaving)
                    || self.is_cold_up_to(entry.ends, location.segment)
            };
            if known.is_some() || !older {
                return Ok(None);
            }
            Bytes::new()
        } else {
            if known != Some(location) {
                return Ok(None);
            }
            let (reply, mut answer) = oneshot::channel();
            self.read(location, reply);
            self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await?
        };
        // It may have been ended while it was read.
        self.tasks.until(|| (!self.busy.borrow().contains(&key)).then_some(())).await;
        if entry.kind != Kind::Tombstone && self.find(&key)? != Some(location) {
            return Ok(None);
        }
        self.busy.borrow_mut().insert(key);
        let (reply, _) = oneshot::channel();
        let Entry { kind, sum, time_ms, ends, .. } = *entry;
        Ok(Some(Put { group, key, kind, bytes, sum, time_ms, ends, moved: true, urgent: true, permit: None, reply }))
    }

    pub(super) async fn finish_move(&self, Move { key, mut answer }: Move) -> Result<(), StorageError> {
        let answer = self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await;
        self.busy.borrow_mut().remove(&key);
        self.tasks.touch();
        answer
    }
}
