//! Parameters, validators and versions change at their height.

use stele_ledger::{ACTIVATION_DISTANCE_MAX, EventKind, apply, query};
use stele_types::cbor::List;
use stele_types::governance::{ParametersChange, ProtocolUpgrade, ValidatorsChange};
use stele_types::header::Height;
use stele_types::parameters::SuiteRule;
use stele_types::record::ContentHash;
use stele_types::suite::Suite;
use stele_types::validator::{Validator, ValidatorSet};
use stele_types::{Code, Command, Parameters, ProposerSchedule};

use crate::network::{Network, genesis, header, party, validator};

fn parameters(activation_height: u64, parameters: Parameters) -> Command {
    Command::ParametersChange(ParametersChange { activation_height, parameters })
}

fn validators(activation_height: u64, upsert: &[Validator], remove: &[Validator]) -> Command {
    Command::ValidatorsChange(ValidatorsChange {
        activation_height,
        upsert: List::new(upsert.to_vec()).unwrap(),
        remove: List::new(remove.iter().map(Validator::id).collect()).unwrap(),
    })
}

fn set(numbers: &[u8]) -> ValidatorSet {
    ValidatorSet::new(numbers.iter().map(|n| validator(*n)).collect()).unwrap()
}

fn faster() -> Parameters {
    Parameters { heartbeat_ms: 5_000, ..Parameters::default() }
}

#[test]
fn changes_wait_for_their_height_and_one_waits_at_a_time() {
    let mut network = Network::new();
    // The proposal takes one block, the approval that decides takes the next.
    let decided_at = network.height + 2;
    for height in [0, decided_at, decided_at + 1, decided_at + ACTIVATION_DISTANCE_MAX + 1] {
        assert_eq!(network.clone().dual(&parameters(height, faster())), Code::ActivationInvalid, "{height}");
    }
    let height = decided_at + 6;
    assert_eq!(network.dual(&parameters(height, faster())), Code::Applied);
    assert_eq!(network.dual(&parameters(height + 10, faster())), Code::ActivationInvalid, "taken");
    assert_eq!(network.frame().parameters, Parameters::default());
    network.reach(height - 2);
    assert_eq!(network.frame().parameters, Parameters::default());
    network.reach(height - 1);
    assert_eq!(network.frame().parameters, faster(), "in force exactly from its height");
    assert_eq!(network.dual(&parameters(height + 10, Parameters::default())), Code::Applied, "the place is free again");
}

#[test]
fn parameters_keep_what_cannot_change() {
    let network = Network::new();
    for unsound in [
        Parameters { state_hash: ContentHash::Sm3, ..faster() },
        Parameters { protocol_version: 2, ..faster() },
        Parameters { heartbeat_ms: 1, ..faster() },
    ] {
        assert_eq!(network.clone().dual(&parameters(10, unsound)), Code::FieldInvalid);
    }
    let only = |suite| {
        let suites = List::new([SuiteRule { suite, version: 1 }].into()).unwrap();
        parameters(10, Parameters { suites, ..faster() })
    };
    assert_eq!(network.clone().dual(&only(Suite::EdDsa)), Code::StateConflict, "no governor could sign any more");
    let mut network = network;
    assert_eq!(network.dual(&only(Suite::Es256)), Code::Applied);
    // While the change waits, the last governors may not move to the suite that ends.
    let other = stele_types::party::EnrolledKey {
        suite: Suite::EdDsa,
        public_key: stele_types::cbor::Blob::new(crate::network::ed25519_key(1).to_vec()).unwrap(),
    };
    let rotate = |n| {
        let old = crate::network::party_key(n, 0).id();
        Command::KeyRotate(stele_types::party::KeyRotate { old, new: other.clone() })
    };
    assert_eq!(network.run(1, &rotate(1)), Code::Applied, "two remain");
    let other = stele_types::party::EnrolledKey {
        public_key: stele_types::cbor::Blob::new(crate::network::ed25519_key(2).to_vec()).unwrap(),
        ..other
    };
    let rotate = stele_types::party::KeyRotate { old: crate::network::party_key(2, 0).id(), new: other };
    assert_eq!(network.run(2, &Command::KeyRotate(rotate)), Code::StateConflict, "fewer than two would");
}

#[test]
fn the_set_changes_at_its_height_and_the_rotation_starts_anew() {
    let mut network = Network::new();
    let old = set(&[0, 1, 2, 3]);
    let new = set(&[0, 1, 2, 3, 4]);
    // Some silence, so that a fresh rotation can be told from an old one.
    let mut late = network.header(1000);
    late.creation_round = 2;
    let frame = network.frame();
    late.proposer = frame.validators.get(frame.schedule.proposer(1, 2)).unwrap().id();
    network.commit(&late, &[]);
    assert_ne!(network.frame().schedule, ProposerSchedule::new(4));
    assert_eq!(network.frame().schedule, frame.schedule.after(1, 2, frame.schedule.proposer(1, 2)));
    let height = network.height + 5;
    assert_eq!(network.dual(&validators(height, &[validator(4)], &[])), Code::Applied);
    network.reach(height - 3);
    assert_eq!((network.frame().validators, network.frame().next_validators), (old.clone(), old.clone()));
    network.reach(height - 2);
    assert_eq!((network.frame().validators, network.frame().next_validators), (old, new.clone()));
    let applied = network.block(&[]);
    assert!(applied.events.iter().any(|event| event.kind == EventKind::ValidatorsActivated(Height(height))));
    assert_eq!((network.frame().validators, network.frame().next_validators), (new.clone(), new));
    assert_eq!(network.frame().schedule, ProposerSchedule::new(5));
    network.reach(height + 10);
    let chunks: Vec<u64> = (0..=network.height).filter(|since| chunk_exists(&network, *since)).collect();
    assert_eq!(chunks, [height], "the old set's chunks are gone");
}

