//! What came out: whether the evidence is believed, every reason why not, and the facts that it proves.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    attest::{ClockInfo, FirmwareVersion},
    error::EvidenceError,
    policy::PolicyError,
};

/// Reasons that are kept; a hostile log could give a hundred thousand.
pub const REASONS_MAX: usize = 64;

/// The outcome of an appraisal.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether everything that was asked holds.
    pub passed: bool,
    /// Why not, the gravest first: a signature that is wrong makes the rest hearsay.
    pub reasons: Vec<Reason>,
    /// Reasons beyond [`REASONS_MAX`].
    pub reasons_left_out: usize,
    /// What the evidence says; proven only if no reason speaks against signature, key and qualifying data.
    pub facts: Facts,
}

/// What the evidence says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Name of the attestation key, hexadecimal.
    pub attestation_key_name: Option<String>,
    /// Clock and counters; give them to the next appraisal.
    pub clock: Option<ClockInfo>,
    /// Resets of the TPM since the previous verdict.
    pub resets_since_previous: Option<u32>,
    /// Firmware version of the TPM, as its maker counts.
    pub firmware_version: Option<FirmwareVersion>,
    /// Quoted PCRs.
    pub pcrs: Vec<PcrFact>,
    /// Events of the boot event log.
    pub events: Option<usize>,
    /// Entries of the IMA log that the quote covers.
    pub ima_entries: Option<usize>,
    /// Entries that were measured after the quote.
    pub ima_entries_later: Option<usize>,
}

/// One quoted PCR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PcrFact {
    /// Its index.
    pub pcr: u8,
    /// Its value.
    pub value: Digest,
    /// Whether the policy names it.
    pub judged: bool,
}

/// The part of the evidence that a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The attestation.
    Quote,
    /// Its signature.
    Signature,
    /// The attestation key's public area.
    AttestationKey,
    /// The values of PCRs.
    Pcrs,
    /// The boot event log.
    EventLog,
    /// The IMA log.
    ImaLog,
    /// The certification of a key.
    Certification,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Quote => "quote",
            Self::Signature => "signature",
            Self::AttestationKey => "attestation key",
            Self::Pcrs => "PCR values",
            Self::EventLog => "event log",
            Self::ImaLog => "IMA log",
            Self::Certification => "certification",
        })
    }
}

/// How the log of a PCR differs from what was predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventDifference {
    /// Something else was measured.
    Other {
        /// The event, as [`crate::Event::label`] calls it.
        event: String,
        /// What was measured.
        found: Digest,
        /// What was predicted.
        expected: Digest,
        /// The prediction's type and description.
        prediction: String,
    },
    /// Something was measured that was not predicted.
    Additional {
        /// The event.
        event: String,
        /// What was measured.
        found: Digest,
    },
    /// Something that was predicted was not measured.
    Missing {
        /// The prediction's type and description.
        prediction: String,
        /// What was predicted.
        expected: Digest,
    },
}

impl fmt::Display for EventDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { event, found, expected, prediction } => {
                write!(formatter, "{event} measured {found}, but {prediction} is predicted with {expected}")
            }
            Self::Additional { event, found } => write!(formatter, "{event} measured {found}, which is not predicted"),
            Self::Missing { prediction, expected } => {
                write!(formatter, "{prediction} is predicted with {expected}, but nothing more was measured")
            }
        }
    }
}

