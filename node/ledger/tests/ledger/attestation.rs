//! Verdicts on validators' evidence, and who leaves the set by them.

use std::collections::BTreeSet;

use stele_ledger::{EventKind, lapsed_validators, query};
use stele_types::attestation::{AttestationReport, AttestationRule, Verdict};
use stele_types::cbor::List;
use stele_types::governance::{EpochCertify, ParametersChange, ValidatorsChange};
use stele_types::hash::Hash;
use stele_types::party::{Role, RoleChange, RoleSet};
use stele_types::validator::Validator;
use stele_types::{Code, Command, Parameters};

use crate::network::{AGENCY, GOVERNORS, HOLDER, Network, epoch_certificate, genesis, party, party_key, validator};

/// Life of a verdict in these tests.
const LIFE_MS: u64 = 60_000;

fn report(n: u8, verdict: Verdict) -> Command {
    Command::AttestationReport(AttestationReport {
        validator: validator(n).id(),
        verdict,
        evidence: Hash([1; 32]),
        policy: Hash([2; 32]),
    })
}

/// A network of `validators` with a regulator, and with the rule in force.
fn network(validators: u8) -> Network {
    let mut founding = genesis(validators);
    founding.parameters.attestation = Some(AttestationRule { verdict_life_ms: LIFE_MS });
    let mut network = Network::found(&founding);
    let role = RoleChange { party: party(HOLDER), roles: RoleSet::of(&[Role::Regulator]) };
    assert_eq!(network.dual(&Command::RoleGrant(role)), Code::Applied);
    settle(&mut network);
    network
}

/// A block so much later.
fn later(network: &mut Network, ms: u64) {
    let header = network.header(ms);
    network.commit(&header, &[]);
}

fn active(network: &Network) -> BTreeSet<u8> {
    let set = network.frame().validators;
    (0..20).filter(|n| set.index_of(&validator(*n).id()).is_some()).collect()
}

fn suspended(network: &Network) -> BTreeSet<u8> {
    let record = query::attestation(&network.state).unwrap_or_default();
    (0..20).filter(|n| record.suspended.iter().any(|other| *other == validator(*n))).collect()
}

/// Lets the change that waits come into force, and the set be looked at again.
fn settle(network: &mut Network) {
    for _ in 0..12 {
        network.block(&[]);
    }
}

fn pass(network: &mut Network, numbers: impl IntoIterator<Item = u8>) {
    let statements: Vec<_> = numbers.into_iter().map(|n| network.issue(HOLDER, &report(n, Verdict::Passed))).collect();
    let applied = network.block(&statements);
    assert!(applied.outcomes.iter().all(|outcome| outcome.code == Code::Applied));
}

#[test]
fn a_verdict_is_a_regulators_and_about_a_validator() {
    let mut network = network(5);
    assert_eq!(network.run(AGENCY, &report(0, Verdict::Passed)), Code::RoleMissing);
    assert_eq!(network.run(HOLDER, &report(9, Verdict::Passed)), Code::ObjectUnknown);
    let applied = network.run_applied(HOLDER, &report(0, Verdict::Passed));
    let expected = EventKind::AttestationReported { validator: validator(0).id(), verdict: Verdict::Passed };
    assert_eq!(applied.events[0].kind, expected);
    let standing = query::standing(&network.state, &validator(0).id()).unwrap();
    let newest = standing.newest.unwrap();
    assert_eq!((newest.reporter, newest.time_ms), (party(HOLDER), network.time_ms));
    assert_eq!(standing.passed_ms, Some(newest.issued_at * 1_000), "trust counts from the signature");
}

#[test]
fn a_failed_verdict_takes_one_of_five_out_and_a_passed_one_brings_it_back() {
    let mut network = network(5);
    let certificate = epoch_certificate(network.id, 2, 1, 100);
    assert_eq!(network.run(HOLDER, &Command::EpochCertify(EpochCertify { certificate })), Code::Applied);
    let applied = network.run_applied(HOLDER, &report(2, Verdict::Failed));
    let gone = EventKind::ValidatorSuspended(validator(2).id());
    assert!(applied.events.iter().any(|event| event.kind == gone), "{:?}", applied.events);
    assert_eq!(active(&network).len(), 5, "not before its height");
    settle(&mut network);
    assert_eq!(active(&network), BTreeSet::from([0, 1, 3, 4]));
    assert_eq!(suspended(&network), BTreeSet::from([2]));
    // A second one is more than f of the full set.
    assert_eq!(network.run(HOLDER, &report(3, Verdict::Failed)), Code::Applied);
    settle(&mut network);
    assert_eq!(active(&network), BTreeSet::from([0, 1, 3, 4]));
    // One comes back, and then the other one goes.
    let applied = network.run_applied(HOLDER, &report(2, Verdict::Passed));
    let back = EventKind::ValidatorReinstated(validator(2).id());
    assert!(applied.events.iter().any(|event| event.kind == back), "{:?}", applied.events);
    settle(&mut network);
    settle(&mut network);
    assert_eq!(active(&network), BTreeSet::from([0, 1, 2, 4]));
    assert_eq!(suspended(&network), BTreeSet::from([3]));
    let certificates = query::epoch(&network.state, &validator(2).id()).unwrap().certificates;
    assert_eq!(certificates.len(), 1, "its epoch key was kept for its return");
}

