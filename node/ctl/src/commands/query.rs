//! `stele query`: what the network says, proven where a proof exists.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Subcommand;
use stele_types::{Height, StatementId, exchange};
use stele_verify::{CertifiedHeader, TrustAnchor, chain};

use crate::commands::words;
use crate::describe::Object;
use crate::failure::Failure;
use crate::output::{Record, note};
use crate::session::Session;
use crate::state_query;

/// What the network says, proven where a proof exists.
#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// A party by its id
    Party {
        /// Id, 32 hexadecimal digits
        id: String,
    },
    /// A signing key by its id
    Key {
        /// Id, 32 hexadecimal digits
        id: String,
    },
    /// The anchor of a record
    Record {
        /// Id, 32 hexadecimal digits
        id: String,
    },
    /// A data asset by its id; `stele asset show` takes the number of its certificate, too
    Asset {
        /// Id, 32 hexadecimal digits
        id: String,
    },
    /// A certificate by its number, as printed
    Certificate {
        /// Number, as ST-110000-DR-2026-00000042-17
        number: String,
    },
    /// A mandate by its id
    Mandate {
        /// Id, 32 hexadecimal digits
        id: String,
    },
    /// A proposal by its id
    Proposal {
        /// Id, 64 hexadecimal digits
        id: String,
    },
    /// How a validator stands with regulators: the newest verdicts on its evidence
    Validator {
        /// Id, 64 hexadecimal digits; `stele query validators` lists them
        id: String,
    },
    /// What became of a statement, as one node says; `stele receipt get` fetches the proof
    Statement {
        /// Id, 64 hexadecimal digits
        #[arg(value_parser = words::statement_id)]
        id: StatementId,
    },
    /// A block header with its quorum, verified
    Header {
        /// Height, from 1
        height: u64,
    },
    /// Whether the log only grew between two heights, verified
    Consistency {
        /// Lower height, from 1
        old: u64,
        /// Higher height
        new: u64,
    },
    /// Parameters of the network, as one node says
    Network,
    /// Validators of the network, as one node says
    Validators,
}

impl QueryCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; what is proven absent fails with `object_unknown`.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let object = match &self {
            Self::Party { id } => Object::parse("party", id)?,
            Self::Key { id } => Object::parse("key", id)?,
            Self::Record { id } => Object::parse("record", id)?,
            Self::Asset { id } => Object::parse("asset", id)?,
            Self::Certificate { number } => Object::parse("certificate", number)?,
            Self::Mandate { id } => Object::parse("mandate", id)?,
            Self::Proposal { id } => Object::parse("proposal", id)?,
            Self::Validator { id } => Object::parse("validator", id)?,
            Self::Statement { id } => return statement(session, id).await,
            Self::Header { height } => return header(session, Height(*height)).await,
            Self::Consistency { old, new } => return consistency(session, Height(*old), Height(*new)).await,
            Self::Network => return network(session).await,
            Self::Validators => return validators(session).await,
        };
        let proven = state_query::query(&session.reader()?, &session.anchor()?, &object).await?;
        let first = proven.first().ok_or_else(|| anyhow!("no proof"))?;
        let Some(value) = &first.value else {
            bail!(Failure::new(
                "object_unknown",
                format!("there is no {} {}, and that is proven", object.kind(), object.id())
            ));
        };
        session.output.record(&object.describe(value)?.with("proven_at_height", first.height.0))?;
        Ok(0)
    }
}

async fn statement(session: &Session, id: &StatementId) -> Result<u8> {
    let status = session.reader()?.statement(id, stele_client::Wait::None).await?;
    session.output.record(&crate::registration::status_record(&status))?;
    Ok(0)
}

