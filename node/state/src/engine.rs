//! The engine with the tree in memory and values in files.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::history::{History, Version};
use crate::interface::{Opened, Pairs, Proven, ProvenMany, StateMap};
use crate::record::{HEADER_BYTES, Header, encode_batch, value_offsets};
use crate::recovery::{lock, recover};
use crate::snapshot::{Relocation, SnapshotHeader, SnapshotJob, file_name};
use crate::tree::{Tree, Update, Written};
use crate::values::{FileId, FileSet, Place};
use crate::write_log::{Position, WriteLog};
use crate::{Durability, Figures, Hash, HistoryBounds, Key, MULTI_KEYS_MAX, Options, StateError, StateHash, Write};

/// Pairs copied into a running snapshot per commit, whatever the commit's size: a million pairs take a thousand empty
/// blocks.
const SNAPSHOT_PAIRS_PER_COMMIT: usize = 1024;

/// Pairs copied per write of a commit, so that a snapshot ends before the map has changed by a quarter.
const SNAPSHOT_PAIRS_PER_WRITE: usize = 4;

/// Values moved to the newest snapshot per commit, whatever its size, and one more for so many writes. The next snapshot
/// waits for it, and until then the log holds twice as many writes as there are keys.
const MOVED_PER_COMMIT: usize = 512;
const WRITES_PER_MOVED: usize = 2;

/// A state map whose tree is in memory; a write-set log and snapshots on disk hold the values and bring it back.
#[derive(Debug)]
pub struct TreeMap {
    tree: Tree,
    history: History,
    threads: usize,
    /// `None` for a map that lives in memory only.
    files: Option<Files>,
    /// A snapshot for others, in the making.
    export: Option<SnapshotJob>,
    figures: Figures,
}

