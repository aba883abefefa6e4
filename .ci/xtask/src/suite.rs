//! `cargo xtask test`: every check, quickest first, the test runner last so that its closing line ends the output.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{cargo, setup, tidy, units};

/// Crates that must build without an operating system: a verifier runs in a browser.
const PURE: [&str; 5] = ["stele-types", "stele-merkle", "stele-ledger", "stele-verify", "stele-evidence"];

/// Runs all stages; `slow` adds the long tiers.
pub(crate) fn run(slow: bool) -> Result<()> {
    stage("set-up", setup::everything)?;
    cargo::claim_target()?;
    stage("format", || cargo::run(&mut cargo::command(&["fmt", "--all", "--check"])?))?;
    stage("tidy", tidy::run)?;
    stage("licences, sources and bans", graph)?;
    stage("clippy", || {
        let words = ["clippy", "--workspace", "--all-targets", "--quiet"];
        cargo::run(&mut cargo::command(&[&words[..], &cargo::FEATURES, &["--", "-D", "warnings"]].concat())?)
    })?;
    // What a node without hardware keys and the command line are built from.
    stage("clippy without hardware keys", || {
        let words = ["clippy", "--package", "stele-hsm", "--all-targets", "--quiet", "--", "-D", "warnings"];
        cargo::run(&mut cargo::command(&words)?)
    })?;
    // Its bindings are checked without its libraries, which no distribution has.
    stage("clippy of the SPDK backend", || {
        let words = ["clippy", "--package", "stele-device", "--features", "spdk", "--all-targets", "--quiet"];
        cargo::run(&mut cargo::command(&[&words[..], &["--", "-D", "warnings"]].concat())?)
    })?;
    stage("pure crates for wasm32", || {
        let mut arguments = vec!["build", "--quiet", "--target", "wasm32-unknown-unknown"];
        arguments.extend(PURE.iter().flat_map(|package| ["--package", package]));
        cargo::run(&mut cargo::command(&arguments)?)
    })?;
    stage("alert rules", alert_rules)?;
    stage("units", units::check)?;
    // Binaries and tests in one build: separate ones would unify features differently and build dependencies twice.
    stage("build", || {
        let words = ["build", "--quiet", "--workspace", "--bins", "--tests"];
        cargo::run(&mut cargo::command(&[&words[..], &cargo::FEATURES].concat())?)
    })?;
    stage("tests", || tests(slow))
}

/// `.deny.toml` over the whole graph. Advisories are left out: their database is on the network, and a test must not
/// change its verdict overnight.
fn graph() -> Result<()> {
    let mut deny = Command::new(setup::companion("cargo-deny")?);
    deny.args(["--config", ".deny.toml", "--log-level", "error", "--all-features", "check"]);
    cargo::run(deny.args(["bans", "licenses", "sources"]).current_dir(cargo::root()))
}

fn stage(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    work().with_context(|| format!("stage \"{name}\" failed"))?;
    println!("== {name}: done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Prometheus's own tool reads the rules and runs their unit tests.
fn alert_rules() -> Result<()> {
    let directory = cargo::root().join("docs/monitoring");
    let promtool = |arguments: &[&str]| cargo::run(Command::new("promtool").args(arguments).current_dir(&directory));
    promtool(&["check", "rules", "rules.yml"])?;
    promtool(&["test", "rules", "rules_test.yml"])
}

fn tests(slow: bool) -> Result<()> {
    let profile = if slow { "slow" } else { "default" };
    // By its own name, because it may lie beside cargo's path.
    let mut command = Command::new(setup::companion("cargo-nextest")?);
    command.args(["nextest", "run", "--workspace", "--profile", profile, "--no-fail-fast"]).args(cargo::FEATURES);
    cargo::in_workspace(&mut command)?;
    if slow {
        command.env("STELE_SLOW", "1");
    }
    command.env("STELE_BIN_DIR", cargo::target()?.join("debug"));
    cargo::run(&mut command)
}
