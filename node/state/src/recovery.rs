//! Opening: the newest sound snapshot or table, then every later record of the write-set log.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use stele_merkle::state::EMPTY;

use crate::history::History;
use crate::interface::Recovery;
use crate::pages::{DeviceId, PageAt, Pages, Run, Table};
use crate::record::{HEADER_BYTES, value_offsets};
use crate::snapshot::{GENERATIONS, Listing, SnapshotHeader, SnapshotJob, SnapshotReader, file_name, list, load};
use crate::tree::{Tree, Undo, Written};
use crate::values::{FileId, Place};
use crate::write_log::{LogEnd, LogFile, Position, Record, WriteLog, sync_directory};
use crate::{Durability, Layout, Options, StateError};

/// The device of a map's pages.
pub(crate) const PAGES_FILE: &str = "pages.data";

/// A device in the making.
const NEW_PAGES_FILE: &str = "pages.new";

/// A state brought back from disk.
pub(crate) struct Recovered {
    pub(crate) tree: Tree,
    pub(crate) history: History,
    pub(crate) log: WriteLog,
    /// The same file, open to read values from, in a map without pages.
    pub(crate) log_file: Option<FileId>,
    /// Bytes of log since the snapshot.
    pub(crate) log_bytes: u64,
    pub(crate) snapshot_bytes: u64,
    /// Whether the map has another form than what it began from.
    pub(crate) due: bool,
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
    // Before anything is written: what was refused must not be believed by the next open.
    put_aside(directory, &listing, state.report_height)?;
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
    drop_device(directory, &listing, &state.tree)?;
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
        None if state.tree.pages().is_none() => Some(state.tree.values_mut().files.add(log.path())?),
        file => file,
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
        due: state.due,
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

/// What an open can begin from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Snapshot,
    Table,
}

/// A state that was loaded, before its log.
pub(crate) struct Base {
    pub(crate) position: Position,
    pub(crate) tree: Tree,
    /// Bytes of the file.
    bytes: u64,
    /// Whether the tree has another form.
    due: bool,
}

/// The newest snapshot or table that is sound and has its log, or the empty state; and the first log file to redo.
fn base(
    directory: &Path,
    options: &Options,
    listing: &Listing,
    logs: &[LogFile],
    report: &mut Recovery,
) -> Result<(Redo, usize), StateError> {
    let log_from = |position| logs.iter().position(|file| file.header.start == position);
    let mut failure = None;
    for (height, form, path) in candidates(options, listing) {
        let loaded = match form {
            Form::Snapshot => load_snapshot(directory, path, options, None),
            Form::Table => load_table(directory, path, height, options, listing),
        };
        let reason = match loaded {
            Ok(Base { position, tree, bytes, due }) => {
                // A snapshot alone, without any log, is how a new node is given its first state.
                match log_from(position).or(logs.is_empty().then_some(0)) {
                    Some(first) => {
                        report.snapshot_height = position.height;
                        let mut state = Redo::new(tree, position.height, options);
                        (state.snapshot_bytes, state.due) = (bytes, due);
                        state.push(height);
                        return Ok((state, first));
                    }
                    None => format!("{}: no log file begins there", path.display()),
                }
            }
            Err(error @ StateError::OtherHash { .. }) => return Err(error),
            Err(error) => {
                let reason = error.to_string();
                if matches!(error, StateError::Io { .. } | StateError::Device { .. }) {
                    failure = Some(error);
                }
                reason
            }
        };
        report.snapshots_refused.push(reason);
    }
    // What cannot be read now may be sound.
    if let Some(error) = failure {
        return Err(error);
    }
    let start = Position { height: None, root: EMPTY };
    match log_from(start) {
        None if !(listing.snapshots.is_empty() && listing.tables.is_empty() && logs.is_empty()) => {
            Err(StateError::NoBase { path: directory.to_owned(), refused: report.snapshots_refused.join("; ") })
        }
        first => {
            let tree = empty_tree(directory, options, options.layout == Layout::Paged)?;
            adopt_device(directory, &tree)?;
            Ok((Redo::new(tree, None, options), first.unwrap_or(0)))
        }
    }
}

