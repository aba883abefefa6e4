//! What a TPM attests: `TPMS_ATTEST`, TPM 2.0 Part 2 section 10.12.12. Quotes and certifications are read.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{algorithm::Digest, error::EvidenceError, pcr::PcrSelection, public::Name, reader::Reader};

/// `TPM_GENERATED_VALUE`: `0xff` and "TCG". A restricted key never signs foreign data that begins with it.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_CERTIFY: u16 = 0x8017;
const ST_ATTEST_QUOTE: u16 = 0x8018;

/// Longest attestation in bytes: sixteen selections and the longest digests need about 400.
const LENGTH_MAX: usize = 1024;

/// A TPM's clock and counters of restarts: `TPMS_CLOCK_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockInfo {
    /// Milliseconds for which the TPM has had power since it was last cleared.
    pub clock_ms: u64,
    /// Resets of the TPM, as by a cold start, since it was last cleared.
    pub reset_count: u32,
    /// Restarts and resumptions since the last reset.
    pub restart_count: u32,
    /// Whether no higher clock can have been reported before.
    pub safe: bool,
}

/// Firmware version of a TPM, as its maker counts. In text `0x` and 16 digits: the numbers of JSON are too short for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirmwareVersion(pub u64);

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "0x{:016x}", self.0)
    }
}

impl Serialize for FirmwareVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FirmwareVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let unknown = || de::Error::custom("a firmware version is 0x and hexadecimal digits");
        number.map(Self).ok_or_else(unknown)
    }
}

/// What was attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attested {
    /// PCR values, by the digest of them all.
    Quote {
        /// Which PCRs, in order.
        selection: PcrSelection,
        /// Digest of their values one after the other, by the hash of the signature.
        digest: Vec<u8>,
    },
    /// An object that is loaded in the TPM.
    Certify {
        /// Its name.
        name: Name,
        /// Digest of the names of it and of all its parents.
        qualified_name: Name,
    },
}

/// An attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Qualified name of the key that signed it: digest of the names of it and of all its parents.
    pub qualified_signer: Name,
    /// The verifier's qualifying data.
    pub extra_data: Vec<u8>,
    /// Clock and counters when it was signed.
    pub clock: ClockInfo,
    /// The TPM's firmware version, as its maker counts.
    pub firmware_version: FirmwareVersion,
    /// What was attested.
    pub attested: Attested,
}

impl Attestation {
    /// Parses a `TPMS_ATTEST`: what `tpm2_quote --message` writes, and what is signed.
    ///
    /// # Errors
    /// [`EvidenceError::NotGeneratedByTpm`], [`EvidenceError::UnsupportedAttestation`], and those of malformed bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > LENGTH_MAX {
            return Err(EvidenceError::TooLarge { structure: "TPMS_ATTEST", limit: LENGTH_MAX });
        }
        let mut reader = Reader::new("TPMS_ATTEST", bytes);
        if reader.u32()? != GENERATED {
            return Err(EvidenceError::NotGeneratedByTpm);
        }
        let tag = reader.u16()?;
        if !matches!(tag, ST_ATTEST_QUOTE | ST_ATTEST_CERTIFY) {
            return Err(EvidenceError::UnsupportedAttestation { tag });
        }
        let qualified_signer = Name::from_bytes(reader.sized(66)?)?;
        let extra_data = reader.sized(66)?.to_vec();
        let clock = ClockInfo {
            clock_ms: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(reader.malformed("a flag is neither YES nor NO")),
            },
        };
        let firmware_version = FirmwareVersion(reader.u64()?);
        let attested = if tag == ST_ATTEST_QUOTE {
            let selection = PcrSelection::read(&mut reader)?;
            Attested::Quote { selection, digest: reader.sized(Digest::LENGTH_MAX)?.to_vec() }
        } else {
            let name = Name::from_bytes(reader.sized(66)?)?;
            Attested::Certify { name, qualified_name: Name::from_bytes(reader.sized(66)?)? }
        };
        reader.finish()?;
        Ok(Self { qualified_signer, extra_data, clock, firmware_version, attested })
    }
}
