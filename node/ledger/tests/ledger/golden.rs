//! The encodings of values and keys, pinned. A mismatch means that a running network would fork: change the protocol
//! version and both forms, not this file alone.

use stele_ledger::value::{
    AssetEnd, AssetRecord, AttestationRecord, CertificateRecord, ChainRecord, ClaimRecord, Decision, DecisionKind,
    EpochRecord, GovernorsRecord, KeyEnd, KeyRecord, MandatePair, MandateRecord, OpenProposal, OpenProposals,
    PROPOSAL_CHUNK_BYTES_MAX, PairMandate, ParametersRecord, PartyRecord, PendingParameters, PendingProtocol,
    ProposalChunk, ProposalRecord, ProtocolRecord, REPLAY_KEYS_PER_CHUNK, RecordAnchor, ReplayChunk, ReplayEntry,
    ReplayQueue, ReportedVerdict, SerialRecord, StandingRecord, TlsPinRecord, ValidatorChunk, ValidatorSetHead,
    ValidatorsRecord,
};
use stele_ledger::{StateKey, Stored, VALUE_BYTES_MAX};
use stele_merkle::state::StateHash;
use stele_merkle::state::reference::ReferenceMap;
use stele_types::asset::{AssetCancel, AssetKind, CancelReason, CertificateNumber, RightClass};
use stele_types::attestation::{AttestationReport, Verdict};
use stele_types::cbor::{self, Blob, List};
use stele_types::governance::{EpochCertify, ParametersChange, ProtocolUpgrade, ValidatorsChange, Withdraw};
use stele_types::hash::{Cti, Hash, NetworkId, StatementId};
use stele_types::header::{Height, LogIndex};
use stele_types::party::{
    EnrolledKey, KeyEnrol, KeyReset, KeyRevoke, KeyRotate, MandateWithdraw, OrganisationCode, PartyEnrol,
    PartyStanding, RevocationReason, Role, RoleChange, RoleSet, TlsPin,
};
use stele_types::proposer::Silence;
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::suite::Suite;
use stele_types::{Code, Command, Parameters, ProposerSchedule};

use crate::custody::{correct, put};
use crate::mandates::give;
use crate::network::{
    AGENCY, GOVERNORS, HOLDER, MINUTE_MS, Network, OTHER_AGENCY, REGISTRAR, epoch_certificate, object, opaque, party,
    party_key, validator,
};
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
        sample("attestation", &(), &AttestationRecord { since_ms: Some(7), suspended: repeated_once(&validator(0)) }),
        sample(
            "standing",
            &validator(0).id(),
            &StandingRecord { admitted_ms: 7, passed_ms: Some(8), newest: Some(reported_verdict()) },
        ),
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

fn reported_verdict() -> ReportedVerdict {
    let (evidence, policy) = (Hash([3; 32]), Hash([4; 32]));
    ReportedVerdict {
        verdict: Verdict::Failed,
        time_ms: u64::MAX,
        reporter: party(1),
        evidence,
        policy,
        issued_at: u64::MAX,
    }
}

fn repeated_once<T: Clone, const MAX: usize>(value: &T) -> List<T, MAX> {
    List::new(vec![value.clone()]).unwrap()
}

fn bytes_of<T: Stored>(value: &T) -> (stele_ledger::Domain, usize) {
    (T::DOMAIN, cbor::to_vec(value).len())
}

fn repeated<T: Clone, const MAX: usize>(value: &T) -> List<T, MAX> {
    List::new(vec![value.clone(); MAX]).unwrap()
}

