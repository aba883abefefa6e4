//! Receipts alone, attached receipts, checkpoints as evidence, and state proofs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Network, sec1, sign, state_key};
use stele_types::custody::CustodyReceipt;
use stele_types::record::ContentHash;
use stele_types::{Hash, Height, LogIndex, Suite, cbor};
use stele_verify::checkpoint::{self, SignedCheckpoint};
use stele_verify::error::{Claim, Signer};
use stele_verify::statement::{self, attach_receipts, strip_receipts};
use stele_verify::{PublicKey, TrustAnchor, Verdict, VerifyError, bundle, chain, custody, receipt, state, verdict};

fn other_key() -> PublicKey {
    PublicKey::new(Suite::Es256, &sec1(&fixture::signing_key("other"))).unwrap()
}

#[test]
fn a_receipt_is_the_word_of_one_node() {
    let network = Network::with_history("north");
    let (entry, bytes) = (network.entry(2), cbor::to_vec(&network.receipt(1, 7)));
    let verdict = receipt::verify_bytes(&bytes, &entry, &network.public_checkpoint_key()).unwrap();
    let Verdict::VouchedByOneNode(vouched) = &verdict else { panic!("{verdict:?}") };
    assert_eq!((vouched.statement, vouched.index), (network.statement(2), LogIndex(1)));
    assert_eq!((vouched.log_root, vouched.state_root), (network.header(7).log_root, network.header(7).state_root));
    assert_eq!(verdict.exit_code(), verdict::EXIT_VOUCHED_BY_ONE_NODE);
}

#[test]
fn no_flipped_bit_of_a_receipt_or_entry_is_accepted() {
    let network = Network::with_history("north");
    let key = network.public_checkpoint_key();
    let (entry, bytes) = (network.entry(2), cbor::to_vec(&network.receipt(1, 7)));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(receipt::verify_bytes(&flipped, &entry, &key).is_err(), "bit {bit} of the receipt");
    }
    for bit in 0..entry.len() * 8 {
        let mut flipped = entry.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(receipt::verify_bytes(&bytes, &flipped, &key).is_err(), "bit {bit} of the entry");
    }
}

#[test]
fn wrong_keys_and_wrong_leaves_are_refused() {
    let network = Network::with_history("north");
    let receipt = network.receipt(1, 7);
    let key = network.public_checkpoint_key();
    assert_eq!(receipt::verify(&receipt, &network.entry(2), &other_key()), Err(VerifyError::KeyMismatch));
    let wrong_leaf = receipt::verify(&receipt, &network.entry(1), &key);
    assert_eq!(wrong_leaf, Err(VerifyError::SignatureInvalid(Signer::Checkpoint)));
    let mut moved = receipt.clone();
    moved.proof.index = LogIndex(0);
    assert_eq!(
        receipt::verify(&moved, &network.entry(2), &key),
        Err(VerifyError::SignatureInvalid(Signer::Checkpoint))
    );
    let mut resized = receipt;
    resized.proof.tree_size = 2;
    assert_eq!(
        receipt::verify(&resized, &network.entry(2), &key),
        Err(VerifyError::CheckpointMismatch(Claim::LogSize))
    );
}

#[test]
fn attached_receipts_are_taken_off_before_hashing() {
    let network = Network::with_history("north");
    let (entry, bytes) = (network.entry(2), cbor::to_vec(&network.receipt(1, 7)));
    let transparent = attach_receipts(&entry, &[&bytes, &bytes]).unwrap();
    let stripped = strip_receipts(&transparent).unwrap();
    assert_eq!(stripped.entry, entry);
    assert_eq!(stripped.receipts, [&bytes[..], &bytes[..]]);
    assert_eq!(strip_receipts(&entry).unwrap().entry, entry);
    assert!(receipt::verify_bytes(stripped.receipts[0], &transparent, &network.public_checkpoint_key()).is_ok());
    assert!(attach_receipts(&transparent, &[&bytes]).is_err(), "they are attached once, all together");
    assert!(attach_receipts(&entry, &[]).is_err());
    for cut in 0..transparent.len() {
        assert!(strip_receipts(&transparent[..cut]).is_err(), "cut at {cut}");
    }
    let mut other_label = transparent;
    let at = other_label.windows(3).position(|bytes| bytes == [0x19, 0x01, 0x8a]).unwrap();
    other_label[at + 2] = 0x8b;
    assert!(strip_receipts(&other_label).is_err(), "only receipts may be attached");
}

