//! Parties, roles, keys and client certificates.

use sm2::elliptic_curve::sec1::ToEncodedPoint;
use stele_ledger::value::KeyRecord;
use stele_ledger::{CURVE_CHECKS_MAX, SigningKeys, query, signing_key};
use stele_types::cbor::{Blob, List};
use stele_types::hash::Hash;
use stele_types::limits::PARTY_KEYS_MAX;
use stele_types::party::{
    EnrolledKey, KeyEnrol, KeyReset, KeyRevoke, KeyRotate, PartyEnrol, PartyStanding, RevocationReason, Role,
    RoleChange, RoleSet, TlsPin, TlsPins,
};
use stele_types::suite::Suite;
use stele_types::{Code, Command};

use crate::custody::put;
use crate::network::{AGENCY, HOLDER, Network, ed25519_key, key, party, party_key, signing_key as secret};

fn pins(numbers: &[u8]) -> TlsPins {
    List::new(numbers.iter().map(|number| Hash([*number; 32])).collect()).unwrap()
}

fn enrol(number: u8, roles: &[Role]) -> PartyEnrol {
    PartyEnrol {
        party: party(number),
        organisation: None,
        roles: RoleSet::of(roles),
        key: party_key(number, 0),
        tls_pins: pins(&[number]),
    }
}

fn add(key: EnrolledKey) -> Command {
    Command::KeyEnrol(KeyEnrol { key })
}

fn live_keys(network: &Network, number: u8) -> usize {
    query::party(&network.state, &party(number)).unwrap().keys.len()
}

#[test]
fn a_party_acts_from_its_enrolment_on() {
    let mut network = Network::new();
    let put_by_newcomer = |network: &mut Network, record| {
        let statement = network.issue(20, &Command::RecordPut(put(record, None)));
        (signing_key(&network.state, &statement), network.block(&[statement]).outcomes[0].code)
    };
    assert_eq!(put_by_newcomer(&mut network, 1), (Err(Code::KeyUnknown), Code::KeyUnknown));
    assert_eq!(network.dual(&Command::PartyEnrol(enrol(20, &[Role::Agency]))), Code::Applied);
    assert_eq!(put_by_newcomer(&mut network, 2), (Ok(party_key(20, 0)), Code::Applied));
    assert_eq!(query::party_of_tls_pin(&network.state, &Hash([20; 32])), Some(party(20)));
    assert_eq!(network.dual(&Command::PartyEnrol(enrol(20, &[]))), Code::AlreadyExists);
    let own_key = PartyEnrol { key: party_key(AGENCY, 0), ..enrol(21, &[]) };
    assert_eq!(network.dual(&Command::PartyEnrol(own_key)), Code::AlreadyExists, "a key of another party");
    let own_pin = PartyEnrol { tls_pins: pins(&[21, AGENCY]), ..enrol(21, &[]) };
    assert_eq!(network.dual(&Command::PartyEnrol(own_pin)), Code::AlreadyExists, "a pin of another party");
    assert_eq!(query::party_of_tls_pin(&network.state, &Hash([21; 32])), None, "nothing half-applies");
}

#[test]
fn roles_and_standing_change_by_what_they_say() {
    let mut network = Network::new();
    let change = |roles: &[Role]| RoleChange { party: party(HOLDER), roles: RoleSet::of(roles) };
    let standing = PartyStanding { party: party(HOLDER) };
    assert_eq!(network.dual(&Command::RoleGrant(change(&[]))), Code::FieldInvalid);
    assert_eq!(network.dual(&Command::RoleRevoke(change(&[Role::Agency]))), Code::StateConflict, "not held");
    assert_eq!(network.dual(&Command::RoleGrant(change(&[Role::Agency]))), Code::Applied);
    assert_eq!(network.dual(&Command::RoleGrant(change(&[Role::Agency]))), Code::StateConflict, "held");
    assert_eq!(network.run(HOLDER, &Command::RecordPut(put(1, None))), Code::Applied);
    assert_eq!(network.dual(&Command::RoleRevoke(change(&[Role::Agency, Role::Court]))), Code::Applied);
    assert_eq!(network.run(HOLDER, &Command::RecordPut(put(2, None))), Code::RoleMissing);
    assert_eq!(network.dual(&Command::PartyResume(standing.clone())), Code::StateConflict);
    assert_eq!(network.dual(&Command::PartySuspend(standing.clone())), Code::Applied);
    assert_eq!(network.run(HOLDER, &Command::TlsPin(TlsPin { pins: pins(&[]) })), Code::PartySuspended);
    assert_eq!(network.dual(&Command::PartySuspend(standing.clone())), Code::StateConflict);
    assert_eq!(network.dual(&Command::PartyResume(standing)), Code::Applied);
    assert_eq!(network.run(HOLDER, &Command::TlsPin(TlsPin { pins: pins(&[]) })), Code::Applied);
    let nobody = PartyStanding { party: party(99) };
    assert_eq!(network.dual(&Command::PartySuspend(nobody)), Code::PartyUnknown);
}

