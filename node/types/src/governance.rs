//! Governance: dual control, parameters, validators and versions. What changes the rules carries an activation height.

use crate::cbor::{Blob, List};
use crate::hash::{StatementId, ValidatorId};
use crate::limits::{COMMAND_BYTES_MAX, VALIDATORS_MAX};
use crate::parameters::Parameters;
use crate::validator::Validator;
use crate::vote::EpochCertificate;

crate::record! {
    /// `propose`: a command that waits for a second party. The proposal's id is this statement's id.
    pub struct Propose {
        /// The command, encoded; never itself a `propose`.
        1 => command: Blob<COMMAND_BYTES_MAX>,
        /// Block time after which it can no longer be approved, milliseconds.
        2 => expires_ms: u64,
    }
}

crate::record! {
    /// `approve`: a second party lets a proposal take effect, at once or at its activation height.
    pub struct Approve {
        /// The proposal.
        1 => proposal: StatementId,
    }
}

crate::record! {
    /// `withdraw`: the proposer takes a proposal back.
    pub struct Withdraw {
        /// The proposal.
        1 => proposal: StatementId,
    }
}

crate::record! {
    /// `parameters.change` (dual control): all parameters, whole, from a height on.
    pub struct ParametersChange {
        /// First height under the new parameters: at least two after the block that approves.
        1 => activation_height: u64,
        /// The parameters.
        2 => parameters: Parameters,
    }
}

crate::record! {
    /// `validators.change` (dual control): the set from a height on.
    pub struct ValidatorsChange {
        /// First height of the new set: at least two after the block that approves.
        1 => activation_height: u64,
        /// Validators to add, or to replace by long-term key.
        2 => upsert: List<Validator, VALIDATORS_MAX>,
        /// Validators to remove.
        3 => remove: List<ValidatorId, VALIDATORS_MAX>,
    }
}

crate::record! {
    /// `protocol.upgrade` (dual control): the version from a height on. An older program halts cleanly there.
    pub struct ProtocolUpgrade {
        /// First height of the new version.
        1 => activation_height: u64,
        /// The version.
        2 => version: u32,
    }
}

crate::record! {
    /// `epoch.certify`: publishes the certificate of a validator's epoch key; it proves itself.
    pub struct EpochCertify {
        /// The certificate.
        1 => certificate: EpochCertificate,
    }
}
