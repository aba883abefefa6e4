//! The rule of admission: who did not show lately what runs on its machine does not vote.
//!
//! At the end of each height the validators are looked at by block time. Whoever lapsed, by a failed verdict or because
//! the last passing one is too old, is suspended: out of the set from the nearest height on, and back when a verdict
//! passes. At most f of the full set (those in force and those suspended) are out at once and never so many that fewer
//! than four stay: a network of four suspends nobody. Nor may those that stay and propose be less than a quorum, and where
//! more have expired than may go nobody does: it is the regulators who are away, or the network that was. So neither a bad
//! update of all firmware nor silence of whoever judges stops the network. Who stays although it lapsed is for operators to
//! see.
//!
//! Suspending and coming back are changes of the set like those of governors, one at a time and as gradual. A set is looked
//! at when each of its validators has had its turn.

use alloc::vec::Vec;

use stele_types::attestation::AttestationRule;
use stele_types::cbor::List;
use stele_types::hash::ValidatorId;
use stele_types::header::{Header, Height};
use stele_types::proposer::ProposerSchedule;
use stele_types::validator::{Validator, ValidatorSet};

use crate::change::{self, FAULT_TOLERANT_MIN};
use crate::event::EventKind;
use crate::execute::ACTIVATION_DISTANCE_MIN;
use crate::overlay::Overlay;
use crate::state::{StateView, read};
use crate::value::{
    AttestationRecord, EpochRecord, ParametersRecord, SUSPENDED_MAX, StandingRecord, ValidatorSetHead, ValidatorsRecord,
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
    let active = change::validator_set(&validators.current, |id| overlay.read(id));
    // One change waits at a time. A set is looked at when each of its validators has had its turn: only then is it known who
    // is silent, and governors have their turn, too.
    let settled = header.height.0 >= validators.current.since.0.saturating_add(active.len() as u64);
    if validators.pending.is_none() && settled {
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
        |id: &ValidatorId| read::<StandingRecord>(view, id).is_some_and(|standing| lapses.of(&standing).is_some());
    active.iter().map(Validator::id).filter(has_lapsed).collect()
}

/// When a validator's trust has run out.
struct Lapses {
    rule: Option<AttestationRule>,
    since_ms: u64,
    now_ms: u64,
}

impl Lapses {
    /// Whether and how a validator has lapsed.
    fn of(&self, standing: &StandingRecord) -> Option<Lapse> {
        let rule = self.rule.as_ref()?;
        if standing.has_failed() {
            return Some(Lapse::Failed);
        }
        let until_ms = standing.trusted_ms().max(self.since_ms).saturating_add(rule.verdict_life_ms);
        (until_ms < self.now_ms).then_some(Lapse::Expired { until_ms })
    }
}

/// Why a validator has lapsed, the graver and the longer before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lapse {
    /// Its newest verdict is that it failed.
    Failed,
    /// Its trust ended at a block time, milliseconds.
    Expired { until_ms: u64 },
}

/// Who is to be suspended from now on, if it is to change: first those come back who may, then those go who must.
fn ruling(
    overlay: &mut Overlay<'_>,
    lapses: &Lapses,
    active: &ValidatorSet,
    suspended: &[Validator],
) -> Option<List<Validator, SUSPENDED_MAX>> {
    // Everybody is looked at, whatever comes of it: standings begin with the first look.
    let mut lapsed = |validator: &Validator| lapses.of(&standing(overlay, lapses, validator));
    let in_force: Vec<Option<Lapse>> = active.iter().map(&mut lapsed).collect();
    let out: Vec<Option<Lapse>> = suspended.iter().map(&mut lapsed).collect();
    let back = out.iter().filter(|lapse| lapse.is_none()).count();
    let mut all = if back > 0 {
        // Those in force must be a quorum of the set with the returned ones, as if these never started.
        let mut left = (1..=back).rev().find(|count| active.len() >= quorum(active.len() + count))?;
        let mut stays = |lapse: &Option<Lapse>| {
            let returns = left > 0 && lapse.is_none();
            left -= usize::from(returns);
            !returns
        };
        suspended.iter().zip(&out).filter(|(_, lapse)| stays(lapse)).map(|(validator, _)| validator.clone()).collect()
    } else {
        let schedule: ProposerSchedule = overlay.singleton();
        let going = going(active, suspended.len(), &in_force, &schedule);
        if going.is_empty() {
            return None;
        }
        let going = going.into_iter().filter_map(|index| active.get(index)).cloned();
        suspended.iter().cloned().chain(going).collect::<Vec<_>>()
    };
    all.sort_by_key(Validator::id);
    Some(List::new(all).expect("at most f of the largest set are suspended"))
}

/// Indices of those in force that go: as many as keep the network alive without them, beside those that are silent
/// already.
fn going(active: &ValidatorSet, suspended: usize, lapses: &[Option<Lapse>], schedule: &ProposerSchedule) -> Vec<usize> {
    let full = active.len() + suspended;
    let room = faulty_max(full).min(full.saturating_sub(FAULT_TOLERANT_MIN)).saturating_sub(suspended);
    let room = room.min(active.faulty_max());
    let mut lapsed: Vec<(Lapse, usize)> =
        lapses.iter().enumerate().filter_map(|(index, lapse)| lapse.map(|lapse| (lapse, index))).collect();
    // More than may go have expired: nobody judges, or the network stood still for long.
    if lapsed.iter().filter(|(lapse, _)| matches!(lapse, Lapse::Expired { .. })).count() > room {
        lapsed.retain(|(lapse, _)| *lapse == Lapse::Failed);
    }
    // Indices are in the order of ids.
    lapsed.sort_unstable();
    let is_silent = |index: usize| schedule.silences.get(index).is_some_and(|silence| silence.misses > 0);
    let mut going: Vec<usize> = Vec::new();
    for (_, index) in lapsed {
        if going.len() == room {
            break;
        }
        let goes = |other: usize| other == index || going.contains(&other);
        let stay = active.len() - going.len() - 1;
        let silent = (0..active.len()).filter(|other| !goes(*other) && is_silent(*other)).count();
        if stay - silent >= quorum(stay) {
            going.push(index);
        }
    }
    going
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
