//! Tables: checkpoints of a map with pages.
//!
//! | bytes | content, integers big-endian |
//! |---|---|
//! | 8, 2, 1 | `STELETAB`, format version 1, hash function |
//! | 16 | the device of the pages |
//! | 8, 32, 8 | height, root, number of pages |
//! | 4 | CRC-32C of the above |
//! | … | the pages in the order of their keys, in parts: number of pages (4), bytes of the part (4), CRC-32C of both and of the part (4), the pages |
//!
//! A page: the number of bits that its keys share by its place (2), those bits (filled up to whole bytes), its hash (32),
//! first block (4), bytes of its pairs (2), number of pairs (1). The table alone therefore leads to the root.
//!
//! As a snapshot, a table is copied between commits, written by a thread, and appears under its name only when it and all
//! pages that it names are flushed.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use stele_merkle::state::{Key, StateHash};

use super::copy::{PageAt, PageCopy};
use super::{DeviceId, Page, Store, Wanted};
use crate::handover::Handover;
use crate::record::{Reader, open_header};
use crate::snapshot::prune;
use crate::tree::{Tree, Undo};
use crate::write_log::sync_directory;
use crate::{Hash, StateError};

const MAGIC: [u8; 8] = *b"STELETAB";
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 79;
const PART_HEAD_BYTES: usize = 12;

/// Pages of a part.
const PART_PAGES_MAX: usize = 4096;

/// Bytes of a page in a table, its bits beside.
const ENTRY_BYTES: usize = 2 + 32 + 4 + 2 + 1;
const PART_BYTES_MAX: usize = PART_PAGES_MAX * (ENTRY_BYTES + 32);

/// Parts that wait for the writer.
const PARTS_WAITING_MAX: usize = 8;

/// The name of the table of a height.
pub(crate) fn table_name(height: u64) -> String {
    format!("pages-{height:020}.table")
}

/// Header of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableHeader {
    pub(crate) hash: StateHash,
    pub(crate) device: DeviceId,
    pub(crate) height: u64,
    pub(crate) root: Hash,
    pub(crate) pages: u64,
}

impl TableHeader {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.push(self.hash.id());
        bytes.extend_from_slice(&self.device);
        bytes.extend_from_slice(&self.height.to_be_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.pages.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (hash, mut reader) = open_header(bytes, MAGIC, FORMAT_VERSION)?;
        Some(Self {
            hash,
            device: reader.array()?,
            height: u64::from_be_bytes(reader.array()?),
            root: reader.array()?,
            pages: u64::from_be_bytes(reader.array()?),
        })
    }
}

fn push_entry(bytes: &mut Vec<u8>, PageAt { wanted: Wanted { page, hash }, low }: &PageAt) {
    bytes.extend_from_slice(&page.depth.to_be_bytes());
    bytes.extend_from_slice(&low[..usize::from(page.depth).div_ceil(8)]);
    bytes.extend_from_slice(hash);
    bytes.extend_from_slice(&page.block.to_be_bytes());
    bytes.extend_from_slice(&page.bytes.to_be_bytes());
    bytes.push(page.pairs);
}

fn read_entry(reader: &mut Reader<'_>) -> Option<PageAt> {
    let depth = u16::from_be_bytes(reader.array()?);
    let bits = reader.take(usize::from(depth).div_ceil(8)).filter(|bits| bits.len() <= 32)?;
    let mut low: Key = [0; 32];
    low[..bits.len()].copy_from_slice(bits);
    let hash = reader.array()?;
    let block = u32::from_be_bytes(reader.array()?);
    let bytes = u16::from_be_bytes(reader.array()?);
    let [pairs] = reader.array()?;
    let page = Page { block, bytes, depth, pairs };
    page.is_possible().then_some(PageAt { wanted: Wanted { page, hash }, low })
}

fn part_crc(head: &[u8], part: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), part)
}

/// A table as it was read.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) header: TableHeader,
    pub(crate) pages: Vec<PageAt>,
    /// Bytes of the file.
    pub(crate) size: u64,
}

