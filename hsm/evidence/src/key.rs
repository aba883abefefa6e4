//! Public keys that verify signatures of TPMs and of certificate authorities.

use alloc::vec::Vec;

use p256::{
    ecdsa::signature::hazmat::PrehashVerifier,
    elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint},
};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    error::EvidenceError,
    rsa::RsaPublicKey,
};

/// A public key of one of the supported kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// ECDSA or ECDH over P-256.
    P256(p256::PublicKey),
    /// ECDSA or ECDH over P-384: certificate authorities, and endorsement keys of the profile's high range.
    P384(p384::PublicKey),
    /// RSA.
    Rsa(RsaPublicKey),
}

impl PublicKey {
    /// A P-256 key from big-endian coordinates, which a TPM may write without leading zeros.
    ///
    /// # Errors
    /// [`EvidenceError::InvalidKey`] if they are no point of the curve.
    pub fn p256_from_coordinates(x: &[u8], y: &[u8]) -> Result<Self, EvidenceError> {
        let x = left_padded::<32>(x).ok_or(EvidenceError::InvalidKey)?;
        let y = left_padded::<32>(y).ok_or(EvidenceError::InvalidKey)?;
        let point = p256::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
        let key: Option<p256::PublicKey> = p256::PublicKey::from_encoded_point(&point).into();
        key.map(Self::P256).ok_or(EvidenceError::InvalidKey)
    }

    /// A P-384 key, as [`Self::p256_from_coordinates`].
    ///
    /// # Errors
    /// [`EvidenceError::InvalidKey`] if they are no point of the curve.
    pub fn p384_from_coordinates(x: &[u8], y: &[u8]) -> Result<Self, EvidenceError> {
        let x = left_padded::<48>(x).ok_or(EvidenceError::InvalidKey)?;
        let y = left_padded::<48>(y).ok_or(EvidenceError::InvalidKey)?;
        let point = p384::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
        let key: Option<p384::PublicKey> = p384::PublicKey::from_encoded_point(&point).into();
        key.map(Self::P384).ok_or(EvidenceError::InvalidKey)
    }

    /// A key on a named curve from its SEC 1 encoding, compressed or not.
    ///
    /// # Errors
    /// [`EvidenceError::InvalidKey`].
    pub fn p256_from_sec1(bytes: &[u8]) -> Result<Self, EvidenceError> {
        p256::PublicKey::from_sec1_bytes(bytes).map(Self::P256).map_err(|_| EvidenceError::InvalidKey)
    }

    pub(crate) fn p384_from_sec1(bytes: &[u8]) -> Result<Self, EvidenceError> {
        p384::PublicKey::from_sec1_bytes(bytes).map(Self::P384).map_err(|_| EvidenceError::InvalidKey)
    }

    /// Whether `r ‖ s`, each as long as the curve's order, is an ECDSA signature of a digest. High and low s are both
    /// accepted: TPMs do not normalise.
    #[must_use]
    pub fn verify_ecdsa(&self, digest: &Digest, r: &[u8], s: &[u8]) -> bool {
        match self {
            Self::P256(key) => {
                let (Some(r), Some(s)) = (left_padded::<32>(r), left_padded::<32>(s)) else { return false };
                let signature = p256::ecdsa::Signature::from_scalars(r, s);
                let key = p256::ecdsa::VerifyingKey::from(key);
                signature.is_ok_and(|signature| key.verify_prehash(digest.as_bytes(), &signature).is_ok())
            }
            Self::P384(key) => {
                let (Some(r), Some(s)) = (left_padded::<48>(r), left_padded::<48>(s)) else { return false };
                let signature = p384::ecdsa::Signature::from_scalars(r, s);
                let key = p384::ecdsa::VerifyingKey::from(key);
                signature.is_ok_and(|signature| key.verify_prehash(digest.as_bytes(), &signature).is_ok())
            }
            Self::Rsa(_) => false,
        }
    }

    /// `SubjectPublicKeyInfo` in DER (RFC 5480, RFC 8017 appendix A.1): what `openssl pkey -pubin -outform DER` writes.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                /// `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING` of 65 bytes.
                const PREFIX: &[u8] =
                    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
                [PREFIX, key.to_encoded_point(false).as_bytes()].concat()
            }
            Self::P384(key) => {
                /// As above, with secp384r1 and 97 bytes.
                const PREFIX: &[u8] =
                    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
                [PREFIX, key.to_encoded_point(false).as_bytes()].concat()
            }
            Self::Rsa(key) => {
                /// `SEQUENCE { rsaEncryption, NULL }`.
                const ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
                let integers = [der_integer(key.modulus()), der_integer(&key.exponent().to_be_bytes())].concat();
                let bits = [&[0][..], &der_value(0x30, &integers)].concat();
                der_value(0x30, &[ALGORITHM, &der_value(0x03, &bits)].concat())
            }
        }
    }

    /// SHA-256 of [`Self::spki_der`]: the fingerprint that an operator reads out and a verifier pins.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        HashAlgorithm::Sha256.digest(&[&self.spki_der()])
    }
}

/// Big-endian bytes at a fixed width; `None` if they need more.
pub(crate) fn left_padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    let mut padded = [0; N];
    padded.get_mut(N.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(padded)
}

fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    let sign: &[u8] = if bytes.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    der_value(0x02, &[sign, bytes].concat())
}

fn der_value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head: &[u8] = match length {
        [0, low @ 0..0x80] => &[tag, low],
        [0, low] => &[tag, 0x81, low],
        [high, low] => &[tag, 0x82, high, low],
    };
    [head, content].concat()
}
