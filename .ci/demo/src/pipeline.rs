//! Submitting many statements and waiting for every certified outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use stele_client::{Client, Wait};
use stele_ctl::author::{Author, Signed};
use stele_types::exchange::Progress;
use stele_types::{Code, Command, StatementId};
use tokio::task::JoinSet;

/// Statements of one batch: large enough to amortise a request, small enough to flow.
const BATCH: usize = 500;
/// Longest wait for an outcome.
const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(120);

/// What a load gave.
pub(crate) struct Load {
    /// Statements whose outcome `applied` is certified.
    pub(crate) applied: usize,
    /// From the first submission to the last certified outcome.
    pub(crate) elapsed: Duration,
    /// Submission to certified outcome of each batch, once per statement, milliseconds.
    pub(crate) latencies_ms: Vec<f64>,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.applied as f64 / self.elapsed.as_secs_f64()
    }
}

/// Signs commands on every core.
pub(crate) fn sign(author: &Author, commands: &[Command]) -> Result<Vec<Signed>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = commands.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = commands
            .chunks(share)
            .map(|commands| scope.spawn(|| commands.iter().map(|command| author.command(command)).collect()))
            .collect();
        let mut signed = Vec::with_capacity(commands.len());
        for worker in workers {
            let part: Result<Vec<Signed>> = worker.join().map_err(|_| anyhow::anyhow!("a signer panicked"))?;
            signed.extend(part?);
        }
        Ok(signed)
    })
}

/// Submits statements over `clients`, `in_flight` batches at a time on each, at `rate` statements a second in all (0: as
/// fast as they are taken), and waits until every outcome is certified.
pub(crate) async fn submit(clients: &[Client], signed: Vec<Signed>, in_flight: usize, rate: f64) -> Result<Load> {
    let size = if rate > 0.0 { BATCH.min(100) } else { BATCH };
    let batches: Arc<Vec<Vec<Signed>>> = Arc::new(chunked(signed, size));
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for client in clients {
        for _ in 0..in_flight {
            let (client, batches, next) = (client.clone(), Arc::clone(&batches), Arc::clone(&next));
            workers.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(batch) = batches.get(at) else { return Ok::<_, anyhow::Error>(latencies) };
                    if rate > 0.0 {
                        let due = started + Duration::from_secs_f64((at * size) as f64 / rate);
                        tokio::time::sleep_until(due.into()).await;
                    }
                    let elapsed = settle(&client, batch).await?;
                    latencies.extend(std::iter::repeat_n(elapsed.as_secs_f64() * 1000.0, batch.len()));
                }
            });
        }
    }
    let mut latencies_ms = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies_ms.extend(worker.context("a submitter panicked")??);
    }
    Ok(Load { applied: latencies_ms.len(), elapsed: started.elapsed(), latencies_ms })
}

fn chunked(signed: Vec<Signed>, size: usize) -> Vec<Vec<Signed>> {
    let mut signed = signed.into_iter();
    std::iter::from_fn(|| {
        let batch: Vec<Signed> = signed.by_ref().take(size).collect();
        (!batch.is_empty()).then_some(batch)
    })
    .collect()
}

/// Submits one batch, again for what was refused for a time, and waits for its certified outcomes.
async fn settle(client: &Client, batch: &[Signed]) -> Result<Duration> {
    let started = Instant::now();
    let mut open: Vec<&Signed> = batch.iter().collect();
    while !open.is_empty() {
        let mut body = BytesMut::with_capacity(open.iter().map(|signed| signed.entry.len()).sum());
        for signed in &open {
            body.extend_from_slice(&signed.entry);
        }
        let answers = client.submit_batch(body.freeze()).await?;
        let mut refused = Vec::new();
        let mut pause = 0;
        for (signed, answer) in open.iter().zip(&answers) {
            match answer.refusal {
                None => {}
                Some(code) if code.is_retryable() => {
                    pause = pause.max(answer.retry_after_ms.unwrap_or(100));
                    refused.push(*signed);
                }
                Some(code) => bail!("statement {} was refused: {code}", signed.id),
            }
        }
        open = refused;
        if !open.is_empty() {
            tokio::time::sleep(Duration::from_millis(u64::from(pause))).await;
        }
    }
    let ids: Vec<StatementId> = batch.iter().map(|signed| signed.id).collect();
    await_certified(client, &ids, started + OUTCOME_WAIT_MAX).await?;
    Ok(started.elapsed())
}

async fn await_certified(client: &Client, ids: &[StatementId], deadline: Instant) -> Result<()> {
    let mut open = ids.to_vec();
    loop {
        let statuses = client.statuses(&open, Wait::Certified(Duration::from_secs(10))).await?;
        for status in &statuses {
            if status.progress == Some(Progress::Certified) && status.code != Some(Code::Applied) {
                bail!("statement {} has the outcome {:?}", status.statement, status.code);
            }
        }
        open.retain(|id| {
            !statuses.iter().any(|status| status.statement == *id && status.progress == Some(Progress::Certified))
        });
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} statements have no certified outcome, the first is {}", open.len(), open[0]);
        }
    }
}
