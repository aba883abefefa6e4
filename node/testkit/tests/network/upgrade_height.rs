//! The governors decide a protocol version that no installed program knows. Every node must stop cleanly at that height,
//! neither before nor after, and stay stopped when it is started again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::{Cluster, Load, LoadOptions, agreement};
use stele_types::governance::ProtocolUpgrade;
use stele_types::parameters::PROTOCOL_REHEARSALS;
use stele_types::{Command, Height};

/// Exit status of a halted node.
const HALTED: i32 = 4;
/// Heights between the decision and the activation: propose and approve take some.
const AHEAD: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn an_old_program_halts_cleanly_at_the_activation_height() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let activation_height = cluster.height(0).await? + AHEAD;
    cluster.govern(&Command::ProtocolUpgrade(ProtocolUpgrade { activation_height, version: 2 })).await?;
    ensure!(cluster.height(0).await? < activation_height, "the decision took more than {AHEAD} heights");
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;

    let nodes = cluster.network.len();
    let mut highest = vec![0; nodes];
    let mut ended = vec![None; nodes];
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while ended.iter().any(Option::is_none) {
        ensure!(std::time::Instant::now() < deadline, "not every node has halted: {ended:?}, heights {highest:?}");
        for (node, ended) in ended.iter_mut().enumerate().filter(|(_, ended)| ended.is_none()) {
            *ended = cluster.network.ended(node)?;
        }
        for (highest, height) in highest.iter_mut().zip(cluster.heights().await) {
            *highest = (*highest).max(height.unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let acknowledged = load.abandon().await;
    ensure!(!acknowledged.is_empty(), "nothing was acknowledged before the halt");
    for (node, status) in ended.iter().enumerate() {
        let status = status.context("status")?;
        let log = cluster.log(node)?;
        ensure!(status.code() == Some(HALTED), "node {node} ended with {status}");
        ensure!(
            highest[node] == activation_height - 1,
            "node {node} halted at {}, not below {activation_height}",
            highest[node]
        );
        ensure!(log.contains("needs protocol version 2"), "the halt of node {node} does not name the version:\n{log}");
        ensure!(!log.contains("panicked"), "node {node} panicked:\n{log}");
    }

    // Started again, it serves what it has for a moment and halts again without a new block.
    cluster.network.start(0)?;
    let again = cluster.wait_ended(0, Duration::from_secs(60)).await?;
    ensure!(again.code() == Some(HALTED), "started again, the node ended with {again}");
    let newest = acknowledged.iter().filter_map(|status| status.height).max().unwrap_or(Height(0));
    ensure!(newest.0 < activation_height, "an acknowledgement at height {newest}");
    Ok(())
}

/// Three operators have installed the new release, one has not. Only one protocol version exists, so the new release is the
/// same program, configured to rehearse the next version.
#[tokio::test(flavor = "multi_thread")]
async fn one_old_node_halts_cleanly_while_the_others_go_on_and_rejoins_when_it_is_upgraded() -> Result<()> {
    const OLD: usize = 3;
    let version = PROTOCOL_REHEARSALS;
    let rehearse = format!("[order]\nrehearse_version = {version}\n");
    let mut cluster = Cluster::prepare(&InitOptions::default(), &rehearse)?;
    let path = cluster.network.dir().node("node-4").config();
    let upgraded = std::fs::read_to_string(&path)?;
    std::fs::write(&path, upgraded.replace(&rehearse, ""))?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    ensure!(cluster.log(0)?.contains("rehearses a protocol version"), "a rehearsal says that it is one");

    let activation_height = cluster.height(0).await? + AHEAD;
    cluster.govern(&Command::ProtocolUpgrade(ProtocolUpgrade { activation_height, version })).await?;
    ensure!(cluster.height(0).await? < activation_height, "the decision took more than {AHEAD} heights");
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let mut highest = 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let ended = loop {
        ensure!(std::time::Instant::now() < deadline, "the old node has not halted at {highest}");
        if let Some(status) = cluster.network.ended(OLD)? {
            break status;
        }
        highest = highest.max(cluster.height(OLD).await.unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let log = cluster.log(OLD)?;
    ensure!(ended.code() == Some(HALTED), "the old node ended with {ended}:\n{log}");
    ensure!(highest == activation_height - 1, "it halted at {highest}, not below {activation_height}");
    ensure!(log.contains(&format!("needs protocol version {version}")), "the halt does not name the version:\n{log}");

    load.wait_more(200, Duration::from_secs(60)).await.context("the others must go on")?;
    ensure!(cluster.height(0).await? > activation_height, "the new version is not in force");
    std::fs::write(&path, upgraded)?;
    cluster.network.start(OLD)?;
    cluster.network.wait_node_ready(OLD, READY_WAIT_MAX)?;
    // Three of four are a quorum: without node 0, the upgraded node must vote.
    println!("{:?}", agreement::check_without(&mut cluster, load, 0).await?);
    Ok(())
}
