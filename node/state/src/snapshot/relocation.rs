//! After a snapshot: values move to it, so that the files from before can go.

use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use stele_merkle::state::Key;

use super::SnapshotReader;
use crate::StateError;
use crate::tree::Tree;
use crate::values::{FileId, FileSet, Place};

/// Chunks that wait for the owner.
const CHUNKS_WAITING_MAX: usize = 2;

/// A key, and where its value begins and how long it is.
type Moved = (Key, u64, usize);

/// Values on their way to a snapshot.
#[derive(Debug)]
pub(crate) struct Relocation {
    /// Files that values leave.
    old: FileSet,
    file: FileId,
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
            .spawn(move || {
                reader.places(|places| {
                    // The owner may be gone.
                    let _ = sender.send(places);
                })
            })
            .map_err(StateError::io("start the reader of", path))?;
        Ok(Self { old, file, chunks: Mutex::new(chunks), reader })
    }

    /// Moves the values of one chunk, waiting for it if `wait`. True when there are no more.
    pub(crate) fn step(&mut self, tree: &mut Tree, wait: bool) -> bool {
        let chunks = self.chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let chunk = if wait { chunks.recv().map_err(|_| TryRecvError::Disconnected) } else { chunks.try_recv() };
        match chunk {
            Ok(moved) => {
                for (key, offset, length) in moved {
                    tree.relocate(&key, &self.old, Place { file: self.file, offset }, length);
                }
                false
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => true,
        }
    }

    /// Waits for the reader: the files that nothing of the newest version lies in any more, if it read everything.
    pub(crate) fn finish(self) -> Option<FileSet> {
        drop(self.chunks);
        matches!(self.reader.join(), Ok(Ok(()))).then_some(self.old)
    }
}
