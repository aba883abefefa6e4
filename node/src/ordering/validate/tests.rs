//! Rules of a block that need no second node: whose command it is, and what its time may be.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use stele_accel::{Engine, EngineConfig};
use stele_types::cbor::{Blob, List, Text};
use stele_types::governance::Approve;
use stele_types::party::{EnrolledKey, Founder, Role, RoleSet};
use stele_types::record::PlaceCode;
use stele_types::statement::Unsigned;
use stele_types::vote::{VoteKey, VoteSignature};
use stele_types::{
    Command, CommitCertificate, CommitSignature, Cti, Genesis, NetworkId, Parameters, PartyId, Statement, StatementId,
    Suite, Validator,
};

use super::*;
use crate::chain::ChainOptions;
use crate::metrics::{Metrics, Version};
use crate::ordering::ahead::Ahead;
use crate::ordering::propose;
use crate::signatures::Signatures;

const GENESIS_MS: u64 = 1_800_000_000_000;
/// The clock of the node under test: an hour after genesis.
const NOW_MS: u64 = GENESIS_MS + 3_600_000;
const AHEAD_MS: u64 = 500;
const BEHIND_MS: u64 = 5_000;

fn key(number: u8) -> SigningKey {
    SigningKey::from_slice(&[number; 32]).unwrap()
}

fn enrolled(number: u8) -> EnrolledKey {
    let point = key(number).verifying_key().to_encoded_point(true);
    EnrolledKey { suite: Suite::Es256, public_key: Blob::new(point.as_bytes().to_vec()).unwrap() }
}

/// A chain of one validator at genesis.
struct Bench {
    chain: Arc<Chain>,
    validator: ValidatorId,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let founder = |number: u8| Founder {
            party: PartyId([number; 16]),
            organisation: None,
            roles: RoleSet::of(&[Role::Governor, Role::Operator]),
            key: enrolled(number),
            tls_pins: List::new(vec![Hash([number; 32])]).unwrap(),
        };
        let public_key = key(9).verifying_key().to_encoded_point(true).as_bytes().try_into().unwrap();
        let validator = Validator { public_key, peer_key: [9; 32], party: PartyId([1; 16]) };
        let genesis = Genesis {
            name: Text::new("test").unwrap(),
            region: PlaceCode::new(110_000).unwrap(),
            time_ms: GENESIS_MS,
            parameters: Parameters::default(),
            validators: ValidatorSet::new(vec![validator.clone()]).unwrap(),
            epoch_certificates: List::default(),
            founders: List::new(vec![founder(1), founder(2)]).unwrap(),
        };
        assert_eq!((genesis.parameters.clock_ahead_ms, genesis.parameters.clock_behind_ms), (AHEAD_MS, BEHIND_MS));
        let directory = tempfile::tempdir().unwrap();
        let (chain, _writer) =
            Chain::open(directory.path(), &genesis.to_bytes(), genesis, ChainOptions::default()).unwrap();
        Self { chain, validator: validator.id(), _directory: directory }
    }

    /// The block of height 1 as its proposer makes it when its clock shows `clock_ms`.
    fn block(&self, clock_ms: u64, statements: &[Statement]) -> Block {
        let leaves: Vec<_> =
            statements.iter().map(|statement| stele_merkle::log::leaf_hash(statement.entry())).collect();
        let (head, network) = (self.chain.head(), self.chain.network());
        let header = propose::header(&head, network, self.validator, (Height(1), 0), clock_ms, &leaves);
        let entries = statements.iter().map(|statement| Arc::clone(statement.entry())).collect();
        Block { header, parent_certificate: None, entries }
    }

    /// What this node says to a block: the reason of its vote for nil, if it votes nil.
    fn verdict(&self, block: &Block, origin: Origin, now_ms: u64) -> Option<&'static str> {
        let candidate = Candidate {
            height: Height(1),
            round: 0,
            proposer: self.validator,
            sender: Some(self.validator),
            origin,
            bytes: block.to_bytes().into(),
        };
        match check(&self.chain, &candidate, None, now_ms) {
            Ok(_) => None,
            Err(Refusal::Invalid(_, reason)) => Some(reason),
            Err(_) => Some("another refusal"),
        }
    }

    fn command(&self, audience: NetworkId) -> Statement {
        let command = Command::Approve(Approve { proposal: StatementId([7; 32]) });
        let (issuer, issued_at) = (PartyId([1; 16]), NOW_MS / 1_000);
        let unsigned =
            Unsigned::command(Suite::Es256, enrolled(1).id(), issuer, audience, issued_at, Cti([3; 16]), &command);
        let signature: Signature = key(1).sign(&unsigned.signing_bytes());
        Statement::parse(unsigned.into_entry(&signature.to_bytes())).unwrap()
    }
}

