//! Sealed segments: which there are, one read whole, and its leaving for the archive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use sha2::{Digest as _, Sha256};

use super::archive::{self, ArchivedSegment};
use super::error::BlockStoreError;
use super::record::BlockId;
use super::segment::{Extent, Place, Segment};
use super::store::{BlockStore, remove_file};

/// Bytes of a segment that are read at a time when all of it is.
const READ_BYTES: usize = 1 << 20;

impl BlockStore {
    /// Ends the segment that takes appends: the next block begins another one.
    ///
    /// # Errors
    /// `store_io`, which poisons; `store_poisoned`.
    pub fn roll(&self) -> Result<(), BlockStoreError> {
        self.check_poison()?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.seal_active(&mut writer);
        sealed.inspect_err(|_| self.poison.set()).map_err(BlockStoreError::io("seal a segment"))
    }

    /// First and last height of the oldest sealed segment that is in the directory still; never the newest one.
    #[must_use]
    pub fn oldest_sealed(&self) -> Option<(u64, u64)> {
        let heights = self.heights.read().unwrap_or_else(PoisonError::into_inner);
        let mut segments = heights.segments().skip_while(|segment| segment.place != Place::File);
        let oldest = segments.next()?;
        // Only the newest one takes appends.
        Some((oldest.first_height, segments.next()?.first_height - 1))
    }

    /// Height of the first block in the newest segment, `None` in an empty store.
    #[must_use]
    pub fn newest_begins_at(&self) -> Option<u64> {
        let heights = self.heights.read().unwrap_or_else(PoisonError::into_inner);
        heights.segments().last().map(|segment| segment.first_height)
    }

    /// Reads all of a sealed segment and checks every block of it.
    ///
    /// # Errors
    /// `block_not_found` if none that is in the directory begins there; `block_corrupt`, `store_io`, `store_poisoned`.
    pub fn sealed(&self, first_height: u64) -> Result<SealedSegment, BlockStoreError> {
        self.check_poison()?;
        let found = self.heights.read().unwrap_or_else(PoisonError::into_inner).segment(first_height);
        let found = found.filter(|(segment, _)| segment.place == Place::File);
        let (segment, extents) = found.ok_or(BlockStoreError::NotFound(first_height))?;
        let mut blocks = Vec::with_capacity(extents.len());
        for (height, extent) in (first_height..).zip(extents) {
            blocks.push((extent, *self.read(height)?.id()));
        }
        let failed = |error| BlockStoreError::io("read a segment")(error);
        let file = File::open(&segment.path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut sealed = SealedSegment { segment, blocks, file, bytes, pieces: Vec::new(), digest: [0; 32] };
        let mut whole = Sha256::new();
        while let bytes @ [_, ..] = &sealed.read(sealed.pieces.len() as u64 * READ_BYTES as u64).map_err(failed)?[..] {
            whole.update(bytes);
            sealed.pieces.push(Sha256::digest(bytes).into());
        }
        sealed.digest = whole.finalize().into();
        Ok(sealed)
    }

    /// Takes a segment out of the directory, whose bytes are kept under `root` from now on: durably, and by the word of the
    /// caller.
    ///
    /// # Errors
    /// `store_io`, `store_poisoned`; the segment stays.
    pub fn archive(&self, sealed: &SealedSegment, root: [u8; 32]) -> Result<(), BlockStoreError> {
        self.check_poison()?;
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let path = archive::write(&self.directory, &sealed.segment, &root, sealed.bytes, &sealed.blocks)
            .map_err(BlockStoreError::io("note what is archived"))?;
        let segment = Segment { path, place: Place::Archive(root), ..(*sealed.segment).clone() };
        let extents: Vec<Extent> = sealed.blocks.iter().map(|(extent, _)| *extent).collect();
        self.exchange(segment, &extents);
        // A crash before this leaves both: the file counts then, and is archived again.
        remove_file(&sealed.segment.path).map_err(BlockStoreError::io("remove an archived segment"))
    }

    /// The segments that have left the directory, in order of height.
    #[must_use]
    pub fn archived(&self) -> Vec<ArchivedSegment> {
        let heights = self.heights.read().unwrap_or_else(PoisonError::into_inner);
        let mut archived = Vec::new();
        let mut segments = heights.segments().peekable();
        while let Some(segment) = segments.next() {
            let Place::Archive(root) = segment.place else { continue };
            let next = segments.peek().map(|next| next.first_height);
            let until = next.or(heights.tip().map(|tip| tip + 1)).unwrap_or(segment.first_height);
            let first_height = segment.first_height;
            archived.push(ArchivedSegment { first_height, blocks: until - first_height, root });
        }
        archived
    }
}

/// A sealed segment every block of which was read and is whole.
#[derive(Debug)]
pub struct SealedSegment {
    segment: Arc<Segment>,
    blocks: Vec<(Extent, BlockId)>,
    file: File,
    bytes: u64,
    /// SHA-256 of each [`READ_BYTES`] of it, and of all, when it was checked.
    pieces: Vec<[u8; 32]>,
    digest: [u8; 32],
}

impl SealedSegment {
    /// Height of its first block.
    #[must_use]
    pub fn first_height(&self) -> u64 {
        self.segment.first_height
    }

    /// Blocks in it.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of its bytes when they were checked.
    #[must_use]
    pub const fn checked_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The piece of this number, 1 MiB or the rest, as it was when it was checked; none behind the end.
    ///
    /// # Errors
    /// Failure of the file, which may have changed.
    pub fn piece(&self, number: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(digest) = self.pieces.get(number) else { return Ok(None) };
        let bytes = self.read(number as u64 * READ_BYTES as u64)?;
        if Sha256::digest(&bytes)[..] != digest[..] {
            return Err(io::Error::other("the file of the segment changed since it was checked"));
        }
        Ok(Some(bytes))
    }

    /// Bytes from `from` on, up to 1 MiB of them; none behind the end.
    fn read(&self, from: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.bytes.saturating_sub(from)).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }
}
