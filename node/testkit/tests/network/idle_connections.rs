//! Thousands of connections that say nothing lie on the public listener: those who speak hardly notice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_client::Wait;
use stele_testkit::load::record;
use stele_testkit::wire::Speaker;
use stele_testkit::{Cluster, process, scale};
use stele_types::{Code, Command};
use tokio::task::JoinSet;

/// What p99 may add beside half of itself: on a machine with two cores the slowest of some hundred requests varies by
/// this much without any idle connection.
const MARGIN: Duration = Duration::from_millis(100);
/// Memory of one idle TLS connection in the node.
const CONNECTION_BYTES_MAX: u64 = 64 * 1024;
/// Handshakes at once: opening is not what is measured.
const OPENING: usize = 50;

/// The 99th percentile of registrations over a few connections, from submission to the certified outcome.
async fn p99(cluster: &Cluster, count: usize) -> Result<Duration> {
    const SPEAKERS: usize = 4;
    let author = cluster.author("agency-1")?;
    let mut speakers = JoinSet::new();
    for _ in 0..SPEAKERS {
        let (client, author) = (cluster.client("agency-1", 0)?, author.clone());
        speakers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..count / SPEAKERS {
                let signed = author.command(&Command::RecordPut(record()?))?;
                let started = Instant::now();
                let status = client.register(signed.entry.into(), Wait::Certified(Duration::from_secs(20))).await?;
                ensure!(status.code == Some(Code::Applied), "{status:?}");
                times.push(started.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(speaker) = speakers.join_next().await {
        times.extend(speaker.context("a client panicked")??);
    }
    times.sort();
    Ok(times[times.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little() -> Result<()> {
    let idle = scale(1_000, 5_000);
    let count = scale(200, 1_000);
    // Twice as many descriptors as connections: both ends of each lie on this machine.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let needed = u64::try_from(idle * 2 + 500)?;
    if limit.current.is_some_and(|current| current < needed) {
        let wanted = rustix::process::Rlimit { current: Some(needed), maximum: limit.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted)
            .with_context(|| format!("this test needs {needed} open files (`ulimit -n`)"))?;
    }
    let cluster = Cluster::start()?;
    p99(&cluster, 40).await.context("warming up")?;
    let quiet = p99(&cluster, count).await?;

    let pid = cluster.network.process_id(0).context("node 1 does not run")?;
    let before = process::resident_bytes(pid)?;
    let address = cluster.network.profile().nodes[0].public.clone();
    let ca = std::fs::read_to_string(cluster.network.dir().ca_certificate())?;
    let speaker = Speaker::new(&ca, None)?;
    let mut open = Vec::with_capacity(idle);
    while open.len() < idle {
        let mut opening = JoinSet::new();
        for _ in 0..OPENING.min(idle - open.len()) {
            let (speaker, address) = (speaker.clone(), address.clone());
            opening.spawn(async move { speaker.connect(&address).await });
        }
        while let Some(connection) = opening.join_next().await {
            open.push(connection.context("an opener panicked")??);
        }
    }
    let grown = process::resident_bytes(pid)?.saturating_sub(before);
    let crowded = p99(&cluster, count).await?;
    println!("p99 {quiet:?} alone, {crowded:?} with {idle} idle connections, {} KiB each", grown / 1024 / idle as u64);
    ensure!(open.len() == idle, "{} of {idle} connections", open.len());
    ensure!(grown / (idle as u64) < CONNECTION_BYTES_MAX, "{grown} bytes for {idle} connections");
    let bound = quiet * 3 / 2 + MARGIN;
    ensure!(crowded <= bound, "p99 {quiet:?} alone, {crowded:?} with {idle} idle connections, at most {bound:?}");
    Ok(())
}
