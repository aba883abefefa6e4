//! Which roots are retained, and when their nodes may go.

use std::collections::VecDeque;

use stele_merkle::Hash;

use crate::tree::{NodeRef, Retired, Tree};

/// Roots that can be proven, the newest included.
pub const HISTORY_ROOTS_MAX: usize = 128;

/// Bytes of memory that roots other than the newest may hold. Batches of 10,000 writes use 6 MB each, so with those
/// fewer than [`HISTORY_ROOTS_MAX`] roots stay. While a snapshot is being copied its root is retained regardless.
pub const HISTORY_BYTES_MAX: usize = 256 << 20;

/// A root that is still whole in memory.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) height: u64,
    pub(crate) root: Hash,
    pub(crate) node: NodeRef,
    /// Nodes that this version no longer has and the one before it has.
    retired: Retired,
}

/// The retained versions, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    versions: VecDeque<Version>,
    bytes: usize,
    /// Height of the version that a snapshot is being copied from.
    pinned: Option<u64>,
}

impl History {
    pub(crate) fn newest(&self) -> Option<&Version> {
        self.versions.back()
    }

    pub(crate) fn at(&self, height: u64) -> Option<&Version> {
        let index = self.versions.binary_search_by_key(&height, |version| version.height).ok()?;
        self.versions.get(index)
    }

    /// Roots retained.
    pub(crate) fn roots(&self) -> usize {
        self.versions.len()
    }

    /// Bytes that only older roots need.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the newest version and frees what is beyond the bounds.
    pub(crate) fn push(&mut self, tree: &mut Tree, height: u64, retired: Retired) {
        self.bytes += retired.bytes();
        self.versions.push_back(Version { height, root: tree.root_hash(), node: tree.root(), retired });
        self.trim(tree);
    }

    /// Keeps a version until [`History::unpin`].
    pub(crate) fn pin(&mut self, height: u64) {
        self.pinned = Some(height);
    }

    pub(crate) fn unpin(&mut self, tree: &mut Tree) {
        self.pinned = None;
        self.trim(tree);
    }

    fn trim(&mut self, tree: &mut Tree) {
        while let Some(first) = self.versions.front_mut() {
            // What the oldest version has retired belongs to no version that is still here.
            let retired = std::mem::take(&mut first.retired);
            self.bytes -= retired.bytes();
            tree.free(retired);
            let beyond = self.versions.len() > HISTORY_ROOTS_MAX || self.bytes > HISTORY_BYTES_MAX;
            let oldest = self.versions.front().map(|version| version.height);
            if !beyond || self.versions.len() == 1 || oldest == self.pinned {
                break;
            }
            self.versions.pop_front();
        }
    }
}
