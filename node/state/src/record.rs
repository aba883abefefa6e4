//! The record of one commit in the write-set log, and the bytes of pairs that snapshots share with it.
//!
//! | bytes | record header, integers big-endian |
//! |---|---|
//! | 4 | `SWSR` |
//! | 8 | height |
//! | 32, 32 | root before, root after |
//! | 4, 4, 4 | number of writes, length of the body, CRC-32C of the body |
//! | 4 | CRC-32C of the log file's salt and all of the above |
//!
//! The body lists the writes in key order: key (32), length of the value (2, or 0xFFFF for a deletion), value. The salt
//! is random and differs between files, so that no value can imitate a record.

use crate::{Hash, Key, StateError, StateHash, VALUE_BYTES_MAX, Write};

/// The largest body of a record: a bound for what recovery allocates. A block of 100,000 statements stays below a
/// tenth of it.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// Length of a record's header.
pub(crate) const HEADER_BYTES: usize = 92;

pub(crate) const MAGIC: [u8; 4] = *b"SWSR";

/// Random bytes of a log file, mixed into the checksum of each of its record headers.
pub(crate) type Salt = [u8; 16];

/// Stands for a deletion where a value's length is expected.
const DELETED: u16 = u16::MAX;

const _: () = assert!(VALUE_BYTES_MAX < DELETED as usize);

/// Header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) height: u64,
    pub(crate) root_before: Hash,
    pub(crate) root_after: Hash,
    pub(crate) writes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) body_crc: u32,
}

impl Header {
    pub(crate) fn encode(&self, salt: &Salt) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..12].copy_from_slice(&self.height.to_be_bytes());
        bytes[12..44].copy_from_slice(&self.root_before);
        bytes[44..76].copy_from_slice(&self.root_after);
        bytes[76..80].copy_from_slice(&self.writes.to_be_bytes());
        bytes[80..84].copy_from_slice(&self.body_bytes.to_be_bytes());
        bytes[84..88].copy_from_slice(&self.body_crc.to_be_bytes());
        let crc = header_crc(salt, &bytes[..88]);
        bytes[88..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The header, or `None` when the bytes are not a whole one of this file.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], salt: &Salt) -> Option<Self> {
        let (covered, crc) = bytes.split_at(88);
        if covered[..4] != MAGIC || crc != header_crc(salt, covered).to_be_bytes() {
            return None;
        }
        let mut reader = Reader::new(&covered[4..]);
        let header = Self {
            height: u64::from_be_bytes(reader.array()?),
            root_before: reader.array()?,
            root_after: reader.array()?,
            writes: u32::from_be_bytes(reader.array()?),
            body_bytes: u32::from_be_bytes(reader.array()?),
            body_crc: u32::from_be_bytes(reader.array()?),
        };
        (header.body_bytes as usize <= BATCH_BYTES_MAX).then_some(header)
    }
}

fn header_crc(salt: &Salt, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(salt), covered)
}

/// The body of a record for a batch, behind room for its header.
///
/// # Errors
/// [`StateError::Unsorted`], [`StateError::ValueTooLong`], [`StateError::BatchTooLarge`].
pub(crate) fn encode_batch(writes: &[Write]) -> Result<Vec<u8>, StateError> {
    let mut length = 0;
    for (index, (key, value)) in writes.iter().enumerate() {
        if index > 0 && writes[index - 1].0 >= *key {
            return Err(StateError::Unsorted { index });
        }
        let value = value.as_ref().map_or(0, Vec::len);
        if value > VALUE_BYTES_MAX {
            return Err(StateError::ValueTooLong { length: value });
        }
        length += size_of::<Key>() + 2 + value;
    }
    if length > BATCH_BYTES_MAX {
        return Err(StateError::BatchTooLarge { bytes: length });
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + length);
    bytes.resize(HEADER_BYTES, 0);
    for (key, value) in writes {
        push_pair(&mut bytes, key, value.as_deref());
    }
    Ok(bytes)
}

/// The pairs of a chunk of a snapshot: `None` unless the bytes are exactly that many pairs, none of them a deletion, with
/// strictly ascending keys and short values.
pub(crate) fn read_pairs(bytes: &[u8], count: u32) -> Option<Vec<(Key, &[u8])>> {
    let count = count as usize;
    let mut pairs: Vec<(Key, &[u8])> = Vec::with_capacity(count.min(bytes.len() / 34));
    let mut reader = Reader::new(bytes);
    for _ in 0..count {
        let key: Key = reader.array()?;
        let length = usize::from(u16::from_be_bytes(reader.array()?));
        if length > VALUE_BYTES_MAX || pairs.last().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        pairs.push((key, reader.take(length)?));
    }
    reader.is_empty().then_some(pairs)
}

