//! Hash algorithms by their TCG identifiers, and digests that know theirs.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sm3::Sm3;

use crate::error::EvidenceError;

/// A hash algorithm of the TCG Algorithm Registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashAlgorithm {
    /// SHA-1, `TPM_ALG_SHA1`: read and replayed, never enough for a policy.
    Sha1,
    /// SHA-256, `TPM_ALG_SHA256`.
    Sha256,
    /// SHA-384, `TPM_ALG_SHA384`.
    Sha384,
    /// SHA-512, `TPM_ALG_SHA512`.
    Sha512,
    /// SM3, `TPM_ALG_SM3_256`.
    Sm3,
}

impl HashAlgorithm {
    /// The algorithm of a `TPM_ALG_ID`.
    #[must_use]
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            0x0012 => Some(Self::Sm3),
            _ => None,
        }
    }

    /// Its `TPM_ALG_ID`.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
            Self::Sm3 => 0x0012,
        }
    }

    /// Length of its digests in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Stable lower-case name, as the Linux kernel and tpm2-tools write it but for SM3 (`sm3`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sm3 => "sm3",
        }
    }

    /// The digest of the parts, one after the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha1 => digest_with::<Sha1>(self, parts),
            Self::Sha256 => digest_with::<Sha256>(self, parts),
            Self::Sha384 => digest_with::<Sha384>(self, parts),
            Self::Sha512 => digest_with::<Sha512>(self, parts),
            Self::Sm3 => digest_with::<Sm3>(self, parts),
        }
    }

    /// Whether two different inputs with one digest can be made today.
    #[must_use]
    pub const fn is_broken(self) -> bool {
        matches!(self, Self::Sha1)
    }
}

fn digest_with<H: sha2::Digest>(algorithm: HashAlgorithm, parts: &[&[u8]]) -> Digest {
    let mut hasher = H::new();
    for part in parts {
        hasher.update(part);
    }
    let mut bytes = [0; Digest::LENGTH_MAX];
    bytes[..algorithm.length()].copy_from_slice(&hasher.finalize());
    Digest { algorithm, bytes }
}

impl FromStr for HashAlgorithm {
    type Err = EvidenceError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Sm3];
        // The kernel's name of it.
        let name = if name == "sm3-256" { "sm3" } else { name };
        known.into_iter().find(|algorithm| algorithm.name() == name).ok_or(EvidenceError::UnknownHashName)
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A digest with its algorithm; in text `sha256:<hexadecimal>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: HashAlgorithm,
    /// Zero beyond the algorithm's length, so that equality may look at all of it.
    bytes: [u8; Self::LENGTH_MAX],
}

impl Digest {
    /// Length of the longest digest in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// A digest from its bytes.
    ///
    /// # Errors
    /// [`EvidenceError::DigestLength`] unless they are as many as the algorithm's digests have.
    pub fn new(algorithm: HashAlgorithm, digest: &[u8]) -> Result<Self, EvidenceError> {
        if digest.len() != algorithm.length() {
            return Err(EvidenceError::DigestLength { algorithm });
        }
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..digest.len()].copy_from_slice(digest);
        Ok(Self { algorithm, bytes })
    }

    /// All bytes the same: zeros are what a PCR begins with.
    #[must_use]
    pub fn filled(algorithm: HashAlgorithm, byte: u8) -> Self {
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..algorithm.length()].fill(byte);
        Self { algorithm, bytes }
    }

    /// What a PCR of this value becomes when `measured` is extended into it, TPM 2.0 Part 1 section 17.4.3.
    #[must_use]
    pub fn extended(&self, measured: &[u8]) -> Self {
        self.algorithm.digest(&[self.as_bytes(), measured])
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its bytes, as many as the algorithm has.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.length()]
    }

    pub(crate) fn set_last_byte(&mut self, byte: u8) {
        self.bytes[self.algorithm.length() - 1] = byte;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.algorithm)?;
        self.as_bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digits) = text.split_once(':').ok_or(EvidenceError::UnknownHashName)?;
        let algorithm: HashAlgorithm = name.parse()?;
        let bytes = from_hex(digits, Self::LENGTH_MAX).ok_or(EvidenceError::DigestLength { algorithm })?;
        Self::new(algorithm, &bytes)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Bytes of a hexadecimal text of at most `length_max` bytes.
pub(crate) fn from_hex(digits: &str, length_max: usize) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() / 2 > length_max {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// Lower-case hexadecimal text.
#[must_use]
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn digests_are_those_of_their_standards() {
        // FIPS 180-4 and GB/T 32905 give these for "abc".
        for (algorithm, digits) in [
            (HashAlgorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (HashAlgorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (HashAlgorithm::Sm3, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
        ] {
            let digest = algorithm.digest(&[b"a", b"bc"]);
            assert_eq!(digest.to_string(), format!("{algorithm}:{digits}"));
            assert_eq!(digest.to_string().parse::<Digest>().expect("own text"), digest);
            assert_eq!(HashAlgorithm::from_id(algorithm.id()), Some(algorithm));
        }
    }

    #[test]
    fn text_of_another_length_or_algorithm_is_refused() {
        for text in
            ["", "sha256", "sha256:", "sha256:00", "md5:00", "sha1:zz", "sha256:ba7816bf8f01cfea414140de5dae2223"]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
