//! Where a node keeps the leaves of the state is its own affair: in memory or in pages, the roots are the same.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::{Cluster, Load, LoadOptions, agreement};

const PAGES: &str = "stele_execute_state_pages";
const WAIT: Duration = Duration::from_secs(60);

/// Replaces the state's part of a node's configuration.
fn configure(cluster: &Cluster, node: usize, state: &str) -> Result<()> {
    let path = cluster.network.dir().node(&format!("node-{}", node + 1)).config();
    let text = fs::read_to_string(&path)?;
    let kept = text.split("\n[state]\n").next().unwrap_or_default();
    Ok(fs::write(path, format!("{kept}\n[state]\nsnapshot_interval = 20\n{state}\n"))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_pages_and_nodes_without_agree_and_change_places() -> Result<()> {
    const PAGED: &str = "layout = \"paged\"\npage_cache_bytes = 16384";
    const MEMORY: &str = "layout = \"memory\"";
    let mut cluster = Cluster::prepare(&InitOptions::default(), "")?;
    for (node, state) in [PAGED, PAGED, MEMORY, MEMORY].into_iter().enumerate() {
        configure(&cluster, node, state)?;
        cluster.network.start(node)?;
    }
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(300, WAIT).await?;
    cluster.wait_metric(0, PAGES, 1.0, WAIT).await?;
    ensure!(cluster.metric(3, PAGES).await? == 0.0, "node 4 keeps its leaves in memory");
    // Snapshots for others come from pages as well.
    cluster.wait_metric(0, "stele_execute_state_export_height", 20.0, WAIT).await?;

    cluster.network.kill(0)?;
    load.wait_more(100, WAIT).await?;
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    for (node, state) in [(1, MEMORY), (3, PAGED)] {
        cluster.network.stop(node)?;
        configure(&cluster, node, state)?;
        cluster.network.start(node)?;
        cluster.network.wait_node_ready(node, READY_WAIT_MAX)?;
        load.wait_more(100, WAIT).await?;
    }
    cluster.wait_metric(3, PAGES, 1.0, WAIT).await?;
    ensure!(cluster.metric(1, PAGES).await? == 0.0, "node 2 keeps its leaves in memory now");
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_damaged_under_a_running_node_stop_it_and_the_state_is_built_again() -> Result<()> {
    let state = "[state]\nlayout = \"paged\"\npage_cache_bytes = 0\n";
    let mut cluster = Cluster::start_with(&InitOptions::default(), state)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    // Pages that a block has just made are in memory still; of so many, most are on the device only.
    cluster.wait_metric(3, PAGES, 300.0, Duration::from_secs(180)).await?;
    let before = cluster.log(3)?.len();
    let path = cluster.network.dir().node("node-4").data().join("chain").join("state").join("pages.data");
    let device = fs::File::options().read(true).write(true).open(&path)?;
    let mut damaged = 0;
    // New pages come meanwhile, but they are made of old ones.
    for block in 1..device.metadata()?.len() / 4096 {
        let mut byte = [0];
        device.read_exact_at(&mut byte, block * 4096 + 40)?;
        device.write_all_at(&[byte[0] ^ 1], block * 4096 + 40)?;
        damaged += 1;
    }
    ensure!(damaged > 100, "{damaged} blocks");
    cluster.wait_ended(3, WAIT).await?;
    let said = cluster.log(3)?.split_off(before);
    ensure!(said.contains("state_corrupt") && said.contains("pages.data"), "{said}");

    cluster.network.start(3)?;
    cluster.network.wait_node_ready(3, READY_WAIT_MAX)?;
    ensure!(cluster.log(3)?.contains("rebuilding"), "{}", cluster.log(3)?);
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}