#[test]
fn a_block_with_a_command_of_another_network_gets_no_vote() {
    let bench = Bench::new();
    let own = bench.block(NOW_MS, &[bench.command(bench.chain.network())]);
    let foreign = bench.block(NOW_MS, &[bench.command(NetworkId([0x77; 32]))]);
    for origin in [Origin::Fresh, Origin::Repeated, Origin::Sync] {
        assert_eq!(bench.verdict(&own, origin, NOW_MS), None, "{origin:?}");
        assert_eq!(bench.verdict(&foreign, origin, NOW_MS), Some("foreign_network"), "{origin:?}");
    }
    let header = Header { network: NetworkId([0x77; 32]), ..own.header.clone() };
    let block = Block { header, ..own };
    assert_eq!(bench.verdict(&block, Origin::Fresh, NOW_MS), Some("foreign_network"), "the header's own network");
}

#[test]
fn a_fresh_block_outside_the_clock_gets_no_vote_and_others_are_not_compared() {
    let bench = Bench::new();
    for (time_ms, expected) in [
        (NOW_MS + AHEAD_MS, None),
        (NOW_MS + AHEAD_MS + 1, Some("time_ahead")),
        (NOW_MS - BEHIND_MS, None),
        (NOW_MS - BEHIND_MS - 1, Some("time_behind")),
    ] {
        let block = bench.block(time_ms, &[]);
        assert_eq!(bench.verdict(&block, Origin::Fresh, NOW_MS), expected, "{time_ms}");
        for origin in [Origin::Repeated, Origin::Sync] {
            assert_eq!(bench.verdict(&block, origin, NOW_MS), None, "{time_ms} {origin:?}");
        }
    }
}

#[test]
fn a_proposer_whose_clock_lags_behind_the_parent_adds_a_millisecond_and_is_never_behind() {
    let bench = Bench::new();
    let block = bench.block(GENESIS_MS - 3_600_000, &[]);
    assert_eq!(block.header.time_ms, GENESIS_MS + 1);
    assert_eq!(bench.verdict(&block, Origin::Fresh, NOW_MS), None);
    // One more would be a time of its own, and that is old.
    let header = Header { time_ms: GENESIS_MS + 2, ..block.header.clone() };
    assert_eq!(bench.verdict(&Block { header, ..block.clone() }, Origin::Fresh, NOW_MS), Some("time_behind"));
    for origin in [Origin::Fresh, Origin::Repeated, Origin::Sync] {
        let header = Header { time_ms: GENESIS_MS, ..block.header.clone() };
        let block = Block { header, ..block.clone() };
        assert_eq!(bench.verdict(&block, origin, NOW_MS), Some("time_not_increasing"), "{origin:?}");
    }
}

/// A GPU may have had a part in it, and votes are the cores' affair.
#[test]
fn what_bulk_work_verified_counts_for_no_vote() {
    let bench = Bench::new();
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() }).unwrap();
    let signatures = Signatures::new(Arc::new(engine), Metrics::new(&Version::default()));
    let verified = Arc::new(Verified::default());
    let ahead = Ahead::new(Arc::clone(&bench.chain), signatures, Arc::clone(&verified));
    let [bulk, live] = [Hash([7; 32]), Hash([8; 32])];
    ahead.learn([bulk].into_iter());
    verified.add([live].into_iter());
    assert!(ahead.knows(&bulk) && ahead.knows(&live), "either counts for a decided block");
    assert!(verified.contains(&live) && !verified.contains(&bulk));
}

/// Blocks that the archive lost come from nodes that are not believed.
#[test]
fn a_block_from_elsewhere_counts_with_its_id_its_entries_and_a_quorum() {
    let bench = Bench::new();
    let block = bench.block(NOW_MS, &[bench.command(bench.chain.network())]);
    let id = block.header.id();
    let certificate = |signer: u8, network: NetworkId, block: BlockId| {
        let ballot =
            CommitCertificate { height: Height(1), round: 0, block, signatures: List::default() }.ballot(network);
        let signature: Signature = key(signer).sign(&ballot.signing_bytes(&VoteKey::Direct));
        let signature = VoteSignature { key: VoteKey::Direct, signature: signature.to_bytes().into() };
        let signatures = List::new(vec![CommitSignature { validator: 0, signature }]).unwrap();
        CommitCertificate { height: Height(1), round: 0, block, signatures }
    };
    let sound = certificate(9, bench.chain.network(), id);
    let judged = |height: u64, block: &Block, certificate: &CommitCertificate| {
        bench.chain.check_block(height, &id, block, certificate)
    };
    assert_eq!(judged(1, &block, &sound), Ok(()));
    assert_eq!(judged(2, &block, &sound), Err("the block"));
    let mut changed = block.clone();
    changed.header.time_ms += 1;
    assert_eq!(judged(1, &changed, &sound), Err("the block"));
    assert_eq!(judged(1, &Block { entries: Vec::new(), ..block.clone() }, &sound), Err("its entries"));
    let with_parent = Block { parent_certificate: Some(sound.clone()), ..block.clone() };
    assert_eq!(judged(1, &with_parent, &sound), Err("the certificate in it"));
    let none = CommitCertificate { signatures: List::default(), ..sound.clone() };
    let network = bench.chain.network();
    for unsound in [
        none,
        certificate(8, network, id),
        certificate(9, NetworkId([0x77; 32]), id),
        certificate(9, network, BlockId([1; 32])),
    ] {
        assert_eq!(judged(1, &block, &unsound), Err("its certificate"));
    }
}
