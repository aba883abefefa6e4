//! The main job on real input, and the node's benchmarks; `cargo xtask` builds and runs it.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod attest;
mod bench;
mod bodies;
mod demo;
mod figures;
mod growth;
mod hardware;
mod input;
mod keeping;
mod newcomer;
mod pipeline;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The main job on real input, and the node's benchmarks.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a network, register real input, verify every bundle offline.
    Demo(DemoArguments),
    /// Measure the node.
    Bench(BenchArguments),
}

/// Arguments of the demo.
#[derive(clap::Args)]
pub(crate) struct DemoArguments {
    /// Directory with the unpacked npm packages.
    #[arg(long)]
    data: PathBuf,
    /// End when everything is verified, instead of staying up.
    #[arg(long)]
    exit: bool,
    /// Write figures as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Validators.
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// Property records.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
}

/// Arguments of the benchmarks.
#[derive(clap::Args)]
pub(crate) struct BenchArguments {
    /// Write figures as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A tenth of the load: shows that it runs, its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Also the half hour of load after which memory must not grow any more.
    #[arg(long)]
    slow: bool,
    /// Only figures whose name begins so.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime did not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match Arguments::parse().command {
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("failed: {failure:#}");
            ExitCode::FAILURE
        }
    }
}
