//! Writing a snapshot file, chunk by chunk in any order.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use stele_merkle::state::{KeyRange, StateHash};

use super::chunk::content;
use super::format::{Entry, FILE_CHUNK_BYTES_MAX, HEADER_BYTES, SNAPSHOT_DEPTH_MAX, SnapshotHeader, UpperTree};
use super::listing::file_name;
use super::{Chunk, ChunkError, SnapshotReader};
use crate::record::read_pairs;
use crate::recovery::lock;
use crate::write_log::sync_directory;
use crate::{Hash, StateError};

/// A snapshot file in the making.
///
/// A node that joins fills it with chunks from its peers and opens the map on it. It does not have to trust them: each
/// chunk is checked against the root, which the node knows from a certified header.
#[derive(Debug)]
pub struct SnapshotBuilder {
    header: SnapshotHeader,
    directory: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    offset: u64,
    entries: Vec<Option<Entry>>,
    missing: usize,
    /// Keeps maps out of the directory meanwhile; none when the directory's own map writes the snapshot.
    _lock: Option<File>,
}

impl SnapshotBuilder {
    /// Begins the snapshot of a height in a directory that has no map yet.
    ///
    /// # Errors
    /// [`StateError::NotEmpty`] when there are state files; [`StateError::Depth`]; [`StateError::Locked`];
    /// [`StateError::Io`].
    pub fn create(directory: &Path, hash: StateHash, height: u64, root: Hash, depth: u8) -> Result<Self, StateError> {
        if depth > SNAPSHOT_DEPTH_MAX {
            return Err(StateError::Depth { depth, most: SNAPSHOT_DEPTH_MAX });
        }
        let lock = lock(directory)?;
        let listing = super::list(directory)?;
        if !listing.snapshots.is_empty() || !listing.logs.is_empty() {
            return Err(StateError::NotEmpty { path: directory.to_owned() });
        }
        let header = SnapshotHeader { hash, height, root, pairs: 0, depth };
        Ok(Self { _lock: Some(lock), ..Self::begin(directory, header)? })
    }