#[test]
fn the_largest_values_keep_within_their_bound() {
    let key_of_ml_dsa = EnrolledKey { suite: Suite::MlDsa87, public_key: Blob::new(vec![1; 2_592]).unwrap() };
    let silence = Silence { misses: 7, skip_turns: 1_024, since_height: u64::MAX };
    let mandate = PairMandate {
        mandate: object(9),
        families: List::new(vec![1, 2, 3, 4, 5]).unwrap(),
        valid_from_ms: u64::MAX,
        valid_until_ms: u64::MAX,
    };
    let certificate = epoch_certificate(NetworkId([1; 32]), 0, u64::MAX - 1, u64::MAX);
    let open = OpenProposal { proposal: StatementId([1; 32]), expires_ms: u64::MAX };
    let sizes = [
        bytes_of(&PartyRecord {
            organisation: OrganisationCode::new("91110000600037341L"),
            roles: RoleSet::of(Role::ALL),
            suspended: true,
            keys: repeated(&(party_key(1, 0).id(), Suite::MlDsa87)),
            tls_pins: repeated(&Hash([3; 32])),
            enrolled_ms: u64::MAX,
        }),
        bytes_of(&KeyRecord {
            party: party(1),
            key: key_of_ml_dsa,
            enrolled: Height(u64::MAX),
            ended: Some(KeyEnd { height: Height(u64::MAX), reason: RevocationReason::Ceased }),
        }),
        bytes_of(&MandatePair { mandates: repeated(&mandate) }),
        bytes_of(&OpenProposals { open: repeated(&open) }),
        bytes_of(&ProposalChunk { bytes: Blob::new(vec![1; PROPOSAL_CHUNK_BYTES_MAX]).unwrap() }),
        bytes_of(&GovernorsRecord { groups: repeated(&(u8::MAX, u32::MAX)) }),
        bytes_of(&ValidatorChunk { validators: repeated(&validator(0)) }),
        bytes_of(&AttestationRecord { since_ms: Some(u64::MAX), suspended: repeated(&validator(0)) }),
        bytes_of(&StandingRecord {
            admitted_ms: u64::MAX,
            passed_ms: Some(u64::MAX),
            newest: Some(reported_verdict()),
        }),
        bytes_of(&EpochRecord { certificates: repeated(&certificate) }),
        bytes_of(&ProposerSchedule { silences: repeated(&silence) }),
        bytes_of(&ReplayChunk { newest_ms: u64::MAX, keys: Blob::new(vec![8; REPLAY_KEYS_PER_CHUNK * 32]).unwrap() }),
    ];
    for (domain, bytes) in sizes {
        assert!(bytes <= VALUE_BYTES_MAX, "{domain:?} has {bytes} bytes");
    }
}

/// A chain in which every command applies once, and the roots of the state after it. Nothing but a new protocol version
/// may change them.
#[test]
fn a_chain_of_every_command_has_a_pinned_root() {
    let mut network = Network::new();
    let mut applied: Vec<u16> = Vec::new();
    for (issuer, approver, command) in every_command(&network) {
        applied.push(command.number());
        let code = match approver {
            Some(approver) => {
                applied.extend([0x0630, 0x0631]);
                network.dual_by(issuer, approver, &command).0
            }
            None => network.run(issuer, &command),
        };
        assert_eq!(code, Code::Applied, "{}", command.as_str());
    }
    let propose = network.propose(&Command::PartySuspend(PartyStanding { party: party(OTHER_AGENCY) }));
    let statement = network.issue(GOVERNORS[0], &propose);
    network.block(std::slice::from_ref(&statement));
    assert_eq!(network.run(GOVERNORS[0], &Command::Withdraw(Withdraw { proposal: statement.id() })), Code::Applied);
    applied.push(0x0632);
    network.block(&[opaque(HOLDER, 1)]);
    network.reach(100);
    applied.sort_unstable();
    applied.dedup();
    let schema: Vec<u16> = Command::SCHEMA.iter().map(|(number, ..)| *number).collect();
    assert_eq!(applied, schema, "every command is in the chain");
    let root = |hash| {
        let mut map = ReferenceMap::new(hash);
        network.state.0.iter().for_each(|(key, value)| map.set(*key, Some(value.clone())));
        Hash(map.root()).to_hex()
    };
    let found = format!("{} {} {}", network.log_size, root(StateHash::Sha256), root(StateHash::Sm3));
    assert_eq!(found, include_str!("golden_root.txt").trim());
}