#[test]
fn a_network_of_four_suspends_nobody() {
    let mut network = network(4);
    for n in 0..4 {
        assert_eq!(network.run(HOLDER, &report(n, Verdict::Failed)), Code::Applied);
    }
    network.pass(10 * LIFE_MS);
    assert_eq!(active(&network).len(), 4);
    assert!(suspended(&network).is_empty());
}

#[test]
fn a_verdict_expires_by_block_time_and_whoever_passed_stays() {
    let mut network = network(7);
    later(&mut network, LIFE_MS / 2);
    pass(&mut network, 0..5);
    assert_eq!(active(&network).len(), 7, "nobody's life has passed");
    later(&mut network, LIFE_MS / 2);
    settle(&mut network);
    assert_eq!(suspended(&network), BTreeSet::from([5, 6]), "f of seven");
    // Regulators stay away: everybody lapses, and the five go on.
    network.pass(20 * LIFE_MS);
    assert_eq!(active(&network), (0..5).collect());
    pass(&mut network, 0..7);
    settle(&mut network);
    assert_eq!(active(&network).len(), 7, "everybody is back");
    assert!(suspended(&network).is_empty());
}

#[test]
fn nobody_goes_when_more_have_expired_than_may() {
    let mut network = network(7);
    network.pass(20 * LIFE_MS);
    settle(&mut network);
    assert_eq!(active(&network).len(), 7, "regulators are away, or the network was");
    assert_eq!(lapsed_validators(&network.state, network.time_ms).len(), 7, "and it is seen");
    // One that failed goes all the same.
    assert_eq!(network.run(HOLDER, &report(3, Verdict::Failed)), Code::Applied);
    settle(&mut network);
    assert_eq!(suspended(&network), BTreeSet::from([3]));
}

#[test]
fn those_who_stay_and_propose_are_a_quorum() {
    let mut network = network(7);
    // Two are silent: blocks of their turns are made in the next round.
    let mut silent = BTreeSet::new();
    for _ in 0..2 {
        let mut header = network.header(1_000);
        let frame = network.frame();
        silent.insert(frame.schedule.proposer(header.height.0, 0));
        header.creation_round = 1;
        header.proposer = frame.validators.get(frame.schedule.proposer(header.height.0, 1)).unwrap().id();
        network.commit(&header, &[]);
    }
    let set = network.frame().validators;
    let number = |index: usize| (0..7).find(|n| set.index_of(&validator(*n).id()) == Some(index)).unwrap();
    let silent: Vec<u8> = silent.into_iter().map(number).collect();
    let live = (0..7).find(|n| !silent.contains(n)).unwrap();
    let mut other = network.clone();
    assert_eq!(other.run(HOLDER, &report(silent[0], Verdict::Failed)), Code::Applied);
    assert_eq!(suspended(&other), BTreeSet::from([silent[0]]), "who is away is not missed");
    assert_eq!(network.run(HOLDER, &report(live, Verdict::Failed)), Code::Applied);
    assert!(suspended(&network).is_empty(), "four of six would be left");
}

#[test]
fn a_regulator_judges_no_validator_of_its_own_and_takes_nothing_back_by_an_older_verdict() {
    let mut network = network(5);
    let own = RoleChange { party: party(GOVERNORS[0]), roles: RoleSet::of(&[Role::Regulator]) };
    assert_eq!(network.dual(&Command::RoleGrant(own)), Code::Applied);
    assert_eq!(network.run(GOVERNORS[0], &report(2, Verdict::Passed)), Code::SelfApproval);
    let key = party_key(HOLDER, 0).id();
    let cti = network.cti();
    let withheld = network.signed(HOLDER, key, network.time_ms / 1_000, cti, &report(2, Verdict::Passed));
    later(&mut network, 5_000);
    assert_eq!(network.run(HOLDER, &report(2, Verdict::Failed)), Code::Applied);
    assert_eq!(network.block(&[withheld]).outcomes[0].code, Code::StateConflict);
    settle(&mut network);
    assert_eq!(suspended(&network), BTreeSet::from([2]));
}

