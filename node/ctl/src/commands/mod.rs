//! The commands of `stele`, one module for each noun.

pub mod approval;
pub mod asset;
pub mod attest;
mod attest_watch;
pub mod backup;
pub mod bench;
pub mod ceremony;
pub mod feed;
pub mod governed;
pub mod key;
pub mod mandate;
pub mod manual;
pub mod network;
pub mod party;
pub mod proposal;
pub mod query;
pub mod receipt;
pub mod record;
pub mod share;
pub mod state;
pub mod status;
pub mod storage;
pub mod submit;
pub mod upgrade;
pub mod words;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use stele_types::{Hash, Height};

use crate::failure::{Failure, report};
use crate::network::layout::NetworkDir;
use crate::output::{Format, Output};
use crate::session::Session;
use crate::verification::{VerificationError, parse_pin, refusal_values};

/// Command line of Stele: networks, keys, parties, statements and receipts.
#[derive(Debug, Parser)]
#[command(name = "stele", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Where and as whom.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Directory of the network, as `stele network init` made it
    #[arg(long, global = true, env = "STELE_NETWORK_DIR", hide_env_values = true, value_name = "DIR")]
    pub network_dir: Option<PathBuf>,
    /// Party to act as: a name under DIR/parties
    #[arg(long = "as", global = true, env = "STELE_AS", hide_env_values = true, value_name = "PARTY")]
    pub acting_party: Option<String>,
    /// Node to speak to, by name or URL; several are tried in turn [default: all nodes of the network]
    #[arg(
        long = "node",
        global = true,
        env = "STELE_NODE",
        hide_env_values = true,
        value_name = "NODE",
        value_delimiter = ','
    )]
    pub nodes: Vec<String>,
    /// Trust the validator set with this hash from this height on, instead of that of genesis
    #[arg(long, global = true, env = "STELE_PIN", hide_env_values = true, value_name = "HEIGHT:HASH", value_parser = parse_pin)]
    pub pin: Option<(Height, Hash)>,
    /// Form of the results
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, run and change networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Show every node side by side: height, roots, lag, peers
    Status,
    /// Signing keys of parties, and epoch keys of validators
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Who belongs to the network and what they may do
    #[command(subcommand)]
    Party(party::PartyCommand),
    /// Let another party act for the acting one
    #[command(subcommand)]
    Mandate(mandate::MandateCommand),
    /// Decide what another governor proposed
    #[command(subcommand)]
    Proposal(proposal::ProposalCommand),
    /// Registration certificates of data assets
    #[command(subcommand)]
    Asset(asset::AssetCommand),
    /// Anchors of records
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// Register files, or statements that were signed elsewhere
    Submit(submit::SubmitArguments),
    /// Fetch proofs, and verify them offline
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// What the network says, proven where a proof exists
    #[command(subcommand)]
    Query(query::QueryCommand),
    /// Prove values of the state in a file, export it, check that of a stopped node
    #[command(subcommand)]
    State(state::StateCommand),
    /// The drives on which a node keeps bodies of records
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Back up a node, and prove that the backup is one
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Restore a node from a backup, onto an empty data directory (`steled restore`)
    ///
    /// Keys, guards and configuration are in place already; they are in no backup. Everything is verified from the genesis
    /// file on while it is restored; one that is broken off is begun again by the same command. The node catches up with the
    /// others when it starts. Exit codes: 0 restored, 1 not restored, 4 the backup is damaged.
    Restore(backup::RestoreArguments),
    /// Whether a node runs what was released
    #[command(subcommand)]
    Attest(attest::AttestCommand),
    /// Registered statements in log order
    Feed(feed::FeedArguments),
    /// Measure a network under load
    Bench(bench::BenchArguments),
    /// Write man pages
    Man {
        /// Directory to write to
        dir: PathBuf,
    },
    /// Write the completions of a shell to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the command; the number is the exit code.
    ///
    /// # Errors
    /// What failed, with a stable code where one exists.
    pub fn run(self) -> Result<u8> {
        let session = Session {
            network_dir: self.global.network_dir,
            party: self.global.acting_party,
            nodes: self.global.nodes,
            pin: self.global.pin,
            output: Output::new(self.global.output),
        };
        match self.command {
            Command::Network(command) => command.run(&session),
            Command::Status => block_on(status::run(&session)),
            Command::Key(command) => block_on(command.run(&session)),
            Command::Party(command) => block_on(command.run(&session)),
            Command::Mandate(command) => block_on(command.run(&session)),
            Command::Proposal(command) => block_on(command.run(&session)),
            Command::Asset(command) => block_on(command.run(&session)),
            Command::Record(command) => block_on(command.run(&session)),
            Command::Submit(arguments) => block_on(arguments.run(&session)),
            Command::Receipt(receipt::ReceiptCommand::Get(arguments)) => block_on(arguments.run(&session)),
            Command::Receipt(receipt::ReceiptCommand::Verify(arguments)) => arguments.run(&session),
            Command::Query(command) => block_on(command.run(&session)),
            Command::State(command) => command.run(&session),
            Command::Storage(command) => command.run(&session),
            Command::Backup(command) => command.run(&session),
            Command::Restore(arguments) => arguments.run(&session),
            Command::Attest(command) => block_on(command.run(&session)),
            Command::Feed(arguments) => block_on(arguments.run(&session)),
            Command::Bench(arguments) => block_on(arguments.run(&session)),
            Command::Man { dir } => manual::man(&dir),
            Command::Completions { shell } => manual::completions(shell),
        }
    }
}

/// Runs a future on this thread: commands wait, they do not compute.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?.block_on(future)
}

/// Runs `steled` for a command whose work is the daemon's; its own words are on the terminal. Returns its exit code.
fn run_daemon(command: &mut std::process::Command) -> Result<u8> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Genesis file of the network directory, if there is one.
fn genesis(session: &Session) -> Option<PathBuf> {
    session.network_dir.as_ref().map(|dir| NetworkDir::new(dir).genesis())
}

/// Says that a proof is refused, and returns the exit code for it. Scripts find a refusal where they look for the verdict;
/// people read it as any other error.
fn refuse(session: &Session, error: &VerificationError) -> Result<u8> {
    if session.output.is_json() {
        session.output.record(&refusal_values(error).into())?;
    } else {
        let failure = Failure::new(error.code(), error.to_string()).hint(error.advice());
        report(&failure.into(), session.output);
    }
    Ok(error.exit_code())
}
