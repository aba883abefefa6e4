//! Reading the blocks of a directory to which a node may be appending meanwhile: nothing is locked, cut or written.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use super::archive::{self, SegmentArchive};
use super::error::BlockStoreError;
use super::record::StoredBlock;
use super::segment::{self, Extent, ScanError, Segment};
use super::store::{corrupt, read_record, segments_of};

/// Looks at the segment that takes appends, when what is behind its end looks like damage: an append that came while it was
/// looked at does, once.
const SCANS_MAX: usize = 5;

/// Pause between them.
const SCAN_AGAIN: Duration = Duration::from_millis(50);

/// The segments of a directory, as they were when it was opened.
pub struct BlockReader {
    directory: PathBuf,
    firsts: Vec<u64>,
    archive: Option<Arc<dyn SegmentArchive>>,
}

/// Blocks in order of their heights; ends with the newest one that is whole.
pub struct Blocks {
    directory: PathBuf,
    firsts: IntoIter<u64>,
    archive: Option<Arc<dyn SegmentArchive>>,
    open: Option<(Segment, Option<File>, IntoIter<Extent>)>,
    /// Height of the next block.
    height: u64,
    failed: bool,
}

impl BlockReader {
    /// Lists the segments of `directory`; what has left it is read from `archive`.
    ///
    /// # Errors
    /// `store_io`.
    pub fn open(directory: &Path, archive: Option<Arc<dyn SegmentArchive>>) -> Result<Self, BlockStoreError> {
        let list = || Ok::<Vec<u64>, std::io::Error>(segments_of(directory)?.into_keys().collect());
        let listed = || {
            // What changes its name while it is listed may be missing in one list, and is not in the next.
            let (mut firsts, mut again): (Vec<u64>, _) = (list()?, list()?);
            while firsts != again {
                (firsts, again) = (again, list()?);
            }
            Ok(firsts)
        };
        let firsts = listed().map_err(BlockStoreError::io("list segments"))?;
        Ok(Self { directory: directory.to_owned(), firsts, archive })
    }

    /// Height of the oldest block; none in an empty directory.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        self.firsts.first().copied()
    }

    /// Blocks from `from` on, or from the oldest one.
    #[must_use]
    pub fn blocks(&self, from: u64) -> Blocks {
        let skipped = self.firsts.iter().take_while(|first| **first <= from).count().saturating_sub(1);
        let firsts = self.firsts[skipped..].to_vec();
        let height = firsts.first().map_or(from, |first| from.max(*first));
        let (directory, archive) = (self.directory.clone(), self.archive.clone());
        Blocks { directory, firsts: firsts.into_iter(), archive, open: None, height, failed: false }
    }
}

impl Blocks {
    /// The next segment; none behind the last.
    fn next_segment(&mut self) -> Result<bool, BlockStoreError> {
        let Some(first) = self.firsts.next() else { return Ok(false) };
        let is_last = self.firsts.as_slice().is_empty();
        let opened = match open_segment(&self.directory, first) {
            // Between two looks it was archived, or came back.
            Err(BlockStoreError::SegmentMissing(_)) => open_segment(&self.directory, first)?,
            other => other?,
        };
        let Some((segment, file, mut extents)) = opened else {
            // The last one may be in the making.
            let path = self.directory.join(segment::file_name(first));
            return if is_last { Ok(false) } else { Err(BlockStoreError::SegmentCorrupt(path)) };
        };
        let skipped = usize::try_from(self.height.saturating_sub(first)).unwrap_or(usize::MAX);
        if first > self.height || (skipped > extents.len() && !is_last) {
            return Err(BlockStoreError::SegmentMissing(self.height));
        }
        extents.drain(..skipped.min(extents.len()));
        self.open = Some((segment, file, extents.into_iter()));
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<StoredBlock>, BlockStoreError> {
        loop {
            if let Some((segment, file, extents)) = &mut self.open
                && let Some(extent) = extents.next()
            {
                let record = read_record(segment, file.as_ref(), self.archive.as_deref(), extent, self.height)?;
                let block = StoredBlock::decode(segment.seed, self.height, record);
                let block = block.ok_or_else(|| corrupt(self.height, segment, extent))?;
                self.height += 1;
                return Ok(Some(block));
            }
            if !self.next_segment()? {
                return Ok(None);
            }
        }
    }
}

impl Iterator for Blocks {
    type Item = Result<StoredBlock, BlockStoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = self.read();
        self.failed = read.is_err();
        read.transpose()
    }
}

