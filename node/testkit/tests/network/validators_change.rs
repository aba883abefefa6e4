//! State proofs once carried neither epoch certificates nor changes of validators, so that every command that reads
//! proven values failed for good after the first change. Here a validator gets a new epoch key, a fifth validator comes
//! and goes, and every reading command still verifies from the genesis file and from a pin; a set that was voted out does
//! not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::{InitOptions, init};
use stele_ctl::state_query::certify;
use stele_testkit::command_line::{CommandLine, text_of};
use stele_testkit::{Cluster, agreement};
use stele_types::Height;
use stele_types::cbor::List;
use stele_verify::VerifyError;

/// Heights between the decision and the change: propose and approve take some.
const AHEAD: u64 = 20;
/// A hash of nothing in particular.
const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Ids of one object of each kind that can be asked for.
struct Objects {
    party: String,
    key: String,
    record: String,
    asset: String,
    certificate: String,
    mandate: String,
    proposal: String,
    statement: String,
    rejected: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_command_verifies_after_epoch_keys_and_validators_changed() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let stele = CommandLine::of(&cluster)?;
    let objects = Objects::make(&stele).await?;
    objects.read(&stele, "").await?;
    let founding = text_of(&stele.json("query header 1").await?, "pin")?;

    new_epoch_key(&mut cluster, &stele).await?;
    objects.read(&stele, "").await?;

    // A fifth validator that never runs: four of five are still a quorum.
    let spare = init(&stele.working_dir().join("spare"), &InitOptions { validators: 1, ..InitOptions::default() })?;
    let spare = spare.dir.node("node-1").root().display().to_string();
    let changed = change(&stele, &format!("--add {spare},operator-1")).await?;
    objects.read(&stele, "").await?;
    let validators = stele.json("query validators").await?;
    ensure!(validators.as_array().map(Vec::len) == Some(5), "{validators}");
    let pin = text_of(&stele.json(&format!("query header {changed}")).await?, "pin")?;
    ensure!(pin.split_once(':').map(|(_, hash)| hash) != founding.split_once(':').map(|(_, hash)| hash), "{pin}");
    objects.read(&stele, &format!("--pin {pin}")).await?;

    let fifth = validators.as_array().into_iter().flatten().find(|validator| is_new(&cluster, validator));
    let fifth = text_of(fifth.context("no new validator")?, "validator")?;
    let again = change(&stele, &format!("--remove {fifth}")).await?;
    objects.read(&stele, "").await?;
    objects.read(&stele, &format!("--pin {pin}")).await?;

    stale_sets_are_refused(&cluster, &stele, (&founding, &pin), (changed, again)).await?;
    println!("{:?}", agreement::check(&cluster, &[]).await?);
    Ok(())
}

impl Objects {
    async fn make(stele: &CommandLine) -> Result<Self> {
        let party =
            stele.json("--as governor-1 party enrol clinic --role agency,registrar --approve-as governor-2").await?;
        let key = stele.json("--as clinic key show").await?;
        let put = format!(
            "--as clinic record put --class medical --event-day 2026-11-23 --sensitivity personal --policy {HASH} \
             --commitment {HASH}"
        );
        let put = stele.json(&put).await?;
        let register = format!(
            "--as clinic asset register --class medical --sensitivity personal --records 1 --bytes 1 --first-day \
             2026-01-01 --last-day 2026-11-23 --content-root {HASH}"
        );
        let asset = stele.json(&register).await?;
        let mandate = stele.json("--as clinic mandate give --to agency-1 --family custody").await?;
        let proposal = stele.json("--as governor-1 party suspend clinic").await?;
        let rejected = stele.rejected(&format!("--as clinic key revoke {}", &HASH[..32]), "key_unknown").await?;
        Ok(Self {
            party: text_of(&party, "party")?,
            key: text_of(&key, "key")?,
            record: text_of(&put, "record")?,
            asset: text_of(&asset, "asset")?,
            certificate: text_of(&asset, "certificate")?,
            mandate: text_of(&mandate, "mandate")?,
            proposal: text_of(&proposal, "proposal")?,
            statement: text_of(&put, "statement")?,
            rejected: text_of(&rejected, "statement")?,
        })
    }

    /// Every command that reads something proven, with `options` before it.
    async fn read(&self, stele: &CommandLine, options: &str) -> Result<()> {
        let Self { party, key, record, asset, certificate, mandate, proposal, statement, rejected } = self;
        let height = stele.json("query network").await?["height"].as_u64().context("height")?;
        let first = if options.is_empty() { 1 } else { height - 1 };
        for command in [
            format!("query party {party}"),
            "party show".into(),
            format!("query key {key}"),
            format!("query record {record}"),
            format!("query asset {asset}"),
            format!("asset show {asset}"),
            format!("asset show {certificate}"),
            format!("query certificate {certificate}"),
            format!("query mandate {mandate}"),
            format!("query header {height}"),
            format!("query consistency {first} {height}"),
            format!("receipt get {statement} --out registered.bundle"),
            "receipt verify registered.bundle".into(),
            format!("receipt get {rejected} --out rejected.bundle"),
        ] {
            // A registration is proven under the newest tree head, a rejection under its own block.
            stele.json(&format!("{options} --as clinic {command}")).await.with_context(|| command.clone())?;
        }
        for command in [format!("query proposal {proposal}"), format!("proposal show {proposal}")] {
            stele.json(&format!("{options} --as governor-2 {command}")).await.with_context(|| command.clone())?;
        }
        let rejection = stele.json_with("receipt verify rejected.bundle", 4).await?;
        ensure!(rejection["verdict"] == "rejected", "{rejection}");
        let absent = format!("{options} --as clinic query party {}", &HASH[..32]);
        let absent = stele.refused(&absent, "object_unknown").await?;
        ensure!(absent.contains("that is proven"), "{absent}");
        Ok(())
    }
}

