//! Tables: immutable files of entries in the order of their keys.
//!
//! | bytes | content, integers big-endian |
//! |---|---|
//! | 4096 | `STELEKEY` (8), format version 1 (2), number of the table (8), zeros, CRC-32C of the block (4) |
//! | each 4096 | pages |
//! | each 16 | first half of each page's first key |
//! | each 160 | filter of each page |
//! | 60 | footer: `STELEEND` (8), number of the table (8), pages (4), entries (8), removals (8), last key (16), CRC-32C of the pages' checksums (4), of keys and filters (4) |
//! | 4 | CRC-32C of the footer |
//!
//! The keys and filters, 176 bytes a page, are read into memory when a table is opened, the pages when they are wanted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};

use super::IndexError;
use super::directory::table_path;
use super::entry::{Entry, Location, PREFIX_BYTES, Prefix, take};
use super::filter::{FILTER_BYTES, Filters};
use super::page::{PAGE_BYTES, PAGE_ENTRIES, Page, PageBytes};

const HEAD_MAGIC: [u8; 8] = *b"STELEKEY";
const FOOTER_MAGIC: [u8; 8] = *b"STELEEND";
const FORMAT_VERSION: u16 = 1;
const CRC_BYTES: usize = 4;

/// The header fills a block, so that pages are aligned to those of the drive.
const HEAD_BYTES: usize = PAGE_BYTES;

const FOOTER_BYTES: usize = 60 + CRC_BYTES;

/// Pages that a walk over a table reads at once.
const WALK_PAGES: usize = 8;

/// Bytes of keys or filters that are read at once: whole ones of either.
const SUMMARY_BYTES: usize = 1600 * FILTER_BYTES;

/// Where a table belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `None` at level zero, where tables go over all keys.
    pub(super) shard: Option<u16>,
    /// Merges behind it, about.
    pub(super) level: u8,
}

/// What the manifest says of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) footer_crc: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) path: PathBuf,
    pub(super) entries: u64,
    /// Entries that are removals.
    pub(super) removals: u64,
    /// Bytes of the file.
    pub(super) bytes: u64,
    pub(super) footer_crc: u32,
    pub(super) file: File,
    pub(super) summary: Summary,
}

/// What of a table is in memory.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The first key of each page.
    pub(super) firsts: Vec<Prefix>,
    pub(super) filters: Filters,
    /// The last key of all.
    pub(super) last: Prefix,
}

impl Table {
    /// Opens a table that the manifest names.
    pub(super) fn open(directory: &Path, listing: &Listing) -> Result<Self, IndexError> {
        let path = table_path(directory, listing.id);
        let corrupt = |offset, what| IndexError::corrupt(&path, offset, what);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IndexError::Missing { path }),
            result => result.map_err(IndexError::io("open", &path))?,
        };
        let bytes = file.metadata().map_err(IndexError::io("read", &path))?.len();
        if bytes != listing.bytes || bytes < (HEAD_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt(bytes, "the table has another length than the manifest says"));
        }
        let mut head = [0; HEAD_BYTES];
        read_at(&file, &path, &mut head, 0)?;
        check_head(&head, listing.id, &path)?;
        let mut footer = [0; FOOTER_BYTES];
        let footer_at = bytes - FOOTER_BYTES as u64;
        read_at(&file, &path, &mut footer, footer_at)?;
        let footer = Footer::decode(&footer, listing).ok_or_else(|| corrupt(footer_at, "the footer is not sound"))?;
        if bytes != file_bytes(footer.pages) {
            return Err(corrupt(footer_at, "the footer does not fit the length of the table"));
        }
        let summary = Summary::read(&file, &path, &footer)?;
        let (id, place, entries, removals) = (listing.id, listing.place, footer.entries, footer.removals);
        Ok(Self { id, place, path, entries, removals, bytes, footer_crc: listing.footer_crc, file, summary })
    }

    pub(super) fn listing(&self) -> Listing {
        let Self { id, place, entries, bytes, footer_crc, .. } = *self;
        Listing { id, place, entries, bytes, footer_crc }
    }

    /// What the table knows of a key: nothing, its removal, or its location.
    pub(super) fn find(&self, prefix: Prefix) -> Result<Option<Option<Location>>, IndexError> {
        let Some(page) = self.summary.candidate(prefix) else { return Ok(None) };
        let mut bytes = [0; PAGE_BYTES];
        read_at(&self.file, &self.path, &mut bytes, page_offset(page))?;
        Ok(self.page(&bytes, page)?.find(prefix))
    }

    fn page<'b>(&self, bytes: &'b PageBytes, page: usize) -> Result<Page<'b>, IndexError> {
        let number = u32::try_from(page).expect("a table's pages are counted so");
        let before = page as u64 * PAGE_ENTRIES as u64;
        let entries = usize::try_from(self.entries - before).unwrap_or(usize::MAX);
        Page::decode(bytes, self.id, number, entries)
            .map_err(|what| IndexError::corrupt(&self.path, page_offset(page), what))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.summary.firsts.capacity() * PREFIX_BYTES + self.summary.filters.memory_bytes()
    }
}

