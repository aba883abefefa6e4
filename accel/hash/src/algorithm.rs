//! The approved hash functions and the one-message form.

use sha2::{Digest as _, Sha256};
use sm3::Sm3;

/// Length of a digest of either algorithm, in bytes.
pub const DIGEST_LENGTH: usize = 32;

/// A digest of either algorithm.
pub type Digest = [u8; DIGEST_LENGTH];

/// A hash function the network may name in its genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// SHA-256, FIPS 180-4.
    Sha256,
    /// SM3, GB/T 32905-2016.
    Sm3,
}

impl HashAlgorithm {
    /// Stable lower-case name, used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sm3 => "sm3",
        }
    }
}

/// Hashes `prefix ‖ message` on the calling thread. The reference that every kernel must equal.
#[must_use]
pub fn digest(algorithm: HashAlgorithm, prefix: &[u8], message: &[u8]) -> Digest {
    match algorithm {
        HashAlgorithm::Sha256 => {
            let mut hasher = Sha256::new();
            hasher.update(prefix);
            hasher.update(message);
            hasher.finalize().into()
        }
        HashAlgorithm::Sm3 => {
            let mut hasher = Sm3::new();
            hasher.update(prefix);
            hasher.update(message);
            hasher.finalize().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hexadecimal(digest: Digest) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sha256_answers_as_fips_180_4() {
        assert_eq!(
            hexadecimal(digest(HashAlgorithm::Sha256, b"a", b"bc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn sm3_answers_as_gb_t_32905() {
        assert_eq!(
            hexadecimal(digest(HashAlgorithm::Sm3, b"", b"abc")),
            "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
        );
    }
}
