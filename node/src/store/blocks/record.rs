//! One record: a block, its commit certificate, and what proves them whole.

use super::error::BlockStoreError;

/// Identifier of a block: its header's SHA-256.
pub type BlockId = [u8; 32];

/// Largest block. Consensus parameters keep blocks to a few MiB; this only bounds the buffer that a
/// damaged length field could ask for.
pub const BLOCK_BYTES_MAX: usize = 64 << 20;

/// Largest commit certificate: 1 MiB holds 5,000 votes of 200 bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 1 << 20;

pub(super) const RECORD_HEADER_BYTES: usize = 64;

/// Records start at multiples of this, so a search for records steps by it.
pub(super) const RECORD_ALIGNMENT: usize = 8;

const MAGIC: [u8; 8] = *b"STELEBLK";

/// The fixed part of a record. All integers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) height: u64,
    pub(super) id: BlockId,
    pub(super) block_bytes: u32,
    pub(super) certificate_bytes: u32,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    /// Of a block with its certificate.
    ///
    /// # Errors
    /// `block_too_large`.
    pub(super) fn new(height: u64, id: &BlockId, block: &[u8], certificate: &[u8]) -> Result<Self, BlockStoreError> {
        Ok(Self {
            height,
            id: *id,
            block_bytes: bounded("block", block, BLOCK_BYTES_MAX)?,
            certificate_bytes: bounded("certificate", certificate, CERTIFICATE_BYTES_MAX)?,
            payload_crc: crc32c::crc32c_append(crc32c::crc32c(block), certificate),
        })
    }

    /// The whole record, padding included, in the place of what `buffer` holds; `seed` is the segment's.
    pub(super) fn record_into(&self, buffer: &mut Vec<u8>, seed: u64, block: &[u8], certificate: &[u8]) {
        buffer.clear();
        buffer.extend_from_slice(&self.encode(seed));
        buffer.extend_from_slice(block);
        buffer.extend_from_slice(certificate);
        buffer.resize(buffer.len().next_multiple_of(RECORD_ALIGNMENT), 0);
    }

    /// Encodes the header; `seed` is the segment's.
    pub(super) fn encode(&self, seed: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.height.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.id);
        bytes[48..52].copy_from_slice(&self.block_bytes.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.certificate_bytes.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = header_crc(seed, &bytes);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a header, or `None` where magic, checksum or a length is wrong.
    pub(super) fn decode(seed: u64, bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        if bytes[..8] != MAGIC || read_u32(bytes, 60) != header_crc(seed, bytes) {
            return None;
        }
        let header = Self {
            height: read_u64(bytes, 8),
            id: bytes[16..48].try_into().expect("32 bytes"),
            block_bytes: read_u32(bytes, 48),
            certificate_bytes: read_u32(bytes, 52),
            payload_crc: read_u32(bytes, 56),
        };
        let in_bounds = usize::try_from(header.block_bytes).is_ok_and(|bytes| bytes <= BLOCK_BYTES_MAX)
            && usize::try_from(header.certificate_bytes).is_ok_and(|bytes| bytes <= CERTIFICATE_BYTES_MAX);
        in_bounds.then_some(header)
    }

    /// Bytes of block and certificate together.
    pub(super) fn payload_bytes(&self) -> u64 {
        u64::from(self.block_bytes) + u64::from(self.certificate_bytes)
    }
}

/// Bytes that a record takes in a segment, padding included.
pub(super) fn record_bytes(payload_bytes: u64) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload_bytes).next_multiple_of(RECORD_ALIGNMENT as u64)
}

/// True where a slice starts like a record header; decides nothing, only saves checksums in a search.
pub(super) fn looks_like_record(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

fn header_crc(seed: u64, bytes: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &bytes[..60])
}

fn bounded(part: &'static str, bytes: &[u8], limit: usize) -> Result<u32, BlockStoreError> {
    u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= limit).ok_or(BlockStoreError::TooLarge {
        part,
        bytes: bytes.len(),
        limit,
    })
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// One block as it was appended, checked against its checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredBlock {
    height: u64,
    id: BlockId,
    payload: Vec<u8>,
    block_bytes: usize,
}

impl StoredBlock {
    /// Reads a record of a segment with this seed, without its padding; `None` where it is not the whole one of `height`.
    pub(super) fn decode(seed: u64, height: u64, mut record: Vec<u8>) -> Option<Self> {
        let header = record.first_chunk().and_then(|header| RecordHeader::decode(seed, header))?;
        record.drain(..RECORD_HEADER_BYTES);
        let whole = header.height == height
            && header.payload_bytes() == record.len() as u64
            && crc32c::crc32c(&record) == header.payload_crc;
        let block_bytes = usize::try_from(header.block_bytes).expect("bounded by BLOCK_BYTES_MAX");
        whole.then_some(Self { height, id: header.id, payload: record, block_bytes })
    }

    /// Height of the block.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Identifier that was given at append; the store does not derive it.
    #[must_use]
    pub fn id(&self) -> &BlockId {
        &self.id
    }

    /// Block bytes, verbatim.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.payload[..self.block_bytes]
    }

    /// Commit certificate bytes, verbatim.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.payload[self.block_bytes..]
    }
}

/// Block bytes stay out of log lines.
impl std::fmt::Debug for StoredBlock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StoredBlock")
            .field("height", &self.height)
            .field("block_bytes", &self.block_bytes)
            .field("certificate_bytes", &self.certificate().len())
            .finish_non_exhaustive()
    }
}
