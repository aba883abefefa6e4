//! The JSON forms of answers. JSON is a view for people and scripts and is never signed; bytes are hexadecimal, 64-bit
//! numbers are JSON numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stele_accel_hash::HashAlgorithm;
use stele_storage::{DriveState, Group, Status};
use stele_types::cbor::{self, Field};
use stele_types::exchange::{CertifiedHeader, StatementStatus, Submitted};
use stele_types::parameters::Timeouts;
use stele_types::record::ContentHash;
use stele_types::{CommitCertificate, Hash, Header, Parameters, Validator, VoteKey};
use utoipa::ToSchema;

use super::backend::{Snapshot, Standpoint};
use crate::config::CustodyLevel;
use crate::payload::{Blob, Copied, Job, JobState, KeptBody};

/// Bytes as they are; the content type says which.
#[derive(ToSchema)]
#[schema(as = Octets, value_type = String, format = Binary)]
pub(super) struct OctetsView(#[expect(dead_code, reason = "only its description is used")] Vec<u8>);

/// Statement ids of a bulk query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Statements)]
pub(super) struct StatementsView {
    /// Statement ids.
    pub(super) statements: Vec<String>,
}

/// A body that was put.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Blob)]
pub(super) struct BlobView {
    /// Root of the sealed form: `body_root` of the record.
    root: String,
    /// Hash of the root: `body_hash` of the record.
    #[schema(example = "sha256")]
    hash: &'static str,
    /// `HMAC-SHA-256(salt, body)`: `commitment` of the record.
    commitment: String,
    /// The salt. As secret as the body: with it a guess can be compared with the commitment.
    salt: String,
    /// Bytes of the body.
    length: u64,
    /// How long the body stays without a statement that refers to it, milliseconds.
    unreferenced_ms: u64,
    /// Where it has to be, and where it is.
    custody: BodyCustodyView,
}

impl BlobView {
    pub(super) fn new(blob: &Blob, custody: BodyCustodyView) -> Self {
        Self {
            root: blob.root.to_hex(),
            hash: match blob.hash {
                HashAlgorithm::Sha256 => ContentHash::Sha256.as_str(),
                HashAlgorithm::Sm3 => ContentHash::Sm3.as_str(),
            },
            commitment: blob.commitment.to_hex(),
            salt: hex::encode(blob.salt),
            length: blob.bytes,
            unreferenced_ms: u64::try_from(blob.unreferenced_max.as_millis()).unwrap_or(u64::MAX),
            custody,
        }
    }
}

/// Where a body has to be, and where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BodyCustody)]
pub(super) struct BodyCustodyView {
    /// The level that its class asks for: `local`, `two-custodians` or `cold`.
    #[schema(example = "two-custodians")]
    wanted: &'static str,
    /// The level that it has.
    #[schema(example = "two-custodians")]
    reached: &'static str,
    /// Whether the cold tier holds it, read back and sealed there.
    in_cold_tier: bool,
    /// What other nodes signed for it.
    receipts: Vec<CustodyReceiptView>,
}

/// A custody receipt, and whose it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CustodyReceipt)]
pub(super) struct CustodyReceiptView {
    /// Checkpoint key of the node that holds the copy: SEC1, compressed, hexadecimal.
    key: String,
    /// The receipt in deterministic CBOR (docs/protocol.md, section 17), hexadecimal.
    receipt: String,
}

impl BodyCustodyView {
    pub(super) fn new(wanted: CustodyLevel, copied: Option<&Copied>, in_cold_tier: bool) -> Self {
        let reached = match wanted {
            CustodyLevel::Cold if in_cold_tier => CustodyLevel::Cold,
            _ if copied.is_some() => CustodyLevel::TwoCustodians,
            _ => CustodyLevel::Local,
        };
        let receipt = |copied: &Copied| CustodyReceiptView {
            key: hex::encode(copied.key),
            receipt: hex::encode(cbor::to_vec(&copied.receipt)),
        };
        let receipts = copied.into_iter().map(receipt).collect();
        Self { wanted: wanted.as_str(), reached: reached.as_str(), in_cold_tier, receipts }
    }
    pub(super) fn is_reached(&self) -> bool {
        self.wanted == self.reached
    }
}

/// What a node is asked to keep a copy of.
#[derive(Debug, ToSchema)]
#[schema(as = CopyRequest)]
#[expect(dead_code, reason = "the form of a request; `stele_client::CopyRequest` is read")]
pub(super) struct CopyRequestView {
    /// Custody key of the node that asks, hexadecimal.
    origin: String,
    /// Root of the sealed body, hexadecimal.
    root: String,
    /// Bytes of the sealed body.
    length: u64,
    /// Year in which its retention ends; 0 if it does not.
    retention_year: u16,
    /// No statement in the blocks up to this height refers to it; absent if one does.
    unreferenced_at: Option<u64>,
    /// Its class key, sealed for the node that is asked.
    class_key: ClassKeyView,
}

/// A class key, sealed for one node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClassKey)]
pub(super) struct ClassKeyView {
    /// Custody key of the node that made it, hexadecimal.
    origin: String,
    /// Number of the class of records.
    class: u16,
    /// Its id, hexadecimal.
    id: String,
    /// Encapsulated key and ciphertext, hexadecimal.
    sealed: String,
}

/// Class keys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClassKeys)]
pub(super) struct ClassKeysView {
    keys: Vec<ClassKeyView>,
}

impl ClassKeysView {
    pub(super) fn new(keys: Vec<stele_client::ClassKeyView>) -> Self {
        let view = |key: stele_client::ClassKeyView| ClassKeyView {
            origin: key.origin,
            class: key.class,
            id: key.id,
            sealed: key.sealed,
        };
        Self { keys: keys.into_iter().map(view).collect() }
    }
}

/// A node's word that it holds a copy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Copy)]
pub(super) struct CopyView {
    /// The custody receipt in deterministic CBOR, hexadecimal.
    pub(super) receipt: String,
}

/// Roots of sealed bodies.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Roots)]
pub(super) struct RootsView {
    /// Hexadecimal.
    pub(super) roots: Vec<String>,
}

/// A body that is kept for another node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeptBody)]
pub(super) struct KeptBodyView {
    /// Root of the sealed body, hexadecimal.
    root: String,
    /// Year in which its retention ends; 0 if it does not.
    retention_year: u16,
    /// Whether no statement refers to it yet.
    unreferenced: bool,
}

impl From<&KeptBody> for KeptBodyView {
    fn from(body: &KeptBody) -> Self {
        Self {
            root: body.root.to_hex().to_string(),
            retention_year: body.retention_year,
            unreferenced: body.unreferenced,
        }
    }
}

/// Some of the bodies that are kept for another node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeptBodies)]
pub(super) struct KeptBodiesView {
    /// Height up to which blocks were looked at for references.
    pub(super) height: u64,
    pub(super) bodies: Vec<KeptBodyView>,
    /// Bodies that could not be read, or told whose they are.
    pub(super) unreadable: u64,
    /// Where to go on, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<u32>,
    /// Objects to skip there.
    pub(super) skip: u32,
}

/// A body that is stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredBody)]
pub(super) struct StoredBodyView {
    /// Root of the sealed form.
    root: String,
    /// Number of its class of records.
    class: u8,
    /// Year in which its retention ends; 0: it does not.
    retention_year: u16,
}

impl From<&(Hash, Group)> for StoredBodyView {
    fn from((root, group): &(Hash, Group)) -> Self {
        Self { root: root.to_hex(), class: group.class, retention_year: group.year }
    }
}

/// Some of the bodies that are stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredBodies)]
pub(super) struct StoredBodiesView {
    pub(super) bodies: Vec<StoredBodyView>,
    /// Directories of segments that could not be read: what they list is missing.
    pub(super) unreadable: u64,
    /// Where to go on, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<u32>,
    /// Objects to skip there.
    pub(super) skip: u32,
}

/// A device that takes the place of a drive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Replacement)]
pub(super) struct ReplacementView {
    /// Absolute path of the device, or of a preallocated file.
    #[schema(example = "/dev/ng0n1")]
    pub(super) path: String,
}

/// How the payload store is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Storage)]
pub(super) struct StorageView {
    pub(super) drives: Vec<DriveView>,
    /// Segments that hold something.
    segments: u64,
    /// Segments that there is room for.
    segments_free: u64,
    /// Segments that the cold tier holds.
    segments_cold: u64,
    /// Objects, their parts and manifests: about so many.
    records: u64,
    /// Bodies that no statement refers to yet.
    unreferenced: u64,
    /// Bodies of which another node is to have a copy and none has.
    alone: u64,
    /// Why nothing is written any more, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<String>,
    /// Damaged cells that were written again, since the node started.
    repaired: u64,
    /// Batches of which too little is left, found since the node started.
    lost: u64,
    /// What an operator asked for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobView>,
}

/// A drive of the payload store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drive)]
pub(super) struct DriveView {
    /// Its number.
    drive: usize,
    /// Where it is; none while it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// `sound`, `rebuilding` or `failed`.
    #[schema(example = "sound")]
    state: &'static str,
    bytes: u64,
    /// Room on it, in percent of its slots.
    free_percent: u64,
    /// What it said when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What an operator asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageJob)]
pub(super) struct JobView {
    /// `scrub`, `replace` or `rebuild`.
    #[schema(example = "scrub")]
    job: &'static str,
    /// The drive that is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    drive: Option<usize>,
    running: bool,
    /// How far it is.
    percent: u8,
    /// Segments that were read.
    segments: u64,
    /// Damaged or missing cells that were written again.
    repaired: u64,
    /// Batches of which too little is left.
    lost: u64,
    /// Bodies that were brought back from other nodes.
    bodies: u64,
    /// Archived blocks that were.
    blocks: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl StorageView {
    pub(super) fn new(
        status: &Status,
        paths: &[Option<PathBuf>],
        job: &JobState,
        (unreferenced, alone): (usize, usize),
    ) -> Self {
        let drives = status.drives.iter().enumerate().map(|(number, drive)| DriveView {
            drive: number,
            path: paths.get(number).and_then(Option::as_ref).map(|path| path.display().to_string()),
            state: match drive.state {
                DriveState::Sound => "sound",
                DriveState::Rebuilding => "rebuilding",
                DriveState::Failed => "failed",
            },
            bytes: drive.bytes,
            free_percent: (u64::from(drive.slots_free) * 100).checked_div(u64::from(drive.slots)).unwrap_or_default(),
            reason: drive.reason.clone(),
        });
        let view = |asked: &Job| JobView {
            job: match asked {
                Job::Scrub => "scrub",
                Job::Rebuild => "rebuild",
                Job::Replace { .. } => "replace",
            },
            drive: match asked {
                Job::Scrub | Job::Rebuild => None,
                Job::Replace { drive, .. } => Some(*drive),
            },
            running: job.running,
            percent: job.percent,
            segments: job.found.segments,
            repaired: job.found.repaired,
            lost: job.found.lost,
            bodies: job.bodies,
            blocks: job.blocks,
            failure: job.failure.clone(),
        };
        Self {
            drives: drives.collect(),
            segments: status.segments,
            segments_free: status.segments_free,
            segments_cold: status.segments_cold,
            records: status.records,
            unreferenced: unreferenced as u64,
            alone: alone as u64,
            read_only: status.read_only.clone(),
            repaired: status.counters.repaired,
            lost: status.counters.lost,
            job: job.job.as_ref().map(view),
        }
    }
}

/// The snapshots that a joiner can have, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Snapshots)]
pub(super) struct SnapshotsView {
    pub(super) snapshots: Vec<SnapshotView>,
}

/// A snapshot of the state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub(super) struct SnapshotView {
    /// The state is the one after this height; the header of the next certifies its root.
    height: u64,
    state_root: String,
    /// Its chunks are the ranges of keys that begin with the same so many bits: 2^depth of them.
    depth: u8,
    /// Pairs in all.
    pairs: u64,
    /// Bytes in all.
    bytes: u64,
}

impl From<&Snapshot> for SnapshotView {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            height: snapshot.height.0,
            state_root: snapshot.state_root.to_hex(),
            depth: snapshot.depth,
            pairs: snapshot.pairs,
            bytes: snapshot.bytes,
        }
    }
}

