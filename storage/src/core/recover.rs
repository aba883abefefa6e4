//! Formatting drives, finding a store on them, and what it holds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use stele_device::{Batch, BlockDevice, BufferPool, Request};

use super::ports::{self, Ports};
use super::repair::{Batchwise, agreed};
use super::roster::Roster;
use super::segment::{Carried, Segment, Segments};
use super::tasks::Tasks;
use super::workbench::{PLACES, Workbench};
use super::write::index_failed;
use super::{BLOCKS_MAX, CELL_BUFFER_BYTES, Core, Counters, FLIGHTS_MAX, Inner, Pools, Shape, Uploads, Writing};
use crate::erasure::ErasureCode;
use crate::format::{
    BLOCK_BYTES, CELL_BLOCKS_MAX, CellHeader, DIRECTORY_ENTRY_BYTES, DRIVES_MAX, Directory, Entry, Kind, MARGIN_BYTES,
    Member, SLOT_BLOCKS_MIN, SlotHeader, Stage, Superblock, checksum, superblock_offsets,
};
use crate::index::Index;
use crate::location::{Location, SLOT_BLOCKS_MAX};
use crate::{DriveState, StorageError};

/// Slots of a drive whose headers are read at a time.
const HEADERS_AT_ONCE: u32 = 16;

/// A store, as its superblocks describe it.
pub(crate) struct Found {
    pub(crate) superblock: Superblock,
    /// For each member, which of the given drives it is.
    pub(crate) drives: Vec<Option<usize>>,
}

impl Found {
    pub(crate) fn shape(&self) -> Shape {
        let Superblock { store, data, parity, hash, slot_blocks, .. } = self.superblock;
        Shape { store, data: usize::from(data), parity: usize::from(parity), hash, slot_blocks }
    }
}

/// Makes a store of drives, whatever is on them. Their ids are those given, one for each.
pub(crate) fn format(
    drives: &[&dyn BlockDevice],
    shape: &Shape,
    ids: &[[u8; 16]],
    segments: u32,
) -> Result<(), StorageError> {
    check_shape(drives, shape)?;
    let members = ids.iter().map(|id| Member { id: *id, state: DriveState::Sound }).collect();
    let superblock = Superblock {
        generation: 1,
        store: shape.store,
        epoch: 0,
        drive: 0,
        data: u8::try_from(shape.data).expect("few columns"),
        parity: u8::try_from(shape.parity).expect("few columns"),
        hash: shape.hash,
        slot_blocks: shape.slot_blocks,
        segments,
        members,
    };
    let pool = block_pool()?;
    for (number, drive) in drives.iter().enumerate() {
        // A slot header that some other store left would be no harm, since it names that store; its blocks neither.
        for offset in superblock_offsets(drive.geometry().bytes()) {
            let mut block = pool.take();
            let drive_number = u16::try_from(number).expect("few drives");
            Superblock { drive: drive_number, ..superblock.clone() }.encode(&mut block);
            let mut batch = Batch::new(*drive, 1);
            let _ = batch.push(Request::write_durable(offset, block));
            batch.finish().map_err(|error| StorageError::drive(number, &error))?;
        }
    }
    Ok(())
}

fn check_shape(drives: &[&dyn BlockDevice], shape: &Shape) -> Result<(), StorageError> {
    let columns = shape.columns();
    ErasureCode::new(shape.data, shape.parity).map_err(|error| StorageError::shape(error.to_string()))?;
    if !(columns..=DRIVES_MAX).contains(&drives.len()) {
        let drives = drives.len();
        return Err(StorageError::shape(format!("{drives} drives for {columns} columns, at most {DRIVES_MAX}")));
    }
    if !(SLOT_BLOCKS_MIN..=SLOT_BLOCKS_MAX).contains(&shape.slot_blocks) {
        let blocks = shape.slot_blocks;
        return Err(StorageError::shape(format!(
            "slots of {blocks} blocks, where {SLOT_BLOCKS_MIN} to {SLOT_BLOCKS_MAX} can be"
        )));
    }
    for (number, drive) in drives.iter().enumerate() {
        let geometry = drive.geometry();
        if geometry.block_bytes as usize != BLOCK_BYTES {
            let bytes = geometry.block_bytes;
            return Err(StorageError::shape(format!(
                "drive {number} has blocks of {bytes} bytes, not of {BLOCK_BYTES}"
            )));
        }
        // One segment to write to, and as many as are kept for collecting what was deleted.
        let slots = shape.slots(geometry.bytes());
        if slots < 4 {
            return Err(StorageError::shape(format!("drive {number} has room for {slots} slots, and 4 are the least")));
        }
    }
    Ok(())
}