impl Table {
    /// Reads a table whose checksums are right. What it says shows in the root.
    ///
    /// # Errors
    /// [`StateError::Corrupt`], [`StateError::Io`].
    pub(crate) fn read(path: &Path) -> Result<Self, StateError> {
        let corrupt = |offset, what| StateError::Corrupt { path: path.to_owned(), offset, what };
        let file = File::open(path).map_err(StateError::io("open", path))?;
        let size = file.metadata().map_err(StateError::io("read", path))?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut at = 0;
        let mut fill = |bytes: &mut [u8]| match file.read_exact(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(corrupt(size, "the table ends early"))
            }
            result => result.map_err(StateError::io("read", path)),
        };
        let mut header = [0; HEADER_BYTES];
        fill(&mut header)?;
        let header = TableHeader::decode(&header).ok_or_else(|| corrupt(0, "the header is not sound"))?;
        at += HEADER_BYTES as u64;
        // What the header says is believed as far as the file is long.
        let fits = size / ENTRY_BYTES as u64;
        let mut pages = Vec::with_capacity(usize::try_from(header.pages.min(fits)).unwrap_or(0));
        let mut part = Vec::new();
        while (pages.len() as u64) < header.pages {
            let mut head = [0; PART_HEAD_BYTES];
            fill(&mut head)?;
            let [count, length, crc] = [0, 4, 8].map(|from| {
                let bytes: [u8; 4] = head[from..from + 4].try_into().expect("four bytes");
                u32::from_be_bytes(bytes)
            });
            if length as usize > PART_BYTES_MAX || count == 0 || count as usize > PART_PAGES_MAX {
                return Err(corrupt(at, "the head of a part is not sound"));
            }
            part.resize(length as usize, 0);
            fill(&mut part)?;
            if crc != part_crc(&head[..8], &part) {
                return Err(corrupt(at, "a part is not sound"));
            }
            let mut reader = Reader::new(&part);
            for _ in 0..count {
                pages.push(read_entry(&mut reader).ok_or_else(|| corrupt(at, "a part is malformed"))?);
            }
            if !reader.is_empty() {
                return Err(corrupt(at, "a part is malformed"));
            }
            at += PART_HEAD_BYTES as u64 + u64::from(length);
        }
        if pages.len() as u64 != header.pages || at != size {
            return Err(corrupt(at, "the table has more than it says"));
        }
        Ok(Self { header, pages, size })
    }
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct TableJob {
    path: PathBuf,
    height: u64,
    copy: PageCopy,
    /// Whether the owner still keeps the version for it.
    pinned: bool,
    parts: Handover<Vec<PageAt>>,
    writer: JoinHandle<Result<u64, StateError>>,
}

impl TableJob {
    /// Starts the writer for the newest version, whose pages are all on the device. The caller keeps it retained until
    /// [`TableJob::take_pin`].
    pub(crate) fn start(directory: &Path, header: TableHeader, store: Arc<Store>) -> Result<Self, StateError> {
        let (sender, parts) = sync_channel(PARTS_WAITING_MAX);
        let writer = TableWriter::create(directory, header)?;
        let path = writer.path.clone();
        let writer = std::thread::Builder::new()
            .name("state-table".to_owned())
            .spawn(move || writer.run(&parts, &store))
            .map_err(StateError::io("start the writer of", &path))?;
        let (copy, parts) = (PageCopy::new(), Handover::new(sender));
        Ok(Self { path, height: header.height, copy, pinned: true, parts, writer })
    }

    pub(crate) fn height(&self) -> u64 {
        self.height
    }

    /// The height whose version the owner need not keep any more; told once. The blocks of its pages have to stay.
    pub(crate) fn take_pin(&mut self) -> Option<u64> {
        (!self.parts.is_open() && std::mem::take(&mut self.pinned)).then_some(self.height)
    }

    /// Whether the writer has ended, well or not.
    pub(crate) fn is_finished(&self) -> bool {
        !self.parts.is_open() && self.writer.is_finished()
    }

