//! Why something does not verify, and what to do about it.

use core::fmt;

use stele_merkle::{log, state};
use stele_types::cbor::CborError;
use stele_types::genesis::GenesisError;
use stele_types::{Code, Hash, Height, NetworkId, Suite};

/// What the bytes that do not decode were meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A quorum bundle.
    Bundle,
    /// A receipt.
    Receipt,
    /// A statement with attached receipts.
    TransparentStatement,
    /// A public key.
    PublicKey,
    /// A bundle of values of the state.
    StateBundle,
    /// A node's word that it holds a body.
    CustodyReceipt,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "bundle",
            Self::Receipt => "receipt",
            Self::TransparentStatement => "statement with attached receipts",
            Self::PublicKey => "public key",
            Self::StateBundle => "state bundle",
            Self::CustodyReceipt => "custody receipt",
        })
    }
}

/// Whose signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The issuer of a statement.
    Issuer,
    /// A node's checkpoint key.
    Checkpoint,
    /// The vote of a validator, by its index.
    Validator(u16),
    /// The long-term key behind an epoch certificate, by the validator's index.
    Epoch(u16),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer => f.write_str("the issuer's signature"),
            Self::Checkpoint => f.write_str("the checkpoint's signature"),
            Self::Validator(index) => write!(f, "the vote of validator {index}"),
            Self::Epoch(index) => write!(f, "the epoch certificate of validator {index}"),
        }
    }
}

/// What of a checkpoint differs from the certified header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The height after which the tree head stands.
    Height,
    /// Leaves of the log.
    LogSize,
    /// Root of the log.
    LogRoot,
    /// Root of the state tree.
    StateRoot,
    /// Time, which is never later than the header above it.
    Time,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Height => "height",
            Self::LogSize => "log size",
            Self::LogRoot => "log root",
            Self::StateRoot => "state root",
            Self::Time => "time",
        })
    }
}

/// Why a proof is refused. [`VerifyError::code`] is stable, [`VerifyError::advice`] says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// Bytes that do not decode.
    Malformed {
        /// What they were meant to be.
        part: Part,
        /// Why they do not.
        source: CborError,
    },
    /// More bytes than the format allows.
    TooLarge {
        /// What they were meant to be.
        part: Part,
        /// Their number.
        length: usize,
    },
    /// A bundle of a version that this program does not know.
    VersionUnsupported {
        /// Its version.
        version: u8,
    },
    /// A header under a protocol that this program does not know.
    ProtocolUnsupported {
        /// Its protocol version.
        version: u32,
    },
    /// A bundle needs exactly one of receipt and outcome.
    BundleForm,
    /// A state bundle needs values, each key once and in order, and exactly the headers that certify them, in order.
    StateBundleForm,
    /// The state bundle proves nothing about a key.
    StateKeyMissing {
        /// The key.
        key: Hash,
    },
    /// The genesis file is refused.
    GenesisInvalid(GenesisError),
    /// The proof is of another network.
    OtherNetwork {
        /// Its network.
        found: NetworkId,
    },
    /// A hash is pinned, but neither the pin nor the bundle brings the validator set of that hash.
    AnchorSetMissing {
        /// The pinned hash.
        validators: Hash,
    },
    /// The validator set given with a pin has another hash.
    AnchorSetMismatch {
        /// The pinned hash.
        validators: Hash,
    },
    /// The header lies below the pinned height.
    BelowAnchor {
        /// Its height.
        height: Height,
        /// The pinned height.
        pinned: Height,
    },
    /// The links of the validator-set chain do not ascend to the header.
    LinkOrder {
        /// Height of the link or header out of order.
        height: Height,
    },
    /// The header names another validator set than the one that the chain leads to.
    ValidatorsMismatch {
        /// Height of the header.
        height: Height,
    },
    /// A link whose header announces no change, or another set than the link brings.
    LinkInvalid {
        /// Height of the link.
        height: Height,
    },
    /// The certificate is of another height or block than the header.
    CertificateMismatch {
        /// Height of the header.
        height: Height,
    },
    /// The signatures of the certificate do not ascend by validator: one may be counted twice.
    CertificateUnordered {
        /// Height of the header.
        height: Height,
    },
    /// Too few signatures.
    QuorumMissing {
        /// Height of the header.
        height: Height,
        /// Signatures of the certificate.
        signatures: usize,
        /// Signatures needed.
        quorum: usize,
    },
    /// A signature of an index that the validator set does not have.
    SignerUnknown {
        /// The index.
        validator: u16,
    },
    /// A vote names an epoch certificate that the bundle does not bring.
    EpochCertificateMissing {
        /// Its hash.
        certificate: Hash,
    },
    /// An epoch certificate of another network or validator.
    EpochCertificateForeign {
        /// Its hash.
        certificate: Hash,
    },
    /// An epoch certificate that does not cover the height, or covers more heights than one may.
    EpochCertificateExpired {
        /// Its hash.
        certificate: Hash,
        /// The height.
        height: Height,
    },
    /// A suite without an acceptance rule.
    SuiteUnsupported(Suite),
    /// Bytes that are no public key of their suite.
    KeyInvalid(Suite),
    /// The signature is by a key with another id.
    KeyMismatch,
    /// A signature that does not verify.
    SignatureInvalid(Signer),
    /// Neither the bundle nor the caller brings the statement.
    EntryMissing,
    /// The statement is refused as such.
    StatementInvalid(Code),
    /// The proof is of another statement than the expected one.
    StatementMismatch,
    /// The bundle brings no checkpoint key and none was given.
    CheckpointKeyMissing,
    /// The checkpoint says something else than the certified header.
    CheckpointMismatch(Claim),
    /// The outcome is not a rejection.
    OutcomeNotRejection,
    /// An inclusion or consistency proof does not hold.
    LogProof(log::ProofError),
    /// A proof of the state tree does not hold.
    StateProof(state::ProofError),
}

