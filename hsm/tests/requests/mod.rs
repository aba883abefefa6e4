//! Typed requests as the layouts of `stele_hsm::request` have them, and what checks their signatures.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, sync::Arc};

use futures::executor::block_on;
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use stele_hsm::{
    CheckpointGuard, CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, GuardDurability,
    PeerBindingRequest, Signer, SignerError, Step, VoteGuard, VoteRequest,
};

pub(crate) const VALIDATOR: [u8; 32] = [2; 32];

/// The bytes of a custody receipt of a body of 23 bytes.
pub(crate) fn receipt_bytes(root: u8) -> Vec<u8> {
    let mut bytes = b"\x87\x78\x18stele/custody-receipt/v1\x58\x20".to_vec();
    bytes.extend([7; 32]);
    bytes.extend([0x01, 0x58, 0x20]);
    bytes.extend([root; 32]);
    bytes.extend([0x17, 0x05, 0x06]);
    bytes
}

/// Signs such a receipt, for which no guard is asked.
pub(crate) fn sign_receipt(signer: &dyn Signer, root: u8) -> Result<[u8; 64], SignerError> {
    let bytes = receipt_bytes(root);
    let request = CustodyReceiptRequest { root: [root; 32], length: 23, bytes: &bytes };
    let signature = block_on(signer.sign_custody_receipt(&request))?;
    assert!(verifies(signer, &bytes, &signature));
    Ok(signature)
}

/// The bytes of a prevote at round 0.
pub(crate) fn prevote_bytes(height: u8, value: u8) -> Vec<u8> {
    let mut bytes = b"\x88\x6dstele/vote/v1\x58\x20".to_vec();
    bytes.extend([7; 32]);
    bytes.extend([0x02, height, 0x00, 0x58, 0x20]);
    bytes.extend([value; 32]);
    bytes.extend([0xf6, 0xf6]);
    bytes
}

pub(crate) fn sign_vote(signer: &dyn Signer, height: u8, value: u8) -> Result<[u8; 64], SignerError> {
    let bytes = prevote_bytes(height, value);
    let request = VoteRequest {
        validator: VALIDATOR,
        height: height.into(),
        round: 0,
        step: Step::Prevote,
        value_id: Some([value; 32]),
        bytes: &bytes,
    };
    let signature = block_on(signer.sign_vote(&request))?;
    assert!(verifies(signer, &bytes, &signature));
    Ok(signature)
}

/// The `Sig_structure` of a checkpoint.
pub(crate) fn checkpoint_bytes(size: u8, root: u8) -> Vec<u8> {
    let mut bytes = b"\x84\x6aSignature1\x4a\xa1\x0f\xa1\x3a\x00\x01\x11\x71\x18".to_vec();
    bytes.push(size);
    bytes.extend([0x40, 0x58, 0x20]);
    bytes.extend([root; 32]);
    bytes
}

pub(crate) fn sign_checkpoint(signer: &dyn Signer, size: u8, root: u8) -> Result<[u8; 64], SignerError> {
    let bytes = checkpoint_bytes(size, root);
    let request = CheckpointRequest { tree_size: size.into(), root: [root; 32], sig_structure: &bytes };
    let signature = block_on(signer.sign_checkpoint(&request))?;
    assert!(verifies(signer, &bytes, &signature));
    Ok(signature)
}

pub(crate) fn sign_epoch_certificate(signer: &dyn Signer) -> Result<[u8; 64], SignerError> {
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
    let signature = block_on(signer.sign_epoch_certificate(&request))?;
    assert!(verifies(signer, &bytes, &signature));
    Ok(signature)
}

pub(crate) fn sign_peer_binding(signer: &dyn Signer, public_key: &[u8]) -> Result<[u8; 64], SignerError> {
    let binding = PeerBindingRequest { public_key, peer_id: b"peer" };
    let signature = block_on(signer.sign_peer_binding(&binding))?;
    assert!(verifies(signer, &binding.signing_bytes().unwrap(), &signature));
    Ok(signature)
}

pub(crate) fn verifies(signer: &dyn Signer, bytes: &[u8], signature: &[u8; 64]) -> bool {
    let key = VerifyingKey::from_public_key_der(&signer.public_key().spki_der).unwrap();
    key.verify(bytes, &Signature::from_slice(signature).unwrap()).is_ok()
}

/// Makes the guards of a validator in a directory.
pub(crate) fn create_guards(directory: &Path) {
    VoteGuard::create(&directory.join("votes.guard"), VALIDATOR).unwrap();
    CheckpointGuard::create(&directory.join("checkpoints.guard"), [7; 32]).unwrap();
}

/// Opens the guards of a directory.
pub(crate) fn open_guards(directory: &Path) -> (Arc<VoteGuard>, Arc<CheckpointGuard>) {
    let votes = VoteGuard::open(&directory.join("votes.guard"), VALIDATOR, GuardDurability::Sync).unwrap();
    let checkpoints = CheckpointGuard::open(&directory.join("checkpoints.guard"), [7; 32], GuardDurability::Sync);
    (Arc::new(votes), Arc::new(checkpoints.unwrap()))
}
