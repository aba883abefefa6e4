//! Two of four nodes are gone: the rest must refuse to go on, keep what they have, and go on when one returns.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use stele_client::Wait;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_testkit::load::records;
use stele_testkit::{Cluster, Load, LoadOptions, agreement, scale};
use stele_types::exchange::Progress;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_promised_and_nothing_is_lost() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(200, Duration::from_secs(60)).await?;
    cluster.network.kill(2)?;
    cluster.network.kill(3)?;
    // What was decided before the kill may still be committed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = (cluster.height(0).await?, cluster.height(1).await?);
    let acknowledged_before = load.acknowledged();

    let one = records(&cluster.author("agency-1")?, 1)?.remove(0);
    let answer =
        cluster.client("agency-1", 0)?.register(one.entry.into(), Wait::Certified(Duration::from_secs(3))).await;
    match answer {
        Ok(status) => ensure!(status.progress == Some(Progress::Pending), "acknowledged without a quorum: {status:?}"),
        Err(error) => ensure!(error.code() == "not_ready", "refused with another code: {error}"),
    }
    tokio::time::sleep(Duration::from_secs(if scale(0, 1) == 1 { 60 } else { 6 })).await;
    let after = (cluster.height(0).await?, cluster.height(1).await?);
    ensure!(before == after, "blocks were decided without a quorum: {before:?} {after:?}");
    if load.acknowledged() != acknowledged_before {
        bail!("{} statements were acknowledged without a quorum", load.acknowledged() - acknowledged_before);
    }

    cluster.network.start(2)?;
    load.wait_more(200, Duration::from_secs(90)).await?;
    cluster.network.start(3)?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}
