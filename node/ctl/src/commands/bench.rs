//! `stele bench`: measure a network under load.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use stele_client::{Client, Endpoint};
use stele_types::Suite;

use crate::commands::words;
use crate::failure::Failure;
use crate::load::{
    Content, Feeder, LoadOptions, NodeWatch, Report, drive, enrol_keys, sign_batches, steps, write_json_lines,
};
use crate::localnet::{MESA_QUIET, steled_beside_this_program};
use crate::output::note;
use crate::session::Session;

/// Measure a network under load, or this machine's accelerator.
///
/// Statements are signed beforehand, long runs in steps, with keys that are enrolled for the run. They are submitted
/// through the batch endpoint and counted when every node holds them. Latency is from submission to a certified outcome,
/// which is when a receipt for it can be had; it is sampled once a batch.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArguments {
    /// What else to measure
    #[command(subcommand)]
    pub other: Option<BenchCommand>,
    /// Parties that submit; each has its own share of admission [default: the acting party]
    #[arg(long, value_delimiter = ',')]
    pub parties: Vec<String>,
    /// Suite of the signatures
    #[arg(long, value_parser = words::suite, default_value = "eddsa")]
    pub suite: Suite,
    /// What the statements say
    #[arg(long, value_enum, default_value_t = Content::Record)]
    pub content: Content,
    /// Keys of each party
    #[arg(long, default_value_t = 4)]
    pub keys: usize,
    /// Statements in all, rounded up to whole batches of every party for every node
    #[arg(long, default_value_t = 100_000)]
    pub statements: usize,
    /// Statements of one batch
    #[arg(long, default_value_t = 500)]
    pub batch: usize,
    /// Batches without an outcome at once, for each party and node
    #[arg(long, default_value_t = 6)]
    pub in_flight: usize,
    /// Statements a second [default: as fast as they go]
    #[arg(long)]
    pub rate: Option<f64>,
    /// Write the figures as JSON lines to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Name before the figures in that file
    #[arg(long, default_value = "bench")]
    pub name: String,
}

/// What can be measured besides a network.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// How fast this machine verifies and hashes, on its cores and on a GPU (`steled bench-accel`)
    #[command(disable_help_flag = true)]
    Accel {
        /// The daemon [default: beside this program]
        #[arg(long, value_name = "FILE")]
        steled: Option<PathBuf>,
        /// Options of `steled bench-accel`; --help lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
}

impl BenchCommand {
    /// The work is the daemon's, because the accelerator is: what is measured is the program that will use it.
    fn run(self) -> Result<u8> {
        let Self::Accel { steled, options } = self;
        let steled = match steled {
            Some(path) => path,
            None => steled_beside_this_program()?,
        };
        let status = Command::new(&steled)
            .arg("bench-accel")
            .args(options)
            .env(MESA_QUIET, "1")
            .status()
            .with_context(|| format!("cannot run {}", steled.display()))?;
        // Its own words are on the terminal.
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

impl BenchArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        if let Some(other) = self.other {
            return other.run();
        }
        if self.batch == 0 || self.statements < self.batch || self.rate.is_some_and(|rate| rate.is_nan() || rate < 1.0)
        {
            bail!(
                Failure::new("parameter_invalid", "statements, batch or rate are too small")
                    .hint(format!("--statements is at least --batch, here {}, and --rate at least 1", self.batch))
            );
        }
        let parties =
            if self.parties.is_empty() { vec![session.party_name()?.to_owned()] } else { self.parties.clone() };
        let nodes = self.nodes(session)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut authors = Vec::new();
        for party in &parties {
            let author = session.author_of(party)?;
            authors.push(enrol_keys(&session.party_client_of(party)?, &author, self.suite, self.keys).await?);
        }
        let mut runs = Vec::new();
        for statements in steps(self.statements, self.rate) {
            // Every party submits to every node, each of them a feeder with its part of the statements.
            let per_feeder = (statements / self.batch).div_ceil(parties.len() * nodes.len()).max(1);
            let mut feeders = Vec::new();
            for (party, authors) in parties.iter().zip(&authors) {
                note(&format!("signing {} statements of {party}", per_feeder * nodes.len() * self.batch));
                let mut batches = sign_batches(authors, self.content, per_feeder * nodes.len(), self.batch, threads)?;
                for first in 0..nodes.len() {
                    let client = self.client(session, party, first)?;
                    feeders.push(Feeder { client, batches: batches.split_off(batches.len() - per_feeder) });
                }
            }
            note("submitting");
            runs.push(drive(feeders, &nodes, LoadOptions { in_flight: self.in_flight, rate: self.rate }).await?);
        }
        let report = Report::merged(runs)?;
        session.output.record(&report.record())?;
        if let Some(path) = &self.json {
            write_json_lines(path, &report.json_lines(&format!("{}.{}", self.name, self.suite)))?;
        }
        Ok(0)
    }

    fn nodes(&self, session: &Session) -> Result<Vec<NodeWatch>> {
        let chosen = |name: &String| session.nodes.is_empty() || session.nodes.contains(name);
        let profile = session.profile()?;
        let nodes = profile.nodes.iter().filter(|node| chosen(&node.name));
        let nodes: Vec<NodeWatch> = nodes
            .map(|node| Ok(NodeWatch { name: node.name.clone(), client: session.probe(node)? }))
            .collect::<Result<_>>()?;
        if nodes.is_empty() {
            bail!(
                Failure::new("node_unknown", "none of the named nodes is of this network")
                    .hint("name nodes as in `stele status`")
            );
        }
        Ok(nodes)
    }

    /// A client that starts at one node and moves on when it dies.
    fn client(&self, session: &Session, party: &str, first: usize) -> Result<Client> {
        let profile = session.profile()?;
        let chosen = |name: &String| session.nodes.is_empty() || session.nodes.contains(name);
        let mut nodes: Vec<_> = profile.nodes.iter().filter(|node| chosen(&node.name)).collect();
        let count = nodes.len().max(1);
        nodes.rotate_left(first % count);
        let builder = Client::builder().tls(session.party_tls(party)?);
        let builder = nodes
            .into_iter()
            .try_fold(builder, |builder, node| -> Result<_> { Ok(builder.endpoint(Endpoint::https(&node.party)?)) })?;
        Ok(builder.build()?)
    }
}
