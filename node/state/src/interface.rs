//! The interface of a state map.

use std::path::Path;
use std::time::Duration;

use crate::{Hash, HistoryBounds, Key, MultiProof, Proof, StateError, StateHash};

/// One write: a key and its new value, or `None` to delete it.
pub type Write = (Key, Option<Vec<u8>>);

/// A map from 256-bit keys to bounded values with one root per commit.
///
/// Keys are uniform (hashes); engines may rely on that for speed, never for correctness. Reads and staging take `&self`
/// and see the newest commit, so an owner can put the map behind a reader-writer lock.
pub trait StateMap: Send + Sync + Sized {
    /// Writes that were applied to a committed state but are not part of it yet. Dropping it discards them.
    type Staged: Send;

    /// Opens the map in a directory, creating both when there are none, and recovers the newest durable state.
    ///
    /// # Errors
    /// [`StateError::Locked`] when another process has it open, [`StateError::Corrupt`] and [`StateError::NoBase`] when
    /// files are damaged beyond their redundancy, [`StateError::Io`].
    fn open(directory: &Path, options: Options) -> Result<Opened<Self>, StateError>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`StateError::Io`] and [`StateError::Corrupt`] in engines that keep values on disk.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StateError>;

    /// The values of several keys, in the order of the keys.
    ///
    /// # Errors
    /// As for [`StateMap::get`].
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Says which keys a coming batch will read or write. An engine with pages on disk loads them; others do nothing.
    fn prefetch(&self, _keys: &[Key]) {}

    /// Applies writes on top of the committed state whose root is `parent`, without side effects.
    ///
    /// # Errors
    /// [`StateError::UnknownParent`] when `parent` is not the newest committed root; [`StateError::Unsorted`] when keys
    /// are not strictly ascending; [`StateError::ValueTooLong`], [`StateError::BatchTooLarge`], [`StateError::Full`].
    fn stage(&self, parent: &Hash, writes: Vec<Write>) -> Result<Self::Staged, StateError>;

    /// The root that staged writes lead to.
    fn staged_root(staged: &Self::Staged) -> Hash;

    /// Makes staged writes the state after `height` and returns the root. With [`Durability::Sync`] they are on disk
    /// when this returns. The first commit may have any height, later ones must be higher than the last.
    ///
    /// # Errors
    /// [`StateError::Stale`] when something else was committed since; [`StateError::Height`]; [`StateError::Io`], after
    /// which every further commit fails with [`StateError::Poisoned`] until the map is opened again.
    fn commit(&mut self, staged: Self::Staged, height: u64) -> Result<Hash, StateError>;

    /// Throws staged writes away; the same as dropping them.
    fn discard(&self, staged: Self::Staged) {
        drop(staged);
    }

    /// Height of the newest commit, `None` before the first.
    fn height(&self) -> Option<u64>;

    /// Height up to which commits are certain to survive a power loss.
    fn durable_height(&self) -> Option<u64>;

    /// Root of the newest commit; 32 zero bytes when the map is empty.
    fn root(&self) -> Hash;

    /// Root after `height`, for heights that are still provable.
    fn root_at(&self, height: u64) -> Option<Hash>;

    /// The value of a key after `height`, with its proof.
    ///
    /// # Errors
    /// [`StateError::UnknownHeight`] when that height was not committed or is not provable any more; those of
    /// [`StateMap::get`].
    fn prove(&self, key: &Key, height: u64) -> Result<Proven, StateError>;

    /// The values of keys in strictly ascending order after `height`, with one proof for all of them.
    ///
    /// # Errors
    /// [`StateError::UnknownHeight`] as for [`StateMap::prove`]; [`StateError::Unsorted`]; [`StateError::Keys`] for none
    /// or more than [`crate::MULTI_KEYS_MAX`].
    fn prove_many(&self, keys: &[Key], height: u64) -> Result<ProvenMany, StateError>;

    /// All pairs of the newest commit in key order; in an engine that keeps values on disk each may fail.
    fn iter(&self) -> Pairs<'_>;

    /// Makes everything committed so far durable, for [`Durability::None`].
    ///
    /// # Errors
    /// [`StateError::Io`] and [`StateError::Poisoned`] as for [`StateMap::commit`].
    fn sync(&mut self) -> Result<(), StateError>;

    /// Writes a checkpoint now and waits for it.
    ///
    /// # Errors
    /// [`StateError::Io`]; the map stays usable.
    fn checkpoint(&mut self) -> Result<(), StateError>;

    /// Begins to write a snapshot of the newest commit for others, into a directory of its own; later commits go on with
    /// it, and [`Figures::export_height`] says when it is there. The two newest are kept. False when there is nothing to
    /// write, or the one before is not finished.
    ///
    /// # Errors
    /// [`StateError::ChunkTooLong`] when somebody has ground so many keys into one range that no division helps;
    /// [`StateError::Io`]; the map stays usable.
    fn export(&mut self, directory: &Path) -> Result<bool, StateError>;

    /// Numbers for metrics.
    fn figures(&self) -> Figures;
}

/// Pairs in key order, see [`StateMap::iter`].
pub type Pairs<'m> = Box<dyn Iterator<Item = Result<(Key, Vec<u8>), StateError>> + 'm>;

/// When a commit is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every commit is flushed to the disk before it returns.
    Sync,
    /// Commits are written without waiting for the disk. After a power loss the map may open at an earlier height, and
    /// the owner replays its blocks from there. The owner must make a block durable before it commits its state here.
    None,
}

