//! The table of state domains in `docs/protocol.md`, compared with the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use sha2::{Digest, Sha256};
use stele_ledger::query::Stored;
use stele_ledger::value::*;
use stele_ledger::{Domain, VALUE_BYTES_MAX};
use stele_types::asset::{AssetKind, CertificateNumber, RightClass};
use stele_types::record::{ContentHash, PlaceCode};
use stele_types::{Cti, Hash, Height, KeyId, ObjectId, PartyId, ProposerSchedule, StatementId, ValidatorId};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

fn rows() -> Vec<Vec<String>> {
    let lines = PROTOCOL.lines().skip_while(|line| !line.starts_with("| domain | value |")).skip(2);
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Domain, key and fields of one value type under a natural key.
fn value<T: Stored>(keys: &[(u64, &str)], id: &T::Id, natural: &[&[u8]]) -> (Domain, String) {
    let mut digest = Sha256::new();
    digest.update("stele/state/v1");
    digest.update([T::DOMAIN as u8]);
    natural.iter().for_each(|part| digest.update(part));
    assert_eq!(T::state_key(id), <[u8; 32]>::from(digest.finalize()), "{:?}", T::DOMAIN);
    let fields: Vec<String> = keys.iter().map(|(key, name)| format!("{key} {name}")).collect();
    (T::DOMAIN, fields.join(", "))
}

#[test]
fn domains_keys_and_fields_are_published() {
    let (party, other) = (PartyId([1; 16]), PartyId([2; 16]));
    let (object, statement, hash) = (ObjectId([3; 16]), StatementId([4; 32]), Hash([5; 32]));
    let (region, year, serial) = (PlaceCode::new(110_105).unwrap(), 2026_u32, 7_u64);
    let number = CertificateNumber { region, kind: AssetKind::Product, year, serial };
    let place = region.get().to_be_bytes();
    let right = RightClass::Operate;
    macro_rules! of {
        ($ty:ty, $id:expr, [$($part:expr),*]) => { value::<$ty>(<$ty>::KEYS, $id, &[$($part),*]) };
    }
    let expected = [
        of!(ChainRecord, &(), []),
        of!(ParametersRecord, &(), []),
        of!(ValidatorsRecord, &(), []),
        of!(ValidatorChunk, &(Height(9), 2), [&9_u64.to_be_bytes(), &[2]]),
        of!(ProposerSchedule, &(), []),
        of!(ProtocolRecord, &(), []),
        of!(EpochRecord, &ValidatorId([6; 32]), [&[6; 32]]),
        of!(GovernorsRecord, &(), []),
        of!(AttestationRecord, &(), []),
        of!(StandingRecord, &ValidatorId([6; 32]), [&[6; 32]]),
        of!(PartyRecord, &party, [&[1; 16]]),
        of!(KeyRecord, &KeyId([7; 16]), [&[7; 16]]),
        of!(TlsPinRecord, &hash, [&[5; 32]]),
        of!(MandateRecord, &object, [&[3; 16]]),
        of!(MandatePair, &(party, other), [&[1; 16], &[2; 16]]),
        of!(ProposalRecord, &statement, [&[4; 32]]),
        of!(ProposalChunk, &(statement, 1), [&[4; 32], &[1]]),
        of!(OpenProposals, &party, [&[1; 16]]),
        of!(RecordAnchor, &object, [&[3; 16]]),
        of!(AssetRecord, &object, [&[3; 16]]),
        of!(CertificateRecord, &number, [&place, &[2], &year.to_be_bytes(), &serial.to_be_bytes()]),
        of!(SerialRecord, &(region, AssetKind::Product, year), [&place, &[2], &year.to_be_bytes()]),
        of!(ClaimRecord, &(ContentHash::Sm3, hash, right), [&[2], &[5; 32], &[3]]),
        of!(ReplayEntry, &(party, Cti([8; 16])), [&[1; 16], &[8; 16]]),
        of!(ReplayChunk, &11, [&11_u64.to_be_bytes()]),
        of!(ReplayQueue, &(), []),
    ];
    let found: Vec<(String, String)> = rows().into_iter().map(|row| (row[0].clone(), row[3].clone())).collect();
    let expected: Vec<(String, String)> =
        expected.into_iter().map(|(domain, fields)| (format!("{:#04x}", domain as u8), fields)).collect();
    assert_eq!(found, expected);
    assert_eq!(VALUE_BYTES_MAX, 4096);
}
