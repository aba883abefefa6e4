//! Segments in the cold tier: what the store knows of them, hands out for them, and takes back.
//!
//! ```text
//!  intend ──► record: a copy is being made ──► image, cells ──► (put and read back, by whoever does I/O)
//!                                                                         │
//!  read, from there ◄── drop: slots are free ◄── record: it is held ◄── hold
//! ```
//!
//! A segment goes as a whole. That it is in the cold tier, and what it holds there, is a record of the store's own group,
//! which is kept, moved and found again like any other: losing the index does not lose it. It is written *before* the copy
//! is made, so that there is never an object that the store knows nothing of, and again when the copy was read back; only
//! then are slots given up. Entries of the index stay as they are: a segment that no slots hold is looked for among these.
//!
//! Removing a record in the cold tier is a tombstone, which is carried on as long as the object is there; those that an object
//! has are written again before it goes. When the index is
//! lost, objects are read again for what they hold; until then what is not found is not known to be absent.

use std::collections::BTreeMap;

use bytes::Bytes;
use stele_accel_hash::{DIGEST_LENGTH, Digest, HashAlgorithm, digest};
use tokio::sync::oneshot;

use super::collect::Move;
use super::recover::FoundBatch;
use super::repair::Batchwise;
use super::segment::Segment;
use super::write::{ReadOnly, index_failed, unless_empty};
use super::{Inner, Put, Reply};
use crate::format::{
    BLOCK_BYTES, CellHeader, ColdBatch, ColdHeader, DIRECTORY_ENTRY_BYTES, Entry, Kind, Stage, checksum, sums,
};
use crate::location::Location;
use crate::{Group, StorageError};

/// The group of the store's own records. Its segments stay.
pub(super) const OWN: Group = Group { class: u8::MAX, year: u16::MAX };

/// A segment of which there is an object in the cold tier, or is to be one.
#[derive(Clone, Debug)]
pub(super) struct ColdSegment {
    pub(super) group: Group,
    /// The number of its last batch.
    pub(super) sequence: u64,
    state: ObjectState,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectState {
    /// It is being made; it may be there.
    Begun,
    /// It was read back, and has this root.
    Held(Digest),
    /// It is about to be deleted, or was.
    Released,
}

impl ColdSegment {
    /// Root of the object, if it counts.
    fn root(&self) -> Option<Digest> {
        self.state.root()
    }
}

impl ObjectState {
    /// Root of the object, if it counts.
    pub(crate) fn root(self) -> Option<Digest> {
        match self {
            Self::Held(root) => Some(root),
            Self::Begun | Self::Released => None,
        }
    }

    fn encode(self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        match self {
            Self::Begun => {}
            Self::Held(root) => {
                bytes[0] = 1;
                bytes[1..].copy_from_slice(&root);
            }
            Self::Released => bytes[0] = 2,
        }
        bytes
    }

    fn decode(bytes: &[u8; STATE_BYTES]) -> Option<Self> {
        let ([state], root) = bytes.split_first_chunk()?;
        match state {
            0 => Some(Self::Begun),
            1 => root.first_chunk().copied().map(Self::Held),
            2 => Some(Self::Released),
            _ => None,
        }
    }
}

/// Bytes of a state in a record: which, and the root or zeros.
const STATE_BYTES: usize = 1 + DIGEST_LENGTH;

/// What is asked about the cold tier.
pub(crate) enum ColdCommand {
    /// Segments that nothing is added to any more and that have no copy, whose newest record is older; the oldest first.
    Candidates { before_ms: Box<dyn Fn(Group) -> u64 + Send>, segments_max: usize, reply: Reply<Vec<u32>> },
    /// Says durably that a copy of a segment is being made, and what it is to hold.
    Intend { segment: u32, reply: Reply<ColdHeader> },
    /// The cells of a batch, as the object has them.
    Cells { segment: u32, number: usize, reply: Reply<Bytes> },
    /// Says durably that the copy was made, read back, and has this root.
    Hold { segment: u32, root: Digest, reply: Reply<()> },
    /// Gives up the slots of a segment that is held.
    Drop { segment: u32, reply: Reply<()> },
    /// Where in the cold tier a record is.
    Locate { location: Location, reply: Reply<ColdPlace> },
    /// All there are.
    List { reply: Reply<Vec<ColdStatus>> },
    /// What the object of a segment holds.
    Header { segment: u32, reply: Reply<(ColdHeader, ObjectState)> },
    /// Takes what an object holds into an index that was lost: a batch of it.
    Replay { segment: u32, number: usize, cells: Bytes, reply: Reply<()> },
    /// All batches of the object were.
    Replayed { segment: u32, reply: Reply<()> },
    /// Writes again what is damaged of a batch, from the object: how many cells.
    Restore { segment: u32, number: usize, cells: Bytes, reply: Reply<u64> },
    /// Roots of the objects that a batch of an object holds, and that the index leads to there.
    Objects { segment: u32, number: usize, cells: Bytes, reply: Reply<Vec<Digest>> },
    /// Segments whose object nobody needs any more.
    Dead { reply: Reply<Vec<u32>> },
    /// Takes an object for one of the store's, whose record of it was lost: what its header says, and its root.
    Adopt { header: Bytes, root: Digest, reply: Reply<()> },
    /// Writes tombstones of a dead segment again that others need: those of a batch.
    Carry { segment: u32, number: usize, cells: Bytes, reply: Reply<()> },
    /// Says durably that the object of a dead segment is about to be deleted.
    Release { segment: u32, reply: Reply<()> },
    /// Its object is gone.
    Forget { segment: u32, reply: Reply<()> },
}

/// A cell that was read from an object, and is what it should be.
pub(super) struct KnownCell<'c> {
    pub(super) column: usize,
    pub(super) header: CellHeader,
    /// What is behind its header.
    pub(super) content: &'c [u8],
}

