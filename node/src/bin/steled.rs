//! `steled`: the daemon of a Stele node.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stele_node::daemon::main()
}
