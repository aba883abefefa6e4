//! Bodies in the cold tier, a real Ceph cluster: acknowledged by it, read while it is away, and given back to a node that lost
//! everything but its keys.

#[path = "../../../../storage/cold/tests/ceph/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stdout, reason = "shared with the tests of the tier itself")]
mod ceph;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_client::{BlobView, Client};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::{InitOptions, PayloadDrives};
use stele_testkit::{Cluster, CommandLine, cluster};
use stele_types::record::RecordClass;
use stele_types::{Hash, ObjectId};

const NODE: &str = "node-1";
const WAIT: Duration = Duration::from_secs(90);

#[test]
fn bodies_of_a_cold_class_are_acknowledged_by_ceph_and_outlive_their_node() -> Result<()> {
    let Some(mut ceph) = ceph::Cluster::start() else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut network = runtime.block_on(start(&ceph))?;
    let kept = runtime.block_on(they_are_acknowledged_by_it(&network))?;
    // From this thread, with which the kernel ends the daemons.
    ceph.stop("radosgw");
    let late = runtime.block_on(while_it_is_away_others_have_them(&network))?;
    ceph.restart("radosgw");
    runtime.block_on(it_catches_up(&network, &late))?;
    let kept = kept.into_iter().chain([late]).collect::<Vec<_>>();
    runtime.block_on(a_node_that_lost_all_but_its_keys_has_them_again(&mut network, &kept))
}

/// A body that was put.
struct Kept {
    root: Hash,
    content: Vec<u8>,
}

/// A network whose nodes all keep bodies; those of one class, at the first node, in the tier as well.
async fn start(ceph: &ceph::Cluster) -> Result<Cluster> {
    let drives = PayloadDrives { drive_bytes: 32 << 20, slot_bytes: 2 << 20, ..PayloadDrives::SMALL };
    let mut network = Cluster::prepare(&InitOptions { payload: Some(drives), ..InitOptions::default() }, "")?;
    let dir = network.network.dir().node(NODE);
    let options = ceph.options("segments", "seals");
    let credentials = ceph::credentials();
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(dir.file("cold.credentials"))?;
    writeln!(file, "{}\n{}", credentials.key_id, credentials.secret)?;
    let text = fs::read_to_string(dir.config())?;
    let level = "level = \"two-custodians\"\n";
    ensure!(text.contains(level), "{text}");
    let text = text.replace(level, &format!("{level}levels = {{ medical = \"cold\" }}\n"));
    let section = format!(
        "[payload.cold]\nendpoint = \"{}\"\nobjects = \"segments\"\nseals = \"seals\"\nprefix = \"{NODE}\"\n\
         credentials = \"cold.credentials\"\nseal_ms = 0\n",
        options.endpoint
    );
    fs::write(dir.config(), format!("{text}\n{section}"))?;
    let said = steled(&network, &["storage", "cold"])?;
    ensure!(said.contains("replacing    refused") && said.contains("lock         none"), "{said}");
    network.network.start_all()?;
    network.network.wait_ready(READY_WAIT_MAX)?;
    for node in 0..4 {
        open(&network, node).await?;
    }
    Ok(network)
}

/// Runs a command on the first node's own data; what it said.
fn steled(network: &Cluster, arguments: &[&str]) -> Result<String> {
    let dir = network.network.dir().node(NODE);
    let output = Command::new(cluster::steled()?)
        .args(arguments)
        .arg("--config")
        .arg(dir.config())
        .current_dir(dir.root())
        .output()?;
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(said)
}

async fn open(network: &Cluster, node: usize) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    while network.metric(node, "stele_storage_unavailable").await? > 0.0 {
        ensure!(Instant::now() < deadline, "the store of node {node} does not open:\n{}", network.log(node)?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 31 + usize::from(seed)) % 251).unwrap_or_default()).collect()
}

async fn put(client: &Client, directory: &Path, class: RecordClass, content: &[u8]) -> Result<(Hash, BlobView)> {
    let path = directory.join("body");
    fs::write(&path, content)?;
    let blob = client.put_body(&ObjectId([9; 16]), class, None, &path).await?;
    Ok((Hash::from_hex(&blob.root).context("root")?, blob))
}

async fn read(client: &Client, root: &Hash, length: usize) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    while read.len() < length {
        read.extend_from_slice(&client.body(root, read.len() as u64, 8 << 20).await?.0);
    }
    Ok(read)
}

