//! Parties: enrolment, standing, roles, client certificates.

use alloc::vec::Vec;

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::hash::{Hash, PartyId};
use stele_types::party::{PartyEnrol, PartyStanding, RoleChange, RoleSet, TlsPin};

use super::Execution;
use crate::event::EventKind;
use crate::value::{PartyRecord, TlsPinRecord};

impl Execution<'_, '_, '_> {
    pub(super) fn party_enrol(&mut self, body: &PartyEnrol) -> Result<(), Code> {
        if self.state.party(&body.party).is_some() {
            return Err(Code::AlreadyExists);
        }
        self.check_new_key(&body.key)?;
        self.claim_pins(body.party, &body.tls_pins, &[])?;
        let key = body.key.id();
        let party = PartyRecord {
            organisation: body.organisation,
            roles: body.roles,
            suspended: false,
            keys: List::new([(key, body.key.suite)].into()).expect("one key is within the bound"),
            tls_pins: body.tls_pins.clone(),
            enrolled_ms: self.context.time_ms,
        };
        self.begin_key(body.party, &body.key);
        self.put_party(body.party, party);
        self.emit(EventKind::PartyEnrolled(body.party));
        self.emit(EventKind::KeyEnrolled { party: body.party, key });
        Ok(())
    }

    pub(super) fn party_standing(&mut self, body: &PartyStanding, suspend: bool) -> Result<(), Code> {
        let mut party = self.known_party(body.party)?;
        if party.suspended == suspend {
            return Err(Code::StateConflict);
        }
        party.suspended = suspend;
        self.put_party(body.party, party);
        self.emit(match suspend {
            true => EventKind::PartySuspended(body.party),
            false => EventKind::PartyResumed(body.party),
        });
        Ok(())
    }

    pub(super) fn role_grant(&mut self, body: &RoleChange) -> Result<(), Code> {
        self.change_roles(body, RoleSet::union)
    }

    pub(super) fn role_revoke(&mut self, body: &RoleChange) -> Result<(), Code> {
        self.change_roles(body, RoleSet::difference)
    }

    /// A change that changes nothing says something untrue about the state, so it is a conflict.
    fn change_roles(&mut self, body: &RoleChange, change: fn(RoleSet, RoleSet) -> RoleSet) -> Result<(), Code> {
        if body.roles.is_empty() {
            return Err(Code::FieldInvalid);
        }
        let mut party = self.known_party(body.party)?;
        let roles = change(party.roles, body.roles);
        if roles == party.roles {
            return Err(Code::StateConflict);
        }
        party.roles = roles;
        self.put_party(body.party, party);
        self.emit(EventKind::RolesChanged { party: body.party, roles });
        Ok(())
    }

    pub(super) fn tls_pin(&mut self, body: &TlsPin) -> Result<(), Code> {
        let mut party = self.known_party(self.actor)?;
        self.claim_pins(self.actor, &body.pins, &party.tls_pins)?;
        party.tls_pins = body.pins.clone();
        self.put_party(self.actor, party);
        self.emit(EventKind::TlsPinsChanged(self.actor));
        Ok(())
    }

    /// Makes `pins` the pins of `party` in place of `before`. A pin belongs to one party.
    fn claim_pins(&mut self, party: PartyId, pins: &[Hash], before: &[Hash]) -> Result<(), Code> {
        let mut sorted: Vec<&Hash> = pins.iter().collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Code::FieldInvalid);
        }
        for pin in before.iter().filter(|pin| !pins.contains(pin)) {
            self.state.remove::<TlsPinRecord>(pin);
        }
        for pin in pins.iter().filter(|pin| !before.contains(pin)) {
            if self.state.contains::<TlsPinRecord>(pin) {
                return Err(Code::AlreadyExists);
            }
            self.state.put(pin, &TlsPinRecord { party });
        }
        Ok(())
    }

    pub(super) fn known_party(&mut self, party: PartyId) -> Result<PartyRecord, Code> {
        self.state.party(&party).map(|party| PartyRecord::clone(&party)).ok_or(Code::PartyUnknown)
    }
}
