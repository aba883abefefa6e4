//! Who may issue which command: one table.
//!
//! Every statement needs an enrolled key of its issuer and an issuer that is not suspended. Beyond that:

use stele_types::command::{Command, Family};
use stele_types::party::Role;

/// How a command takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By its own statement.
    Direct,
    /// By `propose` and `approve` of two parties that both hold the role; issued directly it is refused with
    /// `dual_control_required`.
    Dual,
}

/// The authority that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Role that the issuer holds; none when any party may issue the command.
    pub role: Option<Role>,
    /// How it takes effect.
    pub route: Route,
    /// Family that a mandate has to cover when the command acts for another party.
    pub mandate: Option<Family>,
}

impl Authority {
    const fn direct(role: Option<Role>) -> Self {
        Self { role, route: Route::Direct, mandate: None }
    }
    const fn under_mandate(role: Role, family: Family) -> Self {
        Self { role: Some(role), route: Route::Direct, mandate: Some(family) }
    }
    const DUAL: Self = Self { role: Some(Role::Governor), route: Route::Dual, mandate: None };

    /// The authority that `command` needs.
    ///
    /// | command | role | route | acts for another under |
    /// |---|---|---|---|
    /// | `asset.register` | registrar | direct | a mandate of the holder for registration |
    /// | `asset.cancel` | registrar, the one that registered | direct | |
    /// | `record.put`, `record.correct` | agency; a correction the one that put | direct | a mandate of `on_behalf_of` for custody |
    /// | `key.enrol`, `key.rotate`, `key.revoke`, `tls.pin` | any, for itself | direct | |
    /// | `mandate.give`, `mandate.withdraw` | any, for itself | direct | |
    /// | `epoch.certify` | any: the certificate proves itself | direct | |
    /// | `attestation.report` | regulator | direct | |
    /// | `propose`, `approve` | governor | direct | |
    /// | `withdraw` | the proposer | direct | |
    /// | `party.enrol`, `party.suspend`, `party.resume`, `role.grant`, `role.revoke`, `key.reset` | governor | dual | |
    /// | `parameters.change`, `validators.change`, `protocol.upgrade` | governor | dual | |
    ///
    /// An opaque statement needs no role.
    pub const fn of(command: &Command) -> Self {
        match command {
            Command::AssetRegister(_) => Self::under_mandate(Role::Registrar, Family::Registration),
            Command::AssetCancel(_) => Self::direct(Some(Role::Registrar)),
            Command::RecordPut(_) | Command::RecordCorrect(_) => Self::under_mandate(Role::Agency, Family::Custody),
            Command::AttestationReport(_) => Self::direct(Some(Role::Regulator)),
            Command::Propose(_) | Command::Approve(_) => Self::direct(Some(Role::Governor)),
            Command::KeyEnrol(_)
            | Command::KeyRotate(_)
            | Command::KeyRevoke(_)
            | Command::TlsPin(_)
            | Command::MandateGive(_)
            | Command::MandateWithdraw(_)
            | Command::Withdraw(_)
            | Command::EpochCertify(_) => Self::direct(None),
            Command::PartyEnrol(_)
            | Command::PartySuspend(_)
            | Command::PartyResume(_)
            | Command::RoleGrant(_)
            | Command::RoleRevoke(_)
            | Command::KeyReset(_)
            | Command::ParametersChange(_)
            | Command::ValidatorsChange(_)
            | Command::ProtocolUpgrade(_) => Self::DUAL,
        }
    }
}