fn chunk_exists(network: &Network, since: u64) -> bool {
    use stele_ledger::{StateView, Stored, value::ValidatorChunk};
    network.state.get(&ValidatorChunk::state_key(&(Height(since), 0))).is_some()
}

#[test]
fn sets_change_gradually() {
    let network = Network::new();
    let other_peer = Validator { peer_key: crate::network::ed25519_key(90), ..validator(0) };
    let taken_peer = Validator { peer_key: validator(1).peer_key, ..validator(4) };
    let refused = [
        (vec![], vec![]),
        (vec![], vec![validator(0)]),
        (vec![], vec![validator(9)]),
        (vec![validator(4)], vec![validator(4)]),
        (vec![validator(4), validator(4)], vec![]),
        (vec![validator(4), validator(5)], vec![validator(0), validator(1)]),
        (vec![validator(4), validator(5)], vec![]),
        (vec![taken_peer], vec![]),
        (vec![other_peer.clone(), validator(4)], vec![validator(1)]),
    ];
    for (upsert, remove) in refused {
        let command = validators(10, &upsert, &remove);
        assert_eq!(network.clone().dual(&command), Code::ValidatorsInvalid, "{command:?}");
    }
    let stranger = Validator { party: party(99), ..validator(4) };
    assert_eq!(network.clone().dual(&validators(10, &[stranger], &[])), Code::PartyUnknown);
    let off_curve = Validator { public_key: [0; 33], ..validator(4) };
    assert_eq!(network.clone().dual(&validators(10, &[off_curve], &[])), Code::KeyInvalid);
    let bad_peer = Validator { peer_key: [0; 32], ..validator(4) };
    assert_eq!(network.clone().dual(&validators(10, &[bad_peer], &[])), Code::KeyInvalid);
    for (upsert, remove) in
        [(vec![validator(4)], vec![]), (vec![validator(4)], vec![validator(0)]), (vec![other_peer], vec![])]
    {
        let command = validators(10, &upsert, &remove);
        assert_eq!(network.clone().dual(&command), Code::Applied, "{command:?}");
    }
}

#[test]
fn a_development_network_grows_freely_and_a_large_set_fits() {
    let mut network = Network::found(&genesis(1));
    let many: Vec<_> = (1..60).map(validator).collect();
    assert_eq!(network.dual(&validators(10, &many, &[])), Code::Applied);
    network.reach(12);
    assert_eq!(network.frame().validators.len(), 60);
    let remove: Vec<_> = (0..20).map(validator).collect();
    assert_eq!(network.dual(&validators(20, &[], &remove)), Code::ValidatorsInvalid, "f of 60 is 19");
    assert_eq!(network.dual(&validators(20, &[], &remove[..19])), Code::Applied);
    network.reach(20);
    assert_eq!(network.frame().validators.len(), 41);
}

#[test]
fn an_upgrade_sets_the_version_at_its_height() {
    let mut network = Network::new();
    let upgrade = |activation_height, version| Command::ProtocolUpgrade(ProtocolUpgrade { activation_height, version });
    assert_eq!(network.dual(&upgrade(20, 1)), Code::FieldInvalid);
    assert_eq!(network.dual(&upgrade(20, 2)), Code::Applied);
    assert_eq!(network.dual(&upgrade(21, 3)), Code::ActivationInvalid, "taken");
    // Parameters scheduled under version 1 take effect under version 2.
    assert_eq!(network.dual(&parameters(20, faster())), Code::Applied);
    network.reach(18);
    assert_eq!((network.frame().protocol_version, network.frame().parameters.protocol_version), (1, 1));
    network.reach(19);
    let frame = network.frame();
    assert_eq!((frame.protocol_version, frame.parameters.clone()), (2, Parameters { protocol_version: 2, ..faster() }));
    assert_eq!(query::protocol(&network.state).unwrap().pending, None);
    // This program executes version 1; the node halts here, and `apply` refuses to guess.
    let next = network.header(1000);
    let halted = std::panic::catch_unwind(|| apply(&network.state, &next, &[]));
    assert!(halted.is_err());
}

#[test]
fn a_block_that_does_not_follow_is_a_fault_of_the_caller() {
    let network = Network::new();
    let proposer = validator(0).id();
    for (height, time_ms) in [(2, network.time_ms + 1), (0, network.time_ms + 1), (1, network.time_ms)] {
        let header = header(network.id, Height(height), time_ms, proposer);
        assert!(std::panic::catch_unwind(|| apply(&network.state, &header, &[])).is_err());
    }
}
