//! Every node attests, as a regulator would ask it, who registers the verdicts: enrolled by the certificate of its TPM's
//! maker, quoted with a fresh nonce.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use stele_testkit::signers;

use crate::stage::Stage;

/// What the nodes proved.
#[derive(Debug, Default)]
pub(crate) struct Attested {
    /// Nodes whose evidence passed.
    pub(crate) nodes: usize,
    /// Keys that are certified to be in the same TPM.
    pub(crate) certified: usize,
    /// Keys in a token, for which the machine vouched.
    pub(crate) quoted: usize,
}

/// Lets every node with a TPM attest, and the verdicts be registered; each has to pass.
pub(crate) fn attest(stage: &Stage) -> Result<Attested> {
    let directory = tempfile::tempdir().context("temporary directory")?;
    let (policy, kept) = (directory.path().join("policy.json"), directory.path().join("verdicts"));
    fs::write(&policy, signers::policy(&[]).to_string()).context("policy.json")?;
    let maker = stage.maker.as_ref().context("the TPMs have no maker")?;
    let (root, issuer) = (maker.root(), maker.issuer());
    let nodes: Vec<String> = (1..=stage.signers.len()).map(|number| format!("node-{number}")).collect();
    let mut watch = stele(stage, &["attest", "watch", "--rounds", "1"])?;
    watch.arg("--policy").arg(&policy).arg("--keep").arg(&kept);
    for node in &nodes {
        let enrolment = directory.path().join(node).with_extension("json");
        let mut enrol = stele(stage, &["--node", node, "attest", "enrol"])?;
        enrol.arg("--anchor").arg(&root).arg("--intermediate").arg(&issuer).arg("--out").arg(&enrolment);
        run(&mut enrol)?;
        watch.arg("--enrolment").arg(format!("{node}={}", enrolment.display()));
    }
    run(&mut watch)?;
    let mut attested = Attested::default();
    for node in &nodes {
        let path = kept.join(node).join("passed.json");
        let verdict: Value =
            serde_json::from_slice(&fs::read(&path).with_context(|| format!("{node} has no verdict"))?)?;
        attested.nodes += 1;
        for key in verdict["keys"].as_array().into_iter().flatten() {
            match key["trust"].as_str() {
                Some("certified") => attested.certified += 1,
                Some("quoted") => attested.quoted += 1,
                _ => bail!("{node}: nothing shows where a key is: {key}"),
            }
        }
    }
    Ok(attested)
}

/// The command line, as a regulator runs it.
fn stele(stage: &Stage, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.arg("--network-dir").arg(stage.root()?).args(["--output", "json", "--as", "regulator"]).args(words);
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("stele cannot be run")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("a node does not pass: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

fn program() -> Result<PathBuf> {
    let steled = crate::stage::steled()?;
    Ok(steled.with_file_name("stele"))
}