/// Why evidence is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The policy judges nothing.
    Policy(PolicyError),
    /// A part of the evidence could not be read.
    Unreadable {
        /// Which.
        part: Part,
        /// Why.
        error: EvidenceError,
    },
    /// The attestation is not a quote.
    NotAQuote,
    /// The attestation is not a certification.
    NotACertification,
    /// The certification is of another key than was given.
    OtherObject {
        /// Name of the key that was given, hexadecimal.
        expected: String,
        /// Name that was certified.
        found: String,
    },
    /// The certified key could sign outside its TPM, or does not sign.
    ObjectAttributes {
        /// The attribute that it lacks.
        attribute: &'static str,
    },
    /// The signature is not the attestation key's over the quote.
    Signature,
    /// The attestation key is another one than was enrolled.
    OtherKey {
        /// Name that was enrolled, hexadecimal.
        expected: String,
        /// Name of the key that was given.
        found: String,
    },
    /// The attestation key could sign what the TPM did not make, or leave the TPM.
    KeyAttributes {
        /// The attribute that it lacks, or has beside.
        attribute: &'static str,
    },
    /// The quote answers another question: another nonce, or another head of the ledger. So does a replayed quote.
    QualifyingData,
    /// The clock of the TPM or one of its counters is behind the previous verdict's: an older quote, or another TPM.
    ClockWentBack {
        /// `reset_count`, `restart_count` or `clock_ms`.
        counter: &'static str,
        /// Its value in the previous verdict.
        previous: u64,
        /// Its value now.
        found: u64,
    },
    /// The TPM's firmware is of a version that the policy does not accept.
    FirmwareVersion {
        /// The version.
        found: FirmwareVersion,
    },
    /// The values of PCRs are not those that were quoted.
    PcrDigest,
    /// A PCR that the policy names was not quoted.
    PcrNotQuoted {
        /// The PCR.
        pcr: u8,
        /// The policy's bank.
        bank: HashAlgorithm,
    },
    /// A PCR has a value that the policy does not allow.
    Pcr {
        /// The PCR.
        pcr: u8,
        /// Its value.
        found: Digest,
        /// The values that are allowed.
        expected: Vec<Digest>,
        /// The event that differs from the closest prediction.
        difference: Option<EventDifference>,
    },
    /// The policy demands a log that was not given.
    LogMissing {
        /// Which.
        part: Part,
    },
    /// The event log has no digests of the policy's bank.
    LogBankMissing {
        /// The bank.
        bank: HashAlgorithm,
    },
    /// The event log does not give the value that was quoted: it was changed, cut, or is of another boot.
    LogDiffers {
        /// The PCR.
        pcr: u8,
        /// What the log gives.
        replayed: Digest,
        /// What was quoted.
        quoted: Digest,
        /// The event that differs from the prediction, if one is at hand.
        difference: Option<EventDifference>,
    },
    /// An event's data is not what its digest covers.
    EventData {
        /// The event.
        event: String,
    },
    /// No part of the IMA log gives the quoted value of PCR 10.
    ImaDiffers {
        /// What was quoted.
        quoted: Digest,
    },
    /// The IMA log does not begin with the digest of the boot that was quoted.
    ImaAggregate,
    /// Something was measured after the boot that the policy does not allow.
    ImaEntry {
        /// Its place in the log, from 1.
        line: usize,
        /// Its path.
        path: String,
        /// Digest of the file; `None` if it was open for writing while it was measured.
        digest: Option<Digest>,
    },
}

