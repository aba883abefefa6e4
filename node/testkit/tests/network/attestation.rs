//! Nodes attest to verifiers: enrolment by the TPM's fingerprint, quotes over HTTP, and what is refused.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::network::init::InitOptions;
use stele_evidence::exchange::Challenge;
use stele_evidence::package::PackageEncoding;
use stele_testkit::command_line::text_of;
use stele_testkit::signers::{SealIn, policy};
use stele_testkit::{Cluster, CommandLine};

/// A receipt of each node leads to the node's enrolment: one key is in the TPM, the other in a token.
async fn names_its_signer(stele: &CommandLine) -> Result<()> {
    fs::write(stele.working_dir().join("notice.txt"), "read me")?;
    let submitted = stele.json("--as agency-1 submit notice.txt --public --content-type text/plain").await?;
    let id = text_of(&submitted, "statement")?;
    for (node, word) in [("node-1", "certified"), ("node-2", "quoted")] {
        stele.text(&format!("--node {node} receipt get {id} --with-signer --out {node}.bundle")).await?;
        let verify = format!("{node}.bundle --genesis network/genesis.cbor --policy policy.json --json");
        let named = stele.run("stele-verify", &format!("{verify} --enrolment {node}.json")).await?;
        let verdict: serde_json::Value = serde_json::from_str(&named.out)?;
        ensure!(named.code == 0 && verdict["signer"] == word, "{verdict}");
        let other = if node == "node-1" { "node-2" } else { "node-1" };
        let other = stele.run("stele-verify", &format!("{verify} --enrolment {other}.json")).await?;
        ensure!(other.code == 6 && other.out.contains("attestation_key_other"), "{}", other.out);
    }
    stele.text(&format!("--node node-1 receipt get {id} --out bare.bundle")).await?;
    let bare = stele.run("stele-verify", "bare.bundle --genesis network/genesis.cbor --enrolment node-1.json").await?;
    ensure!(bare.code == 6, "{}", bare.out);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_attest_to_whoever_enrolled_them() -> Result<()> {
    let options = InitOptions { validators: 2, ..InitOptions::default() };
    let mut cluster = Cluster::start_held(&options, "", |node| if node == 1 { SealIn::Token } else { SealIn::Tpm })?;
    let stele = CommandLine::of(&cluster)?;
    let file = |name: &str| stele.working_dir().join(name);
    fs::write(file("policy.json"), policy(&[]).to_string())?;
    for (host, node) in cluster.signers.iter().zip(["node-1", "node-2"]) {
        let pin = host.endorsement_fingerprint()?;
        stele.text(&format!("--as regulator --node {node} attest enrol --fingerprint {pin} --out {node}.json")).await?;
    }
    // A party may not have the TPM open credentials, and another TPM is not believed.
    let pin = cluster.signers[1].endorsement_fingerprint()?;
    let swapped = format!("--as regulator --node node-1 attest enrol --fingerprint {pin} --out x.json");
    ensure!(stele.run("stele", &swapped).await?.code == 4, "the TPM of another node");
    let enrolled: serde_json::Value = serde_json::from_slice(&fs::read(file("node-2.json"))?)?;
    let providers: Vec<_> = enrolled["keys"].as_array().context("keys")?.iter().map(|key| &key["provider"]).collect();
    ensure!(providers == ["pkcs11", "tpm"] || providers == ["tpm", "pkcs11"], "{enrolled}");

    // Whoever is a party may ask; the package is judged at once, and again from its file.
    let ask = |node: &str, enrolment: &str, more: &str| {
        format!("--as regulator --node {node} attest node --policy policy.json --enrolment {enrolment}.json {more}")
    };
    let by_party = ask("node-1", "node-1", "--keys-proven --save package.tar").replace("regulator", "agency-1");
    let verdict = stele.json(&by_party).await?;
    ensure!(verdict["passed"] == true, "{verdict}");
    fs::write(file("verdict.json"), verdict.to_string())?;
    stele.json(&ask("node-2", "node-2", "--keys-proven")).await?;
    let other = stele.json_with(&ask("node-1", "node-2", ""), 4).await?;
    ensure!(other.to_string().contains("attestation_key_other"), "{other}");
    let stale =
        format!("attest verify package.tar --nonce {} --policy policy.json --enrolment node-1.json", "01".repeat(32));
    let replayed = stele.json_with(&stale, 4).await?;
    ensure!(replayed["passed"] == false, "{replayed}");

    names_its_signer(&stele).await?;

    // A policy that the machine does not fit.
    let other = policy(&[]).to_string().replacen(&"00".repeat(32), &"11".repeat(32), 1);
    fs::write(file("policy.json"), other)?;
    let refused = stele.json_with(&ask("node-1", "node-1", ""), 4).await?;
    ensure!(refused.to_string().contains("pcr_differs"), "{refused}");
    fs::write(file("policy.json"), policy(&[]).to_string())?;

    // The machine is reset: the verifier sees it, and believes the next quote.
    cluster.signers[0].kill();
    cluster.signers[0].power_off();
    cluster.signers[0].power_on()?;
    cluster.signers[0].start()?;
    let again = stele.json(&ask("node-1", "node-1", "--previous verdict.json")).await?;
    ensure!(again["facts"]["resets_since_previous"] == 1, "{again}");

    // More than the TPM should give: verifiers are told to come back.
    let client = cluster.client("agency-1", 0)?;
    let mut codes = Vec::new();
    for _ in 0..3 {
        let answered = client.attest_quote(&Challenge { nonce: [7; 32] }, PackageEncoding::Json).await;
        codes.extend(answered.err().map(|error| error.code().to_owned()));
    }
    ensure!(!codes.is_empty() && codes.iter().all(|code| code == "saturated"), "{codes:?}");
    Ok(())
}
