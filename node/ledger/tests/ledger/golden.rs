//! The encodings of values and keys, pinned. A mismatch means that a running network would fork: change the protocol
//! version and both forms, not this file alone.

use stele_ledger::value::{
    AssetEnd, AssetRecord, CertificateRecord, ChainRecord, ClaimRecord, Decision, DecisionKind, EpochRecord,
    GovernorsRecord, KeyEnd, KeyRecord, MandatePair, MandateRecord, OpenProposal, OpenProposals, PairMandate,
    ParametersRecord, PartyRecord, PendingParameters, PendingProtocol, ProposalChunk, ProposalRecord, ProtocolRecord,
    RecordAnchor, ReplayChunk, ReplayEntry, ReplayQueue, SerialRecord, TlsPinRecord, ValidatorChunk, ValidatorSetHead,
    ValidatorsRecord,
};
use stele_ledger::{StateKey, Stored};
use stele_types::asset::{AssetKind, CancelReason, CertificateNumber, RightClass};
use stele_types::cbor::{self, Blob, List};
use stele_types::hash::{Cti, Hash, NetworkId, StatementId};
use stele_types::header::{Height, LogIndex};
use stele_types::party::{OrganisationCode, RevocationReason, Role, RoleSet};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::suite::Suite;
use stele_types::{Code, Parameters, ProposerSchedule};

use crate::network::{epoch_certificate, object, party, party_key, validator};
use crate::registration::register;

