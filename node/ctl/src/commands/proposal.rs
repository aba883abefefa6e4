//! `stele proposal`: decide what another governor proposed.

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use stele_ledger::value::ProposalRecord;
use stele_types::governance::Withdraw;
use stele_types::party::Role;
use stele_types::{Command, Hash, Statement, StatementId};

use crate::commands::governed::{approve, issue};
use crate::commands::words;
use crate::describe::{self, Object};
use crate::failure::Failure;
use crate::registration::{exit_code, status_record};
use crate::rejection::explain;
use crate::session::Session;
use crate::state_query;

/// Decide what another governor proposed.
#[derive(Debug, Subcommand)]
pub enum ProposalCommand {
    /// Show a proposal and the command that it holds
    Show {
        /// Id of the proposal
        #[arg(value_parser = words::statement_id)]
        proposal: StatementId,
    },
    /// Let a proposal take effect; another party than its proposer does it
    Approve {
        /// Id of the proposal
        #[arg(value_parser = words::statement_id)]
        proposal: StatementId,
    },
    /// Take an own proposal back
    Withdraw {
        /// Id of the proposal
        #[arg(value_parser = words::statement_id)]
        proposal: StatementId,
    },
}

impl ProposalCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Show { proposal } => show(session, proposal).await,
            Self::Approve { proposal } => {
                let status = approve(session, session.party_name()?, proposal).await?;
                session.output.record(&status_record(&status))?;
                explain(session.output, status.code);
                Ok(exit_code(&status))
            }
            Self::Withdraw { proposal } => issue(session, &Command::Withdraw(Withdraw { proposal })).await,
        }
    }
}

async fn show(session: &Session, id: StatementId) -> Result<u8> {
    let client = session.party_client()?;
    let object = Object::Proposal(id);
    let proven = state_query::query(&client, &session.anchor()?, &object).await?;
    let Some(value) = proven.into_iter().next().and_then(|proven| proven.value) else {
        bail!(Failure::new("proposal_unknown", format!("there is no proposal {id}")));
    };
    let record = object.describe(&value)?;
    // The command is read from the statement that proposed it; the proven record holds its hash.
    let entry = client.entry(&id.to_hex()).await.context("the statement that proposed it")?;
    let proposed = Statement::parse(entry.to_vec()).ok().and_then(|statement| match statement.command() {
        Some(Command::Propose(propose)) => Some(propose.command.to_vec()),
        _ => None,
    });
    let known: ProposalRecord = describe::read(&value)?;
    let Some(bytes) = proposed.filter(|bytes| Hash::of(bytes) == known.command_hash) else {
        bail!(
            Failure::new("proposal_differs", "the node gave another statement than the one that made the proposal")
                .hint("do not approve; ask another node with --node")
        );
    };
    let command = Command::from_bytes(&bytes).context("the proposed command")?;
    let roles = match &command {
        Command::PartyEnrol(body) => Some(body.roles),
        Command::RoleGrant(body) | Command::RoleRevoke(body) => Some(body.roles),
        _ => None,
    };
    let words = roles.map(|roles| roles.iter().map(Role::as_str).collect::<Vec<_>>());
    // `Debug` of a command names every field; commands carry no secret and no text.
    let content = with_hexadecimal(&format!("{command:?}"));
    session.output.record(&record.with_option("roles", words).with("content", content))?;
    if known.decision.is_none() {
        session.output.text(&format!("\nApprove it with: stele --as GOVERNOR proposal approve {id}"))?;
    }
    Ok(0)
}

/// Byte strings of a `Debug` text as hexadecimal digits in place of decimal lists.
fn with_hexadecimal(text: &str) -> String {
    const OPEN: &str = "Blob([";
    const CLOSE: &str = "])";
    let mut parts = text.split(OPEN);
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let decoded = part.split_once(CLOSE).and_then(|(list, rest)| {
            let bytes: Option<Vec<u8>> =
                list.split(", ").filter(|byte| !byte.is_empty()).map(|byte| byte.parse().ok()).collect();
            Some((hex::encode(bytes?), rest))
        });
        match decoded {
            Some((digits, rest)) => written.extend([digits.as_str(), rest]),
            None => written.extend([OPEN, part]),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_are_shown_in_hexadecimal() {
        assert_eq!(
            with_hexadecimal("Key { public_key: Blob([3, 255]), pins: List([]) }"),
            "Key { public_key: 03ff, pins: List([]) }"
        );
        assert_eq!(with_hexadecimal("Blob([]) Blob([x])"), " Blob([x])");
    }
}
