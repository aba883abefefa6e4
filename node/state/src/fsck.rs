//! Checking the directory of a stopped map: everything is read, nothing is written.
//!
//! Opening looks for one way to the newest state and repairs what a crash explains. [`fsck`] looks at every file, so that
//! damage is known while the copy that an opening would fall back to is still sound. It names each damaged place and
//! leaves it as it is.
//!
//! * A snapshot's table has to lead to its root, and each chunk to what the table says of it: the hash of every value is
//!   computed again.
//! * Each log file has to begin where the one before it ends, or at a snapshot. Its records are redone, and every root is
//!   compared. What follows the first damaged record of a file cannot be redone, and the check goes on at the next sound
//!   snapshot.
//! * A table's pages have to lead to its root, and each page on the device to the hash that the table has of it. Redoing a
//!   log on pages would write some, so the records behind a table are not redone: their checksums are compared, and that
//!   each goes on from the root of the one before.
//!
//! It needs the memory of an opened map without its values: about 140 bytes per key, 5 where the leaves lie in pages.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stele_merkle::state::{EMPTY, StateHash};

use crate::pages::{Page, PageAt, Pages, Store, Table, check_pages, offset, table_name};
use crate::recovery::{PAGES_FILE, Redo};
use crate::snapshot::{SnapshotReader, file_name as snapshot_name, list, load};
use crate::tree::Tree;
use crate::write_log::{LogEnd, LogFile, Position, Record, file_name as log_name};
use crate::{Hash, HistoryBounds, Options, StateError};

/// Findings that are reported one by one; more are counted. A snapshot has up to a million chunks.
pub const FINDINGS_MAX: usize = 1_000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Height and root of the state that the files lead to; none when they lead to none.
    pub reaches: Option<(u64, Hash)>,
    /// Snapshots that were read.
    pub snapshots: u64,
    /// Chunks of snapshots that are sound.
    pub chunks: u64,
    /// Tables of pages that were read.
    pub tables: u64,
    /// Pages of them that are sound; one that both have counts twice.
    pub pages: u64,
    /// Log files that were read.
    pub logs: u64,
    /// Records of the log that were redone or, behind a table, followed.
    pub records: u64,
    /// What is not as it should be, the first [`FINDINGS_MAX`] of it.
    pub findings: Vec<Finding>,
    /// Damages among all findings.
    pub damages: u64,
    /// Findings that are not in the list.
    pub findings_left_out: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Bytes are not those that were written, or cannot be read.
    Damaged,
    /// A file is gone that others need.
    Missing,
    /// A crash interrupted the last write. Opening drops what is left of it.
    Torn,
    /// No snapshot stands where a log begins: it was not finished, or it is gone. What lies before leads there.
    Unsupported,
    /// A file that nothing needs; the next opening or snapshot removes it.
    LeftOver,
}

impl FindingKind {
    /// Stable name for interfaces.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Torn => "torn",
            Self::Unsupported => "unsupported",
            Self::LeftOver => "left_over",
        }
    }

    /// Whether no crash explains it.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::Damaged | Self::Missing)
    }
}

/// Checks a directory that no map has open, without changing it. A directory with snapshots only is checked, too.
///
/// # Errors
/// [`StateError::Locked`] when a map has it open, [`StateError::NoBase`] when it has no state files,
/// [`StateError::OtherHash`], [`StateError::Full`], and [`StateError::Io`] when the directory cannot be listed. Files that
/// are damaged or cannot be read are findings.
pub fn fsck(directory: &Path, hash: StateHash) -> Result<Report, StateError> {
    let _lock = hold(directory)?;
    let listing = list(directory)?;
    if listing.snapshots.is_empty() && listing.tables.is_empty() && listing.logs.is_empty() {
        return Err(StateError::NoBase { path: directory.to_owned(), refused: String::new() });
    }
    let mut check = Check { directory, options: options(hash), report: Report::default() };
    for path in &listing.leftovers {
        check.find(FindingKind::LeftOver, path.clone(), 0, "an unfinished file, or one that was put aside");
    }
    let mut bases = Vec::new();
    for (height, path) in listing.snapshots.iter().rev() {
        bases.extend(check.snapshot(*height, path)?);
    }
    for (height, path) in listing.tables.iter().rev() {
        bases.extend(check.table(*height, path)?);
    }
    bases.sort_by_key(|base| base.position.height);
    let logs = check.open_logs(&listing.logs)?;
    if listing.logs.is_empty() {
        check.report.reaches = bases.last().and_then(Base::reached);
        return Ok(check.report);
    }
    let oldest = listing.logs.first().map(|(sequence, _)| *sequence);
    check.compare(&bases, &logs, oldest);
    check.redo(&bases, &logs, oldest)?;
    Ok(check.report)
}

