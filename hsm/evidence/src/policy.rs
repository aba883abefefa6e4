//! What a verifier expects of a platform: values of PCRs, as a release manifest predicts them, and what may run after the
//! boot.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    attest::FirmwareVersion,
    event_type::EventType,
    ima::IMA_PCR,
    pcr::PCR_COUNT,
};

/// What a verifier expects of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The bank in which values are compared.
    pub bank: HashAlgorithm,
    /// Values of PCRs; those that are not named are reported and not judged.
    pub pcrs: Vec<PcrRule>,
    /// Whether evidence without a boot event log is refused.
    #[serde(default)]
    pub event_log_required: bool,
    /// PCRs that the running system extends beside the boot event log, so that the log does not explain their values.
    #[serde(default)]
    pub extended_after_boot: BTreeSet<u8>,
    /// What may be measured after the boot; without it the IMA log is replayed and not judged.
    #[serde(default)]
    pub ima: Option<ImaRule>,
    /// Firmware versions of the TPM that are accepted; any if there are none.
    #[serde(default)]
    pub firmware_versions: BTreeSet<FirmwareVersion>,
}

/// The values that one PCR may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcrRule {
    /// Index of the PCR.
    pub pcr: u8,
    /// Its values: of the release, and of releases or configurations that are accepted beside it.
    pub allowed: Vec<Prediction>,
}

/// One predicted value of a PCR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The value.
    pub value: Digest,
    /// The events that give it, in order, if the manifest has them; with them a verdict names the event that differs.
    #[serde(default)]
    pub events: Vec<ExpectedEvent>,
}

/// One predicted event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEvent {
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// What is extended.
    pub digest: Digest,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
}

/// What the kernel may measure after the boot. The boot aggregate is always allowed, as the first entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaRule {
    /// Digests of files, whatever their path.
    #[serde(default)]
    pub files: BTreeSet<Digest>,
}

/// Why a policy judges nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// It pins no PCR, and so would accept every platform.
    PinsNothing,
    /// Its bank's hash is broken.
    BrokenBank,
    /// It names a PCR above 23, or one twice.
    PcrIndex {
        /// The PCR.
        pcr: u8,
    },
    /// It allows no value of a PCR.
    NoValue {
        /// The PCR.
        pcr: u8,
    },
    /// A value is of another bank, or its events do not give it.
    Value {
        /// The PCR.
        pcr: u8,
    },
}

impl PolicyError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::PinsNothing => "policy_pins_nothing",
            Self::BrokenBank => "policy_bank_broken",
            Self::PcrIndex { .. } => "policy_pcr_index",
            Self::NoValue { .. } => "policy_no_value",
            Self::Value { .. } => "policy_value",
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PinsNothing => formatter.write_str("the policy pins no PCR"),
            Self::BrokenBank => formatter.write_str("the policy compares a bank whose hash is broken"),
            Self::PcrIndex { pcr } => write!(formatter, "the policy names PCR {pcr}, which is above 23 or named twice"),
            Self::NoValue { pcr } => write!(formatter, "the policy allows no value of PCR {pcr}"),
            Self::Value { pcr } => {
                write!(formatter, "a value that the policy allows of PCR {pcr} is of another bank, or not its events'")
            }
        }
    }
}

impl core::error::Error for PolicyError {}

impl Policy {
    /// Checks that the policy judges, and that what it predicts is consistent.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.pcrs.is_empty() {
            return Err(PolicyError::PinsNothing);
        }
        if self.bank.is_broken() {
            return Err(PolicyError::BrokenBank);
        }
        let mut seen = BTreeSet::new();
        for rule in &self.pcrs {
            let pcr = rule.pcr;
            if pcr >= PCR_COUNT || !seen.insert(pcr) {
                return Err(PolicyError::PcrIndex { pcr });
            }
            if rule.allowed.is_empty() {
                return Err(PolicyError::NoValue { pcr });
            }
            if !rule.allowed.iter().all(|prediction| prediction.is_of(self.bank)) {
                return Err(PolicyError::Value { pcr });
            }
        }
        Ok(())
    }

    /// The PCRs that a quote must cover to be judged by this policy, ascending.
    #[must_use]
    pub fn pcrs_needed(&self) -> Vec<u8> {
        let named = self.pcrs.iter().map(|rule| rule.pcr);
        let needed: BTreeSet<u8> = named.chain(self.ima.is_some().then_some(IMA_PCR)).collect();
        needed.into_iter().collect()
    }
}

impl Prediction {
    /// The value that events give, from zero.
    #[must_use]
    pub fn from_events(bank: HashAlgorithm, events: Vec<ExpectedEvent>) -> Self {
        let extend = |value: Digest, event: &ExpectedEvent| value.extended(event.digest.as_bytes());
        Self { value: events.iter().fold(Digest::filled(bank, 0), extend), events }
    }

    fn is_of(&self, bank: HashAlgorithm) -> bool {
        let of_bank =
            self.value.algorithm() == bank && self.events.iter().all(|event| event.digest.algorithm() == bank);
        of_bank && (self.events.is_empty() || Self::from_events(bank, self.events.clone()).value == self.value)
    }
}
