//! The device of pages: reading and writing them.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use stele_device::{
    Batch, BlockDevice, Buffer, BufferPool, Completed, Completion, DeviceError, Disk, Options, Request,
};
use stele_merkle::state::StateHash;

#[cfg(test)]
use super::faulty;
use super::{BLOCK_BYTES, LOAD_PAGES, Page, offset};
use crate::StateError;
use crate::record::open_header;

const MAGIC: [u8; 8] = *b"STELEPGS";
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 31;

/// Bytes of the largest page: its one pair is longer than a block.
const PAGE_BYTES_MAX: usize = 2 * BLOCK_BYTES;

/// Pages that are read one by one, or ahead of their use, at the same time.
const SINGLE_READS_MAX: usize = 256;

/// Writes under way, each of up to 1 MiB.
const WRITES_MAX: usize = 16;

/// Pages that are read together rather than one after the other.
const BULK_PAGES_MIN: usize = 8;

/// What tells a device from others: tables name it.
pub(crate) type DeviceId = [u8; 16];

/// The device of a map's pages.
pub(crate) struct Store {
    device: Arc<dyn BlockDevice>,
    path: PathBuf,
    id: DeviceId,
    singles: BufferPool,
    bulk: BufferPool,
    writes: BufferPool,
    writing: Arc<Writing>,
    /// Held while many pages are read: who does needs all buffers of `bulk`.
    reading: Mutex<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("access", self.device.access()).finish_non_exhaustive()
    }
}

impl Store {
    /// Blocks of one write.
    pub(crate) const WRITE_BLOCKS_MAX: u32 = 256;

    /// Bytes of its buffers.
    pub(crate) const BUFFER_BYTES: usize = (SINGLE_READS_MAX + 2 * LOAD_PAGES) * PAGE_BYTES_MAX
        + WRITES_MAX * Self::WRITE_BLOCKS_MAX as usize * BLOCK_BYTES;

