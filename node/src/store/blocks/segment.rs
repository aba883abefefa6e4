//! One segment file: its header, the scan of its records, and the footer that seals it.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{
    RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, looks_like_record, read_u32, read_u64, record_bytes,
};
use crate::store::durable;

pub(super) const SEGMENT_HEADER_BYTES: u64 = 64;
pub(super) const FOOTER_ENTRY_BYTES: u64 = 12;
pub(super) const TRAILER_BYTES: u64 = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"STELESEG";
const TRAILER_MAGIC: [u8; 8] = *b"STELEFTR";
const FORMAT_VERSION: u32 = 1;
const EXTENSION: &str = "blocks";

/// Buffer of sequential reads while scanning.
const SCAN_BUFFER_BYTES: usize = 1 << 20;

/// Where one record lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u32,
    pub(super) block_bytes: u32,
    pub(super) certificate_bytes: u32,
}

impl Extent {
    /// First byte behind the record, padding included.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + record_bytes(u64::from(self.block_bytes) + u64::from(self.certificate_bytes))
    }

    /// Bytes of block and certificate.
    pub(super) fn payload_bytes(self) -> usize {
        // Each is below 2^32, and a usize has 64 bits on what this runs on.
        self.block_bytes as usize + self.certificate_bytes as usize
    }
}

/// Identity of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) first_height: u64,
    /// Drawn at creation, mixed into header checksums: block bytes from outside cannot forge a record.
    pub(super) seed: u64,
    pub(super) place: Place,
}

/// Where the records of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its file.
    File,
    /// In the archive, under this root; its file says no more than which they are.
    Archive([u8; 32]),
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) extents: Vec<Extent>,
    /// First byte behind the last whole record.
    pub(super) end: u64,
    /// Bytes other than zeros follow `end`.
    pub(super) torn: bool,
}

/// Why a scan gave up.
#[derive(Debug)]
pub(super) enum ScanError {
    Io(io::Error),
    /// The record at this offset is damaged although a valid one follows.
    Corrupt {
        height: u64,
        offset: u64,
    },
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// File name of the segment that begins at a height; names sort as heights do.
pub(super) fn file_name(first_height: u64) -> String {
    format!("{first_height:020}.{EXTENSION}")
}

/// Inverse of [`file_name`]; `None` for any other file.
pub(super) fn first_height_of(path: &Path) -> Option<u64> {
    let height = path.file_stem()?.to_str()?.parse().ok()?;
    (path.file_name()?.to_str()? == file_name(height)).then_some(height)
}

impl Segment {
    /// Creates an empty segment, durable with its directory entry.
    pub(super) fn create(directory: &Path, first_height: u64) -> io::Result<(Self, File)> {
        let created = Self::create_at(&directory.join(file_name(first_height)), first_height)?;
        durable::sync_directory(directory)?;
        Ok(created)
    }

    /// The same at any path, whose directory entry is not durable yet.
    pub(super) fn create_at(path: &Path, first_height: u64) -> io::Result<(Self, File)> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let seed = RandomState::new().build_hasher().finish();
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&first_height.to_le_bytes());
        bytes[24..32].copy_from_slice(&seed.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        Ok((Self { path: path.to_owned(), first_height, seed, place: Place::File }, file))
    }

