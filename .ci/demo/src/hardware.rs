//! What keys in hardware cost a network: TPMs at the pace of an emulator, and at the pace of a chip.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use stele_types::{StatementId, Suite};

use crate::bench::{IN_FLIGHT, options};
use crate::figures::{Figures, quantile};
use crate::input;
use crate::pipeline::{self, Load};
use crate::stage::Stage;

pub(crate) const NAME: &str = "trust.";

/// What a chip takes longer than an emulator for a signature.
const CHIP: Duration = Duration::from_millis(300);
/// Receipts whose arrival is timed.
const RECEIPTS: usize = 200;
/// Longest wait for one.
const RECEIPT_WAIT_MAX: Duration = Duration::from_secs(30);

/// The same load on both networks, in turns, so that a noisy machine hurts both.
pub(crate) async fn run(figures: &mut Figures, scale: &impl Fn(usize) -> usize) -> Result<()> {
    const TURNS: usize = 3;
    let (mut quick, mut slow, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut receipts = Vec::new();
    let mut per_signature = 0.0;
    for turn in 0..TURNS {
        let mut stage = Stage::start_slow(&options(4, Suite::EdDsa), Duration::ZERO)?;
        let of_emulator = load(&stage, scale(60_000)).await?.per_second();
        if turn == 0 {
            per_signature = receipts_per_signature(&stage, scale(10_000)).await?;
        }
        stage.network.stop_all()?;
        drop(stage);
        let mut stage = Stage::start_slow(&options(4, Suite::EdDsa), CHIP)?;
        let of_chip = load(&stage, scale(60_000)).await?.per_second();
        if turn == 0 {
            receipts = receipt_milliseconds(&stage).await?;
        }
        stage.network.stop_all()?;
        quick.push(of_emulator);
        slow.push(of_chip);
        ratios.push(of_chip / of_emulator);
    }
    figures.write("receipts.per_signature", per_signature, "receipts", None)?;
    let emulator = ("swtpm, no delay", quantile(&mut quick, 0.5));
    figures.write("slow_tpm.statements", quantile(&mut slow, 0.5), "1/s", Some(emulator))?;
    figures.write("slow_tpm.ratio", quantile(&mut ratios, 0.5), "ratio", None)?;
    figures.write("slow_tpm.receipt_p50_ms", quantile(&mut receipts, 0.50), "ms", None)?;
    figures.write("slow_tpm.receipt_p99_ms", quantile(&mut receipts, 0.99), "ms", None)
}

async fn load(stage: &Stage, count: usize) -> Result<Load> {
    let author = stage.author("agency-1")?;
    let signed = pipeline::sign(&author, &input::synthetic(count, None)?)?;
    pipeline::submit(&stage.clients("agency-1")?, signed, IN_FLIGHT, 0.0).await
}

/// Receipts of one node for each signature that its TPM made of checkpoints meanwhile.
async fn receipts_per_signature(stage: &Stage, count: usize) -> Result<f64> {
    let author = stage.author("agency-1")?;
    let signed = pipeline::sign(&author, &input::synthetic(count, None)?)?;
    let ids: Vec<StatementId> = signed.iter().map(|signed| signed.id).collect();
    let before = checkpoints(stage).await?;
    pipeline::submit(&stage.clients("agency-1")?, signed, IN_FLIGHT, 0.0).await?;
    let client = stage.client("agency-1", 0)?;
    for id in &ids {
        arrived(&client, id).await?;
    }
    let signatures = checkpoints(stage).await? - before;
    Ok(ids.len() as f64 / signatures.max(1.0))
}

/// From handing a statement in to its receipt, one statement at a time.
async fn receipt_milliseconds(stage: &Stage) -> Result<Vec<f64>> {
    let author = stage.author("agency-1")?;
    let client = stage.client("agency-1", 0)?;
    let mut milliseconds = Vec::new();
    for signed in pipeline::sign(&author, &input::synthetic(RECEIPTS, None)?)? {
        let started = Instant::now();
        client.register(signed.entry.into(), stele_client::Wait::Certified(RECEIPT_WAIT_MAX)).await?;
        arrived(&client, &signed.id).await?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(milliseconds)
}

async fn arrived(client: &stele_client::Client, id: &StatementId) -> Result<()> {
    client.receipt(&id.to_hex(), RECEIPT_WAIT_MAX).await.context("a receipt does not arrive")?;
    Ok(())
}

/// Checkpoints that the first node's TPM has signed.
async fn checkpoints(stage: &Stage) -> Result<f64> {
    const SERIES: &str = "stele_seal_signatures_total{key=\"checkpoint\",provider=\"tpm\",result=\"success\"} ";
    let node = stage.network.profile().nodes.first().context("no node")?;
    let endpoint = stele_client::Endpoint::http(&node.metrics)?;
    let text = stele_client::Client::builder().endpoint(endpoint).build()?.metrics().await?;
    let value = text.lines().find_map(|line| line.strip_prefix(SERIES)).context("no such series")?;
    Ok(value.parse()?)
}
