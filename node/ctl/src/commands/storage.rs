//! `stele storage`: the drives on which a node keeps bodies of records.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::commands::{block_on, run_daemon};
use crate::failure::Failure;
use crate::keys::read_secret;
use crate::localnet::steled_beside_this_program;
use crate::network::profile::NodeProfile;
use crate::output::{Record, note};
use crate::session::Session;
use crate::standing::operator_client;

/// How often a job is looked at.
const WATCH: Duration = Duration::from_millis(200);

/// Exit code when a drive failed, something is lost, or a job failed.
const EXIT_UNWELL: u8 = 1;

/// The drives on which a node keeps bodies of records.
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Show drives and room of every node, or of those named with --node
    ///
    /// Exit codes: 0 all is well, 1 a drive failed, something is lost, or the store only reads.
    Status,
    /// Read everything that a node keeps, and mend what is damaged
    Scrub(TokenArguments),
    /// Bring back to a node what it should have, from the copies that other nodes keep
    ///
    /// For a node that lost its whole store: make an empty one first (`steled storage format`, or start it without its
    /// drives and `data/payload`). What it has already stays.
    Rebuild(TokenArguments),
    /// Replace drives
    #[command(subcommand)]
    Drive(DriveCommand),
    /// Check the store of a stopped node without changing it: every cell is read, every record derived again from it
    /// (`steled storage fsck`)
    ///
    /// Exit codes: 0 sound, 1 not checked, 4 damaged.
    Fsck(FsckArguments),
}

/// Replace drives.
#[derive(Debug, Subcommand)]
pub enum DriveCommand {
    /// Take a device or a preallocated file in the place of a drive; what is on it is lost
    ///
    /// The node makes on it what the drive held, from the others, and serves meanwhile.
    Replace(ReplaceArguments),
}

/// What shows that this command may change the node: it can read its files.
#[derive(Debug, Args)]
pub struct TokenArguments {
    /// File `control.token` of the node's data directory [default: that of the network directory]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Arguments of `storage drive replace`.
#[derive(Debug, Args)]
pub struct ReplaceArguments {
    /// Number of the drive, as `storage status` shows it
    pub drive: usize,
    /// The new device or file
    pub path: PathBuf,
    /// The token
    #[command(flatten)]
    pub token: TokenArguments,
}

/// Arguments of `storage fsck`.
#[derive(Debug, Args)]
pub struct FsckArguments {
    /// Configuration file of the node [default: that of the network directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node's program [default: steled beside this program]
    #[arg(long)]
    pub steled: Option<PathBuf>,
}

impl StorageCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Status => block_on(status(session)),
            Self::Scrub(arguments) => block_on(scrub(session, &arguments)),
            Self::Rebuild(arguments) => block_on(rebuild(session, &arguments)),
            Self::Drive(DriveCommand::Replace(arguments)) => block_on(replace(session, &arguments)),
            Self::Fsck(arguments) => fsck(session, arguments),
        }
    }
}

async fn status(session: &Session) -> Result<u8> {
    let (mut records, mut well) = (Vec::new(), true);
    for node in session.chosen_nodes()? {
        let view = operator_client(&node)?.storage().await?;
        let number = |name: &str| view[name].as_u64().unwrap_or_default();
        if let Some(reason) = view["read_only"].as_str() {
            note(&format!("warning: {} only reads: {reason}", node.name));
            well = false;
        }
        if number("lost") > 0 {
            note(&format!("warning: {} has lost {} batches beyond repair", node.name, number("lost")));
            well = false;
        }
        for drive in view["drives"].as_array().into_iter().flatten() {
            let state = drive["state"].as_str().unwrap_or_default();
            well &= state != "failed";
            records.push(
                Record::new()
                    .with("node", node.name.as_str())
                    .with("drive", drive["drive"].clone())
                    .with("state", state)
                    .with_option("path", drive["path"].as_str())
                    .with("bytes", drive["bytes"].clone())
                    .with("free_percent", drive["free_percent"].clone())
                    .with("segments", number("segments"))
                    .with("segments_free", number("segments_free"))
                    .with("segments_cold", number("segments_cold"))
                    .with("records", number("records"))
                    .with("unreferenced", number("unreferenced"))
                    .with("alone", number("alone"))
                    .with("repaired", number("repaired"))
                    .with_option("reason", drive["reason"].as_str()),
            );
        }
    }
    session.output.records(&records)?;
    Ok(if well { 0 } else { EXIT_UNWELL })
}