/// Finds the store that is on most of the drives.
pub(crate) fn identify(drives: &[&dyn BlockDevice]) -> Result<Found, StorageError> {
    let pool = block_pool()?;
    let on_drives: Vec<Option<Superblock>> = drives.iter().map(|drive| newest_superblock(*drive, &pool)).collect();
    let newest = on_drives.iter().flatten().max_by_key(|superblock| superblock.generation).cloned();
    let Some(newest) = newest else {
        return Err(StorageError::Foreign { drive: 0, what: "no drive has a superblock".to_owned() });
    };
    let mut found: Vec<Option<usize>> = vec![None; newest.members.len()];
    for (number, superblock) in on_drives.iter().enumerate() {
        let Some(superblock) = superblock else { continue };
        if superblock.store != newest.store {
            return Err(StorageError::Foreign { drive: number, what: "it is a part of another store".to_owned() });
        }
        let at = usize::from(superblock.drive);
        let own = superblock.members.get(at).map(|member| member.id);
        // One that was replaced is not in the roster any more.
        if newest.members.get(at).map(|member| member.id) != own || own.is_none() {
            continue;
        }
        if found[at].is_some() {
            // A copy of a drive holds what was true once.
            let what = format!("two drives are number {at} of the store");
            return Err(StorageError::Foreign { drive: number, what });
        }
        found[at] = Some(number);
    }
    Ok(Found { superblock: newest, drives: found })
}

fn newest_superblock(drive: &dyn BlockDevice, pool: &BufferPool) -> Option<Superblock> {
    let bytes = drive.geometry().bytes();
    if bytes < 2 * MARGIN_BYTES {
        return None;
    }
    let copies = superblock_offsets(bytes).into_iter().filter_map(|offset| {
        let mut batch = Batch::new(drive, 1);
        let _ = batch.push(Request::read(offset, pool.take()));
        let block = batch.wait()?.into_buffer().ok()?;
        Superblock::decode(&block)
    });
    copies.max_by_key(|superblock| superblock.generation)
}

fn block_pool() -> Result<BufferPool, StorageError> {
    BufferPool::new(1, BLOCK_BYTES).map_err(|error| StorageError::shape(error.to_string()))
}

/// The id that a drive has in the store `store`, if it was made for that.
pub(crate) fn member_id(drive: &dyn BlockDevice, store: &[u8; 16]) -> Result<Option<[u8; 16]>, StorageError> {
    let superblock = newest_superblock(drive, &block_pool()?).filter(|superblock| superblock.store == *store);
    Ok(superblock.and_then(|superblock| superblock.members.get(usize::from(superblock.drive)).map(|member| member.id)))
}

/// What opening a store comes to.
pub(crate) type Opening = Rc<RefCell<Option<Result<(), StorageError>>>>;

impl Core {
    /// Begins to open a store on drives of so many bytes each; members that are missing have none. The core takes commands
    /// when what is returned says that it was opened.
    pub(crate) fn open(
        found: &Found,
        bytes: Vec<u64>,
        index: Arc<Index>,
        pools: Pools,
        uploads: Uploads,
    ) -> Result<(Self, Opening), StorageError> {
        let shape = found.shape();
        let code =
            ErasureCode::new(shape.data, shape.parity).map_err(|error| StorageError::shape(error.to_string()))?;
        // One for each column, and one to read a piece into.
        let bench = BufferPool::new(PLACES * (shape.columns() + 1), CELL_BUFFER_BYTES);
        let bench = bench.map_err(|error| StorageError::shape(error.to_string()))?;
        // One that is missing is taken to be as large as the largest: what is put meanwhile has a place on whatever replaces
        // it, and a drive that is too small for that is refused then.
        let largest = bytes.iter().copied().max().unwrap_or(0);
        let bytes = bytes.into_iter().map(|bytes| if bytes == 0 { largest } else { bytes }).collect();
        let mut roster = Roster::new(&found.superblock, bytes);
        roster.epoch += 1;
        let first_segment = roster.reserve_segments();
        for (drive, present) in found.drives.iter().enumerate() {
            if present.is_none() {
                roster.set(drive, DriveState::Failed);
            }
        }
        // A new epoch is a new superblock also when nothing else is.
        roster.renew();
        let inner = Rc::new_cyclic(|me| Inner {
            me: me.clone(),
            shape,
            code,
            index,
            pools,
            workbench: Workbench::new(bench),
            tasks: Tasks::default(),
            ports: Ports::new(),
            roster: RefCell::new(roster),
            segments: RefCell::new(Segments::default()),
            writing: RefCell::new(Writing::default()),
            reads: RefCell::new(VecDeque::new()),
            counters: RefCell::new(Counters::default()),
            suspects: RefCell::new(VecDeque::new()),
            mending: Cell::new(false),
            collecting: Cell::new(false),
            observing: Cell::new(false),
            incomplete: Cell::new(false),
            cold: RefCell::default(),
            unread: RefCell::default(),
            ended: RefCell::default(),
            newest: RefCell::default(),
            refused: Cell::new(0),
            uploads,
            first_segment: Cell::new(first_segment),
            put_more: Cell::new(false),
            busy: RefCell::default(),
        });
        let opening = Opening::default();
        let (task, told) = (Rc::clone(&inner), Rc::clone(&opening));
        inner.tasks.spawn(async move {
            let result = task.recover().await;
            *told.borrow_mut() = Some(result);
        });
        Ok((Self { inner }, opening))
    }
}

