//! Reading the blocks of a directory to which a node may be appending meanwhile: nothing is locked, cut or written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::vec::IntoIter;

use super::error::BlockStoreError;
use super::record::{RECORD_HEADER_BYTES, RecordHeader, StoredBlock};
use super::segment::{self, Extent, ScanError, Segment};
use super::store::segment_paths;

/// Looks at the segment that takes appends, when what is behind its end looks like damage: an append that came while it was
/// looked at does, once.
const SCANS_MAX: usize = 5;

/// Pause between them.
const SCAN_AGAIN: Duration = Duration::from_millis(50);

/// The segments of a directory, as they were when it was opened.
#[derive(Debug)]
pub struct BlockReader {
    segments: Vec<(u64, PathBuf)>,
}

/// Blocks in order of their heights; ends with the newest one that is whole.
#[derive(Debug)]
pub struct Blocks {
    segments: IntoIter<(u64, PathBuf)>,
    open: Option<(Segment, File, IntoIter<Extent>)>,
    /// Height of the next block.
    height: u64,
    failed: bool,
}

impl BlockReader {
    /// Lists the segments of `directory`.
    ///
    /// # Errors
    /// `store_io`.
    pub fn open(directory: &Path) -> Result<Self, BlockStoreError> {
        let paths = segment_paths(directory).map_err(BlockStoreError::io("list segments"))?;
        let named = |path: PathBuf| Some((segment::first_height_of(&path)?, path));
        Ok(Self { segments: paths.into_iter().filter_map(named).collect() })
    }

    /// Height of the oldest block; none in an empty directory.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        self.segments.first().map(|(first, _)| *first)
    }

    /// Blocks from `from` on, or from the oldest one.
    #[must_use]
    pub fn blocks(&self, from: u64) -> Blocks {
        let skipped = self.segments.iter().take_while(|(first, _)| *first <= from).count().saturating_sub(1);
        let segments = self.segments[skipped..].to_vec();
        let height = segments.first().map_or(from, |(first, _)| from.max(*first));
        Blocks { segments: segments.into_iter(), open: None, height, failed: false }
    }
}

impl Blocks {
    /// The next segment; none behind the last.
    fn next_segment(&mut self) -> Result<bool, BlockStoreError> {
        let Some((first, path)) = self.segments.next() else { return Ok(false) };
        let is_last = self.segments.as_slice().is_empty();
        let file = File::open(&path).map_err(BlockStoreError::io("open a segment"))?;
        let Some(segment) = Segment::open(&path, &file).map_err(BlockStoreError::io("open a segment"))? else {
            // The last one may be in the making.
            return if is_last { Ok(false) } else { Err(BlockStoreError::SegmentCorrupt(path)) };
        };
        let mut extents = extents(&segment, &file)?;
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
                let block = read(segment, file, extent, self.height)?;
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

fn read(segment: &Segment, file: &File, extent: Extent, height: u64) -> Result<StoredBlock, BlockStoreError> {
    let (from, failed) = (u64::from(extent.offset), BlockStoreError::io("read a block"));
    let corrupt = || BlockStoreError::Corrupt { height, segment: segment.path.clone(), offset: from };
    let mut header = [0; RECORD_HEADER_BYTES];
    file.read_exact_at(&mut header, from).map_err(BlockStoreError::io("read a block header"))?;
    let header = RecordHeader::decode(segment.seed, &header).filter(|header| header.height == height);
    let header = header.ok_or_else(corrupt)?;
    let length = usize::try_from(header.payload_bytes()).map_err(io::Error::other);
    let mut payload = vec![0; length.map_err(BlockStoreError::io("read a block"))?];
    file.read_exact_at(&mut payload, from + RECORD_HEADER_BYTES as u64).map_err(failed)?;
    if crc32c::crc32c(&payload) != header.payload_crc {
        return Err(corrupt());
    }
    Ok(StoredBlock::new(&header, payload))
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
        assert!(heights(&BlockReader::open(directory.path()).unwrap(), 1).is_empty());
        for height in 5..=40 {
            store.append(height, &[1; 32], &[7; 100], b"certificate").unwrap();
            let reader = BlockReader::open(directory.path()).unwrap();
            assert_eq!(reader.min(), Some(5));
            assert_eq!(heights(&reader, 1), (5..=height).collect::<Vec<_>>());
            assert_eq!(heights(&reader, height), [height]);
            assert!(heights(&reader, height + 1).is_empty());
        }
        let block = BlockReader::open(directory.path()).unwrap().blocks(33).next().unwrap().unwrap();
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
        let (_, path) = BlockReader::open(directory.path()).unwrap().segments[1].clone();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let read: Vec<_> = BlockReader::open(directory.path()).unwrap().blocks(1).collect();
        assert!(matches!(read.last(), Some(Err(BlockStoreError::Corrupt { .. }))), "{read:?}");
        std::fs::remove_file(&path).unwrap();
        let read: Vec<_> = BlockReader::open(directory.path()).unwrap().blocks(1).collect();
        assert!(matches!(read.last(), Some(Err(BlockStoreError::SegmentMissing(_)))), "{read:?}");
    }
}
