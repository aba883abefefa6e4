//! Opening: the newest sound snapshot, then every later record of the write-set log.

use std::fs::{File, TryLockError};
use std::path::Path;

use stele_merkle::state::EMPTY;

use crate::history::History;
use crate::interface::Recovery;
use crate::record::{HEADER_BYTES, value_offsets};
use crate::snapshot::{Listing, list, load};
use crate::tree::{Tree, Undo, Written};
use crate::values::{FileId, Place};
use crate::write_log::{LogEnd, LogFile, Position, Record, WriteLog, sync_directory};
use crate::{Durability, Options, StateError};

/// A state brought back from disk.
pub(crate) struct Recovered {
    pub(crate) tree: Tree,
    pub(crate) history: History,
    pub(crate) log: WriteLog,
    /// The same file, open to read values from.
    pub(crate) log_file: FileId,
    /// Bytes of log since the snapshot.
    pub(crate) log_bytes: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) report: Recovery,
}

/// Locks a directory for as long as the file stays open.
pub(crate) fn lock(directory: &Path) -> Result<File, StateError> {
    if !directory.exists() {
        std::fs::create_dir_all(directory).map_err(StateError::io("create", directory))?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
    }
    let path = directory.join("lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(StateError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StateError::io("lock", &path)(error)),
    }
}

/// Recovers the newest state of a locked directory.
pub(crate) fn recover(directory: &Path, options: &Options) -> Result<Recovered, StateError> {
    let listing = list(directory)?;
    for path in listing.leftovers.iter().filter(|path| path.extension().is_some_and(|kind| kind == "tmp")) {
        std::fs::remove_file(path).map_err(StateError::io("delete", path))?;
    }
    let logs = open_logs(&listing, options)?;
    let mut report = Recovery::default();
    let (mut state, first) = base(directory, options, &listing, &logs, &mut report)?;
    let mut end = None;
    for (index, file) in logs.iter().enumerate().skip(first) {
        let last = index + 1 == logs.len();
        let file_end = state.redo(file, last, options.height_max)?;
        end = Some((file, file_end));
        if file_end.beyond {
            drop_logs(directory, &logs[index + 1..])?;
            break;
        }
    }
    put_aside(directory, &listing, state.report_height)?;
    let position = state.position();
    let (log, torn) = match end {
        Some((file, end)) => {
            let log = WriteLog::resume(file, end.length)?;
            let resumed = state.log_file.filter(|_| log.synced() == (options.durability == Durability::Sync));
            state.log_file = resumed;
            // A file never mixes flushed and unflushed records: how it is read after a crash depends on that.
            let log = if log.synced() == (options.durability == Durability::Sync) {
                log
            } else {
                WriteLog::create(directory, log.sequence() + 1, options.hash, options.durability, position)?
            };
            (log, if end.beyond { 0 } else { end.torn })
        }
        None => (WriteLog::create(directory, 0, options.hash, options.durability, position)?, 0),
    };
    let log_file = match state.log_file {
        Some(file) => file,
        None => state.tree.values_mut().files.add(log.path())?,
    };
    report.records_redone = state.records;
    report.bytes_dropped = torn;
    Ok(Recovered {
        tree: state.tree,
        history: state.history,
        log,
        log_file,
        log_bytes: state.log_bytes,
        snapshot_bytes: state.snapshot_bytes,
        report,
    })
}

fn open_logs(listing: &Listing, options: &Options) -> Result<Vec<LogFile>, StateError> {
    let mut logs = Vec::with_capacity(listing.logs.len());
    for (sequence, path) in &listing.logs {
        let file = LogFile::open(path.clone(), *sequence)?;
        if file.header.hash != options.hash {
            return Err(StateError::OtherHash { path: path.clone() });
        }
        logs.push(file);
    }
    Ok(logs)
}

