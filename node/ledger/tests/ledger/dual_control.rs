//! Proposals and approvals.

use stele_ledger::value::{DecisionKind, PROPOSALS_OPEN_MAX};
use stele_ledger::{EventKind, StateView, Stored, query};
use stele_types::cbor::{Blob, List};
use stele_types::governance::{Approve, ParametersChange, Propose, ProtocolUpgrade, ValidatorsChange, Withdraw};
use stele_types::hash::StatementId;
use stele_types::party::{KeyReset, KeyRevoke, PartyEnrol, PartyStanding, RevocationReason, Role, RoleChange, RoleSet};
use stele_types::{Code, Command, Parameters};

use crate::custody::put;
use crate::network::{AGENCY, GOVERNORS, HOLDER, MINUTE_MS, Network, party, party_key};

fn suspend(number: u8) -> Command {
    Command::PartySuspend(PartyStanding { party: party(number) })
}

fn revoke_governor(number: u8) -> Command {
    Command::RoleRevoke(RoleChange { party: party(number), roles: RoleSet::of(&[Role::Governor]) })
}

fn approve(proposal: StatementId) -> Command {
    Command::Approve(Approve { proposal })
}

/// Every command that takes two.
fn dual_commands() -> Vec<Command> {
    let standing = PartyStanding { party: party(HOLDER) };
    let roles = RoleChange { party: party(HOLDER), roles: RoleSet::of(&[Role::Court]) };
    let (upsert, remove) = (List::default(), List::default());
    vec![
        Command::PartyEnrol(PartyEnrol {
            party: party(50),
            organisation: None,
            roles: RoleSet::EMPTY,
            key: party_key(50, 0),
            tls_pins: List::default(),
        }),
        Command::PartySuspend(standing.clone()),
        Command::PartyResume(standing),
        Command::RoleGrant(roles.clone()),
        Command::RoleRevoke(roles),
        Command::KeyReset(KeyReset { party: party(HOLDER), key: party_key(51, 0) }),
        Command::ParametersChange(ParametersChange { activation_height: 100, parameters: Parameters::default() }),
        Command::ValidatorsChange(ValidatorsChange { activation_height: 100, upsert, remove }),
        Command::ProtocolUpgrade(ProtocolUpgrade { activation_height: 100, version: 2 }),
    ]
}

#[test]
fn nobody_issues_a_dual_command_alone() {
    let commands = dual_commands();
    let named: Vec<u16> = commands.iter().map(Command::number).collect();
    let schema: Vec<u16> = Command::SCHEMA.iter().map(|(number, ..)| *number).collect();
    assert!(named.iter().all(|number| schema.contains(number)));
    assert!(commands.iter().all(Command::needs_dual_control));
    for command in &commands {
        for issuer in [GOVERNORS[0], AGENCY, HOLDER] {
            let mut network = Network::new();
            let expected = network.clone().block(&[]).writes.len();
            let statement = network.issue(issuer, command);
            let applied = network.block(&[statement]);
            assert_eq!(applied.outcomes[0].code, Code::DualControlRequired, "{}", command.as_str());
            // The entry, its chunk and the queue's tail are all that a rejection leaves.
            assert!(applied.writes.len() <= expected + 3, "{}", command.as_str());
        }
    }
}

