//! The index as its users see it, and what its two threads share.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use super::catalog::{Catalog, remove_others};
use super::entry::{Key, StatementId};
use super::error::IndexError;
use super::feed::{self, FedBlock, Memtable, Work};
use super::manifest::{MANIFEST_FILE, Manifest};
use super::merge;
use crate::store::poison::Poison;
use crate::store::{HEIGHT_MAX, Location, POSITION_MAX, durable};

/// Default memtable: 900,000 entries just fit a hash table of 2^20 places, 26 MB; while one is flushed
/// a second fills.
const MEMTABLE_ENTRIES: usize = 900_000;

/// Default bound of the queue: four seconds of 60,000 statements, 4 MB. A lookup scans the queue, which
/// takes it a tenth of a millisecond at the bound.
const LAG_STATEMENTS_MAX: usize = 262_144;

/// Default number of unmerged runs at which flushing waits for the merger.
const FRESH_RUNS_MAX: usize = 16;

/// Sizes that tests and benchmarks vary.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// Entries held in RAM before they are written as a run.
    pub memtable_entries: usize,
    /// Statements that may wait in the queue before [`StatementIndex::put_block`] waits. One block is
    /// always taken, however large.
    pub lag_statements_max: usize,
    /// Unmerged runs at which flushing waits for the merger: bounds the runs a lookup asks.
    pub fresh_runs_max: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            memtable_entries: MEMTABLE_ENTRIES,
            lag_statements_max: LAG_STATEMENTS_MAX,
            fresh_runs_max: FRESH_RUNS_MAX,
        }
    }
}

impl IndexOptions {
    pub(super) fn memtable(&self) -> Memtable {
        Memtable::with_capacity(self.memtable_entries)
    }
}

/// Sizes and counters of an index, for metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexFigures {
    /// Entries in runs and memory; an id entered twice counts twice until its runs are merged.
    pub entries: u64,
    /// Runs on disk.
    pub runs: usize,
    /// Bytes of the runs.
    pub bytes: u64,
    /// Bytes of memory that entries outside of runs hold, free places of their tables included.
    pub memory_bytes: u64,
    /// Statements put but still in the queue.
    pub lag_statements: usize,
    /// Times that [`StatementIndex::put_block`] had to wait.
    pub stalls: u64,
    /// Time spent waiting there.
    pub stall_seconds: f64,
    /// Time spent merging, on the background thread.
    pub merge_seconds: f64,
}

/// The statement index; see the [module](super) for how it works.
///
/// Shared by reference among threads. Dropping it stops the threads and leaves what is not flushed to
/// be put again; [`StatementIndex::flush`] before that saves the work.
#[derive(Debug)]
pub struct StatementIndex {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _lock: File,
}

