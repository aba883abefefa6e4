//! ES256: ECDSA over P-256 with SHA-256, through aws-lc.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};

use crate::{
    figures::CacheFigures,
    suite::{KeyError, SIGNATURE_LENGTH, Signed, Suite, Verdict, is_sec1, key_cache::KeyCache},
};

/// Verifies with a cache of parsed keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: KeyCache<Arc<ParsedPublicKey>>,
}

impl Verifier {
    pub(crate) fn new(key_cache_entries: usize) -> Self {
        Self { keys: KeyCache::new(key_cache_entries) }
    }

    pub(crate) fn cache_figures(&self) -> CacheFigures {
        self.keys.figures()
    }

    pub(crate) fn verify(&self, item: Signed<'_>) -> Verdict {
        let key = self.keys.find_or_decode(item.public_key, |bytes| parse(bytes).map(Arc::new));
        key.map_or(Verdict::Invalid, |key| verify_parsed(&key, item))
    }
}

pub(crate) fn verify_one(item: Signed<'_>) -> Verdict {
    parse(item.public_key).map_or(Verdict::Invalid, |key| verify_parsed(&key, item))
}

pub(crate) fn check_public_key(public_key: &[u8]) -> Result<(), KeyError> {
    if !is_sec1(public_key) {
        return Err(KeyError::Malformed(Suite::P256));
    }
    parse(public_key).map(drop).ok_or(KeyError::NotOnCurve(Suite::P256))
}

fn parse(public_key: &[u8]) -> Option<ParsedPublicKey> {
    // aws-lc would also take hybrid points and SubjectPublicKeyInfo.
    if !is_sec1(public_key) {
        return None;
    }
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key).ok()
}

/// aws-lc checks that `r` and `s` lie in `1..n` and takes high and low `s` alike.
fn verify_parsed(key: &ParsedPublicKey, item: Signed<'_>) -> Verdict {
    if item.signature.len() != SIGNATURE_LENGTH {
        return Verdict::Invalid;
    }
    Verdict::from(key.verify_sig(item.message, item.signature).is_ok())
}
