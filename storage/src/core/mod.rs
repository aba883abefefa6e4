//! The store as a state machine: commands and completions go in, requests and answers come out.
//!
//! ```text
//!  Command ──► intake ──► batch ──► cells ──► Outgoing ──► drives
//!                (by group)  │ k + m columns      │
//!  answer ◄── index ◄── flights, in order ◄── Completed
//! ```
//!
//! It does no I/O but the index's, has no clock and no thread, and does the same whenever it is fed the same: what carries
//! its requests may be a ring, or a simulation that loses power at every other of them.
//!
//! A record that is put goes into the batch of its group. The batch is closed when it is full, or at once when nothing of
//! the group is on its way; then it becomes a flight of one durable write for each column that holds something and each of
//! parity. Small urgent puts thus cost m + 1 writes, as in a journal with as many mirrors, and many of them share a full
//! stripe. A flight is answered when all its columns are durable and all flights before it are.
//!
//! A batch of nothing but parts of uploads is not closed at once: who puts them waits for none until more are put than a
//! batch holds. So that nobody waits for what may never come, it is closed when anything urgent joins it, when a record finds
//! no room in memory, or when somebody says that he finds none ([`Command::Hurry`]).

mod batch;
mod cold;
mod collect;
mod list;
mod ports;
mod read;
mod recover;
mod repair;
mod replace;
mod roster;
mod segment;
#[cfg(test)]
mod simulation;
mod status;
mod tasks;
mod workbench;
mod write;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stele_accel_hash::HashAlgorithm;
use stele_device::{BufferPool, Completed};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::batch::Batch;
pub(crate) use self::batch::CELL_BUFFER_BYTES;
pub(crate) use self::cold::{ColdCommand, ObjectState};
pub use self::cold::{ColdPlace, ColdStatus};
use self::cold::{ColdSegment, Newest};
pub use self::collect::CollectReport;
pub use self::list::Listing;
pub(crate) use self::ports::Outgoing;
use self::ports::Ports;
use self::read::Reading;
pub(crate) use self::recover::{Found, format, identify, member_id};
pub use self::repair::ScrubReport;
use self::roster::{Asked, Roster};
use self::segment::Segments;
pub use self::status::{Counters, DriveStatus, Status};
use self::tasks::Tasks;
use self::workbench::Workbench;
use self::write::{Flight, ReadOnly};
use crate::erasure::ErasureCode;
use crate::format::{BLOCK_BYTES, Kind, MARGIN_BYTES, RECORD_BYTES_MAX};
use crate::index::Index;
use crate::location::Location;
use crate::{Group, StorageError};

/// Flights of a store that are on their way together. More of them only wait for the drives; fewer leave those idle.
const FLIGHTS_MAX: usize = 4;

/// Groups that may have a batch open at a time. More take turns.
const OPEN_GROUPS_MAX: usize = 16;

/// Buffers for reading records of up to [`SHORT_BYTES`], and for longer ones.
const SHORT_READS_MAX: usize = 256;
const LONG_READS_MAX: usize = 24;

/// When to ask again for what is not found while objects of the cold tier have to be read.
pub(crate) const UNREAD_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// Buffers for single blocks: headers of cells and slots.
const BLOCKS_MAX: usize = 512;

pub(crate) const SHORT_BYTES: usize = (64 << 10) + BLOCK_BYTES;

/// How an answer reaches who asked.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// A record to be kept.
pub(crate) struct Put {
    pub(crate) group: Group,
    pub(crate) key: [u8; 32],
    pub(crate) kind: Kind,
    pub(crate) bytes: Bytes,
    /// What the bytes sum to.
    pub(crate) sum: u32,
    pub(crate) time_ms: u64,
    /// Of a tombstone: the newest segment in which there may be a record that it ends.
    pub(crate) ends: u32,
    /// It is written although it is there already: elsewhere.
    pub(crate) moved: bool,
    /// Somebody waits for it: its batch is not kept open for more to share it.
    pub(crate) urgent: bool,
    /// Its place among the bytes that may be on their way, until it was answered.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    pub(crate) reply: Reply<()>,
}

