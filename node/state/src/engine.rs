//! The engine: tree, history, write-set log and checkpoints put together.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checkpoint::{Checkpoint, Pace};
use crate::history::{History, Version};
use crate::interface::{Opened, Pairs, Proven, ProvenMany, StateMap};
use crate::moving::Moving;
use crate::pages::{Pages, table_name};
use crate::record::{HEADER_BYTES, Header, encode_batch, value_offsets};
use crate::recovery::{Redo, lock, recover};
use crate::snapshot::{GENERATIONS, Relocation, SnapshotHeader, SnapshotJob, file_name};
use crate::tree::{Standing, Tree, Update, Written};
use crate::values::{FileId, FileSet, Place};
use crate::write_log::{Position, WriteLog};
use crate::{
    CHUNK_BYTES_MAX, Durability, Figures, Hash, HistoryBounds, Key, Layout, MULTI_KEYS_MAX, Options, StateError,
    StateHash, Write,
};

/// Values moved to the newest snapshot per commit, whatever its size, and one more for so many writes. The next snapshot
/// waits for it: by then the log holds at most twice as many writes as there are keys.
const MOVED_PER_COMMIT: usize = 512;
const WRITES_PER_MOVED: usize = 2;

/// A state map whose tree is in memory; a write-set log and checkpoints on disk hold the values and bring it back.
#[derive(Debug)]
pub struct TreeMap {
    tree: Tree,
    history: History,
    options: Options,
    /// `None` for a map that lives in memory only.
    files: Option<Files>,
    /// A snapshot for others, in the making.
    export: Option<SnapshotJob>,
    /// A page could not be written: the tree is behind its log until it is opened again.
    poisoned: bool,
    figures: Figures,
}

#[derive(Debug)]
struct Files {
    directory: PathBuf,
    durability: Durability,
    snapshot_log_bytes: u64,
    log: WriteLog,
    /// The log, open to read values from; none in a map with pages.
    log_file: Option<FileId>,
    /// Files from before the running snapshot.
    old_files: FileSet,
    /// The map on its way into pages.
    moving: Option<Moving>,
    /// Values on their way to the newest snapshot.
    relocation: Option<Relocation>,
    /// Files that only versions below a height need.
    leaving: Vec<(u64, FileSet)>,
    durable_height: Option<u64>,
    job: Option<Checkpoint>,
    /// Whether a checkpoint is wanted however short the log is: the map has another form than it was opened from.
    due: bool,
    /// Bytes of log when the running snapshot began.
    log_bytes_before: u64,
    /// After a failed snapshot: bytes of log at which the next is tried.
    retry_log_bytes: u64,
    /// Keeps other processes out for as long as it is open.
    _lock: File,
}

/// Writes staged on a [`TreeMap`].
#[derive(Debug)]
pub struct Staged {
    update: Update,
    batch: Vec<Write>,
    /// Where each value begins in the record's body.
    offsets: Vec<u32>,
    parent: Hash,
    /// Room for the record's header, then its body.
    record: Vec<u8>,
    writes: u32,
    time: Duration,
}

impl Staged {
    /// The root that the writes lead to.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.update.root_hash()
    }
}

impl TreeMap {
    /// A map that lives in memory only: for replaying a chain and comparing roots, and for tests.
    #[must_use]
    pub fn ephemeral(hash: StateHash) -> Self {
        Self {
            tree: Tree::new(hash, usize::MAX),
            history: History::new(HistoryBounds::ROOTS),
            options: Options::new(hash),
            files: None,
            export: None,
            poisoned: false,
            figures: Figures::default(),
        }
    }

    /// From now on so many threads may work on one batch, see [`Options::threads`].
    pub fn set_threads(&mut self, threads: usize) {
        self.options.threads = threads;
    }

    /// After a page that could not be written nothing is done any more.
    fn check(&self) -> Result<(), StateError> {
        if self.poisoned { Err(StateError::Poisoned) } else { Ok(()) }
    }