/// Certifies a new epoch key of node-1 and votes with it.
async fn new_epoch_key(cluster: &mut Cluster, stele: &CommandLine) -> Result<()> {
    let from = stele.json("query network").await?["height"].as_u64().context("height")? + 4;
    let node = cluster.network.dir().node("node-1");
    let certified = stele
        .json(&format!("--as operator-1 key epoch --node-dir {} --from-height {from}", node.root().display()))
        .await?;
    ensure!(certified["outcome"] == "applied", "{certified}");
    let config = std::fs::read_to_string(node.config())?;
    let both = config.replacen("\"epoch.key\"", &format!("\"epoch.key\", \"epoch-{from}.key\""), 1);
    ensure!(both != config, "no epoch_keys in {config}");
    std::fs::write(node.config(), both)?;
    cluster.network.stop(0)?;
    cluster.network.start(0)?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    advance(stele, from + 2).await?;
    // Some header above is certified with the new key; node-1 certifies with its own vote.
    let client = cluster.client("agency-1", 0)?;
    let genesis: Vec<_> =
        cluster.session.genesis()?.epoch_certificates.iter().map(stele_types::EpochCertificate::hash).collect();
    let height = client.network().await?.height;
    for height in from..=height {
        let answer = client.header(Height(height)).await?;
        if answer.epoch_certificates.iter().any(|epoch| !genesis.contains(&epoch.hash())) {
            certify(&cluster.session.anchor()?, &answer)?;
            return Ok(());
        }
    }
    anyhow::bail!("no header from {from} to {height} names the new epoch key")
}

/// Two governors change the validators; returns the first height of the new set.
async fn change(stele: &CommandLine, what: &str) -> Result<u64> {
    let at = stele.json("query network").await?["height"].as_u64().context("height")? + AHEAD;
    let command =
        format!("--as governor-1 network upgrade validators {what} --activation-height {at} --approve-as governor-2");
    let decided = stele.json(&command).await?;
    ensure!(decided["state"] == "approved", "{decided}");
    advance(stele, at + 1).await?;
    Ok(at)
}

/// Registers something until the network has passed `height`.
async fn advance(stele: &CommandLine, height: u64) -> Result<()> {
    for number in 0..60 {
        if stele.json("query network").await?["height"].as_u64() > Some(height) {
            return Ok(());
        }
        let file = stele.working_dir().join("heartbeat");
        std::fs::write(&file, number.to_string())?;
        stele.json("--as agency-1 submit heartbeat").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("height {height} is not reached")
}

fn is_new(cluster: &Cluster, validator: &Value) -> bool {
    let founding = cluster.session.genesis().map(|genesis| genesis.validators).ok();
    founding.is_some_and(|set| set.iter().all(|known| validator["validator"] != known.id().to_hex().as_str()))
}

/// Whoever believes the founding set at a height that the second one decides is told so, offline too; a proof that hides
/// the change proves nothing; and what lies below a pin is not believed.
async fn stale_sets_are_refused(
    cluster: &Cluster,
    stele: &CommandLine,
    (founding, pin): (&str, &str),
    (changed, again): (u64, u64),
) -> Result<()> {
    let (_, old_set) = founding.split_once(':').context("pin")?;
    let stale = format!("--pin {changed}:{old_set}");
    stele.refused(&format!("{stale} query header {changed}"), "validators_mismatch").await?;
    stele.refused(&format!("--pin {pin} query header {}", changed - 1), "below_anchor").await?;
    let offline = stele.json_with(&format!("{stale} receipt verify registered.bundle"), 1).await?;
    ensure!(offline["verdict"] == "invalid", "{offline}");

    let (client, anchor) = (cluster.client("agency-1", 0)?, cluster.session.anchor()?);
    for height in [changed, again] {
        let mut answer = client.header(Height(height)).await?;
        certify(&anchor, &answer)?;
        let mut links = answer.chain.into_vec();
        let hidden = links.pop().context("no link")?;
        answer.chain = List::new(links)?;
        let error = certify(&anchor, &answer).err().context("a header is believed without its change of validators")?;
        let error = error.downcast_ref::<VerifyError>().context("another error")?;
        ensure!(*error == VerifyError::ValidatorsMismatch { height: Height(height) }, "{error}");
        ensure!(hidden.header.height.next() == Height(height), "{hidden:?}");
    }
    Ok(())
}
