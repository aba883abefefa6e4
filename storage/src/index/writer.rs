//! Writing a table, entry by entry.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crc_fast::{CrcAlgorithm, Digest};

use super::IndexError;
use super::directory::table_path;
use super::entry::Entry;
use super::page::{PAGE_BYTES, PAGE_ENTRIES, encode};
use super::table::{Footer, Place, Summary, Table, encode_head};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 18;

/// A table in the making; when it is dropped unfinished, its file goes too.
struct TableWriter {
    id: u64,
    path: PathBuf,
    /// `None` once the table is finished.
    file: Option<File>,
    /// Pages that are not yet written.
    bytes: Vec<u8>,
    written: u64,
    /// Entries of the page that is not yet full.
    page: Vec<Entry>,
    entries: u64,
    removals: u64,
    pages_crc: Digest,
    summary: Summary,
}

impl TableWriter {
    fn create(directory: &Path, id: u64) -> Result<Self, IndexError> {
        let path = table_path(directory, id);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(IndexError::io("create", &path))?;
        let mut bytes = Vec::with_capacity(WRITE_BYTES + PAGE_BYTES);
        bytes.extend_from_slice(&encode_head(id));
        Ok(Self {
            id,
            path,
            file: Some(file),
            bytes,
            written: 0,
            page: Vec::with_capacity(PAGE_ENTRIES),
            entries: 0,
            removals: 0,
            pages_crc: Digest::new(CrcAlgorithm::Crc32Iscsi),
            summary: Summary::default(),
        })
    }

    /// Adds an entry, whose key is greater than those before it.
    fn push(&mut self, entry: Entry) -> Result<(), IndexError> {
        assert!(self.entries == 0 || self.summary.last < entry.prefix, "a table is written in the order of its keys");
        self.summary.last = entry.prefix;
        self.entries += 1;
        self.removals += u64::from(entry.location.is_none());
        self.page.push(entry);
        if self.page.len() == PAGE_ENTRIES { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<(), IndexError> {
        let number = u32::try_from(self.summary.firsts.len()).expect("a table of 16 TiB at most");
        let crc = encode(&mut self.bytes, self.id, number, &self.page);
        self.pages_crc.update(&crc.to_be_bytes());
        self.summary.firsts.push(self.page[0].prefix);
        self.summary.filters.push(self.page.iter().map(|entry| entry.prefix));
        self.page.clear();
        if self.bytes.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), IndexError> {
        let file = self.file.as_mut().expect("a table is written before it is finished");
        file.write_all(&self.bytes).map_err(IndexError::io("write", &self.path))?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    /// Writes what is left and flushes the file; its entry in the directory is left to the caller.
    fn finish(mut self, place: Place) -> Result<Table, IndexError> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        self.write()?;
        let mut summary = std::mem::take(&mut self.summary);
        let mut summary_crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        for part in summary.encode() {
            summary_crc.update(&part);
            self.bytes.extend_from_slice(&part);
            if self.bytes.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        let checksum = |crc: Digest| u32::try_from(crc.finalize()).expect("a CRC-32C has 32 bits");
        let footer = Footer {
            id: self.id,
            pages: u32::try_from(summary.firsts.len()).expect("a table of 16 TiB at most"),
            entries: self.entries,
            removals: self.removals,
            last: summary.last,
            pages_crc: checksum(self.pages_crc),
            summary_crc: checksum(summary_crc),
        };
        let (footer, footer_crc) = footer.encode();
        self.bytes.extend_from_slice(&footer);
        self.write()?;
        summary.firsts.shrink_to_fit();
        let file = self.file.as_ref().expect("a table is finished once");
        file.sync_all().map_err(IndexError::io("flush", &self.path))?;
        let file = self.file.take().expect("a table is finished once");
        let (id, entries, removals, bytes) = (self.id, self.entries, self.removals, self.written);
        let path = std::mem::take(&mut self.path);
        Ok(Table { id, place, path, entries, removals, bytes, footer_crc, file, summary })
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What stays is removed when the index is opened.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a table of what there is, flushed, its entry in the directory not; `None` of nothing.
pub(super) fn write_table(
    directory: &Path,
    next_table: &AtomicU64,
    place: Place,
    entries: impl Iterator<Item = Result<Entry, IndexError>>,
) -> Result<Option<Table>, IndexError> {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return Ok(None);
    }
    let mut writer = TableWriter::create(directory, next_table.fetch_add(1, Ordering::Relaxed))?;
    entries.try_for_each(|entry| writer.push(entry?))?;
    writer.finish(place).map(Some)
}
