//! `stele-signer`: the process that holds a node's keys.

use std::process::ExitCode;

fn main() -> ExitCode {
    stele_signer::main()
}
