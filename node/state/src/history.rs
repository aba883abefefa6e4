//! Which versions are retained, and when what only they need may go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use stele_merkle::Hash;

use crate::tree::{Child, Tree, Undo, View};

/// How far back roots can be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBounds {
    /// So many of the newest roots are retained, the newest included, and...
    pub roots: usize,
    /// ...more of them until they are this old, but...
    pub age: Duration,
    /// ...never more than this many bytes of memory for what only older roots need. A batch of 10,000 updates takes 6 MB
    /// of it. While a snapshot is being copied its root is retained regardless.
    pub bytes: usize,
}

impl HistoryBounds {
    /// 128 roots or one minute, whichever is more, within a GiB.
    pub const DEFAULT: Self = Self { roots: 128, age: Duration::from_mins(1), bytes: 1 << 30 };
    /// 128 roots whatever their age, for maps without a clock's company: replays and models.
    pub const ROOTS: Self = Self { age: Duration::ZERO, ..Self::DEFAULT };
}

/// A root that can still be proven.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) height: u64,
    pub(crate) root: Child,
    since: Instant,
    /// The way back to the version before.
    undo: Undo,
}

impl Version {
    pub(crate) fn root_hash(&self) -> Hash {
        self.root.hash
    }
}

/// The retained versions, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    bounds: HistoryBounds,
    versions: VecDeque<Version>,
    bytes: usize,
    /// Bytes of the lists that lead back, a part of `bytes`.
    list_bytes: usize,
    /// Heights of the versions that snapshots are being copied from.
    pinned: Vec<u64>,
}

impl History {
    pub(crate) const fn new(bounds: HistoryBounds) -> Self {
        Self { bounds, versions: VecDeque::new(), bytes: 0, list_bytes: 0, pinned: Vec::new() }
    }

    pub(crate) fn newest(&self) -> Option<&Version> {
        self.versions.back()
    }

    /// Height of the oldest version.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.versions.front().map(|version| version.height)
    }

    pub(crate) fn at(&self, height: u64) -> Option<&Version> {
        self.versions.get(self.position(height)?)
    }

    /// The tree as it was after `height`.
    pub(crate) fn view<'a>(&'a self, tree: &'a Tree, height: u64) -> Option<View<'a>> {
        let position = self.position(height)?;
        let later = self.versions.range(position + 1..).map(|version| &version.undo).collect();
        Some(tree.version(self.versions.get(position)?.root, later))
    }

    fn position(&self, height: u64) -> Option<usize> {
        self.versions.binary_search_by_key(&height, |version| version.height).ok()
    }

    /// Roots retained.
    pub(crate) fn roots(&self) -> usize {
        self.versions.len()
    }

    /// Bytes that only older roots need.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes held here, beside what the tree keeps for older roots.
    pub(crate) fn list_bytes(&self) -> usize {
        self.list_bytes
    }

    /// Whether a snapshot that is being copied has the history at twice its bound.
    pub(crate) fn is_burdened(&self) -> bool {
        self.bytes > 2 * self.bounds.bytes
    }

    /// Adds the newest version and frees what is beyond the bounds.
    pub(crate) fn push(&mut self, tree: &mut Tree, height: u64, undo: Undo) {
        self.bytes += undo.bytes();
        self.list_bytes += undo.list_bytes();
        self.versions.push_back(Version { height, root: tree.root(), since: Instant::now(), undo });
        self.trim(tree);
    }

    /// Keeps a version until [`History::unpin`].
    pub(crate) fn pin(&mut self, height: u64) {
        self.pinned.push(height);
    }

    /// Takes one pin of a version back; several may hold it.
    pub(crate) fn unpin(&mut self, tree: &mut Tree, height: u64) {
        if let Some(at) = self.pinned.iter().position(|pinned| *pinned == height) {
            self.pinned.swap_remove(at);
            self.trim(tree);
        }
    }

    fn trim(&mut self, tree: &mut Tree) {
        let now = Instant::now();
        while let Some(first) = self.versions.front_mut() {
            // The way back to a version that is gone leads nowhere.
            let undo = std::mem::take(&mut first.undo);
            self.bytes -= undo.bytes();
            self.list_bytes -= undo.list_bytes();
            tree.free(undo);
            // A version ends when the next one begins.
            let Some(second) = self.versions.get(1) else { break };
            let old = now.duration_since(second.since) >= self.bounds.age;
            let beyond = self.versions.len() > self.bounds.roots && old || self.bytes > self.bounds.bytes;
            if !beyond || self.versions.front().is_some_and(|version| self.pinned.contains(&version.height)) {
                break;
            }
            self.versions.pop_front();
        }
    }
}