/// What a joiner needs beside the state and the blocks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standpoint)]
pub(super) struct StandpointView {
    /// The log's right edge after the height: size, then the complete subtrees, largest first.
    log_frontier: String,
    /// Outcomes of the block at the height, each as it is in the tree of outcomes.
    outcomes: Vec<String>,
}

impl From<&Standpoint> for StandpointView {
    fn from(standpoint: &Standpoint) -> Self {
        Self {
            log_frontier: hex::encode(standpoint.log_frontier.encode()),
            outcomes: standpoint.outcomes.iter().map(|outcome| hex::encode(outcome.to_bytes())).collect(),
        }
    }
}

/// Where a statement is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(super) struct StatusView {
    /// Id of the statement.
    statement: String,
    /// `pending`, `executed` or `certified`; absent when the node does not know the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'static str>,
    /// Height of its block.
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    /// Position in the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    /// Its outcome: `applied`, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Index of its leaf, when it applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

impl From<&StatementStatus> for StatusView {
    fn from(status: &StatementStatus) -> Self {
        Self {
            statement: status.statement.to_hex(),
            progress: status.progress.map(stele_types::exchange::Progress::as_str),
            height: status.height.map(|height| height.0),
            position: status.position,
            code: status.code.map(stele_types::Code::as_str),
            index: status.index.map(|index| index.0),
        }
    }
}

