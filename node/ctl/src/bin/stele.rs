//! `stele`: the command line of operators, agencies and regulators.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use stele_ctl::commands::Cli;
use stele_ctl::failure::report;
use stele_ctl::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.output);
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        // Whoever reads the output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, output);
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}
