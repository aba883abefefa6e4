//! Bundles: what holds, and everything that must not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Member, Network, certify, outcome_proof, set, sign};
use stele_types::cbor::{self, Blob, List};
use stele_types::signer::{CheckpointSigner, KeyProvider};
use stele_types::{Bundle, Code, Hash, Height, LogIndex, NetworkId};
use stele_verify::error::{Claim, Signer};
use stele_verify::{Expectation, TrustAnchor, Verdict, VerifyError, bundle, verdict};

fn anchor(network: &Network) -> TrustAnchor {
    TrustAnchor::genesis(&network.genesis.to_bytes()).unwrap()
}

fn verify(network: &Network, bundle: &Bundle) -> Result<Verdict, VerifyError> {
    bundle::verify_bytes(&cbor::to_vec(bundle), &anchor(network), &Expectation::default())
}

#[test]
fn a_registration_is_proven_from_genesis() {
    let network = Network::with_history("north");
    for (number, index, height) in [(1, 0, 2), (2, 1, 2), (4, 2, 6)] {
        let verdict = verify(&network, &network.bundle(number)).unwrap();
        let Verdict::Registered(registered) = &verdict else { panic!("{verdict:?}") };
        assert_eq!(registered.statement, network.statement(number));
        assert_eq!((registered.index, registered.height), (LogIndex(index), Height(height)));
        assert_eq!((registered.network, registered.issuer), (network.id, network.issuer));
        assert_eq!(registered.time_ms, network.header(height + 1).time_ms);
        assert_eq!(verdict.exit_code(), verdict::EXIT_REGISTERED);
    }
}

#[test]
fn a_rejection_is_proven_and_is_no_registration() {
    let network = Network::with_history("north");
    let verdict = verify(&network, &network.bundle(3)).unwrap();
    let Verdict::Rejected(rejected) = &verdict else { panic!("{verdict:?}") };
    assert_eq!((rejected.statement, rejected.code), (network.statement(3), Code::Stale));
    assert_eq!(rejected.height, Height(2));
    assert_eq!(verdict.exit_code(), verdict::EXIT_REJECTED);
}

#[test]
fn no_flipped_byte_of_a_registration_is_accepted() {
    flip_every_byte(4, |_| false);
}

/// A rejection proves the fate of a statement id, and no signature is part of an id: another signature in the entry is
/// the same truth. A registration proves the leaf, signature included.
#[test]
fn no_flipped_byte_of_a_rejection_is_accepted_as_another_truth() {
    let network = Network::with_history("north");
    let (bytes, entry) = (cbor::to_vec(&network.bundle(3)), network.entry(3));
    let end = bytes.windows(entry.len()).position(|window| window == entry).unwrap() + entry.len();
    flip_every_byte(3, |at| (end - 64..end).contains(&at));
}

