//! A map in memory that has grown too large for it moves into pages while commits go on.
//!
//! A thread makes the same state again, with pages: from the snapshot that was just completed and the log since. It reads
//! the log while that grows, until little is left; the owner redoes the rest between two commits and takes the new tree for
//! the old one. When more has come meanwhile than a commit should wait for, the thread goes on first ([`Moving::go_on`]).
//! Both trees have the same root, or there is no exchange.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::recovery::{Base, Redo, load_snapshot};
use crate::snapshot::file_name;
use crate::write_log::{LogFile, Position};
use crate::{Layout, Options, StateError};

/// The thread hands over when a pass over the log found no more than this, in bytes, and no commit redoes more but its own
/// record and the one before it: some tens of thousand writes.
const REST_BYTES_MAX: u64 = 4 << 20;

/// A move on its way.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Set when nobody wants the outcome any more.
    stop: Arc<AtomicBool>,
    /// How far in the log the thread is; of use once it has ended.
    reached: Arc<AtomicU64>,
    maker: JoinHandle<Result<Moved, StateError>>,
}

/// The state with pages, and how far in the log it is.
struct Moved {
    state: Redo,
    log: LogFile,
    offset: u64,
}

impl Moving {
    /// Begins to move the state of a snapshot and the log that begins there.
    pub(crate) fn start(
        directory: &Path,
        height: u64,
        log: (PathBuf, u64),
        options: Options,
    ) -> Result<Self, StateError> {
        let directory = directory.to_owned();
        let snapshot = directory.join(file_name(height));
        Self::spawn(&snapshot.clone(), move |stop| Moved::make(&directory, &snapshot, log, &options, stop))
    }

    /// Begins a thread that makes the state, or makes it newer.
    fn spawn(
        path: &Path,
        make: impl FnOnce(&AtomicBool) -> Result<Moved, StateError> + Send + 'static,
    ) -> Result<Self, StateError> {
        let (stop, reached) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, reaches) = (Arc::clone(&stop), Arc::clone(&reached));
        let maker = move || make(&stopped).inspect(|moved| reaches.store(moved.offset, Ordering::Relaxed));
        let maker = std::thread::Builder::new()
            .name("state-moving".to_owned())
            .spawn(maker)
            .map_err(StateError::io("start to move", path))?;
        Ok(Self { stop, reached, maker })
    }

    /// Whether a commit can redo what a log of this length, with a last record of this length, has behind the thread that
    /// has ended.
    pub(crate) fn is_near(&self, length: u64, record: u64) -> bool {
        let rest = length.saturating_sub(self.reached.load(Ordering::Relaxed));
        // The thread may have ended while the record before the last was written.
        rest <= REST_BYTES_MAX.max(2 * record)
    }

    /// Has a thread go on with the log: too much is left for a commit.
    ///
    /// # Errors
    /// As for [`Moving::finish`].
    pub(crate) fn go_on(self) -> Result<Self, StateError> {
        let moved = self.join()?;
        Self::spawn(&moved.log.path.clone(), move |stop| moved.catch_up(stop))
    }

    fn join(self) -> Result<Moved, StateError> {
        self.maker.join().unwrap_or(Err(StateError::Poisoned))
    }

    /// Ends it early and waits until it writes nothing any more.
    pub(crate) fn abandon(self) {
        self.stop.store(true, Ordering::Relaxed);
        // Nobody wants to know how far it came.
        let _ = self.maker.join();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.maker.is_finished()
    }

    /// Waits for the thread and redoes what the log has behind it: the state at a position.
    ///
    /// # Errors
    /// Why the state could not be made; the map is as it was.
    pub(crate) fn finish(self, newest: Position) -> Result<Redo, StateError> {
        let Moved { mut state, log, offset } = self.join()?;
        let end = state.go_on(&log, offset)?;
        if state.position() == newest {
            Ok(state)
        } else {
            let (path, what) = (log.path, "the log does not lead to the newest state");
            Err(StateError::Corrupt { path, offset: end.length, what })
        }
    }
}

impl Moved {
    fn make(
        directory: &Path,
        snapshot: &Path,
        (log, sequence): (PathBuf, u64),
        options: &Options,
        stop: &AtomicBool,
    ) -> Result<Self, StateError> {
        let options = Options { layout: Layout::Paged, threads: 1, ..*options };
        let Base { position, tree, .. } = load_snapshot(directory, snapshot, &options, Some(stop))?;
        let mut state = Redo::new(tree, position.height, &options);
        if let Some(height) = position.height {
            state.push(height);
        }
        let log = LogFile::open(log, sequence)?;
        let offset = state.redo(&log, true, None)?.length;
        Self { state, log, offset }.catch_up(stop)
    }

    /// Redoes the log as it grows, until little is left.
    fn catch_up(mut self, stop: &AtomicBool) -> Result<Self, StateError> {
        loop {
            let end = self.state.go_on(&self.log, self.offset)?.length;
            let read = end - std::mem::replace(&mut self.offset, end);
            // Whoever stopped it does not look at the rest.
            if read <= REST_BYTES_MAX || stop.load(Ordering::Relaxed) {
                return Ok(self);
            }
        }
    }
}
