//! Copies of bodies on other nodes: made before a body is acknowledged, and what a node that lost something is made of.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_client::{BlobView, Client};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::{InitOptions, PayloadDrives};
use stele_testkit::command_line::text_of;
use stele_testkit::{Cluster, CommandLine};
use stele_types::custody::CustodyReceipt;
use stele_types::record::RecordClass;
use stele_types::{Hash, ObjectId, Suite, cbor};
use stele_verify::signature;

const WAIT: Duration = Duration::from_secs(60);
const NODE: &str = "node-1";
const NODES: usize = 4;

/// A network whose nodes all keep bodies, each with a copy on another.
async fn start() -> Result<Cluster> {
    let drives = PayloadDrives { drive_bytes: 32 << 20, slot_bytes: 2 << 20, ..PayloadDrives::SMALL };
    let mut cluster =
        Cluster::prepare(&InitOptions { payload: Some(drives), agencies: 2, ..InitOptions::default() }, "")?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    for node in 0..NODES {
        open(&cluster, node).await?;
    }
    Ok(cluster)
}

/// Waits until a node's store is open, which no receipt waits for.
async fn open(cluster: &Cluster, node: usize) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    while cluster.metric(node, "stele_storage_unavailable").await? > 0.0 {
        ensure!(Instant::now() < deadline, "the store of node {node} does not open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn body(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 29 + usize::from(seed)) % 251).unwrap_or_default()).collect()
}

async fn put(client: &Client, directory: &Path, content: &[u8]) -> Result<BlobView> {
    let path = directory.join("body");
    fs::write(&path, content)?;
    Ok(client.put_body(&ObjectId([9; 16]), RecordClass::Medical, Some(2056), &path).await?)
}

async fn read(client: &Client, root: &Hash, length: usize) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    while read.len() < length {
        read.extend_from_slice(&client.body(root, read.len() as u64, 8 << 20).await?.0);
    }
    Ok(read)
}

/// The nodes that have the sealed form.
async fn holders(cluster: &Cluster, root: &Hash) -> Result<Vec<usize>> {
    let mut holders = Vec::new();
    for node in 0..NODES {
        if cluster.client("operator-1", node)?.sealed_body(root, 0, 1).await.is_ok() {
            holders.push(node);
        }
    }
    Ok(holders)
}

