//! Blocks that left the directory of the chain for the store of bodies: read, proven, fetched by others, executed again,
//! backed up, and made again from other nodes where the store is lost.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::{InitOptions, PayloadDrives};
use stele_testkit::{Cluster, CommandLine, Load, LoadOptions, agreement, scale};
use stele_types::Height;
use stele_types::exchange::StatementStatus;

const WAIT: Duration = Duration::from_secs(120);
const NODES: usize = 4;
const AFTER_MS: u64 = 1_000;
/// Blocks below the tip that stay where a start finds them, and the one whose turn it is.
const NEWEST_KEPT: u64 = 5;
/// What every record of a block begins with, on the drives if it was not sealed.
const CANARY: &[u8] = b"STELEBLK";

fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

/// A network whose nodes archive blocks that are a second old.
async fn start() -> Result<Cluster> {
    let drives = PayloadDrives {
        drive_bytes: 64 << 20,
        slot_bytes: 2 << 20,
        archive_blocks_after_ms: Some(AFTER_MS),
        ..PayloadDrives::SMALL
    };
    let mut cluster = Cluster::prepare(&InitOptions { payload: Some(drives), ..InitOptions::default() }, "")?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    Ok(cluster)
}

/// Files of the blocks of a node: those of its own, and what stays of those that left.
fn files(cluster: &Cluster, node: usize) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let directory = cluster.network.dir().node(&name(node)).data().join("chain").join("blocks");
    let mut files = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("blocks") => files.0.push(path),
            Some("archived") => files.1.push(path),
            _ => {}
        }
    }
    Ok(files)
}

/// Waits until the blocks up to a height have left the directory of a node.
async fn archived_through(cluster: &Cluster, node: usize, height: u64) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        let (own, _) = files(cluster, node)?;
        let first = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        if own.iter().filter_map(first).min().is_some_and(|oldest| oldest > height) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "blocks stay at node {node}: {own:?}\n{}", cluster.log(node)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn submit(cluster: &Cluster, statements: usize) -> Result<Vec<StatementStatus>> {
    let load = Load::start(cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(statements, WAIT).await?;
    load.finish().await
}

async fn has_block(cluster: &Cluster, node: usize, height: u64) -> Result<()> {
    let block = cluster.client("operator-1", node)?.block(Height(height)).await?;
    ensure!(block.block.header.height.0 == height, "{:?}", block.block.header);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_left_the_directory_are_served_as_before() -> Result<()> {
    let mut cluster = start().await?;
    let stele = CommandLine::of(&cluster)?;
    let mut acknowledged = submit(&cluster, scale(300, 20_000)).await?;
    let old = cluster.height(0).await?;
    for node in 0..NODES {
        archived_through(&cluster, node, old.saturating_sub(NEWEST_KEPT)).await?;
        ensure!(!files(&cluster, node)?.1.is_empty(), "something stays of what left node {node}");
        has_block(&cluster, node, 1).await?;
    }
    // Receipts of all of them, from every node.
    agreement::check(&cluster, &acknowledged).await?;
    for drive in fs::read_dir(cluster.network.dir().node("node-1").file("drives"))? {
        let bytes = fs::read(drive?.path())?;
        ensure!(!bytes.windows(CANARY.len()).any(|window| window == CANARY), "blocks are sealed");
    }

    // A node without anything fetches all blocks from the archives of the others.
    cluster.network.kill(3)?;
    cluster.network.wipe(3)?;
    let _ = fs::remove_dir_all(cluster.network.dir().node("node-4").file("drives"));
    cluster.network.start(3)?;
    cluster.network.wait_node_ready(3, READY_WAIT_MAX)?;
    cluster.wait_height(3, old, WAIT).await?;
    has_block(&cluster, 3, 1).await?;

    // One whose state is damaged executes what it has archived.
    cluster.network.stop(2)?;
    let state = cluster.network.dir().node("node-3").data().join("chain").join("state");
    fs::remove_dir_all(&state)?;
    cluster.network.start(2)?;
    cluster.network.wait_node_ready(2, READY_WAIT_MAX)?;
    cluster.wait_height(2, old, WAIT).await?;

    // A backup has the blocks that the node has no longer itself, also of one that is stopped.
    let made = stele.json("--node node-1 backup create --repository repository").await?;
    ensure!(made["oldest"] == 1 && made["height"].as_u64() >= Some(old), "{made}");
    let verified = stele.json("backup verify --repository repository").await?;
    ensure!(verified["verdict"] == "sound", "{verified}");
    cluster.network.stop(2)?;
    let made = stele.json("--node node-3 backup create --repository stopped --stopped").await?;
    ensure!(made["oldest"] == 1 && made["height"].as_u64() >= Some(old), "{made}");
    cluster.network.start(2)?;
    cluster.network.wait_node_ready(2, READY_WAIT_MAX)?;

    acknowledged.extend(submit(&cluster, 100).await?);
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_blocks_come_back_from_other_nodes_where_the_store_is_lost() -> Result<()> {
    let mut cluster = start().await?;
    let stele = CommandLine::of(&cluster)?;
    let acknowledged = submit(&cluster, 300).await?;
    let old = cluster.height(0).await?;
    archived_through(&cluster, 0, old.saturating_sub(NEWEST_KEPT)).await?;
    cluster.network.stop(0)?;
    let node = cluster.network.dir().node("node-1");
    fs::remove_dir_all(node.file("drives"))?;
    fs::remove_dir_all(node.data().join("payload"))?;
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    let deadline = Instant::now() + WAIT;
    while cluster.metric(0, "stele_storage_unavailable").await? > 0.0 {
        ensure!(Instant::now() < deadline, "the store does not open:\n{}", cluster.log(0)?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = has_block(&cluster, 0, 1).await.err().context("block 1 is lost")?;
    println!("{refused:#}");
    let rebuilt = stele.json("--node node-1 storage rebuild").await?;
    ensure!(rebuilt["job"] == "rebuild" && rebuilt["blocks"].as_u64() >= Some(1), "{rebuilt}");
    has_block(&cluster, 0, 1).await?;
    agreement::check(&cluster, &acknowledged).await?;
    // They are old still, and go again.
    archived_through(&cluster, 0, old.saturating_sub(NEWEST_KEPT)).await?;
    has_block(&cluster, 0, 1).await?;
    let again = stele.json("--node node-1 storage rebuild").await?;
    ensure!(again["blocks"] == 0, "what is there stays: {again}");
    Ok(())
}
