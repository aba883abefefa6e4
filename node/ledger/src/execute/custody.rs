//! Records: anchors and corrections.

use stele_types::code::Code;
use stele_types::command::Family;
use stele_types::custody::{RecordCorrect, RecordPut};

use super::Execution;
use crate::event::EventKind;
use crate::value::RecordAnchor;

impl Execution<'_, '_, '_> {
    pub(super) fn record_put(&mut self, body: &RecordPut) -> Result<(), Code> {
        if body.body_root.is_some() != body.body_hash.is_some() || body.on_behalf_of == Some(self.actor) {
            return Err(Code::FieldInvalid);
        }
        if let Some(principal) = body.on_behalf_of {
            self.check_mandate(principal, Family::Custody)?;
        }
        if self.state.contains::<RecordAnchor>(&body.record) {
            return Err(Code::AlreadyExists);
        }
        let anchor = RecordAnchor {
            issuer: self.actor,
            class: body.class,
            schema: body.schema,
            subject: body.subject,
            place: body.place,
            event_day: body.event_day,
            sensitivity: body.sensitivity,
            retention: body.retention,
            policy: body.policy,
            commitment: body.commitment,
            body_root: body.body_root,
            body_hash: body.body_hash,
            on_behalf_of: body.on_behalf_of,
            version: 1,
            index: self.index,
            previous: None,
        };
        self.state.put(&body.record, &anchor);
        self.emit(EventKind::RecordPut { record: body.record, class: body.class });
        Ok(())
    }

    pub(super) fn record_correct(&mut self, body: &RecordCorrect) -> Result<(), Code> {
        if body.body_root.is_some() != body.body_hash.is_some() {
            return Err(Code::FieldInvalid);
        }
        let mut anchor: RecordAnchor = self.state.read(&body.record).ok_or(Code::ObjectUnknown)?;
        if anchor.issuer != self.actor {
            return Err(Code::NotHolder);
        }
        if let Some(principal) = anchor.on_behalf_of {
            self.check_mandate(principal, Family::Custody)?;
        }
        if anchor.version != body.follows {
            return Err(Code::StateConflict);
        }
        anchor.version = anchor.version.checked_add(1).ok_or(Code::LimitReached)?;
        anchor.commitment = body.commitment;
        anchor.body_root = body.body_root;
        anchor.body_hash = body.body_hash;
        anchor.previous = Some(anchor.index);
        anchor.index = self.index;
        self.state.put(&body.record, &anchor);
        self.emit(EventKind::RecordCorrected { record: body.record, version: anchor.version });
        Ok(())
    }
}
