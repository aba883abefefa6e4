//! Putting records: from the intake into batches, from there to the drives, and back when they are durable.

use std::rc::Rc;

use bytes::Bytes;
use stele_device::{Completed, Request};
use tokio::sync::oneshot;

use super::batch::{Batch, Closed, Record};
use super::roster::Asked;
use super::{Call, FLIGHTS_MAX, Inner, OPEN_GROUPS_MAX, Put, Queued, Turn, Writing};
use crate::format::{Kind, RECORD_BYTES_MAX, Stage, checksum};
use crate::index::IndexError;
use crate::location::Location;
use crate::{DriveState, Group, StorageError};

/// A batch on its way to the drives.
pub(super) struct Flight {
    segment: u32,
    sequence: u64,
    records: Vec<Record>,
    /// Writes that are not answered.
    pending: usize,
    /// Columns that hold what they should: written, or never to be written.
    sound: usize,
}

impl Writing {
    /// The number of the oldest batch that was not answered.
    pub(super) fn oldest_flight(&self) -> Option<u64> {
        self.flights.iter().flatten().map(|flight| flight.sequence).min()
    }
}

/// Why nothing is written any more.
pub(super) enum ReadOnly {
    /// What is written could not be kept if one more failed. A new drive helps.
    TooFewDrives(String),
    /// A batch was lost on its way, and those behind it in its segment would be, too. Opening the store again helps.
    Poisoned(String),
}

impl ReadOnly {
    pub(super) fn reason(&self) -> &str {
        let (Self::TooFewDrives(reason) | Self::Poisoned(reason)) = self;
        reason
    }

    pub(super) fn refusal(&self) -> StorageError {
        StorageError::ReadOnly { reason: self.reason().to_owned() }
    }
}

/// What room a put may take.
#[derive(Clone, Copy)]
enum Takes {
    /// What is not kept for others.
    Free,
    /// A part of what is kept, too.
    Reserve,
    /// Whatever there is.
    All,
}

impl Takes {
    fn of(put: &Put) -> Self {
        match put.kind {
            _ if put.moved => Self::All,
            // Both make room in the end.
            Kind::Tombstone | Kind::Cold => Self::Reserve,
            Kind::Whole | Kind::Manifest | Kind::Part | Kind::Upload => Self::Free,
        }
    }
}

/// What became of a put that was looked at.
enum Placed {
    Done,
    /// It waits for a buffer or for a flight to land.
    Waits(Queued),
    Refused(Queued, StorageError),
}

impl Inner {
    /// Takes a record into the intake.
    pub(super) fn put(&self, put: Put) {
        let bytes = put.bytes.len();
        if bytes > RECORD_BYTES_MAX {
            let refusal = StorageError::TooLong { bytes: bytes as u64, bytes_max: RECORD_BYTES_MAX as u64 };
            let _ = put.reply.send(Err(refusal));
            return;
        }
        let (shared, key) = (self.handle(), put.key);
        let object = !put.moved && matches!(put.kind, Kind::Whole | Kind::Manifest);
        if !object {
            // A part's key is its own, and who ends a record has its turn; a move has taken it for the record.
            let turn = put.moved.then(|| self.turn(key));
            self.enqueue(Queued { put, turn });
            return;
        }
        let turn = self.busy.borrow_mut().insert(key).then(|| self.turn(key));
        if turn.is_none() {
            // It may be a move that waits for more to share its stripe.
            self.hurry();
        }
        // What was put is put: the key is the content's. If it can be read, that is; else it is put again.
        if turn.is_some() && self.holding(&put).is_none() {
            self.enqueue(Queued { put, turn });
            return;
        }
        self.tasks.spawn(async move {
            let turn = match turn {
                Some(turn) => turn,
                None => {
                    shared.tasks.until(|| shared.busy.borrow_mut().insert(key).then_some(())).await;
                    shared.turn(key)
                }
            };
            if let Some(location) = shared.holding(&put) {
                let (reply, mut answer) = oneshot::channel();
                shared.read(location, reply);
                if shared.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await.is_ok() {
                    let _ = put.reply.send(Ok(()));
                    return;
                }
            }
            shared.enqueue(Queued { put, turn: Some(turn) });
        });
    }

