//! The guard of dual control: at least two governors can always act.
//!
//! A governor can act when it is not suspended and holds a live key of a suite that is enabled now and by the change of
//! parameters that waits. Whatever command would leave fewer than two such governors is refused, whichever way it takes:
//! suspending, revoking a role, ending a key, disabling a suite. A compromised last key is rotated instead of revoked.

use alloc::collections::BTreeMap;

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::hash::PartyId;
use stele_types::parameters::Parameters;
use stele_types::party::Role;
use stele_types::suite::Suite;

use super::Execution;
use crate::value::{GovernorsRecord, ParametersRecord, PartyRecord};

/// Governors without whom nothing under dual control could ever be decided again.
pub const GOVERNORS_MIN: u32 = 2;

impl Execution<'_, '_, '_> {
    /// Writes a party and keeps the count of governors true.
    pub(super) fn put_party(&mut self, id: PartyId, party: PartyRecord) {
        let before = self.state.party(&id).and_then(|party| group(&party));
        let after = group(&party);
        if before != after {
            let governors: GovernorsRecord = self.state.singleton();
            self.state.put(&(), &governors.moved(before, after));
        }
        self.state.put(&id, &party);
    }

    /// Refuses a statement that would leave fewer than two governors able to act.
    pub(super) fn check_governors(&mut self) -> Result<(), Code> {
        if !self.state.wrote_rules() {
            return Ok(());
        }
        let governors: GovernorsRecord = self.state.singleton();
        let parameters: ParametersRecord = self.state.singleton();
        if governors.able(&parameters) < GOVERNORS_MIN { Err(Code::StateConflict) } else { Ok(()) }
    }
}

/// The group of a governor that is not suspended: the set of suites of its live keys.
pub(crate) fn group(party: &PartyRecord) -> Option<u8> {
    let counts = party.roles.contains(Role::Governor) && !party.suspended;
    counts.then(|| party.keys.iter().fold(0, |suites, (_, suite)| suites | suite_bit(*suite)))
}

fn suite_bit(suite: Suite) -> u8 {
    1 << suite.number()
}

fn enabled(parameters: &Parameters) -> u8 {
    parameters.suites.iter().fold(0, |suites, rule| suites | suite_bit(rule.suite))
}

impl GovernorsRecord {
    /// The count after one governor left the group `before` and joined the group `after`.
    pub(crate) fn moved(&self, before: Option<u8>, after: Option<u8>) -> Self {
        let mut groups: BTreeMap<u8, u32> = self.groups.iter().copied().collect();
        if let Some(left) = before {
            let count = groups.remove(&left).expect("a governor is counted in its group");
            if count > 1 {
                groups.insert(left, count - 1);
            }
        }
        if let Some(joined) = after {
            *groups.entry(joined).or_default() += 1;
        }
        Self { groups: List::new(groups.into_iter().collect()).expect("suites make fewer groups than the bound") }
    }

    /// Governors that can act now and under the parameters that wait.
    pub fn able(&self, parameters: &ParametersRecord) -> u32 {
        let pending = parameters.pending.as_ref().map_or(u8::MAX, |pending| enabled(&pending.parameters));
        let suites = enabled(&parameters.current) & pending;
        self.groups.iter().filter(|(group, _)| group & suites != 0).map(|(_, count)| count).sum()
    }
}
