//! The whole life of a network through the real command line: parties come, act, change their keys, are suspended and come
//! back; governors propose, approve and withdraw; records and assets are registered, corrected and cancelled; and every
//! answer verifies. Output is read as programs read it, and exit codes are those that the manual promises.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stele_testkit::command_line::{CommandLine, text_of};
use stele_testkit::{Cluster, agreement};

/// Both governors, so that a command under dual control is decided at once.
const GOVERNED: &str = "--approve-as governor-2";
/// A hash of nothing in particular.
const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_parties_do_is_done_and_proven_from_the_command_line() -> Result<()> {
    let cluster = Cluster::start()?;
    let stele = CommandLine::of(&cluster)?;
    std::fs::write(stele.working_dir().join("body.json"), "{}")?;
    parties(&stele).await?;
    keys(&stele).await?;
    mandates(&stele).await?;
    proposals(&stele).await?;
    records(&stele).await?;
    assets(&stele).await?;
    statements(&stele).await?;
    governance(&stele).await?;
    bench(&stele).await?;
    println!("{:?}", agreement::check(&cluster, &[]).await?);
    Ok(())
}

async fn parties(stele: &CommandLine) -> Result<()> {
    let enrolled =
        stele.json(&format!("--as governor-1 party enrol clinic --role agency --suite eddsa {GOVERNED}")).await?;
    ensure!(enrolled["state"] == "approved" && enrolled["name"] == "clinic", "{enrolled}");
    let shown = stele.json("--as clinic party show").await?;
    ensure!(shown["party"] == enrolled["party"] && shown["roles"] == json!(["agency"]), "{shown}");
    ensure!(shown["proven_at_height"].as_u64() > Some(0), "{shown}");
    let again = format!("--as governor-1 party enrol clinic --role agency --suite eddsa {GOVERNED}");
    stele.refused(&again, "already_exists").await?;

    // Who may not propose leaves no keys behind; whose proposal was rejected proposes with the same keys again.
    stele.refused("party enrol museum --role agency", "party_missing").await?;
    stele.rejected("--as agency-1 party enrol museum --role agency", "role_missing").await?;
    let museum = stele.json(&format!("--as governor-1 party enrol museum --role agency {GOVERNED}")).await?;
    ensure!(museum["state"] == "approved", "{museum}");

    let granted = format!("--as governor-1 party role clinic --grant registrar,custodian {GOVERNED}");
    ensure!(stele.json(&granted).await?["state"] == "approved");
    let roles = |shown: &Value| shown["roles"].clone();
    let shown = stele.json("--as clinic party show clinic").await?;
    ensure!(roles(&shown) == json!(["registrar", "agency", "custodian"]), "{shown}");
    ensure!(
        stele.json(&format!("--as governor-1 party role clinic --revoke custodian {GOVERNED}")).await?["state"]
            == "approved"
    );
    let shown = stele.json("--as clinic party show").await?;
    ensure!(roles(&shown) == json!(["registrar", "agency"]), "{shown}");
    let nothing =
        stele.json_with(&format!("--as governor-1 party role clinic --revoke custodian {GOVERNED}"), 4).await?;
    ensure!(nothing["state"] == "not approved" && nothing["outcome"] == "state_conflict", "{nothing}");

    ensure!(stele.json(&format!("--as governor-1 party suspend clinic {GOVERNED}")).await?["state"] == "approved");
    let shown = stele.json("--as governor-1 party show clinic").await?;
    ensure!(shown["suspended"] == true, "{shown}");
    std::fs::write(stele.working_dir().join("report.txt"), "a report")?;
    // Another file: what was registered before gets its first outcome again.
    std::fs::write(stele.working_dir().join("late.txt"), "signed with a key that ended")?;
    let refusal = stele.run("stele", "--as clinic submit late.txt").await?;
    ensure!(refusal.code != 0, "a suspended party registered: {}", refusal.out);
    ensure!(stele.json(&format!("--as governor-1 party resume clinic {GOVERNED}")).await?["state"] == "approved");
    ensure!(stele.json("--as clinic submit report.txt").await?["outcome"] == "applied");

    let before = stele.json("--as clinic party show").await?["tls_pins"].clone();
    ensure!(stele.json("--as clinic party pin --renew").await?["outcome"] == "applied");
    let after = stele.json("--as clinic party show").await?["tls_pins"].clone();
    ensure!(after.as_array().map(Vec::len) == Some(2) && after[0] == before[0], "{before} {after}");
    let founders = stele.json("party list-founders").await?;
    ensure!(founders.as_array().is_some_and(|founders| founders.len() > 3), "{founders}");
    Ok(())
}