#[test]
fn keys_begin_and_end_once() {
    let mut network = Network::new();
    let (first, second, third) = (party_key(AGENCY, 0), party_key(AGENCY, 1), party_key(AGENCY, 2));
    assert_eq!(network.run(AGENCY, &add(second.clone())), Code::Applied);
    assert_eq!(network.run(AGENCY, &add(second.clone())), Code::AlreadyExists);
    assert_eq!(network.run(HOLDER, &add(second.clone())), Code::AlreadyExists, "nor by another party");
    let rotate =
        |old: &EnrolledKey, new: &EnrolledKey| Command::KeyRotate(KeyRotate { old: old.id(), new: new.clone() });
    let revoke =
        |key: &EnrolledKey| Command::KeyRevoke(KeyRevoke { key: key.id(), reason: RevocationReason::Compromised });
    assert_eq!(network.run(HOLDER, &rotate(&second, &third)), Code::NotHolder);
    assert_eq!(network.run(HOLDER, &revoke(&second)), Code::NotHolder);
    assert_eq!(network.run(AGENCY, &revoke(&third)), Code::KeyUnknown);
    assert_eq!(network.run(AGENCY, &rotate(&second, &first)), Code::AlreadyExists);
    assert_eq!(network.run(AGENCY, &rotate(&second, &third)), Code::Applied);
    assert_eq!(network.run(AGENCY, &rotate(&second, &party_key(AGENCY, 3))), Code::StateConflict, "it ended");
    assert_eq!(network.run(AGENCY, &add(second.clone())), Code::AlreadyExists, "an ended key never begins again");
    assert_eq!(network.run(AGENCY, &revoke(&third)), Code::Applied);
    assert_eq!(live_keys(&network, AGENCY), 1);
    let ended: KeyRecord = query::key(&network.state, &third.id()).unwrap();
    assert_eq!(ended.ended.unwrap().reason, RevocationReason::Compromised);
    assert_eq!(network.run(AGENCY, &revoke(&first)), Code::Applied, "even the last one, for no governor");
    assert_eq!(live_keys(&network, AGENCY), 0);
    let statement = network.issue(AGENCY, &Command::RecordPut(put(1, None)));
    assert_eq!(signing_key(&network.state, &statement), Err(Code::KeyRevoked));
}

#[test]
fn a_reset_ends_every_key() {
    let mut network = Network::new();
    network.run(AGENCY, &add(party_key(AGENCY, 1)));
    let new = party_key(AGENCY, 2);
    let reset =
        |party_number, key: &EnrolledKey| Command::KeyReset(KeyReset { party: party(party_number), key: key.clone() });
    assert_eq!(network.dual(&reset(99, &new)), Code::PartyUnknown);
    assert_eq!(network.dual(&reset(AGENCY, &party_key(AGENCY, 1))), Code::AlreadyExists);
    assert_eq!(network.dual(&reset(AGENCY, &new)), Code::Applied);
    assert_eq!(live_keys(&network, AGENCY), 1);
    for n in [0, 1] {
        let cti = network.cti();
        let command = Command::RecordPut(put(n, None));
        let statement = network.signed(AGENCY, party_key(AGENCY, n).id(), network.time_ms / 1000, cti, &command);
        assert_eq!(network.block(&[statement]).outcomes[0].code, Code::KeyRevoked);
    }
    let cti = network.cti();
    let statement = network.signed(AGENCY, new.id(), network.time_ms / 1000, cti, &Command::RecordPut(put(1, None)));
    assert_eq!(network.block(&[statement]).outcomes[0].code, Code::Applied);
}

