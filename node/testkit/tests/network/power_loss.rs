//! The power fails: what the disk was not made to keep is gone, on one node or on all four at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::agreement::Agreement;
use stele_testkit::disk::{self, Disk, FileSystem};
use stele_testkit::{Chance, Cluster, Load, LoadOptions, agreement, scale};

/// How long nodes run on with a dead disk before they are gone, too: what they say then must not be believed wrongly.
const AGONY: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_lost_power_whole_goes_on_where_it_was_on_ext4() -> Result<()> {
    everywhere(FileSystem::Ext4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_lost_power_whole_goes_on_where_it_was_on_xfs() -> Result<()> {
    everywhere(FileSystem::Xfs).await
}

async fn everywhere(kind: FileSystem) -> Result<()> {
    if cannot_test(kind) {
        return Ok(());
    }
    let mut chance = Chance::seeded()?;
    let mut cluster = Cluster::prepare(&InitOptions::default(), "")?;
    // Keys and guards lie on it, too.
    let disk = Disk::under(cluster.network.dir().root(), kind)?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let rounds = scale(3, 40);
    for round in 0..rounds {
        let going = load.wait_more(100, Duration::from_secs(90)).await;
        going.with_context(|| format!("round {round}\n{}", last_words(&cluster)))?;
        tokio::time::sleep(chance.moment(Duration::from_millis(800))).await;
        disk.cut_power()?;
        tokio::time::sleep(chance.moment(AGONY)).await;
        cluster.network.kill_all()?;
        disk.restore_power()?;
        cluster.network.start_all()?;
    }
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    load.wait_more(100, Duration::from_secs(90)).await?;
    let acknowledged = load.finish().await?;
    ensure!(acknowledged.len() >= 100 * rounds, "{} acknowledgements", acknowledged.len());
    report(&agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_power_comes_back_and_votes() -> Result<()> {
    const VICTIM: usize = 3;
    if cannot_test(FileSystem::Xfs) {
        return Ok(());
    }
    let mut chance = Chance::seeded()?;
    let mut cluster = Cluster::prepare(&InitOptions::default(), "")?;
    let disk = Disk::under(cluster.network.dir().node("node-4").root(), FileSystem::Xfs)?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    for _ in 0..scale(3, 40) {
        load.wait_more(100, Duration::from_secs(60)).await?;
        tokio::time::sleep(chance.moment(Duration::from_millis(800))).await;
        disk.cut_power()?;
        tokio::time::sleep(chance.moment(AGONY)).await;
        cluster.network.kill(VICTIM)?;
        disk.restore_power()?;
        cluster.network.start(VICTIM)?;
        cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX)?;
    }
    // Three of four are a quorum: without node 0, the victim must vote.
    report(&agreement::check_without(&mut cluster, load, 0).await?);
    Ok(())
}

/// Whether this machine cannot have such a disk; the reason is told.
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn cannot_test(kind: FileSystem) -> bool {
    let why = disk::missing(kind);
    if let Some(why) = &why {
        eprintln!("not tested: {why}");
    }
    why.is_some()
}

#[expect(clippy::print_stdout, reason = "shown with --nocapture and by a failing run")]
fn report(agreement: &Agreement) {
    println!("{agreement:?}");
}

/// The end of every node's log.
fn last_words(cluster: &Cluster) -> String {
    const LINES: usize = 12;
    let words = |node: usize| {
        let log = cluster.log(node).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("node {node}:\n{}\n", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    };
    (0..cluster.network.len()).map(words).collect()
}