    fn turn(&self, key: [u8; 32]) -> Turn {
        Turn { inner: self.me.clone(), key }
    }

    fn enqueue(&self, queued: Queued) {
        self.writing.borrow_mut().intake.push_back(queued);
        self.put_more.set(true);
    }

    /// Has nothing that was put until now wait for more.
    pub(super) fn hurry(&self) {
        let mut writing = self.writing.borrow_mut();
        let Writing { intake, groups, .. } = &mut *writing;
        intake.iter_mut().for_each(|queued| queued.put.urgent = true);
        groups.values_mut().filter_map(|open| open.batch.as_mut()).for_each(|batch| batch.urgent = true);
        self.put_more.set(true);
    }

    /// Where a record with the same key, content and length lies.
    fn holding(&self, put: &Put) -> Option<Location> {
        let found = self.index.get(&put.key).ok().flatten().and_then(|found| Location::decode(&found));
        found.filter(|location| location.sum == put.sum && location.bytes as usize == put.bytes.len())
    }

    /// Ends a record. The tombstone goes into the record's own group, so that it lies in the same segment or a later one.
    pub(super) async fn remove(&self, key: [u8; 32], time_ms: u64) -> Result<bool, StorageError> {
        if self.busy.borrow().contains(&key) {
            self.hurry();
        }
        self.tasks.until(|| self.busy.borrow_mut().insert(key).then_some(())).await;
        let ended = self.end(key, time_ms).await;
        self.busy.borrow_mut().remove(&key);
        self.tasks.touch();
        ended
    }

    async fn end(&self, key: [u8; 32], time_ms: u64) -> Result<bool, StorageError> {
        let Some(location) = self.find(&key)? else {
            // It may be in what has to be read.
            return if self.unread.borrow().is_empty() { Ok(false) } else { Err(self.unknown()) };
        };
        let Some(group) = self.group_of(location.segment) else { return Ok(false) };
        let (reply, mut answer) = oneshot::channel();
        self.put(Put {
            group,
            key,
            kind: Kind::Tombstone,
            bytes: Bytes::new(),
            sum: checksum(&[]),
            time_ms,
            // Whatever copies there are lie in segments up to this one.
            ends: self.segments.borrow().next.saturating_sub(1),
            moved: false,
            urgent: true,
            permit: None,
            reply,
        });
        self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await.map(|()| true)
    }

    /// Where the index says that a record lies.
    pub(super) fn find(&self, key: &[u8; 32]) -> Result<Option<Location>, StorageError> {
        let found = self.index.get(key).map_err(index_failed)?;
        Ok(found.and_then(|found| Location::decode(&found)))
    }

    /// Puts what waits into batches, as long as there is room, and closes those that need not wait for more.
    pub(super) fn fill(&self) {
        let mut writing = self.writing.borrow_mut();
        self.refuse_poisoned(&mut writing);
        while let Some(queued) = writing.intake.pop_front() {
            match self.place(&mut writing, queued) {
                Placed::Done => {}
                Placed::Waits(queued) => {
                    writing.intake.push_front(queued);
                    break;
                }
                Placed::Refused(queued, error) => {
                    let _ = queued.put.reply.send(Err(error));
                }
            }
        }
        // What waits may want the buffers, or the place among the groups, of a batch that nobody else waits for.
        let wanted = writing.closing || !writing.intake.is_empty();
        let groups: Vec<Group> = writing.groups.keys().copied().collect();
        for group in groups {
            let open = &writing.groups[&group];
            let due = open.batch.as_ref().is_some_and(|batch| !batch.is_empty() && (batch.urgent || wanted));
            // With others on their way, more may come to share the stripe until they land.
            if due && open.order.is_empty() {
                self.close_batch(&mut writing, group);
            }
        }
        drop(writing);
        // A batch that no drive was left for is answered here.
        self.acknowledge();
    }

