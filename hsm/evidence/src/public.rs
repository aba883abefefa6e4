//! Public areas of TPM objects and their names: `TPMT_PUBLIC`, TPM 2.0 Part 2 section 12.2.4.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    algorithm::{HashAlgorithm, from_hex, to_hex},
    error::EvidenceError,
    key::PublicKey,
    reader::Reader,
    rsa::RsaPublicKey,
};

/// Longest public area in bytes; that of an RSA-4096 key with a policy has about 600.
const PUBLIC_LENGTH_MAX: usize = 1024;

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_RSAES: u16 = 0x0015;
const ALG_RSAPSS: u16 = 0x0016;
const ALG_OAEP: u16 = 0x0017;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECDAA: u16 = 0x001a;
const ALG_SM2: u16 = 0x001b;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const ECC_NIST_P256: u16 = 0x0003;
const ECC_NIST_P384: u16 = 0x0004;
const STRUCTURE: &str = "TPMT_PUBLIC";

/// What an object may be used for: `TPMA_OBJECT`, TPM 2.0 Part 2 section 8.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectAttributes(pub u32);

impl ObjectAttributes {
    /// The object never leaves its TPM.
    #[must_use]
    pub const fn fixed_tpm(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// The object never gets another parent.
    #[must_use]
    pub const fn fixed_parent(self) -> bool {
        self.0 & 1 << 4 != 0
    }

    /// The TPM made the private part itself.
    #[must_use]
    pub const fn sensitive_data_origin(self) -> bool {
        self.0 & 1 << 5 != 0
    }

    /// The key handles only data that the TPM made or formatted itself.
    #[must_use]
    pub const fn restricted(self) -> bool {
        self.0 & 1 << 16 != 0
    }

    /// The private part decrypts.
    #[must_use]
    pub const fn decrypt(self) -> bool {
        self.0 & 1 << 17 != 0
    }

    /// The private part signs.
    #[must_use]
    pub const fn sign(self) -> bool {
        self.0 & 1 << 18 != 0
    }
}

impl fmt::Debug for ObjectAttributes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ObjectAttributes(0x{:08x})", self.0)
    }
}

/// The name of an object: identifier of its name algorithm and digest of its public area.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Longest name in bytes: SHA-512 and two bytes of identifier.
    const LENGTH_MAX: usize = 66;

    /// A name as a TPM writes it.
    ///
    /// # Errors
    /// [`EvidenceError::TooLarge`], [`EvidenceError::Malformed`] unless it is a digest of a known algorithm.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new("TPM2B_NAME", bytes);
        if bytes.len() > Self::LENGTH_MAX {
            return Err(EvidenceError::TooLarge { structure: "TPM2B_NAME", limit: Self::LENGTH_MAX });
        }
        let id = reader.u16()?;
        let algorithm = HashAlgorithm::from_id(id).ok_or(reader.unsupported(id))?;
        if reader.rest().len() != algorithm.length() {
            return Err(reader.malformed("the digest has another length than its algorithm's"));
        }
        Ok(Self(bytes.into()))
    }

    /// Its bytes, the algorithm's identifier first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A name in hexadecimal text, as tpm2-tools print it.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn from_hex(text: &str) -> Result<Self, EvidenceError> {
        let not_hex = EvidenceError::Malformed { structure: "TPM2B_NAME", reason: "not hexadecimal, or too long" };
        Self::from_bytes(&from_hex(text, Self::LENGTH_MAX).ok_or(not_hex)?)
    }

    /// Lower-case hexadecimal text, as tpm2-tools print it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Name({})", self.to_hex())
    }
}

/// The symmetric cipher of a storage or endorsement key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymmetricCipher {
    /// Bits of an AES key in CFB mode.
    pub key_bits: u16,
}

/// A public area: P-256, P-384 and RSA keys; other objects are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// The exact bytes of the `TPMT_PUBLIC`.
    bytes: Vec<u8>,
    /// Hash of the name.
    pub name_algorithm: HashAlgorithm,
    /// What the key may be used for.
    pub attributes: ObjectAttributes,
    /// Digest of the policy that its use needs; empty without one.
    pub policy: Vec<u8>,
    /// The cipher with which a storage or endorsement key protects what it holds.
    pub symmetric: Option<SymmetricCipher>,
    /// Hash of the signatures that the key makes, if it is bound to one.
    pub signature_hash: Option<HashAlgorithm>,
    /// The key itself.
    pub key: PublicKey,
}

impl Public {
    /// Parses a `TPM2B_PUBLIC`: the files `ak.pub` and `ek.pub` of tpm2-tools.
    ///
    /// # Errors
    /// [`EvidenceError`] for anything else than one whole public area of a P-256, P-384 or RSA key.
    pub fn parse_sized(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new("TPM2B_PUBLIC", bytes);
        let public = reader.sized(PUBLIC_LENGTH_MAX)?;
        reader.finish()?;
        Self::parse(public)
    }

