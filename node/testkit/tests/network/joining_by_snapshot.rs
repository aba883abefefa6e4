//! A fifth validator joins by a snapshot of the state: it executes nothing from before it, trusts none of the nodes that it
//! fetches from, and its vote counts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::commands::network::join_command;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::cluster::steled;
use stele_testkit::{Cluster, Load, LoadOptions, agreement};
use stele_types::cbor::List;
use stele_types::governance::ValidatorsChange;
use stele_types::{Command as Statement, Height};

use super::joining_validator::{add_fifth, enrol_operator};

/// The node that joins.
const NEW: usize = 4;
const INTERVAL: u64 = 20;
const CONFIGURATION: &str = "[state]\nsnapshot_interval = 20\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_joins_by_a_snapshot_and_executes_nothing_from_before_it() -> Result<()> {
    let mut cluster = Cluster::start_with(&InitOptions::default(), CONFIGURATION)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let operator = enrol_operator(&cluster).await?;
    let validator = add_fifth(&mut cluster, operator)?;
    let config = cluster.network.dir().node("node-5").config();
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}\n{CONFIGURATION}"))?;

    cluster.wait_height(0, 2 * INTERVAL + 5, Duration::from_secs(120)).await?;
    for node in 0..NEW {
        cluster.wait_log(node, "writing a snapshot for nodes that join", Duration::from_secs(30)).await?;
    }
    // Under load snapshots come and go within a second at this interval, so the network rests while a node joins.
    let mut acknowledged = load.finish().await?;
    refuses_what_is_not_proven(&cluster, &config)?;
    // One node's snapshot is damaged on its disk; what it cannot give comes from the others.
    let (said, height) = loop {
        let height = damage(&cluster.network.dir().node("node-1").data().join("chain/snapshots"))?;
        let named = |from: &[usize]| -> Result<(bool, String)> {
            let mut command = command(&cluster, &config, "operator-5", from)?;
            let output = command.args(["--height", &height.to_string()]).output().context("steled join")?;
            let said = [output.stdout, output.stderr].concat();
            Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        };
        let (joined, said) = named(&[0])?;
        ensure!(!joined, "it joined by a damaged snapshot:\n{said}");
        if !said.contains("snapshot_missing") {
            ensure!(said.contains("snapshot_incomplete"), "{said}");
            match named(&[0, 1, 2, 3])? {
                (true, said) => break (said, height),
                (false, said) => ensure!(said.contains("snapshot_missing"), "{said}"),
            }
        }
        println!("the snapshot of height {height} went too early: once more");
    };
    println!("{said}");
    let line = format!("height        {height}");
    ensure!(said.lines().any(|found| found == line) && height.is_multiple_of(INTERVAL), "{said}");
    let again = join(&cluster, &config, "operator-5", &[0])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(!again.status.success() && said.contains("only a node without a chain can join"), "{said}");

    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    cluster.network.start(NEW)?;
    let activation_height = cluster.height(0).await? + 60;
    let upsert = List::new(vec![validator])?;
    let change = ValidatorsChange { activation_height, upsert, remove: List::default() };
    cluster.govern(&Statement::ValidatorsChange(change)).await?;
    cluster.wait_height(NEW, activation_height + 5, Duration::from_secs(120)).await?;
    cluster.network.wait_node_ready(NEW, READY_WAIT_MAX)?;

    // It never saw a block from before the snapshot, and says so.
    let client = cluster.client("operator-5", NEW)?;
    ensure!(client.block(Height(height)).await.is_ok(), "the block of the snapshot is there");
    ensure!(client.block(Height(height - 1)).await.is_err(), "none below it is");
    let (own, other) = (client.header(Height(height + 9)).await?, cluster.client("operator-5", 0)?);
    let other = other.header(Height(height + 9)).await?;
    ensure!(own.header == other.header, "it holds the same headers");

    // It opens again, from its own files, and four of five are a quorum: without node 0, its vote is needed.
    cluster.network.stop(NEW)?;
    cluster.network.start(NEW)?;
    cluster.network.wait_node_ready(NEW, READY_WAIT_MAX)?;
    acknowledged.extend(load.finish().await?);
    cluster.network.kill(0)?;
    let reached = cluster.height(NEW).await?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(100, Duration::from_secs(60)).await?;
    ensure!(cluster.height(NEW).await? > reached, "the network goes on with its vote");
    load.finish().await?;
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    println!("{:?}", agreement::check_nodes(&cluster, &[0, 1, 2, 3], &acknowledged).await?);
    Ok(())
}

/// No snapshot, a stranger's certificate, a network that is another one: nothing is made then.
fn refuses_what_is_not_proven(cluster: &Cluster, config: &Path) -> Result<()> {
    let refused = |output: Output, word: &str| -> Result<()> {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(word), "{word} is missing from:\n{said}");
        ensure!(!config.with_file_name("data").join("chain").exists(), "a chain was made");
        Ok(())
    };
    // Who may not read the state may not fetch it.
    refused(join(cluster, config, "agency-1", &[0])?, "forbidden")?;
    let mut command = command(cluster, config, "operator-5", &[0])?;
    refused(command.args(["--height", "7"]).output()?, "snapshot_missing")?;
    // Another genesis: the header does not lead to it.
    let other = Cluster::prepare(&InitOptions::default(), CONFIGURATION)?;
    let foreign = other.network.dir().node("node-1").config();
    let output = self::command(cluster, &foreign, "operator-5", &[0])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("no node offers a snapshot that is proven"), "{said}");
    Ok(())
}

fn join(cluster: &Cluster, config: &Path, party: &str, from: &[usize]) -> Result<Output> {
    command(cluster, config, party, from)?.output().context("steled join")
}

fn command(cluster: &Cluster, config: &Path, party: &str, from: &[usize]) -> Result<Command> {
    let nodes = &cluster.network.profile().nodes;
    let from: Vec<String> = from.iter().map(|node| nodes[*node].party.clone()).collect();
    let own = join_command(&steled()?, cluster.network.dir(), "node-5", party, &from)?;
    let usual = cluster.network.dir().node("node-5").config();
    let mut command = Command::new(own.get_program());
    command.args(own.get_args().map(|argument| if argument == usual { config.as_os_str() } else { argument }));
    Ok(command)
}

/// Flips a byte in the first chunk of the newest snapshot; returns its height.
fn damage(snapshots: &Path) -> Result<u64> {
    let paths: Vec<PathBuf> = std::fs::read_dir(snapshots)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let height = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix("snapshot-")?.strip_suffix(".map")?.parse().ok()
    };
    let newest = paths.iter().filter_map(|path| Some((height(path)?, path))).max().context("a snapshot")?;
    let mut bytes = std::fs::read(newest.1)?;
    bytes[100] ^= 1;
    std::fs::write(newest.1, bytes)?;
    Ok(newest.0)
}