/// Where in the cold tier a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdPlace {
    /// The segment whose object it is in.
    pub segment: u32,
    /// Root of the object.
    pub root: Digest,
    /// Where in it, in bytes.
    pub start: u64,
    /// Its length.
    pub bytes: u32,
    /// CRC-32C of the record.
    pub sum: u32,
}

/// A segment of which there is an object in the cold tier, or is to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdStatus {
    /// Its number.
    pub segment: u32,
    /// The group of what it holds.
    pub group: Group,
    /// The object was read back.
    pub held: bool,
    /// The object is about to be deleted, or was. It is being made if it is neither.
    pub released: bool,
    /// The drives have it, too.
    pub local: bool,
    /// Its object has to be read before the index is whole again.
    pub unread: bool,
}

impl Inner {
    pub(super) fn cold(&self, command: ColdCommand) {
        let task = self.handle();
        self.tasks.spawn(async move {
            match command {
                ColdCommand::Candidates { before_ms, segments_max, reply } => {
                    let _ = reply.send(task.candidates(&*before_ms, segments_max).await);
                }
                ColdCommand::Intend { segment, reply } => drop(reply.send(task.intend(segment).await)),
                ColdCommand::Cells { segment, number, reply } => drop(reply.send(task.cells(segment, number).await)),
                ColdCommand::Hold { segment, root, reply } => drop(reply.send(task.hold(segment, root).await)),
                ColdCommand::Drop { segment, reply } => drop(reply.send(task.drop_slots(segment).await)),
                ColdCommand::Locate { location, reply } => drop(reply.send(task.cold_place(&location).await)),
                ColdCommand::List { reply } => drop(reply.send(Ok(task.cold_list()))),
                ColdCommand::Header { segment, reply } => drop(reply.send(task.cold_header(segment).await)),
                ColdCommand::Replay { segment, number, cells, reply } => {
                    let _ = reply.send(task.replay_object(segment, number, &cells).await);
                }
                ColdCommand::Replayed { segment, reply } => {
                    task.unread.borrow_mut().remove(&segment);
                    task.check_unread();
                    let _ = reply.send(Ok(()));
                }
                ColdCommand::Restore { segment, number, cells, reply } => {
                    let _ = reply.send(task.restore(segment, number, &cells).await);
                }
                ColdCommand::Objects { segment, number, cells, reply } => {
                    let _ = reply.send(task.objects(segment, number, &cells).await);
                }
                ColdCommand::Dead { reply } => drop(reply.send(task.dead().await)),
                ColdCommand::Adopt { header, root, reply } => drop(reply.send(task.adopt(&header, root).await)),
                ColdCommand::Carry { segment, number, cells, reply } => {
                    let _ = reply.send(task.carry(segment, number, &cells).await);
                }
                ColdCommand::Release { segment, reply } => drop(reply.send(task.release(segment).await)),
                ColdCommand::Forget { segment, reply } => drop(reply.send(task.forget(segment).await)),
            }
        });
    }

