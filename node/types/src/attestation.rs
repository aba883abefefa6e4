//! Attestation: what a regulator found when it judged a validator's evidence, and how long that counts.

use crate::hash::{Hash, ValidatorId};

crate::codes! {
    /// What came out of an appraisal (RFC 9334, section 8.4).
    pub enum Verdict: u8 {
        /// The evidence is believed, and the platform is what the policy says.
        Passed = 0 => "passed",
        /// It is not, or the platform is another.
        Failed = 1 => "failed",
    }
}

crate::record! {
    /// `attestation.report`: a regulator's verdict on the evidence of one validator, taken with a nonce of its own.
    pub struct AttestationReport {
        /// The validator.
        1 => validator: ValidatorId,
        /// The verdict.
        2 => verdict: Verdict,
        /// SHA-256 of the evidence package as a tar; whoever keeps it can show what was judged.
        3 => evidence: Hash,
        /// SHA-256 of the policy's file.
        4 => policy: Hash,
    }
}

crate::record! {
    /// The rule of admission: validators whose last passing verdict is too old, or who failed since, leave the set.
    pub struct AttestationRule {
        /// How long a passing verdict counts, milliseconds of block time.
        1 => verdict_life_ms: u64,
    }
}

impl AttestationRule {
    /// Whether the bounds are kept: from ten seconds, the time between blocks of an idle network, to a year.
    pub fn is_sound(&self) -> bool {
        (10_000..=31_536_000_000).contains(&self.verdict_life_ms)
    }
}