    /// Gives up what is in batches once one was lost: behind it nothing counts.
    fn refuse_poisoned(&self, writing: &mut Writing) {
        let Writing { groups, read_only, .. } = writing;
        let Some(poisoned @ ReadOnly::Poisoned(_)) = read_only else { return };
        for batch in groups.values_mut().filter_map(|open| open.batch.take()) {
            for record in batch.records {
                let _ = record.reply.send(Err(poisoned.refusal()));
            }
        }
    }

    fn place(&self, writing: &mut Writing, mut queued: Queued) -> Placed {
        if let Some(read_only) = &writing.read_only {
            return Placed::Refused(queued, read_only.refusal());
        }
        let group = queued.put.group;
        // Into the batch that is open; when that is full, into one in the rest of its segment; and else into a new segment.
        for _ in 0..3 {
            if writing.groups.get(&group).is_none_or(|open| open.batch.is_none()) {
                match self.begin_batch(writing, group, Takes::of(&queued.put)) {
                    Ok(true) => {}
                    Ok(false) => return Placed::Waits(queued),
                    Err(error) => return Placed::Refused(queued, error),
                }
            }
            let open = writing.groups.get_mut(&group).expect("a group with a batch");
            let batch = open.batch.as_mut().expect("a batch that was begun");
            let Some(back) = batch.add(queued, &self.pools.cells) else { return Placed::Done };
            queued = back;
            if batch.is_empty() {
                // What is left of the segment is too little for it.
                open.batch = None;
                self.seal_open(writing, group);
            } else if !self.close_batch(writing, group) {
                return Placed::Waits(queued);
            }
        }
        // An empty segment takes every record.
        unreachable!("a record of {} bytes fits into no cell", queued.put.bytes.len())
    }

    /// Begins a batch in the group's segment, or in a new one; false if there are no buffers.
    fn begin_batch(&self, writing: &mut Writing, group: Group, takes: Takes) -> Result<bool, StorageError> {
        if !writing.groups.contains_key(&group) && writing.groups.len() >= OPEN_GROUPS_MAX {
            // The first that nothing is going on in makes room.
            let idle = |(_, open): &(&Group, &super::Open)| open.batch.is_none() && open.order.is_empty();
            let Some(group) = writing.groups.iter().find(idle).map(|(group, _)| *group) else { return Ok(false) };
            self.seal_open(writing, group);
            writing.groups.remove(&group);
        }
        let open = writing.groups.entry(group).or_default();
        let id = match open.segment {
            Some(id) => id,
            None => {
                // What frees room in the end may take what is kept; tombstones leave something to what is moved, without
                // which they free nothing.
                let reserve = self.segments.borrow().reserve(self.shape.columns());
                let reserved = match takes {
                    Takes::All => 0,
                    Takes::Reserve => reserve.div_ceil(2),
                    Takes::Free => reserve,
                };
                let id = {
                    let roster = self.roster.borrow();
                    self.segments.borrow_mut().begin(&self.shape, &roster, group, reserved)
                };
                let Some(id) = id else {
                    let segments = self.segments.borrow();
                    return Err(StorageError::Full {
                        free: segments.slots_free(),
                        slots: segments.slots_all(),
                        reserved: (segments.reserve(self.shape.columns()) * self.shape.columns()) as u64,
                    });
                };
                open.segment = Some(id);
                self.take_numbers(id);
                id
            }
        };
        let segments = self.segments.borrow();
        let segment = &segments.all[&id];
        let first = segment.batches as usize % self.shape.data;
        open.batch = Batch::begin(&self.shape, (id, segment), first, &self.pools.cells);
        Ok(open.batch.is_some())
    }

    /// Takes more numbers for segments in time.
    fn take_numbers(&self, next: u32) {
        let wanted = self.roster.borrow().wants_segments(next);
        if wanted {
            self.roster.borrow_mut().reserve_segments();
            self.write_roster();
        }
    }