/// Headers of slots, and slots whose header cannot be read.
#[derive(Default)]
struct SlotHeaders {
    headers: Vec<SlotHeader>,
    unreadable: Vec<(u16, u32)>,
}

/// A batch that was found on the drives.
pub(super) struct FoundBatch {
    pub(super) start: u32,
    pub(super) header: CellHeader,
}

impl FoundBatch {
    /// The block behind it.
    pub(super) fn end(&self) -> u32 {
        self.start + u32::from(self.header.blocks) + 1
    }
}

impl Inner {
    /// Itself, to be held by a task.
    pub(super) fn handle(&self) -> Rc<Self> {
        self.me.upgrade().expect("whoever calls holds it")
    }

    async fn recover(&self) -> Result<(), StorageError> {
        let (usable, drives) = {
            let roster = self.roster.borrow();
            (roster.usable(), roster.members.len())
        };
        // So many as it takes to read; and so many that one of them at least has seen everything, since the store goes on
        // writing without all but one of those that parity stands for.
        let needed = (drives - self.shape.parity).max(self.shape.parity);
        if usable < needed {
            return Err(StorageError::TooFewDrives { sound: usable, drives, needed });
        }
        if usable < self.drives_needed() {
            // The others may be elsewhere, and go on: nothing is written that says that they failed.
            self.observing.set(true);
            self.incomplete.set(true);
            self.roster.borrow_mut().leave_unwritten();
        }
        // Before anything is written that counts on it.
        while !self.roster.borrow().is_written() {
            self.write_superblocks().await;
        }
        let mut stages = self.find_segments().await;
        let position = self.index.position();
        let mut sequence_max = position;
        let ids: Vec<u32> = self.segments.borrow().all.keys().copied().collect();
        for id in ids {
            let stage = stages.remove(&id).unwrap_or(Stage::Open);
            if self.segments.borrow().all.get(&id).is_some_and(|segment| segment.leaving) {
                // It was being given up: no header is left that would bring it back.
                self.write_slot_headers(id, Stage::Free).await;
                self.segments.borrow_mut().give_up(id);
                continue;
            }
            if let Stage::Sealed { sequence, .. } = stage {
                sequence_max = sequence_max.max(sequence);
                if sequence <= position {
                    continue;
                }
            }
            let batches = self.walk(id, stage).await;
            let Some(last) = batches.last() else {
                if stage == Stage::Open && self.reads_well(id).await {
                    // Nothing in it was acknowledged.
                    self.segments.borrow_mut().give_up(id);
                } else {
                    self.miss();
                    let mut segments = self.segments.borrow_mut();
                    if let Some(segment) = segments.all.get_mut(&id) {
                        // Never empty, whatever is found of it.
                        segment.used = self.shape.slot_blocks;
                    }
                }
                continue;
            };
            sequence_max = sequence_max.max(last.header.sequence);
            let used = match stage {
                // Whatever cannot be found of it is damaged, and may be readable again.
                Stage::Sealed { blocks, .. } => blocks,
                Stage::Open | Stage::Free => last.end(),
            };
            if used != last.end() {
                self.miss();
            }
            {
                let mut segments = self.segments.borrow_mut();
                let segment = segments.all.get_mut(&id).expect("a segment that was found");
                segment.used = used;
                segment.sequence = last.header.sequence;
                segment.batches = u32::try_from(batches.len()).expect("a slot is bounded");
                segment.durable = segment.batches;
            }
            for batch in batches.iter().filter(|batch| batch.header.sequence > position) {
                self.replay(id, batch).await?;
            }
            if stage == Stage::Open && !self.incomplete.get() {
                // What was on its way when the power failed may have reached only as many drives as it takes.
                for batch in batches.iter().rev().take(FLIGHTS_MAX + 1) {
                    let _ = self.mend(id, batch.start).await;
                }
                let stage = Stage::Sealed { blocks: used, sequence: last.header.sequence };
                self.write_slot_headers(id, stage).await;
            }
        }
        self.writing.borrow_mut().next_sequence = sequence_max.saturating_add(1);
        self.load_cold(position).await?;
        self.check_drives();
        self.go_on_rebuilding(None);
        Ok(())
    }

