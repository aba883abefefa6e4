//! The replay window and its sweeper.

use stele_ledger::value::{ReplayEntry, ReplayQueue};
use stele_ledger::{StateView, Stored};
use stele_types::governance::ParametersChange;
use stele_types::hash::{Cti, NetworkId};
use stele_types::party::{KeyRevoke, PartyStanding, RevocationReason, Role, RoleChange, RoleSet};
use stele_types::{Code, Command, Parameters, Statement};

use crate::custody::put;
use crate::network::{
    AGENCY, HOLDER, MINUTE_MS, Memory, Network, OTHER_AGENCY, command_statement, opaque, party, party_key,
};

const PAST_MS: u64 = 15 * MINUTE_MS;

fn queue(state: &Memory) -> ReplayQueue {
    ReplayQueue::from_value(&state.get(&ReplayQueue::state_key(&())).unwrap()).unwrap()
}

fn entry_exists(state: &Memory, issuer: u8, cti: Cti) -> bool {
    state.get(&ReplayEntry::state_key(&(party(issuer), cti))).is_some()
}

fn at(network: &Network, issued_at: u64, cti: u8, record: u8) -> Statement {
    let command = Command::RecordPut(put(record, None));
    network.signed(AGENCY, party_key(AGENCY, 0).id(), issued_at, Cti([cti; 16]), &command)
}

#[test]
fn the_window_is_closed_at_both_ends() {
    let network = Network::new();
    let header = network.header(1000);
    let (oldest, newest) = ((header.time_ms - PAST_MS) / 1000, (header.time_ms + 30_000) / 1000);
    for (issued_at, code) in [
        (oldest - 1, Code::Stale),
        (oldest, Code::Applied),
        (newest, Code::Applied),
        (newest + 1, Code::Early),
        (u64::MAX, Code::Early),
        (0, Code::Stale),
    ] {
        let outcome = network.clone().commit(&header, &[at(&network, issued_at, 1, 1)]).outcomes[0].clone();
        assert_eq!(outcome.code, code, "{issued_at}");
    }
}

#[test]
fn the_same_statement_has_one_leaf_and_one_outcome() {
    let mut network = Network::new();
    let statement = network.issue(AGENCY, &Command::RecordPut(put(1, None)));
    let first = network.block(&[statement.clone(), statement.clone()]);
    assert_eq!(first.outcomes[0], first.outcomes[1], "within one block");
    assert_eq!(first.leaves, [0]);
    network.pass(10 * MINUTE_MS);
    let again = network.block(&[statement]);
    assert_eq!((again.outcomes[0].clone(), again.leaves), (first.outcomes[0].clone(), vec![]));
    assert!(again.events.is_empty());
}

#[test]
fn a_proven_rejection_stays_one_when_the_state_changes() {
    // A holder that is told `role_missing`, with proof, may file the record elsewhere. If the same bytes applied once the
    // role is granted, both would stand.
    let mut network = Network::new();
    let statement = network.issue(HOLDER, &Command::RecordPut(put(1, None)));
    assert_eq!(network.block(std::slice::from_ref(&statement)).outcomes[0].code, Code::RoleMissing);
    let grant = RoleChange { party: party(HOLDER), roles: RoleSet::of(&[Role::Agency]) };
    assert_eq!(network.dual(&Command::RoleGrant(grant)), Code::Applied);
    assert_eq!(network.block(&[statement]).outcomes[0].code, Code::RoleMissing);
    assert_eq!(network.run(HOLDER, &Command::RecordPut(put(1, None))), Code::Applied, "under a new id");
}

#[test]
fn early_is_the_one_rejection_that_is_not_final() {
    let mut network = Network::new();
    let early = at(&network, network.time_ms / 1000 + 60, 1, 1);
    assert_eq!(network.block(std::slice::from_ref(&early)).outcomes[0].code, Code::Early);
    network.pass(MINUTE_MS);
    assert_eq!(network.block(&[early]).outcomes[0].code, Code::Applied);
}