    /// Sends a batch to the drives; false if too many are on their way.
    fn close_batch(&self, writing: &mut Writing, group: Group) -> bool {
        if writing.flights.len() - writing.flights_free.len() >= FLIGHTS_MAX {
            return false;
        }
        let sequence = writing.next_sequence;
        let open = writing.groups.get_mut(&group).expect("a group with a batch");
        let Some(batch) = open.batch.take() else { return true };
        writing.next_sequence += 1;
        let roster = self.roster.borrow();
        let mut segments = self.segments.borrow_mut();
        let id = batch.segment;
        let segment = segments.all.get_mut(&id).expect("a segment with a batch");
        let Closed { cells, start, blocks, carried, records } =
            batch.close(&self.shape, &self.code, &roster, segment, sequence);
        let first = segment.is_empty();
        segment.used = start + blocks;
        segment.batches += 1;
        segment.sequence = sequence;
        if let Some(ends) = carried {
            segment.carried.add(blocks, ends);
        }

        let flight = writing.flights_free.pop().unwrap_or_else(|| {
            writing.flights.push(None);
            writing.flights.len() - 1
        });
        let mut pending = 0;
        let mut sound = self.shape.columns() - cells.len();
        let mut written = 0;
        for (column, buffer) in cells {
            let (drive, slot) = segment.columns[column];
            let drive = usize::from(drive);
            if roster.state(drive) == DriveState::Failed {
                continue;
            }
            let block = if first { 0 } else { start };
            written += buffer.len() as u64;
            pending += 1;
            let request = Request::write_durable(self.shape.offset(slot, block), buffer);
            self.ports.ask(drive, request, Call::Cell { flight, asked: roster.asked(drive) });
        }
        if pending == 0 {
            // Every drive has failed: nothing will land.
            sound = 0;
        }
        writing.flights[flight] = Some(Flight { segment: id, sequence, records, pending, sound });
        open.order.push_back(flight);
        let mut counters = self.counters.borrow_mut();
        counters.batches += 1;
        counters.written_bytes += written;
        true
    }

    /// A column of a flight was written, or was not.
    pub(super) fn landed(&self, flight: usize, asked: Asked, completed: Completed) {
        // The buffer returns to its pool before anything is begun that wants one.
        let result = completed.result;
        drop(completed.buffer);
        {
            let mut writing = self.writing.borrow_mut();
            let flight = writing.flights[flight].as_mut().expect("a flight ends with its last answer");
            flight.pending -= 1;
            flight.sound += usize::from(result.is_ok());
        }
        if let Err(error) = result {
            self.fail_drive(asked, &error);
        }
        self.acknowledge();
    }

    /// Answers for the flights that have landed, each group's in order: after a crash the batches of a segment count up to
    /// the first that is not whole.
    pub(super) fn acknowledge(&self) {
        // A flight without a failed drive's column counts on that drive being out of the store, also after a crash.
        if !self.roster.borrow().is_written() {
            return;
        }
        while let Some((number, flight)) = self.next_landed() {
            self.finish(flight);
            // Only now is everything up to its number in the index.
            let mut writing = self.writing.borrow_mut();
            writing.flights[number] = None;
            writing.flights_free.push(number);
        }
    }

    /// The next flight to be answered; an empty one stays in its place until it was.
    fn next_landed(&self) -> Option<(usize, Flight)> {
        let mut writing = self.writing.borrow_mut();
        let Writing { groups, flights, .. } = &mut *writing;
        for open in groups.values_mut() {
            let Some(first) = open.order.front().copied() else { continue };
            let flight = flights[first].as_mut().expect("a flight is in its place until it was answered");
            if flight.pending == 0 {
                open.order.pop_front();
                let records = std::mem::take(&mut flight.records);
                let Flight { segment, sequence, pending, sound, .. } = *flight;
                return Some((first, Flight { segment, sequence, records, pending, sound }));
            }
        }
        None
    }