/// Snapshots and tables up to the greatest height that is wanted, the newest first; of one height that which needs no
/// conversion.
fn candidates<'l>(options: &Options, listing: &'l Listing) -> Vec<(u64, Form, &'l Path)> {
    let of = |form| move |(height, path): &'l (u64, PathBuf)| (*height, form, path.as_path());
    let snapshots = listing.snapshots.iter().map(of(Form::Snapshot));
    let tables = listing.tables.iter().map(of(Form::Table));
    let wanted = |(height, ..): &(u64, Form, &Path)| options.height_max.is_none_or(|max| *height <= max);
    let mut all: Vec<_> = snapshots.chain(tables).filter(wanted).collect();
    let other = if options.layout == Layout::Memory { Form::Table } else { Form::Snapshot };
    all.sort_by_key(|(height, form, _)| (std::cmp::Reverse(*height), *form == other));
    all
}

/// A tree without leaves, in memory or with a new device for its pages.
///
/// The device has another name until [`adopt_device`].
fn empty_tree(directory: &Path, options: &Options, paged: bool) -> Result<Tree, StateError> {
    if !paged {
        return Ok(Tree::new(options.hash, options.values_memory_bytes));
    }
    let [new, path] = [NEW_PAGES_FILE, PAGES_FILE].map(|name| directory.join(name));
    let pages = Pages::create(&new, &path, options.hash, options.page_cache_bytes)?;
    Ok(Tree::paged(options.hash, pages))
}

/// Puts a new device in the place of what was there: the tree on it is whole.
fn adopt_device(directory: &Path, tree: &Tree) -> Result<(), StateError> {
    if tree.pages().is_none() {
        return Ok(());
    }
    let [new, path] = [NEW_PAGES_FILE, PAGES_FILE].map(|name| directory.join(name));
    std::fs::rename(&new, &path).map_err(StateError::io("rename", &new))?;
    sync_directory(directory)
}

/// Loads a snapshot, unless `stop` is set meanwhile.
pub(crate) fn load_snapshot(
    directory: &Path,
    path: &Path,
    options: &Options,
    stop: Option<&AtomicBool>,
) -> Result<Base, StateError> {
    let reader = SnapshotReader::open(path)?;
    let paged = match options.layout {
        Layout::Memory => false,
        Layout::Paged => true,
        Layout::Auto { keys } => reader.pairs() >= keys,
    };
    let (header, tree, bytes) = load(&reader, empty_tree(directory, options, paged)?, options.threads, stop)?;
    adopt_device(directory, &tree)?;
    let position = Position { height: Some(header.height), root: header.root };
    Ok(Base { position, tree, bytes, due: paged })
}

fn load_table(
    directory: &Path,
    path: &Path,
    height: u64,
    options: &Options,
    listing: &Listing,
) -> Result<Base, StateError> {
    let corrupt = |what| StateError::Corrupt { path: path.to_owned(), offset: 0, what };
    // The table before this one stays what an open may have to begin from.
    let older = listing.tables.iter().filter(|(other, _)| *other < height).take(GENERATIONS - 1);
    let older: Vec<(DeviceId, Vec<Run>)> = older
        .filter_map(|(_, path)| Table::read(path).ok())
        .map(|table| (table.header.device, table.pages.iter().map(PageAt::run).collect()))
        .collect();
    let Table { header, pages: places, size } = Table::read(path)?;
    if header.hash != options.hash {
        return Err(StateError::OtherHash { path: path.to_owned() });
    }
    let pages = Pages::open(&directory.join(PAGES_FILE), options.hash, options.page_cache_bytes)?;
    if header.device != pages.id() {
        return Err(corrupt("the table is about another device"));
    }
    let mut tree = Tree::over(options.hash, pages, &places)
        .filter(|tree| tree.root().hash == header.root)
        .ok_or_else(|| corrupt("the pages are not those of the root"))?;
    if options.layout == Layout::Memory {
        let header = SnapshotHeader {
            hash: header.hash,
            height: header.height,
            root: header.root,
            pairs: 0,
            depth: SnapshotHeader::division(tree.sizes()).0,
        };
        let mut job = SnapshotJob::start(directory, header, &mut tree)?;
        job.step(&tree, usize::MAX, true);
        job.finish()?;
        return load_snapshot(directory, &directory.join(file_name(height)), options, None);
    }
    if let Some(pages) = tree.pages_mut() {
        for (device, runs) in older {
            if device == pages.id() {
                pages.space_mut().add_checkpoint(runs.into_iter());
            }
        }
        pages.space_mut().add_checkpoint(places.iter().map(PageAt::run));
    }
    Ok(Base { position: Position { height: Some(header.height), root: header.root }, tree, bytes: size, due: false })
}

