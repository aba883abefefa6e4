//! Every node attests, as a regulator would ask it: enrolled by the certificate of its TPM's maker, quoted with a fresh nonce.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

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

/// Lets every node with a TPM attest; each has to pass.
pub(crate) fn attest(stage: &Stage) -> Result<Attested> {
    let directory = tempfile::tempdir().context("temporary directory")?;
    let policy = directory.path().join("policy.json");
    fs::write(&policy, untouched().to_string()).context("policy.json")?;
    let maker = stage.maker.as_ref().context("the TPMs have no maker")?;
    let (root, issuer) = (maker.root(), maker.issuer());
    let mut attested = Attested::default();
    for index in 1..=stage.signers.len() {
        let node = format!("node-{index}");
        let enrolment = directory.path().join(&node).with_extension("json");
        let stele = |words: &[&str], paths: &[(&str, &PathBuf)]| -> Result<Value> {
            let mut command = Command::new(program()?);
            command.arg("--network-dir").arg(stage.root()?).args(["--as", "regulator", "--node", &node]);
            command.args(["--output", "json", "attest"]).args(words);
            for (option, path) in paths {
                command.arg(option).arg(path);
            }
            let output = command.output().context("stele cannot be run")?;
            if !output.status.success() {
                let said = [output.stdout, output.stderr].concat();
                bail!("{node} does not pass: {}", String::from_utf8_lossy(&said));
            }
            serde_json::from_slice(&output.stdout).context("stele printed no JSON")
        };
        stele(&["enrol"], &[("--anchor", &root), ("--intermediate", &issuer), ("--out", &enrolment)])?;
        let verdict = stele(&["node", "--keys-proven"], &[("--policy", &policy), ("--enrolment", &enrolment)])?;
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

fn program() -> Result<PathBuf> {
    let steled = crate::stage::steled()?;
    Ok(steled.with_file_name("stele"))
}

/// No firmware measured anything into an emulated TPM: its PCRs are as it was switched on. A release's policy has the values
/// that it predicts.
fn untouched() -> Value {
    let value = format!("sha256:{}", "00".repeat(32));
    let rule = |pcr: u8| json!({ "pcr": pcr, "allowed": [{ "value": value }] });
    let rules: Vec<Value> = [0, 4, 7, 9, 11].map(rule).into();
    json!({
        "bank": "sha256",
        "pcrs": rules,
        "event_log_required": false,
        "extended_after_boot": [],
        "firmware_versions": [],
    })
}
