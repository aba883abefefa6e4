//! The block store itself: open, append, read, archive.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::archive::{self, ArchiveError, SegmentArchive};
use super::error::BlockStoreError;
use super::heights::Heights;
use super::record::{BlockId, RECORD_HEADER_BYTES, RecordHeader, StoredBlock, record_bytes};
use super::segment::{
    self, Extent, FOOTER_ENTRY_BYTES, Place, SEGMENT_HEADER_BYTES, ScanError, Segment, TRAILER_BYTES,
};
use crate::store::durable;
use crate::store::poison::Poison;

/// Default size at which a segment is sealed; the archive takes whole segments, and the payload tier's own
/// segments are of this size.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Default step by which the segment being written is extended with zeros. Larger steps give the append
/// that extends a long tail and no better median.
const EXTEND_BYTES: u64 = 1 << 20;

/// Records that one extension must hold to be worth its extra write: with fewer, the file grows with
/// each append, whose data then outweigh the metadata that the zeros would save.
const EXTEND_RECORDS: u64 = 8;

/// Sealed segments whose files stay open; a store of petabytes must not exhaust file descriptors.
const FILES_OPEN_MAX: usize = 64;

/// Extension of files that count for nothing yet; what a crash leaves of them is removed when the store opens.
pub(super) const UNFINISHED: &str = "new";

/// How long an archive that is not attached is said to be away.
const ARCHIVE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// An append buffer larger than this is given back after use.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

/// Sizes that tests and benchmarks vary.
#[derive(Clone, Copy, Debug)]
pub struct BlockStoreOptions {
    /// A segment is sealed before it would exceed this; at most 256 MiB (larger values are lowered). A
    /// single record larger than it gets a segment of its own.
    pub segment_bytes_max: u64,
    /// Zeros written ahead of small records (up to an eighth of this) at a time; 0 extends the file with
    /// each append.
    pub extend_bytes: u64,
    /// Each block is durable when its append returns. Without it [`BlockStore::sync`] makes all of them durable at once: for a
    /// store that is only being made, from blocks that are elsewhere.
    pub durable: bool,
}

impl Default for BlockStoreOptions {
    fn default() -> Self {
        Self { segment_bytes_max: SEGMENT_BYTES_MAX, extend_bytes: EXTEND_BYTES, durable: true }
    }
}

/// Sizes of a store, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFigures {
    /// Blocks held.
    pub blocks: u64,
    /// Segments.
    pub segments: usize,
    /// Those that have left the directory.
    pub archived: usize,
}

/// Append-only store of blocks; see the [module](super) for format and crash rules.
///
/// Shared by reference: appends are serialised inside, reads run beside them.
pub struct BlockStore {
    pub(super) directory: PathBuf,
    options: BlockStoreOptions,
    archive: Option<Arc<dyn SegmentArchive>>,
    /// Segments that were begun again.
    pub(super) rebuilds: AtomicU64,
    pub(super) heights: RwLock<Heights>,
    pub(super) writer: Mutex<Writer>,
    files: Mutex<VecDeque<(u64, Arc<File>)>>,
    pub(super) poison: Poison,
    _lock: File,
}

#[derive(Debug, Default)]
pub(super) struct Writer {
    active: Option<Active>,
    buffer: Vec<u8>,
}

/// The segment that takes appends.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: File,
    /// First byte behind the last record.
    end: u64,
    /// File length: zeros lie between `end` and it.
    allocated: u64,
    records: u64,
}