    /// The segment, if nothing is added to it and nothing of it is on its way.
    fn settled(&self, id: u32) -> Result<Segment, StorageError> {
        let segment = self.segments.borrow().all.get(&id).cloned();
        segment.filter(|segment| segment.is_settled() && !segment.leaving).ok_or(StorageError::NotFound)
    }

    fn cold_segment(&self, id: u32) -> Result<ColdSegment, StorageError> {
        self.cold.borrow().get(&id).cloned().ok_or(StorageError::NotFound)
    }

    async fn candidates(
        &self,
        before_ms: &(dyn Fn(Group) -> u64 + Send),
        segments_max: usize,
    ) -> Result<Vec<u32>, StorageError> {
        if self.is_incomplete() {
            return Ok(Vec::new());
        }
        let settled: Vec<(u32, Group)> = {
            let (segments, cold) = (self.segments.borrow(), self.cold.borrow());
            let wanted = |(id, segment): &(&u32, &Segment)| {
                segment.is_settled()
                    && segment.group != OWN
                    && cold.get(id).is_none_or(|cold| cold.state == ObjectState::Begun)
            };
            segments.all.iter().filter(wanted).map(|(id, segment)| (*id, segment.group)).collect()
        };
        let mut found = Vec::new();
        for (id, group) in settled {
            if found.len() == segments_max {
                break;
            }
            // One that was collected meanwhile, or cannot be read, is none.
            if self.newest_ms(id).await.is_ok_and(|newest| newest < before_ms(group)) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// When the newest record of a segment was put, as its caller said.
    async fn newest_ms(&self, id: u32) -> Result<u64, StorageError> {
        if let Some(known) = self.newest.borrow().get(&id) {
            return Ok(*known);
        }
        let batches = self.whole_walk(id, &self.settled(id)?).await?;
        let mut newest = 0;
        // Records come in the order of batches, and what their callers say of time hardly ever does not.
        if let Some(batch) = batches.last() {
            for entry in self.entries(id, batch).await? {
                newest = newest.max(entry.time_ms);
            }
        }
        let mut known = self.newest.borrow_mut();
        let segments = self.segments.borrow();
        known.retain(|id, _| segments.all.contains_key(id));
        known.insert(id, newest);
        Ok(newest)
    }

    /// All batches of a segment, or nothing.
    async fn whole_walk(&self, id: u32, segment: &Segment) -> Result<Vec<FoundBatch>, StorageError> {
        let stage = Stage::Sealed { blocks: segment.used, sequence: segment.sequence };
        let batches = self.walk(id, stage).await;
        let whole = batches.last().is_some_and(|batch| batch.end() == segment.used);
        let damaged = StorageError::Damaged { segment: id, sound: 0, needed: self.shape.data };
        if whole { Ok(batches) } else { Err(damaged) }
    }

    /// Entries of a batch's directories.
    async fn entries(&self, id: u32, batch: &FoundBatch) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        for (column, directory) in batch.header.directories.iter().enumerate() {
            if directory.entries > 0 {
                let listing = self.directory(id, batch, column, directory).await?;
                entries.extend(listing.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode));
            }
        }
        Ok(entries)
    }

    async fn intend(&self, id: u32) -> Result<ColdHeader, StorageError> {
        if self.is_incomplete() {
            return Err(self.unknown());
        }
        let segment = self.settled(id)?;
        if segment.group == OWN {
            return Err(StorageError::NotFound);
        }
        let mut header = ColdHeader {
            store: self.shape.store,
            segment: id,
            epoch: segment.epoch,
            group: segment.group,
            data: u8::try_from(self.shape.data).expect("few columns"),
            ends: None,
            batches: Vec::new(),
        };
        for batch in self.whole_walk(id, &segment).await? {
            header.batches.push(ColdBatch::of(&batch.header));
            for entry in self.entries(id, &batch).await? {
                if entry.kind == Kind::Tombstone {
                    header.ends = header.ends.max(Some(entry.ends));
                }
            }
        }
        let known = self.cold.borrow().contains_key(&id);
        if !known {
            self.record_cold(&header, ObjectState::Begun).await?;
        }
        Ok(header)
    }

