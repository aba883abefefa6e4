//! Data assets and their certificates.

use stele_ledger::{EventKind, query};
use stele_types::asset::{AssetCancel, AssetKind, AssetRegister, CancelReason, CertificateNumber, Origin, RightClass};
use stele_types::cbor::List;
use stele_types::hash::Hash;
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::{Code, Command};

use crate::mandates::give;
use crate::network::{AGENCY, HOLDER, MINUTE_MS, Network, REGISTRAR, object, party};

pub(crate) fn register(asset: u8, holder: u8, content: u8, rights: &[RightClass]) -> AssetRegister {
    AssetRegister {
        asset: object(asset),
        kind: AssetKind::Resource,
        region: PlaceCode::new(110_101).unwrap(),
        holder: party(holder),
        rights: List::new(rights.to_vec()).unwrap(),
        origin: Origin::Own,
        class: RecordClass::Transport,
        sensitivity: Sensitivity::General,
        schema: 1,
        records: 10,
        bytes: 1000,
        first_day: 19_000,
        last_day: 19_001,
        content_root: Hash([content; 32]),
        content_hash: ContentHash::Sha256,
        quality_report: None,
        compliance_opinion: None,
        valid_until_day: None,
    }
}

fn run(network: &mut Network, body: AssetRegister) -> Code {
    network.run(REGISTRAR, &Command::AssetRegister(body))
}

fn cancel(asset: u8) -> Command {
    Command::AssetCancel(AssetCancel { asset: object(asset), reason: CancelReason::HolderRequest })
}

#[test]
fn certificates_are_numbered_per_region_kind_and_year() {
    let mut network = Network::new();
    let rights = [RightClass::Hold];
    let mut numbers = Vec::new();
    let bodies = [
        register(1, REGISTRAR, 1, &rights),
        register(2, REGISTRAR, 2, &rights),
        AssetRegister { kind: AssetKind::Product, ..register(3, REGISTRAR, 3, &rights) },
        AssetRegister { region: PlaceCode::new(310_101).unwrap(), ..register(4, REGISTRAR, 4, &rights) },
    ];
    for body in bodies {
        let asset = body.asset;
        let applied = network.run_applied(REGISTRAR, &Command::AssetRegister(body.clone()));
        let number = query::asset(&network.state, &asset).unwrap().number;
        assert_eq!(applied.events[0].kind, EventKind::AssetRegistered { asset, number: number.clone() });
        assert_eq!(query::asset_of_certificate(&network.state, &number), Some(asset));
        assert_eq!(query::asset(&network.state, &asset).unwrap().certificate, body);
        assert_eq!(CertificateNumber::parse(&number.to_text()), Some(number.clone()));
        numbers.push((number.region.get(), number.kind, number.year, number.serial));
    }
    let (resource, product) = (AssetKind::Resource, AssetKind::Product);
    let expected = [(110_101, resource, 1), (110_101, resource, 2), (110_101, product, 1), (310_101, resource, 1)];
    assert_eq!(numbers, expected.map(|(region, kind, serial)| (region, kind, 2026, serial)));
    network.pass(365 * 24 * 60 * MINUTE_MS);
    run(&mut network, register(5, REGISTRAR, 5, &rights));
    let number = query::asset(&network.state, &object(5)).unwrap().number;
    assert_eq!((number.year, number.serial), (2027, 1), "a new year counts anew");
}

#[test]
fn the_registrar_needs_the_holders_mandate() {
    let mut network = Network::new();
    let body = register(1, HOLDER, 1, &[RightClass::Use]);
    assert_eq!(network.run(AGENCY, &Command::AssetRegister(body.clone())), Code::RoleMissing);
    assert_eq!(run(&mut network, body.clone()), Code::MandateMissing);
    assert_eq!(run(&mut network, register(1, 99, 1, &[RightClass::Use])), Code::PartyUnknown);
    let until = network.time_ms + MINUTE_MS;
    let mandate = Command::MandateGive(give(1, REGISTRAR, &[1], 0, until));
    assert_eq!(network.run(HOLDER, &mandate), Code::Applied);
    assert_eq!(run(&mut network, body.clone()), Code::Applied);
    assert_eq!(run(&mut network, body), Code::AlreadyExists);
}

