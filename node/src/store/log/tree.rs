//! Opening a log and reading from it.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stele_merkle::log::{
    Frontier, HashSource, LogError, consistency_proof, inclusion_proof, inclusion_root, node_hash, source_root,
    verify_consistency,
};
use stele_merkle::tile::{Tile, TileKind};
use stele_merkle::{HASH_BYTES, Hash};

use super::error::LogStoreError;
use super::files::{Files, LEVELS};
use super::synced::{SYNCED_FILE, Synced};
use super::writer::LogWriter;
use crate::store::poison::Poison;
use crate::store::{Location, durable};

/// Most locations that one call returns; callers page.
const LOCATIONS_MAX: usize = 65_536;

/// Hashes that [`LogStore::verify`] holds at a time.
const VERIFY_HASHES: u64 = 32_768;

/// Sizes of a log, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFigures {
    /// First log index whose hash and location are stored; 0 unless the node joined from a snapshot.
    pub base: u64,
    /// Leaves appended.
    pub size: u64,
    /// Leaves that survive a power cut without reading blocks again.
    pub synced: u64,
}

/// The reading half of a log; see the [module](super) for files and crash rules.
#[derive(Debug)]
pub struct LogStore {
    directory: PathBuf,
    pub(super) files: Files,
    base: u64,
    size: AtomicU64,
    synced: AtomicU64,
    /// Held while syncing: two at once could record their sizes in the wrong order.
    syncing: Mutex<()>,
    /// The root asked for most recently: proofs for one checkpoint share it.
    newest_root: Mutex<Option<(u64, Hash)>>,
    pub(super) poison: Poison,
    _lock: File,
}

impl LogStore {
    /// Opens or creates the log in `directory` for a node that knows `size` leaves from its blocks, and
    /// the root at that size if a header it has tells it. The log opens at the given size or below; the
    /// caller then appends the leaves from [`LogStore::size`] on and compares the root.
    ///
    /// # Errors
    /// `log_truncated`, `log_root_mismatch` (both: [`LogStore::rebuild`]), `store_locked`, `store_io`.
    pub fn open(directory: &Path, size: u64, root: Option<&Hash>) -> Result<(Arc<Self>, LogWriter), LogStoreError> {
        let lock = lock(directory)?;
        let synced = match Synced::read(directory).map_err(LogStoreError::io("read the durable size"))? {
            Some(Some(synced)) => synced,
            Some(None) => return Err(LogStoreError::Truncated("the record of it is damaged")),
            None => Synced { base: 0, size: 0, root: Frontier::new().root() },
        };
        if size < synced.base {
            return Err(LogStoreError::Truncated("the log begins beyond the size asked for"));
        }
        let store = Self::assemble(directory, lock, synced)?;
        if !store.files.reach(synced.size).map_err(LogStoreError::io("measure the log"))? {
            return Err(LogStoreError::Truncated("a file is too short"));
        }
        if store.root(synced.size)? != synced.root {
            return Err(LogStoreError::RootMismatch { size: synced.size });
        }
        store.cut(size.min(synced.size))?;
        if let Some(known) = root.filter(|_| size <= synced.size)
            && store.root(size)? != *known
        {
            return Err(LogStoreError::RootMismatch { size });
        }
        store.with_writer()
    }

    /// Discards the log in `directory` and opens an empty one, to be fed from the first block on.
    ///
    /// # Errors
    /// `store_locked`, `store_io`.
    pub fn rebuild(directory: &Path) -> Result<(Arc<Self>, LogWriter), LogStoreError> {
        Self::adopt(directory, &Frontier::new())
    }

    /// Discards the log in `directory` and opens one that begins at a snapshot's frontier, which the
    /// caller has checked against a certified header.
    ///
    /// # Errors
    /// `store_locked`, `store_io`.
    pub fn adopt(directory: &Path, frontier: &Frontier) -> Result<(Arc<Self>, LogWriter), LogStoreError> {
        let io_error = || LogStoreError::io("begin a log");
        let lock = lock(directory)?;
        // Without the record nothing in the files is trusted, whenever a crash comes.
        durable::remove_if_present(&directory.join(SYNCED_FILE)).map_err(io_error())?;
        durable::sync_directory(directory).map_err(io_error())?;
        Files::remove(directory).map_err(io_error())?;
        let synced = Synced { base: frontier.size(), size: frontier.size(), root: frontier.root() };
        let store = Self::assemble(directory, lock, synced)?;
        store.files.write_frontier(frontier).map_err(io_error())?;
        store.files.sync().map_err(io_error())?;
        synced.write(directory).map_err(io_error())?;
        store.with_writer()
    }