/// Issuer, approver for what takes two, command.
fn every_command(network: &Network) -> Vec<(u8, Option<u8>, Command)> {
    let (one, two, now) = (GOVERNORS[0], GOVERNORS[1], network.time_ms);
    let dual = |command| (one, Some(two), command);
    let direct = |issuer, command| (issuer, None, command);
    let standing = PartyStanding { party: party(HOLDER) };
    let roles = RoleChange { party: party(HOLDER), roles: RoleSet::of(&[Role::Court]) };
    let certificate = epoch_certificate(network.id, 0, 1, 1_000);
    vec![
        dual(Command::PartyEnrol(PartyEnrol {
            party: party(50),
            organisation: OrganisationCode::new("91110000600037341L"),
            roles: RoleSet::of(&[Role::Appraiser]),
            key: party_key(50, 0),
            tls_pins: List::new(vec![Hash([50; 32])]).unwrap(),
        })),
        dual(Command::PartySuspend(standing.clone())),
        dual(Command::PartyResume(standing)),
        dual(Command::RoleGrant(roles.clone())),
        dual(Command::RoleRevoke(roles)),
        dual(Command::KeyReset(KeyReset { party: party(50), key: party_key(50, 1) })),
        direct(AGENCY, Command::KeyEnrol(KeyEnrol { key: party_key(AGENCY, 1) })),
        direct(AGENCY, Command::KeyRotate(KeyRotate { old: party_key(AGENCY, 1).id(), new: party_key(AGENCY, 2) })),
        direct(
            AGENCY,
            Command::KeyRevoke(KeyRevoke { key: party_key(AGENCY, 2).id(), reason: RevocationReason::Superseded }),
        ),
        direct(AGENCY, Command::TlsPin(TlsPin { pins: List::new(vec![Hash([51; 32])]).unwrap() })),
        direct(HOLDER, Command::MandateGive(give(1, REGISTRAR, &[1], now, now + 60 * MINUTE_MS))),
        direct(HOLDER, Command::MandateGive(give(2, AGENCY, &[1, 3], now, now + 60 * MINUTE_MS))),
        direct(AGENCY, Command::RecordPut(put(1, Some(HOLDER)))),
        direct(AGENCY, Command::RecordCorrect(correct(1, 1))),
        direct(REGISTRAR, Command::AssetRegister(register(1, HOLDER, 1, &[RightClass::Hold, RightClass::Use]))),
        direct(REGISTRAR, Command::AssetCancel(AssetCancel { asset: object(1), reason: CancelReason::HolderRequest })),
        direct(HOLDER, Command::MandateWithdraw(MandateWithdraw { mandate: object(2) })),
        direct(HOLDER, Command::EpochCertify(EpochCertify { certificate })),
        dual(Command::RoleGrant(RoleChange { party: party(OTHER_AGENCY), roles: RoleSet::of(&[Role::Regulator]) })),
        direct(
            OTHER_AGENCY,
            Command::AttestationReport(AttestationReport {
                validator: validator(0).id(),
                verdict: Verdict::Passed,
                evidence: Hash([52; 32]),
                policy: Hash([53; 32]),
            }),
        ),
        dual(Command::ParametersChange(ParametersChange {
            activation_height: 90,
            parameters: Parameters { heartbeat_ms: 5_000, ..Parameters::default() },
        })),
        dual(Command::ValidatorsChange(ValidatorsChange {
            activation_height: 91,
            upsert: List::new(vec![validator(4)]).unwrap(),
            remove: List::new(vec![validator(0).id()]).unwrap(),
        })),
        dual(Command::ProtocolUpgrade(ProtocolUpgrade { activation_height: 101, version: 2 })),
    ]
}
