//! A node whose turn to propose does not come hands its statements on: another validator proposes them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_client::{Client, Endpoint, Wait};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::validator_of;
use stele_testkit::load::records;
use stele_testkit::{Cluster, Load, LoadOptions, agreement};
use stele_types::PartyId;

/// The node that is demoted.
const DEMOTED: usize = 3;
/// Heights it misses: it skips 16 turns, then 32, then 64, and a turn comes every fourth height. Afterwards its turn is
/// more than a hundred heights away, which a network without load does not reach while one statement waits.
const MISSED: u64 = 4 * (16 + 32) + 16;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_demoted_node_admits_is_proposed_by_others() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let demoted = validator_of(cluster.network.dir().node("node-4").root(), PartyId([0; 16]))?.id();

    cluster.network.kill(DEMOTED)?;
    let clients = (0..DEMOTED).map(|node| cluster.client("agency-1", node)).collect::<Result<Vec<_>>>()?;
    let load = Load::over(clients, &cluster.author("agency-1")?, LoadOptions::default());
    let height = cluster.height(0).await?;
    cluster.wait_height(0, height + MISSED, Duration::from_secs(180)).await?;
    let mut acknowledged = load.finish().await?;
    cluster.network.start(DEMOTED)?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;

    // Given to this node alone, which forwards after two seconds.
    let client = cluster.client("agency-1", DEMOTED)?;
    let plain = cluster.network.profile().nodes[0].plain.clone().context("plain listener")?;
    let reader = Client::of(Endpoint::http(&plain)?, None)?;
    // One, because heights go on, empty, while it waits: some eighty in two seconds, and the turn comes after 256.
    for signed in records(&cluster.author("agency-1")?, 1)? {
        let status = client.register(signed.entry.clone().into(), Wait::Certified(Duration::from_secs(20))).await?;
        let height = status.height.context("no outcome")?;
        let proposer = reader.header(height).await?.header.proposer;
        ensure!(proposer != demoted, "the node proposed the statement itself at {height}: it was not demoted");
        acknowledged.push(status);
    }
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}