    fn finish(&self, flight: Flight) {
        let Flight { segment: id, records, sound, sequence, .. } = flight;
        let poisoned = match &self.writing.borrow().read_only {
            Some(poisoned @ ReadOnly::Poisoned(_)) => Some(poisoned.refusal()),
            _ => None,
        };
        if let Some(refusal) = poisoned {
            // Behind a batch that was lost nothing is found by the next opening.
            for record in records {
                let _ = record.reply.send(Err(refusal.clone()));
            }
            return;
        }
        if sound < self.shape.data {
            let reason = format!("{sound} columns of a batch were written, and {} are needed", self.shape.data);
            let read_only = ReadOnly::Poisoned(reason);
            for record in records {
                let _ = record.reply.send(Err(read_only.refusal()));
            }
            self.writing.borrow_mut().read_only = Some(read_only);
            return;
        }
        {
            let mut segments = self.segments.borrow_mut();
            let segment = segments.all.get_mut(&id).expect("a segment is given up when it is sealed");
            segment.durable += 1;
        }
        for record in records {
            let answer = self.enter(&record.key, &record.location);
            if record.location.kind == Kind::Tombstone && !self.unread.borrow().is_empty() {
                // What is read of it later is older.
                self.ended.borrow_mut().insert(record.key, sequence);
            }
            let mut counters = self.counters.borrow_mut();
            counters.puts += 1;
            counters.put_bytes += record.bytes as u64;
            let _ = record.reply.send(answer);
        }
        self.seal_if_done(id);
    }

    /// Enters a durable record into the index.
    pub(super) fn enter(&self, key: &[u8; 32], location: &Location) -> Result<(), StorageError> {
        let enter = || match location.kind {
            Kind::Tombstone => self.index.remove(key),
            Kind::Whole | Kind::Manifest | Kind::Part | Kind::Upload | Kind::Cold => {
                self.index.put(key, location.encode())
            }
        };
        match enter() {
            Err(IndexError::MemtableFull { .. }) => {
                // Whoever flushes beside this is far behind, so it is done here and now.
                self.index.flush(self.position()).map_err(index_failed)?;
                enter().map_err(index_failed)
            }
            other => other.map_err(index_failed),
        }
    }

