//! Consensus parameters: what every validator must agree on to agree on anything else.

use crate::attestation::AttestationRule;
use crate::cbor::{self, List};
use crate::hash::Hash;
use crate::limits;
use crate::record::ContentHash;
use crate::suite::Suite;

/// The protocol version that this program executes; it halts cleanly at the activation of a newer one.
pub const PROTOCOL_VERSION: u32 = 1;

/// Protocol versions from here on are rehearsals: no program implements one, and no verifier accepts a header of one. A
/// node that is configured for it runs one with the rules of [`PROTOCOL_VERSION`], so that operators of a test network
/// can practise an upgrade.
pub const PROTOCOL_REHEARSALS: u32 = 1 << 31;

crate::record! {
    /// A suite that statements may use, with the version of its acceptance rule.
    pub struct SuiteRule {
        /// The suite.
        1 => suite: Suite,
        /// Version of the rule, from 1.
        2 => version: u16,
    }
}

crate::record! {
    /// Timeouts of the engine's steps, milliseconds; each grows by its step in later rounds.
    pub struct Timeouts {
        /// Waiting for a proposal.
        1 => propose_ms: u32,
        /// Growth per round.
        2 => propose_step_ms: u32,
        /// Waiting for prevotes after a quorum of any.
        3 => prevote_ms: u32,
        /// Growth per round.
        4 => prevote_step_ms: u32,
        /// Waiting for precommits after a quorum of any.
        5 => precommit_ms: u32,
        /// Growth per round.
        6 => precommit_step_ms: u32,
    }
}

crate::record! {
    /// The parameters in force at a height; a header carries their hash.
    pub struct Parameters {
        /// Protocol version.
        1 => protocol_version: u32,
        /// Suites with their rules, by suite number.
        2 => suites: List<SuiteRule, 16>,
        /// Hash of the state tree and of content roots.
        3 => state_hash: ContentHash,
        /// Bytes of a block.
        4 => block_bytes_max: u32,
        /// Statements in a block.
        5 => block_statements_max: u32,
        /// Bytes of a statement.
        6 => statement_bytes_max: u32,
        /// How old `iat` may be at block time.
        7 => replay_past_ms: u64,
        /// How far `iat` may lie ahead of block time.
        8 => replay_future_ms: u64,
        /// How far a fresh proposal may lie ahead of a validator's clock.
        9 => clock_ahead_ms: u64,
        /// How far it may lie behind.
        10 => clock_behind_ms: u64,
        /// Longest time between blocks when nothing waits.
        11 => heartbeat_ms: u64,
        /// Engine timeouts.
        12 => timeouts: Timeouts,
        /// Longest life of a proposal under dual control.
        13 => proposal_life_ms: u64,
        /// What a validator must show to stay one; nothing when it is absent.
        14 => attestation: Option<AttestationRule>,
    }
}

impl Parameters {
    /// SHA-256("stele/parameters/v1" ‖ parameters).
    pub fn hash(&self) -> Hash {
        Hash::tagged("stele/parameters/v1", &[&cbor::to_vec(self)])
    }
    /// Whether `suite` is enabled.
    pub fn allows(&self, suite: Suite) -> bool {
        self.suites.iter().any(|rule| rule.suite == suite)
    }
    /// Version of the acceptance rule of `suite`, if it is enabled.
    pub fn rule_version(&self, suite: Suite) -> Option<u16> {
        self.suites.iter().find(|rule| rule.suite == suite).map(|rule| rule.version)
    }
    /// Whether this program can execute these parameters and they keep within the hard limits.
    pub fn is_sound(&self) -> bool {
        let within = |value: u32, low: usize, high: usize| {
            usize::try_from(value).is_ok_and(|value| (low..=high).contains(&value))
        };
        let suites = self.suites.windows(2).all(|pair| pair[0].suite < pair[1].suite)
            && self.suites.iter().all(|rule| (1..=rule.suite.rule_version_max()).contains(&rule.version));
        !self.suites.is_empty()
            && suites
            && within(self.block_bytes_max, 64 * 1024, limits::BLOCK_BYTES_MAX)
            && within(self.block_statements_max, 1, limits::BLOCK_STATEMENTS_MAX)
            && within(self.statement_bytes_max, 1024, limits::STATEMENT_BYTES_MAX)
            && (1_000..=86_400_000).contains(&self.replay_past_ms)
            && (1_000..=3_600_000).contains(&self.replay_future_ms)
            && (100..=60_000).contains(&self.clock_ahead_ms)
            && (100..=600_000).contains(&self.clock_behind_ms)
            && (1_000..=600_000).contains(&self.heartbeat_ms)
            && (60_000..=31_536_000_000).contains(&self.proposal_life_ms)
            && self.attestation.as_ref().is_none_or(AttestationRule::is_sound)
            && [self.timeouts.propose_ms, self.timeouts.prevote_ms, self.timeouts.precommit_ms]
                .iter()
                .all(|ms| (10..=60_000).contains(ms))
            && [self.timeouts.propose_step_ms, self.timeouts.prevote_step_ms, self.timeouts.precommit_step_ms]
                .iter()
                .all(|ms| *ms <= 10_000)
    }
}

impl Default for Parameters {
    /// The parameters of a new network, as docs/protocol.md states them.
    fn default() -> Self {
        let suites = [Suite::Es256, Suite::EdDsa, Suite::Sm2Sm3].map(|suite| SuiteRule { suite, version: 1 });
        Self {
            protocol_version: PROTOCOL_VERSION,
            suites: List::new(suites.into()).unwrap_or_default(),
            state_hash: ContentHash::Sha256,
            block_bytes_max: 4 * 1024 * 1024,
            block_statements_max: 10_000,
            statement_bytes_max: 8 * 1024,
            replay_past_ms: 15 * 60 * 1000,
            replay_future_ms: 30 * 1000,
            clock_ahead_ms: 500,
            clock_behind_ms: 5_000,
            heartbeat_ms: 10_000,
            timeouts: Timeouts {
                propose_ms: 1_500,
                propose_step_ms: 500,
                prevote_ms: 500,
                prevote_step_ms: 250,
                precommit_ms: 500,
                precommit_step_ms: 250,
            },
            proposal_life_ms: 30 * 86_400_000,
            attestation: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_reserved_suites_are_not() {
        let mut parameters = Parameters::default();
        assert!(parameters.is_sound());
        parameters.suites = List::new([SuiteRule { suite: Suite::MlDsa44, version: 1 }].into()).unwrap();
        assert!(!parameters.is_sound(), "no rule of ML-DSA is implemented");
    }
}