/// Deletes a device that was not finished, and that of a map that has no pages any more and no table that needs it.
fn drop_device(directory: &Path, listing: &Listing, tree: &Tree) -> Result<(), StateError> {
    let mut needless = vec![directory.join(NEW_PAGES_FILE)];
    if tree.pages().is_none() && listing.tables.is_empty() {
        needless.push(directory.join(PAGES_FILE));
    }
    for path in needless.iter().filter(|path| path.is_file()) {
        std::fs::remove_file(path).map_err(StateError::io("delete", path))?;
    }
    Ok(())
}

/// Deletes log files whose records all lie above the greatest height that is wanted.
fn drop_logs(directory: &Path, logs: &[LogFile]) -> Result<(), StateError> {
    for file in logs {
        std::fs::remove_file(&file.path).map_err(StateError::io("delete", &file.path))?;
    }
    if logs.is_empty() { Ok(()) } else { sync_directory(directory) }
}

/// Renames snapshots and tables newer than the one that was loaded, so that they do not count as a generation.
fn put_aside(directory: &Path, listing: &Listing, loaded: Option<u64>) -> Result<(), StateError> {
    let mut changed = false;
    for (_, path) in listing.snapshots.iter().chain(&listing.tables).filter(|(height, _)| Some(*height) > loaded) {
        std::fs::rename(path, path.with_extension("refused")).map_err(StateError::io("rename", path))?;
        changed = true;
    }
    if changed { sync_directory(directory) } else { Ok(()) }
}

/// A state to which records are applied.
pub(crate) struct Redo {
    pub(crate) tree: Tree,
    pub(crate) history: History,
    pub(crate) records: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    /// Height of the snapshot it began with.
    report_height: Option<u64>,
    threads: usize,
    due: bool,
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
            due: false,
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
        if self.tree.pages().is_none() {
            self.log_file = Some(self.tree.values_mut().files.add(&file.path)?);
        }
        let end = file.replay(height_max, |record| self.apply(file, record))?;
        if end.torn > 0 && !end.beyond && !last {
            return Err(corrupt(end.length, "a record is damaged and a newer file follows"));
        }
        self.log_bytes += end.length;
        Ok(end)
    }

    /// Redoes the records of a file from where an earlier replay of it ended.
    pub(crate) fn go_on(&mut self, file: &LogFile, from: u64) -> Result<LogEnd, StateError> {
        file.replay_from(from, None, |record| self.apply(file, record))
    }

    fn apply(&mut self, file: &LogFile, Record { header, writes, offset }: Record) -> Result<(), StateError> {
        let corrupt = |what| StateError::Corrupt { path: file.path.clone(), offset, what };
        let position = self.position();
        if header.root_before != position.root || position.height.is_some_and(|height| height >= header.height) {
            return Err(corrupt("the record does not continue the state before it"));
        }
        let update = self.tree.stage(&writes, self.threads)?;
        if update.root_hash() != header.root_after {
            return Err(corrupt("the record's writes lead to another root"));
        }
        let offsets = value_offsets(&writes);
        let place = self.log_file.map(|file| (Place { file, offset: offset + HEADER_BYTES as u64 }, &*offsets));
        self.tree.reserve(&update)?;
        let undo = self.tree.apply(update, Written { writes: &writes, place })?;
        self.history.push(&mut self.tree, header.height, undo);
        self.records += 1;
        Ok(())
    }
}