/// Where many statements are, in the order of the query.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Statuses)]
pub(super) struct StatusesView {
    pub(super) statuses: Vec<StatusView>,
}

/// Answer to one statement of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Submitted)]
pub(super) struct SubmittedView {
    /// Id, when the statement was taken or known.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    /// Code of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    /// When to send it again, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

impl From<&Submitted> for SubmittedView {
    fn from(submitted: &Submitted) -> Self {
        Self {
            statement: submitted.statement.map(|id| id.to_hex()),
            refusal: submitted.refusal.map(stele_types::Code::as_str),
            retry_after_ms: submitted.retry_after_ms,
        }
    }
}

/// Answers to a batch, in its order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub(super) struct SubmittedsView {
    pub(super) results: Vec<SubmittedView>,
}

/// One signature of a certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CommitSignature)]
pub(super) struct CommitSignatureView {
    /// Index in the validator set of the height.
    validator: u16,
    /// Hash of the epoch certificate whose key signed; absent for the long-term key.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch_certificate: Option<String>,
    /// r ‖ s.
    signature: String,
}

/// A quorum for a block.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CommitCertificate)]
pub(super) struct CertificateView {
    /// Round of the precommits.
    round: u32,
    /// The block.
    block: String,
    signatures: Vec<CommitSignatureView>,
}

