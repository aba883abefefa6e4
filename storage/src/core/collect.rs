//! Collecting: what lives in segments that mostly died is written again elsewhere, and their slots are free.
//!
//! Records are grouped by class and retention year, so that most segments die as a whole and cost nothing but their seal.
//! The rest is moved into the group's open segment, like any put. A segment is given up only when the index is durable
//! without it, since a tombstone that is no longer carried on cannot be replayed.
//!
//! What is moved waits for more to share its stripe: a batch takes as many blocks of every column as its longest one needs.
//!
//! A tombstone is carried on as long as there is a segment in which a record that it ends may lie, which is any up to the
//! newest when it was written. What was carried counts as needed, or it would be written again by every collecting; when
//! it has become much, the oldest segments are written again, and what waited for them is dropped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::recover::FoundBatch;
use super::segment::{Carried, Segments};
use super::write::{ReadOnly, index_failed, unless_empty};
use super::{Inner, Put};
use crate::format::{BLOCK_BYTES, CELL_BLOCKS_MAX, DIRECTORY_ENTRY_BYTES, Entry, Kind, Stage, UNIT_BYTES};
use crate::location::Location;
use crate::{Group, StorageError};

/// Entries of the index that are looked at before others have their turn.
const ENTRIES_AT_ONCE: usize = 4096;

/// Records that are moved at a time, if they have fewer bytes together than a stripe.
const MOVES_MAX: usize = 512;

/// The part of the store that carried tombstones may take before the oldest segments, which they wait for, are written
/// again: an entry is a thousandth of what it ends, so the store was filled many times over by then.
const CARRIED_PARTS: u64 = 16;

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

/// A segment that may be emptied.
struct Victim {
    id: u32,
    group: Group,
    /// Bytes that were written to it, parity not counted.
    written: u64,
    /// Bytes of them that would be written again.
    needed: u64,
    /// Bytes of these that are carried tombstones.
    carried: u64,
}

/// Segments of a group that are emptied together.
struct Emptying {
    /// How many segments more are free by it.
    gain: usize,
    victims: Vec<Victim>,
}

impl Emptying {
    /// The segments that what is needed of the victims fills, beside `open` bytes of the one that is open. What is moved
    /// leaves gaps: half as much again is reckoned.
    fn segments_needed(victims: &[Victim], open: u64, capacity: u64) -> usize {
        let needed: u64 = victims.iter().map(|victim| victim.needed).sum();
        let segments = (needed + needed / 2).saturating_sub(open).div_ceil(capacity);
        usize::try_from(segments).unwrap_or(usize::MAX)
    }

    /// Of the victims, those that need least first, as many as bring most with the `free` segments that there are; none if
    /// they would bring nothing.
    fn that_gains_most(mut victims: Vec<Victim>, open: u64, capacity: u64, free: usize) -> Option<Self> {
        let gain = |count: usize| {
            let needed = Self::segments_needed(&victims[..count], open, capacity);
            if needed > free { 0 } else { count.saturating_sub(needed) }
        };
        let count = (1..=victims.len()).max_by_key(|count| (gain(*count), Reverse(*count)))?;
        let gain = gain(count);
        victims.truncate(count);
        (gain > 0).then_some(Self { gain, victims })
    }
}

/// A record on its way from one segment to another.
pub(super) struct Move {
    pub(super) key: [u8; 32],
    pub(super) answer: oneshot::Receiver<Result<(), StorageError>>,
}

/// Records on their way out of the segments that are emptied.
#[derive(Default)]
struct Moves {
    /// The oldest first.
    queue: VecDeque<Moving>,
    /// Bytes of those in the queue.
    bytes: usize,
    /// The group of the newest.
    group: Option<Group>,
    /// Segments of which something could not be moved, and whether that was for want of room.
    failed: BTreeMap<u32, bool>,
}

/// What is moved first, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Records,
    Tombstones,
}

impl Moved {
    fn of(kind: Kind) -> Self {
        if kind == Kind::Tombstone { Self::Tombstones } else { Self::Records }
    }
}

struct Moving {
    victim: u32,
    bytes: usize,
    moving: Move,
}

impl Moves {
    fn add(&mut self, victim: u32, bytes: usize, moving: Move) {
        self.bytes += bytes;
        self.queue.push_back(Moving { victim, bytes, moving });
    }