    /// Takes note of what a commit changed. It has been applied to `tree`.
    pub(crate) fn record(&mut self, tree: &Tree, undo: &Undo) {
        if self.parts.is_open() {
            self.copy.record(tree, undo);
        }
    }

    /// Copies up to about so many pages. When the writer is behind, waits for it if `wait`, else stops early.
    pub(crate) fn step(&mut self, tree: &Tree, pages_max: usize, wait: bool) {
        let mut pages = 0;
        while self.parts.pass(wait) && pages < pages_max {
            if self.copy.is_complete() {
                return self.parts.close();
            }
            let part = self.copy.take(tree, PART_PAGES_MAX, None);
            pages += part.len();
            if !part.is_empty() {
                self.parts.put(part);
            }
        }
    }

    /// Waits for the writer: the size of the file, or why there is none. Before everything was copied this abandons the
    /// table.
    pub(crate) fn finish(self) -> Result<u64, StateError> {
        let complete = self.copy.is_complete() && !self.parts.is_open();
        drop(self.parts);
        // A writer that panicked left no complete file, which is the same as one that failed.
        match self.writer.join().unwrap_or(Err(StateError::Poisoned)) {
            Ok(0) if complete => {
                Err(StateError::Corrupt { path: self.path, offset: 0, what: "the tree has fewer pages than it counts" })
            }
            result => result,
        }
    }
}

struct TableWriter {
    directory: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    size: u64,
    missing: u64,
}

impl TableWriter {
    fn create(directory: &Path, header: TableHeader) -> Result<Self, StateError> {
        let path = directory.join(table_name(header.height));
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary).map_err(StateError::io("create", &temporary))?;
        let bytes = header.encode();
        file.write_all(&bytes).map_err(StateError::io("write", &temporary))?;
        let (directory, size) = (directory.to_owned(), bytes.len() as u64);
        Ok(Self { directory, path, temporary, file, size, missing: header.pages })
    }

    /// Writes the parts; returns the size of the file, or 0 when the owner gave up before the last.
    fn run(mut self, parts: &Receiver<Vec<PageAt>>, store: &Store) -> Result<u64, StateError> {
        let written = self.write(parts).and_then(|complete| {
            if complete {
                store.flush()?;
                self.file.sync_all().map_err(StateError::io("flush", &self.temporary))?;
            }
            Ok(complete)
        });
        match written {
            Ok(true) => {}
            result => {
                // What stays is deleted at the next open.
                let _ = std::fs::remove_file(&self.temporary);
                return result.map(|_| 0);
            }
        }
        std::fs::rename(&self.temporary, &self.path).map_err(StateError::io("rename", &self.temporary))?;
        sync_directory(&self.directory)?;
        prune(&self.directory)?;
        Ok(self.size)
    }

    fn write(&mut self, parts: &Receiver<Vec<PageAt>>) -> Result<bool, StateError> {
        let mut bytes = Vec::new();
        while let Ok(part) = parts.recv() {
            bytes.clear();
            bytes.resize(PART_HEAD_BYTES, 0);
            part.iter().for_each(|page| push_entry(&mut bytes, page));
            let (head, body) = bytes.split_at_mut(PART_HEAD_BYTES);
            let count = |number: usize| u32::try_from(number).expect("a part is small").to_be_bytes();
            head[..4].copy_from_slice(&count(part.len()));
            head[4..8].copy_from_slice(&count(body.len()));
            let crc = part_crc(&head[..8], body);
            head[8..].copy_from_slice(&crc.to_be_bytes());
            self.file.write_all(&bytes).map_err(StateError::io("write", &self.temporary))?;
            self.size += bytes.len() as u64;
            self.missing = self.missing.checked_sub(part.len() as u64).ok_or_else(|| StateError::Corrupt {
                path: self.temporary.clone(),
                offset: self.size,
                what: "the tree has more pages than it counts",
            })?;
        }
        Ok(self.missing == 0)
    }
}