impl BlockStore {
    /// Opens or creates the store in `directory`: drops a torn tail, refuses corruption.
    ///
    /// # Errors
    /// `store_locked`, `block_corrupt`, `segment_corrupt`, `segment_missing`, `store_io`.
    pub fn open(directory: &Path, options: BlockStoreOptions) -> Result<Self, BlockStoreError> {
        durable::create_directory(directory).map_err(BlockStoreError::io("create the directory"))?;
        let lock = durable::lock_directory(directory)
            .map_err(BlockStoreError::io("lock the directory"))?
            .ok_or_else(|| BlockStoreError::Locked(directory.to_owned()))?;
        let segments = segments_of(directory).map_err(BlockStoreError::io("list segments"))?;
        let mut heights = Heights::default();
        let mut active = None;
        let mut firsts = segments.keys().skip(1);
        for (first_height, files) in &segments {
            let next = firsts.next().copied();
            active = match &files.records {
                Some(path) => load_segment(path, next, &mut heights)?,
                None => load_archived(&directory.join(archive::file_name(*first_height)), next, &mut heights)?,
            };
            if files.is_superseded() {
                let superseded = directory.join(archive::file_name(*first_height));
                remove_file(&superseded).map_err(BlockStoreError::io("remove what an interrupted archiving left"))?;
            }
        }
        remove_unfinished(directory).map_err(BlockStoreError::io("remove what was not finished"))?;
        Ok(Self {
            archive: None,
            rebuilds: AtomicU64::new(0),
            directory: directory.to_owned(),
            options: BlockStoreOptions {
                segment_bytes_max: options.segment_bytes_max.min(SEGMENT_BYTES_MAX),
                ..options
            },
            heights: RwLock::new(heights),
            writer: Mutex::new(Writer { active, buffer: Vec::new() }),
            files: Mutex::default(),
            poison: Poison::default(),
            _lock: lock,
        })
    }

    /// The same, which reads what has left the directory from `archive`.
    #[must_use]
    pub fn with_archive(self, archive: Arc<dyn SegmentArchive>) -> Self {
        Self { archive: Some(archive), ..self }
    }

    /// Appends the block after the tip; the first append to an empty store may have any height. When it
    /// returns, block and certificate are durable.
    ///
    /// # Errors
    /// `height_gap` and `block_too_large` change nothing; `store_io` poisons the store.
    pub fn append(&self, height: u64, id: &BlockId, block: &[u8], certificate: &[u8]) -> Result<(), BlockStoreError> {
        self.check_poison()?;
        let header = RecordHeader::new(height, id, block, certificate)?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // A second caller may have failed while this one waited.
        self.check_poison()?;
        if let Some(expected) = self.tip()?.map(|tip| tip + 1).filter(|&expected| expected != height) {
            return Err(BlockStoreError::HeightGap { expected, given: height });
        }
        let appended = self.append_record(&mut writer, &header, block, certificate);
        appended.inspect_err(|_| self.poison.set()).map_err(BlockStoreError::io("append a block"))
    }

    /// Makes what was appended without [`BlockStoreOptions::durable`] durable.
    ///
    /// # Errors
    /// `store_io` (which poisons), `store_poisoned`.
    pub fn sync(&self) -> Result<(), BlockStoreError> {
        self.check_poison()?;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Sealed segments were flushed when they were sealed.
        let Some(active) = &writer.active else { return Ok(()) };
        let synced = active.file.sync_all();
        synced.inspect_err(|_| self.poison.set()).map_err(BlockStoreError::io("make the blocks durable"))
    }

    /// Reads one block and checks it.
    ///
    /// # Errors
    /// `block_not_found`, `block_corrupt`, `store_io`, `store_poisoned`; `block_archive_away`, `block_archive_lost`.
    pub fn read(&self, height: u64) -> Result<StoredBlock, BlockStoreError> {
        let (mut segment, mut extent) = self.find(height)?;
        loop {
            let read = self.record(height, &segment, extent).and_then(|record| {
                StoredBlock::decode(segment.seed, height, record).ok_or_else(|| corrupt(height, &segment, extent))
            });
            if read.is_ok() {
                return read;
            }
            // What was archived, or came back, since the index was asked is read where it is now.
            let now = self.find(height)?;
            if *now.0 == *segment {
                return read;
            }
            (segment, extent) = now;
        }
    }

    /// The bytes of a record, without its padding.
    fn record(&self, height: u64, segment: &Segment, extent: Extent) -> Result<Vec<u8>, BlockStoreError> {
        let file = match segment.place {
            Place::File => Some(self.file(segment).map_err(BlockStoreError::io("open a segment"))?),
            Place::Archive(_) => None,
        };
        read_record(segment, file.as_deref(), self.archive.as_deref(), extent, height)
    }

