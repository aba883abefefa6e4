//! One node's results are not those of the others: it must not vote for results that are not its own, must say so, be
//! not ready, and stop; the network goes on as long as a quorum agrees.
//!
//! What somebody changes on disk while a node is down is found when it starts. So results are changed here in the memory
//! of the running process, as a failing memory module would.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_client::{Client, Endpoint};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ledger::Stored as _;
use stele_ledger::value::RecordAnchor;
use stele_state::{Options, StateHash, StateMap as _, TreeMap};
use stele_testkit::{Cluster, Load, LoadOptions, agreement, load, memory};
use stele_types::{Command, Height, ObjectId};

/// Exit status of a halted node.
const HALTED: i32 = 4;

/// Registers a record and waits until every node stands at a height without statements. Returns the record.
async fn settled(cluster: &Cluster) -> Result<ObjectId> {
    let record = load::record()?;
    let id = record.record;
    let status = cluster.apply("agency-1", &Command::RecordPut(record)).await?;
    let height = status.height.context("height")?.0 + 1;
    for node in 0..cluster.network.len() {
        cluster.wait_height(node, height, Duration::from_secs(30)).await?;
    }
    Ok(id)
}

/// Changes the root of the log in the memory of some nodes that stand still. The newest block is empty, so its header
/// names the root that stands after it as well.
async fn change_results(cluster: &Cluster, nodes: &[usize]) -> Result<()> {
    for node in nodes {
        let height = cluster.height(*node).await?;
        let plain = cluster.network.profile().nodes[*node].plain.clone().context("plain listener")?;
        let header = Client::of(Endpoint::http(&plain)?, None)?.header(Height(height)).await?.header;
        let process = cluster.network.process_id(*node).context("process")?;
        memory::flip(process, &header.log_root.0)?;
    }
    Ok(())
}

/// Waits until a node says that it has diverged, and returns its count of mismatches then.
async fn diverged(cluster: &Cluster, node: usize) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let probe = cluster.session.probe(&cluster.network.profile().nodes[node])?;
    loop {
        if probe.ready().await.err().is_some_and(|error| error.to_string().contains("state_diverged")) {
            return mismatches(cluster, node).await;
        }
        ensure!(Instant::now() < deadline, "node {node} does not say that it diverged:\n{}", cluster.log(node)?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The metric, read as Prometheus reads it.
async fn mismatches(cluster: &Cluster, node: usize) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = &cluster.network.profile().nodes[node].metrics;
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text.lines().find(|line| line.starts_with("stele_execute_state_root_mismatches_total"));
    Ok(line.context("the metric")?.rsplit(' ').next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_results_were_changed_stops_voting_and_the_others_go_on() -> Result<()> {
    let mut cluster = Cluster::start()?;
    settled(&cluster).await?;
    change_results(&cluster, &[3]).await?;
    let load = Load::over(
        vec![cluster.roaming_client("agency-1", 0)?, cluster.roaming_client("agency-1", 1)?],
        &cluster.author("agency-1")?,
        LoadOptions { workers: 2, ..LoadOptions::default() },
    );
    ensure!(diverged(&cluster, 3).await? == "1", "a divergence counts once");
    let ended = cluster.wait_ended(3, Duration::from_secs(30)).await?;
    let log = cluster.log(3)?;
    ensure!(ended.code() == Some(HALTED), "the changed node ended with {ended}");
    ensure!(log.contains("stops voting"), "the halt is not in the log:\n{log}");

    load.wait_more(200, Duration::from_secs(60)).await?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check_nodes(&cluster, &[0, 1, 2], &acknowledged).await?);

    // Its blocks are sound: started again, it executes them and agrees.
    cluster.network.start(3)?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

/// Without a quorum on either side no block is decided, so none is ever fetched that would show the divergence. A node
/// learns it from the proposals of more validators than may be faulty; when a pair has halted, the other two are too few.
#[tokio::test(flavor = "multi_thread")]
async fn two_against_two_decide_nothing_and_say_that_they_have_diverged() -> Result<()> {
    let mut cluster = Cluster::start()?;
    settled(&cluster).await?;
    change_results(&cluster, &[2, 3]).await?;
    let before = cluster.heights().await;
    let load = Load::start(&cluster, "agency-1", LoadOptions { workers: 2, ..LoadOptions::default() })?;
    let mut halted = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(90);
    while halted.len() < 2 {
        ensure!(Instant::now() < deadline, "only {halted:?} halted:\n{}", cluster.log(0)?);
        for node in 0..cluster.network.len() {
            if let Some(ended) = cluster.network.ended(node)? {
                let log = cluster.log(node)?;
                ensure!(ended.code() == Some(HALTED), "node {node} ended with {ended}:\n{log}");
                ensure!(log.contains("log_root_mismatch") && log.contains("state_diverged"), "node {node}:\n{log}");
                halted.push(node);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (node, height) in cluster.heights().await.into_iter().enumerate() {
        ensure!(height.is_none() || height == before[node], "node {node} decided block {height:?}");
        let probe = cluster.session.probe(&cluster.network.profile().nodes[node])?;
        ensure!(probe.ready().await.is_err(), "node {node} says that it is ready");
    }
    let acknowledged = load.abandon().await;
    cluster.network.stop_all()?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

/// Somebody changes one value in the state on disk while the node is down. The header of the tip certifies the state below
/// it, so the change is found when the node starts, and the state is built again from the blocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_changed_on_disk_is_found_and_built_again() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let record = settled(&cluster).await?;
    cluster.network.stop_all()?;
    let data = cluster.network.dir().node("node-4").data();
    tamper(&data.join("chain").join("state"), record)?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    cluster.wait_log(3, "state_diverged", Duration::from_secs(1)).await?;
    cluster.wait_log(3, "rebuilding them from the blocks", Duration::from_secs(1)).await?;
    let load = Load::start(&cluster, "agency-1", LoadOptions { workers: 2, ..LoadOptions::default() })?;
    load.wait_more(200, Duration::from_secs(60)).await?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

/// Writes the state in `directory` anew as it was below its newest height, with one byte of one record's commitment
/// changed: checksums and roots of the files are sound.
fn tamper(directory: &Path, record: ObjectId) -> Result<()> {
    let newest = TreeMap::open(directory, Options::new(StateHash::Sha256))?.height.context("an empty state")?;
    let height = newest - 1;
    let below = Options { height_max: Some(height), ..Options::new(StateHash::Sha256) };
    let mut pairs: Vec<_> = {
        let map = TreeMap::open(directory, below)?.map;
        map.iter().collect::<Result<_, _>>()?
    };
    let key = RecordAnchor::state_key(&record);
    let (_, value) = pairs.iter_mut().find(|(found, _)| *found == key).context("the record is not in the state")?;
    let commitment = RecordAnchor::from_value(value)?.commitment.0;
    let at = value.windows(32).position(|window| window == commitment).context("the commitment is not in the value")?;
    value[at] ^= 1;

    std::fs::remove_dir_all(directory)?;
    let mut map = TreeMap::open(directory, Options::new(StateHash::Sha256))?.map;
    let writes = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let staged = map.stage(&map.root(), writes)?;
    map.commit(staged, height)?;
    map.sync()?;
    Ok(())
}
