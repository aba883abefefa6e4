//! Mandates: one party lets another act for it.

use alloc::vec::Vec;

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::command::Family;
use stele_types::party::{MandateGive, MandateWithdraw};

use super::Execution;
use crate::event::EventKind;
use crate::value::{MandatePair, MandateRecord, PairMandate};

/// Longest life of a mandate, ten years: nothing stands open-ended.
pub const MANDATE_LIFE_MAX_MS: u64 = 10 * 366 * 86_400_000;

impl Execution<'_, '_, '_> {
    pub(super) fn mandate_give(&mut self, body: &MandateGive) -> Result<(), Code> {
        let now = self.context.time_ms;
        if !are_families(&body.families) || !is_period(body, now) || body.grantee == self.actor {
            return Err(Code::FieldInvalid);
        }
        self.state.party(&body.grantee).ok_or(Code::PartyUnknown)?;
        if self.state.contains::<MandateRecord>(&body.mandate) {
            return Err(Code::AlreadyExists);
        }
        let pair_id = (self.actor, body.grantee);
        let pair = self.state.read::<MandatePair>(&pair_id);
        let mut mandates: Vec<PairMandate> = pair.map_or_else(Vec::new, |pair| pair.mandates.into_vec());
        mandates.retain(|mandate| now <= mandate.valid_until_ms);
        mandates.push(PairMandate {
            mandate: body.mandate,
            families: body.families.clone(),
            valid_from_ms: body.valid_from_ms,
            valid_until_ms: body.valid_until_ms,
        });
        let mandates = List::new(mandates).map_err(|_| Code::LimitReached)?;
        self.state.put(&pair_id, &MandatePair { mandates });
        let mandate = MandateRecord {
            grantor: self.actor,
            grantee: body.grantee,
            families: body.families.clone(),
            valid_from_ms: body.valid_from_ms,
            valid_until_ms: body.valid_until_ms,
            withdrawn_ms: None,
        };
        self.state.put(&body.mandate, &mandate);
        self.emit(EventKind::MandateGiven(body.mandate));
        Ok(())
    }

    pub(super) fn mandate_withdraw(&mut self, body: &MandateWithdraw) -> Result<(), Code> {
        let now = self.context.time_ms;
        let mut mandate: MandateRecord = self.state.read(&body.mandate).ok_or(Code::ObjectUnknown)?;
        if mandate.grantor != self.actor {
            return Err(Code::NotHolder);
        }
        if mandate.withdrawn_ms.is_some() || now > mandate.valid_until_ms {
            return Err(Code::StateConflict);
        }
        let pair_id = (mandate.grantor, mandate.grantee);
        let pair: MandatePair = self.state.read(&pair_id).expect("a live mandate is listed under its pair");
        let mut mandates = pair.mandates.into_vec();
        mandates.retain(|listed| listed.mandate != body.mandate && now <= listed.valid_until_ms);
        if mandates.is_empty() {
            self.state.remove::<MandatePair>(&pair_id);
        } else {
            let mandates = List::new(mandates).expect("the list only shrank");
            self.state.put(&pair_id, &MandatePair { mandates });
        }
        mandate.withdrawn_ms = Some(now);
        self.state.put(&body.mandate, &mandate);
        self.emit(EventKind::MandateWithdrawn(body.mandate));
        Ok(())
    }
}

/// Assigned families, ascending, at least one. Governance is never delegated: it would be a way around dual control.
fn are_families(families: &[u8]) -> bool {
    let delegable = |number: &u8| Family::from_number(*number).is_some_and(|family| family != Family::Governance);
    !families.is_empty() && families.windows(2).all(|pair| pair[0] < pair[1]) && families.iter().all(delegable)
}

/// An end that lies ahead and after the beginning, not too far.
fn is_period(body: &MandateGive, now: u64) -> bool {
    body.valid_from_ms <= body.valid_until_ms
        && (now..=now.saturating_add(MANDATE_LIFE_MAX_MS)).contains(&body.valid_until_ms)
}