impl StatementIndex {
    /// Opens or creates the index in `directory` and starts its two threads.
    ///
    /// # Errors
    /// `index_corrupt` ([`StatementIndex::reset`] and put all blocks again), `store_locked`, `store_io`.
    pub fn open(directory: &Path, options: IndexOptions) -> Result<Self, IndexError> {
        let lock = lock(directory)?;
        let catalog = Catalog::open(directory)?;
        let complete_through = catalog.complete_through();
        let shared = Arc::new(Shared {
            options,
            catalog,
            memory: RwLock::new(Memory { memtable: options.memtable(), flushing: None }),
            control: Mutex::new(Control {
                put_through: complete_through,
                inserted_through: complete_through,
                flushed_through: complete_through,
                ..Control::default()
            }),
            changed: Condvar::new(),
            poison: Poison::default(),
            stalls: AtomicU64::new(0),
            stall_micros: AtomicU64::new(0),
            merge_micros: AtomicU64::new(0),
        });
        let mut index = Self { shared, threads: Vec::with_capacity(2), _lock: lock };
        for (name, body) in [("index-feed", feed::run as fn(&Shared)), ("index-merge", merge::run)] {
            let shared = Arc::clone(&index.shared);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                let _guard = PanicGuard(&shared);
                body(&shared);
            });
            index.threads.push(thread.map_err(IndexError::io("start a thread"))?);
        }
        Ok(index)
    }

    /// Removes an index that is not open, to be fed from the first block on.
    ///
    /// # Errors
    /// `store_locked`, `store_io`.
    pub fn reset(directory: &Path) -> Result<(), IndexError> {
        let _lock = lock(directory)?;
        durable::remove_if_present(&directory.join(MANIFEST_FILE))
            .and_then(|()| durable::sync_directory(directory))
            .map_err(IndexError::io("remove the manifest"))?;
        remove_others(directory, &Manifest::default())
    }

    /// Enters the statements of the next block, `ids[i]` at position i. Waits while too much is queued;
    /// when it returns, lookups find the statements, but nothing is durable. The first block put into an
    /// empty index may have any height.
    ///
    /// # Errors
    /// `height_gap`, `index_location_range`, `store_poisoned`.
    pub fn put_block(&self, height: u64, ids: &[StatementId]) -> Result<(), IndexError> {
        if height > HEIGHT_MAX || u32::try_from(ids.len()).map_or(true, |count| count > POSITION_MAX) {
            return Err(IndexError::LocationRange { height, statements: ids.len() });
        }
        let block = FedBlock { height, keys: ids.iter().map(Key::of).collect() };
        self.shared.put(block)
    }

    /// Newest location entered for an id. The caller compares the full id with the block it points to.
    ///
    /// # Errors
    /// `index_corrupt`, `store_io`, `store_poisoned`.
    pub fn lookup(&self, id: &StatementId) -> Result<Option<Location>, IndexError> {
        self.shared.check_poison()?;
        let key = Key::of(id);
        // In the order in which an entry travels, so that it cannot pass by unseen.
        let queued: Vec<Arc<FedBlock>> = self.shared.control().queue.iter().rev().map(Arc::clone).collect();
        if let Some(location) = queued.iter().find_map(|block| block.find(key)) {
            return Ok(Some(location));
        }
        if let Some(packed) = self.shared.memory.read().unwrap_or_else(PoisonError::into_inner).find(key) {
            return Ok(Some(Location::unpack(packed)));
        }
        for member in self.shared.catalog.members().iter().rev() {
            if let Some(packed) = member.run.lookup(key)? {
                return Ok(Some(Location::unpack(packed)));
            }
        }
        Ok(None)
    }

    /// Height up to which the runs on disk hold every statement: after opening, the blocks behind it are
    /// to be put again. `None` while nothing was flushed.
    #[must_use]
    pub fn complete_through(&self) -> Option<u64> {
        self.shared.control().flushed_through
    }

    /// Height of the last block put.
    #[must_use]
    pub fn put_through(&self) -> Option<u64> {
        self.shared.control().put_through
    }

    /// Waits until everything put before is durable.
    ///
    /// # Errors
    /// `store_poisoned`.
    pub fn flush(&self) -> Result<(), IndexError> {
        let mut control = self.shared.control();
        let Some(target) = control.put_through else { return Ok(()) };
        control.flush_through = control.flush_through.max(Some(target));
        self.shared.changed.notify_all();
        while control.flushed_through < Some(target) {
            self.shared.check_poison()?;
            control = self.shared.wait(control);
        }
        Ok(())
    }

    /// Sizes and counters for metrics.
    #[must_use]
    pub fn figures(&self) -> IndexFigures {
        let seconds =
            |micros: &AtomicU64| std::time::Duration::from_micros(micros.load(Ordering::Relaxed)).as_secs_f64();
        let lag_statements = self.shared.control().queued_statements;
        let (in_memory, tables_bytes) = {
            let memory = self.shared.memory.read().unwrap_or_else(PoisonError::into_inner);
            (memory.len(), memory.bytes())
        };
        let members = self.shared.catalog.members();
        let in_runs: u64 = members.iter().map(|member| member.run.entries).sum();
        IndexFigures {
            entries: in_runs + (in_memory + lag_statements) as u64,
            runs: members.len(),
            bytes: members.iter().map(|member| member.run.bytes).sum(),
            memory_bytes: (tables_bytes + lag_statements * size_of::<Key>()) as u64,
            lag_statements,
            stalls: self.shared.stalls.load(Ordering::Relaxed),
            stall_seconds: seconds(&self.shared.stall_micros),
            merge_seconds: seconds(&self.shared.merge_micros),
        }
    }
}

impl Drop for StatementIndex {
    fn drop(&mut self) {
        self.shared.control().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the statement index panicked");
            }
        }
    }
}

/// What the callers, the feeder and the merger share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: IndexOptions,
    pub(super) catalog: Catalog,
    pub(super) memory: RwLock<Memory>,
    control: Mutex<Control>,
    /// Anything in `control`, the catalog or the poison changed. One condition serves all waiters: they
    /// are few, and a lost wake-up among several conditions is the harder bug.
    changed: Condvar,
    poison: Poison,
    stalls: AtomicU64,
    stall_micros: AtomicU64,
    pub(super) merge_micros: AtomicU64,
}

/// Entries in RAM that left the queue.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) memtable: Memtable,
    /// The memtable before, while it is being written as a run.
    pub(super) flushing: Option<Arc<Memtable>>,
}

impl Memory {
    fn find(&self, key: Key) -> Option<u64> {
        let flushing = || self.flushing.as_ref().and_then(|memtable| memtable.get(&key));
        self.memtable.get(&key).or_else(flushing).copied()
    }

    fn len(&self) -> usize {
        self.memtable.len() + self.flushing.as_ref().map_or(0, |memtable| memtable.len())
    }

    /// Bytes of both tables: a place and its control byte each, seven of eight places usable.
    fn bytes(&self) -> usize {
        const PLACE_BYTES: usize = size_of::<(Key, u64)>() + 1;
        let table = |memtable: &Memtable| memtable.capacity() * 8 / 7 * PLACE_BYTES;
        table(&self.memtable) + self.flushing.as_ref().map_or(0, |memtable| table(memtable))
    }
}

