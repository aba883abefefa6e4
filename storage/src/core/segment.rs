//! Segments: where their columns are, and how far they are filled.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::Roster;
use super::{Inner, OPEN_GROUPS_MAX, Shape};
use crate::{DriveState, Group};

/// Segments' worth of slots that are kept for what makes room: tombstones, and what lives in segments that mostly died. Each
/// group may need one of its own for either.
const RESERVE_SEGMENTS: usize = OPEN_GROUPS_MAX + 2;

/// A segment that is on the drives.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The epoch in which it was begun.
    pub(super) epoch: u64,
    pub(super) group: Group,
    /// Drive and slot of each column.
    pub(super) columns: Box<[(u16, u32)]>,
    /// Blocks of each slot that are taken, with the slot's header.
    pub(super) used: u32,
    /// Batches that were begun, and how many of them, from the first on, are durable.
    pub(super) batches: u32,
    pub(super) durable: u32,
    /// The number of its last batch.
    pub(super) sequence: u64,
    /// Nothing is added any more.
    pub(super) sealed: bool,
    /// Its slots are about to be free: nobody begins to write to them.
    pub(super) leaving: bool,
    /// Tasks that write to its slots.
    pub(super) pins: usize,
    /// Tombstones that were carried on into it by this process.
    pub(super) carried: Carried,
}

/// Tombstones that are needed for as long as there is a segment in which a record may lie that they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Blocks of each slot that hold nothing else.
    pub(super) blocks: u32,
    /// The newest segment that one of them is needed for.
    pub(super) ends: u32,
}

impl Carried {
    /// Adds what another batch holds.
    pub(super) fn add(&mut self, blocks: u32, ends: u32) {
        *self = Self { blocks: self.blocks + blocks, ends: self.ends.max(ends) };
    }
}

impl Segment {
    /// Whether no batch was begun.
    pub(super) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// Whether nothing is added, and all that was is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.sealed && self.durable == self.batches
    }

    /// Blocks that the next cell may have behind its header.
    pub(super) fn room(&self, shape: &Shape) -> usize {
        (shape.slot_blocks - self.used).saturating_sub(1) as usize
    }
}

/// Holds a segment in its slots while somebody writes to them.
pub(super) struct Pin<'i> {
    inner: &'i Inner,
    id: u32,
}

impl Inner {
    /// Keeps a segment's slots from being given to another; none if that is about to happen.
    pub(super) fn pin(&self, id: u32) -> Option<Pin<'_>> {
        let mut segments = self.segments.borrow_mut();
        let segment = segments.all.get_mut(&id).filter(|segment| !segment.leaving)?;
        segment.pins += 1;
        Some(Pin { inner: self, id })
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if let Some(segment) = self.inner.segments.borrow_mut().all.get_mut(&self.id) {
            segment.pins -= 1;
        }
        self.inner.tasks.touch();
    }
}

/// All segments, and the slots that are free.
#[derive(Default)]
pub(super) struct Segments {
    pub(super) all: BTreeMap<u32, Segment>,
    /// By drive.
    pub(super) free: Vec<BTreeSet<u32>>,
    /// Slots of each drive, free or not.
    pub(super) slots: Vec<u32>,
    pub(super) next: u32,
}

impl Segments {
    /// Begins a segment on the drives that have most room, sound ones first. None if there are too few slots.
    pub(super) fn begin(&mut self, shape: &Shape, roster: &Roster, group: Group, reserved: usize) -> Option<u32> {
        if self.segments_free(shape.columns()) <= reserved {
            return None;
        }
        let mut drives: Vec<usize> = (0..self.free.len()).filter(|drive| !self.free[*drive].is_empty()).collect();
        // Where many have the same room, each segment begins with another one.
        let turn = self.next as usize;
        let count = self.free.len();
        drives.sort_by_key(|drive| {
            let failed = roster.state(*drive) == DriveState::Failed;
            (failed, std::cmp::Reverse(self.free[*drive].len()), (drive + count - turn % count) % count)
        });
        drives.truncate(shape.columns());
        if drives.len() < shape.columns() {
            return None;
        }
        // The order decides who holds parity.
        let columns = drives
            .into_iter()
            .map(|drive| {
                let slot = self.free[drive].pop_first().expect("only drives with a free slot were taken");
                (u16::try_from(drive).expect("few drives"), slot)
            })
            .collect();
        let id = self.next;
        self.next = id.checked_add(1)?;
        let segment = Segment {
            epoch: roster.epoch,
            group,
            columns,
            used: 1,
            batches: 0,
            durable: 0,
            sequence: 0,
            sealed: false,
            leaving: false,
            pins: 0,
            carried: Carried::default(),
        };
        self.all.insert(id, segment);
        Some(id)
    }

    /// Forgets a segment; its slots are free.
    pub(super) fn give_up(&mut self, id: u32) {
        let Some(segment) = self.all.remove(&id) else { return };
        for (drive, slot) in segment.columns {
            let drive = usize::from(drive);
            if slot < self.slots[drive] {
                self.free[drive].insert(slot);
            }
        }
    }

    /// Segments that the free slots are good for.
    pub(super) fn segments_free(&self, columns: usize) -> usize {
        // The largest number of segments with each column on a drive of its own: as long as so many drives can give a slot
        // to each.
        let free: Vec<usize> = self.free.iter().map(BTreeSet::len).collect();
        let total: usize = free.iter().sum();
        let (mut low, mut high) = (0, total / columns);
        while low < high {
            let middle = (low + high).div_ceil(2);
            let given: usize = free.iter().map(|free| (*free).min(middle)).sum();
            if given >= middle * columns { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// Segments that are kept for what makes room; of a small store, a quarter.
    pub(super) fn reserve(&self, columns: usize) -> usize {
        let all = usize::try_from(self.slots_all()).unwrap_or(usize::MAX) / columns;
        RESERVE_SEGMENTS.min(all / 4).max(1)
    }

    pub(super) fn slots_free(&self) -> u64 {
        self.free.iter().map(|free| free.len() as u64).sum()
    }

    pub(super) fn slots_all(&self) -> u64 {
        self.slots.iter().copied().map(u64::from).sum()
    }
}
