//! Commands under dual control: one governor proposes, another approves.

use anyhow::{Result, anyhow, bail};
use clap::Args;
use stele_types::cbor::Blob;
use stele_types::governance::{Approve, Propose};
use stele_types::{Code, Command, PartyId, StatementId};

use crate::author::now_ms;
use crate::commands::words;
use crate::failure::Failure;
use crate::network::profile::PartyProfile;
use crate::output::Record;
use crate::registration::{exit_code, register, status_record};
use crate::rejection::explain;
use crate::session::Session;

/// How a proposal is made and, when both governors work here, approved.
#[derive(Clone, Debug, Args)]
pub struct DualControl {
    /// How long the proposal can be approved, as 90s, 15m, 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = words::duration_ms, default_value = "7d")]
    pub expires_in: u64,
    /// A second governor whose keys lie here too and who approves at once
    #[arg(long, value_name = "PARTY")]
    pub approve_as: Option<String>,
}

impl DualControl {
    /// Proposes `command` as the chosen party; approves as a second one when it was named.
    ///
    /// # Errors
    /// A refusal, or no outcome in time.
    pub async fn propose(&self, session: &Session, command: &Command) -> Result<u8> {
        self.propose_about(session, Record::new(), command).await
    }

    /// [`DualControl::propose`], with the values of `about` before the outcome.
    ///
    /// # Errors
    /// A refusal, or no outcome in time.
    pub async fn propose_about(&self, session: &Session, about: Record, command: &Command) -> Result<u8> {
        let author = session.author()?;
        if self.approve_as.as_deref() == session.party.as_deref() {
            bail!(
                Failure::new(
                    Code::SelfApproval.as_str(),
                    "a proposal is approved by another party than the one that made it"
                )
                .hint("name the other governor with --approve-as")
            );
        }
        let encoded = Blob::new(command.to_bytes()).map_err(|_| anyhow!("the command is too large to be proposed"))?;
        let proposal = Propose { command: encoded, expires_ms: now_ms()?.saturating_add(self.expires_in) };
        let signed = author.command(&Command::Propose(proposal))?;
        let proposed = register(&session.party_client()?, &signed).await?;
        if proposed.code != Some(Code::Applied) {
            session.output.record(&about.and(status_record(&proposed)))?;
            explain(session.output, proposed.code);
            return Ok(exit_code(&proposed));
        }
        let record = about.with("proposal", signed.id.to_hex()).with("command", command.as_str());
        let Some(second) = &self.approve_as else {
            session.output.record(&record.with("state", "waits for approval"))?;
            session.output.text(&format!(
                "\nA second governor approves it with: stele --as GOVERNOR proposal approve {}",
                signed.id
            ))?;
            return Ok(0);
        };
        let status = approve(session, second, signed.id).await?;
        let approved = status.code == Some(Code::Applied);
        session.output.record(
            &record
                .with("state", if approved { "approved" } else { "not approved" })
                .with_option("outcome", status.code.map(Code::as_str))
                .with_option("height", status.height.map(|height| height.0)),
        )?;
        explain(session.output, status.code);
        Ok(exit_code(&status))
    }
}

/// Approves a proposal as a party whose keys lie here.
///
/// # Errors
/// A refusal, or no outcome in time.
pub async fn approve(
    session: &Session,
    party: &str,
    proposal: StatementId,
) -> Result<stele_types::exchange::StatementStatus> {
    let author = session.author_of(party)?;
    let signed = author.command(&Command::Approve(Approve { proposal }))?;
    register(&session.party_client_of(party)?, &signed).await
}

/// Signs and registers a command that needs no second party, and prints its outcome.
///
/// # Errors
/// A refusal, or no outcome in time.
pub async fn issue(session: &Session, command: &Command) -> Result<u8> {
    issue_about(session, Record::new(), command).await
}

/// [`issue`], with the values of `about` before the outcome.
///
/// # Errors
/// A refusal, or no outcome in time.
pub async fn issue_about(session: &Session, about: Record, command: &Command) -> Result<u8> {
    let signed = session.author()?.command(command)?;
    let status = register(&session.party_client()?, &signed).await?;
    session.output.record(&about.and(status_record(&status)))?;
    explain(session.output, status.code);
    Ok(exit_code(&status))
}

/// The id of a party: 32 hexadecimal digits, or the name of one whose keys lie here.
///
/// # Errors
/// When it is neither.
pub fn party_id(session: &Session, text: &str) -> Result<PartyId> {
    match PartyId::from_hex(text) {
        Some(id) => Ok(id),
        None => PartyProfile::load(&session.dir()?, text)?.party_id(),
    }
}