    /// Height of the newest block, `None` in an empty store.
    ///
    /// # Errors
    /// `store_poisoned`.
    pub fn tip(&self) -> Result<Option<u64>, BlockStoreError> {
        self.check_poison()?;
        Ok(self.heights.read().unwrap_or_else(PoisonError::into_inner).tip())
    }

    /// Height of the oldest block held, `None` in an empty store.
    ///
    /// # Errors
    /// `store_poisoned`.
    pub fn min(&self) -> Result<Option<u64>, BlockStoreError> {
        self.check_poison()?;
        Ok(self.heights.read().unwrap_or_else(PoisonError::into_inner).min())
    }

    /// Puts a segment with the same heights in the place of one.
    pub(super) fn exchange(&self, segment: Segment, extents: &[Extent]) {
        let first_height = segment.first_height;
        self.heights.write().unwrap_or_else(PoisonError::into_inner).exchange(Arc::new(segment), extents);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).retain(|(first, _)| *first != first_height);
    }

    /// Sizes for metrics.
    #[must_use]
    pub fn figures(&self) -> BlockFigures {
        let heights = self.heights.read().unwrap_or_else(PoisonError::into_inner);
        let blocks = heights.tip().zip(heights.min()).map_or(0, |(tip, min)| tip - min + 1);
        BlockFigures { blocks, segments: heights.segment_count(), archived: heights.archived_count() }
    }

    pub(super) fn check_poison(&self) -> Result<(), BlockStoreError> {
        if self.poison.is_set() { Err(BlockStoreError::Poisoned) } else { Ok(()) }
    }

    fn append_record(
        &self,
        writer: &mut Writer,
        header: &RecordHeader,
        block: &[u8],
        certificate: &[u8],
    ) -> io::Result<()> {
        let bytes = record_bytes(header.payload_bytes());
        self.roll_if_full(writer, header.height, bytes)?;
        let Writer { active: Some(active), buffer } = writer else {
            return Err(io::Error::other("no active segment after roll"));
        };
        header.record_into(buffer, active.segment.seed, block, certificate);
        active.extend(bytes, self.options)?;
        active.file.write_all_at(buffer, active.end)?;
        if self.options.durable {
            active.file.sync_data()?;
        }
        let extent = Extent {
            offset: u32::try_from(active.end).map_err(io::Error::other)?,
            block_bytes: header.block_bytes,
            certificate_bytes: header.certificate_bytes,
        };
        active.end += bytes;
        active.records += 1;
        active.allocated = active.allocated.max(active.end);
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            *buffer = Vec::new();
        }
        self.heights.write().unwrap_or_else(PoisonError::into_inner).push(extent);
        Ok(())
    }

    /// Leaves an active segment that takes a record of `bytes` at `height`.
    fn roll_if_full(&self, writer: &mut Writer, height: u64, bytes: u64) -> io::Result<()> {
        if let Some(active) = &writer.active {
            let footer = (active.records + 1) * FOOTER_ENTRY_BYTES + TRAILER_BYTES;
            if active.records == 0 || active.end + bytes + footer <= self.options.segment_bytes_max {
                return Ok(());
            }
            self.seal_active(writer)?;
        }
        let (segment, file) = Segment::create(&self.directory, height)?;
        let segment = Arc::new(segment);
        self.heights.write().unwrap_or_else(PoisonError::into_inner).add_segment(Arc::clone(&segment));
        writer.active =
            Some(Active { segment, file, end: SEGMENT_HEADER_BYTES, allocated: SEGMENT_HEADER_BYTES, records: 0 });
        Ok(())
    }

    pub(super) fn seal_active(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(active) = writer.active.as_ref().filter(|active| active.records > 0) else { return Ok(()) };
        let extents = self.heights.read().unwrap_or_else(PoisonError::into_inner).newest_extents();
        active.segment.seal(&active.file, &extents, active.end)?;
        writer.active = None;
        Ok(())
    }

    fn find(&self, height: u64) -> Result<(Arc<Segment>, Extent), BlockStoreError> {
        self.check_poison()?;
        let heights = self.heights.read().unwrap_or_else(PoisonError::into_inner);
        heights.find(height).ok_or(BlockStoreError::NotFound(height))
    }

    /// The segment's file for reading, from the small cache of open files.
    fn file(&self, segment: &Segment) -> io::Result<Arc<File>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = files.iter().position(|(first_height, _)| *first_height == segment.first_height) {
            let entry = files.remove(at).expect("position just found");
            let file = Arc::clone(&entry.1);
            files.push_back(entry);
            return Ok(file);
        }
        let file = Arc::new(File::open(&segment.path)?);
        if files.len() == FILES_OPEN_MAX {
            files.pop_front();
        }
        files.push_back((segment.first_height, Arc::clone(&file)));
        Ok(file)
    }

    /// Makes the next append fail as a dying device would: its file refuses writes.
    #[cfg(test)]
    pub(super) fn break_active_file(&self) {
        let mut writer = self.writer.lock().unwrap();
        let active = writer.active.as_mut().unwrap();
        active.file = File::open(&active.segment.path).unwrap();
    }
}

