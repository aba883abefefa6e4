//! Genesis: the file whose hash is the network.

use alloc::vec::Vec;

use crate::cbor::{self, CborError, List, Text};
use crate::hash::{Hash, NetworkId};
use crate::limits::{FOUNDERS_MAX, GENESIS_BYTES_MAX, VALIDATORS_MAX};
use crate::parameters::Parameters;
use crate::party::{Founder, Role};
use crate::record::PlaceCode;
use crate::validator::ValidatorSet;
use crate::vote::EpochCertificate;

crate::record! {
    /// The first state of a network.
    pub struct Genesis {
        /// Name of the network.
        1 => name: Text<64>,
        /// Region of its register, six digits.
        2 => region: PlaceCode,
        /// Genesis time, milliseconds since 1970.
        3 => time_ms: u64,
        /// Parameters from height 1.
        4 => parameters: Parameters,
        /// Validators from height 1.
        5 => validators: ValidatorSet,
        /// First epoch certificates; their network field is zeros, because the network id hashes this file.
        6 => epoch_certificates: List<EpochCertificate, VALIDATORS_MAX>,
        /// Founding parties, at least two of them governors, by ascending id.
        7 => founders: List<Founder, FOUNDERS_MAX>,
    }
}

/// Why a genesis file cannot found a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenesisError {
    /// The bytes are not a genesis file.
    Encoding(CborError),
    /// The parameters exceed hard limits or name what this program does not implement.
    Parameters,
    /// Fewer than two governors: dual control could never start.
    Governors,
    /// Founders are not in ascending order of id, or a key is not of its suite's length.
    Founders,
}

impl core::fmt::Display for GenesisError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Encoding(error) => write!(f, "genesis file: {error}"),
            Self::Parameters => f.write_str("genesis parameters are out of bounds or not implemented"),
            Self::Governors => f.write_str("genesis needs at least two founding parties with the governor role"),
            Self::Founders => f.write_str("genesis founders must ascend by id and have keys of their suite's length"),
        }
    }
}

impl core::error::Error for GenesisError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Encoding(error) => Some(error),
            _ => None,
        }
    }
}

impl Genesis {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GenesisError> {
        if bytes.len() > GENESIS_BYTES_MAX {
            return Err(GenesisError::Encoding(CborError::TooLarge));
        }
        let genesis: Self = cbor::from_slice(bytes).map_err(GenesisError::Encoding)?;
        genesis.check()?;
        Ok(genesis)
    }
    /// Checks what the encoding alone does not.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn check(&self) -> Result<(), GenesisError> {
        if !self.parameters.is_sound() {
            return Err(GenesisError::Parameters);
        }
        if self.founders.iter().filter(|founder| founder.roles.contains(Role::Governor)).count() < 2 {
            return Err(GenesisError::Governors);
        }
        let ascending = self.founders.windows(2).all(|pair| pair[0].party.0 < pair[1].party.0);
        if !ascending || !self.founders.iter().all(|founder| founder.key.has_suite_length()) {
            return Err(GenesisError::Founders);
        }
        Ok(())
    }
    /// The network's id: SHA-256 of the file.
    pub fn network(&self) -> NetworkId {
        NetworkId(Hash::of(&self.to_bytes()).0)
    }
}
