//! Mandates.

use stele_ledger::value::MANDATES_PER_PAIR_MAX;
use stele_ledger::{MANDATE_LIFE_MAX_MS, query};
use stele_types::cbor::List;
use stele_types::hash::ObjectId;
use stele_types::party::{MandateGive, MandateWithdraw, PartyStanding};
use stele_types::{Code, Command};

use crate::custody::{correct, put};
use crate::network::{AGENCY, HOLDER, MINUTE_MS, Network, OTHER_AGENCY, object, party};

pub(crate) fn give(mandate: u8, grantee: u8, families: &[u8], from_ms: u64, until_ms: u64) -> MandateGive {
    MandateGive {
        mandate: object(mandate),
        grantee: party(grantee),
        families: List::new(families.to_vec()).unwrap(),
        valid_from_ms: from_ms,
        valid_until_ms: until_ms,
    }
}

fn withdraw(mandate: u8) -> Command {
    Command::MandateWithdraw(MandateWithdraw { mandate: object(mandate) })
}

#[test]
fn acting_for_another_needs_a_live_mandate_of_the_family() {
    let mut network = Network::new();
    let now = network.time_ms;
    let act = |record| Command::RecordPut(put(record, Some(HOLDER)));
    assert_eq!(network.run(AGENCY, &act(1)), Code::MandateMissing);
    let registration = give(1, AGENCY, &[1], now, now + 60 * MINUTE_MS);
    assert_eq!(network.run(HOLDER, &Command::MandateGive(registration)), Code::Applied);
    assert_eq!(network.run(AGENCY, &act(1)), Code::MandateMissing, "another family");
    let later = give(2, AGENCY, &[1, 3], now + 10 * MINUTE_MS, now + 20 * MINUTE_MS);
    assert_eq!(network.run(HOLDER, &Command::MandateGive(later)), Code::Applied);
    assert_eq!(network.run(AGENCY, &act(1)), Code::MandateMissing, "not yet");
    network.pass(10 * MINUTE_MS);
    assert_eq!(network.run(AGENCY, &act(1)), Code::Applied);
    assert_eq!(network.run(OTHER_AGENCY, &act(2)), Code::MandateMissing, "another grantee");
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 1))), Code::Applied);
    network.pass(10 * MINUTE_MS);
    assert_eq!(network.run(AGENCY, &act(3)), Code::MandateMissing, "over");
    assert_eq!(network.run(AGENCY, &Command::RecordCorrect(correct(1, 2))), Code::MandateMissing, "corrections too");
}

#[test]
fn withdrawal_and_suspension_end_it() {
    let mut network = Network::new();
    let until = network.time_ms + 600 * MINUTE_MS;
    for (mandate, record) in [(1, 1), (2, 2)] {
        let command = Command::MandateGive(give(mandate, AGENCY, &[3], 0, until));
        assert_eq!(network.run(HOLDER, &command), Code::Applied);
        assert_eq!(network.run(AGENCY, &Command::RecordPut(put(record, Some(HOLDER)))), Code::Applied);
        if mandate == 1 {
            assert_eq!(network.run(AGENCY, &withdraw(1)), Code::NotHolder, "the grantee cannot withdraw");
            assert_eq!(network.run(HOLDER, &withdraw(1)), Code::Applied);
            assert_eq!(network.run(HOLDER, &withdraw(1)), Code::StateConflict);
            assert_eq!(query::mandates(&network.state, party(HOLDER), party(AGENCY)), None, "no empty list stays");
            assert_eq!(network.run(HOLDER, &command), Code::AlreadyExists, "an id is used once");
        }
        let after = network.run(AGENCY, &Command::RecordPut(put(record + 10, Some(HOLDER))));
        assert_eq!(after, if mandate == 1 { Code::MandateMissing } else { Code::Applied });
    }
    let suspend = Command::PartySuspend(PartyStanding { party: party(HOLDER) });
    assert_eq!(network.dual(&suspend), Code::Applied);
    assert_eq!(network.run(AGENCY, &Command::RecordPut(put(5, Some(HOLDER)))), Code::MandateMissing);
    assert_eq!(network.run(HOLDER, &withdraw(2)), Code::PartySuspended);
    assert_eq!(network.run(AGENCY, &withdraw(9)), Code::ObjectUnknown);
}

#[test]
fn fields_are_checked() {
    let mut network = Network::new();
    let now = network.time_ms;
    let until = now + 10 * MINUTE_MS;
    let bad = [
        give(1, AGENCY, &[], now, until),
        give(1, AGENCY, &[3, 1], now, until),
        give(1, AGENCY, &[3, 3], now, until),
        give(1, AGENCY, &[7], now, until),
        give(1, AGENCY, &[6], now, until),
        give(1, AGENCY, &[3], until, until - 1),
        give(1, AGENCY, &[3], now, now),
        give(1, AGENCY, &[3], now, now + MANDATE_LIFE_MAX_MS + MINUTE_MS),
        give(1, HOLDER, &[3], now, until),
    ];
    for command in bad {
        let shown = format!("{command:?}");
        assert_eq!(network.run(HOLDER, &Command::MandateGive(command)), Code::FieldInvalid, "{shown}");
    }
    assert_eq!(
        network.run(HOLDER, &Command::MandateGive(give(1, 99, &[3], now, until + MINUTE_MS))),
        Code::PartyUnknown
    );
}

#[test]
fn live_mandates_of_a_pair_are_bounded_and_ended_ones_make_room() {
    let mut network = Network::new();
    let until = network.time_ms + 30 * MINUTE_MS;
    let give_nth = |n: usize, until| {
        let mandate = ObjectId(u128::try_from(n).unwrap().to_be_bytes());
        Command::MandateGive(MandateGive { mandate, ..give(0, AGENCY, &[3], 0, until) })
    };
    for n in 0..MANDATES_PER_PAIR_MAX {
        assert_eq!(network.run(HOLDER, &give_nth(n, until)), Code::Applied);
    }
    assert_eq!(network.run(HOLDER, &give_nth(100, until)), Code::LimitReached);
    network.pass(30 * MINUTE_MS);
    let until = network.time_ms + 30 * MINUTE_MS;
    assert_eq!(network.run(HOLDER, &give_nth(101, until)), Code::Applied);
    assert_eq!(query::mandates(&network.state, party(HOLDER), party(AGENCY)).unwrap().mandates.len(), 1);
}