impl std::fmt::Debug for BlockStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BlockStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Active {
    /// Writes zeros ahead so that `bytes` more fit; they become durable with the record's own fdatasync.
    fn extend(&mut self, bytes: u64, options: BlockStoreOptions) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        if bytes * EXTEND_RECORDS > options.extend_bytes || self.end + bytes <= self.allocated {
            return Ok(());
        }
        let target = (self.end + options.extend_bytes).min(options.segment_bytes_max).max(self.end + bytes);
        let mut at = self.allocated;
        while at < target {
            let take = usize::try_from(target - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.file.write_all_at(&ZEROS[..take], at)?;
            at += take as u64;
        }
        self.allocated = target;
        Ok(())
    }
}

/// What a directory has of one segment.
#[derive(Debug, Default)]
pub(super) struct SegmentFiles {
    /// Its file.
    pub(super) records: Option<PathBuf>,
    /// Whether there is what stays of an archived one.
    archived: bool,
}

impl SegmentFiles {
    /// A file counts, whatever says that it was archived: a crash came before it was removed, or after it was made again.
    fn is_superseded(&self) -> bool {
        self.records.is_some() && self.archived
    }
}

/// The segments of a directory by their first heights.
pub(super) fn segments_of(directory: &Path) -> io::Result<BTreeMap<u64, SegmentFiles>> {
    let mut segments = BTreeMap::<u64, SegmentFiles>::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(first_height) = segment::first_height_of(&path) {
            segments.entry(first_height).or_default().records = Some(path);
        } else if let Some(first_height) = archive::first_height_of(&path) {
            segments.entry(first_height).or_default().archived = true;
        }
    }
    Ok(segments)
}

/// Adds the heights of an archived segment.
fn load_archived(path: &Path, next: Option<u64>, heights: &mut Heights) -> Result<Option<Active>, BlockStoreError> {
    let read = archive::read(path).map_err(BlockStoreError::io("open a segment"))?;
    let (segment, blocks) = read.ok_or_else(|| BlockStoreError::SegmentCorrupt(path.to_owned()))?;
    if let Some(expected) = heights.tip().map(|tip| tip + 1).filter(|&expected| expected != segment.first_height) {
        return Err(BlockStoreError::SegmentMissing(expected));
    }
    let behind = segment.first_height + blocks.len() as u64;
    if next.is_some_and(|next| next != behind) {
        return Err(BlockStoreError::SegmentMissing(behind));
    }
    heights.add_segment(Arc::new(segment));
    blocks.into_iter().for_each(|(extent, _)| heights.push(extent));
    Ok(None)
}