/// Keeps maps out as long as it is held, as an open map would. Nobody can hold what has no lock file: a copy has none.
fn hold(directory: &Path) -> Result<Option<File>, StateError> {
    let path = directory.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("open", &path)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StateError::io("lock", &path)(error)),
    }
}

/// Neither values nor older versions stay in memory.
const fn options(hash: StateHash) -> Options {
    let history = HistoryBounds { roots: 1, age: Duration::ZERO, bytes: 0 };
    Options { history, values_memory_bytes: 0, ..Options::new(hash) }
}

/// A sound snapshot or table.
struct Base<'l> {
    path: &'l Path,
    position: Position,
    is_table: bool,
}

impl Base<'_> {
    fn reached(&self) -> Option<(u64, Hash)> {
        self.position.height.map(|height| (height, self.position.root))
    }
}

struct Check<'d> {
    directory: &'d Path,
    options: Options,
    report: Report,
}

impl Check<'_> {
    fn find(&mut self, kind: FindingKind, path: PathBuf, offset: u64, what: impl Into<String>) {
        self.report.damages += u64::from(kind.is_damage());
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { kind, path, offset, what: what.into() });
        } else {
            self.report.findings_left_out += 1;
        }
    }

    /// Takes note of what is wrong with a file; what is wrong with the check itself stays an error.
    fn note(&mut self, error: StateError) -> Result<(), StateError> {
        match error {
            StateError::Corrupt { path, offset, what } => self.find(FindingKind::Damaged, path, offset, what),
            StateError::Io { path, source, .. } => {
                self.find(FindingKind::Damaged, path, 0, format!("cannot be read: {source}"));
            }
            StateError::Device { path, source } => {
                self.find(FindingKind::Damaged, path, 0, format!("cannot be read: {source}"));
            }
            error => return Err(error),
        }
        Ok(())
    }

    /// Reads a snapshot whole; where it stands, if all of it is sound.
    fn snapshot<'l>(&mut self, height: u64, path: &'l Path) -> Result<Option<Base<'l>>, StateError> {
        self.report.snapshots += 1;
        let before = self.report.damages;
        let reader = match SnapshotReader::open(path) {
            Ok(reader) => reader,
            Err(error) => return self.note(error).map(|()| None),
        };
        if reader.hash() != self.options.hash {
            return Err(StateError::OtherHash { path: path.to_owned() });
        }
        if reader.height() != height {
            self.find(FindingKind::Damaged, path.to_owned(), 0, "the header is of another height than the name");
        }
        for chunk in reader.checks() {
            match chunk {
                Ok(()) => self.report.chunks += 1,
                Err(error) => self.note(error)?,
            }
        }
        let position = Position { height: Some(reader.height()), root: reader.root() };
        Ok((self.report.damages == before).then_some(Base { path, position, is_table: false }))
    }

    /// Reads a table and all its pages; where it stands, if all of it is sound.
    fn table<'l>(&mut self, height: u64, path: &'l Path) -> Result<Option<Base<'l>>, StateError> {
        self.report.tables += 1;
        let before = self.report.damages;
        let hash = self.options.hash;
        let table = match Table::read(path) {
            Ok(table) => table,
            Err(error) => return self.note(error).map(|()| None),
        };
        if table.header.hash != hash {
            return Err(StateError::OtherHash { path: path.to_owned() });
        }
        if table.header.height != height {
            self.find(FindingKind::Damaged, path.to_owned(), 0, "the header is of another height than the name");
        }
        let pages = match Pages::open(&self.directory.join(PAGES_FILE), hash, 0) {
            Ok(pages) => pages,
            Err(error) => return self.note(error).map(|()| None),
        };
        if pages.id() != table.header.device {
            self.find(FindingKind::Damaged, path.to_owned(), 0, "the table is about another device");
            return Ok(None);
        }
        let store = Arc::clone(pages.store());
        let tree = Tree::over(hash, pages, &table.pages).filter(|tree| tree.root().hash == table.header.root);
        if tree.is_none() {
            self.find(FindingKind::Damaged, path.to_owned(), 0, "the pages are not those of the root");
            return Ok(None);
        }
        self.pages(&store, &table.pages)?;
        let position = Position { height: Some(height), root: table.header.root };
        Ok((self.report.damages == before).then_some(Base { path, position, is_table: true }))
    }

    /// Reads pages and compares each with its hash, also behind one that cannot be read.
    fn pages(&mut self, store: &Store, pages: &[PageAt]) -> Result<(), StateError> {
        let blocks: Vec<Page> = pages.iter().map(|page| page.wanted.page).collect();
        let mut wanted = pages.iter().map(|page| page.wanted);
        store.read_each(&blocks, |bodies| {
            let mut read = Vec::with_capacity(bodies.len());
            for (body, wanted) in bodies.into_iter().zip(wanted.by_ref()) {
                match body {
                    Ok(body) => read.push((wanted, body)),
                    Err(StateError::Device { path, source }) => {
                        let what = format!("a page cannot be read: {source}");
                        self.find(FindingKind::Damaged, path, offset(wanted.page.block), what);
                    }
                    Err(error) => self.note(error)?,
                }
            }
            for page in check_pages(self.options.hash, read) {
                match page {
                    Ok(_) => self.report.pages += 1,
                    Err(page) => self.note(store.corrupt(page))?,
                }
            }
            Ok(())
        })
    }

    /// The log files whose headers are sound.
    fn open_logs(&mut self, listed: &[(u64, PathBuf)]) -> Result<Vec<LogFile>, StateError> {
        let mut logs = Vec::with_capacity(listed.len());
        let mut expected = None;
        for (sequence, path) in listed {
            if let Some(expected) = expected.filter(|expected| expected != sequence) {
                let missing = self.directory.join(log_name(expected));
                self.find(FindingKind::Missing, missing, 0, "the log goes on behind it");
            }
            expected = sequence.checked_add(1);
            self.report.logs += 1;
            match LogFile::open(path.clone(), *sequence) {
                Ok(file) if file.header.hash != self.options.hash => {
                    return Err(StateError::OtherHash { path: path.clone() });
                }
                Ok(file) => logs.push(file),
                Err(error) => self.note(error)?,
            }
        }
        Ok(logs)
    }

    /// Compares where snapshots stand with where log files begin.
    fn compare(&mut self, bases: &[Base<'_>], logs: &[LogFile], oldest: Option<u64>) {
        for base in bases {
            if !logs.iter().any(|file| file.header.start == base.position) {
                let what = "no sound log file begins at this snapshot";
                self.find(FindingKind::Missing, base.path.to_owned(), 0, what);
            }
        }
        for file in logs.iter().filter(|file| Some(file.sequence) != oldest) {
            let Some(height) = file.header.start.height else { continue };
            let path = self.directory.join(snapshot_name(height));
            if !path.exists() && !self.directory.join(table_name(height)).exists() {
                let what = "there is no snapshot where a log file begins: it was not finished, or it is gone";
                self.find(FindingKind::Unsupported, path, 0, what);
            }
        }
    }

    /// Redoes the log from its beginning, and from the next snapshot when something is damaged before.
    fn redo(&mut self, bases: &[Base<'_>], logs: &[LogFile], oldest: Option<u64>) -> Result<(), StateError> {
        let mut state: Option<Redo> = None;
        let mut followed: Option<Position> = None;
        for (index, file) in logs.iter().enumerate() {
            let (last, start) = (index + 1 == logs.len(), file.header.start);
            if state.take_if(|state| state.position() != start).is_some() {
                let what = "the file does not continue the state before it";
                self.find(FindingKind::Damaged, file.path.clone(), 0, what);
            }
            if followed.take_if(|followed| *followed != start).is_some() {
                let what = "the file does not continue the state before it";
                self.find(FindingKind::Damaged, file.path.clone(), 0, what);
            }
            let base = bases.iter().find(|base| base.position == start);
            match base {
                Some(base) if base.is_table && state.is_none() => followed = Some(start),
                _ if state.is_none() && followed.is_none() => state = self.base(start, base)?,
                _ => {}
            }
            if state.is_none() && followed.is_none() && Some(file.sequence) == oldest {
                self.without_beginning(start);
            }
            let end = match &mut state {
                Some(state) => {
                    let before = state.records;
                    let end = state.redo(file, last, None);
                    self.report.records += state.records - before;
                    end
                }
                None => self.follow(file, &mut followed),
            };
            match end {
                Ok(end) => self.end(file, end, last)?,
                Err(error) => {
                    self.note(error)?;
                    (state, followed) = (None, None);
                }
            }
        }
        let reached = state.map(|state| state.position()).or(followed);
        self.report.reaches = reached.and_then(|position| Some((position.height?, position.root)));
        Ok(())
    }

    /// Reads the records of a file without redoing them. Where it begins with a root that is known, each has to go on from
    /// the root before it; otherwise there are only the checksums.
    fn follow(&mut self, file: &LogFile, followed: &mut Option<Position>) -> Result<LogEnd, StateError> {
        let records = &mut self.report.records;
        file.replay(None, |Record { header, offset, .. }| {
            let Some(position) = followed else { return Ok(()) };
            if header.root_before != position.root || position.height.is_some_and(|height| height >= header.height) {
                let (path, what) = (file.path.clone(), "the record does not continue the state before it");
                return Err(StateError::Corrupt { path, offset, what });
            }
            *position = Position { height: Some(header.height), root: header.root_after };
            *records += 1;
            Ok(())
        })
    }

    /// The state at a position, if there is a way to it without the log.
    fn base(&mut self, start: Position, base: Option<&Base<'_>>) -> Result<Option<Redo>, StateError> {
        if start == (Position { height: None, root: EMPTY }) {
            let tree = Tree::new(self.options.hash, self.options.values_memory_bytes);
            return Ok(Some(Redo::new(tree, None, &self.options)));
        }
        let Some(base) = base else { return Ok(None) };
        let tree = Tree::new(self.options.hash, self.options.values_memory_bytes);
        match SnapshotReader::open(base.path).and_then(|reader| load(&reader, tree, self.options.threads, None)) {
            Ok((header, tree, _)) => {
                let mut state = Redo::new(tree, Some(header.height), &self.options);
                state.push(header.height);
                Ok(Some(state))
            }
            Err(error) => self.note(error).map(|()| None),
        }
    }

    /// The oldest log file begins at a snapshot that is not there; one that is there and damaged is known already.
    fn without_beginning(&mut self, start: Position) {
        let height = start.height.unwrap_or_default();
        let path = self.directory.join(snapshot_name(height));
        if !path.exists() && !self.directory.join(table_name(height)).exists() {
            self.find(FindingKind::Missing, path, 0, "the oldest log file begins at this snapshot");
        }
    }

    /// What stands behind the last sound record of a file.
    fn end(&mut self, file: &LogFile, end: LogEnd, last: bool) -> Result<(), StateError> {
        if end.torn == 0 {
            return Ok(());
        }
        let follows = file.has_header_after(end.length + 1).map_err(StateError::io("read", &file.path));
        let follows = match follows {
            Ok(follows) => follows,
            Err(error) => return self.note(error),
        };
        let (path, offset) = (file.path.clone(), end.length);
        if follows || !last {
            let what = format!("a record is damaged and others follow: opening drops {} bytes from here on", end.torn);
            self.find(FindingKind::Damaged, path, offset, what);
        } else {
            let what = format!("the last record is incomplete: opening drops its {} bytes", end.torn);
            self.find(FindingKind::Torn, path, offset, what);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::faulty::Faults;
    use crate::{Layout, StateMap as _, TreeMap, Write};

    /// The check ended at the first page that the device did not give, and whatever else was damaged stayed unknown.
    #[test]
    fn every_page_that_cannot_be_read_is_told_and_those_behind_it_too() {
        let (hash, directory) = (StateHash::Sha256, tempfile::TempDir::new().expect("a temporary directory"));
        let paged = Options { layout: Layout::Paged, ..Options::new(hash) };
        let mut map = TreeMap::open(directory.path(), paged).expect("a new map").map;
        let mut writes: Vec<Write> =
            (0..20_000_u64).map(|seed| (hash.value(&seed.to_be_bytes()), Some(vec![1; 200]))).collect();
        writes.sort_unstable();
        let staged = map.stage(&map.root(), writes).expect("a valid batch");
        map.commit(staged, 0).expect("a working disk");
        map.checkpoint().expect("a working disk");
        drop(map);

        let table = Table::read(&directory.path().join(table_name(0))).expect("a sound table");
        let faults = Arc::new(Faults::default());
        for count in [table.pages.len(), 5] {
            let pages = &table.pages[..count];
            let mut device = Pages::open(&directory.path().join(PAGES_FILE), hash, 0).expect("a sound device");
            device.break_by(&faults);
            let mut damaged: Vec<u64> =
                pages.iter().step_by(count / 5).map(|page| offset(page.wanted.page.block)).collect();
            damaged.sort_unstable();
            faults.unreadable.lock().expect("no panic").clone_from(&damaged);
            let mut check = Check { directory: directory.path(), options: options(hash), report: Report::default() };
            check.pages(device.store(), pages).expect("damage is no error");
            let mut told: Vec<u64> = check.report.findings.iter().map(|finding| finding.offset).collect();
            told.sort_unstable();
            assert_eq!((&told, check.report.damages), (&damaged, damaged.len() as u64));
            assert_eq!(check.report.pages, (count - damaged.len()) as u64, "the others are sound");
        }
    }
}