/// Where the leaves of a map are. It changes no root, and may be another at every open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In memory: about 140 bytes per key.
    Memory,
    /// In pages of 4 KiB on a device, beside those used last: about 5 bytes of memory per key.
    Paged,
    /// As they are; in pages once a snapshot has so many keys, without an interruption. Roots from before that snapshot are
    /// not provable then.
    Auto {
        /// Keys from which on there are pages.
        keys: u64,
    },
}

/// How to open a map.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Hash function of the tree, fixed by the network's genesis.
    pub hash: StateHash,
    /// When a commit is on disk.
    pub durability: Durability,
    /// A snapshot is written once the log since the last one has this many bytes and twice the snapshot's size, a table of
    /// pages once it has this many and the table's. Smaller values shorten the recovery of small maps and write more.
    pub snapshot_log_bytes: u64,
    /// How far back roots can be proven.
    pub history: HistoryBounds,
    /// Bytes of values that stay in memory though they lie in a file as well, those written last. What is not there is
    /// read from its file.
    pub values_memory_bytes: usize,
    /// Where the leaves are.
    pub layout: Layout,
    /// Bytes of pages that stay in memory, those used last, in a map that has them.
    pub page_cache_bytes: usize,
    /// Threads that may work on one batch, the calling one included; small batches take one anyway.
    pub threads: usize,
    /// Greatest height that is opened; commits above it are dropped, and their owner makes them again. None: all.
    pub height_max: Option<u64>,
}

impl Options {
    /// The least log that starts a snapshot unless configured otherwise, see [`Options::snapshot_log_bytes`]: half a million
    /// writes of 100 bytes. What an open redoes grows with the map.
    pub const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;

    /// Bytes of values in memory unless configured otherwise.
    pub const VALUES_MEMORY_BYTES: usize = 1 << 30;

    /// Keys from which on a map has pages unless configured otherwise: 14 GB in memory.
    pub const PAGED_FROM_KEYS: u64 = 100_000_000;

    /// Bytes of pages in memory unless configured otherwise.
    pub const PAGE_CACHE_BYTES: usize = 1 << 30;

    /// The defaults for a hash function: every commit on disk.
    #[must_use]
    pub const fn new(hash: StateHash) -> Self {
        Self {
            hash,
            durability: Durability::Sync,
            snapshot_log_bytes: Self::SNAPSHOT_LOG_BYTES,
            history: HistoryBounds::DEFAULT,
            values_memory_bytes: Self::VALUES_MEMORY_BYTES,
            layout: Layout::Auto { keys: Self::PAGED_FROM_KEYS },
            page_cache_bytes: Self::PAGE_CACHE_BYTES,
            threads: 1,
            height_max: None,
        }
    }
}

/// A map that was opened, and what recovery found.
#[derive(Debug)]
pub struct Opened<M> {
    /// The map.
    pub map: M,
    /// Height of the newest commit, `None` for a new map.
    pub height: Option<u64>,
    /// Root of the newest commit.
    pub root: Hash,
    /// What recovery did.
    pub recovery: Recovery,
}

/// What recovery did at open; worth a log line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Height of the snapshot or table that was loaded.
    pub snapshot_height: Option<u64>,
    /// Snapshots and tables that were damaged and passed over, with the reason.
    pub snapshots_refused: Vec<String>,
    /// Records of the write-set log that were redone.
    pub records_redone: u64,
    /// Bytes of an incomplete last record that were dropped.
    pub bytes_dropped: u64,
}

/// A value with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The root that the proof leads to.
    pub root: Hash,
    /// The value, `None` when the key is absent.
    pub value: Option<Vec<u8>>,
    /// The proof of value or absence.
    pub proof: Proof,
}

/// Values with one proof for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenMany {
    /// The root that the proof leads to.
    pub root: Hash,
    /// The values in the order of the keys, `None` for absent ones.
    pub values: Vec<Option<Vec<u8>>>,
    /// The proof.
    pub proof: MultiProof,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Keys of the newest commit.
    pub keys: u64,
    /// Bytes of memory that the map holds, values and retired nodes included, the allocator's overhead estimated.
    pub memory_bytes: u64,
    /// Bytes of memory that only older roots need.
    pub history_bytes: u64,
    /// Roots that can be proven.
    pub roots: u64,
    /// Writes of the last commit.
    pub batch_writes: u64,
    /// Nodes and places in them, leaves included, that the last commit changed.
    pub batch_nodes: u64,
    /// Time that staging the last commit took.
    pub stage_time: Duration,
    /// Time that the last commit took, its flush to the disk included.
    pub commit_time: Duration,
    /// Time of that flush.
    pub sync_time: Duration,
    /// Bytes of write-set log since the newest snapshot.
    pub log_bytes: u64,
    /// Height of the newest complete snapshot.
    pub snapshot_height: Option<u64>,
    /// Size of the newest complete snapshot.
    pub snapshot_bytes: u64,
    /// Pages of the newest commit; zero when the leaves are in memory.
    pub pages: u64,
    /// Pages read from the device since the map was opened.
    pub pages_read: u64,
    /// Pages written to it.
    pub pages_written: u64,
    /// Bytes of the device.
    pub device_bytes: u64,
    /// Bytes of it that pages of the tree, of retained versions and of checkpoints take.
    pub device_used_bytes: u64,
    /// Height of the newest snapshot for others that was completed since the map was opened.
    pub export_height: Option<u64>,
    /// Snapshots that could not be written since the map was opened.
    pub snapshot_failures: u64,
}