fn wipe(cluster: &Cluster) -> Result<()> {
    let node = cluster.network.dir().node(NODE);
    fs::remove_dir_all(node.file("drives"))?;
    fs::remove_dir_all(node.data().join("payload"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_whole_store_is_made_again_from_copies() -> Result<()> {
    let mut cluster = start().await?;
    let stele = CommandLine::of(&cluster)?;
    let client = cluster.client("agency-1", 0)?;
    let mut kept = Vec::new();
    for seed in 0..6 {
        let content = body(seed, 300_000 * usize::from(seed) + 100);
        let blob = put(&client, stele.working_dir(), &content).await?;
        ensure!(blob.custody.is_reached() && blob.custody.reached == "two-custodians", "{:?}", blob.custody);
        let root = Hash::from_hex(&blob.root).context("root")?;
        // What another node signed for is what it has, and its key is the one that the configuration names.
        let [signed] = &blob.custody.receipts[..] else { anyhow::bail!("one receipt") };
        let key = hex::decode(&signed.key)?;
        let receipt: CustodyReceipt = cbor::from_slice(&hex::decode(&signed.receipt)?)?;
        let verified = signature::verify(Suite::Es256, &key, &receipt.signing_bytes(), &receipt.signature);
        ensure!(verified.is_ok() && receipt.body_root == root, "{receipt:?}");
        let config = fs::read_to_string(cluster.network.dir().node(NODE).config())?;
        ensure!(config.contains(&format!("receipt_key = \"{}\"", signed.key)), "{}", signed.key);
        let holders = holders(&cluster, &root).await?;
        ensure!(holders.len() == 2 && holders[0] == 0, "{holders:?}");
        // Anybody can check it, with a program that asks nobody.
        fs::write(stele.working_dir().join("copy.receipt"), hex::decode(&signed.receipt)?)?;
        let genesis = cluster.network.dir().genesis().display().to_string();
        let arguments = format!("copy.receipt --key {} --genesis {genesis} --json", signed.key);
        let said = stele.run("stele-verify", &arguments).await?;
        let verdict: serde_json::Value = serde_json::from_str(&said.out).with_context(|| said.err.clone())?;
        ensure!(verdict["verdict"] == "vouched_by_one_node" && verdict["body_root"] == *blob.root, "{verdict}");
        kept.push((root, content));
    }
    // Bodies of other nodes, of some of which the first one keeps the copy.
    let mut copies = HashSet::new();
    for seed in 10..18 {
        let node = 1 + usize::from(seed) % 3;
        let blob = put(&cluster.client("agency-1", node)?, stele.working_dir(), &body(seed, 50_000)).await?;
        let root = Hash::from_hex(&blob.root).context("root")?;
        if holders(&cluster, &root).await?.contains(&0) {
            copies.insert(root);
        }
    }
    cluster.network.kill(0)?;
    wipe(&cluster)?;
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    open(&cluster, 0).await?;
    let client = cluster.client("agency-1", 0)?;
    let refused = client.body(&kept[0].0, 0, 10).await.err().context("it is gone")?;
    ensure!(refused.code() == "not_found", "{refused}");
    let rebuilt = stele.json(&format!("--node {NODE} storage rebuild")).await?;
    ensure!(rebuilt["job"] == "rebuild" && rebuilt["bodies"] == kept.len() + copies.len(), "{rebuilt} of {copies:?}");
    for (root, content) in &kept {
        ensure!(read(&client, root, content.len()).await? == *content, "{root} comes back as it was");
    }
    for root in &copies {
        ensure!(holders(&cluster, root).await?.contains(&0), "{root} is kept again");
    }
    let again = stele.json(&format!("--node {NODE} storage rebuild")).await?;
    ensure!(again["bodies"] == 0, "what is there stays: {again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_waits_for_its_copy_while_the_others_are_away() -> Result<()> {
    let mut cluster = start().await?;
    let stele = CommandLine::of(&cluster)?;
    // One more node may fail than there are copies.
    cluster.network.stop(3)?;
    let client = cluster.client("agency-1", 0)?;
    let content = body(1, 700_000);
    let mut roots = Vec::new();
    for _ in 0..4 {
        let blob = put(&client, stele.working_dir(), &content).await?;
        ensure!(blob.custody.is_reached(), "another node takes the place of the one that is away: {:?}", blob.custody);
        roots.push(Hash::from_hex(&blob.root).context("root")?);
    }
    for node in [1, 2] {
        cluster.network.stop(node)?;
    }
    let blob = put(&client, stele.working_dir(), &content).await?;
    ensure!(!blob.custody.is_reached() && blob.custody.reached == "local", "{:?}", blob.custody);
    let root = Hash::from_hex(&blob.root).context("root")?;
    ensure!(cluster.metric(0, "stele_custody_not_copied_total").await? > 0.0, "it was tried");
    // What the journal says is what counts after a crash, too.
    cluster.network.kill(0)?;
    for node in 0..NODES {
        cluster.network.start(node)?;
    }
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    open(&cluster, 0).await?;
    cluster.wait_metric(0, "stele_custody_copied_total", 1.0, WAIT).await?;
    let client = cluster.client("agency-1", 0)?;
    let custody = client.body_custody(&root, Duration::from_secs(10)).await?;
    ensure!(custody.is_reached() && custody.receipts.len() == 1, "{custody:?}");
    ensure!(holders(&cluster, &root).await?.len() == 2, "one copy and no more");
    let stranger = cluster.client("agency-2", 0)?;
    let refused = stranger.body_custody(&root, Duration::ZERO).await.err().context("not theirs")?;
    ensure!(refused.code() == "not_found", "{refused}");
    let refused = client.class_keys(&"00".repeat(65)).await.err().context("no operator")?;
    ensure!(refused.code() == "forbidden", "{refused}");
    let operator = cluster.client("operator-1", 1)?;
    let refused = operator.class_keys(&"04".repeat(65)).await.err().context("nobody that the node knows")?;
    ensure!(refused.code() == "forbidden", "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_parity_cannot_mend_comes_back_from_the_copy() -> Result<()> {
    let mut cluster = start().await?;
    let stele = CommandLine::of(&cluster)?;
    let client = cluster.client("agency-1", 0)?;
    let content = body(5, 2_500_000);
    let blob = put(&client, stele.working_dir(), &content).await?;
    let root = Hash::from_hex(&blob.root).context("root")?;
    let operator = cluster.client("operator-1", 0)?;
    let mut sealed = Vec::new();
    let length = operator.sealed_body(&root, 0, 1).await?.1;
    while (sealed.len() as u64) < length {
        sealed.extend_from_slice(&operator.sealed_body(&root, sealed.len() as u64, 1 << 20).await?.0);
    }
    cluster.network.stop(0)?;
    let damaged = damage(&cluster.network.dir().node(NODE).file("drives"), &sealed)?;
    ensure!(damaged > 500, "{damaged} places of {} bytes", sealed.len());
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    open(&cluster, 0).await?;
    let client = cluster.client("agency-1", 0)?;
    // A body that breaks off is brought back behind that; the next reader has all of it.
    let deadline = Instant::now() + WAIT;
    loop {
        match read(&client, &root, content.len()).await {
            Ok(read) if read == content => break,
            Ok(_) => anyhow::bail!("it comes back changed"),
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(cluster.metric(0, "stele_custody_mended_total").await? >= 1.0, "from a copy");
    let scrubbed = stele.json_with(&format!("--node {NODE} storage scrub"), 1).await?;
    ensure!(scrubbed["job"] == "scrub", "{scrubbed}");
    ensure!(read(&client, &root, content.len()).await? == content, "and stays");
    let text = text_of(&scrubbed, "node")?;
    ensure!(text == NODE, "{text}");
    Ok(())
}

/// Flips a byte in every 4 KiB of a sealed body wherever it lies on the drives; how many.
fn damage(drives: &Path, sealed: &[u8]) -> Result<usize> {
    let places: HashSet<[u8; 16]> =
        sealed.chunks(4096).filter_map(|chunk| chunk.first_chunk::<16>().copied()).collect();
    let mut damaged = 0;
    for drive in fs::read_dir(drives)? {
        let path = drive?.path();
        let mut bytes = fs::read(&path)?;
        let found: Vec<usize> = (0..bytes.len().saturating_sub(16))
            .filter(|at| bytes[at + 1] != 0 && bytes[*at..].first_chunk().is_some_and(|here| places.contains(here)))
            .collect();
        damaged += found.len();
        found.into_iter().for_each(|at| bytes[at + 8] ^= 1);
        fs::write(&path, bytes)?;
    }
    Ok(damaged)
}
