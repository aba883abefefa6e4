//! The rule of admission: who did not show lately what runs on its machine does not vote.
//!
//! At the end of each height the validators are looked at by block time. Whoever lapsed, by a failed verdict or because
//! the last passing one is too old, is suspended: out of the set from the nearest height on, and back when a verdict
//! passes. At most f of the full set (those in force and those suspended) are out at once and never so many that fewer
//! than four stay, so that neither a bad update of all firmware nor regulators who are away stop the network: a
//! network of four suspends nobody. Who stays although it lapsed is for operators to see.
//!
//! Suspending and coming back are changes of the set like those of governors, one at a time and as gradual.

use alloc::vec::Vec;

use stele_types::attestation::AttestationRule;
use stele_types::cbor::List;
use stele_types::hash::ValidatorId;
use stele_types::header::{Header, Height};
use stele_types::validator::{Validator, ValidatorSet};

use crate::change::{self, FAULT_TOLERANT_MIN};
use crate::event::EventKind;
use crate::execute::ACTIVATION_DISTANCE_MIN;
use crate::overlay::Overlay;
use crate::state::{StateView, read};
use crate::value::{
    AttestationRecord, EpochRecord, ParametersRecord, StandingRecord, ValidatorSetHead, ValidatorsRecord,
};

/// Looks at the validators after a height, with the parameters of the next one.
pub(crate) fn review(overlay: &mut Overlay<'_>, header: &Header, events: &mut Vec<EventKind>) {
    let parameters: ParametersRecord = overlay.singleton();
    let rule = parameters.current.attestation;
    let known: Option<AttestationRecord> = overlay.read(&());
    if rule.is_none() && known.is_none() {
        return;
    }
    let mut record = known.clone().unwrap_or_default();
    // A rule with another life is another rule to nobody's harm: the verdicts are as old as they are.
    record.since_ms = rule.as_ref().map(|_| record.since_ms.unwrap_or(header.time_ms));
    let validators: ValidatorsRecord = overlay.singleton();
    // One change waits at a time; the set is looked at again when it is in force.
    if validators.pending.is_none() {
        let active = change::validator_set(&validators.current, |id| overlay.read(id));
        let lapses = Lapses { rule, since_ms: record.since_ms.unwrap_or_default(), now_ms: header.time_ms };
        let suspended = ruling(overlay, &lapses, &active, &record.suspended);
        if let Some(suspended) = suspended {
            let height = Height(header.height.0 + ACTIVATION_DISTANCE_MIN);
            schedule(overlay, validators.current, &active, &record.suspended, &suspended, height, events);
            record.suspended = suspended;
        }
    }
    let stored = Some(record).filter(|record| record.since_ms.is_some() || !record.suspended.is_empty());
    match stored {
        stored if stored == known => {}
        Some(record) => overlay.put(&(), &record),
        None => overlay.remove::<AttestationRecord>(&()),
    }
}

/// Validators in force that have lapsed by `time_ms`, block time in milliseconds, and stay because no more may be out, or
/// because another change of the set waits.
pub fn lapsed_validators(view: &dyn StateView, time_ms: u64) -> Vec<ValidatorId> {
    let (Some(parameters), Some(validators)) =
        (read::<ParametersRecord>(view, &()), read::<ValidatorsRecord>(view, &()))
    else {
        return Vec::new();
    };
    let record = read::<AttestationRecord>(view, &()).unwrap_or_default();
    let Some(since_ms) = record.since_ms else { return Vec::new() };
    let lapses = Lapses { rule: parameters.current.attestation, since_ms, now_ms: time_ms };
    let active = change::validator_set(&validators.current, |id| read(view, id));
    let has_lapsed =
        |id: &ValidatorId| read::<StandingRecord>(view, id).is_some_and(|standing| lapses.since(&standing).is_some());
    active.iter().map(Validator::id).filter(has_lapsed).collect()
}

/// When a validator's trust has run out.
struct Lapses {
    rule: Option<AttestationRule>,
    since_ms: u64,
    now_ms: u64,
}

impl Lapses {
    /// From when on the validator has lapsed, if it has; a failed verdict counts as the longest lapse.
    fn since(&self, standing: &StandingRecord) -> Option<u64> {
        let rule = self.rule.as_ref()?;
        if standing.has_failed() {
            return Some(0);
        }
        let until = standing.trusted_ms().max(self.since_ms).saturating_add(rule.verdict_life_ms);
        (until < self.now_ms).then_some(until)
    }
}

