//! The store, as other threads see it.

use std::fmt;
use std::fs::{File, TryLockError};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use stele_accel_hash::HashAlgorithm;
use stele_device::{BlockDevice, Disk, Traffic};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::core::{self, Command, Found, NewDrive, Pools, Put, Reply, Shape, UNREAD_RETRY_AFTER, Uploads};
use crate::engine::{self, Event, Inbox};
use crate::format::{BLOCK_BYTES, Kind, RECORD_BYTES_MAX, checksum};
use crate::index::{self, Index, IndexError};
use crate::location::Location;
use crate::{ColdReader, CollectReport, Group, Listing, ScrubReport, Status, StorageError};

/// How the drives of a new store are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns of a segment that hold records.
    pub data: usize,
    /// Columns that hold their parity: so many drives may be lost.
    pub parity: usize,
    /// Hash of content roots.
    pub hash: HashAlgorithm,
    /// Bytes of a segment's column: whole blocks of 4,096, up to 256 MiB.
    pub slot_bytes: u64,
    /// The lost store whose place the new one takes: the objects that it has in the cold tier can be adopted then.
    pub successor_of: Option<LostStore>,
}

/// A store whose drives are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostStore {
    /// Its id, which the names of its objects in the cold tier begin with.
    pub id: [u8; 16],
    /// A number above those of all its segments: none is given again.
    pub segments: u32,
}

impl Default for Layout {
    /// 8 + 3 columns of 16 MiB: segments of 128 MiB.
    fn default() -> Self {
        Self { data: 8, parity: 3, hash: HashAlgorithm::Sha256, slot_bytes: 16 << 20, successor_of: None }
    }
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of records that may be on their way at a time. Who puts more waits.
    pub intake_bytes_max: usize,
    /// How the index is kept.
    pub index: index::Options,
    /// How drives are opened; the store's own pools are added.
    pub device: stele_device::Options,
}

impl Default for Options {
    fn default() -> Self {
        let device = stele_device::Options { depth: 64, ..stele_device::Options::default() };
        Self { intake_bytes_max: 128 << 20, index: index::Options::default(), device }
    }
}

/// Beside the index: a file of it was found damaged, and the next opening makes it again.
const DOUBT_FILE: &str = "damaged";

/// Bytes that a permit of the intake stands for.
const PERMIT_BYTES: usize = 4096;

/// Reads of one record, when it is moved again and again meanwhile.
const ATTEMPTS_MAX: usize = 8;

/// Records that are read at a time. More wait, since there are no buffers for them.
const READS_MAX: usize = 1024;

/// What is done with the index that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It is used, or made again if it is damaged.
    IfSound,
    /// It is used, and damage is an error.
    AsItIs,
    /// It is made again.
    Anew,
}

/// Comes when a record is durable.
pub(crate) type Answer = oneshot::Receiver<Result<(), StorageError>>;

/// A store on its drives. Dropping it ends its thread; [`Store::close`] spares the next opening a replay.
pub struct Store {
    inbox: Arc<Inbox>,
    index: Arc<Index>,
    pub(crate) shape: Shape,
    intake: Arc<Semaphore>,
    /// How many wait for a place in it.
    crowd: AtomicUsize,
    reading: Semaphore,
    options: Options,
    pools: Pools,
    doubt: PathBuf,
    pub(crate) uploads: Uploads,
    /// What reads the cold tier.
    pub(crate) cold: RwLock<Option<Arc<dyn ColdReader>>>,
    /// Objects of it have to be read before it is known what is absent.
    unread: Arc<AtomicBool>,
    /// Held as long as the drives are this store's.
    locks: Mutex<Vec<File>>,
    /// Where the drives are, by their numbers; none for those that are missing, or of no path.
    paths: Mutex<Vec<Option<PathBuf>>>,
    stopped: Arc<(Mutex<bool>, Condvar)>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Whether a drive is there to be opened: what the kernel knows nothing of may be, and says so then.
    ///
    /// # Errors
    /// The system's, if it cannot be looked at.
    pub fn may_open(path: &Path) -> std::io::Result<bool> {
        if Disk::is_of_driver(path) { Ok(true) } else { path.try_exists() }
    }

