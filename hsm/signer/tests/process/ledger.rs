//! Requests as a node makes them, of the network that the host adopted.

use futures::executor::block_on;
use stele_hsm::{
    CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, Signature, Signer, SignerError, Step,
    VoteRequest,
};
use stele_types::{
    BlockId, Checkpoint, EpochCertificate, Hash, Height, KeyId, NetworkId, Suite, ValidatorId, VoteKey, VoteKind,
    custody::CustodyReceipt, record::ContentHash, vote::Ballot,
};

use crate::{
    host::{Host, genesis},
    requests::verifies,
};

/// A prevote of the host's validator at round 0.
pub(crate) fn vote(host: &Host, signer: &dyn Signer, height: u64, value: u8) -> Result<Signature, SignerError> {
    vote_in(host, signer, genesis().network(), height, value)
}

pub(crate) fn vote_in(
    host: &Host,
    signer: &dyn Signer,
    network: NetworkId,
    height: u64,
    value: u8,
) -> Result<Signature, SignerError> {
    let block = Some(BlockId([value; 32]));
    let kind = VoteKind::Prevote;
    let ballot = Ballot { network, kind, height: Height(height), round: 0, block, valid_round: None };
    let bytes = ballot.signing_bytes(&VoteKey::Direct);
    let (validator, step, value_id) = (validator(host).0, Step::Prevote, Some([value; 32]));
    let request = VoteRequest { validator, height, round: 0, step, value_id, bytes: &bytes };
    let _runtime = host.runtime.enter();
    signed(signer, &bytes, block_on(signer.sign_vote(&request)))
}

pub(crate) fn validator(host: &Host) -> ValidatorId {
    ValidatorId::of(&host.keys().validator.unwrap().point().unwrap())
}

/// A checkpoint of a log.
pub(crate) fn checkpoint(network: NetworkId, log_size: u64, root: u8) -> Vec<u8> {
    let checkpoint = Checkpoint {
        suite: Suite::Es256,
        key: KeyId::of(Suite::Es256, &[2; 33]),
        network,
        height: Height(log_size),
        log_size,
        state_root: Hash([5; 32]),
        time_ms: 1_000,
    };
    checkpoint.signing_bytes(&Hash([root; 32]))
}

pub(crate) fn sign_checkpoint(host: &Host, signer: &dyn Signer, size: u64, root: u8) -> Result<Signature, SignerError> {
    sign_checkpoint_bytes(host, signer, (size, root), &checkpoint(genesis().network(), size, root))
}

pub(crate) fn sign_checkpoint_bytes(
    host: &Host,
    signer: &dyn Signer,
    (tree_size, root): (u64, u8),
    bytes: &[u8],
) -> Result<Signature, SignerError> {
    let request = CheckpointRequest { tree_size, root: [root; 32], sig_structure: bytes };
    let _runtime = host.runtime.enter();
    signed(signer, bytes, block_on(signer.sign_checkpoint(&request)))
}

pub(crate) fn sign_receipt(host: &Host, signer: &dyn Signer, network: NetworkId) -> Result<Signature, SignerError> {
    let receipt = CustodyReceipt {
        network,
        body_hash: ContentHash::Sha256,
        body_root: Hash([3; 32]),
        length: 23,
        height: Height(5),
        time_ms: 6,
        signature: [0; 64],
    };
    let bytes = receipt.signing_bytes();
    let request = CustodyReceiptRequest { root: [3; 32], length: 23, bytes: &bytes };
    let _runtime = host.runtime.enter();
    signed(signer, &bytes, block_on(signer.sign_custody_receipt(&request)))
}

/// A certificate for an epoch key over heights.
pub(crate) fn certify(
    host: &Host,
    signer: &dyn Signer,
    certificate: &EpochCertificate,
) -> Result<Signature, SignerError> {
    let bytes = certificate.signing_bytes();
    let request = EpochCertificateRequest {
        validator: certificate.validator.0,
        epoch_key: &certificate.public_key,
        height_first: certificate.from_height.0,
        height_last: certificate.until_height.0,
        bytes: &bytes,
    };
    let _runtime = host.runtime.enter();
    signed(signer, &bytes, block_on(signer.sign_epoch_certificate(&request)))
}

fn signed(
    signer: &dyn Signer,
    bytes: &[u8],
    signature: Result<Signature, SignerError>,
) -> Result<Signature, SignerError> {
    let signature = signature?;
    assert!(verifies(signer, bytes, &signature));
    Ok(signature)
}
