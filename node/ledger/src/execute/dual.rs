//! Dual control: one party proposes, another approves, then the command takes effect under the proposer's authority.

use alloc::vec::Vec;

use stele_types::cbor::{Blob, List};
use stele_types::code::Code;
use stele_types::command::Command;
use stele_types::governance::{Approve, Propose, Withdraw};
use stele_types::hash::{Hash, PartyId, StatementId};

use super::Execution;
use crate::authority::{Authority, Route};
use crate::event::EventKind;
use crate::value::{
    Decision, DecisionKind, OpenProposal, OpenProposals, PROPOSAL_CHUNK_BYTES_MAX, ProposalChunk, ProposalRecord,
};

impl Execution<'_, '_, '_> {
    pub(super) fn propose(&mut self, body: &Propose) -> Result<(), Code> {
        let now = self.context.time_ms;
        let command = Command::from_bytes(&body.command).map_err(|_| Code::FieldInvalid)?;
        assert_eq!(
            Authority::of(&command).route == Route::Dual,
            command.needs_dual_control(),
            "the table of authority and the protocol name the same commands"
        );
        let life_max = now.saturating_add(self.context.parameters.proposal_life_ms);
        if !command.needs_dual_control() || body.expires_ms <= now || body.expires_ms > life_max {
            return Err(Code::FieldInvalid);
        }
        let mut open = self.still_open(now);
        open.push(OpenProposal { proposal: self.statement, expires_ms: body.expires_ms });
        self.put_open(self.actor, open)?;
        let bytes: &[u8] = &body.command;
        for (piece, bytes) in (0_u8..).zip(bytes.chunks(PROPOSAL_CHUNK_BYTES_MAX)) {
            let bytes = Blob::new(bytes.to_vec()).expect("chunks keep within their bound");
            self.state.put(&(self.statement, piece), &ProposalChunk { bytes });
        }
        let proposal = ProposalRecord {
            proposer: self.actor,
            command_number: command.number(),
            command_bytes: u32::try_from(bytes.len()).expect("commands are smaller than a u32 counts"),
            command_hash: Hash::of(bytes),
            expires_ms: body.expires_ms,
            decision: None,
        };
        self.state.put(&self.statement, &proposal);
        self.emit(EventKind::Proposed { proposal: self.statement, command: proposal.command_number });
        Ok(())
    }

    /// The command runs as the proposer's; if it fails, the approval fails with its code and the proposal stays open.
    pub(super) fn approve(&mut self, body: &Approve) -> Result<(), Code> {
        let proposal = self.open_proposal(&body.proposal)?;
        let approver = self.actor;
        if approver == proposal.proposer {
            return Err(Code::SelfApproval);
        }
        let command = self.proposed_command(&body.proposal, &proposal);
        self.check_active(proposal.proposer)?;
        self.check_role(proposal.proposer, Authority::of(&command).role)?;
        self.close(body.proposal, proposal.clone(), DecisionKind::Approved, approver);
        self.actor = proposal.proposer;
        let result = self.dispatch(&command);
        self.actor = approver;
        result?;
        self.emit(EventKind::ProposalApproved(body.proposal));
        Ok(())
    }

    pub(super) fn withdraw(&mut self, body: &Withdraw) -> Result<(), Code> {
        let proposal = self.open_proposal(&body.proposal)?;
        if proposal.proposer != self.actor {
            return Err(Code::NotHolder);
        }
        self.close(body.proposal, proposal, DecisionKind::Withdrawn, self.actor);
        self.emit(EventKind::ProposalWithdrawn(body.proposal));
        Ok(())
    }

    fn open_proposal(&self, id: &StatementId) -> Result<ProposalRecord, Code> {
        let proposal: ProposalRecord = self.state.read(id).ok_or(Code::ProposalUnknown)?;
        let is_open = proposal.decision.is_none() && self.context.time_ms <= proposal.expires_ms;
        if is_open { Ok(proposal) } else { Err(Code::ProposalClosed) }
    }

    fn proposed_command(&self, id: &StatementId, proposal: &ProposalRecord) -> Command {
        let mut bytes = Vec::new();
        for piece in 0..pieces(proposal) {
            let chunk: ProposalChunk = self.state.read(&(*id, piece)).expect("an open proposal has its command");
            bytes.extend_from_slice(&chunk.bytes);
        }
        assert_eq!(Hash::of(&bytes), proposal.command_hash, "a proposal keeps its command");
        Command::from_bytes(&bytes).expect("the command was decoded when it was proposed")
    }

    /// Ends a proposal: its command goes, its record stays.
    fn close(&mut self, id: StatementId, proposal: ProposalRecord, kind: DecisionKind, party: PartyId) {
        let listed: OpenProposals = self.state.read(&proposal.proposer).expect("an open proposal is listed");
        let mut open = listed.open.into_vec();
        open.retain(|other| other.proposal != id);
        self.put_open(proposal.proposer, open).expect("the list only shrank");
        self.end(id, proposal, kind, party);
    }

    fn end(&mut self, id: StatementId, mut proposal: ProposalRecord, kind: DecisionKind, party: PartyId) {
        for piece in 0..pieces(&proposal) {
            self.state.remove::<ProposalChunk>(&(id, piece));
        }
        proposal.decision = Some(Decision { kind, party, time_ms: self.context.time_ms });
        self.state.put(&id, &proposal);
    }

    /// The actor's open proposals; expired ones are ended, so that at most the bound of them ever lie about.
    fn still_open(&mut self, now: u64) -> Vec<OpenProposal> {
        let listed = self.state.read::<OpenProposals>(&self.actor).map_or_else(Vec::new, |list| list.open.into_vec());
        let (open, expired): (Vec<_>, Vec<_>) = listed.into_iter().partition(|listed| now <= listed.expires_ms);
        for OpenProposal { proposal: id, .. } in expired {
            let proposal = self.state.read(&id).expect("a listed proposal is recorded");
            self.end(id, proposal, DecisionKind::Expired, self.actor);
        }
        open
    }

    fn put_open(&mut self, party: PartyId, open: Vec<OpenProposal>) -> Result<(), Code> {
        if open.is_empty() {
            self.state.remove::<OpenProposals>(&party);
            return Ok(());
        }
        let open = List::new(open).map_err(|_| Code::LimitReached)?;
        self.state.put(&party, &OpenProposals { open });
        Ok(())
    }
}

fn pieces(proposal: &ProposalRecord) -> u8 {
    let bytes = usize::try_from(proposal.command_bytes).expect("a u32 fits a usize");
    u8::try_from(bytes.div_ceil(PROPOSAL_CHUNK_BYTES_MAX)).expect("a command has few chunks")
}
