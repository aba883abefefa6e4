//! The record of what is durable: base, size and root.

use std::fs;
use std::io;
use std::path::Path;

use stele_merkle::{HASH_BYTES, Hash};

use crate::store::durable;

/// File name of the record.
pub(super) const SYNCED_FILE: &str = "synced";

const MAGIC: [u8; 8] = *b"STELELOG";
const FORMAT_VERSION: u32 = 1;
const BYTES: usize = 64;

/// Up to `size`, all files are durable and give `root`; from `base` on, every hash is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) base: u64,
    pub(super) size: u64,
    pub(super) root: Hash,
}

impl Synced {
    /// Reads the record; outer `None` where there is none, inner `None` where it does not check.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Option<Self>>> {
        match fs::read(directory.join(SYNCED_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => Ok(Some(Self::decode(&bytes))),
        }
    }

    /// Replaces the record; durable when it returns.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        durable::replace_file(directory, SYNCED_FILE, &bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (head, crc) = bytes.split_at(BYTES - 4);
        let valid = head.starts_with(&MAGIC)
            && head[8..12] == FORMAT_VERSION.to_le_bytes()
            && crc == crc32c::crc32c(head).to_le_bytes();
        let synced =
            Self { base: number(12), size: number(20), root: bytes[28..28 + HASH_BYTES].try_into().expect("32 bytes") };
        (valid && synced.base <= synced.size).then_some(synced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_damaged_byte_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Synced::read(directory.path()).unwrap(), None);
        let synced = Synced { base: 3, size: 900, root: [7; 32] };
        synced.write(directory.path()).unwrap();
        assert_eq!(Synced::read(directory.path()).unwrap(), Some(Some(synced)));
        let bytes = fs::read(directory.path().join(SYNCED_FILE)).unwrap();
        assert_eq!(bytes.len(), BYTES);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(Synced::decode(&damaged), None);
            assert_eq!(Synced::decode(&bytes[..at]), None);
        }
    }
}
