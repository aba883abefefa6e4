//! The governors decide a protocol version that no installed program knows. Every node must stop cleanly at that height,
//! neither before nor after, and stay stopped when it is started again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_testkit::{Cluster, Load, LoadOptions};
use stele_types::governance::ProtocolUpgrade;
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
