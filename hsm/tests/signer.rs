//! The software signer from key file to verified signature.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use futures::executor::block_on;
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use stele_hsm::{
    CheckpointGuard, CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, GuardDurability,
    PeerBindingRequest, Signer, SoftwareSigner, Step, VoteGuard, VoteRequest,
};
use tempfile::tempdir;

const VALIDATOR: [u8; 32] = [2; 32];

/// The bytes of a prevote at round 0 by the layout of `stele_hsm::request`.
fn prevote(height: u8, value: [u8; 32]) -> Vec<u8> {
    let mut bytes = b"\x88\x6dstele/vote/v1\x58\x20".to_vec();
    bytes.extend([7; 32]);
    bytes.extend([0x02, height, 0x00, 0x58, 0x20]);
    bytes.extend(value);
    bytes.extend([0xf6, 0xf6]);
    bytes
}

fn checkpoint(size: u8, root: [u8; 32]) -> Vec<u8> {
    let mut bytes = b"\x84\x6aSignature1\x4a\xa1\x0f\xa1\x3a\x00\x01\x11\x71\x18".to_vec();
    bytes.push(size);
    bytes.extend([0x40, 0x58, 0x20]);
    bytes.extend(root);
    bytes
}

fn verifies(signer: &SoftwareSigner, bytes: &[u8], signature: &[u8; 64]) -> bool {
    let key = VerifyingKey::from_public_key_der(&signer.public_key().spki_der).expect("own key");
    let signature = Signature::from_slice(signature).expect("own signature");
    key.verify(bytes, &signature).is_ok()
}

fn open_with_guards(directory: &Path) -> SoftwareSigner {
    let votes = directory.join("votes.guard");
    let checkpoints = directory.join("checkpoints.guard");
    let votes = VoteGuard::open(&votes, VALIDATOR, GuardDurability::Sync).expect("vote guard");
    let checkpoints = CheckpointGuard::open(&checkpoints, [7; 32], GuardDurability::Sync);
    SoftwareSigner::open(&directory.join("key.pem"))
        .expect("key")
        .with_vote_guard(Arc::new(votes))
        .with_checkpoint_guard(Arc::new(checkpoints.expect("checkpoint guard")))
}

fn create(directory: &Path) {
    SoftwareSigner::generate(&directory.join("key.pem")).expect("key");
    VoteGuard::create(&directory.join("votes.guard"), VALIDATOR).expect("vote guard");
    CheckpointGuard::create(&directory.join("checkpoints.guard"), [7; 32]).expect("checkpoint guard");
}

#[test]
fn a_generated_key_is_private_to_its_owner_and_never_overwritten() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("key.pem");
    let made = SoftwareSigner::generate(&path).expect("key");
    assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o7777, 0o600);
    assert!(fs::read_to_string(&path).expect("file").starts_with("-----BEGIN PRIVATE KEY-----"));
    let opened = SoftwareSigner::open(&path).expect("key");
    assert_eq!(made.public_key(), opened.public_key());
    assert_eq!(made.public_key().sec1_compressed.len(), 33);
    assert_eq!(made.public_key().sec1_uncompressed.len(), 65);
    assert_eq!(SoftwareSigner::generate(&path).expect_err("exists").code(), "key_file_exists");
}

#[test]
fn a_key_file_that_others_may_touch_is_refused() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("key.pem");
    SoftwareSigner::generate(&path).expect("key");
    for mode in [0o640, 0o604, 0o620, 0o660, 0o644, 0o700, 0o4600] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        let error = SoftwareSigner::open(&path).expect_err("refused");
        assert_eq!(error.code(), "key_file_permissions", "{mode:o}");
        assert!(error.to_string().contains("chmod 600"));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("mode");
    SoftwareSigner::open(&path).expect("read-only is private too");
}