async fn keys(stele: &CommandLine) -> Result<()> {
    let first = text_of(&stele.json("--as clinic key show").await?, "key")?;
    let second = text_of(&stele.json("key generate --suite es256 --out second.key").await?, "key")?;
    ensure!(stele.json("--as clinic key enrol second.key").await?["outcome"] == "applied");
    ensure!(stele.json(&format!("--as clinic key revoke {second} --reason ceased")).await?["outcome"] == "applied");
    let shown = stele.json(&format!("--as clinic query key {second}")).await?;
    ensure!(shown["ended_reason"] == "ceased", "{shown}");
    stele.rejected(&format!("--as clinic key revoke {second}"), "state_conflict").await?;

    let third = text_of(&stele.json("key generate --suite sm2_sm3 --out third.key").await?, "key")?;
    let rotated = stele.json("--as clinic key rotate third.key").await?;
    ensure!(rotated["outcome"] == "applied", "{rotated}");
    ensure!(stele.json("--as clinic key show").await?["key"] == third.as_str());
    let shown = stele.json(&format!("--as clinic query key {first}")).await?;
    ensure!(shown["ended_reason"] == "superseded", "{shown}");
    ensure!(stele.json("--as clinic submit report.txt").await?["outcome"] == "applied");

    // It loses its last key; two governors give it a new one.
    ensure!(stele.json(&format!("--as clinic key revoke {third} --reason compromised")).await?["outcome"] == "applied");
    // Another file: what was registered before gets its first outcome again.
    std::fs::write(stele.working_dir().join("late.txt"), "signed with a key that ended")?;
    let refusal = stele.run("stele", "--as clinic submit late.txt").await?;
    ensure!(refusal.code != 0, "a party without a key registered: {}", refusal.out);
    let fourth = text_of(&stele.json("key generate --out fourth.key").await?, "key")?;
    let reset = stele.json(&format!("--as governor-1 key reset clinic fourth.key {GOVERNED}")).await?;
    ensure!(reset["state"] == "approved", "{reset}");
    let shown = stele.json("--as governor-1 party show clinic").await?;
    ensure!(shown["keys"] == json!([format!("{fourth} es256")]), "{shown}");
    stele.refused("--as clinic key use second.key", "key_unknown").await?;
    ensure!(stele.json("--as clinic key use fourth.key").await?["key"] == fourth.as_str());
    ensure!(stele.json("--as clinic submit report.txt").await?["outcome"] == "applied", "the new key signs from here");
    Ok(())
}

async fn mandates(stele: &CommandLine) -> Result<()> {
    let put = format!("{} --on-behalf-of clinic", record_put("museum"));
    stele.rejected(&put, "mandate_missing").await?;
    let given = stele.json("--as clinic mandate give --to museum --family custody --for 30d").await?;
    ensure!(given["outcome"] == "applied", "{given}");
    let mandate = text_of(&given, "mandate")?;
    let shown = stele.json(&format!("--as museum query mandate {mandate}")).await?;
    ensure!(shown["families"] == json!(["custody"]) && shown["withdrawn_ms"].is_null(), "{shown}");
    ensure!(stele.json(&put).await?["outcome"] == "applied");
    stele.rejected(&format!("--as museum mandate withdraw {mandate}"), "not_holder").await?;
    ensure!(stele.json(&format!("--as clinic mandate withdraw {mandate}")).await?["outcome"] == "applied");
    let shown = stele.json(&format!("--as clinic query mandate {mandate}")).await?;
    ensure!(shown["withdrawn_ms"].is_u64(), "{shown}");
    stele.rejected(&put, "mandate_missing").await?;
    Ok(())
}

async fn proposals(stele: &CommandLine) -> Result<()> {
    let waits = stele.json("--as governor-1 party suspend museum").await?;
    ensure!(waits["state"] == "waits for approval", "{waits}");
    let proposal = text_of(&waits, "proposal")?;
    let shown = stele.json(&format!("--as governor-2 proposal show {proposal}")).await?;
    ensure!(shown["command"] == "party.suspend" && shown["decision"].is_null(), "{shown}");
    let bytes = stele.json(&format!("--as governor-1 query proposal {proposal}")).await?;
    ensure!(bytes["command"] == "party.suspend", "{bytes}");
    stele.rejected(&format!("--as governor-1 proposal approve {proposal}"), "self_approval").await?;
    ensure!(stele.json(&format!("--as governor-1 proposal withdraw {proposal}")).await?["outcome"] == "applied");
    stele.rejected(&format!("--as governor-2 proposal approve {proposal}"), "proposal_closed").await?;
    let shown = stele.json(&format!("--as governor-2 proposal show {proposal}")).await?;
    ensure!(shown["decision"] == "withdrawn", "{shown}");
    stele.refused("--as governor-1 party suspend museum --approve-as governor-1", "self_approval").await?;
    stele.refused(&format!("--as governor-1 proposal show {HASH}"), "proposal_unknown").await?;

    let waits = stele.json("--as governor-1 party suspend museum").await?;
    let approved = stele.json(&format!("--as governor-2 proposal approve {}", text_of(&waits, "proposal")?)).await?;
    ensure!(approved["outcome"] == "applied", "{approved}");
    ensure!(stele.json("--as governor-1 party show museum").await?["suspended"] == true);
    ensure!(stele.json("--as governor-2 party resume museum --approve-as governor-1").await?["state"] == "approved");
    Ok(())
}