impl From<&CommitCertificate> for CertificateView {
    fn from(certificate: &CommitCertificate) -> Self {
        let signature = |each: &stele_types::CommitSignature| CommitSignatureView {
            validator: each.validator,
            epoch_certificate: match each.signature.key {
                VoteKey::Direct => None,
                VoteKey::Delegated(hash) => Some(hash.to_hex()),
            },
            signature: hex::encode(each.signature.signature),
        };
        Self {
            round: certificate.round,
            block: certificate.block.to_hex(),
            signatures: certificate.signatures.iter().map(signature).collect(),
        }
    }
}

/// A block header.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Header)]
pub(super) struct HeaderView {
    network: String,
    protocol_version: u32,
    height: u64,
    creation_round: u32,
    proposer: String,
    time_ms: u64,
    parent: String,
    parent_certificate: String,
    statements_root: String,
    /// Leaves of the log after the height below.
    log_size: u64,
    log_root: String,
    state_root: String,
    outcomes_root: String,
    validators: String,
    next_validators: String,
    parameters: String,
}

impl From<&Header> for HeaderView {
    fn from(header: &Header) -> Self {
        Self {
            network: header.network.to_hex(),
            protocol_version: header.protocol_version,
            height: header.height.0,
            creation_round: header.creation_round,
            proposer: header.proposer.to_hex(),
            time_ms: header.time_ms,
            parent: header.parent.to_hex(),
            parent_certificate: header.parent_certificate.to_hex(),
            statements_root: header.statements_root.to_hex(),
            log_size: header.log_size,
            log_root: header.log_root.to_hex(),
            state_root: header.state_root.to_hex(),
            outcomes_root: header.outcomes_root.to_hex(),
            validators: header.validators.to_hex(),
            next_validators: header.next_validators.to_hex(),
            parameters: header.parameters.to_hex(),
        }
    }
}

