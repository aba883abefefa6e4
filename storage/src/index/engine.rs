//! The index itself: what is in memory, and in which order it becomes tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use super::IndexError;
use super::directory;
use super::entry::{Entry, Key, KeyPrefix, Location, Prefix, prefix_of};
use super::manifest::Manifest;
use super::merge::{self, Merge, Source};
use super::policy::{Job, Options, Patience, job_of_level_zero, job_of_shards};
use super::table::{Place, Table};
use super::tables::Tables;
use super::writer::write_table;

/// Changes that are in no table yet; `None` is a removal.
type Memtable = BTreeMap<Prefix, Option<Location>>;

/// Memory of an entry of a memtable, about: a tree's nodes are full by two thirds.
const MEMTABLE_ENTRY_BYTES: usize = 52;

/// The map from keys to locations. All methods can be called from several threads.
///
/// Changes have one writer, which alone knows their positions: [`Index::put`], [`Index::remove`], [`Index::flush`] and
/// [`Index::clear`] are for it. [`Index::maintain`] may run beside them, and any number of [`Index::get`].
#[derive(Debug)]
pub struct Index {
    directory: PathBuf,
    options: Options,
    view: RwLock<View>,
    next_table: AtomicU64,
    /// Taken by whoever merges tables of level zero, before `commit`.
    merging_zero: Mutex<()>,
    /// Taken by whoever merges tables of a shard, before `commit`.
    merging_shards: Mutex<()>,
    /// Taken by whoever replaces the manifest, before `view`; whether that failed once.
    commit: Mutex<bool>,
    _lock: File,
}

/// What a get looks into, newest first.
#[derive(Debug)]
struct View {
    memtable: Memtable,
    /// What is being flushed.
    frozen: Arc<Memtable>,
    tables: Arc<Tables>,
    /// All changes before it are in the tables.
    position: u64,
}

/// Sizes of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Live tables.
    pub tables: usize,
    /// Tables over all keys, which every get looks into.
    pub level_zero_tables: usize,
    /// Entries of the tables: also what newer ones supersede, and removals.
    pub entries: u64,
    /// Of these, removals.
    pub removals: u64,
    /// Changes that are in no table yet.
    pub memtable_entries: usize,
    /// Bytes of the tables' files.
    pub file_bytes: u64,
    /// Bytes of memory: filters and first keys of the tables, and about those of the memtable.
    pub memory_bytes: usize,
}

impl Index {
    /// Opens the index of a directory; an empty one if there is none. What crashes left there is removed.
    ///
    /// The number of shards is that with which the index was created.
    ///
    /// # Errors
    /// [`IndexError::Locked`], [`IndexError::OutOfBounds`], [`IndexError::Io`], and what [`IndexError::is_damage`] says.
    pub fn open(directory: &Path, options: Options) -> Result<Self, IndexError> {
        options.check()?;
        Self::open_locked(directory, options, directory::lock(directory)?)
    }

    /// Opens an empty index, at position 0, whatever the directory has of one.
    ///
    /// # Errors
    /// [`IndexError::Locked`], [`IndexError::OutOfBounds`], [`IndexError::Io`].
    pub fn open_empty(directory: &Path, options: Options) -> Result<Self, IndexError> {
        options.check()?;
        let lock = directory::lock(directory)?;
        directory::empty(directory)?;
        Self::open_locked(directory, options, lock)
    }

    fn open_locked(directory: &Path, options: Options, lock: File) -> Result<Self, IndexError> {
        let manifest = match Manifest::read(directory)? {
            Some(manifest) => manifest,
            // The manifest comes before any table, so without it something else than a crash was here.
            None if !directory::tables(directory)?.is_empty() => {
                return Err(IndexError::Missing { path: directory::manifest_path(directory) });
            }
            None => {
                let manifest = Manifest::of(&Tables::new(options.shards), 0, 1);
                directory::replace_manifest(directory, &manifest.encode())?;
                manifest
            }
        };
        let mut tables = Tables::new(manifest.shards);
        for listing in &manifest.tables {
            tables.push_oldest(Table::open(directory, listing)?);
        }
        let live: BTreeSet<u64> = manifest.tables.iter().map(|table| table.id).collect();
        directory::remove_leftovers(directory, &live)?;
        let (memtable, frozen, tables) = (Memtable::new(), Arc::default(), Arc::new(tables));
        Ok(Self {
            directory: directory.to_owned(),
            options: Options { shards: manifest.shards, ..options },
            view: RwLock::new(View { memtable, frozen, tables, position: manifest.position }),
            next_table: AtomicU64::new(manifest.next_table),
            merging_zero: Mutex::new(()),
            merging_shards: Mutex::new(()),
            commit: Mutex::new(false),
            _lock: lock,
        })
    }

