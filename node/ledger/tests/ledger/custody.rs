//! Records.

use stele_ledger::query;
use stele_types::custody::{RecordCorrect, RecordPut};
use stele_types::hash::Hash;
use stele_types::header::LogIndex;
use stele_types::record::{ContentHash, RecordClass, Sensitivity};
use stele_types::{Code, Command};

use crate::network::{AGENCY, GOVERNORS, HOLDER, Network, OTHER_AGENCY, object, party};

pub(crate) fn put(record: u8, on_behalf_of: Option<u8>) -> RecordPut {
    RecordPut {
        record: object(record),
        class: RecordClass::Property,
        schema: 7,
        subject: None,
        place: None,
        event_day: 20_000,
        sensitivity: Sensitivity::Personal,
        retention: 3,
        policy: Hash([1; 32]),
        commitment: Hash([record; 32]),
        body_root: None,
        body_hash: None,
        on_behalf_of: on_behalf_of.map(party),
    }
}

pub(crate) fn correct(record: u8, follows: u32) -> RecordCorrect {
    RecordCorrect {
        record: object(record),
        follows,
        commitment: Hash([0xcc; 32]),
        body_root: Some(Hash([0xdd; 32])),
        body_hash: Some(ContentHash::Sm3),
    }
}

#[test]
fn only_an_agency_puts_and_ids_are_used_once() {
    let mut network = Network::new();
    let command = Command::RecordPut(put(9, None));
    for stranger in [GOVERNORS[0], HOLDER] {
        assert_eq!(network.run(stranger, &command), Code::RoleMissing);
    }
    assert_eq!(network.run(AGENCY, &command), Code::Applied);
    assert_eq!(network.run(AGENCY, &command), Code::AlreadyExists);
    assert_eq!(network.run(OTHER_AGENCY, &command), Code::AlreadyExists);
    let anchor = query::record(&network.state, &object(9)).unwrap();
    assert_eq!((anchor.issuer, anchor.version, anchor.index), (party(AGENCY), 1, LogIndex(0)));
    assert_eq!(anchor.commitment, Hash([9; 32]));
}

#[test]
fn roots_come_with_their_hash() {
    let mut network = Network::new();
    let root_only = RecordPut { body_root: Some(Hash([1; 32])), ..put(1, None) };
    assert_eq!(network.run(AGENCY, &Command::RecordPut(root_only)), Code::FieldInvalid);
    let hash_only = RecordPut { body_hash: Some(ContentHash::Sha256), ..put(1, None) };
    assert_eq!(network.run(AGENCY, &Command::RecordPut(hash_only)), Code::FieldInvalid);
    assert_eq!(network.run(AGENCY, &Command::RecordPut(put(1, Some(AGENCY)))), Code::FieldInvalid, "for itself");
    assert_eq!(network.run(AGENCY, &Command::RecordPut(put(1, None))), Code::Applied);
    let correction = RecordCorrect { body_hash: None, ..correct(1, 1) };
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correction)), Code::FieldInvalid);
}

#[test]
fn corrections_follow_the_newest_version_of_their_issuer() {
    let mut network = Network::new();
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 1))), Code::ObjectUnknown);
    network.run(AGENCY, &Command::RecordPut(put(1, None)));
    assert_eq!(network.run(OTHER_AGENCY, &Command::RecordCorrect(correct(1, 1))), Code::NotHolder);
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 2))), Code::StateConflict, "too far ahead");
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 1))), Code::Applied);
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 1))), Code::StateConflict, "overtaken");
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 2))), Code::Applied);
    let anchor = query::record(&network.state, &object(1)).unwrap();
    assert_eq!((anchor.version, anchor.index, anchor.previous), (3, LogIndex(2), Some(LogIndex(1))));
    assert_eq!((anchor.class, anchor.schema), (RecordClass::Property, 7), "what a correction does not name stays");
}