#[test]
fn the_issuers_signature_is_checked_under_its_key() {
    let network = Network::with_history("north");
    let key = PublicKey::new(Suite::Es256, &sec1(&network.issuer_key)).unwrap();
    let mut entry = network.entry(1);
    assert_eq!(statement::verify(&entry, &key).unwrap().id(), network.statement(1));
    assert_eq!(statement::verify(&entry, &other_key()), Err(VerifyError::KeyMismatch));
    let last = entry.len() - 1;
    entry[last] ^= 1;
    assert_eq!(statement::verify(&entry, &key), Err(VerifyError::SignatureInvalid(Signer::Issuer)));
}

/// The checkpoint after `height` − 1, changed and signed.
fn signed(network: &Network, height: u64, change: impl Fn(&mut SignedCheckpoint)) -> SignedCheckpoint {
    let mut signed = SignedCheckpoint {
        checkpoint: network.checkpoint(height),
        log_root: network.header(height).log_root,
        signature: [0; 64],
    };
    change(&mut signed);
    signed.signature = sign(&network.checkpoint_key, &signed.checkpoint.signing_bytes(&signed.log_root));
    signed
}

#[test]
fn a_checkpoint_that_contradicts_a_certified_header_is_evidence() {
    let network = Network::with_history("north");
    let anchor = TrustAnchor::genesis(&network.genesis.to_bytes()).unwrap();
    let (bundle, key) = (network.bundle(4), network.public_checkpoint_key());
    let header = bundle::certify(&bundle, &anchor).unwrap();
    let claim = |signed: &SignedCheckpoint| {
        checkpoint::contradiction(signed, &key, header).unwrap().map(|contradiction| contradiction.claim)
    };
    assert_eq!(claim(&signed(&network, 7, |_| ())), None);
    assert_eq!(claim(&signed(&network, 3, |_| ())), None, "an older checkpoint of the same log");
    assert_eq!(claim(&signed(&network, 7, |signed| signed.log_root.0[0] ^= 1)), Some(Claim::LogRoot));
    assert_eq!(claim(&signed(&network, 7, |signed| signed.checkpoint.state_root.0[0] ^= 1)), Some(Claim::StateRoot));
    assert_eq!(claim(&signed(&network, 7, |signed| signed.checkpoint.log_size += 1)), Some(Claim::LogSize));
    assert_eq!(claim(&signed(&network, 3, |signed| signed.checkpoint.log_size = 9)), Some(Claim::LogSize), "shrinks");
    let ahead = |change: fn(&mut SignedCheckpoint)| {
        signed(&network, 7, |signed| {
            signed.checkpoint.height.0 += 5;
            change(signed);
        })
    };
    assert_eq!(claim(&ahead(|_| ())), None);
    assert_eq!(claim(&ahead(|signed| signed.log_root.0[0] ^= 1)), Some(Claim::LogRoot), "one size, two roots");
    assert_eq!(claim(&ahead(|signed| signed.checkpoint.log_size -= 1)), Some(Claim::LogSize));
    let mut unsigned = signed(&network, 7, |signed| signed.log_root.0[0] ^= 1);
    unsigned.signature[5] ^= 1;
    let nothing = checkpoint::contradiction(&unsigned, &key, header);
    assert_eq!(nothing, Err(VerifyError::SignatureInvalid(Signer::Checkpoint)), "an unsigned claim accuses nobody");
}

#[test]
fn two_checkpoints_of_one_key_may_fork() {
    let network = Network::with_history("north");
    let key = network.public_checkpoint_key();
    let honest = signed(&network, 7, |_| ());
    assert_eq!(checkpoint::fork(&honest, &signed(&network, 3, |_| ()), &key), Ok(None));
    let forged = signed(&network, 7, |signed| signed.log_root.0[0] ^= 1);
    assert_eq!(checkpoint::fork(&honest, &forged, &key), Ok(Some(Claim::LogRoot)));
    assert_eq!(checkpoint::fork(&honest, &forged, &other_key()), Err(VerifyError::KeyMismatch));
}