    /// Goes on with an export.
    fn go_on_exporting(&mut self, pace: Pace) {
        let Some(job) = &mut self.export else { return };
        job.step(&self.tree, pace.pairs(), pace.waits());
        let height = job.height();
        if let Some(height) = job.take_pin() {
            self.history.unpin(&mut self.tree, height);
        }
        if let Some(mut job) = self.export.take_if(|job| job.is_finished()) {
            // It may have ended since it was asked.
            if let Some(height) = job.take_pin() {
                self.history.unpin(&mut self.tree, height);
            }
            match job.finish() {
                Ok(_) => self.figures.export_height = Some(height),
                Err(_) => self.figures.snapshot_failures += 1,
            }
        }
    }

    /// Goes on with a running snapshot, and starts one when the log has grown enough, after a commit of so many writes whose
    /// record had so many bytes. What fails here is counted and tried again; the commit before it is unaffected.
    fn maintain(&mut self, writes: u32, record: u64) {
        // A disk that cannot keep up must slow the commits down: what is retained for it is memory.
        let pace = Pace::Commit { writes, wait: self.history.is_burdened() };
        self.go_on_exporting(pace);
        self.go_on_relocating(Some(MOVED_PER_COMMIT + writes as usize / WRITES_PER_MOVED));
        let Some(files) = &mut self.files else { return };
        if let Some(job) = &mut files.job {
            job.step(&self.tree, pace);
            if let Some(height) = job.take_pin() {
                self.history.unpin(&mut self.tree, height);
            }
            if job.is_finished() {
                // The outcome is in the figures.
                let _ = self.finish_checkpoint();
            }
            return;
        }
        if files.moving.is_some() {
            // The log that it reads goes on until it is done.
            return self.go_on_moving(record);
        }
        if files.relocation.is_some() {
            return;
        }
        // All pairs are copied once for twice as many bytes of log; a table is copied for as many.
        let size = self.figures.snapshot_bytes * if self.tree.pages().is_some() { 1 } else { 2 };
        let threshold = if files.due { 0 } else { files.snapshot_log_bytes.max(size) };
        let wanted = self.figures.log_bytes >= threshold.max(files.retry_log_bytes);
        if wanted && self.start_checkpoint().is_err() {
            self.count_failure();
        }
    }

    /// Begins a new log file and a checkpoint of the newest commit.
    fn start_checkpoint(&mut self) -> Result<(), StateError> {
        let (Some(files), Some(newest)) = (&mut self.files, self.history.newest()) else { return Ok(()) };
        if let Some(pages) = self.tree.pages_mut() {
            // What the table will name has to be on the device when it is flushed.
            pages.settle()?;
        }
        files.log.flush()?;
        files.durable_height = Some(newest.height);
        let hash = self.tree.hash();
        let position = Position { height: Some(newest.height), root: newest.root_hash() };
        let log = WriteLog::create(&files.directory, files.log.sequence() + 1, hash, files.durability, position)?;
        if self.tree.pages().is_none() {
            // Those that older versions alone need are closed without this: by then their numbers may be others'.
            files.old_files = self.tree.values().files.ids();
            files.leaving.iter().for_each(|(_, leaving)| files.old_files.remove(leaving));
            // A log that is not written to must not stand beside one that is: it would not continue it.
            let file = self.tree.values_mut().files.add(log.path()).inspect_err(|_| log.remove())?;
            files.log_file = Some(file);
        }
        files.log = log;
        let job = Checkpoint::start(&files.directory, &mut self.tree, newest)?;
        files.log_bytes_before = self.figures.log_bytes;
        let height = job.height();
        files.job = Some(job);
        self.history.pin(height);
        Ok(())
    }

