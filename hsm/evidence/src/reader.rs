//! A cursor over the bytes of one structure.

use crate::error::EvidenceError;

/// Reads integers and slices; every failure names the structure. TPM structures are big-endian, logs little-endian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    structure: &'static str,
    rest: &'a [u8],
}

macro_rules! integers {
    ($($name:ident $type:ident $from:ident;)*) => {
        $(pub(crate) fn $name(&mut self) -> Result<$type, EvidenceError> {
            Ok($type::$from(self.array()?))
        })*
    };
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self { structure, rest: bytes }
    }

    integers! {
        u8 u8 from_be_bytes;
        u16 u16 from_be_bytes;
        u32 u32 from_be_bytes;
        u64 u64 from_be_bytes;
        u16_le u16 from_le_bytes;
        u32_le u32 from_le_bytes;
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], EvidenceError> {
        let truncated = EvidenceError::Truncated { structure: self.structure };
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], EvidenceError> {
        let truncated = EvidenceError::Truncated { structure: self.structure };
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A `TPM2B`: 16 bits of length and as many bytes, at most `limit`.
    pub(crate) fn sized(&mut self, limit: usize) -> Result<&'a [u8], EvidenceError> {
        let length = usize::from(self.u16()?);
        if length > limit {
            return Err(EvidenceError::TooLarge { structure: self.structure, limit });
        }
        self.take(length)
    }

    /// 32 bits of length, little-endian, and as many bytes, at most `limit`.
    pub(crate) fn sized_u32_le(&mut self, limit: usize) -> Result<&'a [u8], EvidenceError> {
        let length = usize::try_from(self.u32_le()?).unwrap_or(usize::MAX);
        if length > limit {
            return Err(EvidenceError::TooLarge { structure: self.structure, limit });
        }
        self.take(length)
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn finish(self) -> Result<(), EvidenceError> {
        if self.rest.is_empty() { Ok(()) } else { Err(EvidenceError::TrailingBytes { structure: self.structure }) }
    }

    pub(crate) const fn malformed(&self, reason: &'static str) -> EvidenceError {
        EvidenceError::Malformed { structure: self.structure, reason }
    }

    pub(crate) const fn unsupported(&self, id: u16) -> EvidenceError {
        EvidenceError::UnsupportedAlgorithm { structure: self.structure, id }
    }
}
