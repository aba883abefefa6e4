//! What a block changed, for feeds and metrics. Events repeat what statements and state say and decide nothing.

use alloc::boxed::Box;

use stele_types::asset::CertificateNumber;
use stele_types::attestation::Verdict;
use stele_types::hash::{KeyId, ObjectId, PartyId, StatementId, ValidatorId};
use stele_types::header::{Height, LogIndex};
use stele_types::party::RoleSet;
use stele_types::record::RecordClass;
use stele_types::vote::EpochCertificate;

/// Something that happened in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Leaf of the statement that caused it; none when a block brought it about, as an activation.
    pub index: Option<LogIndex>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A party was enrolled.
    PartyEnrolled(PartyId),
    /// A party may no longer act.
    PartySuspended(PartyId),
    /// A party may act again.
    PartyResumed(PartyId),
    /// A party holds other roles.
    RolesChanged {
        /// The party.
        party: PartyId,
        /// Its roles now.
        roles: RoleSet,
    },
    /// A key was enrolled.
    KeyEnrolled {
        /// Its holder.
        party: PartyId,
        /// The key.
        key: KeyId,
    },
    /// A key was revoked, rotated away or reset.
    KeyEnded {
        /// Its holder.
        party: PartyId,
        /// The key.
        key: KeyId,
    },
    /// A party pinned other client certificates.
    TlsPinsChanged(PartyId),
    /// A mandate was given.
    MandateGiven(ObjectId),
    /// A mandate was withdrawn.
    MandateWithdrawn(ObjectId),
    /// A command waits for approval.
    Proposed {
        /// The proposal.
        proposal: StatementId,
        /// Number of the command.
        command: u16,
    },
    /// A proposal was approved and applied.
    ProposalApproved(StatementId),
    /// A proposal was taken back.
    ProposalWithdrawn(StatementId),
    /// A record was anchored.
    RecordPut {
        /// The record.
        record: ObjectId,
        /// Its class.
        class: RecordClass,
    },
    /// A record has a new version.
    RecordCorrected {
        /// The record.
        record: ObjectId,
        /// The version.
        version: u32,
    },
    /// A data asset was registered.
    AssetRegistered {
        /// The asset.
        asset: ObjectId,
        /// Number of its certificate.
        number: CertificateNumber,
    },
    /// A certificate was cancelled.
    AssetCancelled {
        /// The asset.
        asset: ObjectId,
        /// Number of its certificate.
        number: CertificateNumber,
    },
    /// An opaque statement was registered.
    OpaqueRegistered(StatementId),
    /// The key of a validator's votes was certified. Who builds bundles keeps the certificate, because the state keeps
    /// the newest only.
    EpochCertified(Box<EpochCertificate>),
    /// A regulator judged a validator's evidence.
    AttestationReported {
        /// The validator.
        validator: ValidatorId,
        /// The verdict.
        verdict: Verdict,
    },
    /// A validator will be out of the set until a verdict passes.
    ValidatorSuspended(ValidatorId),
    /// A suspended validator will be back.
    ValidatorReinstated(ValidatorId),
    /// Parameters will change.
    ParametersScheduled(Height),
    /// The validator set will change.
    ValidatorsScheduled(Height),
    /// The protocol version will change.
    ProtocolScheduled {
        /// First height under the version.
        height: Height,
        /// The version.
        version: u32,
    },
    /// Other parameters are in force from this height on.
    ParametersActivated(Height),
    /// Another validator set is in force from this height on.
    ValidatorsActivated(Height),
    /// Another protocol version is in force from this height on.
    ProtocolActivated {
        /// First height under the version.
        height: Height,
        /// The version.
        version: u32,
    },
}
