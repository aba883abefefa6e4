//! Signatures of a TPM: `TPMT_SIGNATURE`, TPM 2.0 Part 2 section 11.3.4.

use crate::{algorithm::HashAlgorithm, error::EvidenceError, key::PublicKey, reader::Reader};

const ALG_RSASSA: u16 = 0x0014;
const ALG_RSAPSS: u16 = 0x0016;
const ALG_ECDSA: u16 = 0x0018;

/// A signature that borrows its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmSignature<'a> {
    /// Hash of what was signed.
    pub hash: HashAlgorithm,
    /// The signature's values.
    pub scheme: SignatureScheme<'a>,
}

/// The values of a signature, as its scheme has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureScheme<'a> {
    /// ECDSA: big-endian r and s.
    Ecdsa {
        /// r.
        r: &'a [u8],
        /// s, not normalised.
        s: &'a [u8],
    },
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(&'a [u8]),
    /// RSASSA-PSS.
    RsaPss(&'a [u8]),
}

impl<'a> TpmSignature<'a> {
    /// Parses a `TPMT_SIGNATURE`: what `tpm2_quote --signature` writes.
    ///
    /// # Errors
    /// [`EvidenceError`] for anything else than one whole signature of a supported scheme.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EvidenceError> {
        /// Bytes of the longest value: RSA-4096.
        const VALUE_LENGTH_MAX: usize = 512;
        let mut reader = Reader::new("TPMT_SIGNATURE", bytes);
        let scheme = reader.u16()?;
        let id = reader.u16()?;
        let hash = HashAlgorithm::from_id(id).ok_or(reader.unsupported(id))?;
        let scheme = match scheme {
            ALG_ECDSA => SignatureScheme::Ecdsa { r: reader.sized(48)?, s: reader.sized(48)? },
            ALG_RSASSA => SignatureScheme::RsaPkcs1(reader.sized(VALUE_LENGTH_MAX)?),
            ALG_RSAPSS => SignatureScheme::RsaPss(reader.sized(VALUE_LENGTH_MAX)?),
            other => return Err(reader.unsupported(other)),
        };
        reader.finish()?;
        Ok(Self { hash, scheme })
    }

    /// Whether it is `key`'s signature of `message`. A signature over SHA-1 never is: messages of one SHA-1 digest can be
    /// made.
    #[must_use]
    pub fn verifies(&self, key: &PublicKey, message: &[u8]) -> bool {
        if self.hash.is_broken() {
            return false;
        }
        let digest = self.hash.digest(&[message]);
        match (self.scheme, key) {
            (SignatureScheme::Ecdsa { r, s }, PublicKey::P256(_) | PublicKey::P384(_)) => {
                key.verify_ecdsa(&digest, r, s)
            }
            (SignatureScheme::RsaPkcs1(value), PublicKey::Rsa(key)) => {
                key.verify_pkcs1(self.hash, digest.as_bytes(), value)
            }
            (SignatureScheme::RsaPss(value), PublicKey::Rsa(key)) => {
                key.verify_pss(self.hash, digest.as_bytes(), value)
            }
            _ => false,
        }
    }
}