    /// Makes a store of drives: block devices or preallocated files, whatever is on them.
    ///
    /// # Errors
    /// `Shape` if they cannot make one; `Drive` if one fails.
    pub fn format(drives: &[&dyn BlockDevice], layout: &Layout) -> Result<(), StorageError> {
        let blocks = layout.slot_bytes / BLOCK_BYTES as u64;
        let slot_blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let Layout { data, parity, hash, successor_of, .. } = *layout;
        let (store, segments) = match successor_of {
            Some(LostStore { id, segments }) => (id, segments),
            None => (random_id()?, 0),
        };
        let shape = Shape { store, data, parity, hash, slot_blocks };
        let ids = drives.iter().map(|_| random_id()).collect::<Result<Vec<_>, _>>()?;
        core::format(drives, &shape, &ids, segments)
    }

    /// As [`Store::format`], of the devices or files at `paths`, none of which may be part of an open store.
    ///
    /// # Errors
    /// As [`Store::format`]; `Foreign` if one is open.
    pub fn format_paths(paths: &[PathBuf], layout: &Layout) -> Result<(), StorageError> {
        let _locks = lock_drives(paths)?;
        let drives = open_drives(paths, &Options::default().device)?;
        let drives: Vec<&dyn BlockDevice> = drives.iter().map(|drive| drive as _).collect();
        Self::format(&drives, layout)
    }

    /// Opens the store that is on the drives at `paths`, in any order, with its index in a folder of `directory`. An index that is
    /// damaged or lost is made again.
    ///
    /// # Errors
    /// `Foreign` if there is no store, or a drive of another; `TooFewDrives`; `Index`; `Drive`.
    pub fn open(paths: &[PathBuf], directory: &Path, options: &Options) -> Result<Self, StorageError> {
        let locks = lock_drives(paths)?;
        let found = {
            // Without the pools, whose size is known only when the store is.
            let drives = open_drives(paths, &options.device)?;
            let drives: Vec<&dyn BlockDevice> = drives.iter().map(|drive| drive as _).collect();
            core::identify(&drives)?
        };
        let pools = Pools::new(&found.shape())?;
        let device = stele_device::Options { pools: pools.all(), ..options.device.clone() };
        let drives = open_drives(paths, &device)?;
        let drives: Vec<_> = drives.into_iter().map(|drive| Arc::new(drive) as Arc<dyn BlockDevice>).collect();
        let mut store = Self::open_found(&found, &drives, &pools, directory, options)?;
        store.locks = Mutex::new(locks);
        let path = |place: &Option<usize>| place.and_then(|number| paths.get(number).cloned());
        store.paths = Mutex::new(found.drives.iter().map(path).collect());
        Ok(store)
    }

