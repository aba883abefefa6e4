//! After a snapshot: values move to it, so that the files from before can go.

use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::SnapshotReader;
use crate::StateError;
use crate::tree::{Moved, Tree};
use crate::values::{FileId, FileSet};

/// Chunks that wait for the owner.
const CHUNKS_WAITING_MAX: usize = 2;

/// Values on their way to a snapshot.
#[derive(Debug)]
pub(crate) struct Relocation {
    /// Files that values leave.
    old: FileSet,
    file: FileId,
    /// The chunk that was received last, and how many of its values are moved.
    received: Vec<Moved>,
    moved: usize,
    /// In a lock only because a map is shared between threads.
    chunks: Mutex<Receiver<Vec<Moved>>>,
    reader: JoinHandle<Result<(), StateError>>,
}

impl Relocation {
    /// Begins to read a snapshot that is complete and open as `file`; values in `old` files are moved.
    pub(crate) fn start(path: &Path, file: FileId, old: FileSet) -> Result<Self, StateError> {
        let (sender, chunks) = sync_channel(CHUNKS_WAITING_MAX);
        let reader = SnapshotReader::open(path)?;
        let reader = std::thread::Builder::new()
            .name("state-relocation".to_owned())
            // The owner may be gone; then there is nothing more to read.
            .spawn(move || reader.places(|places| sender.send(places).is_ok()))
            .map_err(StateError::io("start the reader of", path))?;
        Ok(Self { old, file, received: Vec::new(), moved: 0, chunks: Mutex::new(chunks), reader })
    }

    /// Moves up to `values_max` values of those that are there, or waits for all. True when there are no more.
    pub(crate) fn step(&mut self, tree: &mut Tree, values_max: Option<usize>) -> bool {
        let mut left = values_max.unwrap_or(usize::MAX);
        loop {
            let until = self.received.len().min(self.moved.saturating_add(left));
            tree.relocate(&self.received[self.moved..until], &self.old, self.file);
            left -= until - self.moved;
            self.moved = until;
            if left == 0 {
                return false;
            }
            let chunks = self.chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
            let chunk = match values_max {
                Some(_) => chunks.try_recv(),
                None => chunks.recv().map_err(|_| TryRecvError::Disconnected),
            };
            match chunk {
                Ok(received) => (self.received, self.moved) = (received, 0),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Waits for the reader: the files that nothing of the newest version lies in any more, if it read everything.
    pub(crate) fn finish(self) -> Option<FileSet> {
        drop(self.chunks);
        matches!(self.reader.join(), Ok(Ok(()))).then_some(self.old)
    }
}