    /// Whether it is not known what is absent: something could not be read, or has not been.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.get() || !self.unread.borrow().is_empty()
    }

    /// The sequence up to which every batch is in the index, or never will be.
    pub(super) fn position(&self) -> u64 {
        if self.is_incomplete() {
            // The next opening looks again for what could not be read.
            return self.index.position();
        }
        let writing = self.writing.borrow();
        writing.oldest_flight().unwrap_or(writing.next_sequence).saturating_sub(1)
    }

    /// Adds nothing more to the segment that a group is being written to by now.
    pub(super) async fn seal(&self, group: Group) {
        let of = |writing: &Writing| writing.groups.get(&group).and_then(|open| open.segment);
        let Some(segment) = of(&self.writing.borrow()) else { return };
        self.tasks
            .until(|| {
                let mut writing = self.writing.borrow_mut();
                let refused = writing.read_only.is_some();
                // Full meanwhile, or given up.
                let open = writing.groups.get_mut(&group).filter(|open| open.segment == Some(segment));
                let Some(open) = open else { return Some(()) };
                match &mut open.batch {
                    Some(batch) if !batch.is_empty() && !refused => {
                        batch.urgent = true;
                        self.put_more.set(true);
                        return None;
                    }
                    _ => open.batch = None,
                }
                self.seal_open(&mut writing, group);
                Some(())
            })
            .await;
    }

    /// Adds nothing more to a group's segment.
    fn seal_open(&self, writing: &mut Writing, group: Group) {
        let Some(open) = writing.groups.get_mut(&group) else { return };
        let Some(id) = open.segment.take() else { return };
        let mut segments = self.segments.borrow_mut();
        let segment = segments.all.get_mut(&id).expect("a group's segment");
        segment.sealed = true;
        if segment.is_empty() {
            segments.give_up(id);
        } else if segment.durable == segment.batches {
            drop(segments);
            self.write_seal(id);
        }
    }

    /// Writes that a segment is sealed, when its last flight has landed.
    fn seal_if_done(&self, id: u32) {
        let done = {
            let segments = self.segments.borrow();
            segments.all.get(&id).is_some_and(|segment| segment.sealed && segment.durable == segment.batches)
        };
        if done {
            self.write_seal(id);
        }
    }

    /// Writes into the slots' headers that a segment is sealed, so that opening the store need not look into it. Without it,
    /// that only takes longer.
    fn write_seal(&self, id: u32) {
        let shared = self.handle();
        self.tasks.spawn(async move {
            let (used, sequence) = {
                let segments = shared.segments.borrow();
                let Some(segment) = segments.all.get(&id) else { return };
                (segment.used, segment.sequence)
            };
            shared.write_slot_headers(id, Stage::Sealed { blocks: used, sequence }).await;
        });
    }

    /// Writes the header of each slot of a segment; the number of drives that took it.
    pub(super) async fn write_slot_headers(&self, id: u32, stage: Stage) -> usize {
        // Whoever frees the slots waits for the others to have written to them.
        let pin = self.pin(id);
        if (pin.is_none() && stage != Stage::Free) || self.observing.get() {
            return 0;
        }
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return 0 };
        let mut begun = Vec::with_capacity(segment.columns.len());
        for (column, (drive, slot)) in segment.columns.iter().enumerate() {
            let drive = usize::from(*drive);
            if self.roster.borrow().state(drive) == DriveState::Failed {
                continue;
            }
            let mut block = self.block().await;
            segment.header(&self.shape, &self.roster.borrow(), id, column, stage).encode(&mut block);
            let asked = self.roster.borrow().asked(drive);
            begun.push((asked, self.ports.begin(drive, Request::write_durable(self.shape.offset(*slot, 0), block))));
        }
        let mut written = 0;
        for (asked, begun) in begun {
            match self.ports.answer(&self.tasks, begun).await.result {
                Ok(()) => written += 1,
                Err(error) => self.fail_drive(asked, &error),
            }
        }
        written
    }

    /// Seals what is open and makes the index durable.
    pub(super) async fn close(self: &Rc<Self>) -> Result<(), StorageError> {
        self.writing.borrow_mut().closing = true;
        self.tasks
            .until(|| {
                let writing = self.writing.borrow();
                let landed = writing.groups.values().all(|open| open.order.is_empty());
                let idle = writing.intake.is_empty() && writing.groups.values().all(|open| open.batch.is_none());
                (landed && (idle || writing.read_only.is_some())).then_some(())
            })
            .await;
        let open: Vec<u32> = {
            let mut writing = self.writing.borrow_mut();
            writing.groups.values_mut().filter_map(|open| open.segment.take()).collect()
        };
        for id in open {
            let stage = {
                let mut segments = self.segments.borrow_mut();
                let Some(segment) = segments.all.get_mut(&id) else { continue };
                if segment.is_empty() {
                    segments.give_up(id);
                    continue;
                }
                if segment.durable != segment.batches {
                    // What was lost on its way ends it; opening finds out where.
                    continue;
                }
                segment.sealed = true;
                Stage::Sealed { blocks: segment.used, sequence: segment.sequence }
            };
            self.write_slot_headers(id, stage).await;
        }
        self.index.flush(self.position()).map_err(index_failed)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it maps errors")]
pub(super) fn index_failed(error: IndexError) -> StorageError {
    StorageError::index(&error)
}

/// What a channel's failure means: nothing yet, or that its sender is gone.
pub(super) fn unless_empty<T>(error: oneshot::error::TryRecvError) -> Option<Result<T, StorageError>> {
    match error {
        oneshot::error::TryRecvError::Empty => None,
        oneshot::error::TryRecvError::Closed => Some(Err(StorageError::Stopped)),
    }
}