#[derive(Debug)]
struct Files {
    directory: PathBuf,
    durability: Durability,
    snapshot_log_bytes: u64,
    log: WriteLog,
    /// The log, open to read values from.
    log_file: FileId,
    /// Files from before the running snapshot.
    old_files: FileSet,
    /// Values on their way to the newest snapshot.
    relocation: Option<Relocation>,
    /// Files that only versions below a height need.
    leaving: Vec<(u64, FileSet)>,
    durable_height: Option<u64>,
    job: Option<SnapshotJob>,
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
            threads: 1,
            files: None,
            export: None,
            figures: Figures::default(),
        }
    }

    /// Goes on with an export.
    fn go_on_exporting(&mut self, pairs: usize) {
        let Some(job) = &mut self.export else { return };
        job.step(&self.tree, pairs, self.history.is_burdened());
        let height = job.height();
        if let Some(height) = job.take_pin() {
            self.history.unpin(&mut self.tree, height);
        }
        if let Some(job) = self.export.take_if(|job| job.is_finished()) {
            match job.finish() {
                Ok(_) => self.figures.export_height = Some(height),
                Err(_) => self.figures.snapshot_failures += 1,
            }
        }
    }

    /// Goes on with a running snapshot, and starts one when the log has grown enough. What fails here is counted and
    /// tried again; the commit before it is unaffected.
    fn maintain(&mut self, writes: u32) {
        let pairs = SNAPSHOT_PAIRS_PER_COMMIT + writes as usize * SNAPSHOT_PAIRS_PER_WRITE;
        self.go_on_exporting(pairs);
        self.go_on_moving(Some(MOVED_PER_COMMIT + writes as usize / WRITES_PER_MOVED));
        let Some(files) = &mut self.files else { return };
        if let Some(job) = &mut files.job {
            // A disk that cannot keep up must slow the commits down: what is retained for it is memory.
            let wait = self.history.is_burdened();
            job.step(&self.tree, pairs, wait);
            if let Some(height) = job.take_pin() {
                self.history.unpin(&mut self.tree, height);
            }
            if job.is_finished() {
                // The outcome is in the figures.
                let _ = self.finish_snapshot();
            }
            return;
        }
        if files.relocation.is_some() {
            return;
        }
        let threshold = files.snapshot_log_bytes.max(2 * self.figures.snapshot_bytes).max(files.retry_log_bytes);
        if self.figures.log_bytes >= threshold && self.start_snapshot().is_err() {
            self.count_failure();
        }
    }

    /// Begins a new log file and a snapshot of the newest commit.
    fn start_snapshot(&mut self) -> Result<(), StateError> {
        let (Some(files), Some(newest)) = (&mut self.files, self.history.newest()) else { return Ok(()) };
        files.log.flush()?;
        files.durable_height = Some(newest.height);
        let hash = self.tree.hash();
        let position = Position { height: Some(newest.height), root: newest.root_hash() };
        let log = WriteLog::create(&files.directory, files.log.sequence() + 1, hash, files.durability, position)?;
        files.old_files = self.tree.values().files.ids();
        // A log that is not written to must not stand beside one that is: it would not continue it.
        files.log_file = self.tree.values_mut().files.add(log.path()).inspect_err(|_| log.remove())?;
        files.log = log;
        let depth = SnapshotHeader::depth_for(self.tree.pair_bytes());
        let header = SnapshotHeader { hash, height: newest.height, root: newest.root_hash(), pairs: 0, depth };
        files.job = Some(SnapshotJob::start(&files.directory, header)?);
        files.log_bytes_before = self.figures.log_bytes;
        self.history.pin(header.height);
        Ok(())
    }

    /// Waits for the running snapshot's writer and records the outcome.
    fn finish_snapshot(&mut self) -> Result<(), StateError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let Some(mut job) = files.job.take() else { return Ok(()) };
        let height = job.height();
        if let Some(height) = job.take_pin() {
            self.history.unpin(&mut self.tree, height);
        }
        match job.finish() {
            Ok(bytes) => {
                self.figures.snapshot_height = Some(height);
                self.figures.snapshot_bytes = bytes;
                self.figures.log_bytes -= files.log_bytes_before;
                files.retry_log_bytes = 0;
                // The snapshot is good without it: values stay where they are, and the next one takes them along.
                if self.begin_to_move(height).is_err() {
                    self.figures.snapshot_failures += 1;
                }
                Ok(())
            }
            Err(error) => {
                self.count_failure();
                Err(error)
            }
        }
    }

    /// Begins to move values to the snapshot of a height, so that the files from before can be closed.
    fn begin_to_move(&mut self, height: u64) -> Result<(), StateError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let path = files.directory.join(file_name(height));
        let file = self.tree.values_mut().files.add(&path)?;
        files.relocation = Some(Relocation::start(&path, file, std::mem::take(&mut files.old_files))?);
        Ok(())
    }

    /// Goes on with moving values, up to so many or all, and closes the files that no retained version needs any more.
    fn go_on_moving(&mut self, values_max: Option<usize>) {
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
            relocation: None,
            leaving: Vec::new(),
            durable_height: height,
            job: None,
            log_bytes_before: 0,
            retry_log_bytes: 0,
            _lock: lock,
        };
        let map = Self {
            tree: recovered.tree,
            history: recovered.history,
            threads: options.threads,
            files: Some(files),
            export: None,
            figures,
        };
        Ok(Opened { map, height, root, recovery: recovered.report })
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.tree.newest().get(key)?.map(Cow::into_owned))
    }

    fn prefetch(&self, keys: &[Key]) {
        self.tree.warm(keys);
    }

    fn stage(&self, parent: &Hash, writes: Vec<Write>) -> Result<Staged, StateError> {
        let start = Instant::now();
        if *parent != self.root() {
            return Err(StateError::UnknownParent);
        }
        let record = encode_batch(&writes)?;
        let count = u32::try_from(writes.len()).expect("a batch of bounded bytes has few writes");
        let update = self.tree.stage(&writes, self.threads)?;
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
            place = Some((Place { file: files.log_file, offset: offset + HEADER_BYTES as u64 }, &*offsets));
            self.figures.sync_time = flushed;
            self.figures.log_bytes += record.len() as u64;
            if files.durability == Durability::Sync {
                files.durable_height = Some(height);
            }
        }
        self.figures.batch_writes = u64::from(writes);
        self.figures.batch_nodes = update.changes() as u64;
        self.figures.stage_time = time;
        let undo = self.tree.apply(update, Written { writes: &batch, place });
        let checkpoint = self.files.as_mut().and_then(|files| files.job.as_mut());
        for job in checkpoint.into_iter().chain(self.export.as_mut()) {
            job.record(&self.tree, &undo);
        }
        self.history.push(&mut self.tree, height, undo);
        self.maintain(writes);
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
        let view = self.history.view(&self.tree, height).ok_or(StateError::UnknownHeight { height })?;
        let values = keys.iter().map(|key| Ok(view.get(key)?.map(Cow::into_owned)));
        let values = values.collect::<Result<_, StateError>>()?;
        Ok(ProvenMany { root: view.root(), values, proof: view.prove_many(keys)? })
    }

    fn iter(&self) -> Pairs<'_> {
        Box::new(
            self.tree
                .walk(&[0; 32])
                .map(|(leaf, hash)| Ok((leaf.key, self.tree.value(leaf, leaf.value, &hash)?.into_owned()))),
        )
    }

    fn sync(&mut self) -> Result<(), StateError> {
        let height = self.height();
        if let Some(files) = &mut self.files {
            files.log.flush()?;
            files.durable_height = height;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StateError> {
        loop {
            self.go_on_moving(None);
            let Some(files) = &mut self.files else { return Ok(()) };
            if files.log.is_poisoned() {
                return Err(StateError::Poisoned);
            }
            if let Some(job) = &mut files.job {
                job.step(&self.tree, usize::MAX, true);
                self.finish_snapshot()?;
            } else if self.figures.snapshot_height == self.height() {
                return Ok(());
            } else if let Err(error) = self.start_snapshot() {
                self.count_failure();
                return Err(error);
            }
        }
    }

    fn export(&mut self, directory: &Path) -> Result<bool, StateError> {
        let Some(newest) = self.history.newest().filter(|_| self.export.is_none()) else { return Ok(false) };
        let depth = SnapshotHeader::depth_for(self.tree.pair_bytes());
        let (height, root) = (newest.height, newest.root_hash());
        let header = SnapshotHeader { hash: self.tree.hash(), height, root, pairs: 0, depth };
        let started = SnapshotJob::start(directory, header);
        self.export = Some(started.inspect_err(|_| self.figures.snapshot_failures += 1)?);
        self.history.pin(height);
        Ok(true)
    }

    fn figures(&self) -> Figures {
        Figures {
            keys: self.tree.keys() as u64,
            memory_bytes: (self.tree.bytes() + self.history.list_bytes()) as u64,
            history_bytes: self.history.bytes() as u64,
            roots: self.history.roots() as u64,
            ..self.figures
        }
    }
}

impl Drop for TreeMap {
    fn drop(&mut self) {
        // A snapshot that is copied is finished, one that is not is abandoned; either way its thread ends first.
        let checkpoint = self.files.as_mut().and_then(|files| files.job.take());
        for job in checkpoint.into_iter().chain(self.export.take()) {
            let _ = job.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
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
}
