//! What a quote is asked to say beside the PCRs: the verifier's nonce and the head of the ledger.

use crate::algorithm::{Digest, HashAlgorithm};

/// Bytes of a verifier's nonce.
pub const NONCE_LENGTH: usize = 32;

/// Domain of the qualifying data of quotes.
const QUOTE_DOMAIN: &[u8] = b"stele/quote/v1";

/// Domain of the qualifying data of a quote over a key that lives outside the TPM.
const KEY_DOMAIN: &[u8] = b"stele/key/v1";

/// Qualifying data of a quote: SHA-256("stele/quote/v1" ‖ nonce ‖ SHA-256(`checkpoint`)). `checkpoint` is the
/// `Sig_structure` of the checkpoint that the quote speaks for (RFC 9052 section 4.4), so that one signature of the TPM says
/// which software runs and how long the log is.
///
/// With a shell, `nonce` and `checkpoint` being files:
///
/// ```text
/// { printf stele/quote/v1; cat nonce; openssl dgst -sha256 -binary checkpoint; } | openssl dgst -sha256
/// ```
#[must_use]
pub fn quote_qualifying_data(nonce: &[u8; NONCE_LENGTH], checkpoint: &[u8]) -> Digest {
    let head = HashAlgorithm::Sha256.digest(&[checkpoint]);
    HashAlgorithm::Sha256.digest(&[QUOTE_DOMAIN, nonce, head.as_bytes()])
}

/// Qualifying data of a quote that binds a key of an HSM to a platform: SHA-256("stele/key/v1" ‖ `spki`), `spki` being the
/// key's `SubjectPublicKeyInfo` in DER.
#[must_use]
pub fn key_qualifying_data(spki: &[u8]) -> Digest {
    HashAlgorithm::Sha256.digest(&[KEY_DOMAIN, spki])
}
