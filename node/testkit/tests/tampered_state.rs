//! Somebody changes one value in the state of one node while it is down. It must not vote for results that are not its
//! own, must say so and stop; the network goes on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_ledger::Stored as _;
use stele_ledger::value::RecordAnchor;
use stele_state::{MemoryMap, Options, StateHash, StateMap as _};
use stele_testkit::{Cluster, Load, LoadOptions, agreement, load};
use stele_types::{Command, ObjectId};

/// Exit status of a halted node.
const HALTED: i32 = 4;
/// A node that gets no further than a block it refuses stops after this time.
const CONFIGURATION: &str = "[order]\nwatchdog_stall_ms = 8000\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_state_was_changed_stops_voting_and_the_others_go_on() -> Result<()> {
    let mut cluster = Cluster::start_with(&InitOptions::default(), CONFIGURATION)?;
    let record = load::record()?;
    let id = record.record;
    let status = cluster.apply("agency-1", &Command::RecordPut(record)).await?;
    let height = status.height.context("height")?.0 + 1;
    for node in 0..cluster.network.len() {
        cluster.wait_height(node, height, Duration::from_secs(30)).await?;
    }
    // All at once, so that the changed node stands at the tip and judges fresh proposals.
    cluster.network.stop_all()?;
    let data = cluster.network.dir().node("node-4").data();
    tamper(&data.join("chain").join("state"), id)?;

    cluster.network.start_all()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions { workers: 2, ..LoadOptions::default() })?;
    let ended = cluster.wait_ended(3, Duration::from_secs(90)).await?;
    let log = cluster.log(3)?;
    ensure!(ended.code() == Some(HALTED), "the changed node ended with {ended}");
    ensure!(log.contains("state_root_mismatch"), "no proposal was refused for its state root:\n{log}");
    ensure!(log.contains("stops voting"), "the halt is not in the log:\n{log}");

    load.wait_more(200, Duration::from_secs(60)).await?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check_nodes(&cluster, &[0, 1, 2], &acknowledged).await?);
    Ok(())
}

/// Rebuilds the state in `directory` at the same height with one byte of one record's commitment changed.
fn tamper(directory: &Path, record: ObjectId) -> Result<()> {
    let (height, mut pairs) = {
        let opened = MemoryMap::open(directory, Options::new(StateHash::Sha256))?;
        let pairs: Vec<_> = opened.map.iter().map(|(key, value)| (*key, value.to_vec())).collect();
        (opened.height.context("an empty state")?, pairs)
    };
    let key = RecordAnchor::state_key(&record);
    let (_, value) = pairs.iter_mut().find(|(found, _)| *found == key).context("the record is not in the state")?;
    let commitment = RecordAnchor::from_value(value)?.commitment.0;
    let at = value.windows(32).position(|window| window == commitment).context("the commitment is not in the value")?;
    value[at] ^= 1;

    std::fs::remove_dir_all(directory)?;
    let mut map = MemoryMap::open(directory, Options::new(StateHash::Sha256))?.map;
    let writes = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let staged = map.stage(&map.root(), writes)?;
    map.commit(staged, height)?;
    map.sync()?;
    Ok(())
}