    /// Leaves appended so far; every size up to it can be asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Root of the first `size` leaves.
    ///
    /// # Errors
    /// `log_out_of_range`, `log_before_base`, `store_io`, `store_poisoned`.
    pub fn root(&self, size: u64) -> Result<Hash, LogStoreError> {
        self.check(size, self.size())?;
        let cached = *self.newest_root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, root)) = cached.filter(|(cached_size, _)| *cached_size == size) {
            return Ok(root);
        }
        let root = self.prove(size, |source| source_root(source, size))?;
        *self.newest_root.lock().unwrap_or_else(PoisonError::into_inner) = Some((size, root));
        Ok(root)
    }

    /// Complete subtrees of the first `size` leaves, for a snapshot.
    ///
    /// # Errors
    /// As [`LogStore::root`].
    pub fn frontier(&self, size: u64) -> Result<Frontier, LogStoreError> {
        self.check(size, self.size())?;
        let mut bytes = size.to_be_bytes().to_vec();
        for level in (0..LEVELS).rev().filter(|level| size >> level & 1 == 1) {
            bytes.extend_from_slice(&self.hash(level, (size >> level) - 1)?);
        }
        Frontier::decode(&bytes).map_err(|_| LogStoreError::OutOfRange { asked: size, size: self.size() })
    }

    /// Hash of leaf `index`.
    ///
    /// # Errors
    /// As [`LogStore::root`].
    pub fn leaf_hash(&self, index: u64) -> Result<Hash, LogStoreError> {
        self.check(index.saturating_add(1), self.size())?;
        self.hash(0, index)
    }

    /// Block and position of leaf `index`.
    ///
    /// # Errors
    /// As [`LogStore::root`].
    pub fn location(&self, index: u64) -> Result<Location, LogStoreError> {
        self.check(index.saturating_add(1), self.size())?;
        let mut bytes = [0; Location::BYTES];
        self.read_locations(index, &mut bytes)?;
        Ok(Location::unpack(u64::from_le_bytes(bytes)))
    }

    /// Blocks and positions of up to `count` leaves from `index` on; fewer at the log's end, at most 65,536.
    ///
    /// # Errors
    /// As [`LogStore::root`]; an index at the log's size gives an empty list.
    pub fn locations(&self, index: u64, count: usize) -> Result<Vec<Location>, LogStoreError> {
        let size = self.size();
        self.check(index, size)?;
        let left = usize::try_from(size - index).unwrap_or(usize::MAX);
        let mut bytes = vec![0; count.min(LOCATIONS_MAX).min(left) * Location::BYTES];
        if !bytes.is_empty() {
            self.read_locations(index, &mut bytes)?;
        }
        let (packed, _) = bytes.as_chunks::<{ Location::BYTES }>();
        Ok(packed.iter().map(|packed| Location::unpack(u64::from_le_bytes(*packed))).collect())
    }

    /// Inclusion proof of leaf `index` in the tree of `size` leaves (RFC 9162 section 2.1.3.1), checked
    /// against that tree's root.
    ///
    /// # Errors
    /// As [`LogStore::root`], and `log_corrupt`.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogStoreError> {
        self.check(size, self.size())?;
        self.check(index.saturating_add(1), size)?;
        let root = self.root(size)?;
        let leaf = self.hash(0, index)?;
        let path = self.prove(size, |source| inclusion_proof(source, index, size))?;
        match inclusion_root(&leaf, index, size, &path) {
            Ok(computed) if computed == root => Ok(path),
            _ => Err(LogStoreError::Corrupt { level: 0, index }),
        }
    }

    /// Consistency proof between two sizes (RFC 9162 section 2.1.4.1), checked against both roots.
    ///
    /// # Errors
    /// As [`LogStore::root`], and `log_corrupt`.
    pub fn consistency_proof(&self, old_size: u64, new_size: u64) -> Result<Vec<Hash>, LogStoreError> {
        self.check(new_size, self.size())?;
        self.check(old_size, new_size)?;
        let (old_root, new_root) = (self.root(old_size)?, self.root(new_size)?);
        let path = self.prove(new_size, |source| consistency_proof(source, old_size, new_size))?;
        verify_consistency(old_size, &old_root, new_size, &new_root, &path)
            .map_err(|_| LogStoreError::Corrupt { level: 0, index: old_size })?;
        Ok(path)
    }

    /// Bytes of a hash tile, compared with the hashes above or below them. A last leaf without a neighbour has neither:
    /// whoever has its statement must compare it.
    ///
    /// # Errors
    /// As [`LogStore::root`], `log_corrupt`, and `log_tile_kind` for an entry bundle.
    pub fn tile(&self, tile: &Tile) -> Result<Vec<u8>, LogStoreError> {
        let TileKind::Hashes { level } = tile.kind() else { return Err(LogStoreError::TileKind) };
        let (level, size) = (level * 8, self.size());
        if !tile.is_in(size) {
            return Err(LogStoreError::OutOfRange { asked: tile.first(), size });
        }
        self.check(size, size)?;
        if tile.first() << level < self.base {
            return Err(LogStoreError::BeforeBase { base: self.base });
        }
        let mut bytes = vec![0; usize::from(tile.width()) * HASH_BYTES];
        self.files.read_hashes(level, tile.first(), &mut bytes).map_err(LogStoreError::io("read a tile"))?;
        self.check_tile(level, tile.first(), &bytes)?;
        Ok(bytes)
    }

    /// Hashes each pair to the hash that is stored above it, and a last single one from those below it. Tiles are cached
    /// for ever, so a wrong one must not leave.
    fn check_tile(&self, level: u8, first: u64, bytes: &[u8]) -> Result<(), LogStoreError> {
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        let (pairs, single) = hashes.as_chunks::<2>();
        let mut above = vec![0; pairs.len() * HASH_BYTES];
        if !above.is_empty() {
            self.files.read_hashes(level + 1, first / 2, &mut above).map_err(LogStoreError::io("check a tile"))?;
        }
        let (above, _) = above.as_chunks::<HASH_BYTES>();
        for ((index, [left, right]), above) in (first..).step_by(2).zip(pairs).zip(above) {
            if node_hash(left, right) != *above {
                return Err(LogStoreError::Corrupt { level, index });
            }
        }
        if let ([single], Some(below)) = (single, level.checked_sub(1)) {
            let index = first + 2 * pairs.len() as u64;
            if node_hash(&self.hash(below, 2 * index)?, &self.hash(below, 2 * index + 1)?) != *single {
                return Err(LogStoreError::Corrupt { level, index });
            }
        }
        Ok(())
    }

    /// Makes all that is appended durable and records it; appends may go on meanwhile.
    ///
    /// # Errors
    /// `store_io` (which poisons), `store_poisoned`.
    pub fn sync(&self) -> Result<(), LogStoreError> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.size();
        self.check(size, size)?;
        if size == self.synced.load(Ordering::Acquire) {
            return Ok(());
        }
        let record = Synced { base: self.base, size, root: self.root(size)? };
        self.files
            .sync()
            .and_then(|()| record.write(&self.directory))
            .inspect_err(|_| self.poison.set())
            .map_err(LogStoreError::io("make the log durable"))?;
        self.synced.store(size, Ordering::Release);
        Ok(())
    }

    /// Recomputes every inner hash from the leaf hashes: for `fsck`, reads 64 bytes a leaf.
    ///
    /// # Errors
    /// `log_corrupt` names the first hash that is not that of its children.
    pub fn verify(&self) -> Result<(), LogStoreError> {
        let size = self.size();
        self.check(size, size)?;
        for level in 1..LEVELS {
            let count = size >> level;
            // The first subtree whose children are both stored.
            let mut from = self.base.div_ceil(1 << level);
            while from < count {
                let take = (count - from).min(VERIFY_HASHES);
                self.verify_range(level, from, take)?;
                from += take;
            }
        }
        Ok(())
    }

    /// Sizes for metrics.
    #[must_use]
    pub fn figures(&self) -> LogFigures {
        LogFigures { base: self.base, size: self.size(), synced: self.synced.load(Ordering::Acquire) }
    }

    /// Lets readers see leaves up to `size`; the writer has written all that belongs to them.
    pub(super) fn publish(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    fn assemble(directory: &Path, lock: File, synced: Synced) -> Result<Self, LogStoreError> {
        Ok(Self {
            directory: directory.to_owned(),
            files: Files::open(directory).map_err(LogStoreError::io("open the log's files"))?,
            base: synced.base,
            size: AtomicU64::new(synced.size),
            synced: AtomicU64::new(synced.size),
            syncing: Mutex::new(()),
            newest_root: Mutex::new(None),
            poison: Poison::default(),
            _lock: lock,
        })
    }

    fn with_writer(self) -> Result<(Arc<Self>, LogWriter), LogStoreError> {
        let frontier = self.frontier(self.size())?;
        let store = Arc::new(self);
        Ok((Arc::clone(&store), LogWriter::new(store, frontier)))
    }

    /// Cuts the log to `size`, at most its durable size. The record goes first: a crash must not leave
    /// one that promises more than the files hold.
    fn cut(&self, size: u64) -> Result<(), LogStoreError> {
        let io_error = || LogStoreError::io("cut the log");
        if size < self.synced.load(Ordering::Acquire) {
            let record = Synced { base: self.base, size, root: self.root(size)? };
            record.write(&self.directory).map_err(io_error())?;
        }
        self.files.cut(size).map_err(io_error())?;
        *self.newest_root.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.synced.store(size, Ordering::Release);
        self.publish(size);
        Ok(())
    }

    fn check(&self, asked: u64, size: u64) -> Result<(), LogStoreError> {
        if self.poison.is_set() {
            Err(LogStoreError::Poisoned)
        } else if asked > size {
            Err(LogStoreError::OutOfRange { asked, size })
        } else {
            Ok(())
        }
    }

    /// One stored hash.
    fn hash(&self, level: u8, index: u64) -> Result<Hash, LogStoreError> {
        if !self.stores(level, index) {
            return Err(LogStoreError::BeforeBase { base: self.base });
        }
        self.files
            .read_hash(level, index)
            .map_err(LogStoreError::io("read a hash"))?
            .ok_or(LogStoreError::Corrupt { level, index })
    }

    /// Below the base only the subtrees of the snapshot's frontier exist.
    fn stores(&self, level: u8, index: u64) -> bool {
        let inside_base = index < self.base >> level;
        !inside_base || (self.base >> level & 1 == 1 && index == (self.base >> level) - 1)
    }

    fn read_locations(&self, index: u64, bytes: &mut [u8]) -> Result<(), LogStoreError> {
        if index < self.base {
            return Err(LogStoreError::BeforeBase { base: self.base });
        }
        self.files.read_locations(index, bytes).map_err(LogStoreError::io("read locations"))
    }

    /// Runs a proof rule over the stored hashes; an error of a read wins over the rule's own.
    fn prove<T>(&self, size: u64, rule: impl FnOnce(&Source<'_>) -> Result<T, LogError>) -> Result<T, LogStoreError> {
        let source = Source { store: self, size, failure: RefCell::new(None) };
        let result = rule(&source);
        match source.failure.into_inner() {
            Some(failure) => Err(failure),
            None => result.map_err(LogStoreError::Proof),
        }
    }

    fn verify_range(&self, level: u8, from: u64, count: u64) -> Result<(), LogStoreError> {
        let io_error = || LogStoreError::io("read hashes to verify");
        let bytes =
            |hashes: u64| usize::try_from(hashes).map(|hashes| vec![0; hashes * HASH_BYTES]).map_err(io::Error::other);
        let mut children = bytes(count * 2).map_err(io_error())?;
        let mut parents = bytes(count).map_err(io_error())?;
        self.files.read_hashes(level - 1, from * 2, &mut children).map_err(io_error())?;
        self.files.read_hashes(level, from, &mut parents).map_err(io_error())?;
        let (children, _) = children.as_chunks::<HASH_BYTES>();
        let (parents, _) = parents.as_chunks::<HASH_BYTES>();
        let (pairs, _) = children.as_chunks::<2>();
        for (index, ([left, right], parent)) in (from..).zip(pairs.iter().zip(parents)) {
            if node_hash(left, right) != *parent {
                return Err(LogStoreError::Corrupt { level, index });
            }
        }
        Ok(())
    }
}

/// The stored hashes of the first `size` leaves, for the proof rules. Their trait has no error, so the
/// first failed read is kept aside.
struct Source<'a> {
    store: &'a LogStore,
    size: u64,
    failure: RefCell<Option<LogStoreError>>,
}

impl HashSource for Source<'_> {
    fn hash(&self, level: u8, index: u64) -> Option<Hash> {
        if level >= LEVELS || index >= self.size >> level {
            return None;
        }
        self.store
            .hash(level, index)
            .map_err(|error| {
                self.failure.borrow_mut().get_or_insert(error);
            })
            .ok()
    }
}

fn lock(directory: &Path) -> Result<File, LogStoreError> {
    durable::create_directory(directory).map_err(LogStoreError::io("create the directory"))?;
    durable::lock_directory(directory)
        .map_err(LogStoreError::io("lock the directory"))?
        .ok_or_else(|| LogStoreError::Locked(directory.to_owned()))
}