/// A header with its id and a quorum for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CertifiedHeader)]
pub(super) struct CertifiedHeaderView {
    /// Id of the header: what the quorum signed.
    block: String,
    header: HeaderView,
    certificate: CertificateView,
    /// Epoch certificates that the signatures name, in deterministic CBOR.
    epoch_certificates: Vec<String>,
    /// Validator-set changes from the trusted height on, in deterministic CBOR.
    chain: Vec<String>,
}

impl From<&CertifiedHeader> for CertifiedHeaderView {
    fn from(certified: &CertifiedHeader) -> Self {
        Self {
            block: certified.header.id().to_hex(),
            header: (&certified.header).into(),
            certificate: (&certified.certificate).into(),
            epoch_certificates: encoded(certified.epoch_certificates.iter()),
            chain: encoded(certified.chain.iter()),
        }
    }
}

fn encoded<'v, T: Field + 'v>(values: impl Iterator<Item = &'v T>) -> Vec<String> {
    values.map(|value| hex::encode(cbor::to_vec(value))).collect()
}

/// The newest signed checkpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Checkpoint)]
pub(super) struct CheckpointView {
    pub(super) network: String,
    /// Height after which the tree head stands.
    pub(super) height: u64,
    pub(super) log_size: u64,
    pub(super) log_root: String,
    pub(super) state_root: String,
    pub(super) time_ms: u64,
    /// Suite of the checkpoint key.
    pub(super) suite: &'static str,
    /// Id of the checkpoint key.
    pub(super) key: String,
    /// Protected header of the COSE signature.
    pub(super) protected: String,
    /// Signature over the `Sig_structure` of the protected header and the log root.
    pub(super) signature: String,
}

/// RFC 9162 consistency proof.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Consistency)]
pub(super) struct ConsistencyView {
    pub(super) old: u64,
    pub(super) new: u64,
    pub(super) path: Vec<String>,
}

/// A value of the state, or its absence, with proof.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StateProof)]
pub(super) struct StateProofView {
    /// Key of the state tree.
    pub(super) key: String,
    /// The value as people read it; its proven bytes are `value`. Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<serde_json::Value>,
    /// The value's bytes: deterministic CBOR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// The proof in the encoding of the state tree.
    pub(super) proof: String,
    /// The root it leads to.
    pub(super) root: String,
    /// Height after which the root stands.
    pub(super) height: u64,
    /// The header that certifies the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certified_by: Option<CertifiedHeaderView>,
}

