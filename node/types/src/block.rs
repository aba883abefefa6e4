//! A block: header, the parent's certificate, and the entries of statements, signatures included.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::cbor::{self, CborError, Decoder, Encoder, Field, put};
use crate::header::Header;
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_STATEMENTS_MAX, STATEMENT_BYTES_MAX};
use crate::vote::CommitCertificate;

/// A block. Its id is its header's; the header commits to the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// A commit certificate of the parent, as the proposer has it; none at height 1.
    pub parent_certificate: Option<CommitCertificate>,
    /// The exact bytes of each statement, in order.
    pub entries: Vec<Arc<[u8]>>,
}

impl Block {
    /// The deterministic encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let statements: usize = self.entries.iter().map(|entry| entry.len() + 3).sum();
        let mut bytes = Vec::with_capacity(statements + 4096);
        self.encode(&mut Encoder::new(&mut bytes));
        bytes
    }
    /// Decodes a block; the statements are not parsed.
    ///
    /// # Errors
    /// Any [`CborError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(CborError::TooLarge);
        }
        cbor::from_slice(bytes)
    }
    /// Reads only the header of a block that was checked before it was stored.
    ///
    /// # Errors
    /// Any [`CborError`].
    pub fn header_from_bytes(bytes: &[u8]) -> Result<Header, CborError> {
        let mut d = Decoder::new(bytes);
        if cbor::array_len(&mut d, 3)? != 3 {
            return Err(CborError::Malformed);
        }
        Header::decode(&mut d)
    }
}

impl Field for Block {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.array(3));
        self.header.encode(e);
        self.parent_certificate.encode(e);
        put(e.array(self.entries.len() as u64));
        for entry in &self.entries {
            put(e.bytes(entry));
        }
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        if cbor::array_len(d, 3)? != 3 {
            return Err(CborError::Malformed);
        }
        let header = Header::decode(d)?;
        let parent_certificate = Option::decode(d)?;
        let count = cbor::array_len(d, BLOCK_STATEMENTS_MAX)?;
        let mut entries = Vec::with_capacity(count.min(d.input().len()));
        for _ in 0..count {
            let entry = d.bytes()?;
            if entry.len() > STATEMENT_BYTES_MAX {
                return Err(CborError::TooLarge);
            }
            entries.push(entry.into());
        }
        Ok(Self { header, parent_certificate, entries })
    }
}
