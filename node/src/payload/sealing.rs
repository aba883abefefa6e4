//! The sealed form of a body: authenticated encryption in chunks, so that it is made while it arrives and a range opens
//! alone.
//!
//! ```text
//!  sealed ::= header (96) chunk*         each chunk but the last ends at a multiple of 65,536
//!  chunk  ::= AES-256-GCM(key, nonce = number (8) ‖ 0 0 0 ‖ last (1), aad = header, body bytes) tag (16)
//! ```
//!
//! The key is derived from a class key and the header's salt and is used for this body alone, so the nonce can count. The
//! last chunk says that it is the last: what was cut off does not open (the STREAM construction of Hoang, Reyhanitabar,
//! Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015). Chunks end where the
//! pieces of the content tree do, so that a range costs one piece.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};
use stele_hsm::custody::BlobKey;
use stele_types::record::RecordClass;
use stele_types::{ObjectId, PartyId};
use zeroize::Zeroize as _;

use super::PayloadError;

/// Bytes of a chunk with its tag; of the first one, with the header.
pub const CHUNK_BYTES: usize = 65_536;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 96;

const TAG_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"STELBLOB";
const VERSION: u8 = 1;
/// The one cipher so far: AES-256-GCM.
const CIPHER: u8 = 1;

/// What the key of the cipher is derived for.
const CIPHER_PURPOSE: &[u8] = b"aes-256-gcm";

/// What is known of a sealed body without its key. All of it is authenticated with every chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobHeader {
    /// Class of records that it belongs to.
    pub class: RecordClass,
    /// The class key.
    pub class_key: [u8; 16],
    /// What the key of this body is derived with.
    pub salt: [u8; 32],
    /// Who put it.
    pub party: PartyId,
    /// The record that it is the body of.
    pub record: ObjectId,
}

impl BlobHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &[VERSION, CIPHER],
            &[0, self.class.number()],
            &self.class_key,
            &self.salt,
            &self.party.0,
            &self.record.0,
            // Room for what later versions say.
            &[0; 4],
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        bytes
    }

    /// The header at the beginning of a sealed body.
    ///
    /// # Errors
    /// `NotSealed` if there is none that this version reads.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let decoded = || {
            let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
            let rest = header.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION, CIPHER, 0])?;
            let (class, rest) = rest.split_first()?;
            let (class_key, rest) = rest.split_first_chunk()?;
            let (salt, rest) = rest.split_first_chunk()?;
            let (party, rest) = rest.split_first_chunk()?;
            let (record, rest) = rest.split_first_chunk()?;
            (rest == [0; 4]).then_some(())?;
            Some(Self {
                class: RecordClass::from_number(*class)?,
                class_key: *class_key,
                salt: *salt,
                party: PartyId(*party),
                record: ObjectId(*record),
            })
        };
        decoded().ok_or(PayloadError::NotSealed)
    }
}

/// Where a body of so many sealed bytes has its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    sealed_bytes: u64,
}

impl Chunks {
    /// # Errors
    /// `NotSealed` for a length that no body has.
    pub(super) fn of(sealed_bytes: u64) -> Result<Self, PayloadError> {
        let last = sealed_bytes % CHUNK_BYTES as u64;
        let least = if sealed_bytes <= CHUNK_BYTES as u64 { HEADER_BYTES + TAG_BYTES } else { TAG_BYTES };
        // An empty last chunk is never made but for an empty body.
        let empty = sealed_bytes > CHUNK_BYTES as u64 && last == TAG_BYTES as u64;
        let fits = (last == 0 && sealed_bytes > 0) || (last >= least as u64 && !empty);
        if fits { Ok(Self { sealed_bytes }) } else { Err(PayloadError::NotSealed) }
    }

    /// How many.
    pub(super) const fn count(self) -> u64 {
        self.sealed_bytes.div_ceil(CHUNK_BYTES as u64)
    }

    /// Bytes of the body.
    pub(super) const fn body_bytes(self) -> u64 {
        self.sealed_bytes - HEADER_BYTES as u64 - self.count() * TAG_BYTES as u64
    }