/// A validator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Validator)]
pub(super) struct ValidatorView {
    id: String,
    /// Long-term P-256 key, SEC1 compressed.
    public_key: String,
    /// libp2p peer id.
    peer_id: String,
    /// The party that runs it.
    party: String,
}

impl From<&Validator> for ValidatorView {
    fn from(validator: &Validator) -> Self {
        Self {
            id: validator.id().to_hex(),
            public_key: hex::encode(validator.public_key),
            peer_id: hex::encode(validator.peer_id()),
            party: validator.party.to_hex(),
        }
    }
}

/// Parameters in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Parameters)]
pub(super) struct ParametersView {
    hash: String,
    protocol_version: u32,
    /// Suites with the version of their acceptance rule.
    suites: Vec<SuiteRuleView>,
    state_hash: &'static str,
    block_bytes_max: u32,
    block_statements_max: u32,
    statement_bytes_max: u32,
    replay_past_ms: u64,
    replay_future_ms: u64,
    clock_ahead_ms: u64,
    clock_behind_ms: u64,
    heartbeat_ms: u64,
    proposal_life_ms: u64,
    timeouts: TimeoutsView,
    /// What a validator must show to stay one; nothing when it is null.
    attestation: Option<AttestationRuleView>,
}

/// The rule of admission.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AttestationRule)]
pub(super) struct AttestationRuleView {
    /// How long a passing verdict counts, milliseconds of block time.
    verdict_life_ms: u64,
}

/// Time-outs of the rounds, milliseconds; the second of each pair is added for every further round.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timeouts)]
pub(super) struct TimeoutsView {
    propose_ms: u32,
    propose_step_ms: u32,
    prevote_ms: u32,
    prevote_step_ms: u32,
    precommit_ms: u32,
    precommit_step_ms: u32,
}

impl From<&Timeouts> for TimeoutsView {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            propose_ms: timeouts.propose_ms,
            propose_step_ms: timeouts.propose_step_ms,
            prevote_ms: timeouts.prevote_ms,
            prevote_step_ms: timeouts.prevote_step_ms,
            precommit_ms: timeouts.precommit_ms,
            precommit_step_ms: timeouts.precommit_step_ms,
        }
    }
}

/// A suite that statements may use.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SuiteRule)]
pub(super) struct SuiteRuleView {
    suite: &'static str,
    version: u16,
}

impl From<&Parameters> for ParametersView {
    fn from(parameters: &Parameters) -> Self {
        let suites = parameters.suites.iter();
        Self {
            hash: parameters.hash().to_hex(),
            protocol_version: parameters.protocol_version,
            suites: suites.map(|rule| SuiteRuleView { suite: rule.suite.as_str(), version: rule.version }).collect(),
            state_hash: parameters.state_hash.as_str(),
            block_bytes_max: parameters.block_bytes_max,
            block_statements_max: parameters.block_statements_max,
            statement_bytes_max: parameters.statement_bytes_max,
            replay_past_ms: parameters.replay_past_ms,
            replay_future_ms: parameters.replay_future_ms,
            clock_ahead_ms: parameters.clock_ahead_ms,
            clock_behind_ms: parameters.clock_behind_ms,
            heartbeat_ms: parameters.heartbeat_ms,
            proposal_life_ms: parameters.proposal_life_ms,
            timeouts: (&parameters.timeouts).into(),
            attestation: parameters
                .attestation
                .as_ref()
                .map(|rule| AttestationRuleView { verdict_life_ms: rule.verdict_life_ms }),
        }
    }
}

/// The key that signs this node's checkpoints.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CheckpointKey)]
pub(super) struct CheckpointKeyView {
    /// COSE `kid`.
    pub(super) id: String,
    pub(super) suite: &'static str,
    /// SEC1 compressed.
    pub(super) public_key: String,
    /// SubjectPublicKeyInfo, PEM.
    pub(super) pem: String,
}