#[test]
fn proposal_and_approval_take_two_governors() {
    let mut network = Network::new();
    let propose = network.propose(&suspend(HOLDER));
    assert_eq!(network.run(AGENCY, &propose), Code::RoleMissing);
    let statement = network.issue(GOVERNORS[0], &propose);
    let proposal = statement.id();
    assert_eq!(network.run(GOVERNORS[1], &approve(proposal)), Code::ProposalUnknown);
    network.block(&[statement]);
    assert_eq!(query::proposed_command(&network.state, &proposal), Some(suspend(HOLDER)));
    assert!(!query::party(&network.state, &party(HOLDER)).unwrap().suspended, "a proposal changes nothing");
    assert_eq!(network.run(GOVERNORS[0], &approve(proposal)), Code::SelfApproval);
    assert_eq!(network.run(AGENCY, &approve(proposal)), Code::RoleMissing);
    let applied = network.run_applied(GOVERNORS[1], &approve(proposal));
    let kinds: Vec<_> = applied.events.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::PartySuspended(party(HOLDER)), EventKind::ProposalApproved(proposal)]);
    assert!(query::party(&network.state, &party(HOLDER)).unwrap().suspended);
    assert_eq!(network.run(GOVERNORS[2], &approve(proposal)), Code::ProposalClosed);
    let decision = query::proposal(&network.state, &proposal).unwrap().decision.unwrap();
    assert_eq!((decision.kind, decision.party), (DecisionKind::Approved, party(GOVERNORS[1])));
    assert_eq!(query::proposed_command(&network.state, &proposal), None, "its command is gone");
    assert_eq!(query::open_proposals(&network.state, &party(GOVERNORS[0])), None, "no empty list stays");
}

#[test]
fn what_is_proposed_is_a_sound_dual_command() {
    let mut network = Network::new();
    let expires_ms = network.time_ms + MINUTE_MS;
    let nested = network.propose(&suspend(HOLDER));
    let not_dual = [Command::RecordPut(put(1, None)), nested, approve(StatementId([1; 32]))];
    for command in not_dual {
        let propose = network.propose(&command);
        assert_eq!(network.run(GOVERNORS[0], &propose), Code::FieldInvalid, "{}", command.as_str());
    }
    let garbage = Propose { command: Blob::new(vec![0xa1, 0, 0]).unwrap(), expires_ms };
    assert_eq!(network.run(GOVERNORS[0], &Command::Propose(garbage)), Code::FieldInvalid);
    let command = Blob::new(suspend(HOLDER).to_bytes()).unwrap();
    let life = Parameters::default().proposal_life_ms;
    for (expires_ms, code) in [
        (network.time_ms, Code::FieldInvalid),
        (network.time_ms + life + 10_000, Code::FieldInvalid),
        (expires_ms, Code::Applied),
    ] {
        let propose = Command::Propose(Propose { command: command.clone(), expires_ms });
        assert_eq!(network.run(GOVERNORS[0], &propose), code);
    }
}

#[test]
fn proposals_expire_and_can_be_withdrawn_by_their_proposer() {
    let mut network = Network::new();
    let propose = network.propose(&suspend(HOLDER));
    let expiring = network.issue(GOVERNORS[0], &propose);
    let withdrawn = network.issue(GOVERNORS[0], &propose);
    let (late, back) = (expiring.id(), withdrawn.id());
    network.block(&[expiring, withdrawn]);
    let withdraw = Command::Withdraw(Withdraw { proposal: back });
    assert_eq!(network.run(GOVERNORS[1], &withdraw), Code::NotHolder);
    assert_eq!(network.run(GOVERNORS[0], &withdraw), Code::Applied);
    assert_eq!(network.run(GOVERNORS[0], &withdraw), Code::ProposalClosed);
    assert_eq!(network.run(GOVERNORS[1], &approve(back)), Code::ProposalClosed);
    network.pass(10 * MINUTE_MS);
    assert_eq!(network.run(GOVERNORS[1], &approve(late)), Code::ProposalClosed);
    assert_eq!(query::proposal(&network.state, &late).unwrap().decision, None, "expiry is lazy");
    let propose = network.propose(&suspend(HOLDER));
    assert_eq!(network.run(GOVERNORS[0], &propose), Code::Applied);
    let decision = query::proposal(&network.state, &late).unwrap().decision.unwrap();
    assert_eq!(decision.kind, DecisionKind::Expired, "the next proposal clears it away");
    assert_eq!(query::proposed_command(&network.state, &late), None);
}