/// A record that waits for its place in a batch.
struct Queued {
    put: Put,
    turn: Option<Turn>,
}

/// The right to write to a key, until this is dropped: with the record, when it was answered. Of two writes to a key the one
/// that is answered last counts, and so it has to be the one that comes last on the drives.
struct Turn {
    inner: std::rc::Weak<Inner>,
    key: [u8; 32],
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.busy.borrow_mut().remove(&self.key);
            inner.tasks.touch();
        }
    }
}

/// What can be asked of the core.
pub(crate) enum Command {
    /// Keeps a record. Answered when it is durable and can be found.
    Put(Put),
    /// Has nothing that was put before this wait for more to share its batch.
    Hurry,
    /// Ends the record with this key. Answered when that is durable: whether there was one.
    Remove { key: [u8; 32], time_ms: u64, reply: Reply<bool> },
    /// Reads a record from where the index says that it lies.
    Read { location: Location, reply: Reply<Bytes> },
    /// Reads so many segments from one on, and mends what is damaged.
    Scrub { from: u32, segments_max: usize, now_ms: u64, reply: Reply<ScrubReport> },
    /// Lists the objects of so many segments from one on, of groups of some years.
    List { from: u32, segments_max: usize, years: RangeInclusive<u16>, reply: Reply<Listing> },
    /// The group of an object.
    Group { key: [u8; 32], reply: Reply<Group> },
    /// Moves what lives out of segments that mostly died.
    Collect { live_percent: u8, segments_max: usize, reply: Reply<CollectReport> },
    /// Adds nothing more to the segment that a group is being written to.
    Seal { group: Group, reply: Reply<()> },
    /// What concerns the cold tier.
    Cold(ColdCommand),
    /// Says how the store is.
    Status { reply: Reply<Status> },
    /// Seals what is open, and makes the index durable.
    Close { reply: Reply<()> },
}

/// A drive that is to take the place of another.
pub(crate) struct NewDrive {
    /// Its id from now on.
    pub(crate) id: [u8; 16],
    /// The one that it has, if it was made for this store.
    pub(crate) was: Option<[u8; 16]>,
    pub(crate) bytes: u64,
}

/// Numbers of a store that its drives are formatted with.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) store: [u8; 16],
    pub(crate) data: usize,
    pub(crate) parity: usize,
    pub(crate) hash: HashAlgorithm,
    pub(crate) slot_blocks: u32,
}

impl Shape {
    pub(crate) fn columns(&self) -> usize {
        self.data + self.parity
    }

    /// Where a block of a slot lies on its drive, in bytes.
    fn offset(&self, slot: u32, block: u32) -> u64 {
        let blocks = u64::from(slot) * u64::from(self.slot_blocks) + u64::from(block);
        MARGIN_BYTES + blocks * BLOCK_BYTES as u64
    }

    /// Slots of a drive of so many bytes.
    pub(crate) fn slots(&self, bytes: u64) -> u32 {
        let slot = u64::from(self.slot_blocks) * BLOCK_BYTES as u64;
        u32::try_from(bytes.saturating_sub(2 * MARGIN_BYTES) / slot).unwrap_or(u32::MAX)
    }
}

/// Memory that requests are made with, allocated once. The drives may register it.
#[derive(Clone)]
pub(crate) struct Pools {
    /// For cells: what is written.
    pub(crate) cells: BufferPool,
    /// For records, by length: what is read.
    pub(crate) short: BufferPool,
    pub(crate) long: BufferPool,
    /// For single blocks.
    pub(crate) blocks: BufferPool,
}