    /// Goes on with drives that were being rebuilt.
    pub(super) fn go_on_rebuilding(&self, except: Option<usize>) {
        if self.observing.get() {
            return;
        }
        let roster = self.roster.borrow();
        let going_on = |drive: &usize| roster.state(*drive) == DriveState::Rebuilding && Some(*drive) != except;
        for drive in (0..roster.members.len()).filter(going_on) {
            let shared = self.handle();
            self.tasks.spawn(async move {
                // Whatever it comes to shows in the drive's state.
                let _ = shared.rebuild(drive).await;
            });
        }
    }

    /// Something that is on the drives could not be read.
    pub(super) fn miss(&self) {
        self.counters.borrow_mut().lost += 1;
        self.incomplete.set(true);
    }

    /// Whether the first cells of a segment can be read on all drives that should have them: that there is none is then known.
    async fn reads_well(&self, id: u32) -> bool {
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return false };
        for (drive, slot) in &segment.columns {
            let number = usize::from(*drive);
            if self.roster.borrow().state(number) == DriveState::Failed {
                continue;
            }
            let block = self.block().await;
            let begun = self.ports.begin(number, Request::read(self.shape.offset(*slot, 1), block));
            if ports::read(self.ports.answer(&self.tasks, begun).await).is_none() {
                return false;
            }
        }
        true
    }

    /// Reads all slots' headers, and makes the segments of them.
    async fn find_segments(&self) -> BTreeMap<u32, Stage> {
        let slots: Vec<u32> = self.roster.borrow().bytes.iter().map(|bytes| self.shape.slots(*bytes)).collect();
        let mut found: BTreeMap<u32, SlotHeader> = BTreeMap::new();
        let (mut given_up, mut unreadable) = (BTreeSet::new(), Vec::new());
        let mut id_max = None;
        let mut from = 0;
        while from < slots.iter().copied().max().unwrap_or(0) {
            let read = self.slot_headers(&slots, from).await;
            unreadable.extend(read.unreadable);
            for header in read.headers {
                id_max = id_max.max(Some(header.segment));
                if header.stage == Stage::Free {
                    // One is enough: it is written only when nothing in the segment is needed any more.
                    given_up.insert((header.segment, header.epoch));
                    continue;
                }
                if header.columns.len() != self.shape.columns() {
                    continue;
                }
                // A seal may have reached some of the slots only.
                let known = found.entry(header.segment).or_insert_with(|| header.clone());
                if header.epoch > known.epoch || (header.epoch == known.epoch && known.stage == Stage::Open) {
                    *known = header;
                }
            }
            from += HEADERS_AT_ONCE;
        }

        let mut segments = self.segments.borrow_mut();
        segments.free = slots.iter().map(|slots| (0..*slots).collect()).collect();
        segments.slots = slots;
        // What cannot be read is no free slot: there may be what only this drive has.
        for (drive, slot) in unreadable {
            segments.free[usize::from(drive)].remove(&slot);
        }
        // Numbers are never used again, also those of segments whose headers cannot be read now.
        segments.next = id_max.map_or(0, |id: u32| id.saturating_add(1)).max(self.first_segment.get());
        let mut stages = BTreeMap::new();
        let mut taken = BTreeSet::new();
        // The newest first: one whose slots were given to a newer one had come to nothing.
        for (id, header) in found.into_iter().rev() {
            let leaving = given_up.contains(&(id, header.epoch));
            let given = |place: &(u16, u32)| taken.contains(place) || usize::from(place.0) >= segments.free.len();
            if header.columns.iter().any(given) {
                continue;
            }
            // A slot beyond the end of its drive, which was larger once, is a column that is lost.
            for (drive, slot) in &header.columns {
                segments.free[usize::from(*drive)].remove(slot);
                taken.insert((*drive, *slot));
            }
            let (used, sequence) = match header.stage {
                Stage::Sealed { blocks, sequence } => (blocks, sequence),
                Stage::Open | Stage::Free => (1, 0),
            };
            let segment = Segment {
                epoch: header.epoch,
                group: header.group,
                columns: header.columns.into(),
                used,
                // Of a sealed one it is not asked how many there are.
                batches: 1,
                durable: 1,
                sequence,
                sealed: true,
                leaving,
                pins: 0,
                carried: Carried::default(),
            };
            segments.all.insert(id, segment);
            stages.insert(id, header.stage);
        }
        stages
    }

    /// The headers of some slots of each drive.
    async fn slot_headers(&self, slots: &[u32], from: u32) -> SlotHeaders {
        let mut wanted = Vec::new();
        for (drive, slots) in slots.iter().enumerate() {
            if self.roster.borrow().state(drive) != DriveState::Failed {
                wanted.extend((from..(from + HEADERS_AT_ONCE).min(*slots)).map(|slot| (drive, slot)));
            }
        }
        let mut read = SlotHeaders::default();
        // In parts that there are buffers for.
        for part in wanted.chunks(BLOCKS_MAX / 2) {
            let mut begun = Vec::with_capacity(part.len());
            for (drive, slot) in part {
                let block = self.block().await;
                begun.push(self.ports.begin(*drive, Request::read(self.shape.offset(*slot, 0), block)));
            }
            for ((drive, slot), begun) in part.iter().zip(begun) {
                let number = u16::try_from(*drive).expect("few drives");
                match ports::read(self.ports.answer(&self.tasks, begun).await) {
                    Some(block) => {
                        let member = self.roster.borrow().members[*drive].id;
                        let header = SlotHeader::decode(&block, &self.shape.store, &member, number, *slot);
                        read.headers.extend(header);
                    }
                    None => read.unreadable.push((number, *slot)),
                }
            }
        }
        read
    }

    /// Follows a segment's batches from the first on, up to the last that counts.
    pub(super) async fn walk(&self, id: u32, stage: Stage) -> Vec<FoundBatch> {
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return Vec::new() };
        let end = match stage {
            Stage::Sealed { blocks, .. } => blocks.min(self.shape.slot_blocks),
            Stage::Open | Stage::Free => self.shape.slot_blocks,
        };
        let mut batches: Vec<FoundBatch> = Vec::new();
        let (mut durable, mut number, mut start) = (0, 0, 1);
        while start < end {
            let refused = self.refused.get();
            let headers = self.cell_headers(id, &segment, start).await;
            let header = match agreed(&headers).filter(|header| header.batch >= number) {
                Some(header) => header,
                None if stage == Stage::Open => {
                    if self.refused.get() > refused {
                        self.miss();
                    }
                    // The end; or the header is damaged everywhere, and a batch behind it says that it had been durable.
                    let Some((at, header)) = self.header_behind(id, &segment, start, number).await else { break };
                    self.miss();
                    start = at;
                    header
                }
                None => break,
            };
            durable = durable.max(header.durable);
            number = header.batch + 1;
            let next = start + u32::from(header.blocks) + 1;
            batches.push(FoundBatch { start, header });
            start = next;
        }
        if let Stage::Sealed { .. } = stage {
            return batches;
        }
        // Those that were durable when a later one was written are whole, or damaged; the others count up to the first that
        // is not whole, since none behind it was acknowledged.
        for at in 0..batches.len() {
            if batches[at].header.batch < durable {
                continue;
            }
            let place = self.place_at_workbench().await;
            let cells = Batchwise::read_whole(self, &place, id, batches[at].start).await;
            if !cells.is_ok_and(|cells| cells.is_whole(self.shape.data)) {
                batches.truncate(at);
                break;
            }
        }
        batches
    }

    /// The next batch behind a place where one should be, if it says that that one had been durable.
    async fn header_behind(&self, id: u32, segment: &Segment, start: u32, number: u32) -> Option<(u32, CellHeader)> {
        let last = start + u32::try_from(CELL_BLOCKS_MAX).expect("a cell is bounded") + 1;
        for at in start + 1..=last.min(self.shape.slot_blocks - 1) {
            let headers = self.cell_headers(id, segment, at).await;
            let behind = agreed(&headers).filter(|header| header.batch > number);
            if let Some(header) = behind {
                return (header.durable > number).then_some((at, header));
            }
        }
        None
    }

    /// Enters a batch's records into the index, as far as it does not know better.
    async fn replay(&self, id: u32, batch: &FoundBatch) -> Result<(), StorageError> {
        for (column, directory) in batch.header.directories.iter().enumerate() {
            if directory.entries == 0 {
                continue;
            }
            let Ok(listing) = self.directory(id, batch, column, directory).await else {
                // Its records are not found, and nothing is said of them.
                self.miss();
                continue;
            };
            for entry in listing.chunks_exact(DIRECTORY_ENTRY_BYTES) {
                let Some(entry) = Entry::decode(entry) else { continue };
                let location = entry.location(id, batch.start, column);
                self.replay_entry(&entry, &location, batch.header.sequence).await?;
            }
        }
        Ok(())
    }

    /// Enters a record into the index, unless that knows better.
    pub(super) async fn replay_entry(
        &self,
        entry: &Entry,
        location: &Location,
        sequence: u64,
    ) -> Result<(), StorageError> {
        if entry.kind == Kind::Tombstone {
            let mut ended = self.ended.borrow_mut();
            let last = ended.entry(entry.key).or_default();
            *last = sequence.max(*last);
        } else if self.ended.borrow().get(&entry.key).is_some_and(|ended| *ended > sequence) {
            // Segments do not follow one another as batches do.
            return Ok(());
        }
        let known = self.find(&entry.key)?;
        let newer = match known {
            None => false,
            Some(known) if known == *location => return Ok(()),
            // Inside a segment entries come in their order.
            Some(known) if known.segment == location.segment => false,
            Some(known) => self.sequence_of(&known).await.is_some_and(|known| known > sequence),
        };
        let nothing_to_end = entry.kind == Kind::Tombstone && known.is_none();
        if newer || nothing_to_end {
            return Ok(());
        }
        self.enter(&entry.key, location)?;
        if self.index.needs_flush() {
            // Not yet all of what is before any position.
            self.index.flush(self.index.position()).map_err(index_failed)?;
            self.index.maintain().map_err(index_failed)?;
        }
        Ok(())
    }

    /// The number of the batch in which a record lies.
    async fn sequence_of(&self, location: &Location) -> Option<u64> {
        let Some(segment) = self.segments.borrow().all.get(&location.segment).cloned() else {
            return self.cold_sequence(location).await;
        };
        let headers = self.cell_headers(location.segment, &segment, location.start).await;
        agreed(&headers).map(|header| header.sequence)
    }

    /// The directory of one column of a batch.
    pub(super) async fn directory(
        &self,
        id: u32,
        batch: &FoundBatch,
        column: usize,
        directory: &Directory,
    ) -> Result<Vec<u8>, StorageError> {
        let range = directory.range();
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return Err(StorageError::NotFound) };
        let (drive, slot) = segment.columns[column];
        let number = usize::from(drive);
        if self.roster.borrow().state(number) != DriveState::Failed {
            let bytes = range.len().next_multiple_of(BLOCK_BYTES);
            let buffer = self.tasks.until(|| self.pools.short.try_take()).await.with_length(bytes);
            let block = batch.start + 1 + u32::from(directory.block);
            let begun = self.ports.begin(number, Request::read(self.shape.offset(slot, block), buffer));
            if let Some(bytes) = ports::read(self.ports.answer(&self.tasks, begun).await) {
                let listing = &bytes[..range.len()];
                if checksum(listing) == directory.sum {
                    return Ok(listing.to_vec());
                }
            }
        }
        let place = self.place_at_workbench().await;
        let cells = Batchwise::read_range(self, &place, id, batch.start, range.clone()).await?;
        let mut listing = vec![0; range.len()];
        let damaged = |sound| StorageError::Damaged { segment: id, sound, needed: self.shape.data };
        cells.copy(&self.code, column, range, &mut listing).map_err(damaged)?;
        if checksum(&listing) == directory.sum { Ok(listing) } else { Err(damaged(0)) }
    }
}
