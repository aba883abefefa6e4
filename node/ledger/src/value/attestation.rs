//! What regulators found out about validators, and who is out of the set because of it.

use stele_types::attestation::Verdict;
use stele_types::cbor::List;
use stele_types::hash::{Hash, PartyId, ValidatorId};
use stele_types::limits::VALIDATORS_MAX;
use stele_types::validator::Validator;

use crate::state::stored;

/// Validators that can be suspended at once: the faulty ones of the largest set.
pub const SUSPENDED_MAX: usize = (VALIDATORS_MAX - 1) / 3;

stele_types::record! {
    /// The rule of admission at work.
    #[derive(Default)]
    pub struct AttestationRecord {
        /// Block time at which the rule in force began, milliseconds; nobody's verdict is too old before its life has
        /// passed from there.
        1 => since_ms: Option<u64>,
        /// Validators that are out of the set until a verdict passes, by id.
        2 => suspended: List<Validator, SUSPENDED_MAX>,
    }
}
stored!(AttestationRecord, Attestation, (), |()| []);

stele_types::record! {
    /// The newest verdict on a validator.
    pub struct ReportedVerdict {
        /// The verdict.
        1 => verdict: Verdict,
        /// Time of its block, milliseconds.
        2 => time_ms: u64,
        /// Who judged.
        3 => reporter: PartyId,
        /// SHA-256 of the evidence package.
        4 => evidence: Hash,
        /// SHA-256 of the policy's file.
        5 => policy: Hash,
        /// When it was signed, seconds since 1970.
        6 => issued_at: u64,
    }
}

stele_types::record! {
    /// How a validator stands.
    pub struct StandingRecord {
        /// Block time at which the validator came under the rule or was first reported, milliseconds.
        1 => admitted_ms: u64,
        /// Block time of its newest passing verdict.
        2 => passed_ms: Option<u64>,
        /// Its newest verdict.
        3 => newest: Option<ReportedVerdict>,
    }
}
stored!(StandingRecord, Standing, ValidatorId, |id| [&id.0]);

impl StandingRecord {
    /// From when the validator's trust counts: its newest passing verdict, or its admission before there was one.
    pub fn trusted_ms(&self) -> u64 {
        self.passed_ms.unwrap_or(self.admitted_ms)
    }

    /// Whether the newest verdict is that its evidence does not pass.
    pub fn has_failed(&self) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.verdict == Verdict::Failed)
    }
}