#[test]
fn a_damaged_key_file_is_refused_without_showing_it() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("key.pem");
    SoftwareSigner::generate(&path).expect("key");
    let pem = fs::read_to_string(&path).expect("file");
    for content in [String::new(), pem[..100].to_owned(), pem.replacen('M', "!", 1), "x".repeat(5000)] {
        fs::write(&path, &content).expect("write");
        let error = SoftwareSigner::open(&path).expect_err("refused");
        assert_eq!(error.code(), "key_file_malformed");
        assert!(!format!("{error} {error:?}").contains(pem.lines().nth(1).expect("body")));
    }
    fs::remove_file(&path).expect("remove");
    assert_eq!(SoftwareSigner::open(&path).expect_err("missing").code(), "key_file_io");
}

#[test]
fn votes_verify_and_double_votes_are_refused_across_a_restart() {
    let directory = tempdir().expect("directory");
    create(directory.path());
    let bytes = prevote(5, [9; 32]);
    let vote = VoteRequest {
        validator: VALIDATOR,
        height: 5,
        round: 0,
        step: Step::Prevote,
        value_id: Some([9; 32]),
        bytes: &bytes,
    };
    let signer = open_with_guards(directory.path());
    let first = block_on(signer.sign_vote(&vote)).expect("vote");
    assert!(verifies(&signer, &bytes, &first));
    drop(signer);

    let signer = open_with_guards(directory.path());
    assert_eq!(block_on(signer.sign_vote(&vote)).expect("again"), first);
    let bytes = prevote(5, [8; 32]);
    let other = VoteRequest { value_id: Some([8; 32]), bytes: &bytes, ..vote };
    assert_eq!(block_on(signer.sign_vote(&other)).expect_err("double").code(), "double_sign");
    let bytes = prevote(4, [8; 32]);
    let lower = VoteRequest { height: 4, value_id: Some([8; 32]), bytes: &bytes, ..vote };
    assert_eq!(block_on(signer.sign_vote(&lower)).expect_err("back").code(), "regression");
    let lying = VoteRequest { height: 6, value_id: Some([8; 32]), bytes: &bytes, ..vote };
    assert_eq!(block_on(signer.sign_vote(&lying)).expect_err("lie").code(), "malformed_request");
    let figures = signer.figures();
    assert_eq!((figures.votes_signed, figures.guard_refusals, figures.failures), (1, 2, 1));
}

#[test]
fn an_epoch_key_may_repeat_what_the_long_term_key_said_and_nothing_else() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("guard file");
    let guard = Arc::new(VoteGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect("guard"));
    let long_term = SoftwareSigner::ephemeral().expect("key").with_vote_guard(Arc::clone(&guard));
    let epoch = SoftwareSigner::ephemeral().expect("key").with_vote_guard(Arc::clone(&guard));
    // The last field names the key: null, or the hash of an epoch certificate.
    let delegated = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes.extend([0x58, 0x20]);
        bytes.extend([4; 32]);
        bytes
    };
    fn request(value: u8, bytes: &[u8]) -> VoteRequest<'_> {
        let value_id = Some([value; 32]);
        VoteRequest { validator: VALIDATOR, height: 5, round: 0, step: Step::Prevote, value_id, bytes }
    }
    let direct = prevote(5, [9; 32]);
    let first = block_on(long_term.sign_vote(&request(9, &direct))).expect("vote");
    let repeated = delegated(prevote(5, [9; 32]));
    let second = block_on(epoch.sign_vote(&request(9, &repeated))).expect("the same ballot");
    assert!(verifies(&epoch, &repeated, &second));
    assert_eq!(block_on(long_term.sign_vote(&request(9, &direct))).expect("stored"), first);
    let other = delegated(prevote(5, [8; 32]));
    assert_eq!(block_on(epoch.sign_vote(&request(8, &other))).expect_err("other").code(), "double_sign");
    assert_eq!((guard.figures().records, guard.figures().repeats), (1, 2));
}

