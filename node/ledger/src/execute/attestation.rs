//! Verdicts of regulators on validators' evidence. What follows from them is decided at the end of the height.

use stele_types::attestation::{AttestationReport, Verdict};
use stele_types::code::Code;

use super::Execution;
use crate::event::EventKind;
use crate::value::{ReportedVerdict, StandingRecord};

impl Execution<'_, '_, '_> {
    pub(super) fn attestation_report(&mut self, body: &AttestationReport) -> Result<(), Code> {
        // Reading the sets costs as much as a curve computation, so it is paid for first.
        self.budget.spend()?;
        let validator = self.validator(&body.validator).ok_or(Code::ObjectUnknown)?;
        if validator.party == self.actor {
            return Err(Code::SelfApproval);
        }
        let (time_ms, issued_at) = (self.context.time_ms, self.issued_at);
        let known: Option<StandingRecord> = self.state.read(&body.validator);
        let mut standing = known.unwrap_or(StandingRecord { admitted_ms: time_ms, passed_ms: None, newest: None });
        // Whoever carries statements could hold back a verdict that passed until after the one that failed.
        let older = |newest: &ReportedVerdict| newest.reporter == self.actor && newest.issued_at > issued_at;
        if standing.newest.as_ref().is_some_and(older) {
            return Err(Code::StateConflict);
        }
        if body.verdict == Verdict::Passed {
            standing.passed_ms = Some(time_ms.min(issued_at.saturating_mul(1_000)));
        }
        standing.newest = Some(ReportedVerdict {
            verdict: body.verdict,
            time_ms,
            reporter: self.actor,
            evidence: body.evidence,
            policy: body.policy,
            issued_at,
        });
        self.state.put(&body.validator, &standing);
        self.emit(EventKind::AttestationReported { validator: body.validator, verdict: body.verdict });
        Ok(())
    }
}