/// A value's name, the state key of an example id, and SHA-256 of an example value.
type Sample = (&'static str, StateKey, Hash);

fn sample<T: Stored + PartialEq + std::fmt::Debug>(name: &'static str, id: &T::Id, value: &T) -> Sample {
    let bytes = cbor::to_vec(value);
    assert_eq!(T::from_value(&bytes).as_ref(), Ok(value), "{name} reads back");
    assert!(T::from_value(&[bytes.clone(), vec![0]].concat()).is_err(), "{name} refuses what follows");
    (name, T::state_key(id), Hash::of(&bytes))
}

fn place() -> PlaceCode {
    PlaceCode::new(110_101).unwrap()
}

fn party_samples() -> Vec<Sample> {
    let families = List::new(vec![1, 3]).unwrap();
    let mandates = List::new(vec![PairMandate {
        mandate: object(9),
        families: families.clone(),
        valid_from_ms: 1,
        valid_until_ms: 2,
    }]);
    vec![
        sample(
            "party",
            &party(1),
            &PartyRecord {
                organisation: OrganisationCode::new("91110000600037341L"),
                roles: RoleSet::of(&[Role::Governor, Role::Agency]),
                suspended: true,
                keys: List::new(vec![(party_key(1, 0).id(), Suite::Es256)]).unwrap(),
                tls_pins: List::new(vec![Hash([3; 32])]).unwrap(),
                enrolled_ms: 1_772_323_200_000,
            },
        ),
        sample(
            "key",
            &party_key(1, 0).id(),
            &KeyRecord {
                party: party(1),
                key: party_key(1, 0),
                enrolled: Height(5),
                ended: Some(KeyEnd { height: Height(7), reason: RevocationReason::Ceased }),
            },
        ),
        sample("tls_pin", &Hash([3; 32]), &TlsPinRecord { party: party(1) }),
        sample(
            "mandate",
            &object(9),
            &MandateRecord {
                grantor: party(1),
                grantee: party(2),
                families,
                valid_from_ms: 1,
                valid_until_ms: 2,
                withdrawn_ms: Some(3),
            },
        ),
        sample("mandate_pair", &(party(1), party(2)), &MandatePair { mandates: mandates.unwrap() }),
    ]
}

fn object_samples() -> Vec<Sample> {
    let number = CertificateNumber { region: place(), kind: AssetKind::Product, year: 2026, serial: 3 };
    let claim = (ContentHash::Sm3, Hash([1; 32]), RightClass::Use);
    let certificate = register(1, 2, 3, &[RightClass::Hold]);
    vec![
        sample(
            "record",
            &object(1),
            &RecordAnchor {
                issuer: party(1),
                class: RecordClass::Medical,
                schema: 2,
                subject: Some([4; 16]),
                place: Some(place()),
                event_day: 20_000,
                sensitivity: Sensitivity::SensitivePersonal,
                retention: 5,
                policy: Hash([6; 32]),
                commitment: Hash([7; 32]),
                body_root: Some(Hash([8; 32])),
                body_hash: Some(ContentHash::Sha256),
                on_behalf_of: Some(party(9)),
                version: 2,
                index: LogIndex(10),
                previous: Some(LogIndex(3)),
            },
        ),
        sample(
            "asset",
            &object(1),
            &AssetRecord {
                registrar: party(1),
                number: number.clone(),
                certificate,
                index: LogIndex(4),
                registered_ms: 5,
                ended: Some(AssetEnd { reason: CancelReason::DataGone, index: LogIndex(6), time_ms: 7 }),
            },
        ),
        sample("certificate", &number, &CertificateRecord { asset: object(1) }),
        sample("serial", &(place(), AssetKind::Product, 2026), &SerialRecord { last: 3 }),
        sample("claim", &claim, &ClaimRecord { asset: object(1) }),
    ]
}

fn governance_samples() -> Vec<Sample> {
    let id = StatementId([1; 32]);
    let open = List::new(vec![OpenProposal { proposal: id, expires_ms: 9 }]).unwrap();
    vec![
        sample(
            "proposal",
            &id,
            &ProposalRecord {
                proposer: party(1),
                command_number: 0x0601,
                command_bytes: 100,
                command_hash: Hash([2; 32]),
                expires_ms: 9,
                decision: Some(Decision { kind: DecisionKind::Approved, party: party(2), time_ms: 8 }),
            },
        ),
        sample("proposal_chunk", &(id, 1), &ProposalChunk { bytes: Blob::new(vec![1, 2, 3]).unwrap() }),
        sample("open_proposals", &party(1), &OpenProposals { open }),
        sample("governors", &(), &GovernorsRecord { groups: List::new(vec![(2, 3), (6, 1)]).unwrap() }),
    ]
}

fn chain_samples() -> Vec<Sample> {
    let (network, head) = (NetworkId([1; 32]), |since, count| ValidatorSetHead { since: Height(since), count });
    let certificates = List::new(vec![epoch_certificate(network, 0, 1, 9)]).unwrap();
    let pending = Some(PendingParameters { height: Height(9), parameters: Parameters::default() });
    vec![
        sample("chain", &(), &ChainRecord { height: Height(1), time_ms: 2, log_size: 3 }),
        sample("parameters", &(), &ParametersRecord { current: Parameters::default(), pending }),
        sample(
            "protocol",
            &(),
            &ProtocolRecord { version: 1, pending: Some(PendingProtocol { height: Height(9), version: 2 }) },
        ),
        sample("validators", &(), &ValidatorsRecord { current: head(1, 4), pending: Some(head(9, 5)) }),
        sample(
            "validator_chunk",
            &(Height(1), 0),
            &ValidatorChunk { validators: List::new(vec![validator(0)]).unwrap() },
        ),
        sample("epoch", &validator(0).id(), &EpochRecord { certificates }),
        sample("schedule", &(), &ProposerSchedule::new(4).after(1, 2, 3)),
    ]
}

fn replay_samples() -> Vec<Sample> {
    vec![
        sample(
            "replay",
            &(party(1), Cti([2; 16])),
            &ReplayEntry {
                statement: StatementId([3; 32]),
                code: Code::Applied,
                index: Some(LogIndex(4)),
                issued_at: 5,
                chunk: 6,
            },
        ),
        sample("replay_chunk", &6, &ReplayChunk { newest_ms: 7, keys: Blob::new(vec![8; 64]).unwrap() }),
        sample("replay_queue", &(), &ReplayQueue { floor_ms: 1, head: 2, tail: 3 }),
    ]
}

/// Name, first eight bytes of the key, first eight bytes of the value's hash.
const PINNED: &str = include_str!("golden.txt");

#[test]
fn encodings_are_pinned() {
    let groups = [party_samples(), object_samples(), governance_samples(), chain_samples(), replay_samples()];
    let samples: Vec<Sample> = groups.into_iter().flatten().collect();
    let keys: std::collections::BTreeSet<_> = samples.iter().map(|(_, key, _)| *key).collect();
    assert_eq!(keys.len(), samples.len(), "no two domains share a key");
    let line =
        |(name, key, value): &Sample| format!("{name} {} {}\n", &Hash(*key).to_hex()[..16], &value.to_hex()[..16]);
    let found: String = samples.iter().map(line).collect();
    assert!(found == PINNED, "found:\n{found}");
}
