//! Epoch certificates.

use stele_ledger::{EventKind, check_genesis};
use stele_types::cbor::List;
use stele_types::governance::{EpochCertify, ValidatorsChange};
use stele_types::hash::{Hash, NetworkId};
use stele_types::vote::EpochCertificate;
use stele_types::{Code, Command};

use crate::network::{HOLDER, Network, epoch_certificate, genesis, validator};

fn certify(certificate: &EpochCertificate) -> Command {
    Command::EpochCertify(EpochCertify { certificate: certificate.clone() })
}

#[test]
fn the_newest_two_of_a_validator_are_kept() {
    let mut network = Network::new();
    let ranges = [(1, 50), (40, 100), (90, 150)];
    let certificates = ranges.map(|(from, until)| epoch_certificate(network.id, 0, from, until));
    for (count, certificate) in certificates.iter().enumerate() {
        let applied = network.run_applied(HOLDER, &certify(certificate));
        assert_eq!(applied.outcomes[0].code, Code::Applied);
        assert_eq!(applied.events[0].kind, EventKind::EpochCertified(Box::new(certificate.clone())));
        let expected = &certificates[(count + 1).saturating_sub(2)..=count];
        assert_eq!(network.frame().epoch_certificates, expected);
    }
    assert_eq!(network.run(HOLDER, &certify(&certificates[2])), Code::AlreadyExists);
    assert_eq!(network.run(HOLDER, &certify(&certificates[0])), Code::EpochInvalid, "an older one never comes back");
}

#[test]
fn certificates_prove_themselves_and_fit() {
    let mut network = Network::new();
    network.reach(20);
    let good = epoch_certificate(network.id, 0, 10, 100);
    let bad = [
        EpochCertificate { signature: [1; 64], ..good.clone() },
        EpochCertificate { pcr_policy: Hash([1; 32]), ..good.clone() },
        EpochCertificate { validator: validator(1).id(), ..good.clone() },
        epoch_certificate(network.id, 9, 10, 100),
        epoch_certificate(NetworkId([0; 32]), 0, 10, 100),
        epoch_certificate(network.id, 0, 1, 20),
        epoch_certificate(network.id, 0, 100, 99),
        epoch_certificate(network.id, 0, 10, 10 + EpochCertificate::HEIGHTS_MAX),
        epoch_certificate(network.id, 0, 100 + EpochCertificate::HEIGHTS_MAX, 101 + EpochCertificate::HEIGHTS_MAX),
    ];
    for certificate in bad {
        assert_eq!(network.run(HOLDER, &certify(&certificate)), Code::EpochInvalid, "{certificate:?}");
    }
    assert!(network.frame().epoch_certificates.is_empty());
    assert_eq!(network.run(HOLDER, &certify(&good)), Code::Applied);
}

#[test]
fn newcomers_certify_before_their_first_height_and_leavers_are_forgotten() {
    let mut network = Network::new();
    let leaving = epoch_certificate(network.id, 0, 1, 100);
    let coming = epoch_certificate(network.id, 4, 10, 100);
    assert_eq!(network.run(HOLDER, &certify(&leaving)), Code::Applied);
    assert_eq!(network.run(HOLDER, &certify(&coming)), Code::EpochInvalid, "no validator yet");
    let change = ValidatorsChange {
        activation_height: 12,
        upsert: List::new([validator(4)].into()).unwrap(),
        remove: List::new([validator(0).id()].into()).unwrap(),
    };
    assert_eq!(network.dual(&Command::ValidatorsChange(change)), Code::Applied);
    assert_eq!(network.run(HOLDER, &certify(&coming)), Code::Applied);
    let mut both = vec![leaving.clone(), coming.clone()];
    both.sort_by_key(|certificate| certificate.validator);
    assert_eq!(network.frame().epoch_certificates, both);
    network.reach(11);
    assert_eq!(network.frame().epoch_certificates, [coming]);
    assert_eq!(network.run(HOLDER, &certify(&leaving)), Code::EpochInvalid);
}

#[test]
fn genesis_certificates_carry_zeros_as_network() {
    let mut founding = genesis(4);
    let first = epoch_certificate(NetworkId([0; 32]), 0, 1, 100);
    founding.epoch_certificates = List::new([first.clone()].into()).unwrap();
    let mut network = Network::found(&founding);
    assert_eq!(network.frame().epoch_certificates, std::slice::from_ref(&first));
    let second = epoch_certificate(network.id, 0, 90, 200);
    assert_eq!(network.run(HOLDER, &certify(&second)), Code::Applied);
    assert_eq!(network.frame().epoch_certificates, [first.clone(), second]);
    for bad in [
        EpochCertificate { network: NetworkId([1; 32]), ..first.clone() },
        EpochCertificate { signature: [1; 64], ..first.clone() },
        epoch_certificate(NetworkId([0; 32]), 9, 1, 100),
        epoch_certificate(NetworkId([0; 32]), 0, 2, 100),
    ] {
        founding.epoch_certificates = List::new([bad].into()).unwrap();
        assert_eq!(check_genesis(&founding), Err(Code::EpochInvalid));
    }
}

#[test]
fn genesis_is_checked_beyond_its_form() {
    let edit = |change: &dyn Fn(&mut stele_types::Genesis)| {
        let mut founding = genesis(4);
        change(&mut founding);
        check_genesis(&founding)
    };
    assert_eq!(edit(&|_| ()), Ok(()));
    let founders = |founding: &mut stele_types::Genesis, change: &dyn Fn(&mut stele_types::party::Founder)| {
        let mut founders = founding.founders.to_vec();
        change(&mut founders[0]);
        founding.founders = List::new(founders).unwrap();
    };
    assert_eq!(edit(&|g| founders(g, &|f| f.key = crate::network::party_key(2, 0))), Err(Code::AlreadyExists));
    assert_eq!(
        edit(&|g| founders(g, &|f| f.tls_pins = List::new([Hash([2; 32])].into()).unwrap())),
        Err(Code::AlreadyExists)
    );
    let zeros = stele_types::cbor::Blob::new(vec![0; 33]).unwrap();
    assert_eq!(edit(&|g| founders(g, &|f| f.key.public_key = zeros.clone())), Err(Code::KeyInvalid));
    assert_eq!(edit(&|g| g.region = stele_types::record::PlaceCode::new(11).unwrap()), Err(Code::FieldInvalid));
    let stranger = stele_types::Validator { party: crate::network::party(99), ..validator(0) };
    let set = stele_types::ValidatorSet::new(vec![stranger]).unwrap();
    assert_eq!(edit(&|g| g.validators = set.clone()), Err(Code::PartyUnknown));
}