    /// Opens the store that is on drives of any kind.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_drives(
        drives: Vec<Arc<dyn BlockDevice>>,
        directory: &Path,
        options: &Options,
    ) -> Result<Self, StorageError> {
        let (found, pools) = Self::identify(&drives)?;
        Self::open_found(&found, &drives, &pools, directory, options)
    }

    /// As [`Store::open_drives`], but an index that is damaged is an error.
    pub(crate) fn open_drives_as_they_are(
        drives: Vec<Arc<dyn BlockDevice>>,
        directory: &Path,
        options: &Options,
    ) -> Result<Self, StorageError> {
        let (found, pools) = Self::identify(&drives)?;
        Self::open_with_index(&found, &drives, &pools, directory, options, Kept::AsItIs)
    }

    fn identify(drives: &[Arc<dyn BlockDevice>]) -> Result<(Found, Pools), StorageError> {
        let borrowed: Vec<&dyn BlockDevice> = drives.iter().map(|drive| &**drive).collect();
        let found = core::identify(&borrowed)?;
        let pools = Pools::new(&found.shape())?;
        Ok((found, pools))
    }

    fn open_found(
        found: &Found,
        drives: &[Arc<dyn BlockDevice>],
        pools: &Pools,
        directory: &Path,
        options: &Options,
    ) -> Result<Self, StorageError> {
        match Self::open_with_index(found, drives, pools, directory, options, Kept::IfSound) {
            // A page of it that is damaged is met only when it is merged or asked for. The segments have it all.
            Err(StorageError::Index { damaged: true, .. }) => {
                Self::open_with_index(found, drives, pools, directory, options, Kept::Anew)
            }
            opened => opened,
        }
    }

    fn open_with_index(
        found: &Found,
        drives: &[Arc<dyn BlockDevice>],
        pools: &Pools,
        directory: &Path,
        options: &Options,
        kept: Kept,
    ) -> Result<Self, StorageError> {
        let failed = |error: IndexError| StorageError::index(&error);
        // An index is that of one store.
        let name: String = found.superblock.store.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory)
            .map_err(|error| StorageError::Index { reason: error.to_string(), damaged: false })?;
        let doubt = directory.join(DOUBT_FILE);
        if kept == Kept::AsItIs && doubt.exists() {
            return Err(StorageError::Index { reason: "a file of it was found damaged".to_owned(), damaged: true });
        }
        let anew = kept == Kept::Anew || doubt.exists();
        let opened = if anew { None } else { Some(Index::open(&directory, options.index)) };
        let index = match opened {
            Some(Err(error)) if !error.is_damage() || kept == Kept::AsItIs => Err(error),
            Some(Ok(index)) => Ok(index),
            _ => Index::open_empty(&directory, options.index),
        };
        let index = Arc::new(index.map_err(failed)?);
        let inbox = Inbox::new();
        let position = Arc::new(AtomicU64::new(index.position()));
        let unread = Arc::new(AtomicBool::new(false));
        let (told, opened) = mpsc::channel();
        let uploads = Uploads::default();
        let members: Vec<_> =
            found.drives.iter().map(|place| place.map(|number| Arc::clone(&drives[number]))).collect();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let stopped = |error: std::io::Error| StorageError::shape(format!("no thread can be started: {error}"));
        let running = {
            let (index, pools, uploads) = (Arc::clone(&index), pools.clone(), Arc::clone(&uploads));
            let (inbox, position, unread) = (Arc::clone(&inbox), Arc::clone(&position), Arc::clone(&unread));
            let found = Found { superblock: found.superblock.clone(), drives: found.drives.clone() };
            let run = move || engine::run(&found, members, (index, pools, uploads), &inbox, (&position, &unread), told);
            thread("payload").spawn(run).map_err(stopped)?
        };
        let mut store = Self {
            inbox,
            index,
            shape: found.shape(),
            // At least one record of the longest.
            intake: Arc::new(Semaphore::new(options.intake_bytes_max.max(2 * RECORD_BYTES_MAX) / PERMIT_BYTES)),
            crowd: AtomicUsize::new(0),
            reading: Semaphore::new(READS_MAX),
            options: options.clone(),
            pools: pools.clone(),
            doubt: doubt.clone(),
            uploads,
            locks: Mutex::default(),
            paths: Mutex::default(),
            cold: RwLock::default(),
            unread,
            stopped: Arc::default(),
            threads: vec![running],
        };
        opened.recv().unwrap_or(Err(StorageError::Stopped))?;
        // It is whole again: what it says was read from the segments, or could be.
        let _ = std::fs::remove_file(&doubt);
        let (index, until) = (Arc::clone(&store.index), Arc::clone(&store.stopped));
        let keep = move || engine::keep_index(&index, &position, &until, &doubt);
        store.threads.push(thread("payload-index").spawn(keep).map_err(stopped)?);
        Ok(store)
    }

    /// The store's id: what its objects in the cold tier are named by, and what a store that takes its place has to have.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.shape.store
    }

    /// Hash of content roots.
    #[must_use]
    pub fn hash(&self) -> HashAlgorithm {
        self.shape.hash
    }

    /// A place among the records on their way, once there is one.
    async fn admit(&self, permits: u32) -> Result<OwnedSemaphorePermit, StorageError> {
        if let Ok(permit) = Arc::clone(&self.intake).try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        // Others may hold their places until more is put, which this one may be in the way of.
        let crowd = Crowd::join(&self.crowd);
        if crowd.first {
            self.inbox.tell(Event::Command(Command::Hurry));
        }
        Arc::clone(&self.intake).acquire_many_owned(permits).await.map_err(|_| StorageError::Stopped)
    }

    /// Hands a record over to be kept, once there is room for it among those on their way. One that is not urgent may stay
    /// in memory until more is put, or until [`Store::close`].
    pub(crate) async fn begin_put(
        &self,
        group: Group,
        key: [u8; 32],
        kind: Kind,
        bytes: Bytes,
        time_ms: u64,
        urgent: bool,
    ) -> Result<Answer, StorageError> {
        // Even an empty record takes a place.
        let permits = u32::try_from(bytes.len() / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let permit = Some(self.admit(permits).await?);
        let sum = checksum(&bytes);
        let (reply, answer) = oneshot::channel();
        let put = Put { group, key, kind, bytes, sum, time_ms, ends: 0, moved: false, urgent, permit, reply };
        self.inbox.tell(Event::Command(Command::Put(put)));
        // Told after the record, so that the one who came to wait before it could be heard is not waiting for it.
        if !urgent && self.crowd.load(Ordering::SeqCst) > 0 {
            self.inbox.tell(Event::Command(Command::Hurry));
        }
        Ok(answer)
    }

    /// Keeps a record; when this returns it is durable on k + m drives, less those that have failed.
    pub(crate) async fn put_record(
        &self,
        group: Group,
        key: [u8; 32],
        kind: Kind,
        bytes: Bytes,
        time_ms: u64,
    ) -> Result<(), StorageError> {
        self.begin_put(group, key, kind, bytes, time_ms, true).await?.await.unwrap_or(Err(StorageError::Stopped))
    }

    /// Reads a record, whose bytes are as they were put.
    pub(crate) async fn record(&self, key: &[u8; 32]) -> Result<(Kind, Bytes), StorageError> {
        let _permit = self.reading.acquire().await.map_err(|_| StorageError::Stopped)?;
        let mut location = self.locate(key)?;
        for _ in 0..ATTEMPTS_MAX {
            match self.ask(|reply| Command::Read { location, reply }).await {
                Ok(piece) => return Ok((location.kind, piece)),
                Err(error) => {
                    // It may have been moved, and its place given to others.
                    let now = self.locate(key)?;
                    if now == location {
                        // Its segment is in the cold tier alone, or more of it was lost than can be made again.
                        return self.cold_record(location, error).await.map(|record| (location.kind, record));
                    }
                    location = now;
                }
            }
        }
        Err(StorageError::Stopped)
    }

    pub(crate) fn locate(&self, key: &[u8; 32]) -> Result<Location, StorageError> {
        let found = self.index.get(key).map_err(|error| {
            if error.is_damage() {
                engine::doubt(&self.doubt);
            }
            StorageError::index(&error)
        })?;
        let found = found.and_then(|found| Location::decode(&found));
        found.ok_or_else(|| {
            if self.unread.load(Ordering::Acquire) {
                return StorageError::Busy { retry_after: UNREAD_RETRY_AFTER };
            }
            StorageError::NotFound
        })
    }

    /// Ends a record; whether there was one.
    pub(crate) async fn remove_record(&self, key: [u8; 32], time_ms: u64) -> Result<bool, StorageError> {
        let _permit = self.admit(1).await?;
        self.ask(|reply| Command::Remove { key, time_ms, reply }).await
    }

    /// Reads everything that is stored, mends what is damaged, and removes parts of uploads that came to nothing more than a
    /// day before `now_ms`.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn scrub(&self, now_ms: u64) -> Result<ScrubReport, StorageError> {
        let mut report = self.scrub_some(0, 1, now_ms).await?;
        while let Some(next) = report.next {
            report.add(&self.scrub_some(next, 1, now_ms).await?);
        }
        Ok(report)
    }

    /// As [`Store::scrub`], so many segments from `from` on; the report says where to go on. How fast a store
    /// is scrubbed is for the caller to say, by when it calls.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn scrub_some(&self, from: u32, segments_max: usize, now_ms: u64) -> Result<ScrubReport, StorageError> {
        self.ask(|reply| Command::Scrub { from, segments_max, now_ms, reply }).await
    }

    /// Lists the objects of `segments_max` segments from `from` on; of one that is written to, those that are durable by now.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn list(&self, from: u32, segments_max: usize) -> Result<Listing, StorageError> {
        self.ask(|reply| Command::List { from, segments_max, years: 0..=u16::MAX, reply }).await
    }

    /// As [`Store::list`], of the first segment from `from` on whose group is of one of `years`.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn list_years(&self, from: u32, years: RangeInclusive<u16>) -> Result<Listing, StorageError> {
        self.ask(|reply| Command::List { from, segments_max: 1, years, reply }).await
    }

    /// Whether something is stored under this root, wherever it lies.
    ///
    /// # Errors
    /// `Index`, `Busy`.
    pub fn has(&self, root: &[u8; 32]) -> Result<bool, StorageError> {
        match self.locate(root) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The group of an object.
    ///
    /// # Errors
    /// `NotFound` if it is not there; `Index`, `Stopped`.
    pub async fn group(&self, root: &[u8; 32]) -> Result<Group, StorageError> {
        let key = *root;
        self.ask(|reply| Command::Group { key, reply }).await
    }

    /// All that the index says.
    pub(crate) fn entries(&self) -> index::Entries {
        self.index.entries()
    }

    /// Frees the segments of which at most `live_percent` is alive, `segments_max` at most, by moving what lives.
    ///
    /// # Errors
    /// `ReadOnly`, `Index`, `Stopped`.
    pub async fn collect(&self, live_percent: u8, segments_max: usize) -> Result<CollectReport, StorageError> {
        self.ask(|reply| Command::Collect { live_percent, segments_max, reply }).await
    }

    /// Takes the device at `path` in the place of drive `drive`, and makes again on it what it should hold. Whatever is on
    /// the device is lost, unless that is a drive of this store. Records are put and read meanwhile.
    ///
    /// # Errors
    /// `Shape` if it is too small; `Drive` if it fails.
    pub async fn replace(&self, drive: usize, path: &Path) -> Result<ScrubReport, StorageError> {
        let device = stele_device::Options { pools: self.pools.all(), ..self.options.device.clone() };
        let lock = lock_drives(std::slice::from_ref(&path.to_owned()))?;
        let new = Disk::open(path, &device).map_err(|error| StorageError::drive(drive, &error))?;
        let report = self.replace_with(drive, Arc::new(new)).await?;
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).extend(lock);
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = paths.get_mut(drive) {
            *known = Some(path.to_owned());
        }
        Ok(report)
    }

    /// Where the drives are, by their numbers; none for those that are missing.
    #[must_use]
    pub fn paths(&self) -> Vec<Option<PathBuf>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`Store::replace`], with a drive of any kind.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub async fn replace_with(&self, drive: usize, device: Arc<dyn BlockDevice>) -> Result<ScrubReport, StorageError> {
        let was = core::member_id(&*device, &self.shape.store)?;
        let new = NewDrive { id: random_id()?, was, bytes: device.geometry().bytes() };
        let (reply, answer) = oneshot::channel();
        self.inbox.tell(Event::Replace { drive, device, new, reply });
        answer.await.unwrap_or(Err(StorageError::Stopped))
    }

    /// Figures of the store, for people and metrics.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn status(&self) -> Result<Status, StorageError> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// What the drives in each place were asked for since the store was opened, and how long their answers took.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn traffic(&self) -> Result<Vec<Traffic>, StorageError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.tell(Event::Traffic { reply });
        answer.await.unwrap_or(Err(StorageError::Stopped))
    }

    /// Figures of the index.
    #[must_use]
    pub fn index_figures(&self) -> index::Figures {
        self.index.figures()
    }

    /// Seals what is open and makes the index durable, so that the next opening has nothing to replay.
    ///
    /// # Errors
    /// `Index`; `Stopped`.
    pub async fn close(self) -> Result<(), StorageError> {
        self.ask(|reply| Command::Close { reply }).await
    }

    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.tell(Event::Command(command(reply)));
        answer.await.unwrap_or(Err(StorageError::Stopped))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        *self.stopped.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.1.notify_all();
        self.inbox.tell(Event::Stop);
        for thread in self.threads.drain(..) {
            // A panic of the thread was printed.
            let _ = thread.join();
        }
    }
}

