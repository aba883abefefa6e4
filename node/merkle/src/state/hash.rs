//! The two hash functions and their three prefixes.

use core::fmt;

use sha2::{Digest, Sha256};
use sm3::Sm3;

use super::Key;
use crate::Hash;

/// Hash of an empty subtree, and root of the empty map.
pub const EMPTY: Hash = [0; 32];

/// The hash function of a network's state tree and content roots, fixed by its genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateHash {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SM3 (GB/T 32905).
    Sm3,
}

impl StateHash {
    /// Number by which files and genesis name the function: 1 or 2.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sm3 => 2,
        }
    }

    /// The inverse of [`StateHash::id`].
    ///
    /// # Errors
    /// [`UnknownHash`] for any other number.
    pub const fn from_id(id: u8) -> Result<Self, UnknownHash> {
        match id {
            1 => Ok(Self::Sha256),
            2 => Ok(Self::Sm3),
            id => Err(UnknownHash { id }),
        }
    }

    /// Hash of a value: H(0x02 ‖ value).
    #[must_use]
    pub fn value(self, value: &[u8]) -> Hash {
        match self {
            Self::Sha256 => digest::<Sha256>(0x02, value),
            Self::Sm3 => digest::<Sm3>(0x02, value),
        }
    }

    /// Hash of a leaf: H(0x00 ‖ key ‖ value hash).
    #[must_use]
    pub fn leaf(self, key: &Key, value_hash: &Hash) -> Hash {
        self.pair(0x00, key, value_hash)
    }

    /// Hash of an inner node: H(0x01 ‖ left ‖ right).
    #[must_use]
    pub fn node(self, left: &Hash, right: &Hash) -> Hash {
        self.pair(0x01, left, right)
    }

    /// In one piece: to hand over three takes as long as half of the hashing.
    fn pair(self, prefix: u8, first: &[u8; 32], second: &[u8; 32]) -> Hash {
        let mut bytes = [prefix; 65];
        bytes[1..33].copy_from_slice(first);
        bytes[33..].copy_from_slice(second);
        match self {
            Self::Sha256 => Sha256::digest(bytes).into(),
            Self::Sm3 => Sm3::digest(bytes).into(),
        }
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sm3 => "SM3",
        })
    }
}

fn digest<D: Digest>(prefix: u8, bytes: &[u8]) -> Hash
where
    sha2::digest::Output<D>: Into<Hash>,
{
    D::new().chain_update([prefix]).chain_update(bytes).finalize().into()
}

/// A number that names no hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownHash {
    /// The number.
    pub id: u8,
}

impl UnknownHash {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "state_hash_unknown"
    }
}

impl fmt::Display for UnknownHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names no hash function of the state tree", self.id)
    }
}

impl core::error::Error for UnknownHash {}