    async fn cells(&self, id: u32, number: usize) -> Result<Bytes, StorageError> {
        let (header, _) = self.cold_header(id).await?;
        let Some(batch) = header.batches.get(number) else { return Err(StorageError::NotFound) };
        let place = self.place_at_workbench().await;
        // Its slots are not given to another meanwhile.
        let Some(_pin) = self.pin(id) else { return Err(StorageError::NotFound) };
        let segment = self.settled(id)?;
        let whole = Batchwise::read_whole(self, &place, id, batch.start).await?;
        if ColdBatch::of(&whole.header) != *batch {
            return Err(StorageError::Damaged { segment: id, sound: 0, needed: self.shape.data });
        }
        let bytes = whole.header.bytes();
        let range = header.batch_range(number).expect("a batch of the header");
        let mut cells = Vec::with_capacity(usize::try_from(range.end - range.start).expect("a batch fits into memory"));
        for column in batch.columns() {
            let at = cells.len();
            cells.resize(at + BLOCK_BYTES + bytes, 0);
            let (own, content) = cells[at..].split_at_mut(BLOCK_BYTES);
            let damaged = |sound| StorageError::Damaged { segment: id, sound, needed: self.shape.data };
            whole.copy(&self.code, column, 0..bytes, content).map_err(damaged)?;
            // As it was written: all that differs between the headers of a batch follows from where they are.
            let (drive, slot) = segment.columns[column];
            let mut header = CellHeader { drive, slot, ..whole.header.clone() };
            header.column = u8::try_from(column).expect("few columns");
            sums(content, &[], &mut header.sums);
            header.encode(own);
        }
        Ok(cells.into())
    }

    async fn hold(&self, id: u32, root: Digest) -> Result<(), StorageError> {
        match self.cold_segment(id)?.state {
            ObjectState::Begun => {}
            ObjectState::Held(known) if known == root => return Ok(()),
            ObjectState::Held(_) | ObjectState::Released => return Err(StorageError::NotFound),
        }
        let (header, _) = self.cold_header(id).await?;
        if self.segments.borrow().all.contains_key(&id) {
            return self.record_cold(&header, ObjectState::Held(root)).await;
        }
        // The drives have lost it meanwhile, and the index may have, too.
        self.record_unread(&header, root).await
    }

    /// Puts that an object is held which has to be read.
    async fn record_unread(&self, header: &ColdHeader, root: Digest) -> Result<(), StorageError> {
        // From now on, so that nothing is said of what it holds before it was read.
        self.unread.borrow_mut().insert(header.segment);
        let recorded = self.record_cold(header, ObjectState::Held(root)).await;
        if recorded.is_err() {
            self.unread.borrow_mut().remove(&header.segment);
            self.check_unread();
        }
        recorded
    }

    /// Puts what is known of an object.
    async fn record_cold(&self, header: &ColdHeader, state: ObjectState) -> Result<(), StorageError> {
        let key = cold_key(header.segment);
        let bytes = [&state.encode()[..], &header.encode()].concat();
        self.tasks.until(|| self.busy.borrow_mut().insert(key).then_some(())).await;
        let (reply, mut answer) = oneshot::channel();
        let sum = checksum(&bytes);
        self.put(Put {
            group: OWN,
            key,
            kind: Kind::Cold,
            bytes: bytes.into(),
            sum,
            time_ms: 0,
            ends: 0,
            moved: false,
            urgent: true,
            permit: None,
            reply,
        });
        let put = self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await;
        self.busy.borrow_mut().remove(&key);
        self.tasks.touch();
        put?;
        self.enter_cold(header, state);
        Ok(())
    }

    fn enter_cold(&self, header: &ColdHeader, state: ObjectState) {
        let known = ColdSegment { group: header.group, sequence: header.sequence(), state };
        self.cold.borrow_mut().insert(header.segment, known);
    }

    /// What an object holds, and what is known of it: from the store's own record.
    async fn cold_header(&self, id: u32) -> Result<(ColdHeader, ObjectState), StorageError> {
        let key = cold_key(id);
        // It may be moved meanwhile.
        for _ in 0..8 {
            let Some(location) = self.find(&key)? else { return Err(StorageError::NotFound) };
            let (reply, mut answer) = oneshot::channel();
            self.read(location, reply);
            match self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await {
                Ok(record) => {
                    let damaged =
                        StorageError::Damaged { segment: location.segment, sound: 0, needed: self.shape.data };
                    let known = decode_record(&record, &self.shape.store).filter(|(header, _)| header.segment == id);
                    return known.ok_or(damaged);
                }
                Err(error) if self.find(&key)? == Some(location) => return Err(error),
                Err(_) => {}
            }
        }
        Err(StorageError::NotFound)
    }