fn flip_every_byte(number: u8, is_same_truth: impl Fn(usize) -> bool) {
    let network = Network::with_history("north");
    let anchor = anchor(&network);
    let verify = |bytes: &[u8]| bundle::verify_bytes(bytes, &anchor, &Expectation::default());
    let bytes = cbor::to_vec(&network.bundle(number));
    let truth = verify(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let verdict = verify(&flipped);
        if is_same_truth(at) {
            assert_eq!(verdict.as_ref(), Ok(&truth), "byte {at}");
        } else {
            assert!(verdict.is_err(), "byte {at}: {verdict:?}");
        }
        assert!(verify(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_bundle_of_another_statement_is_refused() {
    let network = Network::with_history("north");
    let (one, own, other) = (network.bundle(1), network.entry(1), network.entry(2));
    let expected = |statement, entry| Expectation { statement, entry, checkpoint_key: None };
    let anchor = anchor(&network);
    assert!(bundle::verify(&one, &anchor, &expected(Some(network.statement(1)), Some(&own))).is_ok());
    for expected in [expected(Some(network.statement(2)), None), expected(None, Some(&other))] {
        assert_eq!(bundle::verify(&one, &anchor, &expected), Err(VerifyError::StatementMismatch));
        assert_eq!(bundle::verify(&network.bundle(3), &anchor, &expected), Err(VerifyError::StatementMismatch));
    }
}

#[test]
fn the_entry_may_come_with_the_caller() {
    let network = Network::with_history("north");
    let detached = Bundle { entry: None, ..network.bundle(1) };
    assert_eq!(verify(&network, &detached), Err(VerifyError::EntryMissing));
    let entry = network.entry(1);
    let expected = Expectation { entry: Some(&entry), ..Expectation::default() };
    assert!(bundle::verify(&detached, &anchor(&network), &expected).is_ok());
    let wrong = network.entry(2);
    let expected = Expectation { entry: Some(&wrong), ..Expectation::default() };
    assert_eq!(
        bundle::verify(&detached, &anchor(&network), &expected),
        Err(VerifyError::CheckpointMismatch(Claim::LogRoot)),
        "the wrong leaf leads to another root"
    );
    assert!(verify(&network, &Bundle { entry: None, ..network.bundle(3) }).is_ok(), "an outcome names its statement");
}

#[test]
fn a_rejected_statement_cannot_be_presented_as_registered() {
    let network = Network::with_history("north");
    let rejected = network.bundle(3);
    // With the receipt of the leaf that stands where the rejected statement would be.
    let with_receipt = Bundle {
        receipt: network.bundle(1).receipt,
        checkpoint_key: network.bundle(1).checkpoint_key,
        outcome: None,
        ..rejected.clone()
    };
    assert_eq!(verify(&network, &with_receipt), Err(VerifyError::CheckpointMismatch(Claim::LogRoot)));
    // With a receipt of its own that the node signs over a log which holds it.
    let mut forged = network.receipt(1, 3);
    let entry = network.entry(3);
    let path: Vec<_> = forged.proof.path.iter().map(|hash| hash.0).collect();
    let root =
        stele_merkle::log::inclusion_root(&stele_merkle::log::leaf_hash(&entry), 1, forged.proof.tree_size, &path)
            .unwrap();
    forged.signature = sign(&network.checkpoint_key, &forged.checkpoint.signing_bytes(&Hash(root)));
    let signed = Bundle { receipt: Some(forged), ..with_receipt };
    assert_eq!(verify(&network, &signed), Err(VerifyError::CheckpointMismatch(Claim::LogRoot)));
    // With another code in the outcome, and with both proofs at once.
    let mut changed = rejected.clone();
    changed.outcome.as_mut().unwrap().outcome.code = Code::KeyRevoked;
    assert!(matches!(verify(&network, &changed), Err(VerifyError::LogProof(_))));
    let both = Bundle { receipt: network.bundle(1).receipt, ..rejected.clone() };
    assert_eq!(verify(&network, &both), Err(VerifyError::BundleForm));
    let neither = Bundle { outcome: None, ..rejected };
    assert_eq!(verify(&network, &neither), Err(VerifyError::BundleForm));
}

/// A checkpoint key beside an outcome was once ignored, so that any key in its place gave the same verdict.
#[test]
fn a_rejection_with_a_checkpoint_key_is_refused() {
    let network = Network::with_history("north");
    let with_key = Bundle { checkpoint_key: network.bundle(1).checkpoint_key, ..network.bundle(3) };
    assert_eq!(verify(&network, &with_key), Err(VerifyError::BundleForm));
    let with_signer = Bundle { checkpoint_signer: Some(signer()), ..network.bundle(3) };
    assert_eq!(verify(&network, &with_signer), Err(VerifyError::BundleForm));
}

/// What a node might say of its checkpoint key.
fn signer() -> CheckpointSigner {
    CheckpointSigner { provider: KeyProvider::Tpm, tpm: None, attestation: None }
}

#[test]
fn what_is_said_of_the_signer_changes_no_verdict() {
    let network = Network::with_history("north");
    let bare = network.bundle(1);
    let named = Bundle { checkpoint_signer: Some(signer()), ..bare.clone() };
    assert!(verify(&network, &bare).is_ok());
    assert_eq!(verify(&network, &named), verify(&network, &bare));
    // The bytes of a bundle without it are those of before.
    let (bare, named) = (cbor::to_vec(&bare), cbor::to_vec(&named));
    assert_eq!(bare[1..], named[1..bare.len()]);
}

#[test]
fn an_applied_outcome_is_no_rejection() {
    let network = Network::with_history("north");
    let applied = outcome_proof(&network.block(2).outcomes, 0);
    let forged =
        Bundle { outcome: Some(applied), entry: Some(Blob::new(network.entry(1)).unwrap()), ..network.bundle(3) };
    assert_eq!(verify(&network, &forged), Err(VerifyError::OutcomeNotRejection));
}

#[test]
fn another_network_is_refused() {
    let (north, south) = (Network::with_history("north"), Network::with_history("south"));
    let bundle = north.bundle(1);
    let verdict = bundle::verify(&bundle, &anchor(&south), &Expectation::default());
    assert_eq!(verdict, Err(VerifyError::OtherNetwork { found: north.id }));
    // The same validators in a second network: their votes name the network.
    let mut twin = Network::new("north");
    twin.genesis.time_ms += 1;
    twin.id = twin.genesis.network();
    let anchor = TrustAnchor::genesis(&twin.genesis.to_bytes()).unwrap();
    let mut moved = bundle;
    moved.header.network = twin.id;
    moved.certificate.block = moved.header.id();
    assert_eq!(
        bundle::verify(&moved, &anchor, &Expectation::default()),
        Err(VerifyError::SignatureInvalid(Signer::Validator(0)))
    );
}

#[test]
fn a_stale_validator_set_is_refused() {
    let network = Network::with_history("north");
    let old = Network::with_history("north");
    let mut bundle = network.bundle(4);
    // The set of heights 1 to 4 signs a header of height 7.
    let members: Vec<Member> = Network::new("north").members;
    bundle.certificate = certify(&bundle.header, &members, &[0, 1, 2]);
    assert!(verify(&network, &bundle).is_err(), "the header names the new set");
    // It makes a header of its own that names the old set.
    let mut header = old.header(7).clone();
    header.validators = set(&members).hash();
    header.next_validators = header.validators;
    let own = Bundle { certificate: certify(&header, &members, &[0, 1, 2]), header, ..network.bundle(4) };
    assert_eq!(verify(&network, &own), Err(VerifyError::ValidatorsMismatch { height: Height(7) }));
    // And leaves the change out. Who pins a height above the change does not believe it.
    let hidden = Bundle { chain: List::default(), ..own };
    let pinned = anchor(&network).pinned_at(Height(5), network.block(5).set.hash());
    let pinned = pinned.with_set(network.block(5).set.clone()).unwrap();
    assert_eq!(
        bundle::verify(&hidden, &pinned, &Expectation::default()),
        Err(VerifyError::ValidatorsMismatch { height: Height(7) })
    );
}

#[test]
fn every_link_is_needed_and_must_be_whole() {
    let network = Network::with_history("north");
    let bundle = network.bundle(4);
    assert_eq!(
        verify(&network, &Bundle { chain: List::default(), ..bundle.clone() }),
        Err(VerifyError::ValidatorsMismatch { height: Height(7) })
    );
    let link = bundle.chain[0].clone();
    let doubled = List::new(vec![link.clone(), link.clone()]).unwrap();
    assert_eq!(
        verify(&network, &Bundle { chain: doubled, ..bundle.clone() }),
        Err(VerifyError::LinkOrder { height: Height(4) })
    );
    let mut other_set = link.clone();
    other_set.validators = network.block(1).set.clone();
    let with = |link| Bundle { chain: List::new(vec![link]).unwrap(), ..bundle.clone() };
    assert_eq!(verify(&network, &with(other_set)), Err(VerifyError::LinkInvalid { height: Height(4) }));
    let mut unsigned = link;
    unsigned.certificate.signatures = List::default();
    assert_eq!(
        verify(&network, &with(unsigned)),
        Err(VerifyError::QuorumMissing { height: Height(4), signatures: 0, quorum: 3 })
    );
    // A link above the header is not on the way to it.
    let late = Bundle { chain: bundle.chain.clone(), ..network.bundle(1) };
    assert_eq!(verify(&network, &late), Err(VerifyError::LinkOrder { height: Height(3) }));
}

#[test]
fn pins_take_the_place_of_genesis() {
    let network = Network::with_history("north");
    let bundle = network.bundle(4);
    let hash = network.block(5).set.hash();
    let state_hash = anchor(&network).state_hash();
    let verify = |anchor: &TrustAnchor| bundle::verify(&bundle, anchor, &Expectation::default());
    // One member votes under an epoch certificate of genesis, which only the genesis file vouches for.
    let with_genesis = anchor(&network).pinned_at(Height(5), hash);
    assert!(verify(&with_genesis).is_ok(), "the chain brings the pinned set");
    let bare = TrustAnchor::pinned(network.id, state_hash, Height(5), hash);
    assert!(matches!(verify(&bare), Err(VerifyError::EpochCertificateMissing { .. })));
    let brought = List::new(network.epoch_certificates.clone()).unwrap();
    let brought = Bundle { epoch_certificates: brought, ..bundle.clone() };
    assert!(matches!(
        bundle::verify(&brought, &bare, &Expectation::default()),
        Err(VerifyError::EpochCertificateForeign { .. })
    ));
    let mut direct = bundle.clone();
    let mut members = network.members.clone();
    members.iter_mut().for_each(|member| member.voter = fixture::Voter::Direct);
    direct.certificate = certify(&direct.header, &members, &[0, 1, 2]);
    assert!(bundle::verify(&direct, &bare, &Expectation::default()).is_ok());
    let other = TrustAnchor::pinned(network.id, state_hash, Height(5), Hash([7; 32]));
    assert_eq!(verify(&other), Err(VerifyError::AnchorSetMissing { validators: Hash([7; 32]) }));
    let without = Bundle { chain: List::default(), ..bundle.clone() };
    assert_eq!(
        bundle::verify(&without, &bare, &Expectation::default()),
        Err(VerifyError::AnchorSetMissing { validators: hash })
    );
    assert!(matches!(bare.with_set(network.block(1).set.clone()), Err(VerifyError::AnchorSetMismatch { .. })));
    assert_eq!(
        bundle::verify(
            &network.bundle(1),
            &with_genesis.with_set(network.block(5).set.clone()).unwrap(),
            &Expectation::default()
        ),
        Err(VerifyError::BelowAnchor { height: Height(3), pinned: Height(5) })
    );
}

#[test]
fn quorums_count_each_validator_once() {
    let network = Network::with_history("north");
    let bundle = network.bundle(1);
    let with = |signers: &[usize]| {
        let members = Network::new("north").members;
        let certificate = certify(&bundle.header, &members, signers);
        verify(&network, &Bundle { certificate, ..bundle.clone() })
    };
    assert!(with(&[0, 1, 2]).is_ok());
    assert!(with(&[0, 1, 2, 3]).is_ok());
    assert!(with(&[0, 2, 3]).is_ok());
    assert_eq!(with(&[0, 1]), Err(VerifyError::QuorumMissing { height: Height(3), signatures: 2, quorum: 3 }));
    for doubled in [&[0, 1, 1][..], &[0, 0, 1, 2], &[2, 1, 0]] {
        assert_eq!(with(doubled), Err(VerifyError::CertificateUnordered { height: Height(3) }));
    }
    let mut unknown = bundle.clone();
    let mut signatures = unknown.certificate.signatures.clone().into_vec();
    signatures[2].validator = 4;
    unknown.certificate.signatures = List::new(signatures).unwrap();
    assert_eq!(verify(&network, &unknown), Err(VerifyError::SignerUnknown { validator: 4 }));
    let mut swapped = bundle.clone();
    let mut signatures = swapped.certificate.signatures.clone().into_vec();
    signatures[2].validator = 3;
    swapped.certificate.signatures = List::new(signatures).unwrap();
    assert!(verify(&network, &swapped).is_err(), "the vote of one validator in the name of another");
}

#[test]
fn epoch_certificates_are_bound_to_heights_validators_and_networks() {
    let network = Network::with_history("north");
    let base = network.bundle(1);
    let mut members = Network::new("north").members;
    let mut with = |index: usize, network_id: NetworkId, by: usize, from: u64, until: u64| {
        let issuer = members[by].clone();
        let key = fixture::signing_key("some epoch");
        let mut certificate = issuer.certify(network_id, &key, from, until);
        if by != index {
            // A certificate of another validator in the name of this one: its long-term signature is not.
            certificate.validator = members[index].validator.id();
        }
        let before = members[index].voter.clone();
        members[index].voter = fixture::Voter::Delegated(Box::new((key, certificate.clone())));
        let mut bundle = base.clone();
        bundle.certificate = certify(&bundle.header, &members, &[0, 1, 2]);
        let mut epochs = bundle.epoch_certificates.clone().into_vec();
        epochs.push(certificate.clone());
        bundle.epoch_certificates = List::new(epochs).unwrap();
        members[index].voter = before;
        (verify(&network, &bundle), certificate.hash())
    };
    assert!(with(0, network.id, 0, 1, 10).0.is_ok());
    assert!(with(0, network.id, 0, 3, 3).0.is_ok(), "first and last height count");
    for (from, until) in [(1, 2), (4, 10), (1, 1_000_001)] {
        let (verdict, certificate) = with(0, network.id, 0, from, until);
        assert_eq!(verdict, Err(VerifyError::EpochCertificateExpired { certificate, height: Height(3) }));
    }
    let (verdict, certificate) = with(0, NetworkId([9; 32]), 0, 1, 10);
    assert_eq!(verdict, Err(VerifyError::EpochCertificateForeign { certificate }));
    let (verdict, certificate) = with(0, NetworkId::default(), 0, 1, 10);
    assert_eq!(verdict, Err(VerifyError::EpochCertificateForeign { certificate }), "not in the pinned genesis");
    let (verdict, _) = with(0, network.id, 3, 1, 10);
    assert_eq!(verdict, Err(VerifyError::SignatureInvalid(Signer::Epoch(0))));
}

#[test]
fn a_vote_under_another_validators_certificate_is_refused() {
    let network = Network::with_history("north");
    let mut members = Network::new("north").members;
    members[0].voter = members[2].voter.clone();
    let mut bundle = network.bundle(1);
    bundle.certificate = certify(&bundle.header, &members, &[0, 1, 2]);
    assert!(matches!(verify(&network, &bundle), Err(VerifyError::EpochCertificateForeign { .. })));
}

#[test]
fn epoch_certificates_must_come_along() {
    let network = Network::with_history("north");
    let bundle = Bundle { epoch_certificates: List::default(), ..network.bundle(1) };
    let missing = network.epoch_certificates[1].hash();
    assert_eq!(verify(&network, &bundle), Err(VerifyError::EpochCertificateMissing { certificate: missing }));
}

#[test]
fn the_checkpoint_key_is_checked() {
    let network = Network::with_history("north");
    let bundle = network.bundle(1);
    let without = Bundle { checkpoint_key: None, ..bundle.clone() };
    assert_eq!(verify(&network, &without), Err(VerifyError::CheckpointKeyMissing));
    let key = network.public_checkpoint_key();
    let other = stele_verify::PublicKey::new(stele_types::Suite::Es256, &fixture::sec1(&network.issuer_key)).unwrap();
    let with = |bundle: &Bundle, key| {
        let expected = Expectation { checkpoint_key: Some(key), ..Expectation::default() };
        bundle::verify(bundle, &anchor(&network), &expected)
    };
    assert!(with(&without, &key).is_ok());
    assert_eq!(with(&without, &other), Err(VerifyError::KeyMismatch));
    assert_eq!(with(&bundle, &other), Err(VerifyError::KeyMismatch));
}

#[test]
fn checkpoints_that_differ_from_the_header_are_refused_by_what_differs() {
    let network = Network::with_history("north");
    let with = |change: &dyn Fn(&mut stele_types::Checkpoint)| {
        let mut bundle = network.bundle(1);
        let receipt = bundle.receipt.as_mut().unwrap();
        change(&mut receipt.checkpoint);
        let message = receipt.checkpoint.signing_bytes(&network.header(3).log_root);
        receipt.signature = sign(&network.checkpoint_key, &message);
        verify(&network, &bundle)
    };
    let mismatch = |claim| Err(VerifyError::CheckpointMismatch(claim));
    assert!(with(&|_| ()).is_ok());
    assert_eq!(with(&|checkpoint| checkpoint.height.0 += 1), mismatch(Claim::Height));
    assert_eq!(with(&|checkpoint| checkpoint.log_size += 1), mismatch(Claim::LogSize));
    assert_eq!(with(&|checkpoint| checkpoint.state_root.0[0] ^= 1), mismatch(Claim::StateRoot));
    assert_eq!(with(&|checkpoint| checkpoint.time_ms += 10_000), mismatch(Claim::Time));
    let foreign = with(&|checkpoint| checkpoint.network = NetworkId([1; 32]));
    assert_eq!(foreign, Err(VerifyError::OtherNetwork { found: NetworkId([1; 32]) }));
}

#[test]
fn unknown_versions_ask_for_an_update() {
    let network = Network::with_history("north");
    let verdict = verify(&network, &Bundle { version: 2, ..network.bundle(1) });
    assert_eq!(verdict, Err(VerifyError::VersionUnsupported { version: 2 }));
    let mut newer = network.bundle(1);
    newer.header.protocol_version = 2;
    let verdict = verify(&network, &newer);
    assert_eq!(verdict, Err(VerifyError::ProtocolUnsupported { version: 2 }));
    assert_eq!(verdict.unwrap_err().advice(), "update this verifier");
}

#[test]
fn a_memory_changes_no_verdict() {
    let network = Network::with_history("north");
    let (genesis, expected) = (anchor(&network), Expectation::default());
    let bare = TrustAnchor::pinned(network.id, genesis.state_hash(), Height(1), genesis.validators());
    let bare = bare.with_set(network.block(1).set.clone()).unwrap();
    let mut memory = bundle::Memory::default();
    for _ in 0..2 {
        for number in [1, 2, 3, 4] {
            let bundle = network.bundle(number);
            assert_eq!(memory.verify(&bundle, &genesis, &expected), bundle::verify(&bundle, &genesis, &expected));
            // Votes under an epoch certificate of genesis convince only who has the file.
            let refused = bundle::verify(&bundle, &bare, &expected);
            assert!(matches!(refused, Err(VerifyError::EpochCertificateMissing { .. })), "{refused:?}");
            assert_eq!(memory.verify(&bundle, &bare, &expected), refused);
        }
    }
    let bundle = network.bundle(4);
    let bytes = cbor::to_vec(&bundle);
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        if let Ok(flipped) = bundle::decode(&flipped) {
            assert!(memory.verify(&flipped, &genesis, &expected).is_err(), "byte {at}");
        }
    }
}
