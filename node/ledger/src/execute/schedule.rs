//! Changes of the rules: parameters, validators, protocol version. Each waits for its height; at most one of each kind
//! waits.

use alloc::vec::Vec;

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::governance::{ParametersChange, ProtocolUpgrade, ValidatorsChange};
use stele_types::hash::ValidatorId;
use stele_types::header::Height;
use stele_types::validator::{Validator, ValidatorSet};

use super::Execution;
use crate::change::{self, FAULT_TOLERANT_MIN};
use crate::event::EventKind;
use crate::key_check;
use crate::value::{
    AttestationRecord, EpochRecord, ParametersRecord, PendingParameters, PendingProtocol, ProtocolRecord,
    StandingRecord, ValidatorSetHead, ValidatorsRecord,
};

/// Heights from a block to the first that its results can govern: the header of the next already names the validators
/// of the one after.
pub const ACTIVATION_DISTANCE_MIN: u64 = 2;
/// Furthest activation: about a week at one block a second. A change cannot be taken back, so a slip of a digit must
/// not block its kind for ever.
pub const ACTIVATION_DISTANCE_MAX: u64 = 1_000_000;

impl Execution<'_, '_, '_> {
    pub(super) fn parameters_change(&mut self, body: &ParametersChange) -> Result<(), Code> {
        let mut record: ParametersRecord = self.state.singleton();
        let height = self.activation(body.activation_height, record.pending.is_some())?;
        // The state tree is hashed with one function from genesis on; the version changes by an upgrade only.
        if !body.parameters.is_sound()
            || body.parameters.state_hash != record.current.state_hash
            || body.parameters.protocol_version != record.current.protocol_version
        {
            return Err(Code::FieldInvalid);
        }
        record.pending = Some(PendingParameters { height, parameters: body.parameters.clone() });
        self.state.put(&(), &record);
        self.emit(EventKind::ParametersScheduled(height));
        Ok(())
    }

    pub(super) fn protocol_upgrade(&mut self, body: &ProtocolUpgrade) -> Result<(), Code> {
        let mut record: ProtocolRecord = self.state.singleton();
        let height = self.activation(body.activation_height, record.pending.is_some())?;
        if body.version <= record.version {
            return Err(Code::FieldInvalid);
        }
        record.pending = Some(PendingProtocol { height, version: body.version });
        self.state.put(&(), &record);
        self.emit(EventKind::ProtocolScheduled { height, version: body.version });
        Ok(())
    }

    pub(super) fn validators_change(&mut self, body: &ValidatorsChange) -> Result<(), Code> {
        let mut record: ValidatorsRecord = self.state.singleton();
        let height = self.activation(body.activation_height, record.pending.is_some())?;
        self.budget.spend()?;
        let current = change::validator_set(&record.current, |id| self.state.read(id));
        let mut attestation = self.state.read::<AttestationRecord>(&()).unwrap_or_default();
        let (removed, suspended): (Vec<Validator>, Vec<Validator>) =
            attestation.suspended.iter().cloned().partition(|validator| body.remove.contains(&validator.id()));
        let next = self.next_validators(&current, &removed, &suspended, body)?;
        if !removed.is_empty() {
            attestation.suspended = List::new(suspended).expect("fewer than before");
            self.forget(&removed);
            self.state.put(&(), &attestation);
        }
        if next == current && !removed.is_empty() {
            // They did not vote, so nothing waits.
            return Ok(());
        }
        let count = u16::try_from(next.len()).expect("a set is smaller than a u16 counts");
        let head = ValidatorSetHead { since: height, count };
        for (id, chunk) in change::validator_chunks(&head, &next) {
            self.state.put(&id, &chunk);
        }
        record.pending = Some(head);
        self.state.put(&(), &record);
        self.emit(EventKind::ValidatorsScheduled(height));
        Ok(())
    }

    fn activation(&self, height: u64, taken: bool) -> Result<Height, Code> {
        let now = self.context.height.0;
        let nearest = now.saturating_add(ACTIVATION_DISTANCE_MIN);
        let furthest = now.saturating_add(ACTIVATION_DISTANCE_MAX);
        let fits = (nearest..=furthest).contains(&height) && !taken;
        if fits { Ok(Height(height)) } else { Err(Code::ActivationInvalid) }
    }

    /// Forgets what is known of suspended validators that left for good.
    fn forget(&mut self, validators: &[Validator]) {
        for id in validators.iter().map(Validator::id) {
            if self.state.contains::<EpochRecord>(&id) {
                self.state.remove::<EpochRecord>(&id);
            }
            if self.state.contains::<StandingRecord>(&id) {
                self.state.remove::<StandingRecord>(&id);
            }
        }
    }

    /// The set after the change, beside those who stay `suspended`; `removed` are suspended ones that the change removes.
    fn next_validators(
        &mut self,
        current: &ValidatorSet,
        removed: &[Validator],
        suspended: &[Validator],
        body: &ValidatorsChange,
    ) -> Result<ValidatorSet, Code> {
        let upserted: Vec<ValidatorId> = body.upsert.iter().map(Validator::id).collect();
        let mut named: Vec<ValidatorId> = upserted.iter().chain(body.remove.iter()).copied().collect();
        named.sort_unstable();
        let twice = named.windows(2).any(|pair| pair[0] == pair[1]);
        let is_removed = |id: &ValidatorId| removed.iter().any(|validator| validator.id() == *id);
        let unknown = body.remove.iter().any(|id| current.index_of(id).is_none() && !is_removed(id));
        if named.is_empty() || twice || unknown {
            return Err(Code::ValidatorsInvalid);
        }
        for validator in body.upsert.iter() {
            self.state.party(&validator.party).ok_or(Code::PartyUnknown)?;
            self.budget.spend()?;
            if !key_check::is_p256_point(&validator.public_key) || !key_check::is_ed25519_point(&validator.peer_key) {
                return Err(Code::KeyInvalid);
            }
        }
        let unchanged = |validator: &&Validator| named.binary_search(&validator.id()).is_err();
        let kept: Vec<Validator> = current.iter().filter(unchanged).cloned().collect();
        let kept_count = kept.len();
        let next = kept.into_iter().chain(body.upsert.iter().cloned()).collect();
        let next = ValidatorSet::new(next).map_err(|_| Code::ValidatorsInvalid)?;
        // Whoever is suspended comes back by a verdict and not by a change, needs a peer key of its own until then, and is
        // one of at most f of all.
        let full = next.iter().chain(suspended).cloned().collect();
        let full = ValidatorSet::new(full).map_err(|_| Code::ValidatorsInvalid)?;
        let fits = suspended.len() <= full.faulty_max() && is_gradual(current, kept_count, &next);
        if fits { Ok(next) } else { Err(Code::ValidatorsInvalid) }
    }
}

/// Whether a fault-tolerant network stays live through the change: at most f validators go or are replaced, and those
/// that stay are a quorum of the new set, even if no newcomer ever starts. Smaller networks have no fault to tolerate
/// and may change freely.
fn is_gradual(current: &ValidatorSet, kept: usize, next: &ValidatorSet) -> bool {
    current.len() < FAULT_TOLERANT_MIN
        || (next.len() >= FAULT_TOLERANT_MIN && current.len() - kept <= current.faulty_max() && kept >= next.quorum())
}