async fn they_are_acknowledged_by_it(network: &Cluster) -> Result<Vec<Kept>> {
    let client = network.client("agency-1", 0)?;
    let mut kept = Vec::new();
    // Of one record, and of parts in more than one segment.
    for (seed, length) in [(1, 5_000), (2, 5_000_000)] {
        let content = content(seed, length);
        let (root, blob) = put(&client, network.directory(), RecordClass::Medical, &content).await?;
        ensure!(blob.custody.wanted == "cold" && blob.custody.is_reached(), "{:?}\n{}", blob.custody, network.log(0)?);
        ensure!(blob.custody.receipts.len() == 1, "another node has it, too: {:?}", blob.custody);
        kept.push(Kept { root, content });
    }
    let (_, blob) = put(&client, network.directory(), RecordClass::Tourism, &content(3, 5_000)).await?;
    ensure!(blob.custody.wanted == "two-custodians" && blob.custody.is_reached(), "{:?}", blob.custody);
    network.wait_metric(0, "stele_cold_segments", 2.0, WAIT).await?;
    let copied = network.metric(0, "stele_cold_copied_total").await?;
    ensure!(copied >= 2.0, "{copied} were copied");
    Ok(kept)
}

async fn while_it_is_away_others_have_them(network: &Cluster) -> Result<Kept> {
    let client = network.client("agency-1", 0)?;
    let content = content(4, 40_000);
    let (root, blob) = put(&client, network.directory(), RecordClass::Medical, &content).await?;
    ensure!(!blob.custody.is_reached() && blob.custody.reached == "two-custodians", "{:?}", blob.custody);
    ensure!(read(&client, &root, content.len()).await? == content, "the drives have it");
    Ok(Kept { root, content })
}

async fn it_catches_up(network: &Cluster, late: &Kept) -> Result<()> {
    let client = network.client("agency-1", 0)?;
    let deadline = Instant::now() + WAIT;
    while !client.body_custody(&late.root, Duration::from_secs(10)).await?.is_reached() {
        ensure!(Instant::now() < deadline, "it does not go there any more:\n{}", network.log(0)?);
    }
    ensure!(network.metric(0, "stele_cold_failures_total").await? > 0.0, "that it failed is counted");
    ensure!(network.metric(0, "stele_cold_caught_up_timestamp_seconds").await? > 0.0, "and that it is done");
    Ok(())
}

async fn a_node_that_lost_all_but_its_keys_has_them_again(network: &mut Cluster, kept: &[Kept]) -> Result<()> {
    network.network.kill(0)?;
    let dir = network.network.dir().node(NODE);
    fs::remove_dir_all(dir.file("drives"))?;
    fs::remove_dir_all(dir.data().join("payload"))?;
    steled(network, &["storage", "format", "--erase", "--from-cold"])?;
    network.network.start(0)?;
    network.network.wait_node_ready(0, READY_WAIT_MAX)?;
    open(network, 0).await?;
    let client = network.client("agency-1", 0)?;
    for body in kept {
        // The objects are read again behind the start; the class key comes from another node.
        comes_back(network, &client, body).await?;
    }
    // What was not in the tier comes from the copies; and the store goes on, also after a restart.
    let stele = CommandLine::of(network)?;
    let rebuilt = stele.json(&format!("--node {NODE} storage rebuild")).await?;
    ensure!(rebuilt["bodies"] == 1, "{rebuilt}");
    let content = content(7, 70_000);
    let (root, blob) = put(&client, network.directory(), RecordClass::Medical, &content).await?;
    ensure!(blob.custody.is_reached(), "{:?}", blob.custody);
    network.network.stop(0)?;
    network.network.start(0)?;
    network.network.wait_node_ready(0, READY_WAIT_MAX)?;
    open(network, 0).await?;
    let client = network.client("agency-1", 0)?;
    comes_back(network, &client, &Kept { root, content }).await?;
    comes_back(network, &client, &kept[0]).await
}

/// Waits until a body is given as it was: the tier is reached behind the start of a node.
async fn comes_back(network: &Cluster, client: &Client, body: &Kept) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        match read(client, &body.root, body.content.len()).await {
            Ok(read) => {
                ensure!(read == body.content, "{} comes back changed", body.root);
                return Ok(());
            }
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}\n{}", network.log(0)?),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