    /// Waits for the running checkpoint's writer and records the outcome.
    fn finish_checkpoint(&mut self) -> Result<(), StateError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let Some(mut job) = files.job.take() else { return Ok(()) };
        let height = job.height();
        if let Some(height) = job.take_pin() {
            self.history.unpin(&mut self.tree, height);
        }
        let finished = job.finish();
        // A table that has its name is what an open begins from, whatever failed after that.
        let path = files.directory.join(table_name(height));
        let stands = match (&finished, self.tree.pages()) {
            (Ok(bytes), _) => Some(*bytes),
            (Err(_), Some(_)) => std::fs::metadata(path).ok().map(|table| table.len()),
            (Err(_), None) => None,
        };
        if let Some(pages) = self.tree.pages_mut() {
            match stands {
                Some(_) => pages.space_mut().keep_checkpoints(GENERATIONS),
                None => pages.space_mut().abandon_checkpoint(),
            }
        }
        if let Some(bytes) = stands {
            self.figures.snapshot_height = Some(height);
            self.figures.snapshot_bytes = bytes;
            self.figures.log_bytes -= files.log_bytes_before;
            files.retry_log_bytes = 0;
            files.due = false;
        }
        if let Err(error) = finished {
            self.count_failure();
            return Err(error);
        }
        if self.tree.pages().is_some() {
            return Ok(());
        }
        if self.is_outgrown() && self.start_moving(height).is_err() {
            self.figures.snapshot_failures += 1;
        }
        // The snapshot is good without it: values stay where they are, and the next one takes them along.
        if self.start_relocation(height).is_err() {
            self.figures.snapshot_failures += 1;
        }
        Ok(())
    }

    /// Whether the map belongs into pages by its size.
    fn is_outgrown(&self) -> bool {
        matches!(self.options.layout, Layout::Auto { keys } if self.tree.keys() as u64 >= keys)
    }

    /// Begins to move into pages, from the snapshot of a height and the log since.
    fn start_moving(&mut self, height: u64) -> Result<(), StateError> {
        let Some(files) = self.files.as_mut().filter(|files| files.moving.is_none()) else { return Ok(()) };
        let log = (files.log.path().to_owned(), files.log.sequence());
        files.moving = Some(Moving::start(&files.directory, height, log, self.options)?);
        Ok(())
    }

    /// Ends a move when its thread has, if little of the log is left to redo. A snapshot for others ends with the tree that
    /// it began with; meanwhile the thread keeps up with the log.
    fn go_on_moving(&mut self, record: u64) {
        let Some(files) = &mut self.files else { return };
        let length = files.log.length();
        let Some(moving) = files.moving.as_ref().filter(|moving| moving.is_finished()) else { return };
        if moving.is_near(length, record) {
            if self.export.is_none() {
                self.end_moving();
            }
            return;
        }
        match files.moving.take().map(Moving::go_on) {
            Some(Ok(moving)) => files.moving = Some(moving),
            _ => self.figures.snapshot_failures += 1,
        }
    }

    /// Waits for a move and takes the tree with pages for the one in memory. Roots from before the snapshot are not provable
    /// any more. When it came to nothing the map stays as it is, and the next snapshot begins another.
    fn end_moving(&mut self) {
        let newest = Position { height: self.height(), root: self.root() };
        let Some(files) = &mut self.files else { return };
        let Some(moving) = files.moving.take() else { return };
        if self.export.is_some() {
            // A snapshot for others ends with the tree that it began with.
            return moving.abandon();
        }
        let Ok(Redo { mut tree, history, .. }) = moving.finish(newest) else {
            self.figures.snapshot_failures += 1;
            return;
        };
        tree.succeed(&self.tree);
        (self.tree, self.history) = (tree, history);
        (files.relocation, files.leaving, files.old_files) = (None, Vec::new(), FileSet::default());
        (files.log_file, files.due) = (None, true);
    }

    /// Begins to move values to the snapshot of a height, so that the files from before can be closed.
    fn start_relocation(&mut self, height: u64) -> Result<(), StateError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let path = files.directory.join(file_name(height));
        let file = self.tree.values_mut().files.add(&path)?;
        files.relocation = Some(Relocation::start(&path, file, std::mem::take(&mut files.old_files))?);
        Ok(())
    }

    /// Goes on with moving values, up to so many or all, and closes the files that no retained version needs any more.
    fn go_on_relocating(&mut self, values_max: Option<usize>) {
        let Some(files) = &mut self.files else { return };
        if let Some(relocation) = &mut files.relocation
            && relocation.step(&mut self.tree, values_max)
        {
            // When the snapshot cannot be read its values stay where they are, and the next one takes them along.
            let left = files.relocation.take().and_then(Relocation::finish);
            if let (Some(left), Some(newest)) = (left, self.history.newest()) {
                files.leaving.push((newest.height, left));
            }
        }
        let oldest = self.history.oldest();
        files.leaving.retain(|(height, set)| {
            let needed = oldest.is_some_and(|oldest| oldest <= *height);
            if !needed {
                self.tree.values_mut().files.close(set);
            }
            needed
        });
    }

    /// The pairs of a leaf or a page.
    fn pairs(&self, standing: &Standing<'_>) -> Vec<Result<(Key, Vec<u8>), StateError>> {
        match standing {
            Standing::Leaf(leaf, hash) => {
                let value = self.tree.value(leaf, leaf.value, hash);
                vec![value.map(|value| (leaf.key, value.into_owned()))]
            }
            Standing::Page(_, wanted, _) => {
                match self.tree.pages().map_or(Ok(Vec::new()), |pages| pages.load(&[*wanted])) {
                    Ok(pages) => {
                        let pairs = pages.iter().flat_map(|page| page.pairs());
                        pairs.map(|pair| Ok((*pair.key, pair.value.to_owned()))).collect()
                    }
                    Err(error) => vec![Err(error)],
                }
            }
        }
    }

    fn count_failure(&mut self) {
        self.figures.snapshot_failures += 1;
        if let Some(files) = &mut self.files {
            files.retry_log_bytes = self.figures.log_bytes + files.snapshot_log_bytes;
        }
    }
}