#[test]
fn one_name_stands_for_one_content_per_issuer() {
    let mut network = Network::new();
    let now = network.time_ms / 1000;
    let first = at(&network, now, 1, 1);
    let other_content = at(&network, now, 1, 2);
    let other_time = at(&network, now + 1, 1, 1);
    let command = Command::RecordPut(put(3, None));
    let other_issuer = network.signed(OTHER_AGENCY, party_key(OTHER_AGENCY, 0).id(), now, Cti([1; 16]), &command);
    let codes = |applied: stele_ledger::Applied| applied.outcomes.iter().map(|o| o.code).collect::<Vec<_>>();
    let applied = network.block(&[first.clone(), other_content.clone(), other_time, other_issuer]);
    assert_eq!(codes(applied), [Code::Applied, Code::IdConflict, Code::IdConflict, Code::Applied]);
    let again = network.block(&[other_content, first]);
    assert_eq!(codes(again), [Code::IdConflict, Code::Applied], "a conflict does not take the name over");
}

#[test]
fn foreign_keys_use_up_no_names() {
    let mut network = Network::new();
    let now = network.time_ms / 1000;
    let command = Command::RecordPut(put(1, None));
    let cti = Cti([1; 16]);
    // The holder of another key writes the agency's name over its own statement.
    let forged = network.signed(AGENCY, party_key(OTHER_AGENCY, 0).id(), now, cti, &command);
    let unknown = network.signed(AGENCY, party_key(AGENCY, 9).id(), now, cti, &command);
    let foreign = command_statement(NetworkId([9; 32]), AGENCY, party_key(AGENCY, 0).id(), now, cti, &command);
    let genuine = at(&network, now, 1, 1);
    let applied = network.block(&[forged, unknown, foreign, genuine]);
    let codes: Vec<_> = applied.outcomes.iter().map(|outcome| outcome.code).collect();
    assert_eq!(codes, [Code::IssuerMismatch, Code::KeyUnknown, Code::FieldInvalid, Code::Applied]);
}

#[test]
fn a_key_revoked_in_the_block_signs_nothing_after() {
    let mut network = Network::new();
    let revoke = KeyRevoke { key: party_key(AGENCY, 0).id(), reason: RevocationReason::Compromised };
    let before = network.issue(AGENCY, &Command::RecordPut(put(1, None)));
    let revoke = network.issue(AGENCY, &Command::KeyRevoke(revoke));
    let after = network.issue(AGENCY, &Command::RecordPut(put(2, None)));
    let applied = network.block(&[before.clone(), revoke, after.clone()]);
    let codes: Vec<_> = applied.outcomes.iter().map(|outcome| outcome.code).collect();
    assert_eq!(codes, [Code::Applied, Code::Applied, Code::KeyRevoked]);
    let again = network.block(&[before, after]);
    assert_eq!(again.outcomes[0], applied.outcomes[0], "what was decided before stays decided");
    assert_eq!(again.outcomes[1].code, Code::KeyRevoked);
}

#[test]
fn opaque_statements_are_new_after_the_window() {
    let mut network = Network::new();
    let statement = opaque(HOLDER, 1);
    let first = network.block(std::slice::from_ref(&statement)).outcomes[0].clone();
    assert_eq!(first.code, Code::Applied);
    network.pass(PAST_MS - 1_000);
    assert_eq!(network.block(std::slice::from_ref(&statement)).outcomes[0], first);
    network.pass(PAST_MS);
    let second = network.block(&[statement]);
    assert_eq!((second.outcomes[0].code, second.leaves.len()), (Code::Applied, 1));
    assert_ne!(second.outcomes[0].index, first.index);
    let suspend = PartyStanding { party: party(HOLDER) };
    assert_eq!(network.dual(&Command::PartySuspend(suspend)), Code::Applied);
    assert_eq!(network.block(&[opaque(HOLDER, 2)]).outcomes[0].code, Code::PartySuspended);
}