/// The one node that was named.
pub(crate) fn one_node(session: &Session) -> Result<NodeProfile> {
    let mut nodes = session.chosen_nodes()?;
    match (nodes.pop(), nodes.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => bail!(
            Failure::new("node_missing", "this is done to one node, and none was named").hint("name it with --node")
        ),
    }
}

impl TokenArguments {
    fn read(&self, session: &Session, node: &NodeProfile) -> Result<zeroize::Zeroizing<String>> {
        match &self.token_file {
            Some(path) => read_secret(path),
            None => read_secret(&session.dir()?.node(&node.name).data().join("control.token")),
        }
    }
}

async fn scrub(session: &Session, arguments: &TokenArguments) -> Result<u8> {
    let node = one_node(session)?;
    operator_client(&node)?.scrub_storage(&arguments.read(session, &node)?).await?;
    watch(session, &node).await
}

async fn rebuild(session: &Session, arguments: &TokenArguments) -> Result<u8> {
    let node = one_node(session)?;
    operator_client(&node)?.rebuild_storage(&arguments.read(session, &node)?).await?;
    watch(session, &node).await
}

async fn replace(session: &Session, arguments: &ReplaceArguments) -> Result<u8> {
    let node = one_node(session)?;
    let path = std::path::absolute(&arguments.path)?;
    let token = arguments.token.read(session, &node)?;
    operator_client(&node)?.replace_drive(&token, arguments.drive, &path).await?;
    let code = watch(session, &node).await?;
    if code == 0 {
        note(&format!(
            "write {} into payload.drives of the node's configuration, in the old one's place",
            path.display()
        ));
    }
    Ok(code)
}

/// Waits for the end of what was begun, and shows what it found.
async fn watch(session: &Session, node: &NodeProfile) -> Result<u8> {
    let client = operator_client(node)?;
    let mut said = 0;
    loop {
        let job = client.storage().await?["job"].take();
        let percent = job["percent"].as_u64().unwrap_or_default();
        if percent >= said + 10 {
            note(&format!("{percent} %"));
            said = percent;
        }
        if job["running"] == Value::Bool(true) {
            tokio::time::sleep(WATCH).await;
            continue;
        }
        let failure = job["failure"].as_str();
        let record = Record::new()
            .with("node", node.name.as_str())
            .with("job", job["job"].clone())
            .with("segments", job["segments"].clone())
            .with("repaired", job["repaired"].clone())
            .with("lost", job["lost"].clone())
            .with("bodies", job["bodies"].clone())
            .with("blocks", job["blocks"].clone())
            .with_option("failure", failure);
        session.output.record(&record)?;
        let unwell = failure.is_some() || job["lost"].as_u64() != Some(0);
        return Ok(if unwell { EXIT_UNWELL } else { 0 });
    }
}

fn fsck(session: &Session, arguments: FsckArguments) -> Result<u8> {
    let config = match arguments.config {
        Some(config) => config,
        None => session.dir()?.node(&one_node(session)?.name).config(),
    };
    let steled = arguments.steled.map_or_else(steled_beside_this_program, Ok)?;
    let mut command = Command::new(steled);
    command.args(["storage", "fsck", "--config"]).arg(config);
    if session.output.is_json() {
        command.arg("--json");
    }
    run_daemon(&mut command)
}
