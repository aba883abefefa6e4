//! A node loses its data directory but keeps its keys and its vote guard: it must fetch everything and vote again.

use std::time::Duration;

use anyhow::Result;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_testkit::{Cluster, Load, LoadOptions, agreement, scale};

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_rejoins_and_its_vote_counts() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(scale(500, 20_000), Duration::from_secs(600)).await?;
    cluster.network.kill(3)?;
    load.wait_more(scale(200, 5_000), Duration::from_secs(600)).await?;
    cluster.network.wipe(3)?;
    cluster.network.start(3)?;
    cluster.network.wait_node_ready(3, READY_WAIT_MAX)?;
    let height = cluster.height(0).await?;
    cluster.wait_height(3, height, Duration::from_secs(120)).await?;

    // Three of four are a quorum: without node 0, the wiped node must vote.
    println!("{:?}", agreement::check_without(&mut cluster, load, 0).await?);
    Ok(())
}
