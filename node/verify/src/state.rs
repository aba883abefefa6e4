//! Values of the state tree under a certified header.

use stele_merkle::state::{Key, Proof, StateHash};

use crate::anchor::TrustAnchor;
use crate::chain::CertifiedHeader;
use crate::error::VerifyError;

/// Checks that after the block below `header` the state held `value` under `key`, or nothing, and returns it.
///
/// The proof is encoded as docs/protocol.md, "State tree", says.
///
/// # Errors
/// `state_proof_invalid`.
pub fn verify<'v>(
    anchor: &TrustAnchor,
    header: CertifiedHeader<'_>,
    key: &Key,
    value: Option<&'v [u8]>,
    proof: &[u8],
) -> Result<Option<&'v [u8]>, VerifyError> {
    verify_root(anchor.state_hash(), &header.header().state_root.0, key, value, proof)?;
    Ok(value)
}

/// [`verify`] against a bare root: as good as whoever vouches for the root.
///
/// # Errors
/// `state_proof_invalid`.
pub fn verify_root(
    hash: StateHash,
    root: &[u8; 32],
    key: &Key,
    value: Option<&[u8]>,
    proof: &[u8],
) -> Result<(), VerifyError> {
    Proof::decode(proof)?.verify(hash, root, key, value)?;
    Ok(())
}