impl Summary {
    /// The page that has a key, if the table has it.
    fn candidate(&self, prefix: Prefix) -> Option<usize> {
        if prefix > self.last {
            return None;
        }
        let page = self.firsts.partition_point(|first| *first <= prefix).checked_sub(1)?;
        self.filters.may_contain(page, prefix).then_some(page)
    }

    /// Reads what the footer, whose pages fit the length of the file, promises.
    fn read(file: &File, path: &Path, footer: &Footer) -> Result<Self, IndexError> {
        let pages = footer.pages as usize;
        let at = page_offset(pages);
        let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let (mut firsts, mut filters) = (Vec::with_capacity(pages), Filters::default());
        let split = at + (pages * PREFIX_BYTES) as u64;
        read_range(file, path, at..split, &mut crc, |mut bytes| {
            while let Some(first) = take(&mut bytes) {
                firsts.push(Prefix::from_be_bytes(first));
            }
        })?;
        let end = split + (pages * FILTER_BYTES) as u64;
        read_range(file, path, split..end, &mut crc, |bytes| filters.decode(bytes))?;
        let sound = crc.finalize() == u64::from(footer.summary_crc)
            && firsts.is_sorted_by(|one, next| one < next)
            && firsts.last().is_some_and(|first| *first <= footer.last);
        sound
            .then_some(Self { firsts, filters, last: footer.last })
            .ok_or_else(|| IndexError::corrupt(path, at, "the keys and filters of the pages are not sound"))
    }

    /// The bytes, in parts of moderate size.
    pub(super) fn encode(&self) -> impl Iterator<Item = Vec<u8>> {
        let firsts = self.firsts.chunks(SUMMARY_BYTES / PREFIX_BYTES);
        let firsts = firsts.map(|part| part.iter().flat_map(|first| first.to_be_bytes()).collect());
        firsts.chain(self.filters.encode())
    }
}

fn read_at(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<(), IndexError> {
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => IndexError::corrupt(path, offset, "the table ends early"),
        _ => IndexError::io("read", path)(error),
    })
}

fn read_range(
    file: &File,
    path: &Path,
    range: std::ops::Range<u64>,
    crc: &mut Digest,
    mut sink: impl FnMut(&[u8]),
) -> Result<(), IndexError> {
    let mut bytes = Vec::new();
    for offset in range.clone().step_by(SUMMARY_BYTES) {
        let length = usize::try_from(range.end - offset).map_or(SUMMARY_BYTES, |left| left.min(SUMMARY_BYTES));
        bytes.resize(length, 0);
        read_at(file, path, &mut bytes, offset)?;
        crc.update(&bytes);
        sink(&bytes);
    }
    Ok(())
}

/// Where a page lies in the file.
fn page_offset(page: usize) -> u64 {
    HEAD_BYTES as u64 + page as u64 * PAGE_BYTES as u64
}

/// Bytes of a table of so many pages.
fn file_bytes(pages: u32) -> u64 {
    let page = (PAGE_BYTES + PREFIX_BYTES + FILTER_BYTES) as u64;
    (HEAD_BYTES + FOOTER_BYTES) as u64 + u64::from(pages) * page
}