#[test]
fn expired_entries_are_swept_and_leave_no_garbage() {
    let mut network = Network::new();
    network.block(&[]);
    let size = network.state.0.len();
    let rejected: Vec<_> = (0..300).map(|_| network.issue(HOLDER, &Command::RecordPut(put(1, None)))).collect();
    network.block(&rejected);
    network.block(&[opaque(HOLDER, 1)]);
    assert_eq!(network.state.0.len(), size + 301 + 3 + 1, "entries and their chunks");
    network.pass(PAST_MS - 10_000);
    assert_eq!(network.state.0.len(), size + 301 + 3 + 1, "nothing goes before its time");
    network.pass(30_000);
    assert_eq!(network.state.0.len(), size);
    let queue = queue(&network.state);
    assert_eq!(queue.head, queue.tail);
}

#[test]
fn an_entry_that_waits_behind_a_newer_one_expires_on_time_and_may_be_named_again() {
    // Chunks are swept when their newest entry has expired; an entry that expired earlier counts as absent. Used again,
    // its name must survive the sweep of the chunk that first listed it.
    let mut network = Network::new();
    let issued_at = (network.time_ms + 1_000 - PAST_MS) / 1000 + 60;
    let old = at(&network, issued_at, 1, 1);
    let young = at(&network, network.time_ms / 1000 + 30, 2, 2);
    assert!(network.block(&[old.clone(), young]).outcomes.iter().all(stele_types::Outcome::is_applied));
    network.pass(2 * MINUTE_MS);
    assert!(entry_exists(&network.state, AGENCY, Cti([1; 16])), "not swept yet");
    assert_eq!(network.block(&[old]).outcomes[0].code, Code::Stale);
    let renamed = at(&network, network.time_ms / 1000, 1, 3);
    assert_eq!(network.block(std::slice::from_ref(&renamed)).outcomes[0].code, Code::Applied);
    network.pass(PAST_MS - MINUTE_MS);
    assert!(!entry_exists(&network.state, AGENCY, Cti([2; 16])), "its chunk was swept");
    assert!(entry_exists(&network.state, AGENCY, Cti([1; 16])), "but not the name that is in use again");
    assert!(network.block(&[renamed]).leaves.is_empty());
    network.pass(10 * MINUTE_MS);
    assert!(!entry_exists(&network.state, AGENCY, Cti([1; 16])));
    assert_eq!(queue(&network.state).head, queue(&network.state).tail);
}

#[test]
fn a_longer_window_readmits_nothing() {
    // Found by reasoning, before it could happen: a statement applied at t, its entry was swept at t + 15 min, and a
    // window lengthened to a day would have let it apply again.
    let mut network = Network::new();
    let statement = repeatable_command(&mut network);
    assert_eq!(network.block(std::slice::from_ref(&statement)).outcomes[0].code, Code::Applied);
    network.pass(20 * MINUTE_MS);
    let parameters = Parameters { replay_past_ms: 86_400_000, ..Parameters::default() };
    let change = ParametersChange { activation_height: network.height + 4, parameters };
    assert_eq!(network.dual(&Command::ParametersChange(change)), Code::Applied);
    network.pass(10 * MINUTE_MS);
    network.reach(network.height + 3);
    assert_eq!(network.frame().parameters.replay_past_ms, 86_400_000);
    assert_eq!(network.block(&[statement]).outcomes[0].code, Code::Stale);
    let within = at(&network, (network.time_ms - 2 * MINUTE_MS) / 1000, 9, 9);
    assert_eq!(network.block(&[within]).outcomes[0].code, Code::Applied);
}

/// A command that would apply as often as it is executed.
fn repeatable_command(network: &mut Network) -> Statement {
    use stele_types::party::TlsPin;
    network.issue(HOLDER, &Command::TlsPin(TlsPin { pins: stele_types::cbor::List::default() }))
}