    async fn drop_slots(&self, id: u32) -> Result<(), StorageError> {
        // One that moves what lives in it would be disturbed.
        self.tasks.until(|| (!self.collecting.replace(true)).then_some(())).await;
        let dropped = self.drop_slots_alone(id).await;
        self.collecting.set(false);
        self.tasks.touch();
        dropped
    }

    async fn drop_slots_alone(&self, id: u32) -> Result<(), StorageError> {
        if let Some(refusal) = self.writing.borrow().read_only.as_ref().map(ReadOnly::refusal) {
            return Err(refusal);
        }
        if self.is_incomplete() {
            return Err(self.unknown());
        }
        let segment = self.settled(id)?;
        if self.cold_segment(id)?.root().is_none() {
            return Err(StorageError::NotFound);
        }
        // The index has to have it all, durably, since nothing of it will be replayed.
        self.tasks.until(|| (self.position() >= segment.sequence).then_some(())).await;
        self.index.flush(self.position()).map_err(index_failed)?;
        if self.free_slots(id).await {
            return Ok(());
        }
        Err(StorageError::ReadOnly { reason: "no drive took that the slots are free".to_owned() })
    }

    async fn cold_place(&self, location: &Location) -> Result<ColdPlace, StorageError> {
        let segment = location.segment;
        let Some(root) = self.cold_segment(segment)?.root() else { return Err(StorageError::NotFound) };
        let (header, _) = self.cold_header(segment).await?;
        let damaged = StorageError::Damaged { segment, sound: 0, needed: self.shape.data };
        let range = header.record_range(location).ok_or(damaged)?;
        Ok(ColdPlace { segment, root, start: range.start, bytes: location.bytes, sum: location.sum })
    }

    /// Segments that are in the cold tier.
    pub(super) fn held(&self) -> usize {
        self.cold.borrow().values().filter(|known| known.root().is_some()).count()
    }

    fn cold_list(&self) -> Vec<ColdStatus> {
        let (segments, unread) = (self.segments.borrow(), self.unread.borrow());
        let status = |(segment, known): (&u32, &ColdSegment)| ColdStatus {
            segment: *segment,
            group: known.group,
            held: known.root().is_some(),
            released: known.state == ObjectState::Released,
            local: segments.all.contains_key(segment),
            unread: unread.contains(segment),
        };
        self.cold.borrow().iter().map(status).collect()
    }

