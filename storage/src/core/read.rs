//! Reading records: from one drive, and from the others when that one has lost it.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use stele_device::{Buffer, Completed, Request};

use super::repair::Batchwise;
use super::{Call, Inner, Reply, SHORT_BYTES};
use crate::format::{BLOCK_BYTES, checksum};
use crate::location::Location;
use crate::{DriveState, StorageError};

/// A record that a drive was asked for.
pub(super) struct Reading {
    location: Location,
    reply: Reply<Bytes>,
}

impl Inner {
    /// Reads a record, when there is a buffer for it.
    pub(super) fn read(&self, location: Location, reply: Reply<Bytes>) {
        self.reads.borrow_mut().push_back((location, reply));
        self.read_waiting();
    }

    /// Asks the drives for the records that wait for a buffer.
    pub(super) fn read_waiting(&self) {
        loop {
            let Some((location, reply)) = self.reads.borrow_mut().pop_front() else { return };
            let (first, blocks) = location.blocks();
            let bytes = blocks as usize * BLOCK_BYTES;
            let place = {
                let segments = self.segments.borrow();
                let segment = segments.all.get(&location.segment);
                segment.and_then(|segment| segment.columns.get(usize::from(location.column)).copied())
            };
            let Some((drive, slot)) = place else {
                // Moved since the index was asked; whoever asks again finds it.
                let _ = reply.send(Err(StorageError::NotFound));
                continue;
            };
            let pool = if bytes <= SHORT_BYTES { &self.pools.short } else { &self.pools.long };
            let Some(buffer) = pool.try_take() else {
                self.reads.borrow_mut().push_front((location, reply));
                return;
            };
            let drive = usize::from(drive);
            if self.roster.borrow().state(drive) == DriveState::Failed {
                self.read_around(location, reply, buffer);
                continue;
            }
            let offset = self.shape.offset(slot, location.start + 1 + first);
            let request = Request::read(offset, buffer.with_length(bytes));
            self.ports.ask(drive, request, Call::Record(Reading { location, reply }));
        }
    }

    /// A drive answered with a record, or with something else.
    pub(super) fn record(&self, reading: Reading, completed: Completed) {
        let Reading { location, reply } = reading;
        let range = within_blocks(&location);
        let buffer = match completed.into_buffer() {
            Ok(buffer) if checksum(&buffer[range.clone()]) == location.sum => {
                self.count_read(range.len());
                // Copied: buffers are few, the drives know their memory, and whoever reads may take his time.
                let _ = reply.send(Ok(Bytes::copy_from_slice(&buffer[range])));
                return;
            }
            Ok(buffer) => Some(buffer),
            Err(_) => None,
        };
        let bytes = location.blocks().1 as usize * BLOCK_BYTES;
        let pool = if bytes <= SHORT_BYTES { &self.pools.short } else { &self.pools.long };
        match buffer.or_else(|| pool.try_take()) {
            Some(buffer) => self.read_around(location, reply, buffer),
            None => {
                // The drive kept the buffer of the failed read: the record waits for another one.
                self.reads.borrow_mut().push_back((location, reply));
            }
        }
    }

    fn count_read(&self, bytes: usize) {
        let mut counters = self.counters.borrow_mut();
        counters.reads += 1;
        counters.read_bytes += bytes as u64;
    }

    /// Makes a record from the other columns, and has its batch mended.
    fn read_around(&self, location: Location, reply: Reply<Bytes>, buffer: Buffer) {
        let shared = self.handle();
        self.tasks.spawn(async move {
            let made = shared.reconstruct(&location, buffer).await;
            if made.is_ok() {
                shared.count_read(location.bytes as usize);
                shared.counters.borrow_mut().reconstructed += 1;
                shared.suspect(&location);
            }
            let _ = reply.send(made);
            // A buffer is free that others wait for.
            shared.read_waiting();
        });
    }

    /// Makes a record from the sound columns of its batch.
    async fn reconstruct(self: &Rc<Self>, location: &Location, mut into: Buffer) -> Result<Bytes, StorageError> {
        let place = self.place_at_workbench().await;
        let column = usize::from(location.column);
        let (first, blocks) = location.blocks();
        let wanted = first as usize * BLOCK_BYTES..(first + blocks) as usize * BLOCK_BYTES;
        let (segment, start) = (location.segment, location.start);
        let cells = Batchwise::read_range(self, &place, segment, start, wanted.clone()).await?;
        let damaged = |sound| StorageError::Damaged { segment: location.segment, sound, needed: self.shape.data };
        into = into.with_length(wanted.len());
        cells.copy(&self.code, column, wanted, &mut into).map_err(damaged)?;
        let range = within_blocks(location);
        // What the parity makes is what was written; the index knows what should have been.
        if checksum(&into[range.clone()]) != location.sum {
            return Err(damaged(0));
        }
        Ok(Bytes::copy_from_slice(&into[range]))
    }

    /// Has a batch mended, unless its drive is to be replaced, or so many wait that scrubbing comes sooner.
    fn suspect(&self, location: &Location) {
        const SUSPECTS_MAX: usize = 1024;
        let (segment, start) = (location.segment, location.start);
        let drive = self
            .segments
            .borrow()
            .all
            .get(&segment)
            .and_then(|segment| segment.columns.get(usize::from(location.column)).map(|place| place.0));
        if drive.is_none_or(|drive| self.roster.borrow().state(usize::from(drive)) == DriveState::Failed) {
            return;
        }
        {
            let mut suspects = self.suspects.borrow_mut();
            if suspects.len() >= SUSPECTS_MAX || suspects.contains(&(segment, start)) {
                return;
            }
            suspects.push_back((segment, start));
        }
        if self.mending.replace(true) {
            return;
        }
        let shared = self.handle();
        self.tasks.spawn(async move {
            loop {
                let Some((segment, start)) = shared.suspects.borrow_mut().pop_front() else { break };
                // What cannot be mended is counted there, and reported by a scrub.
                let _ = shared.mend(segment, start).await;
            }
            shared.mending.set(false);
        });
    }
}

/// Where a record lies in the blocks that are read for it.
fn within_blocks(location: &Location) -> Range<usize> {
    let start = location.offset as usize % BLOCK_BYTES;
    start..start + location.bytes as usize
}