#[test]
fn a_rule_counts_from_its_beginning_and_its_end_brings_everybody_back() {
    let mut network = Network::found(&genesis(5));
    network.pass(100 * LIFE_MS);
    let role = RoleChange { party: party(HOLDER), roles: RoleSet::of(&[Role::Regulator]) };
    assert_eq!(network.dual(&Command::RoleGrant(role)), Code::Applied);
    let height = network.height + 10;
    let with = |attestation| Parameters { attestation, ..Parameters::default() };
    let change =
        |activation_height, parameters| Command::ParametersChange(ParametersChange { activation_height, parameters });
    let rule = Some(AttestationRule { verdict_life_ms: LIFE_MS });
    assert_eq!(network.dual(&change(height, with(rule))), Code::Applied);
    assert!(query::attestation(&network.state).is_none(), "no rule, no record");
    network.reach(height + 5);
    assert_eq!(active(&network).len(), 5, "nobody can have a verdict yet");
    pass(&mut network, 0..4);
    later(&mut network, LIFE_MS - 3_000);
    settle(&mut network);
    assert_eq!(active(&network), (0..4).collect());
    let height = network.height + 10;
    assert_eq!(network.dual(&change(height, with(None))), Code::Applied);
    network.reach(height + 12);
    assert_eq!(active(&network).len(), 5);
    assert!(query::attestation(&network.state).is_none());
}

#[test]
fn lives_are_bounded() {
    for (verdict_life_ms, sound) in [(9_999, false), (10_000, true), (31_536_000_000, true), (31_536_000_001, false)] {
        let attestation = Some(AttestationRule { verdict_life_ms });
        assert_eq!(Parameters { attestation, ..Parameters::default() }.is_sound(), sound, "{verdict_life_ms}");
    }
}

fn change(network: &Network, upsert: &[Validator], remove: &[u8]) -> Command {
    Command::ValidatorsChange(ValidatorsChange {
        activation_height: network.height + 6,
        upsert: List::new(upsert.to_vec()).unwrap(),
        remove: List::new(remove.iter().map(|n| validator(*n).id()).collect()).unwrap(),
    })
}

#[test]
fn governors_cannot_bring_a_suspended_one_back_and_can_remove_it() {
    let mut network = network(5);
    assert_eq!(network.run(HOLDER, &report(2, Verdict::Failed)), Code::Applied);
    settle(&mut network);
    assert_eq!(suspended(&network), BTreeSet::from([2]));
    let same_peer = Validator { peer_key: validator(2).peer_key, ..validator(6) };
    for upsert in [validator(2), same_peer] {
        let command = change(&network, &[upsert], &[]);
        assert_eq!(network.clone().dual(&command), Code::ValidatorsInvalid);
    }
    let removal = change(&network, &[], &[2]);
    assert_eq!(network.dual(&removal), Code::Applied);
    assert!(suspended(&network).is_empty());
    assert_eq!(active(&network).len(), 4);
    assert!(query::standing(&network.state, &validator(2).id()).is_none(), "nothing is kept of it");
    assert!(query::validators(&network.state).unwrap().pending.is_none(), "who voted goes on voting");
    assert_eq!(network.run(HOLDER, &report(2, Verdict::Passed)), Code::ObjectUnknown);
    // Now four: nobody else can be suspended.
    assert_eq!(network.run(HOLDER, &report(3, Verdict::Failed)), Code::Applied);
    settle(&mut network);
    assert_eq!(active(&network).len(), 4);
}

#[test]
fn a_change_of_governors_and_a_suspension_wait_for_each_other() {
    let mut network = network(5);
    let command = change(&network, &[validator(5)], &[]);
    assert_eq!(network.dual(&command), Code::Applied);
    assert_eq!(network.run(HOLDER, &report(2, Verdict::Failed)), Code::Applied);
    assert!(suspended(&network).is_empty(), "one change waits at a time");
    network.reach(network.height + 20);
    assert_eq!(active(&network), BTreeSet::from([0, 1, 3, 4, 5]), "the newcomer came, and then the other one went");
    // A newcomer is under the rule from its first height on.
    assert!(query::standing(&network.state, &validator(5).id()).unwrap().admitted_ms > 0);
}