    /// Finds the store's own records when it is opened, whose index reaches up to `position`.
    pub(super) async fn load_cold(&self, position: u64) -> Result<(), StorageError> {
        let own: Vec<(u32, Segment)> = {
            let segments = self.segments.borrow();
            let own = segments.all.iter().filter(|(_, segment)| segment.group == OWN && !segment.is_empty());
            own.map(|(id, segment)| (*id, segment.clone())).collect()
        };
        for (id, segment) in own {
            let Ok(batches) = self.whole_walk(id, &segment).await else {
                self.miss();
                continue;
            };
            for batch in batches {
                for (column, directory) in batch.header.directories.iter().enumerate() {
                    if directory.entries == 0 {
                        continue;
                    }
                    let Ok(listing) = self.directory(id, &batch, column, directory).await else {
                        self.miss();
                        continue;
                    };
                    for entry in listing.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode) {
                        let location = entry.location(id, batch.start, column);
                        if entry.kind == Kind::Cold && self.find(&entry.key)? == Some(location) {
                            self.load_record(location).await;
                        }
                    }
                }
            }
        }
        let unread: Vec<u32> = {
            let (segments, cold) = (self.segments.borrow(), self.cold.borrow());
            let behind = |(id, known): &(&u32, &ColdSegment)| {
                known.root().is_some() && known.sequence > position && !segments.all.contains_key(id)
            };
            cold.iter().filter(behind).map(|(id, _)| *id).collect()
        };
        let last = self.cold.borrow().values().map(|known| known.sequence).max().unwrap_or(0);
        {
            let mut writing = self.writing.borrow_mut();
            writing.next_sequence = writing.next_sequence.max(last.saturating_add(1));
        }
        self.unread.borrow_mut().extend(unread);
        self.check_unread();
        Ok(())
    }

    async fn load_record(&self, location: Location) {
        let (reply, mut answer) = oneshot::channel();
        self.read(location, reply);
        let record = self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await;
        match record.ok().and_then(|record| decode_record(&record, &self.shape.store)) {
            Some((header, state)) => self.enter_cold(&header, state),
            // A segment that is nowhere then; it is not taken for absent.
            None => self.miss(),
        }
    }

    /// Forgets what was ended once no object has to be read any more.
    fn check_unread(&self) {
        if self.unread.borrow().is_empty() {
            self.ended.borrow_mut().clear();
            self.tasks.touch();
        }
    }

    /// The batches' cells in a part of an object, each compared with what they should be.
    fn checked<'c>(
        &self,
        header: &ColdHeader,
        number: usize,
        cells: &'c [u8],
    ) -> Result<Vec<KnownCell<'c>>, StorageError> {
        let damaged = || StorageError::Damaged { segment: header.segment, sound: 0, needed: self.shape.data };
        let batch = header.batches.get(number).ok_or_else(damaged)?;
        let bytes = usize::try_from(batch.cell_bytes()).map_err(|_| damaged())?;
        let columns: Vec<usize> = batch.columns().collect();
        if cells.len() != bytes * columns.len() {
            return Err(damaged());
        }
        let check = |(column, cell): (usize, &'c [u8])| {
            let (first, content) = cell.split_at(BLOCK_BYTES);
            let own = CellHeader::decode_elsewhere(first, &self.shape.store)?;
            let here = (own.segment, own.epoch, usize::from(own.column)) == (header.segment, header.epoch, column);
            let whole = content.chunks(crate::format::SUM_BYTES).enumerate().all(|(at, piece)| own.is_sound(at, piece));
            let shaped = own.directories.len() == self.shape.data && ColdBatch::of(&own) == *batch;
            (here && shaped && whole).then_some(KnownCell { column, header: own, content })
        };
        columns.into_iter().zip(cells.chunks(bytes)).map(|cell| check(cell).ok_or_else(damaged)).collect()
    }

    /// Entries of a cell's own directory.
    fn listed(&self, cell: &KnownCell<'_>) -> Result<Vec<Entry>, StorageError> {
        let directory = cell.header.directories[cell.column];
        let listing = &cell.content[directory.range()];
        if checksum(listing) != directory.sum {
            return Err(StorageError::Damaged { segment: cell.header.segment, sound: 0, needed: self.shape.data });
        }
        Ok(listing.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode).collect())
    }

    async fn replay_object(&self, id: u32, number: usize, cells: &[u8]) -> Result<(), StorageError> {
        let (header, _) = self.cold_header(id).await?;
        for cell in self.checked(&header, number, cells)? {
            for entry in self.listed(&cell)? {
                let location = entry.location(id, cell.header.start, cell.column);
                // Nobody ends it, or puts it again, between what is found of it and what is entered.
                let key = entry.key;
                self.tasks.until(|| self.busy.borrow_mut().insert(key).then_some(())).await;
                let replayed = self.replay_entry(&entry, &location, cell.header.sequence).await;
                self.busy.borrow_mut().remove(&key);
                self.tasks.touch();
                replayed?;
            }
        }
        Ok(())
    }

    /// Writes the tombstones of an object again that others need.
    async fn carry(&self, id: u32, number: usize, cells: &[u8]) -> Result<(), StorageError> {
        let (header, _) = self.cold_header(id).await?;
        for cell in self.checked(&header, number, cells)? {
            for entry in self.listed(&cell)?.into_iter().filter(|entry| entry.kind == Kind::Tombstone) {
                let location = entry.location(id, cell.header.start, cell.column);
                let Some(put) = self.moved(&entry, location, header.group).await? else { continue };
                let (reply, answer) = oneshot::channel();
                let carried = Move { key: put.key, answer };
                self.put(Put { reply, urgent: true, ..put });
                self.finish_move(carried).await?;
            }
        }
        Ok(())
    }

    async fn restore(&self, id: u32, number: usize, cells: &[u8]) -> Result<u64, StorageError> {
        let (header, _) = self.cold_header(id).await?;
        let checked = self.checked(&header, number, cells)?;
        self.write_from(id, &checked).await
    }

    /// What a listing of the segment would say, if slots held it.
    async fn objects(&self, id: u32, number: usize, cells: &[u8]) -> Result<Vec<Digest>, StorageError> {
        let (header, _) = self.cold_header(id).await?;
        let mut roots = Vec::new();
        for cell in self.checked(&header, number, cells)? {
            for entry in self.listed(&cell)? {
                let is_object = matches!(entry.kind, Kind::Whole | Kind::Manifest);
                let location = entry.location(id, cell.header.start, cell.column);
                if is_object && self.find(&entry.key)? == Some(location) {
                    roots.push(entry.key);
                }
            }
        }
        Ok(roots)
    }

    async fn dead(&self) -> Result<Vec<u32>, StorageError> {
        if self.is_incomplete() {
            return Ok(Vec::new());
        }
        let live = self.live_bytes().await?;
        let (segments, cold) = (self.segments.borrow(), self.cold.borrow());
        let dead = |(id, known): &(&u32, &ColdSegment)| {
            // One that is being made may be all there is, if the drives have lost the segment and the index what it held.
            let done = known.state != ObjectState::Begun && !segments.all.contains_key(id);
            // A record may have no bytes.
            done && !live.contains_key(id)
        };
        Ok(cold.iter().filter(dead).map(|(id, _)| *id).collect())
    }

    /// An object that the store knows nothing of is one whose record was lost: before one is deleted its record says so, and
    /// goes only after it.
    async fn adopt(&self, header: &[u8], root: Digest) -> Result<(), StorageError> {
        let header = ColdHeader::decode(header, &self.shape.store).ok_or(StorageError::WrongContent)?;
        let id = header.segment;
        let known = self.cold.borrow().contains_key(&id) || self.segments.borrow().all.contains_key(&id);
        // Numbers that were never given are none of this store's.
        if known || id >= self.segments.borrow().next || usize::from(header.data) != self.shape.data {
            return Err(StorageError::NotFound);
        }
        {
            // What is put from now on is newer than what it holds.
            let mut writing = self.writing.borrow_mut();
            writing.next_sequence = writing.next_sequence.max(header.sequence().saturating_add(1));
        }
        self.record_unread(&header, root).await
    }

    /// Takes a segment for one whose object does not count: if the index is lost, nobody looks for it.
    async fn release(&self, id: u32) -> Result<(), StorageError> {
        if self.segments.borrow().all.contains_key(&id) {
            return Err(StorageError::NotFound);
        }
        match self.cold_segment(id)?.state {
            ObjectState::Begun => return Err(StorageError::NotFound),
            ObjectState::Released => return Ok(()),
            ObjectState::Held(_) => {}
        }
        let (header, _) = self.cold_header(id).await?;
        self.record_cold(&header, ObjectState::Released).await
    }

    async fn forget(&self, id: u32) -> Result<(), StorageError> {
        self.cold_segment(id)?;
        if self.segments.borrow().all.contains_key(&id) {
            return Err(StorageError::NotFound);
        }
        self.remove(cold_key(id), 0).await?;
        self.cold.borrow_mut().remove(&id);
        self.unread.borrow_mut().remove(&id);
        self.check_unread();
        Ok(())
    }

    /// Whether an object that may be read again has records of a segment up to one.
    pub(super) fn is_cold_up_to(&self, ends: u32, besides: u32) -> bool {
        self.cold.borrow().range(..=ends).any(|(id, known)| *id != besides && known.root().is_some())
    }

    /// The number of the batch of a record that is in the cold tier alone.
    pub(super) async fn cold_sequence(&self, location: &Location) -> Option<u64> {
        let (header, _) = self.cold_header(location.segment).await.ok()?;
        header.batches.iter().find(|batch| batch.start == location.start).map(|batch| batch.sequence)
    }

    /// What is answered as long as objects have to be read.
    pub(super) fn unknown(&self) -> StorageError {
        if self.unread.borrow().is_empty() {
            let reason = "something could not be read when it was opened, so that nothing is known to be dead";
            return StorageError::ReadOnly { reason: reason.to_owned() };
        }
        StorageError::Busy { retry_after: super::UNREAD_RETRY_AFTER }
    }
}

/// The key of the store's own record of a segment: half a hash, as uniform as others.
fn cold_key(segment: u32) -> [u8; 32] {
    digest(HashAlgorithm::Sha256, b"stele/cold/v1", &segment.to_le_bytes())
}

fn decode_record(record: &[u8], store: &[u8; 16]) -> Option<(ColdHeader, ObjectState)> {
    let (state, header) = record.split_first_chunk()?;
    Some((ColdHeader::decode(header, store)?, ObjectState::decode(state)?))
}

/// What is known of segments' ages.
pub(super) type Newest = BTreeMap<u32, u64>;
