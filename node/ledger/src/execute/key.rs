//! Keys: enrolment, rotation, revocation, reset. A key id begins once and ends once.

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::hash::{KeyId, PartyId};
use stele_types::party::{EnrolledKey, KeyEnrol, KeyReset, KeyRevoke, KeyRotate, RevocationReason};

use super::Execution;
use crate::event::EventKind;
use crate::value::{KeyEnd, KeyRecord, PartyRecord};

impl Execution<'_, '_, '_> {
    pub(super) fn key_enrol(&mut self, body: &KeyEnrol) -> Result<(), Code> {
        self.check_new_key(&body.key)?;
        let mut party = self.known_party(self.actor)?;
        add_key(&mut party, &body.key)?;
        self.begin_key(self.actor, &body.key);
        self.put_party(self.actor, party);
        self.emit(EventKind::KeyEnrolled { party: self.actor, key: body.key.id() });
        Ok(())
    }

    pub(super) fn key_rotate(&mut self, body: &KeyRotate) -> Result<(), Code> {
        let old = self.own_live_key(&body.old)?;
        self.check_new_key(&body.new)?;
        let mut party = self.known_party(self.actor)?;
        remove_key(&mut party, &body.old);
        add_key(&mut party, &body.new)?;
        self.end_key(body.old, old, RevocationReason::Superseded);
        self.begin_key(self.actor, &body.new);
        self.put_party(self.actor, party);
        self.emit(EventKind::KeyEnded { party: self.actor, key: body.old });
        self.emit(EventKind::KeyEnrolled { party: self.actor, key: body.new.id() });
        Ok(())
    }

    pub(super) fn key_revoke(&mut self, body: &KeyRevoke) -> Result<(), Code> {
        let key = self.own_live_key(&body.key)?;
        let mut party = self.known_party(self.actor)?;
        remove_key(&mut party, &body.key);
        self.end_key(body.key, key, body.reason);
        self.put_party(self.actor, party);
        self.emit(EventKind::KeyEnded { party: self.actor, key: body.key });
        Ok(())
    }

    pub(super) fn key_reset(&mut self, body: &KeyReset) -> Result<(), Code> {
        let mut party = self.known_party(body.party)?;
        self.check_new_key(&body.key)?;
        let ended = core::mem::take(&mut party.keys);
        for (id, _) in ended.iter() {
            let key: KeyRecord = self.state.read(id).expect("a party lists keys that are enrolled");
            self.end_key(*id, key, RevocationReason::Superseded);
            self.emit(EventKind::KeyEnded { party: body.party, key: *id });
        }
        add_key(&mut party, &body.key)?;
        self.begin_key(body.party, &body.key);
        self.put_party(body.party, party);
        self.emit(EventKind::KeyEnrolled { party: body.party, key: body.key.id() });
        Ok(())
    }

    /// A key that the actor names as its own and that has not ended.
    fn own_live_key(&mut self, id: &KeyId) -> Result<KeyRecord, Code> {
        let key: KeyRecord = self.state.read(id).ok_or(Code::KeyUnknown)?;
        if key.party != self.actor {
            return Err(Code::NotHolder);
        }
        if key.ended.is_some() {
            return Err(Code::StateConflict);
        }
        Ok(key)
    }

    pub(super) fn begin_key(&mut self, party: PartyId, key: &EnrolledKey) {
        let record = KeyRecord { party, key: key.clone(), enrolled: self.context.height, ended: None };
        self.state.put(&key.id(), &record);
    }

    fn end_key(&mut self, id: KeyId, mut key: KeyRecord, reason: RevocationReason) {
        key.ended = Some(KeyEnd { height: self.context.height, reason });
        self.state.put(&id, &key);
    }
}

fn add_key(party: &mut PartyRecord, key: &EnrolledKey) -> Result<(), Code> {
    let mut keys = core::mem::take(&mut party.keys).into_vec();
    keys.push((key.id(), key.suite));
    party.keys = List::new(keys).map_err(|_| Code::LimitReached)?;
    Ok(())
}

fn remove_key(party: &mut PartyRecord, id: &KeyId) {
    let mut keys = core::mem::take(&mut party.keys).into_vec();
    keys.retain(|(key, _)| key != id);
    party.keys = List::new(keys).expect("the list only shrank");
}