impl Reason {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Policy(error) => error.code(),
            Self::Unreadable { error, .. } => error.code(),
            Self::NotAQuote => "attestation_not_a_quote",
            Self::NotACertification => "attestation_not_a_certification",
            Self::OtherObject { .. } => "certified_key_other",
            Self::ObjectAttributes { .. } => "certified_key_attributes",
            Self::Signature => "signature_invalid",
            Self::OtherKey { .. } => "attestation_key_other",
            Self::KeyAttributes { .. } => "attestation_key_attributes",
            Self::QualifyingData => "qualifying_data_differs",
            Self::ClockWentBack { .. } => "clock_went_back",
            Self::FirmwareVersion { .. } => "firmware_version_not_allowed",
            Self::PcrDigest => "pcr_digest_differs",
            Self::PcrNotQuoted { .. } => "pcr_not_quoted",
            Self::Pcr { .. } => "pcr_differs",
            Self::LogMissing { .. } => "log_missing",
            Self::LogBankMissing { .. } => "event_log_bank_missing",
            Self::LogDiffers { .. } => "event_log_differs",
            Self::EventData { .. } => "event_data_differs",
            Self::ImaDiffers { .. } => "ima_log_differs",
            Self::ImaAggregate => "ima_boot_aggregate_differs",
            Self::ImaEntry { .. } => "ima_entry_not_allowed",
        }
    }

    /// The PCR that it is about.
    #[must_use]
    pub const fn pcr(&self) -> Option<u8> {
        match self {
            Self::PcrNotQuoted { pcr, .. } | Self::Pcr { pcr, .. } | Self::LogDiffers { pcr, .. } => Some(*pcr),
            Self::ImaDiffers { .. } | Self::ImaAggregate | Self::ImaEntry { .. } => Some(crate::ima::IMA_PCR),
            _ => None,
        }
    }

    /// The event that differs.
    #[must_use]
    pub const fn difference(&self) -> Option<&EventDifference> {
        match self {
            Self::Pcr { difference, .. } | Self::LogDiffers { difference, .. } => difference.as_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(formatter),
            Self::Unreadable { part, error } => write!(formatter, "{part}: {error}"),
            Self::NotAQuote => formatter.write_str("the attestation is not a quote"),
            Self::NotACertification => formatter.write_str("the attestation is not a certification"),
            Self::OtherObject { expected, found } => {
                write!(formatter, "the certified key is {found}, but {expected} was given")
            }
            Self::ObjectAttributes { attribute } => write!(formatter, "the certified key {attribute}"),
            Self::Signature => formatter.write_str("the signature is not the attestation key's over this quote"),
            Self::OtherKey { expected, found } => {
                write!(formatter, "the attestation key is {found}, but {expected} is enrolled")
            }
            Self::KeyAttributes { attribute } => write!(formatter, "the attestation key {attribute}"),
            Self::QualifyingData => formatter.write_str(
                "the quote answers another question: its nonce or the ledger's head is not the one asked for",
            ),
            Self::ClockWentBack { counter, previous, found } => {
                write!(formatter, "{counter} of the TPM went back from {previous} to {found}")
            }
            Self::FirmwareVersion { found } => write!(formatter, "TPM firmware {found} is not allowed"),
            Self::PcrDigest => formatter.write_str("the PCR values are not those that were quoted"),
            Self::PcrNotQuoted { pcr, bank } => write!(formatter, "PCR {pcr} of the {bank} bank was not quoted"),
            Self::Pcr { pcr, found, expected, difference } => {
                write!(formatter, "PCR {pcr} is {found}; allowed is ")?;
                for (at, value) in expected.iter().enumerate() {
                    write!(formatter, "{}{value}", if at == 0 { "" } else { " or " })?;
                }
                difference.iter().try_for_each(|difference| write!(formatter, ": {difference}"))
            }
            Self::LogMissing { part } => write!(formatter, "the {part} is missing"),
            Self::LogBankMissing { bank } => write!(formatter, "the event log has no digests of the {bank} bank"),
            Self::LogDiffers { pcr, replayed, quoted, difference } => {
                write!(formatter, "the event log gives PCR {pcr} = {replayed}, but {quoted} was quoted")?;
                difference.iter().try_for_each(|difference| write!(formatter, ": {difference}"))
            }
            Self::EventData { event } => write!(formatter, "{event} has other data than was measured"),
            Self::ImaDiffers { quoted } => {
                write!(formatter, "no part of the IMA log gives PCR {} = {quoted}", crate::ima::IMA_PCR)
            }
            Self::ImaAggregate => formatter.write_str("the IMA log does not begin with the boot that was quoted"),
            Self::ImaEntry { line, path, digest: Some(digest) } => {
                write!(formatter, "line {line} of the IMA log: {path} with {digest} is not allowed")
            }
            Self::ImaEntry { line, path, digest: None } => {
                write!(formatter, "line {line} of the IMA log: {path} was open for writing while it was measured")
            }
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Reason", 4)?;
        fields.serialize_field("code", self.code())?;
        fields.serialize_field("message", &self.to_string())?;
        fields.serialize_field("pcr", &self.pcr())?;
        fields.serialize_field("difference", &self.difference().map(ToString::to_string))?;
        fields.end()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_verdict(
            formatter,
            self.passed,
            self.reasons.iter().map(|reason| (reason.code(), reason)),
            self.reasons_left_out,
        )
    }
}

/// A verdict for people: whether it passed, and a line for each reason after its code.
pub(crate) fn write_verdict<R: fmt::Display>(
    formatter: &mut fmt::Formatter<'_>,
    passed: bool,
    reasons: impl Iterator<Item = (&'static str, R)>,
    left_out: usize,
) -> fmt::Result {
    formatter.write_str(if passed { "passed" } else { "failed" })?;
    for (code, reason) in reasons {
        write!(formatter, "\n  {code}: {reason}")?;
    }
    if left_out > 0 {
        write!(formatter, "\n  and {left_out} more")?;
    }
    Ok(())
}
