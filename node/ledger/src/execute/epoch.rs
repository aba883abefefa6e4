//! Epoch certificates: a validator's long-term key lends its vote to a short-lived key.

use alloc::boxed::Box;
use alloc::vec::Vec;

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::governance::EpochCertify;
use stele_types::hash::ValidatorId;
use stele_types::validator::Validator;
use stele_types::vote::EpochCertificate;

use super::Execution;
use crate::change;
use crate::event::EventKind;
use crate::key_check;
use crate::value::{AttestationRecord, EPOCH_CERTIFICATES_MAX, EpochRecord, ValidatorsRecord};

impl Execution<'_, '_, '_> {
    pub(super) fn epoch_certify(&mut self, body: &EpochCertify) -> Result<(), Code> {
        // Reading the sets costs as much as a curve computation, so it is paid for first.
        self.budget.spend()?;
        let certificate = &body.certificate;
        let validator = self.validator(&certificate.validator).ok_or(Code::EpochInvalid)?;
        let listed = self.state.read::<EpochRecord>(&certificate.validator);
        let mut certificates = listed.map_or_else(Vec::new, |record| record.certificates.into_vec());
        if certificates.contains(certificate) {
            return Err(Code::AlreadyExists);
        }
        // Only a later beginning replaces, so nobody can bring an old certificate back.
        let is_newest = certificates.iter().all(|older| older.from_height < certificate.from_height);
        if certificate.network != self.context.network || !self.fits(certificate) || !is_newest {
            return Err(Code::EpochInvalid);
        }
        if !key_check::is_signed_by(certificate, &validator.public_key) {
            return Err(Code::EpochInvalid);
        }
        if certificates.len() == EPOCH_CERTIFICATES_MAX {
            certificates.remove(0);
        }
        certificates.push(certificate.clone());
        let certificates = List::new(certificates).expect("the oldest made room");
        self.state.put(&certificate.validator, &EpochRecord { certificates });
        self.emit(EventKind::EpochCertified(Box::new(certificate.clone())));
        Ok(())
    }

    /// A validator of the set in force or of the one that waits, so that a newcomer is ready at its first height, or a
    /// suspended one.
    pub(super) fn validator(&self, id: &ValidatorId) -> Option<Validator> {
        let record: ValidatorsRecord = self.state.singleton();
        let heads = core::iter::once(&record.current).chain(&record.pending);
        let mut sets = heads.map(|head| change::validator_set(head, |id| self.state.read(id)));
        let of_set = sets.find_map(|set| set.index_of(id).and_then(|index| set.get(index)).cloned());
        of_set.or_else(|| {
            let suspended = self.state.read::<AttestationRecord>(&())?.suspended;
            suspended.iter().find(|validator| validator.id() == *id).cloned()
        })
    }

    /// Heights of a certificate: a range of bounded length that is not over and begins within reach.
    fn fits(&self, certificate: &EpochCertificate) -> bool {
        let (from, until) = (certificate.from_height.0, certificate.until_height.0);
        let next = self.context.height.next().0;
        until >= next
            && from <= next.saturating_add(EpochCertificate::HEIGHTS_MAX)
            && until.checked_sub(from).is_some_and(|span| span < EpochCertificate::HEIGHTS_MAX)
    }
}
