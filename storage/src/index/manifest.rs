//! The manifest: which tables there are, and up to where they are complete.
//!
//! | bytes | content, integers big-endian |
//! |---|---|
//! | 8, 2 | `STELEIDX`, format version 1 |
//! | 8, 8 | position of the store, number of the next table |
//! | 2, 4 | shards, tables |
//! | each 31 | tables, newest first: number (8), shard, or `ffff` of level zero (2), level (1), entries (8), bytes (8), checksum of its footer (4) |
//! | 4 | CRC-32C of the above |
//!
//! The footer's checksum covers those of the pages: a table with the right name and another content is refused.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::IndexError;
use super::directory::manifest_path;
use super::entry::take;
use super::policy::SHARDS_MAX;
use super::table::{Listing, Place};
use super::tables::Tables;

const MAGIC: [u8; 8] = *b"STELEIDX";
const FORMAT_VERSION: u16 = 1;
const LISTING_BYTES: usize = 31;
const CRC_BYTES: usize = 4;
const FIXED_BYTES: usize = 8 + 2 + 8 + 8 + 2 + 4 + CRC_BYTES;

/// The merges keep far fewer: 256 shards with 8 levels of 32 tables.
const TABLES_MAX: usize = 1 << 16;
const MANIFEST_BYTES_MAX: usize = FIXED_BYTES + TABLES_MAX * LISTING_BYTES;

/// Where a manifest names no shard.
const LEVEL_ZERO: u16 = u16::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) position: u64,
    pub(super) next_table: u64,
    pub(super) shards: u16,
    pub(super) tables: Vec<Listing>,
}

impl Manifest {
    pub(super) fn of(tables: &Tables, position: u64, next_table: u64) -> Self {
        let listings = tables.iter().map(|table| table.listing()).collect();
        Self { position, next_table, shards: tables.shard_count(), tables: listings }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        assert!(self.tables.len() <= TABLES_MAX, "the merges keep fewer tables");
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.tables.len() * LISTING_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes.extend_from_slice(&self.next_table.to_be_bytes());
        bytes.extend_from_slice(&self.shards.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(self.tables.len()).expect("tables are few").to_be_bytes());
        for table in &self.tables {
            bytes.extend_from_slice(&table.id.to_be_bytes());
            bytes.extend_from_slice(&table.place.shard.unwrap_or(LEVEL_ZERO).to_be_bytes());
            bytes.push(table.place.level);
            bytes.extend_from_slice(&table.entries.to_be_bytes());
            bytes.extend_from_slice(&table.bytes.to_be_bytes());
            bytes.extend_from_slice(&table.footer_crc.to_be_bytes());
        }
        bytes.extend_from_slice(&crc_fast::crc32_iscsi(&bytes).to_be_bytes());
        bytes
    }

    /// The manifest of a directory; `None` if there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, IndexError> {
        let path = manifest_path(directory);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(IndexError::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        // One byte too many is as bad as all of them, and enough to see it.
        let most = MANIFEST_BYTES_MAX as u64 + 1;
        file.take(most).read_to_end(&mut bytes).map_err(IndexError::io("read", &path))?;
        Self::decode(&bytes, &path).map(Some)
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, IndexError> {
        let corrupt = |what| IndexError::corrupt(path, 0, what);
        let Some((body, crc)) = bytes.split_last_chunk::<CRC_BYTES>().filter(|_| bytes.len() <= MANIFEST_BYTES_MAX)
        else {
            return Err(corrupt("the manifest has an impossible length"));
        };
        if !body.starts_with(&MAGIC) {
            return Err(corrupt("this is no manifest of an index"));
        }
        if crc_fast::crc32_iscsi(body) != u32::from_be_bytes(*crc) {
            return Err(corrupt("the checksum of the manifest does not match"));
        }
        let mut rest = &body[MAGIC.len()..];
        match take(&mut rest).map(u16::from_be_bytes) {
            Some(FORMAT_VERSION) => {}
            Some(version) => return Err(IndexError::Version { path: path.to_owned(), version }),
            None => return Err(corrupt("the manifest ends early")),
        }
        Self::decode_fields(rest).filter(Self::is_possible).ok_or_else(|| corrupt("the manifest is malformed"))
    }

    fn decode_fields(mut bytes: &[u8]) -> Option<Self> {
        let position = u64::from_be_bytes(take(&mut bytes)?);
        let next_table = u64::from_be_bytes(take(&mut bytes)?);
        let shards = u16::from_be_bytes(take(&mut bytes)?);
        let count = u32::from_be_bytes(take(&mut bytes)?) as usize;
        if bytes.len() != count.checked_mul(LISTING_BYTES)? {
            return None;
        }
        let mut tables = Vec::with_capacity(count);
        while !bytes.is_empty() {
            let id = u64::from_be_bytes(take(&mut bytes)?);
            let shard = Some(u16::from_be_bytes(take(&mut bytes)?)).filter(|shard| *shard != LEVEL_ZERO);
            let [level] = take(&mut bytes)?;
            let entries = u64::from_be_bytes(take(&mut bytes)?);
            let size = u64::from_be_bytes(take(&mut bytes)?);
            let footer_crc = u32::from_be_bytes(take(&mut bytes)?);
            tables.push(Listing { id, place: Place { shard, level }, entries, bytes: size, footer_crc });
        }
        Some(Self { position, next_table, shards, tables })
    }

    fn is_possible(&self) -> bool {
        self.shards.is_power_of_two()
            && self.shards <= SHARDS_MAX
            && self
                .tables
                .iter()
                .all(|table| table.id < self.next_table && table.place.shard.is_none_or(|shard| shard < self.shards))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let table = |id, shard| Listing {
            id,
            place: Place { shard, level: u8::from(shard.is_some()) },
            entries: 1000 + id,
            bytes: 40_000,
            footer_crc: 0xabcd_0123,
        };
        Manifest { position: 99, next_table: 8, shards: 16, tables: vec![table(7, None), table(3, Some(15))] }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let bytes = manifest().encode();
        assert_eq!(bytes.len(), FIXED_BYTES + 2 * LISTING_BYTES);
        assert_eq!(crc_fast::crc32_iscsi(&bytes[..bytes.len() - CRC_BYTES]), 0xbeeb_d3af);
        assert_eq!(Manifest::decode(&bytes, Path::new("manifest")).unwrap(), manifest());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let bytes = manifest().encode();
        let path = Path::new("manifest");
        for length in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..length], path).unwrap_err().code(), "index_corrupt");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged, path).unwrap_err().is_damage());
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = manifest().encode();
        bytes[9] = 2;
        let body = bytes.len() - CRC_BYTES;
        let crc = crc_fast::crc32_iscsi(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_be_bytes());
        let error = Manifest::decode(&bytes, Path::new("manifest")).unwrap_err();
        assert!(matches!(error, IndexError::Version { version: 2, .. }), "{error}");
    }
}