#[test]
fn checkpoints_only_grow_and_never_fork() {
    let directory = tempdir().expect("directory");
    create(directory.path());
    let sign = |signer: &SoftwareSigner, size: u8, root: [u8; 32]| {
        let bytes = checkpoint(size, root);
        let request = CheckpointRequest { tree_size: size.into(), root, sig_structure: &bytes };
        let signature = block_on(signer.sign_checkpoint(&request))?;
        assert!(verifies(signer, &bytes, &signature));
        Ok::<_, stele_hsm::SignerError>(signature)
    };
    let signer = open_with_guards(directory.path());
    let first = sign(&signer, 100, [1; 32]).expect("first");
    assert_eq!(sign(&signer, 100, [1; 32]).expect("again"), first);
    drop(signer);
    let signer = open_with_guards(directory.path());
    assert_eq!(sign(&signer, 100, [1; 32]).expect("after restart"), first);
    assert_eq!(sign(&signer, 100, [2; 32]).expect_err("fork").code(), "checkpoint_fork");
    assert_eq!(sign(&signer, 99, [1; 32]).expect_err("smaller").code(), "checkpoint_regression");
    sign(&signer, 101, [2; 32]).expect("grown");
}

#[test]
fn without_a_guard_nothing_guarded_is_signed() {
    let signer = SoftwareSigner::ephemeral().expect("key");
    let bytes = prevote(5, [9; 32]);
    let vote = VoteRequest {
        validator: VALIDATOR,
        height: 5,
        round: 0,
        step: Step::Prevote,
        value_id: Some([9; 32]),
        bytes: &bytes,
    };
    assert_eq!(block_on(signer.sign_vote(&vote)).expect_err("no guard").code(), "guard_missing");
    let bytes = checkpoint(100, [1; 32]);
    let request = CheckpointRequest { tree_size: 100, root: [1; 32], sig_structure: &bytes };
    assert_eq!(block_on(signer.sign_checkpoint(&request)).expect_err("no guard").code(), "guard_missing");
}

#[test]
fn epoch_certificates_custody_receipts_and_peer_bindings_verify() {
    let signer = SoftwareSigner::ephemeral().expect("key");
    let mut bytes = b"\x87\x6estele/epoch/v1\x58\x20".to_vec();
    bytes.extend([7; 32]);
    bytes.extend([0x58, 0x20]);
    bytes.extend(VALIDATOR);
    bytes.extend([0x58, 0x21]);
    bytes.extend([3; 33]);
    bytes.extend([0x01, 0x17, 0x58, 0x20]);
    bytes.extend([0; 32]);
    let request = EpochCertificateRequest {
        validator: VALIDATOR,
        epoch_key: &[3; 33],
        height_first: 1,
        height_last: 23,
        bytes: &bytes,
    };
    let signature = block_on(signer.sign_epoch_certificate(&request)).expect("certificate");
    assert!(verifies(&signer, &bytes, &signature));

    let mut bytes = b"\x87\x78\x18stele/custody-receipt/v1\x58\x20".to_vec();
    bytes.extend([7; 32]);
    bytes.extend([0x01, 0x58, 0x20]);
    bytes.extend([9; 32]);
    bytes.extend([0x17, 0x05, 0x06]);
    let request = CustodyReceiptRequest { root: [9; 32], length: 23, bytes: &bytes };
    let signature = block_on(signer.sign_custody_receipt(&request)).expect("receipt");
    assert!(verifies(&signer, &bytes, &signature));
    for other in [CustodyReceiptRequest { length: 24, ..request }, CustodyReceiptRequest { root: [8; 32], ..request }] {
        assert_eq!(block_on(signer.sign_custody_receipt(&other)).expect_err("other").code(), "malformed_request");
    }

    let public_key = signer.public_key().sec1_compressed.clone();
    let binding = PeerBindingRequest { public_key: &public_key, peer_id: b"peer" };
    let signature = block_on(signer.sign_peer_binding(&binding)).expect("binding");
    assert!(verifies(&signer, &binding.signing_bytes().expect("bytes"), &signature));
    let foreign = PeerBindingRequest { public_key: &[2; 33], peer_id: b"peer" };
    assert_eq!(block_on(signer.sign_peer_binding(&foreign)).expect_err("foreign").code(), "malformed_request");
}