impl VerifyError {
    /// Stable snake_case name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::VersionUnsupported { .. } => "version_unsupported",
            Self::ProtocolUnsupported { .. } => "protocol_unsupported",
            Self::BundleForm => "bundle_form",
            Self::StateBundleForm => "state_bundle_form",
            Self::StateKeyMissing { .. } => "state_key_missing",
            Self::GenesisInvalid(_) => "genesis_invalid",
            Self::OtherNetwork { .. } => "other_network",
            Self::AnchorSetMissing { .. } => "anchor_set_missing",
            Self::AnchorSetMismatch { .. } => "anchor_set_mismatch",
            Self::BelowAnchor { .. } => "below_anchor",
            Self::LinkOrder { .. } => "link_order",
            Self::ValidatorsMismatch { .. } => "validators_mismatch",
            Self::LinkInvalid { .. } => "link_invalid",
            Self::CertificateMismatch { .. } => "certificate_mismatch",
            Self::CertificateUnordered { .. } => "certificate_unordered",
            Self::QuorumMissing { .. } => "quorum_missing",
            Self::SignerUnknown { .. } => "signer_unknown",
            Self::EpochCertificateMissing { .. } => "epoch_certificate_missing",
            Self::EpochCertificateForeign { .. } => "epoch_certificate_foreign",
            Self::EpochCertificateExpired { .. } => "epoch_certificate_expired",
            Self::SuiteUnsupported(_) => "suite_unsupported",
            Self::KeyInvalid(_) => "key_invalid",
            Self::KeyMismatch => "key_mismatch",
            Self::SignatureInvalid(_) => "signature_invalid",
            Self::EntryMissing => "entry_missing",
            Self::StatementInvalid(_) => "statement_invalid",
            Self::StatementMismatch => "statement_mismatch",
            Self::CheckpointKeyMissing => "checkpoint_key_missing",
            Self::CheckpointMismatch(_) => "checkpoint_mismatch",
            Self::OutcomeNotRejection => "outcome_not_rejection",
            Self::LogProof(_) => "log_proof_invalid",
            Self::StateProof(_) => "state_proof_invalid",
        }
    }

    /// What the person who verifies can do.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::VersionUnsupported { .. } | Self::ProtocolUnsupported { .. } | Self::SuiteUnsupported(_) => {
                "update this verifier"
            }
            Self::GenesisInvalid(_) => {
                "get the network's genesis file again and compare its SHA-256 with the network id"
            }
            Self::OtherNetwork { .. } => "use the genesis file or pin of the network that the proof is of",
            Self::AnchorSetMissing { .. } => "give the genesis file, or the pinned validator set itself",
            Self::AnchorSetMismatch { .. } => "check the pin: the validator set given with it has another hash",
            Self::BelowAnchor { .. } => "give the genesis file or a pin at or below the header's height",
            Self::ValidatorsMismatch { .. } | Self::LinkOrder { .. } | Self::LinkInvalid { .. } => {
                "fetch the bundle again from a node that follows the network; do not accept this one"
            }
            Self::EpochCertificateMissing { .. } => {
                "fetch the bundle again; it lacks a certificate that its votes name"
            }
            Self::EntryMissing => "give the statement's file too",
            Self::StateKeyMissing { .. } => "ask for a proof of that key; this one is about others",
            Self::StatementMismatch => "compare the statement with the bundle: they do not belong together",
            Self::CheckpointKeyMissing => "give the node's checkpoint key",
            Self::KeyMismatch => "use the key whose id the signature names",
            Self::KeyInvalid(_) => "check the key file: it holds no key of that suite",
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::BundleForm | Self::StateBundleForm => {
                "check that this is the right file and that it arrived whole"
            }
            Self::CheckpointMismatch(_) => {
                "do not accept this; keep it as evidence and report the node to the operators"
            }
            _ => "do not accept this; fetch the proof again and report it if it stays wrong",
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { part: Part::PublicKey, .. } => {
                f.write_str("the public key is no SubjectPublicKeyInfo of a known suite, in PEM or DER")
            }
            Self::Malformed { part, source } => write!(f, "the {part} does not decode: {source}"),
            Self::TooLarge { part, length } => write!(f, "{length} bytes are too many for a {part}"),
            Self::VersionUnsupported { version } => write!(f, "bundle version {version} is not known"),
            Self::ProtocolUnsupported { version } => write!(f, "protocol version {version} is not known"),
            Self::BundleForm => {
                f.write_str("a bundle has either a receipt with its checkpoint key, or an outcome and no such key")
            }
            Self::StateBundleForm => f.write_str(
                "a state bundle has values in the order of their keys and the headers that certify them, no more and no fewer",
            ),
            Self::StateKeyMissing { key } => write!(f, "nothing is proven about state key {key}"),
            Self::GenesisInvalid(error) => error.fmt(f),
            Self::OtherNetwork { found } => write!(f, "the proof is of network {found}"),
            Self::AnchorSetMissing { validators } => write!(f, "no validator set with the pinned hash {validators}"),
            Self::AnchorSetMismatch { validators } => {
                write!(f, "the validator set does not have the pinned hash {validators}")
            }
            Self::BelowAnchor { height, pinned } => {
                write!(f, "the header of height {height} lies below the pinned height {pinned}")
            }
            Self::LinkOrder { height } => write!(f, "the validator-set chain is out of order at height {height}"),
            Self::ValidatorsMismatch { height } => {
                write!(f, "the header of height {height} is of another validator set than the chain leads to")
            }
            Self::LinkInvalid { height } => write!(f, "the link at height {height} is no change to the set it brings"),
            Self::CertificateMismatch { height } => {
                write!(f, "the certificate is not of the header of height {height}")
            }
            Self::CertificateUnordered { height } => {
                write!(f, "the certificate of height {height} counts a validator twice or out of order")
            }
            Self::QuorumMissing { height, signatures, quorum } => {
                write!(f, "the certificate of height {height} has {signatures} signatures, a quorum is {quorum}")
            }
            Self::SignerUnknown { validator } => write!(f, "the validator set has no index {validator}"),
            Self::EpochCertificateMissing { certificate } => write!(f, "epoch certificate {certificate} is missing"),
            Self::EpochCertificateForeign { certificate } => {
                write!(f, "epoch certificate {certificate} is of another validator or network")
            }
            Self::EpochCertificateExpired { certificate, height } => {
                write!(f, "epoch certificate {certificate} does not cover height {height}")
            }
            Self::SuiteUnsupported(suite) => write!(f, "no rule accepts signatures of suite {suite}"),
            Self::KeyInvalid(suite) => write!(f, "the bytes are no public key of suite {suite}"),
            Self::KeyMismatch => f.write_str("the signature names another key"),
            Self::SignatureInvalid(signer) => write!(f, "{signer} does not verify"),
            Self::EntryMissing => f.write_str("the statement is not in the bundle"),
            Self::StatementInvalid(code) => write!(f, "the statement is refused: {code}"),
            Self::StatementMismatch => f.write_str("the proof is of another statement"),
            Self::CheckpointKeyMissing => f.write_str("the checkpoint key is not in the bundle"),
            Self::CheckpointMismatch(claim) => write!(f, "the checkpoint's {claim} contradicts the certified header"),
            Self::OutcomeNotRejection => f.write_str("the outcome is not a rejection"),
            Self::LogProof(error) => error.fmt(f),
            Self::StateProof(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Malformed { source, .. } => Some(source),
            Self::GenesisInvalid(error) => Some(error),
            Self::LogProof(error) => Some(error),
            Self::StateProof(error) => Some(error),
            _ => None,
        }
    }
}

impl From<log::ProofError> for VerifyError {
    fn from(error: log::ProofError) -> Self {
        Self::LogProof(error)
    }
}

impl From<state::ProofError> for VerifyError {
    fn from(error: state::ProofError) -> Self {
        Self::StateProof(error)
    }
}
