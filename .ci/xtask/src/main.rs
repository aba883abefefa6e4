//! `cargo xtask`: set-up, demo, tests and benchmarks, each one command on a fresh machine.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod capacity;
mod cargo;
mod data;
mod keylime;
mod setup;
mod suite;
mod tidy;
mod units;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask: one command for each job, set-up included

  cargo xtask demo [--exit] [--json FILE] [--validators N] [--records N]
                               build, start a network on loopback, register real
                               input, verify every bundle offline; stays up unless
                               --exit is given
  cargo xtask test [--slow]    every check and test; --slow adds the long tiers
  cargo xtask bench node [--json FILE] [--quick] [--slow] [--only NAME]
                               the node's figures; --slow adds half an hour of load
                               that looks for growing memory
  cargo xtask bench accel [--json FILE] [--sweep]
                               the accelerator's figures against named peers on one
                               core; --sweep adds rates by batch, keys and cores
  cargo xtask bench state [--json FILE]
                               the state map's figures
  cargo xtask bench state-peers [--json FILE] [--directory DIR] [--keys N]
                               the state map against nomt and qmdb on one core; the
                               directory must be on a real disk
  cargo xtask bench device [--json FILE] [--directory DIR]
                               block devices: reads and writes by queue depth, against
                               fio; the directory must be on a real disk
  cargo xtask bench storage [--json FILE] [--directory DIR] [--only NAME]
                               the payload tier: durable puts and random gets against
                               fio, then puts against RocksDB's BlobDB and fjall; the
                               directory must be on a real disk
  cargo xtask bench storage-index [--json FILE]
                               the payload tier's index: rates, flash and memory for
                               each of ten million records
  cargo xtask bench trust [--json FILE]
                               signatures of a TPM through its thread, against the bare
                               software stack; checks of a quote
  cargo xtask bench index [--json FILE]
                               the statement index against its candidates
  cargo xtask capacity         what 100 PB take, from measured figures
  cargo xtask tidy             the repository's own lints
  cargo xtask setup            install what is missing, and nothing else
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        ["setup"] => setup::everything(),
        ["capacity"] => {
            print!("{}", capacity::tables());
            Ok(())
        }
        ["tidy"] => tidy::run(),
        ["demo", rest @ ..] => {
            setup::for_demo()?;
            cargo::build_binaries()?;
            let data = data::directory()?;
            let data = data.to_string_lossy();
            cargo::run_built("stele-demo", &[&["demo", "--data", &*data][..], rest].concat())
        }
        ["test"] => suite::run(false),
        ["test", "--slow"] => suite::run(true),
        ["bench", "node", rest @ ..] => {
            setup::for_demo()?;
            cargo::build_binaries()?;
            cargo::run_built("stele-demo", &[&["bench"], rest].concat())
        }
        ["bench", "accel", rest @ ..] => cargo::bench("stele-accel", "accel", rest),
        ["bench", "state", rest @ ..] => cargo::bench("stele-state", "commit", rest),
        ["bench", "device", rest @ ..] => {
            setup::for_disk_benches()?;
            cargo::bench("stele-device", "ring", rest)
        }
        ["bench", "storage", rest @ ..] => {
            setup::for_disk_benches()?;
            cargo::bench("stele-storage", "store", rest)?;
            setup::for_payload_peers()?;
            cargo::run_peers("payload-peers", rest)
        }
        ["bench", "storage-index", rest @ ..] => cargo::bench("stele-storage", "index", rest),
        ["bench", "state-peers", rest @ ..] => cargo::run_peers("state-peers", rest),
        ["bench", "trust", rest @ ..] => {
            setup::for_trust_benches()?;
            cargo::build_binaries()?;
            cargo::bench_with(&cargo::HARDWARE_BENCH, "stele-hsm", "tpm", rest)?;
            cargo::run_built("stele-demo", &[&["bench", "--only", "trust."], rest].concat())
        }
        ["bench", "index", rest @ ..] => cargo::run_peers("index-peers", rest),
        _ => {
            eprint!("{USAGE}");
            bail!("unknown arguments: {}", words.join(" "))
        }
    }
}