#[test]
fn state_values_are_proven_under_a_certified_header() {
    let network = Network::with_history("north");
    let anchor = TrustAnchor::genesis(&network.genesis.to_bytes()).unwrap();
    let bundle = network.bundle(4);
    let header = bundle::certify(&bundle, &anchor).unwrap();
    let key = network.statement(4).0;
    let proof = network.state.prove(&key).encode();
    let value = 6_u64.to_be_bytes();
    assert_eq!(state::verify(&anchor, header, &key, Some(&value), &proof), Ok(Some(&value[..])));
    assert!(state::verify(&anchor, header, &key, Some(b"other"), &proof).is_err());
    assert!(state::verify(&anchor, header, &key, None, &proof).is_err());
    let absent = state_key("absent");
    let proof = network.state.prove(&absent).encode();
    assert_eq!(state::verify(&anchor, header, &absent, None, &proof), Ok(None));
    assert!(state::verify(&anchor, header, &absent, Some(b""), &proof).is_err());
    let older = network.bundle(1);
    let older = bundle::certify(&older, &anchor).unwrap();
    assert!(state::verify(&anchor, older, &absent, None, &proof).is_err(), "the proof is of a later state");
}

#[test]
fn certified_logs_are_consistent() {
    let network = Network::with_history("north");
    let anchor = TrustAnchor::genesis(&network.genesis.to_bytes()).unwrap();
    let (first, last) = (network.bundle(1), network.bundle(4));
    let (old, new) = (bundle::certify(&first, &anchor).unwrap(), bundle::certify(&last, &anchor).unwrap());
    let path: Vec<Hash> = network.log.consistency_proof(old.header().log_size).unwrap().into_iter().map(Hash).collect();
    assert_eq!(chain::verify_consistency(old, new, &path), Ok(()));
    assert!(chain::verify_consistency(old, new, &[]).is_err());
}

#[test]
fn keys_come_and_go_as_subject_public_key_info() {
    let network = Network::new("north");
    let p256 = network.public_checkpoint_key();
    let sm2 = {
        use sm2::elliptic_curve::sec1::ToEncodedPoint;
        let secret = sm2::SecretKey::from_slice(&[7; 32]).unwrap();
        PublicKey::new(Suite::Sm2Sm3, secret.public_key().to_encoded_point(true).as_bytes()).unwrap()
    };
    let ed25519 = {
        let key = ed25519_zebra::VerificationKey::from(&ed25519_zebra::SigningKey::from([7; 32]));
        PublicKey::new(Suite::EdDsa, &<[u8; 32]>::from(key)).unwrap()
    };
    for key in [p256, sm2, ed25519] {
        let pem = key.to_spki_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
        assert_eq!(PublicKey::from_spki(pem.as_bytes()).unwrap(), key);
    }
    assert!(PublicKey::from_spki(b"-----BEGIN PRIVATE KEY-----\n").is_err());
    assert!(PublicKey::from_spki(&[0x30; 91]).is_err());
    assert!(PublicKey::new(Suite::MlDsa44, &[0; 1312]).is_err());
}

/// `jq -r` ends a PEM text with a blank line, and such a key file was once refused.
#[test]
fn key_files_may_end_in_blank_lines() {
    let key = Network::with_history("north").public_checkpoint_key();
    let pem = key.to_spki_pem().unwrap();
    for text in [format!("{pem}\n"), format!("\n{pem}\n\n"), pem.trim_end().to_owned()] {
        assert_eq!(PublicKey::from_spki(text.as_bytes()).as_ref(), Ok(&key), "{text:?}");
    }
}

#[test]
fn a_custody_receipt_is_the_word_of_the_node_that_signed_it() {
    let network = Network::with_history("north");
    let key = network.public_checkpoint_key();
    let mut receipt = CustodyReceipt {
        network: network.id,
        body_hash: ContentHash::Sha256,
        body_root: Hash([7; 32]),
        length: 70_000,
        height: Height(9),
        time_ms: 1_790_000_000_000,
        signature: [0; 64],
    };
    receipt.signature = sign(&network.checkpoint_key, &receipt.signing_bytes());
    let bytes = cbor::to_vec(&receipt);
    let verdict = custody::verify_bytes(&bytes, &key).unwrap();
    assert_eq!((verdict.body_root, verdict.length, verdict.checkpoint_key), (receipt.body_root, 70_000, key.id()));
    assert_eq!(
        custody::verify_bytes(&bytes, &other_key()),
        Err(VerifyError::SignatureInvalid(Signer::Checkpoint)),
        "of another node"
    );
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(custody::verify_bytes(&flipped, &key).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(custody::verify_bytes(&bytes[..length], &key).is_err(), "{length} bytes");
    }
    let longer = [&bytes[..], &[0; 2_000]].concat();
    assert!(matches!(custody::verify_bytes(&longer, &key), Err(VerifyError::TooLarge { .. })));
}
