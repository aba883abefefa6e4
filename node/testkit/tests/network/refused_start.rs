//! What keeps a node from starting: it says which file it is and what to do, with a stable code.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::{Cluster, Load, LoadOptions, agreement};
use stele_types::Genesis;
use stele_types::cbor::{Blob, List};
use stele_types::party::Role;

/// Exit status of a node that did not start.
const FAILED: i32 = 1;

fn one() -> InitOptions {
    InitOptions { validators: 1, ..InitOptions::default() }
}

/// Starts a node that must end by itself, and returns what it said.
async fn refusal(cluster: &mut Cluster, node: usize) -> Result<String> {
    let before = cluster.log(node).unwrap_or_default().len();
    cluster.network.start(node)?;
    let status = cluster.wait_ended(node, Duration::from_secs(30)).await?;
    ensure!(status.code() == Some(FAILED), "ended with {status}:\n{}", cluster.log(node)?);
    Ok(cluster.log(node)?.split_off(before))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_file_that_founds_no_network_is_refused() -> Result<()> {
    let mut cluster = Cluster::prepare(&one(), "")?;
    let path = cluster.network.dir().node("node-1").file("genesis.cbor");
    let genesis = Genesis::from_bytes(&std::fs::read(&path)?)?;
    // It decodes, but a governor's key is no point of the curve: that founder could never sign.
    let mut founders = genesis.founders.clone().into_vec();
    let mut outside = vec![0xff; 33];
    outside[0] = 2;
    let governor = founders.iter_mut().find(|founder| founder.roles.contains(Role::Governor)).context("a governor")?;
    governor.key.public_key = Blob::new(outside)?;
    let unsound = Genesis { founders: List::new(founders)?, ..genesis };
    std::fs::write(&path, unsound.to_bytes())?;
    let said = refusal(&mut cluster, 0).await?;
    ensure!(said.contains("genesis_invalid") && said.contains("genesis.cbor"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_without_its_guard_does_not_start_until_one_is_made_above_what_it_may_have_signed() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(200, Duration::from_secs(60)).await?;
    cluster.network.kill(3)?;
    cluster.network.wipe(3)?;
    let key = cluster.network.dir().node("node-4").file("validator.key");
    std::fs::remove_file(key.with_extension("votes"))?;
    let said = refusal(&mut cluster, 3).await?;
    ensure!(said.contains("vote_guard_missing") && said.contains("stele key guard"), "{said}");
    ensure!(!key.with_extension("votes").exists(), "a guard was made silently");

    load.wait_more(200, Duration::from_secs(60)).await?;
    let from_height = cluster.height(0).await? + 20;
    let made = key_guard(&key, from_height)?;
    ensure!(made.contains(&from_height.to_string()), "{made}");
    ensure!(key_guard(&key, from_height).is_err(), "a guard that exists was replaced");
    cluster.network.start(3)?;
    cluster.network.wait_node_ready(3, READY_WAIT_MAX)?;
    cluster.wait_height(3, from_height + 2, Duration::from_secs(60)).await?;
    // Three of four are a quorum: without node 0, the new guard must let it vote.
    println!("{:?}", agreement::check_without(&mut cluster, load, 0).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_guard_of_checkpoints_does_not_start_until_one_is_made_above_what_it_may_have_signed()
-> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(200, Duration::from_secs(60)).await?;
    cluster.network.kill(3)?;
    let dir = cluster.network.dir().node("node-4");
    let (key, genesis) = (dir.file("seal.key"), dir.file("genesis.cbor"));
    let guard = key.with_extension("checkpoints");
    std::fs::remove_file(&guard)?;
    let said = refusal(&mut cluster, 3).await?;
    ensure!(said.contains("checkpoint_guard_missing") && said.contains("stele key guard"), "{said}");
    ensure!(!guard.exists(), "a guard was made silently");

    let network = || cluster.client("agency-1", 0);
    let from_size = network()?.network().await?.log_size + 1;
    let make = || checkpoint_guard(&key, from_size, &genesis);
    let made = make()?;
    ensure!(made.contains(&from_size.to_string()), "{made}");
    ensure!(make().is_err(), "a guard that exists was replaced");
    cluster.network.start(3)?;
    cluster.network.wait_node_ready(3, READY_WAIT_MAX)?;
    load.wait_more(500, Duration::from_secs(60)).await?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    // It seals beside the blocks, so the last one's checkpoint may still be on its way.
    cluster.wait_metric(3, "stele_log_checkpoint_size", from_size as f64, Duration::from_secs(30)).await
}

/// Runs `stele key guard` for a validator.
fn key_guard(key: &Path, from_height: u64) -> Result<String> {
    stele(|command| {
        command.args(["key", "guard", "--validator-key"]).arg(key).args(["--from-height", &from_height.to_string()])
    })
}

/// Runs `stele key guard` for a checkpoint key.
fn checkpoint_guard(key: &Path, from_size: u64, genesis: &Path) -> Result<String> {
    stele(|command| {
        command.args(["key", "guard", "--seal-key"]).arg(key).args(["--from-size", &from_size.to_string()]);
        command.arg("--genesis").arg(genesis)
    })
}

fn stele(arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let stele = stele_testkit::cluster::steled()?.with_file_name("stele");
    let mut command = Command::new(&stele);
    arguments(&mut command);
    let output = command.output().with_context(|| format!("cannot run {}", stele.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