    /// Reads a segment's header; `None` where it does not check.
    pub(super) fn open(path: &Path, file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; 64];
        if file.metadata()?.len() < SEGMENT_HEADER_BYTES {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0)?;
        let valid = bytes[..8] == SEGMENT_MAGIC
            && read_u32(&bytes, 8) == FORMAT_VERSION
            && read_u32(&bytes, 60) == crc32c::crc32c(&bytes[..60])
            && first_height_of(path) == Some(read_u64(&bytes, 16));
        Ok(valid.then(|| Self {
            path: path.to_owned(),
            first_height: read_u64(&bytes, 16),
            seed: read_u64(&bytes, 24),
            place: Place::File,
        }))
    }

    /// Reads the footer; `None` where the segment is not sealed or its footer does not check.
    pub(super) fn read_footer(&self, file: &File) -> io::Result<Option<Vec<Extent>>> {
        let length = file.metadata()?.len();
        let Some(trailer_at) = length.checked_sub(TRAILER_BYTES).filter(|&at| at >= SEGMENT_HEADER_BYTES) else {
            return Ok(None);
        };
        let mut trailer = [0; 64];
        file.read_exact_at(&mut trailer, trailer_at)?;
        let (count, records_end) = (read_u64(&trailer, 16), read_u64(&trailer, 24));
        let whole = trailer[..8] == TRAILER_MAGIC
            && read_u32(&trailer, 60) == self.trailer_crc(&trailer)
            && read_u64(&trailer, 8) == self.first_height
            && records_end.checked_add(count.saturating_mul(FOOTER_ENTRY_BYTES)) == Some(trailer_at);
        if !whole {
            return Ok(None);
        }
        // The product is below the file's length, which the two checks above tie it to.
        let mut bytes = vec![0; usize::try_from(trailer_at - records_end).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, records_end)?;
        if crc32c::crc32c(&bytes) != read_u32(&trailer, 32) {
            return Ok(None);
        }
        let extents: Vec<Extent> = bytes
            .chunks_exact(12)
            .map(|entry| Extent {
                offset: read_u32(entry, 0),
                block_bytes: read_u32(entry, 4),
                certificate_bytes: read_u32(entry, 8),
            })
            .collect();
        Ok((extents.last().map_or(SEGMENT_HEADER_BYTES, |last| last.end()) == records_end).then_some(extents))
    }

    /// Writes the footer behind the records, cuts the file there and makes all of it durable.
    pub(super) fn seal(&self, file: &File, extents: &[Extent], records_end: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(extents.len() * 12 + 64);
        for extent in extents {
            bytes.extend_from_slice(&extent.offset.to_le_bytes());
            bytes.extend_from_slice(&extent.block_bytes.to_le_bytes());
            bytes.extend_from_slice(&extent.certificate_bytes.to_le_bytes());
        }
        let mut trailer = [0; 64];
        trailer[..8].copy_from_slice(&TRAILER_MAGIC);
        trailer[8..16].copy_from_slice(&self.first_height.to_le_bytes());
        trailer[16..24].copy_from_slice(&(extents.len() as u64).to_le_bytes());
        trailer[24..32].copy_from_slice(&records_end.to_le_bytes());
        trailer[32..36].copy_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let crc = self.trailer_crc(&trailer);
        trailer[60..].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&trailer);
        file.write_all_at(&bytes, records_end)?;
        file.set_len(records_end + bytes.len() as u64)?;
        file.sync_all()
    }

    fn trailer_crc(&self, trailer: &[u8; 64]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.seed.to_le_bytes()), &trailer[..60])
    }

    /// Reads every record from the start and checks it.
    pub(super) fn scan(&self, file: &File) -> Result<Scan, ScanError> {
        let length = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(SCAN_BUFFER_BYTES, file);
        reader.seek(SeekFrom::Start(SEGMENT_HEADER_BYTES))?;
        let (mut extents, mut end, mut height) = (Vec::new(), SEGMENT_HEADER_BYTES, self.first_height);
        let mut payload = Vec::new();
        while let Some(extent) = self.scan_record(&mut reader, end, height, length, &mut payload)? {
            extents.push(extent);
            end = extent.end();
            height += 1;
        }
        let tail = self.scan_tail(file, end, height, length)?;
        if tail.holds_record {
            return Err(ScanError::Corrupt { height, offset: end });
        }
        Ok(Scan { extents, end, torn: !tail.zeros })
    }

    /// The record at `offset` if it is whole and of the expected height.
    fn scan_record(
        &self,
        reader: &mut BufReader<&File>,
        offset: u64,
        height: u64,
        length: u64,
        payload: &mut Vec<u8>,
    ) -> io::Result<Option<Extent>> {
        if length.saturating_sub(offset) < RECORD_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER_BYTES];
        reader.read_exact(&mut bytes)?;
        let Some(header) = RecordHeader::decode(self.seed, &bytes).filter(|header| header.height == height) else {
            return Ok(None);
        };
        let (Ok(offset), payload_bytes) = (u32::try_from(offset), header.payload_bytes()) else {
            return Ok(None);
        };
        let extent = Extent { offset, block_bytes: header.block_bytes, certificate_bytes: header.certificate_bytes };
        if extent.end() > length {
            return Ok(None);
        }
        let padded_bytes = record_bytes(payload_bytes) - RECORD_HEADER_BYTES as u64;
        payload.resize(usize::try_from(padded_bytes).map_err(io::Error::other)?, 0);
        reader.read_exact(payload)?;
        let checked = &payload[..usize::try_from(payload_bytes).map_err(io::Error::other)?];
        Ok((crc32c::crc32c(checked) == header.payload_crc).then_some(extent))
    }

    /// Looks behind the last whole record for zeros only, or for a later record that is valid.
    fn scan_tail(&self, file: &File, end: u64, height: u64, length: u64) -> io::Result<Tail> {
        let mut tail = Tail { zeros: true, holds_record: false };
        let mut chunk = vec![0; SCAN_BUFFER_BYTES];
        let mut at = end;
        while at < length {
            let take = usize::try_from(length - at).map_or(SCAN_BUFFER_BYTES, |left| left.min(SCAN_BUFFER_BYTES));
            let bytes = &mut chunk[..take];
            file.read_exact_at(bytes, at)?;
            tail.zeros &= bytes.iter().all(|&byte| byte == 0);
            for (step, candidate) in bytes.chunks_exact(RECORD_ALIGNMENT).enumerate() {
                let candidate_at = at + (step * RECORD_ALIGNMENT) as u64;
                if looks_like_record(candidate) && candidate_at + RECORD_HEADER_BYTES as u64 <= length {
                    let mut header = [0; RECORD_HEADER_BYTES];
                    file.read_exact_at(&mut header, candidate_at)?;
                    // The torn record itself still has its header: only a later height is proof.
                    tail.holds_record |=
                        RecordHeader::decode(self.seed, &header).is_some_and(|header| header.height > height);
                }
            }
            at += take as u64;
        }
        Ok(tail)
    }
}

struct Tail {
    zeros: bool,
    holds_record: bool,
}

/// True where a file whose segment header is damaged may hold records: then it is corrupt, not new.
pub(super) fn may_hold_records(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut chunk = vec![0; SCAN_BUFFER_BYTES];
    let mut at = SEGMENT_HEADER_BYTES;
    while at < length {
        let take = usize::try_from(length - at).map_or(SCAN_BUFFER_BYTES, |left| left.min(SCAN_BUFFER_BYTES));
        file.read_exact_at(&mut chunk[..take], at)?;
        if chunk[..take].chunks_exact(RECORD_ALIGNMENT).any(looks_like_record) {
            return Ok(true);
        }
        at += take as u64;
    }
    Ok(false)
}
