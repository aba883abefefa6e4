//! The node's figures: one validator, four validators, one down, catch-up.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use stele_ctl::network::init::InitOptions;
use stele_types::Suite;

use crate::BenchArguments;
use crate::figures::{Figures, quantile};
use crate::growth;
use crate::hardware;
use crate::input;
use crate::pipeline::{self, Load};
use crate::stage::Stage;

/// Batches in flight on each node.
pub(crate) const IN_FLIGHT: usize = 4;

pub(crate) async fn run(arguments: BenchArguments) -> Result<()> {
    let mut figures = Figures::to(arguments.json.as_deref())?;
    let scale = |count: usize| if arguments.quick { count / 10 } else { count };
    let wanted = |name: &str| name.starts_with(&arguments.only) || arguments.only.starts_with(name);
    for (name, suite, count) in [
        ("node.one.eddsa", Suite::EdDsa, 400_000),
        ("node.one.es256", Suite::Es256, 150_000),
        ("node.one.sm2", Suite::Sm2Sm3, 30_000),
    ] {
        if wanted(name) {
            let load = one(suite, scale(count)).await.context(name)?;
            figures.write(name, load.per_second(), "1/s", None)?;
        }
    }
    if wanted("node.four") {
        four(&mut figures, &scale).await.context("node.four")?;
    }
    if wanted("node.sync") {
        sync(&mut figures, &scale).await.context("node.sync")?;
    }
    if wanted(hardware::NAME) {
        hardware::run(&mut figures, &scale).await.context(hardware::NAME)?;
    }
    if arguments.slow && wanted(growth::NAME) {
        growth::run(&mut figures).await.context(growth::NAME)?;
    }
    Ok(())
}

pub(crate) fn options(validators: usize, suite: Suite) -> InitOptions {
    InitOptions { validators, agency_suite: suite, ..InitOptions::default() }
}

/// One validator: durable statements a second through the batch endpoint.
async fn one(suite: Suite, count: usize) -> Result<Load> {
    let mut stage = Stage::start(&options(1, suite))?;
    let author = stage.author("agency-1")?;
    let signed = pipeline::sign(&author, &input::synthetic(count, None)?)?;
    let load = pipeline::submit(&stage.clients("agency-1")?, signed, 2 * IN_FLIGHT, 0.0).await?;
    stage.network.stop_all()?;
    Ok(load)
}

/// Four validators: rate, latency at half of it, rate with one killed.
async fn four(figures: &mut Figures, scale: &impl Fn(usize) -> usize) -> Result<()> {
    /// Statements a second of one SmartBFT orderer of Fabric v3 with four nodes on such a machine.
    const FABRIC: (&str, f64) = ("fabric-v3-smartbft", 1_600.0);
    let mut stage = Stage::start(&options(4, Suite::EdDsa))?;
    let author = stage.author("agency-1")?;
    let clients = stage.clients("agency-1")?;
    let signed = |count| -> Result<_> { pipeline::sign(&author, &input::synthetic(count, None)?) };
    let healthy = pipeline::submit(&clients, signed(scale(150_000))?, IN_FLIGHT, 0.0).await?;
    figures.write("node.four.eddsa", healthy.per_second(), "1/s", Some(FABRIC))?;

    let half = healthy.per_second() / 2.0;
    let mut steady = pipeline::submit(&clients, signed(scale(60_000))?, 16, half).await?;
    figures.write("node.four.p99_ms", quantile(&mut steady.latencies_ms, 0.99), "ms", None)?;
    figures.write("node.four.p50_ms", quantile(&mut steady.latencies_ms, 0.50), "ms", None)?;

    stage.network.kill(3)?;
    let degraded = pipeline::submit(&clients[..3], signed(scale(150_000))?, IN_FLIGHT, 0.0).await?;
    let ratio = degraded.per_second() / healthy.per_second();
    figures.write("node.four.one_down_ratio", ratio, "ratio", None)?;
    stage.network.stop_all()?;
    Ok(())
}

/// A wiped node of four catches up: full blocks, then near-empty ones.
async fn sync(figures: &mut Figures, scale: &impl Fn(usize) -> usize) -> Result<()> {
    let mut stage = Stage::start(&options(4, Suite::EdDsa))?;
    let author = stage.author("agency-1")?;
    let clients = stage.clients("agency-1")?;
    stage.network.stop(3)?;
    let signed = pipeline::sign(&author, &input::synthetic(scale(200_000), None)?)?;
    let bytes: usize = signed.iter().map(|signed| signed.entry.len()).sum();
    pipeline::submit(&clients[..3], signed, IN_FLIGHT, 0.0).await?;
    let target = clients[0].network().await?.height;
    stage.network.wipe(3)?;
    let elapsed = catch_up(&mut stage, 3, target).await?;
    figures.write("node.sync.mb_per_min", bytes as f64 / 1e6 / elapsed.as_secs_f64() * 60.0, "MB/min", None)?;
    stage.network.stop_all()?;
    drop(stage);

    let mut stage = Stage::start(&options(4, Suite::EdDsa))?;
    let author = stage.author("agency-1")?;
    let clients = stage.clients("agency-1")?;
    stage.network.stop(3)?;
    // Statements one by one give blocks of one statement and the empty ones that certify them.
    let until = Instant::now() + Duration::from_secs(if scale(10) == 10 { 120 } else { 15 });
    while Instant::now() < until {
        let signed = pipeline::sign(&author, &input::synthetic(3, None)?)?;
        pipeline::submit(&clients[..3], signed, 1, 1_000_000.0).await?;
    }
    let target = clients[0].network().await?.height;
    stage.network.wipe(3)?;
    let elapsed = catch_up(&mut stage, 3, target).await?;
    let per_minute = target as f64 / elapsed.as_secs_f64() * 60.0;
    figures.write("node.sync.blocks_per_min", per_minute, "1/min", None)?;
    stage.network.stop_all()
}

/// Starts a node and waits until it has `height`. The time includes its start.
async fn catch_up(stage: &mut Stage, node: usize, height: u64) -> Result<Duration> {
    let started = Instant::now();
    stage.network.start(node)?;
    let client = stage.client("agency-1", node)?;
    loop {
        if client.network().await.is_ok_and(|view| view.height >= height) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(600) {
            anyhow::bail!("the node did not reach height {height} in ten minutes");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
