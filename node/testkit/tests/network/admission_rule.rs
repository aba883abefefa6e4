//! Validators that are attested: five whose keys are in TPMs, a rule of the network, and a regulator that watches. One
//! machine measures something else, leaves the set while the others go on, and is back when the policy knows it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use stele_ctl::network::init::InitOptions;
use stele_testkit::command_line::text_of;
use stele_testkit::signers::{SealIn, policy};
use stele_testkit::{Cluster, CommandLine, agreement};
use stele_types::Hash;

/// Heights between the decision and the change: propose and approve take some.
const AHEAD: u64 = 20;
/// What the one machine measures.
const MEASURED: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// How long a change of the set may take on a busy machine.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_whose_evidence_fails_leaves_the_set_until_a_verdict_passes() -> Result<()> {
    let options = InitOptions { validators: 5, ..InitOptions::default() };
    let mut cluster = Cluster::start_held(&options, "", |_| SealIn::Tpm)?;
    let stele = CommandLine::of(&cluster)?;
    let file = |name: &str| stele.working_dir().join(name);
    fs::write(file("policy.json"), policy(&[]).to_string())?;
    let mut watch = "--as regulator attest watch --policy policy.json --keep kept --rounds 1".to_owned();
    for (number, host) in (1..).zip(&cluster.signers) {
        let (node, pin) = (format!("node-{number}"), host.endorsement_fingerprint()?);
        stele.text(&format!("--as regulator --node {node} attest enrol --fingerprint {pin} --out {node}.json")).await?;
        watch.push_str(&format!(" --enrolment {node}={node}.json"));
    }

    // Verdicts are recorded without a rule, too; nothing follows from them.
    let said = stele.text(&watch).await?;
    ensure!(said.lines().filter(|line| line.contains(" passed; recorded as ")).count() == 5, "{said}");
    let not_a_regulator = stele.run("stele", &watch.replace("regulator", "agency-1")).await?;
    ensure!(not_a_regulator.code == 1, "{not_a_regulator:?}");
    ensure!(not_a_regulator.out.contains("(role_missing)"), "{not_a_regulator:?}");

    let at = stele.json("query network").await?["height"].as_u64().context("height")? + AHEAD;
    let rule = format!(
        "--as governor-1 network upgrade parameters attestation.verdict_life_ms=86400000 --activation-height {at} \
         --approve-as governor-2"
    );
    ensure!(stele.json(&rule).await?["state"] == "approved");
    advance(&stele, at + 1).await?;
    ensure!(stele.json("query network").await?["parameters"]["attestation"]["verdict_life_ms"] == 86_400_000);
    ensure!(states(&stele).await? == (5, 0));

    // The last machine measures something that no release does.
    cluster.signers[4].kill();
    cluster.signers[4].extend_pcr(4, MEASURED)?;
    cluster.signers[4].start()?;
    let said = stele.run("stele", &watch).await?;
    ensure!(said.code == 4, "{said:?}");
    let failed = said.out.lines().find(|line| line.starts_with("node-5 failed: ")).context("node-5")?;
    ensure!(failed.contains("pcr_differs") && failed.ends_with("(applied)"), "{failed}");
    wait_states(&stele, (4, 1)).await?;
    let out = suspended(&stele).await?;
    let standing = stele.json(&format!("--as regulator query validator {out}")).await?;
    ensure!(standing["newest_verdict"] == "failed", "{standing}");
    // What was judged is kept, under the hash that the ledger has.
    let kept = file("kept").join("node-5").join(format!("{}.tar", text_of(&standing, "evidence")?));
    let nonce = fs::read_to_string(kept.with_extension("nonce"))?;
    let judged =
        format!("attest verify {} --nonce {nonce} --policy policy.json --enrolment node-5.json", kept.display());
    ensure!(stele.json_with(&judged, 4).await?["passed"] == false);

    // It follows without a vote, its operators see it, and nobody else can be suspended by the same way.
    let height = cluster.height(0).await?;
    advance(&stele, height + 5).await?;
    cluster.wait_height(4, height + 5, CHANGE_WAIT_MAX).await?;
    cluster.wait_metric(0, "stele_attest_validators_suspended", 1.0, CHANGE_WAIT_MAX).await?;
    println!("{:?}", agreement::check(&cluster, &[]).await?);

    // The release is known now: PCR 4 is what it gives.
    let value = extended(MEASURED)?;
    fs::write(file("policy.json"), policy(&[value]).to_string())?;
    let said = stele.text(&watch).await?;
    ensure!(said.contains("node-5 passed"), "{said}");
    wait_states(&stele, (5, 0)).await?;
    let height = cluster.height(0).await?;
    advance(&stele, height + 5).await?;
    println!("{:?}", agreement::check(&cluster, &[]).await?);
    Ok(())
}

/// A PCR that began with zeros and was extended once.
fn extended(digest: &str) -> Result<String> {
    let measured = hex::decode(digest)?;
    Ok(format!("sha256:{}", Hash::of(&[&[0; 32][..], &measured].concat()).to_hex()))
}

/// Validators in force, and suspended ones.
async fn states(stele: &CommandLine) -> Result<(usize, usize)> {
    let validators = stele.json("query validators").await?;
    let count = |state: &str| {
        validators.as_array().into_iter().flatten().filter(|validator| validator["state"] == state).count()
    };
    Ok((count("in force"), count("suspended")))
}

async fn suspended(stele: &CommandLine) -> Result<String> {
    let validators = stele.json("query validators").await?;
    let out = validators.as_array().into_iter().flatten().find(|validator| validator["state"] == "suspended");
    text_of(out.context("nobody is suspended")?, "validator")
}

/// Lets blocks come until the set is as expected.
async fn wait_states(stele: &CommandLine, expected: (usize, usize)) -> Result<()> {
    let started = std::time::Instant::now();
    while states(stele).await? != expected {
        ensure!(started.elapsed() < CHANGE_WAIT_MAX, "the set is {:?}", states(stele).await?);
        let height = stele.json("query network").await?["height"].as_u64().context("height")?;
        advance(stele, height + 1).await?;
    }
    Ok(())
}

/// Registers something until the network has passed `height`.
async fn advance(stele: &CommandLine, height: u64) -> Result<()> {
    for number in 0..120 {
        if stele.json("query network").await?["height"].as_u64() > Some(height) {
            return Ok(());
        }
        let file = stele.working_dir().join("heartbeat");
        fs::write(&file, format!("{height} {number}"))?;
        stele.json("--as agency-1 submit heartbeat").await?;
    }
    anyhow::bail!("height {height} is not reached")
}