    /// The chunk with this byte of the body, and the byte's place in it.
    pub(super) const fn find(self, byte: u64) -> (u64, usize) {
        let first = (CHUNK_BYTES - HEADER_BYTES - TAG_BYTES) as u64;
        let each = (CHUNK_BYTES - TAG_BYTES) as u64;
        let (number, place) = if byte < first { (0, byte) } else { ((byte - first) / each + 1, (byte - first) % each) };
        // Less than a chunk.
        #[expect(clippy::cast_possible_truncation, reason = "less than 65,536")]
        (number, place as usize)
    }

    /// Where a chunk's ciphertext begins and ends among the sealed bytes.
    pub(super) const fn place(self, number: u64) -> (u64, u64) {
        let from = if number == 0 { HEADER_BYTES as u64 } else { number * CHUNK_BYTES as u64 };
        let end = (number + 1) * CHUNK_BYTES as u64;
        (from, if end < self.sealed_bytes { end } else { self.sealed_bytes })
    }

    const fn is_last(self, number: u64) -> bool {
        number + 1 == self.count()
    }
}

/// Seals a body while it arrives.
pub(super) struct Sealer {
    key: LessSafeKey,
    header: [u8; HEADER_BYTES],
    number: u64,
    /// The chunk that is being filled; before the first one is the header.
    chunk: Vec<u8>,
}

impl Sealer {
    /// # Errors
    /// `Cipher` if the library refuses the key.
    pub(super) fn new(key: &BlobKey, header: [u8; HEADER_BYTES]) -> Result<Self, PayloadError> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        chunk.extend_from_slice(&header);
        Ok(Self { key: cipher(key)?, header, number: 0, chunk })
    }

    /// Takes in as many bytes as the chunk has room for, and says how many.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(CHUNK_BYTES - TAG_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Whether the chunk takes no more. It is closed when more is to come: the last one says that it is the last.
    pub(super) const fn is_full(&self) -> bool {
        self.chunk.len() == CHUNK_BYTES - TAG_BYTES
    }

    /// The sealed chunk, the header before the first one.
    ///
    /// # Errors
    /// `Cipher`, which the library has no reason for.
    pub(super) fn close(&mut self, last: bool) -> Result<Bytes, PayloadError> {
        let from = if self.number == 0 { HEADER_BYTES } else { 0 };
        let (nonce, aad) = (nonce(self.number, last), Aad::from(&self.header));
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, &mut self.chunk[from..]);
        let tag = tag.map_err(|_| PayloadError::Cipher)?;
        self.chunk.extend_from_slice(tag.as_ref());
        self.number += 1;
        // Sealed in place: no plaintext is left in what is passed on, and the next chunk begins in fresh memory.
        let sealed = std::mem::replace(&mut self.chunk, Vec::with_capacity(if last { 0 } else { CHUNK_BYTES }));
        Ok(Bytes::from(sealed))
    }
}

impl Drop for Sealer {
    /// An upload that was broken off leaves no plaintext in memory.
    fn drop(&mut self) {
        self.chunk.zeroize();
    }
}

/// Opens chunks of a body.
pub(super) struct Opener {
    key: LessSafeKey,
    header: [u8; HEADER_BYTES],
    chunks: Chunks,
}

impl Opener {
    /// # Errors
    /// `Cipher` if the library refuses the key.
    pub(super) fn new(key: &BlobKey, header: [u8; HEADER_BYTES], chunks: Chunks) -> Result<Self, PayloadError> {
        Ok(Self { key: cipher(key)?, header, chunks })
    }

    /// Where the chunks are.
    pub(super) const fn chunks(&self) -> Chunks {
        self.chunks
    }

    /// The body bytes of a chunk, of which all ciphertext is given.
    ///
    /// # Errors
    /// `DoesNotOpen` if key, header, number or ciphertext are others than those it was sealed with.
    pub(super) fn open(&self, number: u64, mut sealed: BytesMut) -> Result<Bytes, PayloadError> {
        let (nonce, aad) = (nonce(number, self.chunks.is_last(number)), Aad::from(&self.header));
        let opened = self.key.open_in_place(nonce, aad, &mut sealed);
        let length = opened.map_err(|_| PayloadError::DoesNotOpen)?.len();
        sealed.truncate(length);
        Ok(sealed.freeze())
    }
}

