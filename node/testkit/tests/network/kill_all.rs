//! All four nodes lose power at once under load, and start again without help.

use std::time::Duration;

use anyhow::{Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_testkit::{Chance, Cluster, Load, LoadOptions, agreement, scale};

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_was_killed_whole_goes_on_where_it_was() -> Result<()> {
    let mut chance = Chance::seeded()?;
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let rounds = scale(3, 40);
    for _ in 0..rounds {
        load.wait_more(100, Duration::from_secs(90)).await?;
        tokio::time::sleep(chance.moment(Duration::from_millis(800))).await;
        cluster.network.kill_all()?;
        cluster.network.start_all()?;
    }
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    load.wait_more(100, Duration::from_secs(90)).await?;
    let acknowledged = load.finish().await?;
    ensure!(acknowledged.len() >= 100 * rounds, "{} acknowledgements", acknowledged.len());
    let agreement = agreement::check(&cluster, &acknowledged).await?;
    println!("{rounds} rounds: {agreement:?}");
    Ok(())
}