/// Where the value of each write begins in the body of their record, or of a chunk of a snapshot.
pub(crate) fn value_offsets(writes: &[Write]) -> Vec<u32> {
    let mut offset = 0;
    let begin = |(_, value): &Write| {
        let begin = offset + size_of::<Key>() + 2;
        offset = begin + value.as_ref().map_or(0, Vec::len);
        u32::try_from(begin).expect("a batch is bounded by 1 GiB")
    };
    writes.iter().map(begin).collect()
}

/// Appends one write, or one pair of a snapshot.
pub(crate) fn push_pair(bytes: &mut Vec<u8>, key: &Key, value: Option<&[u8]>) {
    push_head(bytes, key, value.map_or(DELETED.into(), <[u8]>::len));
    bytes.extend_from_slice(value.unwrap_or_default());
}

/// Appends a pair up to its value of this length.
pub(crate) fn push_head(bytes: &mut Vec<u8>, key: &Key, length: usize) {
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&u16::try_from(length).expect("values were checked to be short").to_be_bytes());
}

/// The inverse of [`encode_batch`] without the header: `None` unless the bytes are exactly that many writes with
/// strictly ascending keys and short values.
pub(crate) fn decode_batch(bytes: &[u8], count: u32) -> Option<Vec<Write>> {
    let count = count as usize;
    // A write has at least a key and a length, which bounds what is allocated.
    let mut writes: Vec<Write> = Vec::with_capacity(count.min(bytes.len() / 34));
    let mut reader = Reader::new(bytes);
    for _ in 0..count {
        let key: Key = reader.array()?;
        if writes.last().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        let value = match u16::from_be_bytes(reader.array()?) {
            DELETED => None,
            length if usize::from(length) > VALUE_BYTES_MAX => return None,
            length => Some(reader.take(usize::from(length))?.to_vec()),
        };
        writes.push((key, value));
    }
    reader.is_empty().then_some(writes)
}

/// What a file's header begins with: magic, format version, hash function; and ends with: a CRC-32C of all before it. The
/// hash function, and a reader of what lies between, if these are right.
pub(crate) fn open_header(bytes: &[u8], magic: [u8; 8], version: u16) -> Option<(StateHash, Reader<'_>)> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    if *crc != crc32c::crc32c(covered).to_be_bytes() {
        return None;
    }
    let mut reader = Reader::new(covered);
    if reader.array()? != magic || u16::from_be_bytes(reader.array()?) != version {
        return None;
    }
    let [hash] = reader.array()?;
    Some((StateHash::from_id(hash).ok()?, reader))
}

/// Reads a byte slice from its start.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_round_trip_and_every_other_length_is_refused(
            writes in proptest::collection::btree_map(
                any::<Key>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        ) {
            let writes: Vec<Write> = writes.into_iter().collect();
            let bytes = encode_batch(&writes).expect("a sorted batch of short values");
            let count = u32::try_from(writes.len()).expect("few");
            let body = &bytes[HEADER_BYTES..];
            prop_assert_eq!(decode_batch(body, count), Some(writes));
            prop_assert_eq!(decode_batch(body, count + 1), None);
            for cut in 0..body.len() {
                prop_assert_eq!(decode_batch(&body[..cut], count), None);
            }
        }

        #[test]
        fn headers_round_trip_and_notice_every_flipped_bit(height: u64, salt: Salt, bit in 0..HEADER_BYTES * 8) {
            let header = Header {
                height, root_before: [1; 32], root_after: [2; 32], writes: 3, body_bytes: 4, body_crc: 5,
            };
            let mut bytes = header.encode(&salt);
            prop_assert_eq!(Header::decode(&bytes, &salt), Some(header));
            let mut other = salt;
            other[0] ^= 1;
            prop_assert_eq!(Header::decode(&bytes, &other), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&bytes, &salt), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count: u32) {
            let pairs = read_pairs(&bytes, count);
            let writes = decode_batch(&bytes, count).filter(|writes| writes.iter().all(|(_, value)| value.is_some()));
            let writes: Option<Vec<(Key, Vec<u8>)>> =
                writes.map(|writes| writes.into_iter().filter_map(|(key, value)| Some((key, value?))).collect());
            let pairs: Option<Vec<(Key, Vec<u8>)>> =
                pairs.map(|pairs| pairs.into_iter().map(|(key, value)| (key, value.to_vec())).collect());
            prop_assert_eq!(pairs, writes);
            if let Some(writes) = decode_batch(&bytes, count) {
                prop_assert_eq!(&encode_batch(&writes).expect("decoded batches are valid")[HEADER_BYTES..], &bytes[..]);
            }
        }
    }
}