    pub(super) fn begin(directory: &Path, header: SnapshotHeader) -> Result<Self, StateError> {
        let path = directory.join(file_name(header.height));
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary).map_err(StateError::io("create", &temporary))?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map_err(StateError::io("seek in", &temporary))?;
        let entries = vec![None; 1 << header.depth];
        Ok(Self {
            directory: directory.to_owned(),
            path,
            temporary,
            file,
            offset: HEADER_BYTES as u64,
            missing: entries.len(),
            entries,
            header,
            _lock: None,
        })
    }

    pub(super) fn hash(&self) -> StateHash {
        self.header.hash
    }

    /// The ranges whose chunks are missing, in order.
    pub fn missing(&self) -> impl Iterator<Item = KeyRange> + '_ {
        let missing = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_none());
        missing.filter_map(|(index, _)| KeyRange::new(self.header.depth, index as u64))
    }

    /// Pairs of the chunks that are there.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        self.header.pairs
    }

    /// Whether all chunks are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Checks a chunk against the root and writes it.
    ///
    /// # Errors
    /// Within, why the chunk is refused; nothing is written then, and the same range can come from elsewhere.
    /// [`StateError::Io`].
    pub fn add(&mut self, chunk: &Chunk) -> Result<Result<(), ChunkError>, StateError> {
        let index = usize::try_from(chunk.range.index()).unwrap_or(usize::MAX);
        let wanted = chunk.range.depth() == self.header.depth && self.entries.get(index) == Some(&None);
        if !wanted {
            return Ok(Err(ChunkError::Unwanted));
        }
        let content = match chunk.content(self.header.hash) {
            Ok(content) => content,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = chunk.proof.verify(self.header.hash, &self.header.root, chunk.range, &content) {
            return Ok(Err(ChunkError::Proof(error)));
        }
        self.write(index, chunk.pairs, &chunk.body, content)?;
        Ok(Ok(()))
    }

    /// Writes the pairs of the next range; the whole is checked by [`SnapshotBuilder::finish`].
    pub(super) fn append(&mut self, range: KeyRange, count: u32, body: &[u8]) -> Result<(), StateError> {
        if body.len() > FILE_CHUNK_BYTES_MAX {
            return Err(StateError::ChunkTooLong { bytes: body.len() as u64, most: FILE_CHUNK_BYTES_MAX });
        }
        let content = read_pairs(body, count).and_then(|pairs| content(self.header.hash, range, &pairs));
        let content = content.ok_or_else(|| self.corrupt("pairs of the snapshot are not in order"))?;
        let index = usize::try_from(range.index()).expect("at most 2^20 ranges");
        self.write(index, count, body, content)
    }

    fn write(
        &mut self,
        index: usize,
        pairs: u32,
        body: &[u8],
        content: stele_merkle::state::RangeContent,
    ) -> Result<(), StateError> {
        self.file.write_all(body).map_err(StateError::io("write", &self.temporary))?;
        let length = u32::try_from(body.len()).expect("a chunk is bounded by 1 GiB");
        let entry = Entry { offset: self.offset, length, pairs, crc: crc32c::crc32c(body), content };
        self.entries[index] = Some(entry);
        self.offset += u64::from(length);
        self.header.pairs += u64::from(pairs);
        self.missing -= 1;
        Ok(())
    }

    /// Gives the complete file its name, durably; returns its size in bytes. It is opened as readers do before: older
    /// snapshots go because of it.
    ///
    /// # Errors
    /// [`StateError::Incomplete`] when chunks are missing, [`StateError::Corrupt`] when they do not lead to the root or the
    /// file is not one that readers take, [`StateError::Io`]. The temporary file is removed then.
    pub fn finish(mut self) -> Result<u64, StateError> {
        let opened = self.complete().and_then(|()| SnapshotReader::open(&self.temporary));
        let size = opened.map(|reader| reader.size()).inspect_err(|_| {
            // What is incomplete has no use; when it cannot be deleted now, the next open does it.
            let _ = std::fs::remove_file(&self.temporary);
        })?;
        std::fs::rename(&self.temporary, &self.path).map_err(StateError::io("rename", &self.path))?;
        sync_directory(&self.directory)?;
        Ok(size)
    }

    /// Removes the file.
    pub fn abandon(self) {
        let _ = std::fs::remove_file(&self.temporary);
    }

    fn complete(&mut self) -> Result<(), StateError> {
        let entries: Option<Vec<Entry>> = self.entries.iter().copied().collect();
        let entries = entries.ok_or(StateError::Incomplete { missing: self.missing })?;
        let upper = UpperTree::new(self.header.hash, entries.iter().map(|entry| entry.content).collect());
        if upper.root() != self.header.root {
            return Err(self.corrupt("the pairs lead to another root"));
        }
        let mut table = Vec::with_capacity(entries.len() * super::format::ENTRY_BYTES + 4);
        entries.iter().for_each(|entry| entry.push_to(&mut table));
        table.extend_from_slice(&crc32c::crc32c(&table).to_be_bytes());
        let written = self
            .file
            .write_all(&table)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&self.header.encode()))
            .and_then(|()| self.file.sync_all());
        written.map_err(StateError::io("write", &self.temporary))
    }

    fn corrupt(&self, what: &'static str) -> StateError {
        StateError::Corrupt { path: self.temporary.clone(), offset: self.offset, what }
    }
}

#[cfg(test)]
mod tests {
    use stele_merkle::state::EMPTY;

    use super::*;
    use crate::record::push_pair;

    const HASH: StateHash = StateHash::Sha256;

    /// A builder of one chunk with one pair, and that chunk's bytes.
    fn one_pair(directory: &Path) -> (SnapshotBuilder, Vec<u8>) {
        let root = HASH.leaf(&[7; 32], &HASH.value(b"value"));
        let header = SnapshotHeader { hash: HASH, height: 1, root, pairs: 0, depth: 0 };
        let mut body = Vec::new();
        push_pair(&mut body, &[7; 32], Some(b"value"));
        (SnapshotBuilder::begin(directory, header).expect("a writable directory"), body)
    }

    #[test]
    fn a_file_that_readers_would_refuse_never_gets_its_name() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let whole = KeyRange::new(0, 0).expect("all keys");
        let (mut builder, body) = one_pair(directory.path());
        builder.append(whole, 1, &body).expect("a pair of the range");
        builder.header.pairs += 1;
        assert!(matches!(builder.finish(), Err(StateError::Corrupt { .. })));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
        let (mut builder, body) = one_pair(directory.path());
        builder.append(whole, 1, &body).expect("a pair of the range");
        assert_eq!(builder.finish().expect("a sound file"), (HEADER_BYTES + body.len() + 85 + 4) as u64);
    }

    #[test]
    fn a_chunk_that_readers_would_refuse_is_not_written() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let header = SnapshotHeader { hash: HASH, height: 1, root: EMPTY, pairs: 0, depth: 0 };
        let mut builder = SnapshotBuilder::begin(directory.path(), header).expect("a writable directory");
        // Nobody looks at what it holds, so the system gives it no memory.
        let long = vec![0; FILE_CHUNK_BYTES_MAX + 1];
        let refused = builder.append(KeyRange::new(0, 0).expect("all keys"), 1, &long);
        assert_eq!(refused.map_err(|error| error.code()), Err("state_chunk_too_long"));
    }
}
