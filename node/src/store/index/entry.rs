//! One entry: 16 bytes of a statement id and a packed location.

/// Statement id: SHA-256 of the signed structure.
pub type StatementId = [u8; 32];

/// Bytes of an entry in a run.
pub(super) const ENTRY_BYTES: usize = 24;

/// The first 16 bytes of a statement id as two numbers, ordered as the bytes are. Two numbers rather
/// than one of 128 bits: its alignment would blow a hash table entry up from 24 to 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) high: u64,
    pub(super) low: u64,
}

impl Key {
    pub(super) fn of(id: &StatementId) -> Self {
        Self::read(id)
    }

    fn read(bytes: &[u8]) -> Self {
        Self {
            high: u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes")),
            low: u64::from_be_bytes(bytes[8..16].try_into().expect("8 bytes")),
        }
    }
}

/// A key and where its statement lies, packed by [`Location::pack`](crate::store::Location::pack).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) location: u64,
}

impl Entry {
    pub(super) fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.key.high.to_be_bytes());
        bytes.extend_from_slice(&self.key.low.to_be_bytes());
        bytes.extend_from_slice(&self.location.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self { key: Key::read(&bytes[..16]), location: u64::from_le_bytes(bytes[16..].try_into().expect("8 bytes")) }
    }
}
