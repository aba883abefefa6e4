//! What the next header needs: height, parameters, validators, proposer schedule, epoch certificates.

use stele_types::cbor::List;
use stele_types::hash::ValidatorId;
use stele_types::header::Height;
use stele_types::parameters::Parameters;
use stele_types::proposer::ProposerSchedule;
use stele_types::validator::Validator;
use stele_types::vote::EpochCertificate;

use crate::state::stored;

/// Validators per chunk: 32 of about 90 bytes fit a value.
pub const VALIDATORS_PER_CHUNK: usize = 32;
/// Epoch certificates kept per validator: the one in use and its successor.
pub const EPOCH_CERTIFICATES_MAX: usize = 2;

stele_types::record! {
    /// Where the state stands.
    pub struct ChainRecord {
        /// Height of the newest block; 0 after genesis.
        1 => height: Height,
        /// Its time, milliseconds.
        2 => time_ms: u64,
        /// Leaves of the log.
        3 => log_size: u64,
    }
}
stored!(ChainRecord, Chain, (), |()| []);

stele_types::record! {
    /// Parameters that wait.
    pub struct PendingParameters {
        /// First height under them.
        1 => height: Height,
        /// The parameters; their protocol version is set when they take effect.
        2 => parameters: Parameters,
    }
}

stele_types::record! {
    /// Parameters in force at the next height, and at most one change that waits.
    pub struct ParametersRecord {
        /// In force at the next height.
        1 => current: Parameters,
        /// The change that waits.
        2 => pending: Option<PendingParameters>,
    }
}
stored!(ParametersRecord, Parameters, (), |()| []);

stele_types::record! {
    /// A protocol version that waits.
    pub struct PendingProtocol {
        /// First height under it.
        1 => height: Height,
        /// The version.
        2 => version: u32,
    }
}

stele_types::record! {
    /// The version in force at the next height, and at most one that waits.
    pub struct ProtocolRecord {
        /// In force at the next height.
        1 => version: u32,
        /// The change that waits.
        2 => pending: Option<PendingProtocol>,
    }
}
stored!(ProtocolRecord, Protocol, (), |()| []);

stele_types::record! {
    /// A validator set by its first height; its chunks hold the validators.
    pub struct ValidatorSetHead {
        /// First height of the set; 1 for genesis.
        1 => since: Height,
        /// How many validators it has.
        2 => count: u16,
    }
}

stele_types::record! {
    /// The set in force at the next height, and at most one that waits.
    pub struct ValidatorsRecord {
        /// In force at the next height.
        1 => current: ValidatorSetHead,
        /// The change that waits; `since` is its activation height.
        2 => pending: Option<ValidatorSetHead>,
    }
}
stored!(ValidatorsRecord, Validators, (), |()| []);

stele_types::record! {
    /// Validators in ascending order of id, under (first height of the set, number of the chunk).
    pub struct ValidatorChunk {
        /// The validators.
        1 => validators: List<Validator, VALIDATORS_PER_CHUNK>,
    }
}
stored!(ValidatorChunk, ValidatorChunk, (Height, u8), |(since, chunk)| [&since.0.to_be_bytes(), &[*chunk]]);

stele_types::record! {
    /// Epoch certificates of one validator, by ascending first height.
    pub struct EpochRecord {
        /// The certificates.
        1 => certificates: List<EpochCertificate, EPOCH_CERTIFICATES_MAX>,
    }
}
stored!(EpochRecord, Epoch, ValidatorId, |id| [&id.0]);

stored!(ProposerSchedule, Schedule, (), |()| []);
