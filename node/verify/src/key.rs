//! Public keys as files bring them: SubjectPublicKeyInfo in PEM or DER (RFC 5480, RFC 8410, GB/T 35276).

use alloc::string::String;
use alloc::vec::Vec;

use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use stele_types::cbor::CborError;
use stele_types::{KeyId, Suite};

use crate::error::{Part, VerifyError};

/// DER of an Ed25519 SubjectPublicKeyInfo up to the key itself (RFC 8410 section 4).
const ED25519_SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Longest key file; an SPKI of ML-DSA-87 in PEM has under 4 KiB.
const KEY_FILE_BYTES_MAX: usize = 8 * 1024;

/// A public key with its suite, in the suite's canonical form: SEC1 compressed, or 32 bytes of Ed25519.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    suite: Suite,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// A key from its canonical bytes. That they are a point of the curve shows when a signature is verified.
    ///
    /// # Errors
    /// `suite_unsupported`, or `key_invalid` for another length than the suite's.
    pub fn new(suite: Suite, bytes: &[u8]) -> Result<Self, VerifyError> {
        if suite.rule_version_max() == 0 {
            return Err(VerifyError::SuiteUnsupported(suite));
        }
        if bytes.len() != suite.public_key_len() {
            return Err(VerifyError::KeyInvalid(suite));
        }
        Ok(Self { suite, bytes: bytes.to_vec() })
    }
    /// Reads a SubjectPublicKeyInfo, PEM or DER, of P-256, SM2 or Ed25519.
    ///
    /// # Errors
    /// `malformed` when it is none of these, `too_large`.
    pub fn from_spki(file: &[u8]) -> Result<Self, VerifyError> {
        const MALFORMED: VerifyError = VerifyError::Malformed { part: Part::PublicKey, source: CborError::Malformed };
        if file.len() > KEY_FILE_BYTES_MAX {
            return Err(VerifyError::TooLarge { part: Part::PublicKey, length: file.len() });
        }
        let der = match core::str::from_utf8(file) {
            // Blank lines around it are what copying and pasting leaves.
            Ok(text) if text.trim_start().starts_with("-----BEGIN") => {
                let (label, der) = p256::pkcs8::Document::from_pem(text.trim()).map_err(|_| MALFORMED)?;
                if label != "PUBLIC KEY" {
                    return Err(MALFORMED);
                }
                der.as_bytes().to_vec()
            }
            _ => file.to_vec(),
        };
        if let Ok(key) = p256::PublicKey::from_public_key_der(&der) {
            return Self::new(Suite::Es256, key.to_encoded_point(true).as_bytes());
        }
        if let Ok(key) = sm2::PublicKey::from_public_key_der(&der) {
            return Self::new(Suite::Sm2Sm3, key.to_encoded_point(true).as_bytes());
        }
        match der.strip_prefix(&ED25519_SPKI_PREFIX) {
            Some(key) => Self::new(Suite::EdDsa, key),
            None => Err(MALFORMED),
        }
    }
    /// The key as a SubjectPublicKeyInfo in PEM, for other people's tools.
    ///
    /// # Errors
    /// `key_invalid` when the bytes are no point of the curve.
    pub fn to_spki_pem(&self) -> Result<String, VerifyError> {
        let invalid = VerifyError::KeyInvalid(self.suite);
        let der = match self.suite {
            Suite::Es256 => p256::PublicKey::from_sec1_bytes(&self.bytes)
                .ok()
                .and_then(|key| key.to_public_key_der().ok())
                .ok_or(invalid)?,
            Suite::Sm2Sm3 => sm2::PublicKey::from_sec1_bytes(&self.bytes)
                .ok()
                .and_then(|key| key.to_public_key_der().ok())
                .ok_or(invalid)?,
            Suite::EdDsa => p256::pkcs8::Document::try_from([&ED25519_SPKI_PREFIX[..], &self.bytes].concat())
                .map_err(|_| invalid)?,
            Suite::MlDsa44 | Suite::MlDsa65 | Suite::MlDsa87 => return Err(VerifyError::SuiteUnsupported(self.suite)),
        };
        der.to_pem("PUBLIC KEY", LineEnding::LF).map_err(|_| invalid)
    }
    /// The suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }
    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The COSE `kid`.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.suite, &self.bytes)
    }
}