    /// Parses a `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// As [`Self::parse_sized`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > PUBLIC_LENGTH_MAX {
            return Err(EvidenceError::TooLarge { structure: STRUCTURE, limit: PUBLIC_LENGTH_MAX });
        }
        let mut reader = Reader::new(STRUCTURE, bytes);
        let kind = reader.u16()?;
        let id = reader.u16()?;
        let name_algorithm = HashAlgorithm::from_id(id).ok_or(reader.unsupported(id))?;
        let attributes = ObjectAttributes(reader.u32()?);
        let policy = reader.sized(crate::algorithm::Digest::LENGTH_MAX)?.to_vec();
        if !policy.is_empty() && policy.len() != name_algorithm.length() {
            return Err(reader.malformed("the policy has another length than the name's digest"));
        }
        let symmetric = read_symmetric(&mut reader)?;
        let (key, signature_hash) = match kind {
            ALG_ECC => read_ecc(&mut reader)?,
            ALG_RSA => read_rsa(&mut reader)?,
            other => return Err(reader.unsupported(other)),
        };
        reader.finish()?;
        Ok(Self { bytes: bytes.into(), name_algorithm, attributes, policy, symmetric, signature_hash, key })
    }

    /// The exact bytes of the `TPMT_PUBLIC`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The name by which a TPM speaks of this object, TPM 2.0 Part 1 section 16.
    #[must_use]
    pub fn name(&self) -> Name {
        let digest = self.name_algorithm.digest(&[&self.bytes]);
        Name([&self.name_algorithm.id().to_be_bytes(), digest.as_bytes()].concat())
    }
}

/// `TPMT_SYM_DEF_OBJECT`.
fn read_symmetric(reader: &mut Reader<'_>) -> Result<Option<SymmetricCipher>, EvidenceError> {
    match reader.u16()? {
        ALG_NULL => Ok(None),
        ALG_AES => {
            let key_bits = reader.u16()?;
            let mode = reader.u16()?;
            if mode != ALG_CFB {
                return Err(reader.unsupported(mode));
            }
            if !matches!(key_bits, 128 | 192 | 256) {
                return Err(reader.malformed("an AES key has 128, 192 or 256 bits"));
            }
            Ok(Some(SymmetricCipher { key_bits }))
        }
        other => Err(reader.unsupported(other)),
    }
}

/// The hash of a scheme that has one.
fn read_hash(reader: &mut Reader<'_>) -> Result<Option<HashAlgorithm>, EvidenceError> {
    let id = reader.u16()?;
    HashAlgorithm::from_id(id).map(Some).ok_or(reader.unsupported(id))
}

/// The rest of `TPMS_ECC_PARMS`, and `TPMS_ECC_POINT`.
fn read_ecc(reader: &mut Reader<'_>) -> Result<(PublicKey, Option<HashAlgorithm>), EvidenceError> {
    let hash = match reader.u16()? {
        ALG_NULL => None,
        ALG_ECDSA => read_hash(reader)?,
        other @ (ALG_ECDAA | ALG_SM2) => return Err(reader.unsupported(other)),
        other => return Err(reader.unsupported(other)),
    };
    let curve = reader.u16()?;
    let derivation = reader.u16()?;
    if derivation != ALG_NULL {
        return Err(reader.unsupported(derivation));
    }
    let key = match curve {
        ECC_NIST_P256 => PublicKey::p256_from_coordinates(reader.sized(32)?, reader.sized(32)?)?,
        ECC_NIST_P384 => PublicKey::p384_from_coordinates(reader.sized(48)?, reader.sized(48)?)?,
        other => return Err(EvidenceError::UnsupportedAlgorithm { structure: "TPMS_ECC_PARMS", id: other }),
    };
    Ok((key, hash))
}

/// The rest of `TPMS_RSA_PARMS`, and the modulus.
fn read_rsa(reader: &mut Reader<'_>) -> Result<(PublicKey, Option<HashAlgorithm>), EvidenceError> {
    /// What an exponent of zero stands for.
    const DEFAULT_EXPONENT: u32 = 65_537;
    let hash = match reader.u16()? {
        ALG_NULL | ALG_RSAES => None,
        ALG_RSASSA | ALG_RSAPSS | ALG_OAEP => read_hash(reader)?,
        other => return Err(reader.unsupported(other)),
    };
    let bits = reader.u16()?;
    let exponent = reader.u32()?;
    let modulus = reader.sized(512)?;
    if usize::from(bits) != modulus.len() * 8 {
        return Err(reader.malformed("the modulus has another size than the parameters say"));
    }
    let exponent = if exponent == 0 { DEFAULT_EXPONENT } else { exponent };
    let key = RsaPublicKey::new(modulus, exponent).ok_or(EvidenceError::InvalidKey)?;
    Ok((PublicKey::Rsa(key), hash))
}
