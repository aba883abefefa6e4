//! The samples themselves.

use stele_types::asset::{AssetCancel, AssetKind, AssetRegister, CancelReason, CertificateNumber, Origin, RightClass};
use stele_types::attestation::{AttestationReport, AttestationRule, Verdict};
use stele_types::bundle::{ChainLink, OutcomeProof, ProvenValue};
use stele_types::cbor::{self, Blob, Field, List, Text};
use stele_types::custody::{CustodyReceipt, RecordCorrect, RecordPut};
use stele_types::exchange::{
    BundleReply, CertifiedBlock, CertifiedHeader, Progress, StateProof, StatementStatus, Submitted,
};
use stele_types::governance::{
    Approve, EpochCertify, ParametersChange, Propose, ProtocolUpgrade, ValidatorsChange, Withdraw,
};
use stele_types::parameters::{SuiteRule, Timeouts};
use stele_types::party::{
    EnrolledKey, Founder, KeyEnrol, KeyReset, KeyRevoke, KeyRotate, MandateGive, MandateWithdraw, OrganisationCode,
    PartyEnrol, PartyStanding, RevocationReason, Role, RoleChange, RoleSet, TlsPin,
};
use stele_types::proposer::{ProposerSchedule, Silence};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::signer::{CheckpointSigner, KeyAttestation, KeyProvider, TpmIdentity};
use stele_types::statement::Unsigned;
use stele_types::vote::{CommitSignature, VoteSignature};
use stele_types::{
    Block, BlockId, Bundle, Checkpoint, Code, Command, CommitCertificate, Cti, EpochCertificate, Genesis, Hash, Header,
    Height, InclusionProof, KeyId, LogIndex, NetworkId, ObjectId, Outcome, Parameters, PartyId, Receipt, StateBundle,
    StatementId, Suite, Validator, ValidatorId, ValidatorSet, VoteKey,
};

use super::{Structure, field};

/// 32 bytes that differ by `byte`.
fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn list<T, const MAX: usize>(values: Vec<T>) -> List<T, MAX> {
    List::new(values).unwrap()
}

pub fn place() -> PlaceCode {
    PlaceCode::new(110_105).unwrap()
}

pub fn key(byte: u8) -> EnrolledKey {
    EnrolledKey { suite: Suite::Es256, public_key: Blob::new(vec![byte; 33]).unwrap() }
}

pub fn founder(byte: u8) -> Founder {
    Founder {
        party: PartyId([byte; 16]),
        organisation: OrganisationCode::new("91110000MA0000000X"),
        roles: RoleSet::of(&[Role::Governor, Role::Operator]),
        key: key(byte),
        tls_pins: list(vec![hash(byte)]),
    }
}

pub fn validator(byte: u8) -> Validator {
    Validator { public_key: [byte; 33], peer_key: [byte; 32], party: PartyId([byte; 16]) }
}

pub fn validators() -> ValidatorSet {
    ValidatorSet::new([1, 2, 3, 4].map(validator).into()).unwrap()
}

pub fn epoch_certificate() -> EpochCertificate {
    EpochCertificate {
        network: NetworkId([1; 32]),
        validator: ValidatorId([2; 32]),
        public_key: [3; 33],
        from_height: Height(4),
        until_height: Height(1_000_003),
        pcr_policy: hash(5),
        signature: [6; 64],
    }
}

pub fn custody_receipt() -> CustodyReceipt {
    CustodyReceipt {
        network: NetworkId([1; 32]),
        body_hash: ContentHash::Sha256,
        body_root: hash(2),
        length: 65_632,
        height: Height(4),
        time_ms: 1_700_000_000_000,
        signature: [6; 64],
    }
}

pub fn commit_certificate() -> CommitCertificate {
    let signature = |validator, key| CommitSignature {
        validator,
        signature: VoteSignature { key, signature: [u8::try_from(validator).unwrap(); 64] },
    };
    let signatures =
        vec![signature(0, VoteKey::Direct), signature(1, VoteKey::Delegated(hash(9))), signature(3, VoteKey::Direct)];
    CommitCertificate { height: Height(7), round: 2, block: BlockId([8; 32]), signatures: list(signatures) }
}

