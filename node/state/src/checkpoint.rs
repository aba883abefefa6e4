//! Checkpoints, whatever their form: what an open begins from.

use std::path::Path;
use std::sync::Arc;

use crate::StateError;
use crate::history::Version;
use crate::pages::{TableHeader, TableJob};
use crate::snapshot::{SnapshotHeader, SnapshotJob};
use crate::tree::{Tree, Undo};

/// Pairs and ranges copied into a running snapshot per commit, whatever the commit's size: a million of them take a
/// thousand empty blocks.
const PAIRS_PER_COMMIT: usize = 1024;

/// Pairs copied per write of a commit, so that a snapshot ends before the map has changed by a quarter.
const PAIRS_PER_WRITE: usize = 4;

/// Pages copied into a running table per commit, and so many more per write.
const PAGES_PER_COMMIT: usize = 1024;
const PAGES_PER_WRITE: usize = 2;

/// How far a checkpoint goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Beside a commit of so many writes. `wait` for the disk: what is retained meanwhile is memory.
    Commit { writes: u32, wait: bool },
    /// To the end.
    All,
}

impl Pace {
    /// Pairs of a snapshot to copy.
    pub(crate) fn pairs(self) -> usize {
        self.items(PAIRS_PER_COMMIT, PAIRS_PER_WRITE)
    }

    fn items(self, per_commit: usize, per_write: usize) -> usize {
        match self {
            Self::Commit { writes, .. } => per_commit + writes as usize * per_write,
            Self::All => usize::MAX,
        }
    }

    pub(crate) fn waits(self) -> bool {
        !matches!(self, Self::Commit { wait: false, .. })
    }
}

/// A checkpoint in the making.
#[derive(Debug)]
pub(crate) enum Checkpoint {
    /// All pairs.
    Snapshot(SnapshotJob),
    /// Where the pages are.
    Table(TableJob),
}

impl Checkpoint {
    /// Begins a checkpoint of the newest version, whose pages are all on the device. The caller keeps it retained until
    /// [`Checkpoint::take_pin`].
    pub(crate) fn start(directory: &Path, tree: &mut Tree, newest: &Version) -> Result<Self, StateError> {
        let (hash, height, root) = (tree.hash(), newest.height, newest.root_hash());
        let count = tree.live_pages() as u64;
        let Some(pages) = tree.pages_mut() else {
            let (depth, _) = SnapshotHeader::division(tree.sizes());
            let header = SnapshotHeader { hash, height, root, pairs: 0, depth };
            return Ok(Self::Snapshot(SnapshotJob::start(directory, header, tree)?));
        };
        let header = TableHeader { hash, device: pages.id(), height, root, pages: count };
        let job = TableJob::start(directory, header, Arc::clone(pages.store()))?;
        pages.space_mut().begin_checkpoint();
        Ok(Self::Table(job))
    }

    pub(crate) fn height(&self) -> u64 {
        match self {
            Self::Snapshot(job) => job.height(),
            Self::Table(job) => job.height(),
        }
    }

    pub(crate) fn step(&mut self, tree: &Tree, pace: Pace) {
        match self {
            Self::Snapshot(job) => job.step(tree, pace.pairs(), pace.waits()),
            Self::Table(job) => {
                let pages = pace.items(PAGES_PER_COMMIT, PAGES_PER_WRITE);
                job.step(tree, pages, pace.waits());
            }
        }
    }

    /// Takes note of what a commit changed. It has been applied to `tree`.
    pub(crate) fn record(&mut self, tree: &Tree, undo: &Undo) {
        match self {
            Self::Snapshot(job) => job.record(tree, undo),
            Self::Table(job) => job.record(tree, undo),
        }
    }

    /// The height whose version the owner need not keep any more; told once.
    pub(crate) fn take_pin(&mut self) -> Option<u64> {
        match self {
            Self::Snapshot(job) => job.take_pin(),
            Self::Table(job) => job.take_pin(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Snapshot(job) => job.is_finished(),
            Self::Table(job) => job.is_finished(),
        }
    }

    /// Waits for the writer: the size of the file, or why there is none.
    pub(crate) fn finish(self) -> Result<u64, StateError> {
        match self {
            Self::Snapshot(job) => job.finish(),
            Self::Table(job) => job.finish(),
        }
    }
}