    fn fail(&mut self, victim: u32, error: &StorageError) {
        let is_full = matches!(error, StorageError::Full { .. });
        self.failed.entry(victim).and_modify(|known| *known &= is_full).or_insert(is_full);
    }
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
        let mut waiting = self.victims(&live, live_percent, segments_max);
        loop {
            let mut moves = Moves::default();
            // Tombstones by themselves, so that it is known what they take.
            for of in [Moved::Records, Moved::Tombstones] {
                for id in &waiting {
                    if moves.failed.contains_key(id) {
                        continue;
                    }
                    if let Err(error) = self.begin_moves(*id, of, &mut moves, &mut report).await {
                        moves.fail(*id, &error);
                    }
                }
                self.hurry();
                while !moves.queue.is_empty() {
                    self.finish_oldest(&mut moves).await;
                }
            }
            // What cannot be moved stays where it is; a scrub, or the next put, tells why.
            waiting.retain(|id| !moves.failed.contains_key(id));
            if waiting.is_empty() {
                return Ok(report);
            }
            self.free(&waiting, &mut report).await?;
            // What was emptied may have made room for the others.
            waiting = moves.failed.into_iter().filter(|(_, is_full)| *is_full).map(|(id, _)| id).collect();
        }
    }

    /// Gives up the slots of emptied segments.
    async fn free(&self, emptied: &[u32], report: &mut CollectReport) -> Result<(), StorageError> {
        // What was moved, and what was ended, must not be looked for in them after a crash.
        self.index.flush(self.position()).map_err(index_failed)?;
        for id in emptied {
            report.segments += u64::from(self.free_slots(*id).await);
        }
        Ok(())
    }

    /// The segments to be emptied, in order. Those of which little lives; those that hold little, because the store was
    /// closed soon, where a group has several that fit into fewer; and the oldest ones when tombstones that wait for these
    /// have become many.
    fn victims(&self, live: &BTreeMap<u32, u64>, live_percent: u8, segments_max: usize) -> Vec<u32> {
        let segments = self.segments.borrow();
        let row = BLOCK_BYTES as u64 * self.shape.data as u64;
        let capacity = u64::from(self.shape.slot_blocks - 1) * row;
        let mut settled = self.settled_segments(&segments, live, row);
        let carried: u64 = settled.iter().map(|victim| victim.carried).sum();
        let columns = self.shape.columns();
        let free = segments.segments_free(columns);
        let is_scarce = free <= segments.reserve(columns);
        let all = capacity * segments.slots_all() / columns as u64;
        let waits_for_old = carried > all / CARRIED_PARTS || (is_scarce && carried >= capacity);
        // Where room is scarce they take it before they give some back.
        let oldest_max = if is_scarce { usize::from(free > 1) } else { segments_max.div_ceil(2) };
        let oldest: Vec<u32> = settled.iter().map(|victim| victim.id).take(oldest_max).collect();

        settled.retain(|victim| victim.needed * 100 <= u64::from(live_percent) * capacity);
        let mut groups: BTreeMap<Group, Vec<Victim>> = BTreeMap::new();
        settled.into_iter().for_each(|victim| groups.entry(victim.group).or_default().push(victim));
        let mut chosen: Vec<Emptying> = Vec::new();
        for (group, mut victims) in groups {
            victims.sort_unstable_by_key(|victim| (victim.needed, victim.id));
            let open = self.open_room(&segments, group) * row;
            if is_scarce {
                victims.truncate(segments_max);
                chosen.extend(Emptying::that_gains_most(victims, open, capacity, free));
                continue;
            }
            if Emptying::segments_needed(&victims, open, capacity) >= victims.len() {
                victims.retain(|victim| victim.needed * 100 <= u64::from(live_percent) * victim.written);
            }
            chosen.extend(victims.into_iter().map(|victim| Emptying { gain: 0, victims: vec![victim] }));
        }
        chosen.sort_by_key(|emptying| {
            let [first, ..] = emptying.victims.as_slice() else { unreachable!("there is one at least") };
            (Reverse(emptying.gain), first.needed * 100 / first.written.max(1), first.id)
        });
        let mut ids: Vec<u32> = if waits_for_old { oldest } else { Vec::new() };
        for Emptying { victims, .. } in chosen {
            // Some of those that make room together make none.
            if ids.len() + victims.len() <= segments_max {
                let others: Vec<u32> = victims.iter().map(|victim| victim.id).filter(|id| !ids.contains(id)).collect();
                ids.extend(others);
            }
        }
        ids
    }

    /// What may be emptied, the oldest first.
    fn settled_segments(&self, segments: &Segments, live: &BTreeMap<u32, u64>, row: u64) -> Vec<Victim> {
        let cold = self.cold.borrow();
        // What is in the cold tier, or on its way there, makes room as a whole.
        let settled = segments.all.iter().filter(|(id, segment)| segment.is_settled() && !cold.contains_key(id));
        settled
            .map(|(id, segment)| {
                let Carried { blocks, ends } = segment.carried;
                let is_needed = blocks > 0 && self.is_there_up_to(segments, ends, *id);
                let carried = if is_needed { u64::from(blocks) * row } else { 0 };
                let needed = live.get(id).copied().unwrap_or(0) + carried;
                Victim { id: *id, group: segment.group, written: u64::from(segment.used) * row, needed, carried }
            })
            .collect()
    }

    /// Blocks that the segment has room for that a group is written to.
    fn open_room(&self, segments: &Segments, group: Group) -> u64 {
        let writing = self.writing.borrow();
        let open = writing.groups.get(&group).and_then(|open| open.segment);
        open.and_then(|id| segments.all.get(&id)).map_or(0, |segment| segment.room(&self.shape) as u64)
    }

    /// Whether there is a segment, on the drives or in the cold tier, in which a record may lie that a tombstone in another
    /// one ends.
    fn is_there_up_to(&self, segments: &Segments, ends: u32, besides: u32) -> bool {
        let mut range = segments.all.range(..=ends);
        range.any(|(id, segment)| *id != besides && !segment.leaving) || self.is_cold_up_to(ends, besides)
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

    /// Bytes that the records take which the index knows of each segment, with their entries and the rest of their last block.
    pub(super) async fn live_bytes(&self) -> Result<BTreeMap<u32, u64>, StorageError> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        let mut entries = self.index.entries();
        loop {
            for _ in 0..ENTRIES_AT_ONCE {
                let Some(entry) = entries.next() else { return Ok(live) };
                let (_, location) = entry.map_err(index_failed)?;
                let Some(location) = Location::decode(&location) else { continue };
                *live.entry(location.segment).or_default() += taken(location.bytes);
            }
            self.tasks.pause().await;
        }
    }

    /// Has written again what lives in a segment. It waits for others to share its stripes, also for those of the next
    /// segment.
    async fn begin_moves(
        &self,
        id: u32,
        of: Moved,
        moves: &mut Moves,
        report: &mut CollectReport,
    ) -> Result<(), StorageError> {
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return Ok(()) };
        if moves.group.replace(segment.group).is_some_and(|group| group != segment.group) {
            // Nothing more comes to share the other group's stripe.
            self.hurry();
        }
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
                let entries = listing.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode);
                for entry in entries.filter(|entry| Moved::of(entry.kind) == of) {
                    // One that is on its way already would be waited for in vain.
                    while moves.queue.iter().any(|other| other.moving.key == entry.key) {
                        self.hurry();
                        self.finish_oldest(moves).await;
                    }
                    let Some(put) = self.moved(&entry, entry.location(id, batch.start, column), segment.group).await?
                    else {
                        continue;
                    };
                    report.moved += 1;
                    report.moved_bytes += put.bytes.len() as u64;
                    let (reply, answer) = oneshot::channel();
                    moves.add(id, put.bytes.len(), Move { key: put.key, answer });
                    self.put(Put { reply, ..put });
                    self.bound_moves(moves).await;
                }
            }
        }
        Ok(())
    }

    /// Waits until there are few enough. More bytes than a stripe can have are not all in the batch that is being filled, so
    /// the oldest will land; many that have few may all be in it.
    async fn bound_moves(&self, moves: &mut Moves) {
        while moves.bytes > self.shape.data * CELL_BLOCKS_MAX * BLOCK_BYTES {
            self.finish_oldest(moves).await;
        }
        if moves.queue.len() >= MOVES_MAX {
            self.hurry();
            while moves.queue.len() > MOVES_MAX / 2 {
                self.finish_oldest(moves).await;
            }
        }
    }

    async fn finish_oldest(&self, moves: &mut Moves) {
        let Some(Moving { victim, bytes, moving }) = moves.queue.pop_front() else { return };
        moves.bytes -= bytes;
        if let Err(error) = self.finish_move(moving).await {
            moves.fail(victim, &error);
        }
    }

    /// The put of a record that is to be moved; none if it is dead. Until the move is finished the record cannot be ended,
    /// or its copy would come after its tombstone.
    pub(super) async fn moved(
        &self,
        entry: &Entry,
        location: Location,
        group: Group,
    ) -> Result<Option<Put>, StorageError> {
        let key = entry.key;
        self.tasks.until(|| (!self.busy.borrow().contains(&key)).then_some(())).await;
        let known = self.find(&key)?;
        let bytes = if entry.kind == Kind::Tombstone {
            // It is carried on as long as there is a segment in which a copy of the record may lie, whatever became of it.
            let older = self.is_there_up_to(&self.segments.borrow(), entry.ends, location.segment);
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
        Ok(Some(Put { group, key, kind, bytes, sum, time_ms, ends, moved: true, urgent: false, permit: None, reply }))
    }

    pub(super) async fn finish_move(&self, Move { mut answer, .. }: Move) -> Result<(), StorageError> {
        self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await
    }
}

/// Bytes that a record takes of its cell, its entry in the directory included.
fn taken(bytes: u32) -> u64 {
    let bytes = u64::from(bytes);
    let alignment = if bytes < BLOCK_BYTES as u64 { UNIT_BYTES } else { BLOCK_BYTES } as u64;
    bytes.next_multiple_of(alignment) + DIRECTORY_ENTRY_BYTES as u64
}