pub fn header() -> Header {
    Header {
        network: NetworkId([1; 32]),
        protocol_version: 1,
        height: Height(70_000),
        creation_round: 1,
        proposer: ValidatorId([2; 32]),
        time_ms: 1_790_000_000_123,
        parent: BlockId([3; 32]),
        parent_certificate: hash(4),
        statements_root: hash(5),
        log_size: 5_000_000_000,
        log_root: hash(6),
        state_root: hash(7),
        outcomes_root: hash(8),
        validators: hash(9),
        next_validators: hash(10),
        parameters: hash(11),
    }
}

pub fn checkpoint() -> Checkpoint {
    Checkpoint {
        suite: Suite::Es256,
        key: KeyId([3; 16]),
        network: NetworkId([1; 32]),
        height: Height(69_999),
        log_size: 5_000_000_000,
        state_root: hash(7),
        time_ms: 1_790_000_000_000,
    }
}

pub fn receipt() -> Receipt {
    let proof =
        InclusionProof { tree_size: 5_000_000_000, index: LogIndex(3), path: list((20..53).map(hash).collect()) };
    Receipt { checkpoint: checkpoint(), proof, signature: [8; 64] }
}

pub fn outcome() -> Outcome {
    Outcome { statement: StatementId([1; 32]), code: Code::Applied, index: Some(LogIndex(2)) }
}

pub fn outcome_proof() -> OutcomeProof {
    let outcome = Outcome { statement: StatementId([1; 32]), code: Code::Stale, index: None };
    OutcomeProof { outcome, tree_size: 3, position: 1, path: list(vec![hash(2), hash(3)]) }
}

pub fn chain_link() -> ChainLink {
    ChainLink { header: header(), certificate: commit_certificate(), validators: validators() }
}

pub fn bundle() -> Bundle {
    Bundle {
        version: 1,
        entry: Some(Blob::new(statements().swap_remove(0)).unwrap()),
        receipt: Some(receipt()),
        outcome: Some(outcome_proof()),
        header: header(),
        certificate: commit_certificate(),
        epoch_certificates: list(vec![epoch_certificate()]),
        chain: list(vec![chain_link()]),
        checkpoint_key: Some([2; 33]),
        checkpoint_signer: None,
    }
}

fn tpm_identity() -> TpmIdentity {
    TpmIdentity {
        endorsement_key: Blob::new(vec![1; 4]).unwrap(),
        endorsement_certificate: Some(Blob::new(vec![2; 4]).unwrap()),
        attestation_key: Blob::new(vec![3; 4]).unwrap(),
    }
}

fn key_attestation() -> KeyAttestation {
    KeyAttestation {
        message: Blob::new(vec![4; 4]).unwrap(),
        signature: Blob::new(vec![5; 4]).unwrap(),
        public_area: Some(Blob::new(vec![6; 4]).unwrap()),
        pcr_values: Some(Blob::new(vec![7; 4]).unwrap()),
    }
}

fn checkpoint_signer() -> CheckpointSigner {
    CheckpointSigner { provider: KeyProvider::Tpm, tpm: Some(tpm_identity()), attestation: Some(key_attestation()) }
}

/// A bundle that names its signer.
fn named_bundle() -> Bundle {
    Bundle { checkpoint_signer: Some(checkpoint_signer()), ..bundle() }
}

fn minimal_bundle() -> Bundle {
    Bundle {
        entry: None,
        receipt: None,
        outcome: None,
        epoch_certificates: List::default(),
        chain: List::default(),
        checkpoint_key: None,
        ..bundle()
    }
}

pub fn genesis() -> Genesis {
    Genesis {
        name: Text::new("north").unwrap(),
        region: PlaceCode::new(110_000).unwrap(),
        time_ms: 1_790_000_000_000,
        parameters: Parameters::default(),
        validators: validators(),
        epoch_certificates: list(vec![epoch_certificate()]),
        founders: list(vec![founder(1), Founder { organisation: None, tls_pins: List::default(), ..founder(2) }]),
    }
}

pub fn block() -> Block {
    Block {
        header: header(),
        parent_certificate: Some(commit_certificate()),
        entries: statements().into_iter().map(Into::into).collect(),
    }
}

