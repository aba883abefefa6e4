//! The network splits: three nodes go on, the fourth alone refuses, and after the split heals it has what the others have.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stele_client::Wait;
use stele_ctl::network::init::InitOptions;
use stele_testkit::load::records;
use stele_testkit::namespaces::Namespaces;
use stele_testkit::{Cluster, Load, LoadOptions, agreement, cluster};
use stele_types::exchange::Progress;

const NODES: usize = 4;
/// The node that is cut off.
const ALONE: usize = 3;

/// Processes in namespaces; they end with the test.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_minority_refuses_and_heals() -> Result<()> {
    let (namespaces, cluster, processes) = start().await?;
    let majority = (0..ALONE).map(|node| cluster.client("agency-1", node)).collect::<Result<Vec<_>>>()?;
    let load = Load::over(majority, &cluster.author("agency-1")?, LoadOptions::default());
    load.wait_more(200, Duration::from_secs(60)).await?;

    namespaces.split(&[ALONE])?;
    // Blocks that were under way may still arrive; then the minority must stand still.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let alone = cluster.height(ALONE).await?;
    let one = records(&cluster.author("agency-1")?, 1)?.remove(0);
    let wait = Wait::Certified(Duration::from_secs(3));
    match cluster.client("agency-1", ALONE)?.register(one.entry.into(), wait).await {
        Ok(status) => ensure!(status.progress == Some(Progress::Pending), "the minority acknowledged {status:?}"),
        Err(error) => ensure!(error.code() == "not_ready", "refused with another code: {error}"),
    }
    load.wait_more(400, Duration::from_secs(60)).await.context("the majority must go on")?;
    ensure!(cluster.height(ALONE).await? == alone, "the minority decided blocks alone");
    ensure!(cluster.height(0).await? > alone, "the majority did not decide blocks");

    namespaces.heal(&[ALONE])?;
    let height = cluster.height(0).await?;
    cluster.wait_height(ALONE, height, Duration::from_secs(120)).await.context("healing")?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    drop(processes);
    Ok(())
}

/// Two and two: neither half is a quorum.
#[tokio::test(flavor = "multi_thread")]
async fn neither_half_goes_on_and_both_heal() -> Result<()> {
    let (namespaces, cluster, processes) = start().await?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(200, Duration::from_secs(60)).await?;
    namespaces.split(&[2, 3])?;
    // Blocks that were under way may still be decided; then both halves must stand still.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = cluster.heights().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let after = cluster.heights().await;
    ensure!(before.iter().all(Option::is_some) && before == after, "a half went on: {before:?}, then {after:?}");
    // A client may still learn of what was decided before.
    let (acknowledged, decided) = (load.acknowledged_height(), before.iter().copied().max().flatten());
    ensure!(
        Some(acknowledged) <= decided,
        "a half acknowledged statements of height {acknowledged}, above {decided:?}"
    );

    namespaces.heal(&[2, 3])?;
    load.wait_more(200, Duration::from_secs(120)).await.context("healing")?;
    // Three of four are enough for that; the fourth may still be on its way back.
    let height = cluster.height(0).await?;
    for node in [2, 3] {
        cluster.wait_height(node, height, Duration::from_secs(120)).await.context("healing")?;
    }
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    drop(processes);
    Ok(())
}

/// A network with each node in a namespace of its own, running and ready.
async fn start() -> Result<(Namespaces, Cluster, Processes)> {
    let namespaces = Namespaces::create(NODES)?;
    let hosts = (0..NODES).map(Namespaces::address).collect();
    let cluster = Cluster::prepare(&InitOptions { hosts, ..InitOptions::default() }, "")?;
    let steled = cluster::steled()?;
    let mut processes = Processes(Vec::new());
    for (node, profile) in cluster.network.profile().nodes.iter().enumerate() {
        let dir = cluster.network.dir().node(&profile.name);
        let log = std::fs::File::create(dir.log())?;
        let mut command = namespaces.command(node, &steled);
        command.arg("run").arg("--config").arg(dir.config()).current_dir(dir.root());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        processes.0.push(command.spawn().context("cannot start a node in its namespace")?);
    }
    wait_ready(&cluster).await?;
    Ok((namespaces, cluster, processes))
}

async fn wait_ready(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    for (node, profile) in cluster.network.profile().nodes.iter().enumerate() {
        while let Err(error) = cluster.session.probe(profile)?.ready().await {
            if Instant::now() > deadline {
                bail!("node {node} is not ready: {error}\n{}", cluster.log(node)?);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}
