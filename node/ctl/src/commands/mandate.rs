//! `stele mandate`: let another party act for the acting one.

use anyhow::{Result, anyhow};
use clap::Subcommand;
use stele_types::cbor::List;
use stele_types::hash::ObjectId;
use stele_types::party::{MandateGive, MandateWithdraw};
use stele_types::{Command, Family};

use crate::author::{now_ms, object_id};
use crate::commands::governed::{issue, issue_about, party_id};
use crate::commands::words;
use crate::output::Record;
use crate::session::Session;

/// Let another party act for the acting one.
#[derive(Debug, Subcommand)]
pub enum MandateCommand {
    /// Give a mandate
    Give {
        /// Who may act: name or id
        #[arg(long)]
        to: String,
        /// Platforms whose commands it covers
        #[arg(long = "family", value_parser = words::family, value_delimiter = ',', required = true)]
        families: Vec<Family>,
        /// How long it stands, as 12h or 365d
        #[arg(long = "for", value_name = "DURATION", value_parser = words::duration_ms, default_value = "365d")]
        duration_ms: u64,
    },
    /// End a mandate that the acting party gave
    Withdraw {
        /// Id of the mandate
        #[arg(value_parser = words::object_id)]
        mandate: ObjectId,
    },
}

impl MandateCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Give { to, families, duration_ms } => {
                let mut numbers: Vec<u8> = families.iter().map(|family| family.number()).collect();
                numbers.sort_unstable();
                numbers.dedup();
                let (mandate, now) = (object_id()?, now_ms()?);
                let give = MandateGive {
                    mandate,
                    grantee: party_id(session, &to)?,
                    families: List::new(numbers).map_err(|_| anyhow!("at most 8 families"))?,
                    valid_from_ms: now,
                    valid_until_ms: now.saturating_add(duration_ms),
                };
                let about = Record::new().with("mandate", mandate.to_hex());
                issue_about(session, about, &Command::MandateGive(give)).await
            }
            Self::Withdraw { mandate } => issue(session, &Command::MandateWithdraw(MandateWithdraw { mandate })).await,
        }
    }
}