#[test]
fn keys_are_checked_and_bounded() {
    let mut network = Network::new();
    let of = |suite, bytes: &[u8]| EnrolledKey { suite, public_key: Blob::new(bytes.to_vec()).unwrap() };
    let sm2 = sm2::SecretKey::from_slice(&[3; 32]).unwrap().public_key().to_encoded_point(true);
    assert_eq!(network.run(HOLDER, &add(of(Suite::EdDsa, &ed25519_key(77)))), Code::Applied);
    assert_eq!(network.run(HOLDER, &add(of(Suite::Sm2Sm3, sm2.as_bytes()))), Code::Applied);
    for bad in [
        of(Suite::EdDsa, &[0; 32]),
        of(Suite::EdDsa, &[2; 33]),
        of(Suite::Es256, &[0; 33]),
        of(Suite::Es256, secret(1).verifying_key().to_encoded_point(false).as_bytes()),
    ] {
        assert_eq!(network.run(HOLDER, &add(bad)), Code::KeyInvalid);
    }
    assert_eq!(network.run(HOLDER, &add(of(Suite::MlDsa44, &[1; 1312]))), Code::SuiteDisabled);
    let room = u16::try_from(PARTY_KEYS_MAX - live_keys(&network, HOLDER)).unwrap();
    for n in 0..room {
        assert_eq!(network.run(HOLDER, &add(key(1000 + n))), Code::Applied);
    }
    assert_eq!(network.run(HOLDER, &add(key(2000))), Code::LimitReached);
    let rotate = KeyRotate { old: key(1000).id(), new: key(2000) };
    assert_eq!(network.run(HOLDER, &Command::KeyRotate(rotate)), Code::Applied, "rotation needs no room");
}

#[test]
fn curve_checks_of_a_block_are_bounded() {
    let mut network = Network::new();
    let off_curve = EnrolledKey { suite: Suite::Es256, public_key: Blob::new(vec![0; 33]).unwrap() };
    let count = usize::try_from(CURVE_CHECKS_MAX).unwrap() + 1;
    let statements: Vec<_> = (0..count).map(|_| network.issue(HOLDER, &add(off_curve.clone()))).collect();
    let applied = network.block(&statements);
    let (last, rest) = applied.outcomes.split_last().unwrap();
    assert!(rest.iter().all(|outcome| outcome.code == Code::KeyInvalid));
    assert_eq!(last.code, Code::LimitReached);
    assert_eq!(network.run(HOLDER, &add(off_curve)), Code::KeyInvalid, "the next block has its own");
}

#[test]
fn a_pin_belongs_to_one_party() {
    let mut network = Network::new();
    let pin = |numbers: &[u8]| Command::TlsPin(TlsPin { pins: pins(numbers) });
    let owner = |network: &Network, number: u8| query::party_of_tls_pin(&network.state, &Hash([number; 32]));
    assert_eq!(network.run(HOLDER, &pin(&[100, AGENCY])), Code::AlreadyExists);
    assert_eq!(owner(&network, 100), None);
    assert_eq!(network.run(HOLDER, &pin(&[100, 100])), Code::FieldInvalid);
    assert_eq!(network.run(HOLDER, &pin(&[100, 101])), Code::Applied);
    assert_eq!((owner(&network, HOLDER), owner(&network, 101)), (None, Some(party(HOLDER))));
    assert_eq!(network.run(HOLDER, &pin(&[101, 102])), Code::Applied);
    assert_eq!(network.run(AGENCY, &pin(&[100])), Code::Applied, "a pin given up is free");
    assert_eq!((owner(&network, AGENCY), owner(&network, 100)), (None, Some(party(AGENCY))));
}

#[test]
fn signing_keys_speak_for_their_issuer_only() {
    let mut network = Network::new();
    let cti = network.cti();
    let command = Command::RecordPut(put(1, None));
    let forged = network.signed(AGENCY, party_key(HOLDER, 0).id(), network.time_ms / 1000, cti, &command);
    let genuine = network.issue(AGENCY, &command);
    let mut keys = SigningKeys::new(&network.state);
    assert_eq!(keys.of(&forged), Err(Code::IssuerMismatch));
    assert_eq!(keys.of(&genuine), Ok(&party_key(AGENCY, 0)));
    assert_eq!(keys.of(&genuine).cloned(), signing_key(&network.state, &genuine));
}