/// Adds one segment's heights; `next` is where the following segment begins, `None` for the last one,
/// whose torn tail is cut. Returns the segment if it takes appends.
fn load_segment(path: &Path, next: Option<u64>, heights: &mut Heights) -> Result<Option<Active>, BlockStoreError> {
    let io_error = || BlockStoreError::io("open a segment");
    let file = OpenOptions::new().read(true).write(next.is_none()).open(path).map_err(io_error())?;
    let Some(segment) = Segment::open(path, &file).map_err(io_error())? else {
        return discard_new_segment(path, next, &file).map(|()| None);
    };
    if let Some(expected) = heights.tip().map(|tip| tip + 1).filter(|&expected| expected != segment.first_height) {
        return Err(BlockStoreError::SegmentMissing(expected));
    }
    let segment = Arc::new(segment);
    let sealed = segment.read_footer(&file).map_err(io_error())?;
    let is_sealed = sealed.is_some();
    let (extents, end, torn) = match sealed {
        Some(extents) => (extents, 0, false),
        None => {
            let scan = segment.scan(&file).map_err(|error| match error {
                ScanError::Io(source) => BlockStoreError::Io { operation: "scan a segment", source },
                ScanError::Corrupt { height, offset } => {
                    BlockStoreError::Corrupt { height, segment: path.to_owned(), offset }
                }
            })?;
            (scan.extents, scan.end, scan.torn)
        }
    };
    let records = extents.len() as u64;
    let behind = segment.first_height + records;
    if let Some(next) = next.filter(|&next| next != behind) {
        // A sealed footer checked, so a file is absent; an unsealed segment lost records of its own.
        return Err(if is_sealed || next < behind {
            BlockStoreError::SegmentMissing(behind)
        } else {
            BlockStoreError::Corrupt { height: behind, segment: path.to_owned(), offset: end }
        });
    }
    if extents.is_empty() && next.is_none() {
        // Its first append never became durable: the next one names the segment's first height anew.
        remove_file(path).map_err(BlockStoreError::io("remove an unfinished segment"))?;
        return Ok(None);
    }
    heights.add_segment(Arc::clone(&segment));
    for extent in extents {
        heights.push(extent);
    }
    if is_sealed || next.is_some() {
        return Ok(None);
    }
    if torn {
        tracing::warn!(height = behind, offset = end, "dropped the torn tail of the block store");
    }
    // Cutting away every byte behind the records keeps the zeros that follow them zeros.
    file.set_len(end).and_then(|()| file.sync_all()).map_err(BlockStoreError::io("cut the torn tail"))?;
    Ok(Some(Active { segment, file, end, allocated: end, records }))
}

/// A last segment without a valid header is one whose creation a crash cut short, if it is empty.
fn discard_new_segment(path: &Path, next: Option<u64>, file: &File) -> Result<(), BlockStoreError> {
    if next.is_some() || segment::may_hold_records(file).map_err(BlockStoreError::io("scan a segment"))? {
        return Err(BlockStoreError::SegmentCorrupt(path.to_owned()));
    }
    remove_file(path).map_err(BlockStoreError::io("remove an unfinished segment"))
}

/// Removes what a crash left of files that were being made.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == UNFINISHED) {
            durable::remove_if_present(&path)?;
        }
    }
    Ok(())
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    durable::remove_if_present(path)?;
    path.parent().map_or(Ok(()), durable::sync_directory)
}

/// The bytes of a record, without its padding: from the segment's file, or from the archive.
pub(super) fn read_record(
    segment: &Segment,
    file: Option<&File>,
    archive: Option<&dyn SegmentArchive>,
    extent: Extent,
    height: u64,
) -> Result<Vec<u8>, BlockStoreError> {
    let (from, length) = (u64::from(extent.offset), RECORD_HEADER_BYTES + extent.payload_bytes());
    let read = match (segment.place, file, archive) {
        (Place::File, Some(file), _) => {
            let mut record = vec![0; length];
            file.read_exact_at(&mut record, from).map_err(BlockStoreError::io("read a block"))?;
            return Ok(record);
        }
        (Place::Archive(root), _, Some(archive)) => archive.read(&root, from, length),
        _ => Err(ArchiveError::Away {
            reason: "the configuration names none".to_owned(),
            retry_after: ARCHIVE_RETRY_AFTER,
        }),
    };
    read.map_err(|source| BlockStoreError::Archived { height, source })
}

pub(super) fn corrupt(height: u64, segment: &Segment, extent: Extent) -> BlockStoreError {
    BlockStoreError::Corrupt { height, segment: segment.path.clone(), offset: u64::from(extent.offset) }
}