pub(super) fn encode_head(table: u64) -> PageBytes {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&HEAD_MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    bytes[10..18].copy_from_slice(&table.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[..HEAD_BYTES - CRC_BYTES]);
    bytes[HEAD_BYTES - CRC_BYTES..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Refuses what is not the header of this table, byte for byte.
fn check_head(bytes: &PageBytes, table: u64, path: &Path) -> Result<(), IndexError> {
    let [high, low] = [bytes[8], bytes[9]];
    let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().expect("a header is longer");
    let version = u16::from_be_bytes([high, low]);
    if !bytes.starts_with(&HEAD_MAGIC) {
        Err(IndexError::corrupt(path, 0, "this is no table of an index"))
    } else if crc_fast::crc32_iscsi(body).to_be_bytes() != *crc {
        Err(IndexError::corrupt(path, 0, "the checksum of the header does not match"))
    } else if version != FORMAT_VERSION {
        Err(IndexError::Version { path: path.to_owned(), version })
    } else if *bytes != encode_head(table) {
        Err(IndexError::corrupt(path, 0, "the header is that of another table"))
    } else {
        Ok(())
    }
}

/// The end of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footer {
    pub(super) id: u64,
    pub(super) pages: u32,
    pub(super) entries: u64,
    pub(super) removals: u64,
    pub(super) last: Prefix,
    pub(super) pages_crc: u32,
    pub(super) summary_crc: u32,
}

impl Footer {
    /// The bytes, and their checksum, which is at their end.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.pages.to_be_bytes());
        bytes.extend_from_slice(&self.entries.to_be_bytes());
        bytes.extend_from_slice(&self.removals.to_be_bytes());
        bytes.extend_from_slice(&self.last.to_be_bytes());
        bytes.extend_from_slice(&self.pages_crc.to_be_bytes());
        bytes.extend_from_slice(&self.summary_crc.to_be_bytes());
        let crc = crc_fast::crc32_iscsi(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        (bytes, crc)
    }

    /// The footer, if it is the one that the manifest means.
    fn decode(bytes: &[u8; FOOTER_BYTES], listing: &Listing) -> Option<Self> {
        let (mut rest, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        let crc = u32::from_be_bytes(*crc);
        if crc != crc_fast::crc32_iscsi(rest) || crc != listing.footer_crc || take(&mut rest)? != FOOTER_MAGIC {
            return None;
        }
        let footer = Self {
            id: u64::from_be_bytes(take(&mut rest)?),
            pages: u32::from_be_bytes(take(&mut rest)?),
            entries: u64::from_be_bytes(take(&mut rest)?),
            removals: u64::from_be_bytes(take(&mut rest)?),
            last: Prefix::from_be_bytes(take(&mut rest)?),
            pages_crc: u32::from_be_bytes(take(&mut rest)?),
            summary_crc: u32::from_be_bytes(take(&mut rest)?),
        };
        let possible = footer.id == listing.id
            && footer.entries == listing.entries
            && footer.entries.div_ceil(PAGE_ENTRIES as u64) == u64::from(footer.pages)
            && footer.pages > 0
            && footer.removals <= footer.entries;
        possible.then_some(footer)
    }
}

/// The entries of a table, in order. Nothing follows an error.
pub(super) struct Walk {
    table: Arc<Table>,
    /// The next page to be read.
    page: usize,
    /// Some pages, as they were read.
    bytes: Vec<u8>,
    /// What is in them.
    entries: Vec<Entry>,
    /// The next entry.
    at: usize,
}

impl Walk {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, page: 0, bytes: Vec::new(), entries: Vec::new(), at: 0 }
    }

    fn read(&mut self) -> Result<(), IndexError> {
        let pages = (self.table.summary.firsts.len() - self.page).min(WALK_PAGES);
        self.bytes.resize(pages * PAGE_BYTES, 0);
        let (path, offset) = (&self.table.path, page_offset(self.page));
        read_at(&self.table.file, path, &mut self.bytes, offset)?;
        let last = self.entries.last().map(|entry| entry.prefix);
        self.entries.clear();
        self.at = 0;
        for (bytes, page) in self.bytes.as_chunks().0.iter().zip(self.page..) {
            self.entries.extend(self.table.page(bytes, page)?.entries());
        }
        let in_order = self.entries.is_sorted_by(|one, next| one.prefix < next.prefix)
            && self.entries.first().is_some_and(|first| last.is_none_or(|last| last < first.prefix));
        self.page += pages;
        in_order.then_some(()).ok_or_else(|| IndexError::corrupt(path, offset, "the keys are not in order"))
    }
}

impl Iterator for Walk {
    type Item = Result<Entry, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.entries.len()
            && self.page < self.table.summary.firsts.len()
            && let Err(error) = self.read()
        {
            self.page = self.table.summary.firsts.len();
            self.entries.clear();
            self.at = 0;
            return Some(Err(error));
        }
        let entry = self.entries.get(self.at).copied()?;
        self.at += 1;
        Some(Ok(entry))
    }
}
