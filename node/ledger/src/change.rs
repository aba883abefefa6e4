//! What the end of a height brings: changes whose height has come, and the proposers' rotation.
//!
//! After height h the state names as current what is in force at h + 1. Changes activate at least two heights after the
//! block that schedules them, so the header of h + 1, which names the validators of h + 1 and h + 2, never lacks one.

use alloc::vec::Vec;

use stele_types::cbor::List;
use stele_types::header::{Header, Height};
use stele_types::proposer::ProposerSchedule;
use stele_types::validator::{Validator, ValidatorSet};

use crate::attestation;
use crate::event::EventKind;
use crate::overlay::Overlay;
use crate::value::{
    AttestationRecord, ParametersRecord, ProtocolRecord, VALIDATORS_PER_CHUNK, ValidatorChunk, ValidatorSetHead,
    ValidatorsRecord,
};

type ChunkId = (Height, u8);

/// Validators from which on one may be faulty; sets of this size never shrink below it.
pub(crate) const FAULT_TOLERANT_MIN: usize = 4;

/// Number of chunks of a set.
fn chunk_count(head: &ValidatorSetHead) -> u8 {
    u8::try_from(usize::from(head.count).div_ceil(VALIDATORS_PER_CHUNK)).expect("sets have few chunks")
}

/// The chunks of a set.
pub(crate) fn validator_chunks(head: &ValidatorSetHead, set: &ValidatorSet) -> Vec<(ChunkId, ValidatorChunk)> {
    let validators: Vec<Validator> = set.iter().cloned().collect();
    let chunk = |validators: &[Validator]| ValidatorChunk {
        validators: List::new(validators.to_vec()).expect("chunks keep within their bound"),
    };
    (0_u8..)
        .zip(validators.chunks(VALIDATORS_PER_CHUNK))
        .map(|(number, validators)| ((head.since, number), chunk(validators)))
        .collect()
}

/// A set from its chunks.
pub(crate) fn validator_set(
    head: &ValidatorSetHead,
    read: impl Fn(&ChunkId) -> Option<ValidatorChunk>,
) -> ValidatorSet {
    let mut validators = Vec::with_capacity(usize::from(head.count));
    for number in 0..chunk_count(head) {
        let chunk = read(&(head.since, number)).expect("every chunk of a set is written with its head");
        validators.extend_from_slice(&chunk.validators);
    }
    assert_eq!(validators.len(), usize::from(head.count), "the chunks hold the whole set");
    ValidatorSet::new(validators).expect("a stored set was checked when it was scheduled")
}

/// Ends the height of `header`: rotates the proposers and puts in force what begins at the next height.
pub(crate) fn close_height(overlay: &mut Overlay<'_>, header: &Header) -> Vec<EventKind> {
    let next = header.height.next();
    let mut events = Vec::new();
    activate_parameters(overlay, next, &mut events);
    let record: ValidatorsRecord = overlay.singleton();
    let set = validator_set(&record.current, |id| overlay.read(id));
    let schedule: ProposerSchedule = overlay.singleton();
    assert_eq!(schedule.silences.len(), set.len(), "the schedule has one entry per validator");
    let rotated = match record.pending {
        Some(pending) if pending.since <= next => {
            events.push(EventKind::ValidatorsActivated(next));
            activate_validators(overlay, &record.current, &set, pending)
        }
        _ => match set.index_of(&header.proposer) {
            Some(proposer) => schedule.after(header.height.0, header.creation_round, proposer),
            // No valid header names a stranger; there is nobody whose silence it could prove.
            None => schedule.clone(),
        },
    };
    if rotated != schedule {
        overlay.put(&(), &rotated);
    }
    attestation::review(overlay, header, &mut events);
    events
}

/// Replaces the set; the rotation starts anew and what is known of those who left for good is forgotten.
fn activate_validators(
    overlay: &mut Overlay<'_>,
    old_head: &ValidatorSetHead,
    old: &ValidatorSet,
    head: ValidatorSetHead,
) -> ProposerSchedule {
    let new = validator_set(&head, |id| overlay.read(id));
    let suspended = overlay.read::<AttestationRecord>(&()).unwrap_or_default().suspended;
    let stays = |validator: &Validator| {
        new.index_of(&validator.id()).is_some() || suspended.iter().any(|other| other.id() == validator.id())
    };
    for validator in old.iter().filter(|validator| !stays(validator)) {
        attestation::forget(overlay, validator);
    }
    for number in 0..chunk_count(old_head) {
        overlay.remove::<ValidatorChunk>(&(old_head.since, number));
    }
    overlay.put(&(), &ValidatorsRecord { current: head, pending: None });
    ProposerSchedule::new(new.len())
}

/// Puts a protocol version and parameters in force. The version is part of the parameters, whichever came first.
fn activate_parameters(overlay: &mut Overlay<'_>, next: Height, events: &mut Vec<EventKind>) {
    let mut protocol: ProtocolRecord = overlay.singleton();
    let mut parameters: ParametersRecord = overlay.singleton();
    let upgrade = protocol.pending.take_if(|pending| pending.height <= next);
    let change = parameters.pending.take_if(|pending| pending.height <= next);
    if upgrade.is_none() && change.is_none() {
        return;
    }
    if let Some(upgrade) = upgrade {
        protocol.version = upgrade.version;
        overlay.put(&(), &protocol);
        events.push(EventKind::ProtocolActivated { height: next, version: protocol.version });
    }
    if let Some(change) = change {
        parameters.current = change.parameters;
        events.push(EventKind::ParametersActivated(next));
    }
    parameters.current.protocol_version = protocol.version;
    overlay.put(&(), &parameters);
}