#[derive(Debug, Default)]
struct Control {
    /// Blocks put and not yet wholly in the memtable, from the oldest to the newest.
    queue: VecDeque<Arc<FedBlock>>,
    queued_statements: usize,
    put_through: Option<u64>,
    inserted_through: Option<u64>,
    flushed_through: Option<u64>,
    blocks_unflushed: u64,
    /// A caller waits for this height to become durable.
    flush_through: Option<u64>,
    stop: bool,
}

impl Shared {
    fn put(&self, block: FedBlock) -> Result<(), IndexError> {
        let mut control = self.control();
        let statements = block.keys.len();
        let is_full = |control: &Control| {
            !control.queue.is_empty() && control.queued_statements + statements > self.options.lag_statements_max
        };
        if is_full(&control) {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            while is_full(&control) && !self.poison.is_set() {
                control = self.wait(control);
            }
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.stall_micros.fetch_add(micros, Ordering::Relaxed);
        }
        self.check_poison()?;
        let expected = control.put_through.map_or(block.height, |height| height + 1);
        if block.height != expected {
            return Err(IndexError::HeightGap { expected, given: block.height });
        }
        control.put_through = Some(block.height);
        control.queued_statements += statements;
        control.queue.push_back(Arc::new(block));
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for the feeder's next work; `None` when it is to end.
    pub(super) fn next_work(&self) -> Option<Work> {
        let mut control = self.control();
        loop {
            if control.stop {
                return None;
            }
            // Before the queue: steady puts must not keep a caller of `flush` waiting.
            let is_inserted = control.inserted_through >= control.flush_through;
            if control.flush_through > control.flushed_through && is_inserted {
                return Some(Work::Flush);
            }
            if let Some(block) = control.queue.front() {
                return Some(Work::Insert(Arc::clone(block)));
            }
            control = self.wait(control);
        }
    }

    /// The block is in the memtable: takes it off the queue, in this order for the sake of lookups.
    /// Returns how many blocks wait for a flush.
    pub(super) fn inserted(&self, block: &FedBlock) -> u64 {
        let mut control = self.control();
        control.queue.pop_front();
        control.queued_statements -= block.keys.len();
        control.inserted_through = Some(block.height);
        control.blocks_unflushed += 1;
        self.changed.notify_all();
        control.blocks_unflushed
    }

    pub(super) fn inserted_through(&self) -> Option<u64> {
        self.control().inserted_through
    }

    pub(super) fn announce_flush(&self, through: u64) {
        let mut control = self.control();
        control.flushed_through = Some(through);
        control.blocks_unflushed = 0;
        self.changed.notify_all();
    }

    pub(super) fn announce_merge(&self) {
        // Taken so that no waiter is between its look and its wait.
        drop(self.control());
        self.changed.notify_all();
    }

    /// The merger waits here until there is something to merge.
    pub(super) fn wait_for_runs(&self) {
        let mut control = self.control();
        let seen = control.flushed_through;
        while !control.stop && control.flushed_through == seen && !self.has_runs_to_merge() {
            control = self.wait(control);
        }
    }

    /// The feeder waits here while the merger is too far behind.
    pub(super) fn wait_for_merges(&self) {
        let mut control = self.control();
        while !control.stop && !self.poison.is_set() && self.fresh_runs() >= self.options.fresh_runs_max {
            control = self.wait(control);
        }
    }

    pub(super) fn should_stop(&self) -> bool {
        self.control().stop || self.poison.is_set()
    }

    /// Ends a thread that cannot go on.
    pub(super) fn fail(&self, operation: &'static str, error: &IndexError) {
        tracing::error!(operation, code = error.code(), %error, "statement index failed");
        self.poison.set();
        drop(self.control());
        self.changed.notify_all();
    }

    fn has_runs_to_merge(&self) -> bool {
        self.fresh_runs() >= merge::FAN_IN
    }

    fn fresh_runs(&self) -> usize {
        self.catalog.members().iter().filter(|member| member.tier == 0).count()
    }

    fn check_poison(&self) -> Result<(), IndexError> {
        if self.poison.is_set() { Err(IndexError::Poisoned) } else { Ok(()) }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, control: MutexGuard<'a, Control>) -> MutexGuard<'a, Control> {
        self.changed.wait(control).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Poisons the index when its thread panics: callers must not wait for a thread that is gone.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison.set();
            drop(self.0.control());
            self.0.changed.notify_all();
        }
    }
}

fn lock(directory: &Path) -> Result<File, IndexError> {
    durable::create_directory(directory).map_err(IndexError::io("create the directory"))?;
    durable::lock_directory(directory)
        .map_err(IndexError::io("lock the directory"))?
        .ok_or_else(|| IndexError::Locked(directory.to_owned()))
}