    /// A new device of so many blocks in a file, in place of what was there, that is renamed to `path` later.
    pub(crate) fn create(new: &Path, path: &Path, hash: StateHash, blocks: u32) -> Result<Self, StateError> {
        match std::fs::remove_file(new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StateError::io("delete", new)(error));
            }
            _ => {}
        }
        drop(Disk::create(new, blocks.into(), &Options::default()).map_err(StateError::device(new))?);
        let mut id = DeviceId::default();
        getrandom::fill(&mut id)
            .map_err(|error| StateError::io("draw random bytes for", path)(std::io::Error::other(error.to_string())))?;
        let store = Self::with_id(new, path, id)?;
        let mut buffer = store.singles.take().with_length(BLOCK_BYTES);
        buffer.fill(0);
        buffer[..HEADER_BYTES].copy_from_slice(&encode_header(hash, &id));
        store.ask(Request::write_durable(0, buffer))?;
        Ok(store)
    }

    /// The device at a path.
    pub(crate) fn open(path: &Path, hash: StateHash) -> Result<Self, StateError> {
        let mut store = Self::with_id(path, path, DeviceId::default())?;
        let header = store.ask(Request::read(0, store.singles.take().with_length(BLOCK_BYTES)))?;
        let header: &[u8; HEADER_BYTES] = header.first_chunk().expect("a block is longer");
        let (found, id) = decode_header(header).ok_or_else(|| StateError::Corrupt {
            path: path.to_owned(),
            offset: 0,
            what: "the header of the pages is not sound",
        })?;
        if found != hash {
            return Err(StateError::OtherHash { path: path.to_owned() });
        }
        store.id = id;
        Ok(store)
    }

    fn with_id(file: &Path, path: &Path, id: DeviceId) -> Result<Self, StateError> {
        let pool = |buffers, bytes| BufferPool::new(buffers, bytes).map_err(StateError::device(path));
        let singles = pool(SINGLE_READS_MAX, PAGE_BYTES_MAX)?;
        let bulk = pool(2 * LOAD_PAGES, PAGE_BYTES_MAX)?;
        let writes = pool(WRITES_MAX, Self::WRITE_BLOCKS_MAX as usize * BLOCK_BYTES)?;
        let options = Options { pools: vec![bulk.clone(), writes.clone(), singles.clone()], ..Options::default() };
        let device = Arc::new(Disk::open(file, &options).map_err(StateError::device(file))?);
        let writing = Arc::new(Writing::default());
        Ok(Self { device, path: path.to_owned(), id, singles, bulk, writes, writing, reading: Mutex::new(()) })
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.id
    }

    /// What was read is not what a page must be.
    pub(crate) fn corrupt(&self, page: Page) -> StateError {
        let what = "a page does not hold the pairs that its hash stands for";
        StateError::Corrupt { path: self.path.clone(), offset: offset(page.block), what }
    }

    /// Blocks that can be addressed.
    pub(crate) fn blocks(&self) -> u32 {
        u32::try_from(self.device.geometry().blocks).unwrap_or(u32::MAX)
    }

    /// Makes the device so many blocks large.
    pub(crate) fn grow(&self, blocks: u32) -> Result<(), StateError> {
        self.device.grow(blocks.into()).map_err(StateError::device(&self.path))
    }

    /// The bytes of pages, in their order, as they come from the device, so many at a time. What comes after is read while
    /// `visit` works.
    pub(crate) fn read(
        &self,
        pages: &[Page],
        mut visit: impl FnMut(Vec<Vec<u8>>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.read_each(pages, |bodies| visit(bodies.into_iter().collect::<Result<_, _>>()?))
    }

    /// The same for who goes on past pages that cannot be read.
    pub(crate) fn read_each(
        &self,
        pages: &[Page],
        mut visit: impl FnMut(Vec<Result<Vec<u8>, StateError>>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        if pages.len() < BULK_PAGES_MIN {
            return visit(pages.iter().map(|page| self.read_one(*page)).collect());
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunks = pages.chunks(LOAD_PAGES);
        let mut next = chunks.next().map(|chunk| self.begin(chunk));
        while let Some(reading) = next.take() {
            next = chunks.next().map(|chunk| self.begin(chunk));
            let bodies = reading.finish().into_iter();
            visit(bodies.map(|body| body.map_err(StateError::device(&self.path))).collect())?;
        }
        Ok(())
    }

    fn begin<'s>(&'s self, pages: &'s [Page]) -> Reading<'s> {
        let mut batch = Batch::new(&*self.device, LOAD_PAGES);
        for (at, page) in (0..).zip(pages) {
            let buffer = self.bulk.take().with_length(transfer(*page));
            let early = batch.push(Request::read(offset(page.block), buffer).tagged(at));
            debug_assert!(early.is_none(), "there are no more pages than the batch is deep");
        }
        Reading { batch, pages }
    }

    /// The bytes of one page.
    fn read_one(&self, page: Page) -> Result<Vec<u8>, StateError> {
        let buffer = self.singles.take().with_length(transfer(page));
        let buffer = self.ask(Request::read(offset(page.block), buffer))?;
        Ok(buffer[..page.bytes.into()].to_vec())
    }

    /// Begins to read a page and has its bytes kept; false when too many are being read.
    pub(crate) fn read_ahead(&self, page: Page, keep: impl Fn(&[u8]) + Send + Sync + 'static) -> bool {
        let Some(buffer) = self.singles.try_take() else { return false };
        let request = Request::read(offset(page.block), buffer.with_length(transfer(page)));
        let completion: Arc<dyn Completion> = Arc::new(move |completed: Completed| {
            // What cannot be read ahead is read again when it is needed, and fails then.
            if let Ok(buffer) = completed.into_buffer() {
                keep(&buffer[..page.bytes.into()]);
            }
        });
        let mut requests = VecDeque::from([request]);
        self.device.try_submit(&mut requests, &completion);
        requests.is_empty()
    }

    /// Begins to write pages that lie in a row from a block on.
    pub(crate) fn write<'d>(&self, block: u32, pages: impl Iterator<Item = (Page, &'d [u8])>) {
        let mut buffer = self.writes.take();
        let mut end = 0;
        for (page, body) in pages {
            debug_assert_eq!(page.block as usize, block as usize + end / BLOCK_BYTES);
            let next = end + transfer(page);
            buffer[end..end + body.len()].copy_from_slice(body);
            buffer[end + body.len()..next].fill(0);
            end = next;
        }
        self.writing.lock().under_way += 1;
        let completion: Arc<dyn Completion> = Arc::clone(&self.writing) as _;
        let request = Request::write(offset(block), buffer.with_length(end));
        self.device.submit(&mut VecDeque::from([request]), &completion);
    }

    /// Waits for all writes.
    ///
    /// # Errors
    /// [`StateError::Device`] when one failed since the device was opened: then a page is missing.
    pub(crate) fn settle(&self) -> Result<(), StateError> {
        let mut writes = self.writing.lock();
        while writes.under_way > 0 {
            writes = self.writing.done.wait(writes).unwrap_or_else(PoisonError::into_inner);
        }
        match writes.failure.take() {
            None if writes.failed => Err(StateError::Poisoned),
            None => Ok(()),
            Some(error) => Err(StateError::device(&self.path)(error)),
        }
    }

    /// Makes what was written and waited for survive a power cut.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        let mut batch = Batch::new(&*self.device, 1);
        let early = batch.push(Request::flush());
        debug_assert!(early.is_none());
        batch.finish().map_err(StateError::device(&self.path))
    }

    /// Puts something between this and the device, which then fails when it is told to.
    #[cfg(test)]
    pub(crate) fn break_by(&mut self, faults: &Arc<faulty::Faults>) {
        self.device = Arc::new(faulty::Faulty::new(Arc::clone(&self.device), Arc::clone(faults)));
    }

    /// Waits for one request and gives its buffer back.
    fn ask(&self, request: Request) -> Result<Buffer, StateError> {
        let mut batch = Batch::new(&*self.device, 1);
        let early = batch.push(request);
        debug_assert!(early.is_none());
        let completed = batch.wait().expect("a request was pushed");
        completed.into_buffer().map_err(StateError::device(&self.path))
    }
}