/// Among those who wait for a place in the intake.
struct Crowd<'s> {
    count: &'s AtomicUsize,
    /// None was waiting.
    first: bool,
}

impl<'s> Crowd<'s> {
    fn join(count: &'s AtomicUsize) -> Self {
        Self { count, first: count.fetch_add(1, Ordering::SeqCst) == 0 }
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("shape", &self.shape).finish_non_exhaustive()
    }
}

const _: () = assert!(RECORD_BYTES_MAX.is_multiple_of(PERMIT_BYTES), "permits are whole");

fn open_drives(paths: &[PathBuf], options: &stele_device::Options) -> Result<Vec<Disk>, StorageError> {
    let open = |(number, path): (usize, &PathBuf)| {
        Disk::open(path, options).map_err(|error| StorageError::drive(number, &error))
    };
    paths.iter().enumerate().map(open).collect()
}

/// Keeps other processes from opening a store on the same drives (flock(2)). A driver in this process sees to that by itself.
pub(crate) fn lock_drives(paths: &[PathBuf]) -> Result<Vec<File>, StorageError> {
    let lock = |(drive, path): (usize, &PathBuf)| {
        let refused = |reason: String| StorageError::Foreign { drive, what: reason };
        let file = File::open(path).map_err(|error| refused(format!("it cannot be opened: {error}")))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(refused("it is open elsewhere".to_owned())),
            Err(TryLockError::Error(error)) => Err(refused(format!("it cannot be locked: {error}"))),
        }
    };
    paths.iter().enumerate().filter(|(_, path)| !Disk::is_of_driver(path)).map(lock).collect()
}

pub(crate) fn random_id() -> Result<[u8; 16], StorageError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| StorageError::shape(format!("no random numbers: {error}")))?;
    Ok(id)
}