impl StateMap for TreeMap {
    type Staged = Staged;

    fn open(directory: &Path, options: Options) -> Result<Opened<Self>, StateError> {
        let lock = lock(directory)?;
        let recovered = recover(directory, &options)?;
        let figures = Figures {
            log_bytes: recovered.log_bytes,
            snapshot_height: recovered.report.snapshot_height,
            snapshot_bytes: recovered.snapshot_bytes,
            ..Figures::default()
        };
        let height = recovered.history.newest().map(|version| version.height);
        let root = recovered.tree.root().hash;
        let files = Files {
            directory: directory.to_owned(),
            durability: options.durability,
            snapshot_log_bytes: options.snapshot_log_bytes,
            log: recovered.log,
            log_file: recovered.log_file,
            old_files: FileSet::default(),
            moving: None,
            relocation: None,
            leaving: Vec::new(),
            durable_height: height,
            job: None,
            due: recovered.due,
            log_bytes_before: 0,
            retry_log_bytes: 0,
            _lock: lock,
        };
        let map = Self {
            tree: recovered.tree,
            history: recovered.history,
            options,
            files: Some(files),
            export: None,
            poisoned: false,
            figures,
        };
        Ok(Opened { map, height, root, recovery: recovered.report })
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.tree.newest().get(key)?.map(Cow::into_owned))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        match self.tree.pages() {
            None => keys.iter().map(|key| self.get(key)).collect(),
            Some(_) => self.tree.get_many(keys),
        }
    }

    fn prefetch(&self, keys: &[Key]) {
        self.tree.warm(keys);
    }

    fn stage(&self, parent: &Hash, writes: Vec<Write>) -> Result<Staged, StateError> {
        let start = Instant::now();
        self.check()?;
        if *parent != self.root() {
            return Err(StateError::UnknownParent);
        }
        let record = encode_batch(&writes)?;
        let count = u32::try_from(writes.len()).expect("a batch of bounded bytes has few writes");
        let update = self.tree.stage(&writes, self.options.threads)?;
        let offsets = value_offsets(&writes);
        Ok(Staged { update, batch: writes, offsets, parent: *parent, record, writes: count, time: start.elapsed() })
    }

    fn staged_root(staged: &Staged) -> Hash {
        staged.root()
    }

    fn commit(&mut self, staged: Staged, height: u64) -> Result<Hash, StateError> {
        let start = Instant::now();
        let Staged { update, batch, offsets, parent, mut record, writes, time } = staged;
        if update.generation() != self.tree.generation() || parent != self.root() {
            return Err(StateError::Stale);
        }
        if let Some(newest) = self.height().filter(|newest| *newest >= height) {
            return Err(StateError::Height { newest, height });
        }
        self.check()?;
        self.tree.reserve(&update)?;
        let root = update.root_hash();
        self.figures.sync_time = Duration::ZERO;
        let mut place = None;
        if let Some(files) = &mut self.files {
            let (room, body) = record.split_at_mut(HEADER_BYTES);
            let header = Header {
                height,
                root_before: parent,
                root_after: root,
                writes,
                body_bytes: u32::try_from(body.len()).expect("a batch is bounded by 1 GiB"),
                body_crc: crc32c::crc32c(body),
            };
            room.copy_from_slice(&header.encode(files.log.salt()));
            let (offset, flushed) = files.log.append(&record)?;
            let file = files.log_file;
            place = file.map(|file| (Place { file, offset: offset + HEADER_BYTES as u64 }, &*offsets));
            self.figures.sync_time = flushed;
            self.figures.log_bytes += record.len() as u64;
        }
        self.figures.batch_writes = u64::from(writes);
        self.figures.batch_nodes = update.changes() as u64;
        self.figures.stage_time = time;
        let undo = self.tree.apply(update, Written { writes: &batch, place }).inspect_err(|_| self.poisoned = true)?;
        if let Some(files) = self.files.as_mut().filter(|files| files.durability == Durability::Sync) {
            files.durable_height = Some(height);
        }
        if let Some(job) = self.files.as_mut().and_then(|files| files.job.as_mut()) {
            job.record(&self.tree, &undo);
        }
        if let Some(job) = &mut self.export {
            job.record(&self.tree, &undo);
        }
        self.history.push(&mut self.tree, height, undo);
        self.maintain(writes, record.len() as u64);
        self.figures.commit_time = start.elapsed();
        Ok(root)
    }

    fn height(&self) -> Option<u64> {
        self.history.newest().map(|version| version.height)
    }

    fn durable_height(&self) -> Option<u64> {
        self.files.as_ref().and_then(|files| files.durable_height)
    }

    fn root(&self) -> Hash {
        self.tree.root().hash
    }

    fn root_at(&self, height: u64) -> Option<Hash> {
        self.history.at(height).map(Version::root_hash)
    }

    fn prove(&self, key: &Key, height: u64) -> Result<Proven, StateError> {
        let view = self.history.view(&self.tree, height).ok_or(StateError::UnknownHeight { height })?;
        let (value, proof) = view.prove(key)?;
        Ok(Proven { root: view.root(), value: value.map(Cow::into_owned), proof })
    }

    fn prove_many(&self, keys: &[Key], height: u64) -> Result<ProvenMany, StateError> {
        if keys.is_empty() || keys.len() > MULTI_KEYS_MAX {
            return Err(StateError::Keys { count: keys.len() });
        }
        if let Some(at) = keys.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(StateError::Unsorted { index: at + 1 });
        }
        let mut view = self.history.view(&self.tree, height).ok_or(StateError::UnknownHeight { height })?;
        view.load(keys)?;
        let values = keys.iter().map(|key| Ok(view.get(key)?.map(Cow::into_owned)));
        let values = values.collect::<Result<_, StateError>>()?;
        Ok(ProvenMany { root: view.root(), values, proof: view.prove_many(keys)? })
    }

    fn iter(&self) -> Pairs<'_> {
        Box::new(self.tree.walk(&[0; 32]).flat_map(|standing| self.pairs(&standing)))
    }

    fn sync(&mut self) -> Result<(), StateError> {
        self.check()?;
        let height = self.height();
        if let Some(files) = &mut self.files {
            files.log.flush()?;
            files.durable_height = height;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StateError> {
        self.check()?;
        loop {
            self.go_on_relocating(None);
            let height = self.height();
            self.end_moving();
            let Some(files) = &mut self.files else { return Ok(()) };
            if files.log.is_poisoned() {
                return Err(StateError::Poisoned);
            }
            if let Some(job) = &mut files.job {
                job.step(&self.tree, Pace::All);
                self.finish_checkpoint()?;
            } else if height.is_none() || self.figures.snapshot_height == height && !files.due {
                return Ok(());
            } else if let Err(error) = self.start_checkpoint() {
                self.count_failure();
                return Err(error);
            }
        }
    }

    fn export(&mut self, directory: &Path) -> Result<bool, StateError> {
        self.check()?;
        let Some(newest) = self.history.newest().filter(|_| self.export.is_none()) else { return Ok(false) };
        let (depth, bytes) = SnapshotHeader::division(self.tree.sizes());
        if bytes > CHUNK_BYTES_MAX as u64 {
            // Nobody could fetch it.
            self.figures.snapshot_failures += 1;
            return Err(StateError::ChunkTooLong { bytes, most: CHUNK_BYTES_MAX });
        }
        let (height, root) = (newest.height, newest.root_hash());
        let header = SnapshotHeader { hash: self.tree.hash(), height, root, pairs: 0, depth };
        let started = SnapshotJob::start(directory, header, &mut self.tree);
        self.export = Some(started.inspect_err(|_| self.figures.snapshot_failures += 1)?);
        self.history.pin(height);
        Ok(true)
    }

    fn figures(&self) -> Figures {
        let (pages_read, pages_written) = self.tree.pages().map_or((0, 0), Pages::traffic);
        let (device_bytes, device_used_bytes) = self.tree.pages().map_or((0, 0), Pages::device_bytes);
        Figures {
            keys: self.tree.keys() as u64,
            memory_bytes: (self.tree.bytes() + self.history.list_bytes()) as u64,
            history_bytes: self.history.bytes() as u64,
            roots: self.history.roots() as u64,
            pages: self.tree.live_pages() as u64,
            pages_read,
            pages_written,
            device_bytes,
            device_used_bytes,
            ..self.figures
        }
    }
}

impl Drop for TreeMap {
    fn drop(&mut self) {
        // A snapshot that is copied is finished, one that is not is abandoned; either way its thread ends first.
        if let Some(job) = self.files.as_mut().and_then(|files| files.job.take()) {
            let _ = job.finish();
        }
        if let Some(job) = self.export.take() {
            let _ = job.finish();
        }
        if let Some(moving) = self.files.as_mut().and_then(|files| files.moving.take()) {
            moving.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::pages::faulty::Faults;
    use crate::write_log::Medium;

    /// A disk that fails one operation and would accept everything afterwards, as Linux does after a failed flush.
    struct Failing {
        append: bool,
        flush: bool,
    }

    impl Medium for Failing {
        fn append(&mut self, _: &[u8]) -> io::Result<()> {
            if std::mem::take(&mut self.append) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            if std::mem::take(&mut self.flush) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }
    }

    #[test]
    fn a_failed_write_or_flush_poisons_the_map_until_it_is_opened_again() {
        for (append, flush) in [(true, false), (false, true)] {
            let directory = tempfile::TempDir::new().expect("a temporary directory");
            let mut map = TreeMap::open(directory.path(), Options::new(StateHash::Sha256)).expect("a new map").map;
            let write = |map: &TreeMap, value: u8| map.stage(&map.root(), vec![([value; 32], Some(vec![value]))]);
            let staged = write(&map, 1).expect("a valid batch");
            let root = map.commit(staged, 0).expect("a working disk");
            map.files.as_mut().expect("files").log.replace_medium(Box::new(Failing { append, flush }));
            let staged = write(&map, 2).expect("a valid batch");
            assert!(matches!(map.commit(staged, 1), Err(StateError::Io { .. })));
            assert_eq!((map.root(), map.height(), map.durable_height()), (root, Some(0), Some(0)));
            // The disk works again, but what it holds is unknown.
            let staged = write(&map, 3).expect("a valid batch");
            assert!(matches!(map.commit(staged, 1), Err(StateError::Poisoned)));
            assert!(matches!(map.sync(), Err(StateError::Poisoned)));
            assert!(matches!(map.checkpoint(), Err(StateError::Poisoned)));
            assert_eq!(map.get(&[1; 32]).expect("reads go on"), Some(vec![1]));
            drop(map);
            let opened = TreeMap::open(directory.path(), Options::new(StateHash::Sha256)).expect("recovery");
            assert_eq!((opened.height, opened.root), (Some(0), root));
        }
    }

    /// A map with pages that are all on a device which fails when it is told to, and its batches.
    fn on_a_faulty_device(directory: &Path) -> (TreeMap, Arc<Faults>) {
        let options = Options { layout: Layout::Paged, page_cache_bytes: 0, ..Options::new(StateHash::Sha256) };
        let options = Options { history: HistoryBounds { roots: 1, ..HistoryBounds::ROOTS }, ..options };
        let mut map = TreeMap::open(directory, options).expect("a map").map;
        let faults = Arc::new(Faults::default());
        map.tree.pages_mut().expect("pages").break_by(&faults);
        (map, faults)
    }

    fn commit(map: &mut TreeMap, keys: std::ops::Range<u64>, byte: u8) -> Result<Hash, StateError> {
        let mut writes: Vec<Write> =
            keys.map(|key| (StateHash::Sha256.value(&key.to_be_bytes()), Some(vec![byte; 200]))).collect();
        writes.sort_unstable();
        let staged = map.stage(&map.root(), writes)?;
        map.commit(staged, map.height().map_or(0, |height| height + 1))
    }

    fn set(fault: &AtomicBool, on: bool) {
        fault.store(on, Ordering::SeqCst);
    }

    #[test]
    fn a_device_that_cannot_grow_refuses_a_commit_before_anything_is_written() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let (mut map, faults) = on_a_faulty_device(directory.path());
        set(&faults.grow, true);
        let mut next = 0;
        let error = loop {
            match commit(&mut map, next..next + 500, 1) {
                Ok(_) => next += 500,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StateError::Device { .. }) && next > 5_000, "{error}, {next} keys");
        let (root, height, log) = (map.root(), map.height(), map.figures().log_bytes);
        assert!(commit(&mut map, next..next + 500, 1).is_err());
        assert_eq!((map.root(), map.height(), map.figures().log_bytes), (root, height, log));
        // What was there can still be read and changed, and with room it goes on.
        commit(&mut map, 0..1, 2).expect("room for a page");
        set(&faults.grow, false);
        let root = commit(&mut map, next..next + 500, 1).expect("room");
        drop(map);
        assert_eq!(TreeMap::open(directory.path(), Options::new(StateHash::Sha256)).expect("recovery").root, root);
    }

    /// A move waits for a snapshot for others, and the log goes on meanwhile. One commit then redid all that had come.
    #[test]
    fn a_move_that_waits_keeps_up_with_the_log() {
        let [directory, exports] = [(); 2].map(|()| tempfile::TempDir::new().expect("a temporary directory"));
        let options = Options {
            layout: Layout::Auto { keys: 2_000 },
            durability: Durability::None,
            snapshot_log_bytes: 1,
            ..Options::new(StateHash::Sha256)
        };
        let mut map = TreeMap::open(directory.path(), options).expect("a new map").map;
        let mut model = TreeMap::ephemeral(StateHash::Sha256);
        let mut both = |map: &mut TreeMap, keys: std::ops::Range<u64>, length: usize| {
            let mut writes: Vec<Write> =
                keys.map(|key| (StateHash::Sha256.value(&key.to_be_bytes()), Some(vec![7; length]))).collect();
            writes.sort_unstable();
            for map in [map, &mut model] {
                let staged = map.stage(&map.root(), writes.clone()).expect("a valid batch");
                let height = map.height().map_or(0, |height| height + 1);
                map.commit(staged, height).expect("a working disk");
            }
            (model.root(), writes.len() as u64 * (34 + length as u64))
        };
        both(&mut map, 0..60_000, 20);
        while map.files.as_ref().is_some_and(|files| files.moving.is_none()) {
            both(&mut map, 0..1, 20);
        }
        assert!(map.export(exports.path()).expect("a writable directory"));
        let begun = map.figures().log_bytes;
        while map.export.is_some() {
            let (_, record) = both(&mut map, 0..50, 4096);
            let files = map.files.as_ref().expect("files");
            let Some(moving) = &files.moving else { break };
            while !moving.is_finished() {
                std::thread::yield_now();
            }
            // What is too much for the next commit is the thread's again.
            assert!(moving.is_near(files.log.length(), record), "{} bytes of log", files.log.length());
        }
        assert!(map.figures().log_bytes - begun > 8 << 20, "the log grew by more than a commit may redo");
        while map.tree.pages().is_none() {
            both(&mut map, 0..1, 20);
        }
        let (root, _) = both(&mut map, 0..1, 30);
        assert_eq!((map.root(), map.figures().snapshot_failures), (root, 0));
    }

    #[test]
    fn a_page_that_cannot_be_read_fails_what_needs_it_and_nothing_else() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let (mut map, faults) = on_a_faulty_device(directory.path());
        commit(&mut map, 0..2_000, 1).expect("a working disk");
        // Only now are the pages on the device alone.
        let root = commit(&mut map, 5_000..5_001, 1).expect("a working disk");
        set(&faults.read, true);
        assert!(matches!(commit(&mut map, 0..1_000, 2), Err(StateError::Device { .. })));
        assert!(map.iter().any(|pair| pair.is_err()));
        let keys: Vec<Key> = (0..2_000_u64).map(|key| StateHash::Sha256.value(&key.to_be_bytes())).collect();
        assert!(map.get_many(&keys).is_err());
        map.prefetch(&keys);
        set(&faults.read, false);
        assert_eq!((map.root(), map.iter().filter(Result::is_ok).count()), (root, 2_001));
        commit(&mut map, 0..1_000, 2).expect("a working disk");
    }

    #[test]
    fn a_table_that_cannot_be_flushed_is_none_and_the_one_before_stays() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let (mut map, faults) = on_a_faulty_device(directory.path());
        commit(&mut map, 0..2_000, 1).expect("a working disk");
        map.checkpoint().expect("a working disk");
        commit(&mut map, 0..1_000, 2).expect("a working disk");
        set(&faults.flush, true);
        assert!(matches!(map.checkpoint(), Err(StateError::Device { .. })));
        assert_eq!((map.figures().snapshot_failures, map.figures().snapshot_height), (1, Some(0)));
        // Blocks of the first table are used by nobody else meanwhile.
        for byte in 3..20 {
            commit(&mut map, 0..2_000, byte).expect("a working disk");
        }
        let root = map.root();
        drop(map);
        let opened = TreeMap::open(directory.path(), Options::new(StateHash::Sha256)).expect("recovery");
        assert_eq!((opened.root, opened.recovery.snapshot_height), (root, Some(0)));
        assert!(opened.map.iter().all(|pair| pair.is_ok()));
    }

    #[test]
    fn a_table_that_has_its_name_counts_whatever_fails_after_that() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let (mut map, _) = on_a_faulty_device(directory.path());
        // It cannot be deleted as a file that was put aside would be.
        std::fs::create_dir(directory.path().join("snapshot-00000000000000000007.refused")).expect("a directory");
        for byte in 0..6 {
            commit(&mut map, 0..2_000, byte).expect("a working disk");
            assert!(matches!(map.checkpoint(), Err(StateError::Io { .. })));
            assert_eq!(map.figures().snapshot_height, map.height());
        }
        for byte in 6..12 {
            commit(&mut map, 0..2_000, byte).expect("a working disk");
        }
        let root = map.root();
        drop(map);
        let opened = TreeMap::open(directory.path(), Options::new(StateHash::Sha256)).expect("recovery");
        assert_eq!((opened.root, opened.recovery.snapshot_height), (root, Some(5)));
        assert!(opened.map.iter().all(|pair| pair.is_ok()));
    }

    #[test]
    fn a_page_that_cannot_be_written_stops_the_map_before_the_next_record() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let (mut map, faults) = on_a_faulty_device(directory.path());
        commit(&mut map, 0..2_000, 1).expect("a working disk");
        map.tree.pages_mut().expect("pages").settle().expect("a working disk");
        set(&faults.write, true);
        // Nobody waits for it yet.
        let root = commit(&mut map, 0..1_000, 2).expect("the log has it");
        let log = map.figures().log_bytes;
        assert!(matches!(commit(&mut map, 0..1_000, 3), Err(StateError::Device { .. })));
        set(&faults.write, false);
        assert!(matches!(commit(&mut map, 0..1_000, 3), Err(StateError::Poisoned)));
        assert!(map.checkpoint().is_err() && map.export(directory.path()).is_err());
        assert_eq!((map.root(), map.height(), map.figures().log_bytes), (root, Some(1), log));
        drop(map);
        let opened = TreeMap::open(directory.path(), Options::new(StateHash::Sha256)).expect("recovery");
        assert_eq!((opened.root, opened.height), (root, Some(1)));
        assert_eq!(opened.map.iter().map(|pair| pair.expect("sound").1[0]).filter(|byte| *byte == 2).count(), 1_000);
    }
}
