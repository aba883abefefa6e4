//! A custody receipt: a node's word that it holds a copy of a sealed body, given with its checkpoint key.

use stele_types::custody::CustodyReceipt;
use stele_types::record::ContentHash;
use stele_types::{Hash, Height, KeyId, NetworkId, Suite, cbor};

use crate::error::{Part, Signer, VerifyError};
use crate::key::PublicKey;
use crate::statement;

/// Longest custody receipt that is read.
pub const CUSTODY_RECEIPT_BYTES_MAX: usize = 1024;

/// What a node holds, by its word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InCustody {
    /// The network.
    pub network: NetworkId,
    /// Hash of the content root.
    pub body_hash: ContentHash,
    /// Content root of the sealed body.
    pub body_root: Hash,
    /// Bytes of the sealed body.
    pub length: u64,
    /// Height of the ledger when every byte of the copy had been verified.
    pub height: Height,
    /// Time of the block at that height, milliseconds.
    pub time_ms: u64,
    /// The checkpoint key that signed.
    pub checkpoint_key: KeyId,
}

/// Checks that the node with the checkpoint key `key` signed `receipt`.
///
/// # Errors
/// `key_mismatch` if it is a key of another kind; `key_invalid`, `signature_invalid`.
pub fn verify(receipt: &CustodyReceipt, key: &PublicKey) -> Result<InCustody, VerifyError> {
    if key.suite() != Suite::Es256 {
        return Err(VerifyError::KeyMismatch);
    }
    statement::check(key, &receipt.signing_bytes(), &receipt.signature, Signer::Checkpoint)?;
    let CustodyReceipt { network, body_hash, body_root, length, height, time_ms, .. } = *receipt;
    Ok(InCustody { network, body_hash, body_root, length, height, time_ms, checkpoint_key: key.id() })
}

/// [`verify`] over the bytes of a receipt.
///
/// # Errors
/// Those of [`verify`], `malformed`, `too_large`.
pub fn verify_bytes(receipt: &[u8], key: &PublicKey) -> Result<InCustody, VerifyError> {
    if receipt.len() > CUSTODY_RECEIPT_BYTES_MAX {
        return Err(VerifyError::TooLarge { part: Part::CustodyReceipt, length: receipt.len() });
    }
    let malformed = |source| VerifyError::Malformed { part: Part::CustodyReceipt, source };
    verify(&cbor::from_slice(receipt).map_err(malformed)?, key)
}
