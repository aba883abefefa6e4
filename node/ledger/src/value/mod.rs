//! The values of the state, one CBOR map each, grouped as the commands are.

mod asset;
mod attestation;
mod chain;
mod custody;
mod governance;
mod party;
mod replay;

pub use asset::{AssetEnd, AssetRecord, CertificateRecord, ClaimRecord, SerialRecord};
pub use attestation::{AttestationRecord, ReportedVerdict, SUSPENDED_MAX, StandingRecord};
pub use chain::{
    ChainRecord, EPOCH_CERTIFICATES_MAX, EpochRecord, ParametersRecord, PendingParameters, PendingProtocol,
    ProtocolRecord, VALIDATORS_PER_CHUNK, ValidatorChunk, ValidatorSetHead, ValidatorsRecord,
};
pub use custody::RecordAnchor;
pub use governance::{
    Decision, DecisionKind, GOVERNOR_GROUPS_MAX, GovernorsRecord, OpenProposal, OpenProposals,
    PROPOSAL_CHUNK_BYTES_MAX, PROPOSALS_OPEN_MAX, ProposalChunk, ProposalRecord,
};
pub use party::{
    KeyEnd, KeyRecord, MANDATES_PER_PAIR_MAX, MandatePair, MandateRecord, PairMandate, PartyRecord, TlsPinRecord,
};
pub use replay::{REPLAY_KEYS_PER_CHUNK, ReplayChunk, ReplayEntry, ReplayQueue};