fn record_put(party: &str) -> String {
    format!(
        "--as {party} record put --class medical --event-day 2026-11-23 --sensitivity personal --policy {HASH} --body body.json"
    )
}

async fn records(stele: &CommandLine) -> Result<()> {
    let put = stele.json(&record_put("clinic")).await?;
    ensure!(put["outcome"] == "applied", "{put}");
    let record = text_of(&put, "record")?;
    let first = stele.json(&format!("--as clinic query record {record}")).await?;
    std::fs::write(stele.working_dir().join("body.json"), "{\"corrected\":true}")?;
    let correct = format!("--as clinic record correct {record} --follows 1 --body body.json");
    let corrected = stele.json(&correct).await?;
    ensure!(corrected["outcome"] == "applied" && corrected["record"] == record.as_str(), "{corrected}");
    let second = stele.json(&format!("--as clinic query record {record}")).await?;
    ensure!(
        first["version"] == 1 && second["version"] == 2 && second["previous"] == first["index"],
        "{first} {second}"
    );
    ensure!(first["commitment"] != second["commitment"]);
    stele.rejected(&correct, "state_conflict").await?;
    stele.rejected(&correct.replace("--as clinic", "--as museum"), "not_holder").await?;
    // Nobody else learns even that there is such a record.
    stele.refused(&format!("--as museum query record {record}"), "not_found").await?;
    stele.refused(&format!("--as clinic query record {}", &HASH[..32]), "not_found").await?;
    stele.refused("--as clinic query record 12", "parameter_invalid").await?;
    Ok(())
}

async fn assets(stele: &CommandLine) -> Result<()> {
    let register = format!(
        "asset register --class medical --sensitivity personal --records 10 --bytes 1000 --first-day 2026-01-01 \
         --last-day 2026-11-23 --content-root {HASH}"
    );
    stele.rejected(&format!("--as museum {register}"), "role_missing").await?;
    let registered = stele.json(&format!("--as clinic {register}")).await?;
    let (asset, number) = (text_of(&registered, "asset")?, text_of(&registered, "certificate")?);
    ensure!(number.starts_with("ST-110000-DR-"), "{registered}");
    stele.rejected(&format!("--as clinic {register}"), "state_conflict").await?;
    // A certificate is public; the asset is shown to those whom it concerns.
    let shown = stele.json(&format!("asset show {number}")).await?;
    ensure!(shown["asset"] == asset.as_str() && shown["ended"].is_null(), "{shown}");
    ensure!(stele.json(&format!("query certificate {number}")).await?["asset"] == asset.as_str());
    ensure!(stele.json(&format!("--as clinic query asset {asset}")).await?["number"] == number.as_str());
    let mistyped = number.replace("ST-110000-DR-", "ST-110000-DP-");
    stele.refused(&format!("asset show {mistyped}"), "parameter_invalid").await?;
    stele.rejected(&format!("--as museum asset cancel {asset}"), "role_missing").await?;
    let cancelled = stele.json(&format!("--as clinic asset cancel {asset} --reason data_gone")).await?;
    ensure!(cancelled["outcome"] == "applied", "{cancelled}");
    ensure!(stele.json(&format!("--as clinic asset show {asset}")).await?["ended"] == "data_gone");
    stele.rejected(&format!("--as clinic asset cancel {asset}"), "state_conflict").await?;
    Ok(())
}

