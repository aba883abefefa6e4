//! Running cargo: one target directory outside the clone, one profile.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Binaries of the demo and the benchmarks.
const BINARIES: [&str; 4] = ["steled", "stele", "stele-signer", "stele-demo"];

/// Backends that are left out unless asked for: every build of the workspace has them, so that all share their artifacts.
pub(crate) const FEATURES: [&str; 2] = ["--features", "stele-hsm/tpm,stele-hsm/pkcs11"];

/// The same for the benchmark of these backends, which also goes through `stele-signer`.
pub(crate) const HARDWARE_BENCH: [&str; 2] = ["--features", "stele-hsm/tpm,stele-hsm/pkcs11,stele-hsm/remote"];

/// Names the clone that a target directory was last used for.
const CLAIM: &str = "stele-clone";

/// The repository's root. Cargo says at run time where it is: this program may have been built for another clone.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    manifest.ancestors().nth(2).unwrap_or(&manifest).to_owned()
}

/// Takes the target directory over from another clone. Cargo keeps crates of the same workspace at two places apart by
/// times of files alone, and an older file in this clone would pass for what the other clone built; so the workspace's
/// own crates go, and the dependencies stay.
pub(crate) fn claim_target() -> Result<()> {
    let (claim, root) = (target()?.join(CLAIM), root());
    let owner = std::fs::read(&claim).ok();
    if owner.as_deref() == Some(root.as_os_str().as_encoded_bytes()) {
        return Ok(());
    }
    if target()?.join("debug").exists() {
        run(&mut command(&["clean", "--quiet", "--workspace"])?)?;
    }
    std::fs::create_dir_all(target()?).context("target directory")?;
    std::fs::write(claim, root.as_os_str().as_encoded_bytes()).context("claim on the target directory")
}

/// The target directory: CARGO_TARGET_DIR, else one in the user's cache, so that clones share it.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => Ok(PathBuf::from(directory)),
        None => Ok(cache()?.join("target")),
    }
}

/// Where set-up keeps what is not part of the clone.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("stele"))
}

/// A cargo command in the repository's root.
pub(crate) fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    in_workspace(&mut command)?;
    Ok(command)
}

/// Makes a program work on this workspace as cargo does.
pub(crate) fn in_workspace(command: &mut Command) -> Result<()> {
    command.current_dir(root()).env("CARGO_TARGET_DIR", target()?);
    // Set by the outer `cargo run`; the inner one is no part of that build. Build scripts look at them: a command that
    // leaves them builds a fifth of the graph again.
    let outer = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(outer)) {
        command.env_remove(name);
    }
    Ok(())
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Builds what the demo runs.
pub(crate) fn build_binaries() -> Result<()> {
    claim_target()?;
    // Of the whole workspace, so that dependencies get the features that they get in a build of everything.
    let mut arguments = vec!["build", "--workspace"];
    arguments.extend(FEATURES);
    for binary in BINARIES {
        arguments.extend(["--bin", binary]);
    }
    run(&mut command(&arguments)?)
}

/// Runs a binary that [`build_binaries`] built.
pub(crate) fn run_built(name: &str, arguments: &[&str]) -> Result<()> {
    let directory = target()?.join("debug");
    run(Command::new(directory.join(name)).args(arguments).env("STELE_BIN_DIR", &directory))
}

/// Runs a benchmark of a crate in the one profile.
pub(crate) fn bench(package: &str, bench: &str, arguments: &[&str]) -> Result<()> {
    bench_with(&[], package, bench, arguments)
}

/// Runs a benchmark of a crate with features of its own.
pub(crate) fn bench_with(features: &[&str], package: &str, bench: &str, arguments: &[&str]) -> Result<()> {
    claim_target()?;
    let mut words = vec!["bench", "--profile", "dev", "--package", package, "--bench", bench];
    words.extend(features);
    words.push("--");
    words.extend(arguments);
    run(command(&words)?.env("STELE_BIN_DIR", target()?.join("debug")))
}

/// Builds and runs a program of the peers' own workspace.
pub(crate) fn run_peers(name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = command(&["run", "--manifest-path", ".ci/bench/Cargo.toml", "--bin", name, "--"])?;
    command.env("CARGO_TARGET_DIR", cache()?.join("target-bench"));
    run(command.args(arguments))
}