/// The newest snapshot that is sound and has its log, or the empty state; and the first log file to redo.
fn base(
    directory: &Path,
    options: &Options,
    listing: &Listing,
    logs: &[LogFile],
    report: &mut Recovery,
) -> Result<(Redo, usize), StateError> {
    let log_from = |position| logs.iter().position(|file| file.header.start == position);
    let wanted = |height: &u64| options.height_max.is_none_or(|max| *height <= max);
    for (_, path) in listing.snapshots.iter().filter(|(height, _)| wanted(height)) {
        let reason = match load(path, options) {
            Ok((header, tree, bytes)) => {
                let position = Position { height: Some(header.height), root: header.root };
                // A snapshot alone, without any log, is how a new node is given its first state.
                match log_from(position).or(logs.is_empty().then_some(0)) {
                    Some(first) => {
                        report.snapshot_height = Some(header.height);
                        let mut state = Redo::new(tree, Some(header.height), options);
                        state.snapshot_bytes = bytes;
                        state.push(header.height);
                        return Ok((state, first));
                    }
                    None => format!("{}: no log file begins there", path.display()),
                }
            }
            Err(error @ StateError::OtherHash { .. }) => return Err(error),
            Err(error) => error.to_string(),
        };
        report.snapshots_refused.push(reason);
    }
    let start = Position { height: None, root: EMPTY };
    match log_from(start) {
        None if !(listing.snapshots.is_empty() && logs.is_empty()) => {
            Err(StateError::NoBase { path: directory.to_owned(), refused: report.snapshots_refused.join("; ") })
        }
        first => {
            Ok((Redo::new(Tree::new(options.hash, options.values_memory_bytes), None, options), first.unwrap_or(0)))
        }
    }
}

/// Deletes log files whose records all lie above the greatest height that is wanted.
fn drop_logs(directory: &Path, logs: &[LogFile]) -> Result<(), StateError> {
    for file in logs {
        std::fs::remove_file(&file.path).map_err(StateError::io("delete", &file.path))?;
    }
    if logs.is_empty() { Ok(()) } else { sync_directory(directory) }
}

/// Renames snapshots newer than the one that was loaded, so that they do not count as a generation.
fn put_aside(directory: &Path, listing: &Listing, loaded: Option<u64>) -> Result<(), StateError> {
    let mut changed = false;
    for (_, path) in listing.snapshots.iter().filter(|(height, _)| Some(*height) > loaded) {
        std::fs::rename(path, path.with_extension("refused")).map_err(StateError::io("rename", path))?;
        changed = true;
    }
    if changed { sync_directory(directory) } else { Ok(()) }
}

/// A state to which records are applied.
pub(crate) struct Redo {
    tree: Tree,
    history: History,
    pub(crate) records: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    /// Height of the snapshot it began with.
    report_height: Option<u64>,
    threads: usize,
    /// The log file that was redone last, open to read values from.
    log_file: Option<FileId>,
}

impl Redo {
    pub(crate) fn new(tree: Tree, report_height: Option<u64>, options: &Options) -> Self {
        Self {
            tree,
            history: History::new(options.history),
            records: 0,
            log_bytes: 0,
            snapshot_bytes: 0,
            report_height,
            threads: options.threads,
            log_file: None,
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position { height: self.history.newest().map(|version| version.height), root: self.tree.root().hash }
    }

    /// Retains the tree as the version of a height.
    pub(crate) fn push(&mut self, height: u64) {
        self.history.push(&mut self.tree, height, Undo::default());
    }

    pub(crate) fn redo(&mut self, file: &LogFile, last: bool, height_max: Option<u64>) -> Result<LogEnd, StateError> {
        let corrupt = |offset, what| StateError::Corrupt { path: file.path.clone(), offset, what };
        if file.header.start != self.position() {
            return Err(corrupt(0, "the file does not continue the state before it"));
        }
        let id = self.tree.values_mut().files.add(&file.path)?;
        self.log_file = Some(id);
        let end = file.replay(height_max, |Record { header, writes, offset }| {
            let position = self.position();
            if header.root_before != position.root || position.height.is_some_and(|height| height >= header.height) {
                return Err(corrupt(offset, "the record does not continue the state before it"));
            }
            let update = self.tree.stage(&writes, self.threads)?;
            if update.root_hash() != header.root_after {
                return Err(corrupt(offset, "the record's writes lead to another root"));
            }
            let offsets = value_offsets(&writes);
            let place = Some((Place { file: id, offset: offset + HEADER_BYTES as u64 }, &*offsets));
            let undo = self.tree.apply(update, Written { writes: &writes, place });
            self.history.push(&mut self.tree, header.height, undo);
            self.records += 1;
            Ok(())
        })?;
        if end.torn > 0 && !end.beyond && !last {
            return Err(corrupt(end.length, "a record is damaged and a newer file follows"));
        }
        self.log_bytes += end.length;
        Ok(end)
    }
}