async fn statements(stele: &CommandLine) -> Result<()> {
    let dir = stele.working_dir();
    std::fs::write(dir.join("notice.txt"), "read me")?;
    let public =
        stele.json("--as clinic submit notice.txt --public --content-type text/plain --save saved.cbor").await?;
    let id = text_of(&public, "statement")?;
    let again = stele.json("--as museum submit --signed saved.cbor").await?;
    ensure!((&again["statement"], &again["index"]) == (&public["statement"], &public["index"]), "{public} {again}");
    let status = stele.json(&format!("query statement {id}")).await?;
    ensure!(status["progress"] == "certified" && status["outcome"] == "applied", "{status}");

    stele.text(&format!("receipt get {id} --out notice.bundle")).await?;
    let verdict = stele.json("receipt verify notice.bundle").await?;
    ensure!(verdict["verdict"] == "registered" && verdict["statement"] == id.as_str(), "{verdict}");
    let key = text_of(&stele.json("--node node-1 query network").await?, "checkpoint_key")?;
    stele.text(&format!("--node node-1 receipt get {id} --bare --out notice.receipt")).await?;
    let bare = format!("receipt verify notice.receipt --statement saved.cbor --key {key}");
    let verdict = stele.json_with(&bare, 3).await?;
    ensure!(verdict["verdict"] == "vouched_by_one_node", "{verdict}");

    let rejected = stele.rejected(&format!("--as museum key revoke {}", &HASH[..32]), "key_unknown").await?;
    let refused = text_of(&rejected, "statement")?;
    stele.text(&format!("--as museum receipt get {refused} --out refused.bundle")).await?;
    let verdict = stele.json_with("receipt verify refused.bundle", 4).await?;
    ensure!(verdict["verdict"] == "rejected" && verdict["code"] == rejected["outcome"], "{verdict}");
    let none = stele.refused(&format!("receipt get {HASH}"), "not_found").await?;
    ensure!(none.contains("what to do"), "{none}");

    let feed = stele.json("--as clinic feed --limit 3").await?;
    ensure!(feed.as_array().map(Vec::len) == Some(3), "{feed}");
    let header = stele.json("query header 2").await?;
    ensure!(text_of(&header, "pin")?.starts_with("2:"), "{header}");
    let height = status["height"].as_u64().context("height")?;
    let grown = stele.json(&format!("query consistency 2 {height}")).await?;
    ensure!(grown["consistent"] == true && grown["new_height"] == height, "{grown}");
    stele.refused(&format!("query consistency {height} 2"), "parameter_invalid").await?;
    ensure!(stele.json("query validators").await?.as_array().map(Vec::len) == Some(4));
    let status = stele.json("status").await?;
    ensure!(status.as_array().is_some_and(|nodes| nodes.iter().all(|node| node["state"] == "ready")), "{status}");
    Ok(())
}

async fn governance(stele: &CommandLine) -> Result<()> {
    let height = stele.json("query network").await?["height"].as_u64().context("height")?;
    let change = |height: u64, set: &str| {
        format!("--as governor-1 network upgrade parameters {set} --activation-height {height} {GOVERNED}")
    };
    let near = stele.json_with(&change(height, "heartbeat_ms=5000"), 4).await?;
    ensure!(near["outcome"] == "activation_invalid", "{near}");
    stele.refused(&change(height + 20, "heartbeat=5000"), "parameter_invalid").await?;
    stele.refused(&change(height + 20, "heartbeat_ms=1"), "parameter_invalid").await?;
    ensure!(stele.json(&change(height + 20, "heartbeat_ms=5000")).await?["state"] == "approved");
    advance(stele, height + 21).await?;
    // The second change keeps what the first one made.
    let height = stele.json("query network").await?["height"].as_u64().context("height")?;
    ensure!(stele.json(&change(height + 20, "proposal_life_ms=86400000")).await?["state"] == "approved");
    advance(stele, height + 21).await?;
    let parameters = stele.json("query network").await?["parameters"].clone();
    ensure!(parameters["heartbeat_ms"] == 5000 && parameters["proposal_life_ms"] == 86_400_000, "{parameters}");

    let height = stele.json("query network").await?["height"].as_u64().context("height")?;
    let same =
        format!("--as governor-1 network upgrade protocol --version 1 --activation-height {} {GOVERNED}", height + 50);
    // A version that is in force already is no proposal at all.
    stele.rejected(&same, "field_invalid").await?;
    Ok(())
}

/// Registers something until the network has passed `height`.
async fn advance(stele: &CommandLine, height: u64) -> Result<()> {
    for _ in 0..40 {
        if stele.json("query network").await?["height"].as_u64() > Some(height) {
            return Ok(());
        }
        stele.text(&record_put("clinic")).await?;
    }
    anyhow::bail!("height {height} is not reached")
}

async fn bench(stele: &CommandLine) -> Result<()> {
    let said =
        stele.run("stele", "--output json --as clinic bench --statements 400 --batch 100 --json bench.json").await?;
    ensure!(said.code == 0, "{}{}", said.out, said.err);
    let figures: Value = serde_json::from_str(&said.out)?;
    ensure!(figures["statements"] == 400, "{figures}");
    ensure!(!said.err.contains('\r'), "a progress bar without a terminal: {}", said.err);
    let lines = std::fs::read_to_string(stele.working_dir().join("bench.json"))?;
    for line in lines.lines() {
        let figure: Value = serde_json::from_str(line)?;
        ensure!(figure["name"].as_str().is_some_and(|name| name.starts_with("bench.eddsa")), "{figure}");
    }
    Ok(())
}
