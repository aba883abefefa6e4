//! A map in memory that has grown too large for it moves into pages while commits go on.
//!
//! A thread makes the same state again, with pages: from the snapshot that was just completed and the log since. It reads
//! the log while that grows, until little is left; the owner redoes the rest between two commits and takes the new tree for
//! the old one. Both have the same root, or there is no exchange.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::recovery::{Base, Redo, load_snapshot};
use crate::snapshot::file_name;
use crate::write_log::{LogFile, Position};
use crate::{Layout, Options, StateError};

/// The thread hands over when a pass over the log found no more than this, in bytes: redone in some tens of milliseconds.
const REST_BYTES_MAX: u64 = 4 << 20;

/// A move on its way.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Set when nobody wants the outcome any more.
    stop: Arc<AtomicBool>,
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
        let (directory, stop) = (directory.to_owned(), Arc::new(AtomicBool::new(false)));
        let path = directory.join(file_name(height));
        let (snapshot, stopped) = (path.clone(), Arc::clone(&stop));
        let maker = std::thread::Builder::new()
            .name("state-moving".to_owned())
            .spawn(move || Moved::make(&directory, &snapshot, log, &options, &stopped))
            .map_err(StateError::io("start to move", &path))?;
        Ok(Self { stop, maker })
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
        let Moved { mut state, log, offset } = self.maker.join().unwrap_or(Err(StateError::Poisoned))?;
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
        let mut offset = state.redo(&log, true, None)?.length;
        loop {
            let end = state.go_on(&log, offset)?.length;
            // Whoever stopped it does not look at the rest.
            if end - offset <= REST_BYTES_MAX || stop.load(Ordering::Relaxed) {
                return Ok(Self { state, log, offset: end });
            }
            offset = end;
        }
    }
}
