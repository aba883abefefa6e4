//! Data registration: certificates begin and end.

use stele_types::asset::{AssetCancel, AssetRegister, CertificateNumber};
use stele_types::code::Code;
use stele_types::command::Family;
use stele_types::time::civil_year;

use super::Execution;
use crate::event::EventKind;
use crate::value::{AssetEnd, AssetRecord, CertificateRecord, ClaimRecord, SerialRecord};

/// Division codes of registers have six digits: a county (GB/T 2260).
const REGION_DIGITS: u32 = 6;

impl Execution<'_, '_, '_> {
    pub(super) fn asset_register(&mut self, body: &AssetRegister) -> Result<(), Code> {
        let now = self.context.time_ms;
        self.check_asset_fields(body)?;
        self.state.party(&body.holder).ok_or(Code::PartyUnknown)?;
        if body.holder != self.actor {
            self.check_mandate(body.holder, Family::Registration)?;
        }
        if self.state.contains::<AssetRecord>(&body.asset) {
            return Err(Code::AlreadyExists);
        }
        // One live certificate per content and right.
        for right in body.rights.iter() {
            let id = (body.content_hash, body.content_root, *right);
            if let Some(claim) = self.state.read::<ClaimRecord>(&id)
                && self.state.read::<AssetRecord>(&claim.asset).is_some_and(|other| other.is_live(now))
            {
                return Err(Code::StateConflict);
            }
            self.state.put(&id, &ClaimRecord { asset: body.asset });
        }
        let number = self.next_number(body)?;
        let asset = AssetRecord {
            registrar: self.actor,
            number: number.clone(),
            certificate: body.clone(),
            index: self.index,
            registered_ms: now,
            ended: None,
        };
        if !asset.is_live(now) {
            return Err(Code::FieldInvalid);
        }
        self.state.put(&body.asset, &asset);
        self.state.put(&number, &CertificateRecord { asset: body.asset });
        self.emit(EventKind::AssetRegistered { asset: body.asset, number });
        Ok(())
    }

    fn check_asset_fields(&self, body: &AssetRegister) -> Result<(), Code> {
        let region = body.region.get().checked_ilog10().map(|digits| digits + 1) == Some(REGION_DIGITS);
        let rights = !body.rights.is_empty() && body.rights.windows(2).all(|pair| pair[0] < pair[1]);
        let days = body.first_day <= body.last_day;
        if region && rights && days { Ok(()) } else { Err(Code::FieldInvalid) }
    }

    fn next_number(&mut self, body: &AssetRegister) -> Result<CertificateNumber, Code> {
        let year = civil_year(self.context.time_ms);
        let id = (body.region, body.kind, year);
        let last = self.state.read::<SerialRecord>(&id).map_or(0, |serial| serial.last);
        let serial = last.checked_add(1).ok_or(Code::LimitReached)?;
        self.state.put(&id, &SerialRecord { last: serial });
        let number = CertificateNumber { region: body.region, kind: body.kind, year, serial };
        assert!(!self.state.contains::<CertificateRecord>(&number), "a certificate number is given once");
        Ok(number)
    }

    pub(super) fn asset_cancel(&mut self, body: &AssetCancel) -> Result<(), Code> {
        let mut asset: AssetRecord = self.state.read(&body.asset).ok_or(Code::ObjectUnknown)?;
        if asset.registrar != self.actor {
            return Err(Code::NotHolder);
        }
        if !asset.is_live(self.context.time_ms) {
            return Err(Code::StateConflict);
        }
        asset.ended = Some(AssetEnd { reason: body.reason, index: self.index, time_ms: self.context.time_ms });
        self.state.put(&body.asset, &asset);
        self.emit(EventKind::AssetCancelled { asset: body.asset, number: asset.number });
        Ok(())
    }
}
