//! Sealed segments that have left the directory: the interface to where they are, and what stays here of each.
//!
//! ```text
//!  <first height>.archived ::= header (128) | offset (4) block bytes (4) certificate bytes (4) block id (32) | …
//!  header ::= "STELEARC", version, first height, seed of the segment, blocks, bytes, root, CRC of the entries, CRC
//! ```
//!
//! What stays says where each record is, so that one is read by one range, and which block it must be, so that whoever
//! makes a lost segment again needs to trust nobody. Integers are little-endian, checksums CRC32C.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{BlockId, read_u32, read_u64};
use super::segment::{Extent, Place, Segment};
use crate::store::durable;

const MAGIC: [u8; 8] = *b"STELEARC";
const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 128;
const ENTRY_BYTES: usize = 12 + 32;
const EXTENSION: &str = "archived";

/// Where sealed segments are that have left the directory.
pub trait SegmentArchive: Send + Sync {
    /// `length` bytes from `from` on of the segment that is kept under `root`. Blocks the calling thread.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    fn read(&self, root: &[u8; 32], from: u64, length: usize) -> Result<Vec<u8>, ArchiveError>;
}

/// Why an archived segment is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It may be read later.
    #[error("the archive cannot be read now: {reason}")]
    Away {
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// It is not there any more, or damaged.
    #[error("the archive has lost it: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
}

/// A segment that has left the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivedSegment {
    /// Height of its first block.
    pub first_height: u64,
    /// Blocks in it.
    pub blocks: u64,
    /// What it is kept under.
    pub root: [u8; 32],
}

/// What stays of a segment: which it is, and where each of its blocks lies.
pub(super) type Kept = (Segment, Vec<(Extent, BlockId)>);

/// File name of what stays of the segment that begins at a height.
pub(super) fn file_name(first_height: u64) -> String {
    format!("{first_height:020}.{EXTENSION}")
}

/// Inverse of [`file_name`]; `None` for any other file.
pub(super) fn first_height_of(path: &Path) -> Option<u64> {
    let height = path.file_stem()?.to_str()?.parse().ok()?;
    (path.file_name()?.to_str()? == file_name(height)).then_some(height)
}

/// Writes what stays of a segment, durable when it returns.
pub(super) fn write(
    directory: &Path,
    segment: &Segment,
    root: &[u8; 32],
    bytes: u64,
    blocks: &[(Extent, BlockId)],
) -> io::Result<PathBuf> {
    let mut file = vec![0; HEADER_BYTES];
    for (extent, id) in blocks {
        for number in [extent.offset, extent.block_bytes, extent.certificate_bytes] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        file.extend_from_slice(id);
    }
    let entries_crc = crc32c::crc32c(&file[HEADER_BYTES..]);
    file[..8].copy_from_slice(&MAGIC);
    file[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    file[16..24].copy_from_slice(&segment.first_height.to_le_bytes());
    file[24..32].copy_from_slice(&segment.seed.to_le_bytes());
    file[32..40].copy_from_slice(&(blocks.len() as u64).to_le_bytes());
    file[40..48].copy_from_slice(&bytes.to_le_bytes());
    file[48..80].copy_from_slice(root);
    file[80..84].copy_from_slice(&entries_crc.to_le_bytes());
    let crc = crc32c::crc32c(&file[..HEADER_BYTES - 4]);
    file[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let name = file_name(segment.first_height);
    durable::replace_file(directory, &name, &file)?;
    Ok(directory.join(name))
}

/// Reads what stays of a segment; `None` where it does not check.
pub(super) fn read(path: &Path) -> io::Result<Option<Kept>> {
    Ok(decode(path, &fs::read(path)?))
}

fn decode(path: &Path, file: &[u8]) -> Option<Kept> {
    let (header, entries) = file.split_first_chunk::<HEADER_BYTES>()?;
    let first_height = read_u64(header, 16);
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    let valid = header[..8] == MAGIC
        && read_u32(header, 8) == FORMAT_VERSION
        && read_u32(header, HEADER_BYTES - 4) == crc32c::crc32c(&header[..HEADER_BYTES - 4])
        && first_height_of(path) == Some(first_height)
        && rest.is_empty()
        && read_u64(header, 32) == entries.len() as u64
        && !entries.is_empty()
        && read_u32(header, 80) == crc32c::crc32c(&file[HEADER_BYTES..]);
    if !valid {
        return None;
    }
    let place = Place::Archive(header[48..80].try_into().ok()?);
    let segment = Segment { path: path.to_owned(), first_height, seed: read_u64(header, 24), place };
    let blocks = entries.iter().map(|entry| {
        let [offset, block_bytes, certificate_bytes] = [0, 4, 8].map(|at| read_u32(entry, at));
        Some((Extent { offset, block_bytes, certificate_bytes }, entry[12..].try_into().ok()?))
    });
    Some((segment, blocks.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_of_a_segment_comes_back_and_no_other_bytes_pass() {
        let directory = tempfile::tempdir().unwrap();
        let segment = Segment { path: PathBuf::new(), first_height: 7, seed: 9, place: Place::File };
        let extent = |number: u32| Extent { offset: 64 * number, block_bytes: number, certificate_bytes: 1 };
        let blocks: Vec<_> = (1..4).map(|number| (extent(number), [3; 32])).collect();
        let path = write(directory.path(), &segment, &[5; 32], 1000, &blocks).unwrap();
        let read_back = read(&path).unwrap().unwrap();
        let archived = Segment { path: path.clone(), place: Place::Archive([5; 32]), ..segment };
        assert_eq!(read_back, (archived, blocks));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            assert!(decode(&path, &whole[..at]).is_none(), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode(&path, &changed).is_none(), "byte {at}");
        }
        assert!(decode(&path.with_file_name(file_name(8)), &whole).is_none());
    }
}