/// A segment as it is now: the node may archive it meanwhile. None if its header does not check.
#[expect(clippy::type_complexity, reason = "a segment, its file unless it is archived, and its records")]
fn open_segment(
    directory: &Path,
    first_height: u64,
) -> Result<Option<(Segment, Option<File>, Vec<Extent>)>, BlockStoreError> {
    let path = directory.join(segment::file_name(first_height));
    match File::open(&path) {
        Ok(file) => {
            let segment = Segment::open(&path, &file).map_err(BlockStoreError::io("open a segment"))?;
            let Some(segment) = segment else { return Ok(None) };
            let extents = extents(&segment, &file)?;
            Ok(Some((segment, Some(file), extents)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let path = directory.join(archive::file_name(first_height));
            let kept = match archive::read(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(BlockStoreError::SegmentMissing(first_height));
                }
                other => other.map_err(BlockStoreError::io("open a segment"))?,
            };
            let (segment, blocks) = kept.ok_or(BlockStoreError::SegmentCorrupt(path))?;
            Ok(Some((segment, None, blocks.into_iter().map(|(extent, _)| extent).collect())))
        }
        Err(source) => Err(BlockStoreError::Io { operation: "open a segment", source }),
    }
}

fn extents(segment: &Segment, file: &File) -> Result<Vec<Extent>, BlockStoreError> {
    let mut scans = 0;
    loop {
        if let Some(extents) = segment.read_footer(file).map_err(BlockStoreError::io("read a segment"))? {
            return Ok(extents);
        }
        match segment.scan(file) {
            Ok(scan) => return Ok(scan.extents),
            Err(ScanError::Corrupt { .. }) if scans < SCANS_MAX => {
                scans += 1;
                std::thread::sleep(SCAN_AGAIN);
            }
            Err(ScanError::Corrupt { height, offset }) => {
                return Err(BlockStoreError::Corrupt { height, segment: segment.path.clone(), offset });
            }
            Err(ScanError::Io(source)) => return Err(BlockStoreError::Io { operation: "scan a segment", source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blocks::{BlockStore, BlockStoreOptions};

    fn heights(reader: &BlockReader, from: u64) -> Vec<u64> {
        reader.blocks(from).map(|block| block.unwrap().height()).collect()
    }

    #[test]
    fn blocks_are_read_while_their_node_appends() {
        let directory = tempfile::tempdir().unwrap();
        let options = BlockStoreOptions { segment_bytes_max: 1024, extend_bytes: 4096, durable: true };
        let store = BlockStore::open(directory.path(), options).unwrap();
        assert!(heights(&BlockReader::open(directory.path(), None).unwrap(), 1).is_empty());
        for height in 5..=40 {
            store.append(height, &[1; 32], &[7; 100], b"certificate").unwrap();
            let reader = BlockReader::open(directory.path(), None).unwrap();
            assert_eq!(reader.min(), Some(5));
            assert_eq!(heights(&reader, 1), (5..=height).collect::<Vec<_>>());
            assert_eq!(heights(&reader, height), [height]);
            assert!(heights(&reader, height + 1).is_empty());
        }
        let block = BlockReader::open(directory.path(), None).unwrap().blocks(33).next().unwrap().unwrap();
        assert_eq!((block.height(), block.block(), block.certificate()), (33, &[7; 100][..], &b"certificate"[..]));
    }

    #[test]
    fn damage_is_told_and_not_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let options = BlockStoreOptions { segment_bytes_max: 1024, extend_bytes: 4096, durable: false };
        let store = BlockStore::open(directory.path(), options).unwrap();
        for height in 1..=20 {
            store.append(height, &[1; 32], &[7; 100], b"certificate").unwrap();
        }
        store.sync().unwrap();
        drop(store);
        let first = BlockReader::open(directory.path(), None).unwrap().firsts[1];
        let path = directory.path().join(segment::file_name(first));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let read: Vec<_> = BlockReader::open(directory.path(), None).unwrap().blocks(1).collect();
        assert!(matches!(read.last(), Some(Err(BlockStoreError::Corrupt { .. }))), "{read:?}");
        std::fs::remove_file(&path).unwrap();
        let read: Vec<_> = BlockReader::open(directory.path(), None).unwrap().blocks(1).collect();
        assert!(matches!(read.last(), Some(Err(BlockStoreError::SegmentMissing(_)))), "{read:?}");
    }
}
