//! Commands, executed.
//!
//! An [`Execution`] is one statement's turn: it knows who acts and writes into a transaction that is kept only when the
//! whole command succeeded. The modules beside this one hold the rules of one noun each.

mod asset;
mod attestation;
mod custody;
mod dual;
mod epoch;
pub(crate) mod governor;
mod key;
mod mandate;
mod party;
mod schedule;

use alloc::vec::Vec;

use stele_types::code::Code;
use stele_types::command::{Command, Family};
use stele_types::hash::{PartyId, StatementId};
use stele_types::header::LogIndex;
use stele_types::party::{EnrolledKey, Role};
use stele_types::statement::{ContentKind, Statement};

use crate::apply::BlockContext;
use crate::authority::{Authority, Route};
use crate::event::{Event, EventKind};
use crate::key_check;
use crate::overlay::Transaction;
use crate::value::MandatePair;

pub use governor::GOVERNORS_MIN;
pub use mandate::MANDATE_LIFE_MAX_MS;
pub use schedule::{ACTIVATION_DISTANCE_MAX, ACTIVATION_DISTANCE_MIN};

/// Costly steps (key checks, epoch signatures, readings of a validator set) of one block at most. Each takes up to 0.3 ms, so that a block full
/// of them cannot hold up the network; the next ones of the block are refused with `limit_reached`.
pub const CURVE_CHECKS_MAX: u32 = 1_024;

/// Counts the costly steps of a block, whether their statements apply or not.
#[derive(Default)]
pub(crate) struct CurveBudget {
    spent: u32,
}

impl CurveBudget {
    fn spend(&mut self) -> Result<(), Code> {
        if self.spent == CURVE_CHECKS_MAX {
            return Err(Code::LimitReached);
        }
        self.spent += 1;
        Ok(())
    }
}

/// One statement's turn.
pub(crate) struct Execution<'r, 'o, 'v> {
    context: &'r BlockContext,
    budget: &'r mut CurveBudget,
    state: Transaction<'o, 'v>,
    events: &'r mut Vec<Event>,
    /// Who acts: the issuer, or the proposer while an approved command runs.
    actor: PartyId,
    statement: StatementId,
    /// When the issuer signed it, seconds since 1970, as it says.
    issued_at: u64,
    /// The leaf that the statement becomes if it applies.
    index: LogIndex,
}

impl<'r, 'o, 'v> Execution<'r, 'o, 'v> {
    pub(crate) fn new(
        context: &'r BlockContext,
        budget: &'r mut CurveBudget,
        state: Transaction<'o, 'v>,
        events: &'r mut Vec<Event>,
        statement: &Statement,
        index: LogIndex,
    ) -> Self {
        let issued_at = match statement.content() {
            ContentKind::Command { issued_at, .. } => *issued_at,
            // An opaque one says no time and runs no command.
            _ => context.time_ms / 1_000,
        };
        let (actor, statement) = (statement.issuer(), statement.id());
        Self { context, budget, state, events, actor, statement, issued_at, index }
    }

    /// Runs the statement: a command, or nothing but the registration of an opaque one.
    pub(crate) fn run(&mut self, command: Option<&Command>) -> Result<(), Code> {
        let Some(command) = command else {
            self.check_active(self.actor)?;
            self.emit(EventKind::OpaqueRegistered(self.statement));
            return Ok(());
        };
        let authority = Authority::of(command);
        self.check_active(self.actor)?;
        if authority.route == Route::Dual {
            return Err(Code::DualControlRequired);
        }
        self.check_role(self.actor, authority.role)?;
        self.dispatch(command)?;
        self.check_governors()
    }

    /// Keeps what the statement wrote.
    pub(crate) fn commit(self) {
        self.state.commit();
    }

    /// The rules of each command; authority was checked before.
    fn dispatch(&mut self, command: &Command) -> Result<(), Code> {
        match command {
            Command::AssetRegister(body) => self.asset_register(body),
            Command::AssetCancel(body) => self.asset_cancel(body),
            Command::RecordPut(body) => self.record_put(body),
            Command::RecordCorrect(body) => self.record_correct(body),
            Command::PartyEnrol(body) => self.party_enrol(body),
            Command::PartySuspend(body) => self.party_standing(body, true),
            Command::PartyResume(body) => self.party_standing(body, false),
            Command::RoleGrant(body) => self.role_grant(body),
            Command::RoleRevoke(body) => self.role_revoke(body),
            Command::KeyEnrol(body) => self.key_enrol(body),
            Command::KeyRotate(body) => self.key_rotate(body),
            Command::KeyRevoke(body) => self.key_revoke(body),
            Command::KeyReset(body) => self.key_reset(body),
            Command::TlsPin(body) => self.tls_pin(body),
            Command::MandateGive(body) => self.mandate_give(body),
            Command::MandateWithdraw(body) => self.mandate_withdraw(body),
            Command::Propose(body) => self.propose(body),
            Command::Approve(body) => self.approve(body),
            Command::Withdraw(body) => self.withdraw(body),
            Command::ParametersChange(body) => self.parameters_change(body),
            Command::ValidatorsChange(body) => self.validators_change(body),
            Command::ProtocolUpgrade(body) => self.protocol_upgrade(body),
            Command::EpochCertify(body) => self.epoch_certify(body),
            Command::AttestationReport(body) => self.attestation_report(body),
        }
    }

    fn emit(&mut self, kind: EventKind) {
        self.events.push(Event { index: Some(self.index), kind });
    }

    /// A party that is enrolled and not suspended.
    fn check_active(&mut self, party: PartyId) -> Result<(), Code> {
        let party = self.state.party(&party).ok_or(Code::PartyUnknown)?;
        if party.suspended { Err(Code::PartySuspended) } else { Ok(()) }
    }

    fn check_role(&mut self, party: PartyId, role: Option<Role>) -> Result<(), Code> {
        let Some(role) = role else { return Ok(()) };
        let party = self.state.party(&party).ok_or(Code::PartyUnknown)?;
        if party.roles.contains(role) { Ok(()) } else { Err(Code::RoleMissing) }
    }

    /// Whether the actor may act for `principal` in `family`: the principal is active and gave a live mandate.
    fn check_mandate(&mut self, principal: PartyId, family: Family) -> Result<(), Code> {
        if self.state.party(&principal).is_none_or(|party| party.suspended) {
            return Err(Code::MandateMissing);
        }
        let pair: MandatePair = self.state.read(&(principal, self.actor)).ok_or(Code::MandateMissing)?;
        let now = self.context.time_ms;
        let covers = pair.mandates.iter().any(|mandate| {
            (mandate.valid_from_ms..=mandate.valid_until_ms).contains(&now)
                && mandate.families.contains(&family.number())
        });
        if covers { Ok(()) } else { Err(Code::MandateMissing) }
    }

    /// A key that may begin: of an enabled suite, canonical, never enrolled before.
    fn check_new_key(&mut self, key: &EnrolledKey) -> Result<(), Code> {
        if !self.context.parameters.allows(key.suite) {
            return Err(Code::SuiteDisabled);
        }
        if !key.has_suite_length() {
            return Err(Code::KeyInvalid);
        }
        if self.state.key(&key.id()).is_some() {
            return Err(Code::AlreadyExists);
        }
        self.budget.spend()?;
        if key_check::is_valid(key) { Ok(()) } else { Err(Code::KeyInvalid) }
    }
}
