//! The software signer from key file to verified signature.

mod requests;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use futures::executor::block_on;
use stele_hsm::{
    CustodyReceiptRequest, GuardDurability, PeerBindingRequest, Signer, SoftwareSigner, Step, VoteGuard, VoteRequest,
};
use tempfile::tempdir;

use requests::{
    VALIDATOR, create_guards, open_guards, prevote_bytes, receipt_bytes, sign_checkpoint, sign_epoch_certificate,
    sign_peer_binding, sign_receipt, sign_vote, verifies,
};

fn open_with_guards(directory: &Path) -> SoftwareSigner {
    let (votes, checkpoints) = open_guards(directory);
    let signer = SoftwareSigner::open(&directory.join("key.pem")).expect("key");
    signer.with_vote_guard(votes).with_checkpoint_guard(checkpoints)
}

fn create(directory: &Path) {
    SoftwareSigner::generate(&directory.join("key.pem")).expect("key");
    create_guards(directory);
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
    let bytes = prevote_bytes(5, 9);
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
    let bytes = prevote_bytes(5, 8);
    let other = VoteRequest { value_id: Some([8; 32]), bytes: &bytes, ..vote };
    assert_eq!(block_on(signer.sign_vote(&other)).expect_err("double").code(), "double_sign");
    let bytes = prevote_bytes(4, 8);
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
    let direct = prevote_bytes(5, 9);
    let first = block_on(long_term.sign_vote(&request(9, &direct))).expect("vote");
    let repeated = delegated(prevote_bytes(5, 9));
    let second = block_on(epoch.sign_vote(&request(9, &repeated))).expect("the same ballot");
    assert!(verifies(&epoch, &repeated, &second));
    assert_eq!(block_on(long_term.sign_vote(&request(9, &direct))).expect("stored"), first);
    let other = delegated(prevote_bytes(5, 8));
    assert_eq!(block_on(epoch.sign_vote(&request(8, &other))).expect_err("other").code(), "double_sign");
    assert_eq!((guard.figures().records, guard.figures().repeats), (1, 2));
}

#[test]
fn checkpoints_only_grow_and_never_fork() {
    let directory = tempdir().expect("directory");
    create(directory.path());
    let signer = open_with_guards(directory.path());
    let first = sign_checkpoint(&signer, 100, 1).expect("first");
    assert_eq!(sign_checkpoint(&signer, 100, 1).expect("again"), first);
    drop(signer);
    let signer = open_with_guards(directory.path());
    assert_eq!(sign_checkpoint(&signer, 100, 1).expect("after restart"), first);
    assert_eq!(sign_checkpoint(&signer, 100, 2).expect_err("fork").code(), "checkpoint_fork");
    assert_eq!(sign_checkpoint(&signer, 99, 1).expect_err("smaller").code(), "checkpoint_regression");
    sign_checkpoint(&signer, 101, 2).expect("grown");
}

#[test]
fn without_a_guard_nothing_guarded_is_signed() {
    let signer = SoftwareSigner::ephemeral().expect("key");
    assert_eq!(sign_vote(&signer, 5, 9).expect_err("no guard").code(), "guard_missing");
    assert_eq!(sign_checkpoint(&signer, 100, 1).expect_err("no guard").code(), "guard_missing");
}

#[test]
fn epoch_certificates_custody_receipts_and_peer_bindings_verify() {
    let signer = SoftwareSigner::ephemeral().expect("key");
    sign_epoch_certificate(&signer).expect("certificate");
    sign_receipt(&signer, 9).expect("receipt");
    let bytes = receipt_bytes(9);
    let request = CustodyReceiptRequest { root: [9; 32], length: 23, bytes: &bytes };
    for other in [CustodyReceiptRequest { length: 24, ..request }, CustodyReceiptRequest { root: [8; 32], ..request }] {
        assert_eq!(block_on(signer.sign_custody_receipt(&other)).expect_err("other").code(), "malformed_request");
    }

    let public_key = signer.public_key().sec1_compressed.clone();
    sign_peer_binding(&signer, &public_key).expect("binding");
    let foreign = PeerBindingRequest { public_key: &[2; 33], peer_id: b"peer" };
    assert_eq!(block_on(signer.sign_peer_binding(&foreign)).expect_err("foreign").code(), "malformed_request");
}