/// Who is to be suspended from now on, if it is to change: first those come back who may, then those go who must.
fn ruling(
    overlay: &mut Overlay<'_>,
    lapses: &Lapses,
    active: &ValidatorSet,
    suspended: &[Validator],
) -> Option<List<Validator, { crate::value::SUSPENDED_MAX }>> {
    let mut lapsed = |validator: &Validator| lapses.since(&standing(overlay, lapses, validator));
    let back = suspended.iter().filter(|validator| lapsed(validator).is_none()).count();
    if back > 0 {
        // Those in force must be a quorum of the set with the returned ones, as if these never started.
        let most = (1..=back).rev().find(|count| active.len() >= quorum(active.len() + count))?;
        let mut left = most;
        let mut stays = |validator: &&Validator| {
            let returns = left > 0 && lapsed(validator).is_none();
            left -= usize::from(returns);
            !returns
        };
        let staying: Vec<Validator> = suspended.iter().filter(|validator| stays(validator)).cloned().collect();
        return Some(List::new(staying).expect("fewer than before"));
    }
    let full = active.len() + suspended.len();
    let room = faulty_max(full).min(full.saturating_sub(FAULT_TOLERANT_MIN)).saturating_sub(suspended.len());
    let room = room.min(active.faulty_max());
    let mut going: Vec<(u64, &Validator)> =
        active.iter().filter_map(|validator| lapsed(validator).map(|since| (since, validator))).collect();
    going.sort_by_key(|(since, validator)| (*since, validator.id()));
    going.truncate(room);
    if going.is_empty() {
        return None;
    }
    let mut all: Vec<Validator> =
        suspended.iter().chain(going.iter().map(|(_, validator)| *validator)).cloned().collect();
    all.sort_by_key(Validator::id);
    Some(List::new(all).expect("at most f of the largest set are suspended"))
}

/// How a validator stands; one that nothing is known of comes under the rule now.
fn standing(overlay: &mut Overlay<'_>, lapses: &Lapses, validator: &Validator) -> StandingRecord {
    let id = validator.id();
    if let Some(standing) = overlay.read(&id) {
        return standing;
    }
    let standing = StandingRecord { admitted_ms: lapses.now_ms, passed_ms: None, newest: None };
    if lapses.rule.is_some() {
        overlay.put(&id, &standing);
    }
    standing
}

/// Lets the set without the suspended ones wait for its height.
fn schedule(
    overlay: &mut Overlay<'_>,
    current: ValidatorSetHead,
    active: &ValidatorSet,
    before: &[Validator],
    after: &[Validator],
    height: Height,
    events: &mut Vec<EventKind>,
) {
    let is_in = |list: &[Validator], validator: &Validator| list.iter().any(|other| other.id() == validator.id());
    let back = before.iter().filter(|validator| !is_in(after, validator));
    let next: Vec<Validator> =
        active.iter().filter(|validator| !is_in(after, validator)).chain(back.clone()).cloned().collect();
    events.extend(back.map(|validator| EventKind::ValidatorReinstated(validator.id())));
    let gone = after.iter().filter(|validator| !is_in(before, validator));
    events.extend(gone.map(|validator| EventKind::ValidatorSuspended(validator.id())));
    let next = ValidatorSet::new(next).expect("keys of validators and suspended ones are distinct");
    let head = ValidatorSetHead { since: height, count: u16::try_from(next.len()).expect("sets are small") };
    for (id, chunk) in change::validator_chunks(&head, &next) {
        overlay.put(&id, &chunk);
    }
    overlay.put(&(), &ValidatorsRecord { current, pending: Some(head) });
    events.push(EventKind::ValidatorsScheduled(height));
}

/// Forgets what is known of a validator that left for good.
pub(crate) fn forget(overlay: &mut Overlay<'_>, validator: &Validator) {
    let id = validator.id();
    if overlay.read::<EpochRecord>(&id).is_some() {
        overlay.remove::<EpochRecord>(&id);
    }
    if overlay.read::<StandingRecord>(&id).is_some() {
        overlay.remove::<StandingRecord>(&id);
    }
}

fn faulty_max(validators: usize) -> usize {
    validators.saturating_sub(1) / 3
}

fn quorum(validators: usize) -> usize {
    validators * 2 / 3 + 1
}
