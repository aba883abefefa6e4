//! Seals: what makes an object count.
//!
//! | bytes | content, integers little-endian |
//! |---|---|
//! | 8 | `SteleCS1` |
//! | 8 | bytes of the object |
//! | 1 | hash of its root: 0 SHA-256, 1 SM3 |
//! | 32 | root of its content |
//! | 16 | the attempt whose object it is |
//! | 2, n | length of the name, and the name |
//! | 4 | CRC-32C of the above |

use stele_accel_hash::{DIGEST_LENGTH, Digest, HashAlgorithm};

const MAGIC: [u8; 8] = *b"SteleCS1";

/// Most bytes of a name.
pub(crate) const NAME_BYTES_MAX: usize = 256;

/// Most bytes of a seal.
pub(crate) const SEAL_BYTES_MAX: usize = 8 + 8 + 1 + DIGEST_LENGTH + 16 + 2 + NAME_BYTES_MAX + 4;

/// An object of the cold tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What it is found by.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Hash of its root.
    pub hash: HashAlgorithm,
    /// Root of its content: [`stele_storage::content_root`].
    pub root: Digest,
    /// The attempt to put it that came first.
    pub(crate) attempt: [u8; 16],
}

impl Sealed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL_BYTES_MAX);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.push(match self.hash {
            HashAlgorithm::Sha256 => 0,
            HashAlgorithm::Sm3 => 1,
        });
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.attempt);
        bytes.extend_from_slice(&u16::try_from(self.name.len()).expect("a name is short").to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&crc_fast::crc32_iscsi(&bytes).to_le_bytes());
        bytes
    }

    /// The seal in these bytes, if it is that of `name`.
    pub(crate) fn decode(bytes: &[u8], name: &str) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let sound = bytes.len() <= SEAL_BYTES_MAX && crc_fast::crc32_iscsi(body) == u32::from_le_bytes(*sum);
        if !sound {
            return None;
        }
        let rest = body.strip_prefix(&MAGIC)?;
        let (length, rest) = rest.split_first_chunk()?;
        let ([hash], rest) = rest.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk::<DIGEST_LENGTH>()?;
        let (attempt, rest) = rest.split_first_chunk()?;
        let (name_bytes, own) = rest.split_first_chunk()?;
        let hash = match hash {
            0 => HashAlgorithm::Sha256,
            1 => HashAlgorithm::Sm3,
            _ => return None,
        };
        let named = own == name.as_bytes() && usize::from(u16::from_le_bytes(*name_bytes)) == own.len();
        named.then(|| Self {
            name: name.to_owned(),
            bytes: u64::from_le_bytes(*length),
            hash,
            root: *root,
            attempt: *attempt,
        })
    }
}

/// Whether an object can have this name: parts of letters, digits, dots and dashes between slashes.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let parts = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    parts && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Sealed {
        let name = "store/00000007".to_owned();
        Sealed { name, bytes: 1 << 40, hash: HashAlgorithm::Sm3, root: [3; 32], attempt: [4; 16] }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let bytes = sealed().encode();
        assert_eq!(bytes.len(), 8 + 8 + 1 + 32 + 16 + 2 + 14 + 4);
        assert_eq!(crc_fast::crc32_iscsi(&bytes), 0x4867_4bc7, "the residue of every sum that is right");
        assert_eq!(crc_fast::crc32_iscsi(&bytes[..bytes.len() - 4]), 0xceb2_f94f);
        assert_eq!(Sealed::decode(&bytes, "store/00000007"), Some(sealed()));
    }

    #[test]
    fn a_seal_of_another_or_a_damaged_one_is_none() {
        let bytes = sealed().encode();
        assert_eq!(Sealed::decode(&bytes, "store/00000008"), None);
        for length in 0..bytes.len() {
            assert_eq!(Sealed::decode(&bytes[..length], "store/00000007"), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sealed::decode(&damaged, "store/00000007"), None, "bit {bit}");
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["a", "a/b", "store-1/00.7", &"x".repeat(256)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "ä", "a?versionId=1", "a%2f", &"x".repeat(257)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
