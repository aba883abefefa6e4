//! Making a segment again that the archive has lost.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::archive;
use super::error::BlockStoreError;
use super::record::{BlockId, RecordHeader};
use super::segment::{self, Extent, Place, SEGMENT_HEADER_BYTES, Segment};
use super::store::{BlockStore, UNFINISHED, remove_file};
use crate::store::durable;

impl BlockStore {
    /// Begins to make an archived segment again, of blocks that are elsewhere.
    ///
    /// # Errors
    /// `block_not_found` if none begins there; `segment_corrupt`, `store_io`, `store_poisoned`.
    pub fn rebuild(&self, first_height: u64) -> Result<SegmentRebuild<'_>, BlockStoreError> {
        self.check_poison()?;
        let path = self.directory.join(archive::file_name(first_height));
        let failed = |error| BlockStoreError::io("begin a segment again")(error);
        let kept = match archive::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlockStoreError::NotFound(first_height));
            }
            other => other.map_err(failed)?,
        };
        let (archived, blocks) = kept.ok_or(BlockStoreError::SegmentCorrupt(path))?;
        // Another one of the same segment may be under way.
        let number = self.rebuilds.fetch_add(1, Ordering::Relaxed);
        let making = self.directory.join(format!("{}.{number}.{UNFINISHED}", segment::file_name(first_height)));
        let (segment, file) = Segment::create_at(&making, first_height).map_err(failed)?;
        let wanted = blocks.into_iter().map(|(_, id)| id).collect();
        let (extents, end) = (Vec::new(), SEGMENT_HEADER_BYTES);
        Ok(SegmentRebuild { store: self, archived: archived.place, segment, file, wanted, extents, end })
    }
}

/// An archived segment that is made again. Dropped before it is finished, it changes nothing.
pub struct SegmentRebuild<'s> {
    store: &'s BlockStore,
    /// Where it is archived.
    archived: Place,
    segment: Segment,
    file: File,
    /// The blocks of the segment, in order of height.
    wanted: Vec<BlockId>,
    extents: Vec<Extent>,
    end: u64,
}

impl SegmentRebuild<'_> {
    /// Heights and ids of the blocks that are wanted still, in order.
    pub fn wanted(&self) -> impl Iterator<Item = (u64, BlockId)> {
        (self.segment.first_height..).zip(self.wanted.iter().copied()).skip(self.extents.len())
    }

    /// Takes the block that is wanted, whose id the caller has computed, with a certificate that it has verified.
    ///
    /// # Errors
    /// `height_gap` if none is wanted any more, `block_too_large`, `store_io`.
    pub fn add(&mut self, block: &[u8], certificate: &[u8]) -> Result<(), BlockStoreError> {
        let behind = self.segment.first_height + self.wanted.len() as u64;
        let (height, id) =
            self.wanted().next().ok_or(BlockStoreError::HeightGap { expected: behind, given: behind })?;
        let header = RecordHeader::new(height, &id, block, certificate)?;
        let extent = Extent {
            // With certificates of other nodes it may be somewhat longer than it was.
            offset: u32::try_from(self.end)
                .map_err(|error| BlockStoreError::io("write a block")(io::Error::other(error)))?,
            block_bytes: header.block_bytes,
            certificate_bytes: header.certificate_bytes,
        };
        let mut record = Vec::new();
        header.record_into(&mut record, self.segment.seed, block, certificate);
        self.file.write_all_at(&record, self.end).map_err(BlockStoreError::io("write a block"))?;
        self.end += record.len() as u64;
        self.extents.push(extent);
        Ok(())
    }

    /// Puts the segment back into the directory.
    ///
    /// # Errors
    /// `height_gap` if blocks are wanted still; `block_not_found` if it is archived no more, or elsewhere; `store_io`,
    /// `store_poisoned`.
    pub fn finish(self) -> Result<(), BlockStoreError> {
        if let Some((expected, _)) = self.wanted().next() {
            return Err(BlockStoreError::HeightGap { expected, given: expected });
        }
        let (store, first_height) = (self.store, self.segment.first_height);
        store.check_poison()?;
        // All of it goes to the disk here, before appends have to wait.
        self.segment.seal(&self.file, &self.extents, self.end).map_err(BlockStoreError::io("seal a segment"))?;
        let _writer = store.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let now = store.heights.read().unwrap_or_else(PoisonError::into_inner).segment(first_height);
        if now.is_none_or(|(segment, _)| segment.place != self.archived) {
            return Err(BlockStoreError::NotFound(first_height));
        }
        let path = store.directory.join(segment::file_name(first_height));
        fs::rename(&self.segment.path, &path)
            .and_then(|()| durable::sync_directory(&store.directory))
            .map_err(BlockStoreError::io("put a segment back"))?;
        store.exchange(Segment { path, ..self.segment.clone() }, &self.extents);
        remove_file(&store.directory.join(archive::file_name(first_height)))
            .map_err(BlockStoreError::io("remove what was said of an archived segment"))
    }
}

impl Drop for SegmentRebuild<'_> {
    fn drop(&mut self) {
        // It has another name once it counts.
        let _ = durable::remove_if_present(&self.segment.path);
    }
}