#[test]
fn the_proposers_authority_is_checked_again() {
    for (spoil, code) in
        [(suspend(GOVERNORS[0]), Code::PartySuspended), (revoke_governor(GOVERNORS[0]), Code::RoleMissing)]
    {
        let mut network = Network::new();
        let propose = network.propose(&suspend(HOLDER));
        let statement = network.issue(GOVERNORS[0], &propose);
        let proposal = statement.id();
        network.block(&[statement]);
        assert_eq!(network.dual_by(GOVERNORS[1], GOVERNORS[2], &spoil).0, Code::Applied);
        assert_eq!(network.run(GOVERNORS[1], &approve(proposal)), code);
        assert!(!query::party(&network.state, &party(HOLDER)).unwrap().suspended);
    }
}

#[test]
fn a_failed_approval_leaves_the_proposal_open() {
    let mut network = Network::new();
    let resume = Command::PartyResume(PartyStanding { party: party(HOLDER) });
    let propose = network.propose(&resume);
    let statement = network.issue(GOVERNORS[0], &propose);
    let proposal = statement.id();
    network.block(&[statement]);
    let before = network.state.clone();
    let applied = network.run_applied(GOVERNORS[1], &approve(proposal));
    assert_eq!(applied.outcomes[0].code, Code::StateConflict, "the inner command's code");
    assert!(applied.events.is_empty());
    let key = stele_ledger::value::ProposalRecord::state_key(&proposal);
    assert_eq!(network.state.get(&key), before.get(&key));
    assert_eq!(network.dual_by(GOVERNORS[1], GOVERNORS[2], &suspend(HOLDER)).0, Code::Applied);
    assert_eq!(network.run(GOVERNORS[2], &approve(proposal)), Code::Applied, "now it fits");
}

#[test]
fn two_governors_always_remain() {
    let mut network = Network::new();
    assert_eq!(network.dual_by(GOVERNORS[0], GOVERNORS[1], &suspend(GOVERNORS[2])).0, Code::Applied);
    for (number, other) in [(GOVERNORS[0], GOVERNORS[1]), (GOVERNORS[1], GOVERNORS[0])] {
        for command in [suspend(number), revoke_governor(number)] {
            assert_eq!(network.dual_by(number, other, &command), (Code::StateConflict, vec![]), "and nothing is told");
        }
        let revoke = KeyRevoke { key: party_key(number, 0).id(), reason: RevocationReason::Superseded };
        assert_eq!(network.run(number, &Command::KeyRevoke(revoke)), Code::StateConflict, "its last key");
    }
    let resume = Command::PartyResume(PartyStanding { party: party(GOVERNORS[2]) });
    assert_eq!(network.dual(&resume), Code::Applied);
    assert_eq!(network.dual_by(GOVERNORS[0], GOVERNORS[2], &suspend(GOVERNORS[1])).0, Code::Applied);
}

#[test]
fn open_proposals_are_bounded() {
    let mut network = Network::new();
    let propose = network.propose(&suspend(HOLDER));
    let statements: Vec<_> = (0..=PROPOSALS_OPEN_MAX).map(|_| network.issue(GOVERNORS[0], &propose)).collect();
    let applied = network.block(&statements);
    let (last, rest) = applied.outcomes.split_last().unwrap();
    assert!(rest.iter().all(stele_types::Outcome::is_applied));
    assert_eq!(last.code, Code::LimitReached);
    assert_eq!(network.run(GOVERNORS[1], &propose), Code::Applied, "another party has its own");
    network.pass(10 * MINUTE_MS);
    let propose = network.propose(&suspend(HOLDER));
    assert_eq!(network.run(GOVERNORS[0], &propose), Code::Applied, "expired ones make room");
    assert_eq!(query::open_proposals(&network.state, &party(GOVERNORS[0])).unwrap().open.len(), 1);
}

#[test]
fn a_large_command_travels_in_chunks() {
    let mut network = Network::new();
    let upsert: Vec<_> = (10..90).map(crate::network::validator).collect();
    let change = ValidatorsChange {
        activation_height: network.height + 10,
        upsert: List::new(upsert).unwrap(),
        remove: List::default(),
    };
    let command = Command::ValidatorsChange(change);
    assert!(command.to_bytes().len() > 4_096);
    assert_eq!(network.dual(&command), Code::ValidatorsInvalid, "read back whole, and refused for what it asks");
}