/// Bounds of this node's API.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
pub(super) struct LimitsView {
    pub(super) body_bytes_max: usize,
    pub(super) batch_bytes_max: usize,
    pub(super) batch_statements_max: usize,
    pub(super) bundles_max: usize,
    pub(super) wait_max_ms: u64,
}

/// The network, as this node knows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Network)]
pub(super) struct NetworkView {
    /// SHA-256 of the genesis file.
    pub(super) network: String,
    pub(super) name: String,
    /// Region of the register, six digits.
    pub(super) region: u64,
    pub(super) genesis_time_ms: u64,
    /// Height of the newest committed block.
    pub(super) height: u64,
    /// Results up to this height are certified.
    pub(super) certified_height: u64,
    pub(super) log_size: u64,
    pub(super) parameters: ParametersView,
    /// Hash of the validator set.
    pub(super) validators_hash: String,
    pub(super) validators: Vec<ValidatorView>,
    /// Validators that are out of the set until a verdict on their evidence passes.
    pub(super) suspended_validators: Vec<ValidatorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint_key: Option<CheckpointKeyView>,
    pub(super) limits: LimitsView,
}

/// One registered statement of the feed: a CloudEvent (CloudEvents 1.0, JSON batch format).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventView {
    /// `1.0`.
    pub(super) specversion: &'static str,
    /// Statement id.
    pub(super) id: String,
    /// `urn:stele:` and the network id.
    pub(super) source: String,
    /// `stele.` and the command, or `stele.opaque`.
    pub(super) r#type: String,
    /// Index of the leaf: the cursor of this event.
    pub(super) subject: String,
    /// Block time, RFC 3339.
    pub(super) time: String,
    /// `application/json`.
    pub(super) datacontenttype: &'static str,
    pub(super) data: EventDataView,
}

/// What the feed says of a statement.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventData)]
pub(super) struct EventDataView {
    /// Index of the leaf.
    pub(super) index: u64,
    /// Height of its block.
    pub(super) height: u64,
    /// Position in the block.
    pub(super) position: u32,
    /// Who issued it.
    pub(super) issuer: String,
    /// The object of the command: a record, asset, party, key or mandate. Absent for opaque statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<String>,
}

/// By what a node's TPM and keys are known.
#[derive(ToSchema)]
#[schema(as = AttestationIdentity)]
pub(super) struct IdentityView {
    /// `TPM2B_PUBLIC` of the endorsement key, base64.
    #[expect(dead_code, reason = "only its description is used")]
    endorsement_key: String,
    /// The maker's certificate of it, DER, base64.
    #[expect(dead_code, reason = "only its description is used")]
    endorsement_certificate: Option<String>,
    /// `TPM2B_PUBLIC` of the attestation key, base64.
    #[expect(dead_code, reason = "only its description is used")]
    attestation_key: String,
    /// Its name, hexadecimal.
    #[expect(dead_code, reason = "only its description is used")]
    attestation_key_name: String,
    /// The node's keys, as an evidence package has them.
    #[expect(dead_code, reason = "only its description is used")]
    keys: Vec<serde_json::Value>,
}

/// A credential for the node's TPM.
#[derive(ToSchema)]
#[schema(as = Activation)]
pub(super) struct ActivationView {
    /// `TPM2B_ID_OBJECT`, base64.
    #[expect(dead_code, reason = "only its description is used")]
    id_object: String,
    /// `TPM2B_ENCRYPTED_SECRET`, base64.
    #[expect(dead_code, reason = "only its description is used")]
    encrypted_seed: String,
}

/// The secret of a credential.
#[derive(ToSchema)]
#[schema(as = Activated)]
pub(super) struct ActivatedView {
    /// Base64.
    #[expect(dead_code, reason = "only its description is used")]
    secret: String,
}

/// A verifier's nonce.
#[derive(ToSchema)]
#[schema(as = Challenge)]
pub(super) struct ChallengeView {
    /// 64 hexadecimal digits, used once.
    #[expect(dead_code, reason = "only its description is used")]
    nonce: String,
}
