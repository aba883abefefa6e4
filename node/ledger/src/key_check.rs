//! Whether a public key may be enrolled: canonical, on its curve, of full order.
//!
//! The answer is consensus, so it is computed here with portable code and never by an accelerator.

use curve25519_dalek::edwards::CompressedEdwardsY;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::sec1::{FromEncodedPoint, Tag};
use stele_types::party::EnrolledKey;
use stele_types::suite::Suite;
use stele_types::vote::EpochCertificate;

/// Whether `key` is canonical, on its curve and in the prime-order group, without being its neutral element.
pub(crate) fn is_valid(key: &EnrolledKey) -> bool {
    match key.suite {
        Suite::Es256 => is_p256_point(&key.public_key),
        Suite::Sm2Sm3 => is_sm2_point(&key.public_key),
        Suite::EdDsa => is_ed25519_point(&key.public_key),
        // No acceptance rule of ML-DSA is implemented, so no parameters can enable it.
        Suite::MlDsa44 | Suite::MlDsa65 | Suite::MlDsa87 => false,
    }
}

/// SEC1 compressed (02 or 03 and x < p) and on P-256.
pub(crate) fn is_p256_point(bytes: &[u8]) -> bool {
    is_compressed(bytes)
        && p256::EncodedPoint::from_bytes(bytes)
            .is_ok_and(|point| bool::from(p256::PublicKey::from_encoded_point(&point).is_some()))
}

/// SEC1 compressed and on the SM2 curve.
fn is_sm2_point(bytes: &[u8]) -> bool {
    is_compressed(bytes)
        && sm2::EncodedPoint::from_bytes(bytes)
            .is_ok_and(|point| bool::from(sm2::PublicKey::from_encoded_point(&point).is_some()))
}

/// The only form with 33 bytes that names both coordinates; the "compact" tag 05 has the same length and is refused.
fn is_compressed(bytes: &[u8]) -> bool {
    let tags = [Tag::CompressedEvenY, Tag::CompressedOddY].map(u8::from);
    bytes.len() == 33 && tags.contains(&bytes[0])
}

/// Canonical encoding (RFC 8032 section 5.1.3), not of small order, no torsion component.
pub(crate) fn is_ed25519_point(bytes: &[u8]) -> bool {
    let Some(point) = CompressedEdwardsY::from_slice(bytes).ok().and_then(|compressed| compressed.decompress()) else {
        return false;
    };
    point.compress().as_bytes() == bytes && !point.is_small_order() && point.is_torsion_free()
}

/// Whether the long-term key signed the certificate and the epoch key is a point of P-256.
pub(crate) fn is_signed_by(certificate: &EpochCertificate, long_term: &[u8; 33]) -> bool {
    if !is_p256_point(&certificate.public_key) || !is_compressed(long_term) {
        return false;
    }
    let (Ok(key), Ok(signature)) =
        (VerifyingKey::from_sec1_bytes(long_term), Signature::from_slice(&certificate.signature))
    else {
        return false;
    };
    key.verify(&certificate.signing_bytes(), &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use curve25519_dalek::constants::{ED25519_BASEPOINT_COMPRESSED, ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use p256::elliptic_curve::sec1::ToEncodedPoint;
    use stele_types::cbor::Blob;

    use super::*;

    fn key(suite: Suite, bytes: &[u8]) -> EnrolledKey {
        EnrolledKey { suite, public_key: Blob::new(bytes.to_vec()).unwrap() }
    }

    #[test]
    fn ed25519_keys_are_canonical_and_torsion_free() {
        assert!(is_valid(&key(Suite::EdDsa, ED25519_BASEPOINT_COMPRESSED.as_bytes())));
        for torsion in EIGHT_TORSION {
            assert!(!is_ed25519_point(torsion.compress().as_bytes()), "small order");
        }
        let mixed = (ED25519_BASEPOINT_POINT + EIGHT_TORSION[1]).compress();
        assert!(!is_ed25519_point(mixed.as_bytes()), "a point with a torsion component");
        // y = p + 1 is the neutral element in a second encoding.
        let mut unreduced = [0xff; 32];
        unreduced[0] = 0xee;
        unreduced[31] = 0x7f;
        assert!(!is_ed25519_point(&unreduced), "not canonical");
        assert!(!is_ed25519_point(&[2; 31]), "too short");
        let off_curve = (0_u8..).map(|byte| [byte; 32]).find(|y| CompressedEdwardsY(*y).decompress().is_none());
        assert!(!is_ed25519_point(&off_curve.unwrap()));
    }

    #[test]
    fn curve_keys_are_compressed_and_on_the_curve() {
        let p256_generator = p256::AffinePoint::GENERATOR.to_encoded_point(true);
        let sm2_generator = sm2::AffinePoint::GENERATOR.to_encoded_point(true);
        for (suite, good) in [(Suite::Es256, p256_generator.as_bytes()), (Suite::Sm2Sm3, sm2_generator.as_bytes())] {
            assert!(is_valid(&key(suite, good)), "{suite}");
            let mut compact = good.to_vec();
            compact[0] = 5;
            assert!(!is_valid(&key(suite, &compact)), "{suite} compact");
            assert!(!is_valid(&key(suite, &good[..32])), "{suite} short");
            let mut unreduced = vec![2];
            unreduced.extend([0xff; 32]);
            assert!(!is_valid(&key(suite, &unreduced)), "{suite} x above p");
            let off: Vec<u8> = (1_u8..)
                .map(|byte| [&[2][..], &[0; 31], &[byte]].concat())
                .find(|bytes| !is_valid(&key(suite, bytes)))
                .unwrap();
            assert!(off[32] < 20, "half of all x lie off the curve");
        }
        let uncompressed = p256::AffinePoint::GENERATOR.to_encoded_point(false);
        assert!(!is_valid(&key(Suite::Es256, uncompressed.as_bytes())));
        assert!(!is_valid(&key(Suite::Sm2Sm3, p256_generator.as_bytes())), "a point of another curve");
        assert!(!is_valid(&key(Suite::MlDsa44, &[1; 1312])));
    }
}
