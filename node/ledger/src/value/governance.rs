//! Dual control.

use stele_types::cbor::{Blob, List};
use stele_types::hash::{Hash, PartyId, StatementId};

use crate::state::stored;

/// Open proposals of one party: a person decides each, so more than this is a mistake or an attack.
pub const PROPOSALS_OPEN_MAX: usize = 64;
/// Bytes of a command per chunk: a value keeps within its bound with its map around it.
pub const PROPOSAL_CHUNK_BYTES_MAX: usize = 4_000;
/// Distinct sets of suites that governors' keys can make: six suites are assigned.
pub const GOVERNOR_GROUPS_MAX: usize = 64;

stele_types::codes! {
    /// How a proposal ended.
    pub enum DecisionKind: u8 {
        /// A second party approved and the command applied.
        Approved = 1 => "approved",
        /// Its proposer took it back.
        Withdrawn = 2 => "withdrawn",
        /// It expired and its command was removed.
        Expired = 3 => "expired",
    }
}

stele_types::record! {
    /// End of a proposal.
    pub struct Decision {
        /// How.
        1 => kind: DecisionKind,
        /// Who decided; the proposer for an expired one.
        2 => party: PartyId,
        /// Block time, milliseconds.
        3 => time_ms: u64,
    }
}

stele_types::record! {
    /// A proposal, under the id of the statement that made it. It stays after its decision, its command does not.
    pub struct ProposalRecord {
        /// Who proposed.
        1 => proposer: PartyId,
        /// Number of the command.
        2 => command_number: u16,
        /// Bytes of the command.
        3 => command_bytes: u32,
        /// SHA-256 of the command.
        4 => command_hash: Hash,
        /// Last block time at which it can be approved, milliseconds.
        5 => expires_ms: u64,
        /// Its end, if it ended.
        6 => decision: Option<Decision>,
    }
}
stored!(ProposalRecord, Proposal, StatementId, |id| [&id.0]);

stele_types::record! {
    /// A piece of an open proposal's command, under (proposal, number of the piece).
    pub struct ProposalChunk {
        /// The bytes.
        1 => bytes: Blob<PROPOSAL_CHUNK_BYTES_MAX>,
    }
}
stored!(ProposalChunk, ProposalChunk, (StatementId, u8), |(id, piece)| [&id.0, &[*piece]]);

stele_types::record! {
    /// A proposal that may still be approved.
    pub struct OpenProposal {
        /// The proposal.
        1 => proposal: StatementId,
        /// Last block time at which it can be approved, milliseconds.
        2 => expires_ms: u64,
    }
}

stele_types::record! {
    /// Proposals of a party that were not decided; expired ones go when the party proposes again.
    pub struct OpenProposals {
        /// The proposals in the order in which they were made.
        1 => open: List<OpenProposal, PROPOSALS_OPEN_MAX>,
    }
}
stored!(OpenProposals, OpenProposals, PartyId, |id| [&id.0]);

stele_types::record! {
    /// Governors that are not suspended, counted by the set of suites in which they hold live keys: bit n for suite
    /// number n. From this alone follows how many could still act if suites were disabled.
    pub struct GovernorsRecord {
        /// (set of suites, governors), ascending, no zero counts.
        1 => groups: List<(u8, u32), GOVERNOR_GROUPS_MAX>,
    }
}
stored!(GovernorsRecord, Governors, (), |()| []);