async fn header(session: &Session, height: Height) -> Result<u8> {
    let answer = session.reader()?.header(height).await?;
    let header = certified(&session.anchor()?, height, &answer)?.header();
    let record = Record::new()
        .with("height", header.height.0)
        .with("pin", format!("{}:{}", header.height, header.validators))
        .with("header", header.id().to_hex())
        .with("time_ms", header.time_ms)
        .with("creation_round", header.creation_round)
        .with("proposer", header.proposer.to_hex())
        .with("parent", header.parent.to_hex())
        .with("statements_root", header.statements_root.to_hex())
        .with("log_size", header.log_size)
        .with("log_root", header.log_root.to_hex())
        .with("state_root", header.state_root.to_hex())
        .with("outcomes_root", header.outcomes_root.to_hex())
        .with("validators", header.validators.to_hex())
        .with("next_validators", header.next_validators.to_hex())
        .with("parameters", header.parameters.to_hex())
        .with("signatures", answer.certificate.signatures.len());
    session.output.record(&record)?;
    Ok(0)
}

/// The header of `height`, certified; a node may not answer with another one.
fn certified<'a>(
    anchor: &TrustAnchor,
    height: Height,
    answer: &'a exchange::CertifiedHeader,
) -> Result<CertifiedHeader<'a>> {
    let certified =
        state_query::certify(anchor, answer).with_context(|| format!("the quorum of the header of height {height}"))?;
    if certified.header().height != height {
        bail!(
            Failure::new("header_differs", "the node gave the header of another height")
                .hint("ask another node with --node")
        );
    }
    Ok(certified)
}

async fn consistency(session: &Session, old: Height, new: Height) -> Result<u8> {
    if old > new {
        bail!(
            Failure::new("parameter_invalid", format!("height {old} is above height {new}"))
                .hint("name the lower height first")
        );
    }
    let (client, anchor) = (session.reader()?, session.anchor()?);
    let newest = client.network().await?.height;
    if new.0 > newest {
        bail!(
            Failure::new("not_found", format!("there is no header of height {new} yet"))
                .hint(format!("the newest is that of height {newest}"))
        );
    }
    let (older, newer) = (client.header(old).await?, client.header(new).await?);
    let (older, newer) = (certified(&anchor, old, &older)?, certified(&anchor, new, &newer)?);
    let (old_size, new_size) = (older.header().log_size, newer.header().log_size);
    // An empty log begins every other, and equal sizes need equal roots: neither has a path.
    let path =
        if old_size == 0 || old_size == new_size { Vec::new() } else { client.consistency(old_size, new_size).await? };
    chain::verify_consistency(older, newer, &path).context("the proof that the log only grew")?;
    let record = Record::new()
        .with("consistent", true)
        .with("old_height", old.0)
        .with("old_log_size", old_size)
        .with("old_log_root", older.header().log_root.to_hex())
        .with("new_height", new.0)
        .with("new_log_size", new_size)
        .with("new_log_root", newer.header().log_root.to_hex());
    session.output.record(&record)?;
    Ok(0)
}

async fn network(session: &Session) -> Result<u8> {
    let view = session.reader()?.network().await?;
    let known = session.profile()?.network;
    if view.network != known {
        bail!(
            Failure::new("foreign_network", format!("the node is of network {}", view.network))
                .hint(format!("this directory is of network {known}"))
        );
    }
    let record = Record::new()
        .with("network", view.network)
        .with("name", view.name)
        .with("height", view.height)
        .with("certified_height", view.certified_height)
        .with("log_size", view.log_size)
        .with("validators", view.validators.len())
        .with_option("checkpoint_key", view.checkpoint_key.as_ref().map(|key| key.public_key.clone()))
        .with("parameters", view.parameters);
    session.output.record(&record)?;
    note("One node says so; nothing of this is proven.");
    Ok(0)
}

async fn validators(session: &Session) -> Result<u8> {
    let view = session.reader()?.network().await?;
    let in_force = view.validators.into_iter().map(|validator| (validator, "in force"));
    let suspended = view.suspended_validators.into_iter().map(|validator| (validator, "suspended"));
    let records: Vec<Record> = in_force
        .chain(suspended)
        .map(|(validator, state)| {
            Record::new()
                .with("validator", validator.id)
                .with("state", state)
                .with("party", validator.party)
                .with("public_key", validator.public_key)
                .with("peer_id", validator.peer_id)
        })
        .collect();
    session.output.records(&records)?;
    Ok(0)
}