/// Pages that are being read.
struct Reading<'s> {
    batch: Batch<'s>,
    pages: &'s [Page],
}

impl Reading<'_> {
    fn finish(mut self) -> Vec<Result<Vec<u8>, DeviceError>> {
        let mut bodies: Vec<_> = self.pages.iter().map(|_| Ok(Vec::new())).collect();
        while let Some(completed) = self.batch.wait() {
            let at = usize::try_from(completed.tag).expect("an index of a slice");
            bodies[at] = completed.into_buffer().map(|buffer| buffer[..self.pages[at].bytes.into()].to_vec());
        }
        bodies
    }
}

/// Bytes that are transferred for a page.
fn transfer(page: Page) -> usize {
    page.run().blocks as usize * BLOCK_BYTES
}

/// Writes under way.
#[derive(Debug, Default)]
struct Writing {
    writes: Mutex<Writes>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Writes {
    under_way: usize,
    failed: bool,
    /// The first failure, until it is told.
    failure: Option<DeviceError>,
}

impl Writing {
    fn lock(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Completion for Writing {
    fn complete(&self, completed: Completed) {
        let mut writes = self.lock();
        writes.under_way -= 1;
        if let Err(error) = completed.result
            && !std::mem::replace(&mut writes.failed, true)
        {
            writes.failure = Some(error);
        }
        if writes.under_way == 0 {
            self.done.notify_all();
        }
    }
}

fn encode_header(hash: StateHash, id: &DeviceId) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    bytes[10] = hash.id();
    bytes[11..27].copy_from_slice(id);
    let crc = crc32c::crc32c(&bytes[..27]);
    bytes[27..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Option<(StateHash, DeviceId)> {
    let (hash, mut reader) = open_header(bytes, MAGIC, FORMAT_VERSION)?;
    Some((hash, reader.array()?))
}
