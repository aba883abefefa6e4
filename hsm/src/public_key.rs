//! The public half of a signer's key.

use p256::{ecdsa::VerifyingKey, elliptic_curve::sec1::ToEncodedPoint, pkcs8::EncodePublicKey};

use crate::error::SignerError;

/// The algorithm of a signer's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// ECDSA over P-256 with SHA-256 (COSE `ES256`).
    P256,
}

impl KeyAlgorithm {
    /// Stable lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
        }
    }
}

/// A public key in the encodings that others need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Algorithm of the key.
    pub algorithm: KeyAlgorithm,
    /// The point, SEC 1 compressed, 33 bytes.
    pub sec1_compressed: Vec<u8>,
    /// The point, SEC 1 uncompressed, 65 bytes.
    pub sec1_uncompressed: Vec<u8>,
    /// `SubjectPublicKeyInfo` in DER, RFC 5480.
    pub spki_der: Vec<u8>,
}

impl PublicKey {
    pub(crate) fn from_verifying_key(key: &VerifyingKey) -> Result<Self, SignerError> {
        let spki = p256::PublicKey::from(key).to_public_key_der().map_err(|_| SignerError::SigningFailed)?;
        Ok(Self {
            algorithm: KeyAlgorithm::P256,
            sec1_compressed: key.as_affine().to_encoded_point(true).as_bytes().to_vec(),
            sec1_uncompressed: key.as_affine().to_encoded_point(false).as_bytes().to_vec(),
            spki_der: spki.into_vec(),
        })
    }
}
