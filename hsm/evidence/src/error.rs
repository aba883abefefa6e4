//! Why bytes are no evidence.

use core::fmt;

use crate::algorithm::HashAlgorithm;

/// Why a structure was refused before anything was judged with it. Messages name structures and limits, never contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceError {
    /// The bytes end within the structure.
    Truncated {
        /// Name of the structure in its standard.
        structure: &'static str,
    },
    /// Bytes follow the structure.
    TrailingBytes {
        /// Name of the structure in its standard.
        structure: &'static str,
    },
    /// The structure is longer, or has more parts, than is read.
    TooLarge {
        /// Name of the structure in its standard.
        structure: &'static str,
        /// Bytes or parts at most.
        limit: usize,
    },
    /// An algorithm, curve or scheme that is not supported.
    UnsupportedAlgorithm {
        /// Name of the structure in its standard.
        structure: &'static str,
        /// Its identifier in the TCG Algorithm Registry.
        id: u16,
    },
    /// The structure breaks a rule of its standard.
    Malformed {
        /// Name of the structure in its standard.
        structure: &'static str,
        /// The rule.
        reason: &'static str,
    },
    /// The attestation does not begin with `TPM_GENERATED_VALUE`: a TPM did not make it.
    NotGeneratedByTpm,
    /// The attestation is of a type that is not read.
    UnsupportedAttestation {
        /// `TPMI_ST_ATTEST`.
        tag: u16,
    },
    /// The public key is no point of its curve, or no modulus.
    InvalidKey,
    /// The name of a hash algorithm is not known.
    UnknownHashName,
    /// A digest has another length than its algorithm's.
    DigestLength {
        /// Its algorithm.
        algorithm: HashAlgorithm,
    },
    /// The random bytes given for a key agreement are unusable; give others.
    UnusableEntropy,
    /// The secret of a credential is longer than the endorsement key's name digest.
    SecretLength,
}

impl EvidenceError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "evidence_truncated",
            Self::TrailingBytes { .. } => "evidence_trailing_bytes",
            Self::TooLarge { .. } => "evidence_too_large",
            Self::UnsupportedAlgorithm { .. } => "evidence_algorithm_unsupported",
            Self::Malformed { .. } => "evidence_malformed",
            Self::NotGeneratedByTpm => "attestation_not_generated_by_tpm",
            Self::UnsupportedAttestation { .. } => "attestation_type_unsupported",
            Self::InvalidKey => "key_invalid",
            Self::UnknownHashName => "hash_name_unknown",
            Self::DigestLength { .. } => "digest_length",
            Self::UnusableEntropy => "entropy_unusable",
            Self::SecretLength => "secret_length",
        }
    }
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { structure } => write!(formatter, "{structure} is cut short"),
            Self::TrailingBytes { structure } => write!(formatter, "bytes follow {structure}"),
            Self::TooLarge { structure, limit } => write!(formatter, "{structure} is larger than {limit}"),
            Self::UnsupportedAlgorithm { structure, id } => {
                write!(formatter, "{structure} uses algorithm 0x{id:04x}, which is not supported")
            }
            Self::Malformed { structure, reason } => write!(formatter, "{structure}: {reason}"),
            Self::NotGeneratedByTpm => {
                formatter.write_str("the attestation was not made by a TPM (wrong magic number)")
            }
            Self::UnsupportedAttestation { tag } => {
                write!(formatter, "attestations of type 0x{tag:04x} are not supported")
            }
            Self::InvalidKey => formatter.write_str("the public key is not valid"),
            Self::UnknownHashName => formatter.write_str("the hash algorithm is not known"),
            Self::DigestLength { algorithm } => {
                write!(formatter, "a digest of {algorithm} has {} bytes", algorithm.length())
            }
            Self::UnusableEntropy => formatter.write_str("the random bytes give no key; use others"),
            Self::SecretLength => formatter.write_str("the secret is empty or too long for a credential"),
        }
    }
}

impl core::error::Error for EvidenceError {}