    /// How the index is kept.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// The position of the last flush: a crash loses no change before it, and all after it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.view().position
    }

    /// Sets the location of a key.
    ///
    /// # Errors
    /// [`IndexError::MemtableFull`]: it was not set.
    pub fn put(&self, key: &Key, location: Location) -> Result<(), IndexError> {
        self.change(key, Some(location))
    }

    /// Removes a key, which need not be there.
    ///
    /// # Errors
    /// [`IndexError::MemtableFull`]: it was not removed.
    pub fn remove(&self, key: &Key) -> Result<(), IndexError> {
        self.change(key, None)
    }

    fn change(&self, key: &Key, location: Option<Location>) -> Result<(), IndexError> {
        let mut view = self.view_mut();
        let entries = view.memtable.len();
        if entries >= 2 * self.options.memtable_entries {
            return Err(IndexError::MemtableFull { entries });
        }
        view.memtable.insert(prefix_of(key), location);
        Ok(())
    }

    /// Whether so much was changed that it should be flushed.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        self.view().memtable.len() >= self.options.memtable_entries
    }

    /// The location of a key, as it was last set. What is there has to be compared with the key: see the module.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`], [`IndexError::Io`].
    pub fn get(&self, key: &Key) -> Result<Option<Location>, IndexError> {
        let prefix = prefix_of(key);
        let tables = {
            let view = self.view();
            if let Some(location) = view.memtable.get(&prefix).or_else(|| view.frozen.get(&prefix)) {
                return Ok(*location);
            }
            view.tables.clone()
        };
        tables.find(prefix).map(Option::flatten)
    }

    /// Makes all changes so far durable, as those before `position` of the store.
    ///
    /// What is long due of [`Index::maintain`] is done first, so that an owner who is behind with it is slowed down.
    ///
    /// # Errors
    /// [`IndexError::Io`] poisons the index: it can be read, but only opening it again makes it change its files.
    /// [`IndexError::Poisoned`]; of a merge done here, [`IndexError::Corrupt`].
    ///
    /// A position before that of an earlier flush counts as that.
    pub fn flush(&self, mut position: u64) -> Result<(), IndexError> {
        while self.merge(&self.merging_shards, job_of_shards, Patience::Overdue)? {}
        while self.merge(&self.merging_zero, job_of_level_zero, Patience::Overdue)? {}
        let mut poisoned = lock(&self.commit);
        if *poisoned {
            return Err(IndexError::Poisoned);
        }
        let frozen = {
            let mut view = self.view_mut();
            // Whoever asks may have looked at his position before another flush.
            position = position.max(view.position);
            view.frozen = Arc::new(std::mem::take(&mut view.memtable));
            view.frozen.clone()
        };
        // Until the new view has what is frozen, it stays readable where it is; so it does after a failure.
        *poisoned = true;
        let entries = frozen.iter().map(|(prefix, location)| Ok(Entry { prefix: *prefix, location: *location }));
        let place = Place { shard: None, level: 0 };
        let table = write_table(&self.directory, &self.next_table, place, entries)?;
        let tables = self.view().tables.clone();
        let tables = table.map_or(tables.clone(), |table| Arc::new(tables.with_newest(Arc::new(table))));
        self.write_manifest(&tables, position)?;
        let mut view = self.view_mut();
        (view.tables, view.position, view.frozen) = (tables, position, Arc::default());
        *poisoned = false;
        Ok(())
    }

    /// Does a merge that is due and that no other thread does; returns whether there was one.
    ///
    /// Two threads can be of use, since one may take long in a large shard while new tables come to level zero.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] of a table, and [`IndexError::Io`] before the manifest, leave everything as it was. A manifest
    /// that fails poisons the index, as in [`Index::flush`]. [`IndexError::Poisoned`].
    pub fn maintain(&self) -> Result<bool, IndexError> {
        Ok(self.merge(&self.merging_shards, job_of_shards, Patience::Due)?
            || self.merge(&self.merging_zero, job_of_level_zero, Patience::Due)?)
    }

    /// Merges beside flushes and a merge of the other kind: those add tables before the job's, and take none of them. Waits
    /// for another one of its kind only when the job is overdue.
    fn merge(
        &self,
        turn: &Mutex<()>,
        job: fn(&Tables, usize, Patience) -> Option<Job>,
        patience: Patience,
    ) -> Result<bool, IndexError> {
        let job = |tables: &Tables| job(tables, self.options.fanout, patience);
        if job(&self.view().tables).is_none() {
            return Ok(false);
        }
        let turn = match patience {
            Patience::Due => try_lock(turn),
            Patience::Overdue => Some(lock(turn)),
        };
        let Some(_turn) = turn else { return Ok(false) };
        let tables = self.view().tables.clone();
        let Some(job) = job(&tables) else { return Ok(false) };
        let outputs = merge::run(&job, &tables, &self.directory, &self.next_table)?;
        drop(tables);
        let mut poisoned = lock(&self.commit);
        if *poisoned {
            // The outputs are removed when the index is opened again.
            return Err(IndexError::Poisoned);
        }
        let (tables, position) = {
            let view = self.view();
            (Arc::new(view.tables.with_merged(&job, &outputs)), view.position)
        };
        *poisoned = true;
        self.write_manifest(&tables, position)?;
        self.view_mut().tables = tables;
        *poisoned = false;
        // Gets that still read them have them open. What stays is removed when the index is opened.
        job.inputs.iter().for_each(|table| drop(std::fs::remove_file(&table.path)));
        Ok(true)
    }

    /// Forgets everything, durably: the position is 0.
    ///
    /// # Errors
    /// As [`Index::flush`].
    pub fn clear(&self) -> Result<(), IndexError> {
        let _merging = (lock(&self.merging_shards), lock(&self.merging_zero));
        let mut poisoned = lock(&self.commit);
        if *poisoned {
            return Err(IndexError::Poisoned);
        }
        let tables = Arc::new(Tables::new(self.options.shards));
        *poisoned = true;
        self.write_manifest(&tables, 0)?;
        let view = View { memtable: Memtable::new(), frozen: Arc::default(), tables, position: 0 };
        let old = std::mem::replace(&mut *self.view_mut(), view);
        *poisoned = false;
        old.tables.iter().for_each(|table| drop(std::fs::remove_file(&table.path)));
        Ok(())
    }

    /// All keys' first bytes and locations as they are now, in the order of the keys. What is changed, flushed or merged
    /// meanwhile does not show.
    #[must_use]
    pub fn entries(&self) -> Entries {
        let view = self.view();
        let copy = |memtable: &Memtable| -> Source {
            let entries: Vec<Entry> = memtable.iter().map(|(&prefix, &location)| Entry { prefix, location }).collect();
            Box::new(entries.into_iter().map(Ok))
        };
        let mut sources = vec![copy(&view.memtable), copy(&view.frozen)];
        sources.push(Box::new(Merge::of_tables(&view.tables.zero)));
        // One shard after the other: its tables are read only when it is its turn.
        let shards = view.tables.shards.clone().into_iter();
        sources.push(Box::new(shards.flat_map(|tables| Merge::of_tables(&tables))));
        Entries(Merge::new(sources))
    }

    /// About how many keys there are: exact if none was put twice, or removed without being there.
    #[must_use]
    pub fn len_estimate(&self) -> u64 {
        let view = self.view();
        let waiting = view.memtable.values().chain(view.frozen.values());
        let (mut entries, mut removals) = (0, 0);
        waiting.for_each(|location| *if location.is_some() { &mut entries } else { &mut removals } += 1);
        for table in view.tables.iter() {
            entries += table.entries - table.removals;
            removals += table.removals;
        }
        entries.saturating_sub(removals)
    }

    /// Sizes, for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let view = self.view();
        let memtable_entries = view.memtable.len() + view.frozen.len();
        let memory_bytes = memtable_entries * MEMTABLE_ENTRY_BYTES;
        let level_zero_tables = view.tables.zero.len();
        let start = Figures { level_zero_tables, memtable_entries, memory_bytes, ..Figures::default() };
        view.tables.iter().fold(start, |sum, table| Figures {
            tables: sum.tables + 1,
            entries: sum.entries + table.entries,
            removals: sum.removals + table.removals,
            file_bytes: sum.file_bytes + table.bytes,
            memory_bytes: sum.memory_bytes + table.memory_bytes(),
            ..sum
        })
    }

    /// Makes tables, whose files are flushed, those that there are.
    fn write_manifest(&self, tables: &Tables, position: u64) -> Result<(), IndexError> {
        directory::sync(&self.directory)?;
        let next_table = self.next_table.load(Ordering::Relaxed);
        directory::replace_manifest(&self.directory, &Manifest::of(tables, position, next_table).encode())
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// A thread that panicked under one of the locks left whole what they guard: it is replaced in single steps.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// An iterator over an index: first bytes of a key, and its location. Nothing follows an error.
pub struct Entries(Merge);

impl Iterator for Entries {
    type Item = Result<(KeyPrefix, Location), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Ok(Entry { location: None, .. }) => {}
                Ok(Entry { prefix, location: Some(location) }) => return Some(Ok((prefix.to_be_bytes(), location))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
