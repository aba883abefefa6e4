//! The commands of `stele`, one module for each noun.

pub mod network;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::output::{Format, Output};
use crate::session::Session;

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
    #[arg(long, global = true, env = "STELE_NETWORK_DIR", value_name = "DIR")]
    pub network_dir: Option<PathBuf>,
    /// Party to act as: a name under DIR/parties
    #[arg(long = "as", global = true, env = "STELE_AS", value_name = "PARTY")]
    pub party: Option<String>,
    /// Node to speak to, by name or URL; several are tried in turn [default: all nodes of the network]
    #[arg(long = "node", global = true, env = "STELE_NODE", value_name = "NODE", value_delimiter = ',')]
    pub nodes: Vec<String>,
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
}

impl Cli {
    /// Runs the command; the number is the exit code.
    ///
    /// # Errors
    /// What failed, with a stable code where one exists.
    pub fn run(self) -> Result<u8> {
        let session = Session {
            network_dir: self.global.network_dir,
            party: self.global.party,
            nodes: self.global.nodes,
            output: Output::new(self.global.output),
        };
        match self.command {
            Command::Network(command) => command.run(&session),
        }
    }
}