/// A command statement, a hash envelope and a public statement.
pub fn statements() -> Vec<Vec<u8>> {
    let (suite, key, issuer) = (Suite::EdDsa, KeyId([1; 16]), PartyId([2; 16]));
    let command = Command::KeyRevoke(KeyRevoke { key: KeyId([9; 16]), reason: RevocationReason::Superseded });
    let (network, cti) = (NetworkId([3; 32]), Cti([4; 16]));
    [
        Unsigned::command(suite, key, issuer, network, 1_790_000_000, cti, &command),
        Unsigned::hash_envelope(suite, key, issuer, "report-7", "application/pdf", hash(7)).unwrap(),
        Unsigned::public(suite, key, issuer, "notice", "text/plain", b"open").unwrap(),
    ]
    .map(|unsigned| unsigned.into_entry(&[5; 64]))
    .into()
}

/// Every command, each twice when it has optional fields: with all of them and with none.
pub fn commands() -> Vec<Command> {
    let asset = AssetRegister {
        asset: ObjectId([1; 16]),
        kind: AssetKind::Resource,
        region: place(),
        holder: PartyId([2; 16]),
        rights: list(vec![RightClass::Hold, RightClass::Use, RightClass::Operate]),
        origin: Origin::PublicDuty,
        class: RecordClass::Property,
        sensitivity: Sensitivity::Important,
        schema: 7,
        records: 100_000,
        bytes: 5_000_000_000,
        first_day: 20_000,
        last_day: 20_500,
        content_root: hash(3),
        content_hash: ContentHash::Sm3,
        quality_report: Some(hash(4)),
        compliance_opinion: Some(hash(5)),
        valid_until_day: Some(22_000),
    };
    let record = RecordPut {
        record: ObjectId([1; 16]),
        class: RecordClass::Medical,
        schema: 4,
        subject: Some([2; 16]),
        place: Some(place()),
        event_day: 20_500,
        sensitivity: Sensitivity::SensitivePersonal,
        retention: 30,
        policy: hash(3),
        commitment: hash(4),
        body_root: Some(hash(5)),
        body_hash: Some(ContentHash::Sha256),
        on_behalf_of: Some(PartyId([6; 16])),
    };
    let correct = RecordCorrect {
        record: ObjectId([1; 16]),
        follows: 1,
        commitment: hash(2),
        body_root: Some(hash(3)),
        body_hash: Some(ContentHash::Sha256),
    };
    let enrol = PartyEnrol {
        party: PartyId([1; 16]),
        organisation: OrganisationCode::new("91110000MA0000000X"),
        roles: RoleSet::of(&[Role::Registrar]),
        key: key(2),
        tls_pins: list(vec![hash(3), hash(4)]),
    };
    let standing = PartyStanding { party: PartyId([1; 16]) };
    let role = RoleChange { party: PartyId([1; 16]), roles: RoleSet::of(&[Role::Agency, Role::Court]) };
    let approve = Approve { proposal: StatementId([1; 32]) };
    let inner = Command::PartySuspend(standing.clone()).to_bytes();
    vec![
        Command::AssetRegister(AssetRegister {
            quality_report: None,
            compliance_opinion: None,
            valid_until_day: None,
            ..asset.clone()
        }),
        Command::AssetRegister(asset),
        Command::AssetCancel(AssetCancel { asset: ObjectId([1; 16]), reason: CancelReason::DataGone }),
        Command::RecordPut(RecordPut {
            subject: None,
            place: None,
            body_root: None,
            body_hash: None,
            on_behalf_of: None,
            ..record.clone()
        }),
        Command::RecordPut(record),
        Command::RecordCorrect(RecordCorrect { body_root: None, body_hash: None, ..correct.clone() }),
        Command::RecordCorrect(correct),
        Command::PartyEnrol(PartyEnrol { organisation: None, ..enrol.clone() }),
        Command::PartyEnrol(enrol),
        Command::PartySuspend(standing.clone()),
        Command::PartyResume(standing),
        Command::RoleGrant(role.clone()),
        Command::RoleRevoke(role),
        Command::KeyEnrol(KeyEnrol { key: key(1) }),
        Command::KeyRotate(KeyRotate { old: KeyId([1; 16]), new: key(2) }),
        Command::KeyRevoke(KeyRevoke { key: KeyId([1; 16]), reason: RevocationReason::Compromised }),
        Command::KeyReset(KeyReset { party: PartyId([1; 16]), key: key(2) }),
        Command::TlsPin(TlsPin { pins: list(vec![hash(1)]) }),
        Command::MandateGive(MandateGive {
            mandate: ObjectId([1; 16]),
            grantee: PartyId([2; 16]),
            families: list(vec![1, 3]),
            valid_from_ms: 1_790_000_000_000,
            valid_until_ms: 1_800_000_000_000,
        }),
        Command::MandateWithdraw(MandateWithdraw { mandate: ObjectId([1; 16]) }),
        Command::Propose(Propose { command: Blob::new(inner).unwrap(), expires_ms: 1_791_000_000_000 }),
        Command::Approve(approve),
        Command::Withdraw(Withdraw { proposal: StatementId([1; 32]) }),
        Command::ParametersChange(ParametersChange { activation_height: 100, parameters: Parameters::default() }),
        Command::ValidatorsChange(ValidatorsChange {
            activation_height: 100,
            upsert: list(vec![validator(5)]),
            remove: list(vec![ValidatorId([6; 32])]),
        }),
        Command::ProtocolUpgrade(ProtocolUpgrade { activation_height: 100, version: 2 }),
        Command::EpochCertify(EpochCertify { certificate: epoch_certificate() }),
        Command::AttestationReport(AttestationReport {
            validator: ValidatorId([1; 32]),
            verdict: Verdict::Failed,
            evidence: hash(2),
            policy: hash(3),
        }),
    ]
}

