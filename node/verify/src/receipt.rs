//! A receipt alone: one node's word, given with its checkpoint key.

use alloc::vec::Vec;

use stele_merkle::log;
use stele_types::cbor;
use stele_types::{Hash, Receipt};

use crate::checkpoint::SignedCheckpoint;
use crate::error::{Part, VerifyError};
use crate::key::PublicKey;
use crate::statement::{self, RECEIPT_BYTES_MAX, parse};
use crate::verdict::{Verdict, Vouched};

/// Checks that `receipt` includes `entry` in the log whose head `key` signs.
///
/// # Errors
/// `statement_invalid`, `checkpoint_mismatch` when the proof is of another tree size, `log_proof_invalid`,
/// `key_mismatch`, `key_invalid`, `signature_invalid`.
pub fn verify(receipt: &Receipt, entry: &[u8], key: &PublicKey) -> Result<Vouched, VerifyError> {
    vouched(receipt, entry, |signed| signed.verify(key))
}

/// [`verify`] with the check of the tree head's signature left to `check`.
pub(crate) fn vouched(
    receipt: &Receipt,
    entry: &[u8],
    check: impl FnOnce(&SignedCheckpoint) -> Result<(), VerifyError>,
) -> Result<Vouched, VerifyError> {
    let statement = parse(entry)?;
    let signed = signed_checkpoint(receipt, entry)?;
    check(&signed)?;
    let SignedCheckpoint { checkpoint, log_root, .. } = signed;
    Ok(Vouched {
        network: checkpoint.network,
        statement: statement.id(),
        issuer: statement.issuer(),
        key: statement.key(),
        index: receipt.proof.index,
        checkpoint_key: checkpoint.key,
        height: checkpoint.height,
        log_size: checkpoint.log_size,
        log_root,
        state_root: checkpoint.state_root,
        time_ms: checkpoint.time_ms,
    })
}

/// [`verify`] over the bytes of a receipt and of a statement, whose attached receipts are taken off first.
///
/// # Errors
/// Those of [`verify`], `malformed`, `too_large`.
pub fn verify_bytes(receipt: &[u8], statement: &[u8], key: &PublicKey) -> Result<Verdict, VerifyError> {
    if receipt.len() > RECEIPT_BYTES_MAX {
        return Err(VerifyError::TooLarge { part: Part::Receipt, length: receipt.len() });
    }
    let receipt = cbor::from_slice(receipt).map_err(|source| VerifyError::Malformed { part: Part::Receipt, source })?;
    let stripped = statement::strip_receipts(statement)?;
    verify(&receipt, &stripped.entry, key).map(Verdict::VouchedByOneNode)
}

/// The signed tree head inside a receipt: the root is the one that the proof of `entry` leads to. The signature is not
/// checked here.
///
/// # Errors
/// `checkpoint_mismatch` when the proof is of another tree size, `log_proof_invalid`.
pub fn signed_checkpoint(receipt: &Receipt, entry: &[u8]) -> Result<SignedCheckpoint, VerifyError> {
    let Receipt { checkpoint, proof, signature } = receipt;
    if proof.tree_size != checkpoint.log_size {
        return Err(VerifyError::CheckpointMismatch(crate::error::Claim::LogSize));
    }
    let path: Vec<_> = proof.path.iter().map(|hash| hash.0).collect();
    let root = log::inclusion_root(&log::leaf_hash(entry), proof.index.0, proof.tree_size, &path)?;
    Ok(SignedCheckpoint { checkpoint: checkpoint.clone(), log_root: Hash(root), signature: *signature })
}