impl Pools {
    pub(crate) fn new(shape: &Shape) -> Result<Self, StorageError> {
        let refused = |error| StorageError::shape(format!("{error}"));
        let flights = shape.columns() * (FLIGHTS_MAX + 2);
        Ok(Self {
            cells: BufferPool::new(flights, CELL_BUFFER_BYTES).map_err(refused)?,
            short: BufferPool::new(SHORT_READS_MAX, SHORT_BYTES).map_err(refused)?,
            long: BufferPool::new(LONG_READS_MAX, RECORD_BYTES_MAX + BLOCK_BYTES).map_err(refused)?,
            blocks: BufferPool::new(BLOCKS_MAX, BLOCK_BYTES).map_err(refused)?,
        })
    }

    /// All of them, for the drives to register.
    pub(crate) fn all(&self) -> Vec<BufferPool> {
        vec![self.cells.clone(), self.short.clone(), self.long.clone(), self.blocks.clone()]
    }
}

/// Uploads of this process that have not ended, by their ids.
pub(crate) type Uploads = Arc<std::sync::Mutex<BTreeSet<[u8; 16]>>>;

/// Requests of the core itself.
enum Call {
    /// A column of a flight.
    Cell { flight: usize, asked: Asked },
    /// A record.
    Record(Reading),
}

/// What tasks share.
struct Inner {
    /// Itself, for tasks to hold.
    me: std::rc::Weak<Inner>,
    shape: Shape,
    code: ErasureCode,
    index: Arc<Index>,
    pools: Pools,
    workbench: Workbench,
    tasks: Tasks,
    ports: Ports<Call>,
    roster: RefCell<Roster>,
    segments: RefCell<Segments>,
    writing: RefCell<Writing>,
    /// Reads that wait for a buffer.
    reads: RefCell<VecDeque<(Location, Reply<Bytes>)>>,
    counters: RefCell<Counters>,
    /// Batches that a read found damaged, to be mended.
    suspects: RefCell<VecDeque<(u32, u32)>>,
    mending: Cell<bool>,
    collecting: Cell<bool>,
    /// Too few drives are there to write anything: the store is looked at and left as it is.
    observing: Cell<bool>,
    /// Something could not be read when the store was opened. It may be readable the next time, so the index is not said to
    /// have it, and nothing is taken for dead.
    incomplete: Cell<bool>,
    /// Segments that are in the cold tier, or are to be.
    cold: RefCell<BTreeMap<u32, ColdSegment>>,
    /// Those of which the index may not have everything: it was lost, and no slots hold them.
    unread: RefCell<BTreeSet<u32>>,
    /// When a record was last ended, of those whose tombstone was replayed, or written before everything was.
    ended: RefCell<BTreeMap<[u8; 32], u64>>,
    newest: RefCell<Newest>,
    /// Reads of headers that drives refused.
    refused: Cell<u64>,
    /// Uploads that are going on.
    uploads: Uploads,
    /// The least number of a segment that was never given.
    first_segment: Cell<u32>,
    /// Something was put since the intake was last looked at.
    put_more: Cell<bool>,
    /// Keys of records that are being put, moved or ended: one after the other.
    busy: RefCell<BTreeSet<[u8; 32]>>,
}

/// What is being written.
#[derive(Default)]
struct Writing {
    /// Puts that wait for room in a batch.
    intake: VecDeque<Queued>,
    groups: BTreeMap<Group, Open>,
    flights: Vec<Option<Flight>>,
    flights_free: Vec<usize>,
    next_sequence: u64,
    /// Nothing more will be put.
    closing: bool,
    /// Why nothing is written any more.
    read_only: Option<ReadOnly>,
}

/// A group's newest segment.
#[derive(Default)]
struct Open {
    segment: Option<u32>,
    batch: Option<Batch>,
    /// Flights, the oldest first.
    order: VecDeque<usize>,
}

/// See the module.
pub(crate) struct Core {
    inner: Rc<Inner>,
}