/// The structures that are not commands.
pub fn structures() -> Vec<Structure> {
    macro_rules! record {
        ($rule:literal $ty:ty: $($sample:expr),+) => {
            Structure { rule: $rule, keys: <$ty>::KEYS, recode: field::<$ty>, samples: vec![$(encode::<$ty>(&$sample)),+] }
        };
        ($rule:literal $ty:ty, $recode:path: $($sample:expr),+) => {
            Structure { rule: $rule, keys: &[], recode: $recode, samples: vec![$($sample),+] }
        };
    }
    let status = StatementStatus {
        statement: StatementId([1; 32]),
        progress: Some(Progress::Certified),
        height: Some(Height(9)),
        position: Some(3),
        code: Some(Code::Applied),
        index: Some(LogIndex(7)),
    };
    let bare_status =
        StatementStatus { progress: None, height: None, position: None, code: None, index: None, ..status.clone() };
    let certified = CertifiedHeader {
        header: header(),
        certificate: commit_certificate(),
        epoch_certificates: list(vec![epoch_certificate()]),
        chain: list(vec![chain_link()]),
    };
    let proof = StateProof {
        key: hash(1),
        value: Some(Blob::new(vec![1, 2, 3]).unwrap()),
        proof: Blob::new(vec![0; 3]).unwrap(),
        root: hash(2),
        height: Height(9),
        certified_by: Some(certified.clone()),
    };
    let proven =
        ProvenValue { key: hash(1), value: proof.value.clone(), proof: proof.proof.clone(), height: Height(9) };
    let absent = ProvenValue { value: None, ..proven.clone() };
    let state_bundle =
        StateBundle { version: 1, values: list(vec![proven.clone()]), headers: list(vec![certified.clone()]) };
    let submitted =
        Submitted { statement: Some(StatementId([1; 32])), refusal: Some(Code::Saturated), retry_after_ms: Some(250) };
    let reply = BundleReply { statement: StatementId([1; 32]), bundle: Some(bundle()), refusal: None };
    let [command, envelope, public]: [Vec<u8>; 3] = statements().try_into().unwrap();
    let near = CertifiedHeader { epoch_certificates: List::default(), chain: List::default(), ..certified.clone() };
    let certified_block = CertifiedBlock { block: block(), certificate: commit_certificate() };
    let schedule = ProposerSchedule::new(4).after(5, 2, 0);
    let no_proof = StateProof { value: None, certified_by: None, ..proof.clone() };
    let first_block = Block { parent_certificate: None, entries: Vec::new(), ..block() };
    let rejected = Outcome { code: Code::IdConflict, index: None, ..outcome() };
    let refused = Submitted { statement: None, refusal: None, retry_after_ms: None };
    let no_bundle = BundleReply { bundle: None, refusal: Some(Code::NotCertified), ..reply.clone() };
    let number = CertificateNumber { region: place(), kind: AssetKind::Product, year: 2026, serial: 42 };
    let quoted = KeyAttestation { public_area: None, ..key_attestation() };
    let in_software = CheckpointSigner { provider: KeyProvider::Software, tpm: None, attestation: None };
    vec![
        record!("statement" Statement, super::statement: command, envelope, public),
        record!("receipt" Receipt, super::receipt: encode(&receipt())),
        record!("block" Block, super::block: block().to_bytes(), first_block.to_bytes()),
        record!("validator-set" ValidatorSet, field::<ValidatorSet>: encode(&validators())),
        record!("inclusion-proof" InclusionProof, field::<InclusionProof>: encode(&receipt().proof)),
        record!("commit-signature" CommitSignature, field::<CommitSignature>:
            encode(&commit_certificate().signatures[0]), encode(&commit_certificate().signatures[1])),
        record!("vote-signature" VoteSignature, field::<VoteSignature>:
            encode(&commit_certificate().signatures[0].signature)),
        Structure { recode: super::genesis, ..record!("genesis" Genesis: genesis()) },
        record!("enrolled-key" EnrolledKey: key(1)),
        record!("founder" Founder: founder(1), Founder { organisation: None, ..founder(1) }),
        record!("suite-rule" SuiteRule: Parameters::default().suites[0]),
        record!("timeouts" Timeouts: Parameters::default().timeouts),
        record!("parameters" Parameters: Parameters::default(),
            Parameters { attestation: Some(AttestationRule { verdict_life_ms: 3_600_000 }), ..Parameters::default() }),
        record!("attestation-rule" AttestationRule: AttestationRule { verdict_life_ms: 3_600_000 }),
        record!("validator" Validator: validator(1)),
        record!("epoch-certificate" EpochCertificate: epoch_certificate()),
        record!("custody-receipt" CustodyReceipt: custody_receipt()),
        record!("commit-certificate" CommitCertificate: commit_certificate()),
        record!("silence" Silence: schedule.silences[1]),
        record!("proposer-schedule" ProposerSchedule: schedule),
        record!("header" Header: header()),
        record!("outcome" Outcome: outcome(), rejected),
        record!("chain-link" ChainLink: chain_link()),
        record!("outcome-proof" OutcomeProof: outcome_proof()),
        record!("tpm-identity" TpmIdentity: tpm_identity(), TpmIdentity { endorsement_certificate: None, ..tpm_identity() }),
        record!("key-attestation" KeyAttestation: key_attestation(), quoted),
        record!("checkpoint-signer" CheckpointSigner: checkpoint_signer(), in_software),
        record!("bundle" Bundle: named_bundle(), bundle(), minimal_bundle()),
        record!("certificate-number" CertificateNumber: number),
        record!("submitted" Submitted: submitted, refused),
        record!("statement-status" StatementStatus: status, bare_status),
        record!("certified-header" CertifiedHeader: certified, near),
        record!("certified-block" CertifiedBlock: certified_block),
        record!("state-proof" StateProof: proof, no_proof),
        record!("proven-value" ProvenValue: proven, absent),
        record!("state-bundle" StateBundle: state_bundle),
        record!("bundle-reply" BundleReply: reply, no_bundle),
    ]
}

/// The commands as structures, by number; the rule's name is the word with a hyphen in place of the point.
pub fn command_structures() -> Vec<Structure> {
    let commands = commands();
    Command::SCHEMA
        .iter()
        .map(|(number, word, keys)| Structure {
            rule: String::leak(word.replace('.', "-")),
            keys,
            recode: super::command,
            samples: commands.iter().filter(|command| command.number() == *number).map(Command::to_bytes).collect(),
        })
        .collect()
}

fn encode<T: Field>(value: &T) -> Vec<u8> {
    cbor::to_vec(value)
}
