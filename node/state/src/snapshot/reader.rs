//! Reading a snapshot file: whole at open, by chunks for others.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use stele_merkle::state::{KeyRange, StateHash};

use super::chunk::{CHUNK_BYTES_MAX, Chunk, content, pairs};
use super::format::{ENTRY_BYTES, Entry, FILE_CHUNK_BYTES_MAX, HEADER_BYTES, SnapshotHeader, UpperTree};
use crate::record::{read_pairs, value_offsets};
use crate::tree::{Moved, Tree, Written};
use crate::values::Place;
use crate::{Hash, StateError};

/// Places of values that are shown together, about: those of a usual chunk.
const PLACES_SHOWN: usize = 4096;

/// A sound snapshot file, from which chunks are read.
#[derive(Debug)]
pub struct SnapshotReader {
    file: File,
    path: PathBuf,
    header: SnapshotHeader,
    entries: Vec<Entry>,
    upper: UpperTree,
    size: u64,
}

impl SnapshotReader {
    /// Opens a file and checks that its table leads to its root. Chunks are checked when they are read.
    ///
    /// # Errors
    /// [`StateError::Corrupt`], [`StateError::Io`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let corrupt = |offset, what| StateError::Corrupt { path: path.to_owned(), offset, what };
        let file = File::open(path).map_err(StateError::io("open", path))?;
        let size = file.metadata().map_err(StateError::io("read", path))?.len();
        let mut bytes = [0; HEADER_BYTES];
        if size < HEADER_BYTES as u64 {
            return Err(corrupt(0, "the header is incomplete"));
        }
        file.read_exact_at(&mut bytes, 0).map_err(StateError::io("read", path))?;
        let header = SnapshotHeader::decode(&bytes).ok_or_else(|| corrupt(0, "the header is not sound"))?;
        let length = (ENTRY_BYTES << header.depth) + 4;
        let start = size.checked_sub(length as u64).filter(|start| *start >= HEADER_BYTES as u64);
        let start = start.ok_or_else(|| corrupt(size, "the file ends early"))?;
        let mut table = vec![0; length];
        file.read_exact_at(&mut table, start).map_err(StateError::io("read", path))?;
        let (table, crc) = table.split_at(length - 4);
        if crc != crc32c::crc32c(table).to_be_bytes() {
            return Err(corrupt(start, "the table is not sound"));
        }
        let (table, _) = table.as_chunks::<ENTRY_BYTES>();
        let entries: Option<Vec<Entry>> = table.iter().map(Entry::decode).collect();
        let entries = entries.ok_or_else(|| corrupt(start, "the table is malformed"))?;
        let fits = |entry: &Entry| {
            let end = entry.offset.checked_add(entry.length.into());
            entry.length as usize <= FILE_CHUNK_BYTES_MAX && entry.offset >= HEADER_BYTES as u64 && end <= Some(start)
        };
        let bytes: u64 = entries.iter().map(|entry| u64::from(entry.length)).sum();
        if !entries.iter().all(fits) || bytes != start - HEADER_BYTES as u64 {
            return Err(corrupt(start, "the table points outside the file"));
        }
        let upper = UpperTree::new(header.hash, entries.iter().map(|entry| entry.content).collect());
        let pairs: u64 = entries.iter().map(|entry| u64::from(entry.pairs)).sum();
        if upper.root() != header.root || pairs != header.pairs {
            return Err(corrupt(start, "the table leads to another root"));
        }
        Ok(Self { file, path: path.to_owned(), header, entries, upper, size })
    }

    /// The snapshot files of a directory with their heights, newest first.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn files(directory: &Path) -> Result<Vec<(u64, PathBuf)>, StateError> {
        Ok(super::list(directory)?.snapshots)
    }

    /// Height of the state.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.header.height
    }

    /// Root of the state.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.header.root
    }

    /// Hash function of the state.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        self.header.hash
    }

    /// Number of pairs.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        self.header.pairs
    }

    /// Depth of its ranges: there are 2^depth chunks.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.header.depth
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The chunk of a range with its proof; `None` for a range of another depth.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] names the chunk by its place when its bytes are not those that were written;
    /// [`StateError::ChunkTooLong`] when it is too long to travel; [`StateError::Io`].
    pub fn chunk(&self, range: KeyRange) -> Result<Option<Chunk>, StateError> {
        let index = usize::try_from(range.index()).unwrap_or(usize::MAX);
        let entry = self.entries.get(index).filter(|_| range.depth() == self.header.depth);
        let Some(entry) = entry else { return Ok(None) };
        if entry.length as usize > CHUNK_BYTES_MAX {
            return Err(StateError::ChunkTooLong { bytes: entry.length.into(), most: CHUNK_BYTES_MAX });
        }
        let body = self.body(entry)?;
        Ok(Some(Chunk { range, pairs: entry.pairs, body, proof: self.upper.prove(index) }))
    }

    /// Shows, at least one chunk at a time, where each value begins in the file and how long it is, until somebody has seen
    /// enough.
    pub(crate) fn places(&self, mut show: impl FnMut(Vec<Moved>) -> bool) -> Result<(), StateError> {
        let mut places = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.pairs > 0) {
            let pairs = pairs(&self.body(entry)?, entry.pairs);
            let pairs = pairs.ok_or_else(|| self.corrupt(entry, "a chunk's pairs are malformed"))?;
            places.extend(pairs.iter().zip(value_offsets(&pairs)).map(|((key, value), offset)| Moved {
                key: *key,
                offset: entry.offset + u64::from(offset),
                length: value.as_ref().map_or(0, Vec::len),
            }));
            if places.len() >= PLACES_SHOWN && !show(std::mem::take(&mut places)) {
                return Ok(());
            }
        }
        if !places.is_empty() {
            show(places);
        }
        Ok(())
    }

    fn body(&self, entry: &Entry) -> Result<Vec<u8>, StateError> {
        let mut body = vec![0; entry.length as usize];
        self.file.read_exact_at(&mut body, entry.offset).map_err(StateError::io("read", &self.path))?;
        if crc32c::crc32c(&body) == entry.crc { Ok(body) } else { Err(self.corrupt(entry, "a chunk is not sound")) }
    }

    fn corrupt(&self, entry: &Entry, what: &'static str) -> StateError {
        StateError::Corrupt { path: self.path.clone(), offset: entry.offset, what }
    }

    /// Reads all chunks and compares each with what the table says it holds, and so with the root.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] for the first chunk that is not sound, [`StateError::Io`].
    pub fn check(&self) -> Result<(), StateError> {
        self.checks().collect()
    }

    /// Reads chunk by chunk and compares each with what the table says it holds.
    pub(crate) fn checks(&self) -> impl Iterator<Item = Result<(), StateError>> + '_ {
        self.header.ranges().zip(&self.entries).map(|(range, entry)| {
            let body = self.body(entry)?;
            let pairs = read_pairs(&body, entry.pairs);
            if pairs.and_then(|pairs| content(self.header.hash, range, &pairs)) == Some(entry.content) {
                Ok(())
            } else {
                Err(self.corrupt(entry, "a chunk's pairs are not those of the state"))
            }
        })
    }
}