#[test]
fn fields_are_checked() {
    let mut network = Network::new();
    let good = register(1, REGISTRAR, 1, &[RightClass::Hold]);
    let bad = [
        AssetRegister { region: PlaceCode::new(11).unwrap(), ..good.clone() },
        AssetRegister { rights: List::default(), ..good.clone() },
        AssetRegister { rights: List::new([RightClass::Use, RightClass::Hold].into()).unwrap(), ..good.clone() },
        AssetRegister { rights: List::new([RightClass::Use, RightClass::Use].into()).unwrap(), ..good.clone() },
        AssetRegister { first_day: 19_002, ..good.clone() },
        AssetRegister { valid_until_day: Some(19_000), ..good.clone() },
    ];
    for body in bad {
        let shown = format!("{body:?}");
        assert_eq!(run(&mut network, body), Code::FieldInvalid, "{shown}");
    }
    assert_eq!(run(&mut network, good), Code::Applied);
    assert_eq!(query::asset(&network.state, &object(1)).unwrap().number.serial, 1, "rejections use up no serial");
}

#[test]
fn one_live_certificate_per_content_and_right() {
    let mut network = Network::new();
    assert_eq!(run(&mut network, register(1, REGISTRAR, 1, &[RightClass::Hold, RightClass::Use])), Code::Applied);
    assert_eq!(run(&mut network, register(2, REGISTRAR, 1, &[RightClass::Use])), Code::StateConflict);
    assert_eq!(run(&mut network, register(3, REGISTRAR, 1, &[RightClass::Operate])), Code::Applied, "another right");
    assert_eq!(run(&mut network, register(4, REGISTRAR, 2, &[RightClass::Use])), Code::Applied, "another content");
    assert_eq!(network.run(REGISTRAR, &cancel(1)), Code::Applied);
    assert_eq!(run(&mut network, register(5, REGISTRAR, 1, &[RightClass::Use])), Code::Applied, "it was cancelled");
    assert_eq!(run(&mut network, register(6, REGISTRAR, 1, &[RightClass::Use])), Code::StateConflict);
}

#[test]
fn its_registrar_cancels_once() {
    let mut network = Network::new();
    assert_eq!(network.run(REGISTRAR, &cancel(1)), Code::ObjectUnknown);
    run(&mut network, register(1, REGISTRAR, 1, &[RightClass::Hold]));
    let grant = stele_types::party::RoleChange {
        party: party(AGENCY),
        roles: stele_types::party::RoleSet::of(&[stele_types::party::Role::Registrar]),
    };
    assert_eq!(network.run(AGENCY, &cancel(1)), Code::RoleMissing);
    assert_eq!(network.dual(&Command::RoleGrant(grant)), Code::Applied);
    assert_eq!(network.run(AGENCY, &cancel(1)), Code::NotHolder, "another registrar");
    assert_eq!(network.run(REGISTRAR, &cancel(1)), Code::Applied);
    assert_eq!(network.run(REGISTRAR, &cancel(1)), Code::StateConflict);
    assert_eq!(run(&mut network, register(1, REGISTRAR, 9, &[RightClass::Hold])), Code::AlreadyExists);
}

#[test]
fn certificates_lapse_after_their_last_civil_day() {
    let mut network = Network::new();
    // Genesis is at 08:00 in UTC+8, so the civil day ends after 16 hours.
    let today = u32::try_from((network.time_ms + 8 * 3_600_000) / 86_400_000).unwrap();
    let body = AssetRegister { valid_until_day: Some(today), ..register(1, REGISTRAR, 1, &[RightClass::Hold]) };
    assert_eq!(run(&mut network, body.clone()), Code::Applied);
    let again = AssetRegister { asset: object(2), valid_until_day: None, ..body };
    network.pass(16 * 60 * MINUTE_MS - 10_000);
    assert_eq!(run(&mut network, again.clone()), Code::StateConflict, "the last seconds of the last day");
    network.pass(10_000);
    assert_eq!(network.run(REGISTRAR, &cancel(1)), Code::StateConflict, "it lapsed");
    assert_eq!(run(&mut network, again), Code::Applied);
}
