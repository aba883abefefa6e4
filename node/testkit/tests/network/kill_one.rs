//! A node is killed at a random moment under load and started again, many times. Nobody helps it.

use std::time::Duration;

use anyhow::{Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_testkit::{Chance, Cluster, Load, LoadOptions, agreement, scale};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_with_everything_it_acknowledged() -> Result<()> {
    let mut chance = Chance::seeded()?;
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let kills = scale(8, 200);
    for _ in 0..kills {
        tokio::time::sleep(chance.moment(Duration::from_millis(1_500))).await;
        let victim = chance.below(cluster.network.len());
        cluster.network.kill(victim)?;
        tokio::time::sleep(chance.moment(Duration::from_millis(1_000))).await;
        cluster.network.start(victim)?;
        // Half of the kills hit a network that has recovered, the others one that is still recovering.
        if chance.below(2) == 0 {
            cluster.network.wait_ready(READY_WAIT_MAX)?;
        }
    }
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    load.wait_more(100, Duration::from_secs(60)).await?;
    let acknowledged = load.finish().await?;
    ensure!(acknowledged.len() > kills, "{} acknowledgements", acknowledged.len());
    let agreement = agreement::check(&cluster, &acknowledged).await?;
    println!("{kills} kills: {agreement:?}");
    Ok(())
}