/// Loads a snapshot into an empty tree: its header, the tree, and the size of the file.
///
/// # Errors
/// [`StateError::Corrupt`] for anything but a whole snapshot whose pairs lead to its root, [`StateError::OtherHash`],
/// [`StateError::Io`]; those of writing pages; [`StateError::Incomplete`] when `stop` was set meanwhile.
pub(crate) fn load(
    reader: &SnapshotReader,
    mut tree: Tree,
    threads: usize,
    stop: Option<&AtomicBool>,
) -> Result<(SnapshotHeader, Tree, u64), StateError> {
    if reader.header.hash != tree.hash() {
        return Err(StateError::OtherHash { path: reader.path.clone() });
    }
    let file = match tree.pages() {
        None => Some(tree.values_mut().files.add(&reader.path)?),
        Some(_) => None,
    };
    for (at, (range, entry)) in reader.header.ranges().zip(&reader.entries).enumerate() {
        if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(StateError::Incomplete { missing: reader.entries.len() - at });
        }
        if (entry.length, entry.pairs) == (0, 0) {
            continue;
        }
        let pairs = pairs(&reader.body(entry)?, entry.pairs)
            .filter(|pairs| pairs.iter().all(|(key, _)| range.contains(key)))
            .ok_or_else(|| reader.corrupt(entry, "a chunk's pairs are malformed"))?;
        let update = tree.stage(&pairs, threads)?;
        let offsets = value_offsets(&pairs);
        let place = file.map(|file| (Place { file, offset: entry.offset }, &*offsets));
        tree.reserve(&update)?;
        let undo = tree.apply(update, Written { writes: &pairs, place })?;
        tree.free(undo);
    }
    if tree.root().hash != reader.header.root {
        reader.check()?;
        return Err(StateError::Corrupt {
            path: reader.path.clone(),
            offset: 0,
            what: "the pairs lead to another root",
        });
    }
    Ok((reader.header, tree, reader.size))
}
