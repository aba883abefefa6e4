//! Typed reads of the state for those who answer questions: API, command line, verifier.
//!
//! Who holds only a proof computes the key with [`Stored::state_key`], checks the proof against a certified state root
//! and reads the proven value with [`Stored::from_value`]:
//!
//! ```
//! use stele_ledger::{Stored, value::PartyRecord};
//! use stele_types::PartyId;
//!
//! let key = PartyRecord::state_key(&PartyId([7; 16]));
//! assert!(PartyRecord::from_value(&[0xa0]).is_err(), "an empty map is no party");
//! # let _ = key;
//! ```
//!
//! The functions panic when a value is damaged, because the state is the node's own.

use alloc::vec::Vec;
use stele_types::asset::CertificateNumber;
use stele_types::command::Command;
use stele_types::hash::{Hash, KeyId, ObjectId, PartyId, StatementId, ValidatorId};
use stele_types::validator::ValidatorSet;

use crate::change;
use crate::state::{StateView, read};
use crate::value::{
    AssetRecord, AttestationRecord, CertificateRecord, ChainRecord, EpochRecord, KeyRecord, MandatePair, MandateRecord,
    OpenProposals, PROPOSAL_CHUNK_BYTES_MAX, ParametersRecord, PartyRecord, ProposalChunk, ProposalRecord,
    ProtocolRecord, RecordAnchor, StandingRecord, TlsPinRecord, ValidatorsRecord,
};

pub use crate::state::Stored;

/// A party.
pub fn party(view: &dyn StateView, id: &PartyId) -> Option<PartyRecord> {
    read(view, id)
}

/// A key.
pub fn key(view: &dyn StateView, id: &KeyId) -> Option<KeyRecord> {
    read(view, id)
}

/// The party that pinned the key of a client certificate: SHA-256 of its SubjectPublicKeyInfo.
pub fn party_of_tls_pin(view: &dyn StateView, pin: &Hash) -> Option<PartyId> {
    read::<TlsPinRecord>(view, pin).map(|record| record.party)
}

/// A mandate.
pub fn mandate(view: &dyn StateView, id: &ObjectId) -> Option<MandateRecord> {
    read(view, id)
}

/// Mandates from one party to another that were not withdrawn.
pub fn mandates(view: &dyn StateView, grantor: PartyId, grantee: PartyId) -> Option<MandatePair> {
    read(view, &(grantor, grantee))
}

/// The newest version of a record.
pub fn record(view: &dyn StateView, id: &ObjectId) -> Option<RecordAnchor> {
    read(view, id)
}

/// A data asset with its certificate.
pub fn asset(view: &dyn StateView, id: &ObjectId) -> Option<AssetRecord> {
    read(view, id)
}

/// The asset of a certificate number.
pub fn asset_of_certificate(view: &dyn StateView, number: &CertificateNumber) -> Option<ObjectId> {
    read::<CertificateRecord>(view, number).map(|record| record.asset)
}

/// A proposal.
pub fn proposal(view: &dyn StateView, id: &StatementId) -> Option<ProposalRecord> {
    read(view, id)
}

/// The command of a proposal that was not decided yet.
pub fn proposed_command(view: &dyn StateView, id: &StatementId) -> Option<Command> {
    let record = proposal(view, id)?;
    let pieces = record.command_bytes.div_ceil(u32::try_from(PROPOSAL_CHUNK_BYTES_MAX).ok()?);
    let mut bytes = Vec::new();
    for piece in 0..u8::try_from(pieces).ok()? {
        bytes.extend_from_slice(&read::<ProposalChunk>(view, &(*id, piece))?.bytes);
    }
    Command::from_bytes(&bytes).ok()
}

/// Proposals of a party that were not decided; some may have expired.
pub fn open_proposals(view: &dyn StateView, party: &PartyId) -> Option<OpenProposals> {
    read(view, party)
}

/// Epoch certificates of a validator.
pub fn epoch(view: &dyn StateView, validator: &ValidatorId) -> Option<EpochRecord> {
    read(view, validator)
}

/// Height, time and log size.
pub fn chain(view: &dyn StateView) -> Option<ChainRecord> {
    read(view, &())
}

/// Parameters in force at the next height, and the change that waits.
pub fn parameters(view: &dyn StateView) -> Option<ParametersRecord> {
    read(view, &())
}

/// Protocol version in force at the next height, and the one that waits.
pub fn protocol(view: &dyn StateView) -> Option<ProtocolRecord> {
    read(view, &())
}

/// Which validator set is in force at the next height, and which waits.
pub fn validators(view: &dyn StateView) -> Option<ValidatorsRecord> {
    read(view, &())
}

/// The validator set that waits for its height, once its change is decided.
pub fn pending_validators(view: &dyn StateView) -> Option<ValidatorSet> {
    let pending = validators(view)?.pending?;
    Some(change::validator_set(&pending, |id| read(view, id)))
}

/// Since when the rule of admission holds, and who is suspended by it; none without such a rule.
pub fn attestation(view: &dyn StateView) -> Option<AttestationRecord> {
    read(view, &())
}

/// What regulators found out about a validator; none when nothing is known of it.
pub fn standing(view: &dyn StateView, validator: &ValidatorId) -> Option<StandingRecord> {
    read(view, validator)
}
