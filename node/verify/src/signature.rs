//! The acceptance rules of the suites (docs/protocol.md, "Suites"), one signature at a time, in portable code.
//!
//! Two implementations of one rule must accept the same signatures or a network forks, so these rules are exactly those
//! of the batch verifier; `tests/acceptance.rs` holds both to the same edge cases.

use ed25519_zebra::{Signature as EdSignature, VerificationKey};
use p256::ecdsa::signature::Verifier as _;
use sm2::ProjectivePoint;
use sm2::elliptic_curve::Group as _;
use stele_types::Suite;

/// User id of every SM2 signature (GM/T 0009).
pub const SM2_IDENTITY: &str = "1234567812345678";

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No rule of the suite is implemented.
    Suite,
    /// The bytes are no public key of the suite.
    Key,
    /// The signature is malformed or not of this key over this message.
    Signature,
}

/// Verifies `signature` over `message` under `public_key`.
///
/// * `es256`: ECDSA on P-256 over SHA-256, r ‖ s big-endian, both in 1 … n−1, high and low s alike; key SEC1 compressed
///   or uncompressed.
/// * `eddsa`: Ed25519 under ZIP-215: any encoding of A and R that decodes, s below the group order, cofactored equation.
/// * `sm2_sm3`: SM2 (GB/T 32918.2) over SM3 with [`SM2_IDENTITY`], r ‖ s big-endian; key as for `es256`.
///
/// # Errors
/// [`Refusal`]; no input panics.
pub fn verify(suite: Suite, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    match suite {
        Suite::Es256 => {
            let key = sec1(public_key).and_then(|key| p256::ecdsa::VerifyingKey::from_sec1_bytes(key).ok());
            let key = key.ok_or(Refusal::Key)?;
            let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|_| Refusal::Signature)?;
            key.verify(message, &signature).map_err(|_| Refusal::Signature)
        }
        Suite::EdDsa => {
            let key: [u8; 32] = public_key.try_into().map_err(|_| Refusal::Key)?;
            let key = VerificationKey::try_from(key).map_err(|_| Refusal::Key)?;
            let signature: [u8; 64] = signature.try_into().map_err(|_| Refusal::Signature)?;
            key.verify(&EdSignature::from(signature), message).map_err(|_| Refusal::Signature)
        }
        Suite::Sm2Sm3 => {
            let key = sec1(public_key).and_then(|key| sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_IDENTITY, key).ok());
            let key = key.ok_or(Refusal::Key)?;
            let signature: &[u8; 64] = signature.try_into().map_err(|_| Refusal::Signature)?;
            let signature = sm2::dsa::Signature::from_bytes(signature).map_err(|_| Refusal::Signature)?;
            // The library takes the x-coordinate of [s]G + [r + s]P without asking whether that point has one; whoever
            // holds a key can make a signature for which it is the point at infinity (GB/T 32918.2 section 7.1).
            let (r, s) = (*signature.r(), *signature.s());
            let point = ProjectivePoint::GENERATOR * s + ProjectivePoint::from(*key.as_affine()) * (r + s);
            if bool::from(point.is_identity()) {
                return Err(Refusal::Signature);
            }
            key.verify(message, &signature).map_err(|_| Refusal::Signature)
        }
        Suite::MlDsa44 | Suite::MlDsa65 | Suite::MlDsa87 => Err(Refusal::Suite),
    }
}

/// SEC1 section 2.3.3, compressed or uncompressed; hybrid and compact forms and infinity are refused before any library
/// sees them.
fn sec1(bytes: &[u8]) -> Option<&[u8]> {
    matches!((bytes.len(), bytes.first()), (33, Some(0x02 | 0x03)) | (65, Some(0x04))).then_some(bytes)
}