impl Core {
    /// Takes a command. What it needs of the drives is among the requests, and what it answers comes with completions.
    pub(crate) fn command(&self, command: Command) {
        let inner = &self.inner;
        match command {
            Command::Put(put) => inner.put(put),
            Command::Hurry => inner.hurry(),
            Command::Remove { key, time_ms, reply } => {
                let task = Rc::clone(inner);
                inner.tasks.spawn(async move {
                    let _ = reply.send(task.remove(key, time_ms).await);
                });
            }
            Command::Read { location, reply } => inner.read(location, reply),
            Command::Scrub { from, segments_max, now_ms, reply } => {
                let task = Rc::clone(inner);
                inner.tasks.spawn(async move {
                    let _ = reply.send(Ok(task.scrub(from, segments_max, now_ms).await));
                });
            }
            Command::List { from, segments_max, years, reply } => {
                let task = Rc::clone(inner);
                inner.tasks.spawn(async move {
                    let _ = reply.send(Ok(task.list(from, segments_max, years).await));
                });
            }
            Command::Group { key, reply } => {
                let _ = reply.send(inner.group(&key));
            }
            Command::Seal { group, reply } => {
                let task = Rc::clone(inner);
                inner.tasks.spawn(async move {
                    task.seal(group).await;
                    let _ = reply.send(Ok(()));
                });
            }
            Command::Collect { live_percent, segments_max, reply } => {
                let task = Rc::clone(inner);
                inner.tasks.spawn(async move {
                    let _ = reply.send(task.collect(live_percent, segments_max).await);
                });
            }
            Command::Cold(command) => inner.cold(command),
            Command::Status { reply } => {
                let _ = reply.send(Ok(inner.status()));
            }
            Command::Close { reply } => {
                let task = Rc::clone(inner);
                inner.tasks.spawn(async move {
                    let _ = reply.send(task.close().await);
                });
            }
        }
    }

    /// Takes a new drive in the place of another, and makes again on it what that one held. Requests for the drive that come
    /// after this are for the new one; false, and there is none, if it was refused.
    pub(crate) fn replace(&self, drive: usize, new: &NewDrive, reply: Reply<ScrubReport>) -> bool {
        let observing = self.inner.observing.get();
        if let Err(refusal) = self.inner.admit(drive, new.id, new.was, new.bytes) {
            let _ = reply.send(Err(refusal));
            return false;
        }
        if observing && !self.inner.observing.get() {
            self.inner.go_on_rebuilding(Some(drive));
        }
        let task = Rc::clone(&self.inner);
        self.inner.tasks.spawn(async move {
            let _ = reply.send(task.replace(drive).await);
        });
        true
    }

    /// Takes a drive's answer.
    pub(crate) fn completed(&self, completed: Completed) {
        let inner = &self.inner;
        match inner.ports.complete(&inner.tasks, completed) {
            None => {}
            Some((Call::Cell { flight, asked }, completed)) => inner.landed(flight, asked, completed),
            Some((Call::Record(reading), completed)) => inner.record(reading, completed),
        }
    }

    /// To be called when everything that was at hand was taken: batches that need not wait are closed, tasks run.
    pub(crate) fn settle(&self) {
        self.inner.tasks.resume();
        loop {
            self.inner.put_more.set(false);
            self.inner.tasks.run();
            self.inner.fill();
            self.inner.read_waiting();
            self.inner.tasks.run();
            if !self.inner.put_more.get() {
                return;
            }
        }
    }

    /// Whether there is more to do at once, without any event: somebody let others have their turn.
    pub(crate) fn wants_turn(&self) -> bool {
        self.inner.tasks.has_paused()
    }

    /// The next request for a drive.
    pub(crate) fn next(&self) -> Option<Outgoing> {
        self.inner.ports.next()
    }

    /// The number of the newest batch up to which everything is in the index, or never will be.
    pub(crate) fn position(&self) -> u64 {
        self.inner.position()
    }

    /// Whether objects of the cold tier have to be read before it is known what is absent.
    pub(crate) fn has_unread(&self) -> bool {
        !self.inner.unread.borrow().is_empty()
    }

    /// How the store is.
    #[cfg(test)]
    pub(crate) fn status(&self) -> Status {
        self.inner.status()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // They hold what they run in.
        self.inner.tasks.clear();
    }
}
