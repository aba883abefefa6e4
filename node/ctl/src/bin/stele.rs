//! `stele`: the command line of operators, agencies and regulators.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use stele_ctl::commands::Cli;
use stele_ctl::failure::report;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}