fn cipher(key: &BlobKey) -> Result<LessSafeKey, PayloadError> {
    let key = UnboundKey::new(&AES_256_GCM, &*key.derive(CIPHER_PURPOSE)).map_err(|_| PayloadError::Cipher)?;
    Ok(LessSafeKey::new(key))
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use stele_hsm::custody::{Custodian as _, SoftwareCustodian};

    use super::*;

    fn header() -> BlobHeader {
        BlobHeader {
            class: RecordClass::Medical,
            class_key: [7; 16],
            salt: [8; 32],
            party: PartyId([1; 16]),
            record: ObjectId([2; 16]),
        }
    }

    async fn key() -> BlobKey {
        let directory = tempfile::tempdir().unwrap();
        let custodian = SoftwareCustodian::generate(&directory.path().join("custody.key")).unwrap();
        let class_key = custodian.make_class_key(&[3; 32], 1).await.unwrap();
        custodian.blob_key(&class_key, &header().salt).await.unwrap()
    }

    fn sealed(key: &BlobKey, mut body: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(key, header().encode()).unwrap();
        let mut sealed = Vec::new();
        while !body.is_empty() {
            if sealer.is_full() {
                sealed.extend_from_slice(&sealer.close(false).unwrap());
            }
            body = &body[sealer.fill(body)..];
        }
        sealed.extend_from_slice(&sealer.close(true).unwrap());
        sealed
    }

    fn opened(key: &BlobKey, sealed: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let chunks = Chunks::of(sealed.len() as u64)?;
        let opener = Opener::new(key, BlobHeader::decode(sealed)?.encode(), chunks)?;
        let mut body = Vec::new();
        for number in 0..chunks.count() {
            let (from, end) = chunks.place(number);
            let range = usize::try_from(from).unwrap()..usize::try_from(end).unwrap();
            body.extend_from_slice(&opener.open(number, BytesMut::from(&sealed[range]))?);
        }
        assert_eq!(body.len() as u64, chunks.body_bytes());
        Ok(body)
    }

    #[tokio::test]
    async fn every_length_around_the_ends_of_chunks_comes_back() {
        let key = key().await;
        let (first, each) = (CHUNK_BYTES - HEADER_BYTES - TAG_BYTES, CHUNK_BYTES - TAG_BYTES);
        for length in [0, 1, first - 1, first, first + 1, first + each - 1, first + each, first + each + 1] {
            let body = vec![5; length];
            let sealed = sealed(&key, &body);
            assert_eq!(opened(&key, &sealed).unwrap(), body, "{length}");
            let chunks = Chunks::of(sealed.len() as u64).unwrap();
            for byte in [0, first as u64 - 1, first as u64, length as u64 - length.min(1) as u64] {
                let (number, within) = chunks.find(byte);
                let before = if number == 0 { 0 } else { first as u64 + (number - 1) * each as u64 };
                assert_eq!(before + within as u64, byte);
            }
        }
    }

    #[tokio::test]
    async fn what_was_changed_cut_off_added_or_swapped_does_not_open() {
        let key = key().await;
        let body: Vec<u8> = (0..200_000u32).map(|index| index.to_le_bytes()[0]).collect();
        let whole = sealed(&key, &body);
        let refused = |sealed: &[u8]| opened(&key, sealed).is_err();
        for at in [0, 8, 9, 11, 12, 40, 60, 90, 95, HEADER_BYTES, CHUNK_BYTES - 1, CHUNK_BYTES, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(refused(&changed), "byte {at}");
        }
        for length in [0, 1, HEADER_BYTES, CHUNK_BYTES, 2 * CHUNK_BYTES, whole.len() - 1] {
            assert!(refused(&whole[..length]), "{length} bytes of it");
        }
        assert!(refused(&[&whole[..], &[0; 16]].concat()));
        let mut swapped = whole.clone();
        swapped[CHUNK_BYTES..3 * CHUNK_BYTES].rotate_left(CHUNK_BYTES);
        assert!(refused(&swapped));
        assert!(opened(&self::key().await, &whole).is_err(), "another key");
    }

    #[test]
    fn lengths_that_no_body_has_are_refused() {
        let chunk = CHUNK_BYTES as u64;
        for bytes in [0, 1, 111, chunk + 15, chunk + 16, 2 * chunk + 16] {
            assert!(Chunks::of(bytes).is_err(), "{bytes}");
        }
        for bytes in [112, 113, chunk, chunk + 17, 2 * chunk, u64::MAX - 15] {
            assert!(Chunks::of(bytes).is_ok(), "{bytes}");
        }
    }
}
