//! Drives a load and watches every node take it in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::BytesMut;
use futures::future::try_join_all;
use stele_client::{Client, Wait};
use stele_types::Code;
use stele_types::exchange::Progress;
use tokio::sync::Mutex;

use crate::failure::Failure;
use crate::load::report::{NodeRate, Report, milliseconds};
use crate::load::workload::Batch;
use crate::output::note;

/// How often the log sizes of the nodes are read.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// One wait for an outcome; longer waits are repeated.
const FOLLOW_STEP: Duration = Duration::from_secs(10);
/// No log of any node grows for this long: the run has failed.
const STALL_MAX: Duration = Duration::from_secs(60);
/// A node that cannot be read for this long is lost; the load goes on without it.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pause when a whole batch was throttled and no time was named.
const THROTTLED_PAUSE: Duration = Duration::from_millis(100);

/// One source of load: batches of one party, and where they are sent.
#[derive(Debug)]
pub struct Feeder {
    /// A client with the party's certificate.
    pub client: Client,
    /// What to send.
    pub batches: Vec<Batch>,
}

/// A node whose log is watched.
#[derive(Clone, Debug)]
pub struct NodeWatch {
    /// Its name.
    pub name: String,
    /// A client of this node alone.
    pub client: Client,
}

/// How to drive.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Batches of each feeder that may be without an outcome at once.
    pub in_flight: usize,
    /// Statements a second of all feeders together; as fast as they go without it.
    pub rate: Option<f64>,
}

/// Submits everything and waits until every watched node holds it, those aside that are lost on the way. With a rate, latency counts from the instant at which a
/// batch was due, so that a slow network cannot hide behind its own back-pressure.
///
/// # Errors
/// When a node cannot be read, a statement is refused for good, or no log grows for a minute.
pub async fn drive(feeders: Vec<Feeder>, nodes: &[NodeWatch], options: LoadOptions) -> Result<Report> {
    let statements: usize = feeders.iter().flat_map(|feeder| &feeder.batches).map(Batch::len).sum();
    let before = try_join_all(nodes.iter().map(log_size)).await?;
    let started = Instant::now();
    let feeder_rate = options.rate.map(|rate| rate / f64_of(feeders.len()));
    let work = try_join_all(feeders.into_iter().map(|feeder| feed(feeder, options.in_flight, feeder_rate, started)));
    let watch = watch(nodes, &before, statements, started);
    // A refusal ends the run at once; the watch alone would wait for statements that never come.
    let (answers, taken) = tokio::try_join!(work, watch)?;
    let mut latencies: Vec<Duration> = answers.iter().flat_map(|answer| answer.latencies.iter().copied()).collect();
    latencies.sort_unstable();
    let node_rates = nodes
        .iter()
        .zip(&taken)
        .filter_map(|(node, time)| {
            let statements_per_s = f64_of(statements) / time.as_ref()?.as_secs_f64();
            Some(NodeRate { name: node.name.clone(), statements_per_s })
        })
        .collect::<Vec<_>>();
    Ok(Report {
        statements,
        throttled: answers.iter().map(|answer| answer.throttled).sum(),
        seconds: taken.iter().flatten().max().copied().unwrap_or_default().as_secs_f64(),
        nodes: node_rates,
        latencies_ms: latencies.into_iter().map(milliseconds).collect(),
    })
}

struct Answers {
    latencies: Vec<Duration>,
    throttled: usize,
}

/// One feeder: as many workers as batches may be in flight.
async fn feed(feeder: Feeder, in_flight: usize, rate: Option<f64>, started: Instant) -> Result<Answers> {
    let mut due = Duration::ZERO;
    let schedule: VecDeque<(Duration, Batch)> = feeder
        .batches
        .into_iter()
        .map(|batch| {
            let at = due;
            due += rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(f64_of(batch.len()) / rate));
            (at, batch)
        })
        .collect();
    let queue = Arc::new(Mutex::new(schedule));
    let workers = (0..in_flight.max(1)).map(|_| work(feeder.client.clone(), queue.clone(), rate.is_some(), started));
    let answers = try_join_all(workers).await?;
    Ok(Answers {
        throttled: answers.iter().map(|answer| answer.throttled).sum(),
        latencies: answers.into_iter().flat_map(|answer| answer.latencies).collect(),
    })
}

async fn work(
    client: Client,
    queue: Arc<Mutex<VecDeque<(Duration, Batch)>>>,
    paced: bool,
    started: Instant,
) -> Result<Answers> {
    let mut answers = Answers { latencies: Vec::new(), throttled: 0 };
    loop {
        let next = queue.lock().await.pop_front();
        let Some((due, batch)) = next else { return Ok(answers) };
        if paced {
            tokio::time::sleep_until((started + due).into()).await;
        }
        let since = if paced { started + due } else { Instant::now() };
        answers.throttled += submit(&client, &batch).await?;
        follow(&client, &batch).await?;
        answers.latencies.push(since.elapsed());
    }
}

/// Submits a batch; what was throttled is sent again until all of it was taken. Gives the number of repetitions.
async fn submit(client: &Client, batch: &Batch) -> Result<usize> {
    let mut body = batch.body.clone();
    let mut pending: Vec<usize> = (0..batch.len()).collect();
    let mut throttled = 0;
    loop {
        let answers = client.submit_batch(body).await?;
        let mut again = Vec::new();
        let mut pause = THROTTLED_PAUSE;
        for (index, answer) in pending.into_iter().zip(answers) {
            match answer.refusal {
                None => {}
                Some(code) if code.is_retryable() => {
                    again.push(index);
                    pause = answer.retry_after_ms.map_or(pause, |ms| Duration::from_millis(ms.into()));
                }
                Some(code) => {
                    bail!(Failure::new(code.as_str(), format!("a statement of the load was refused: {code}")))
                }
            }
        }
        if again.is_empty() {
            return Ok(throttled);
        }
        throttled += again.len();
        body = again
            .iter()
            .fold(BytesMut::new(), |mut all, index| {
                all.extend_from_slice(&batch.entry(*index));
                all
            })
            .freeze();
        pending = again;
        tokio::time::sleep(pause).await;
    }
}

/// Waits until the last statement of a batch has a certified outcome. A node that lost it gets the batch again.
async fn follow(client: &Client, batch: &Batch) -> Result<()> {
    let give_up = Instant::now() + STALL_MAX;
    loop {
        match client.statement(&batch.last, Wait::Certified(FOLLOW_STEP)).await {
            Ok(status) if status.progress == Some(Progress::Certified) => {
                return match status.code {
                    Some(Code::Applied) => Ok(()),
                    code => {
                        let code = code.unwrap_or(Code::Internal);
                        bail!(
                            Failure::new(code.as_str(), format!("a statement of the load was rejected: {code}"))
                                .hint(crate::rejection::meaning(code).1)
                        )
                    }
                };
            }
            Ok(_) => {}
            Err(error) if error.protocol_code() == Some(Code::NotFound) => {
                submit(client, batch).await?;
            }
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > give_up {
            bail!(
                Failure::new("outcome_open", "a statement of the load has no certified outcome after a minute")
                    .hint("do the nodes agree on new blocks? see `stele status`")
            );
        }
    }
}

/// When each node held all statements, counted from `started`; none for a node that was lost on the way.
async fn watch(
    nodes: &[NodeWatch],
    before: &[u64],
    statements: usize,
    started: Instant,
) -> Result<Vec<Option<Duration>>> {
    let wanted = u64::try_from(statements)?;
    let mut taken: Vec<Option<Duration>> = vec![None; nodes.len()];
    let mut silent: Vec<Option<Instant>> = vec![None; nodes.len()];
    let mut open: Vec<usize> = (0..nodes.len()).collect();
    let (mut newest, mut grown) = (0, Instant::now());
    while !open.is_empty() {
        tokio::time::sleep(WATCH_INTERVAL).await;
        for index in std::mem::take(&mut open) {
            match log_size(&nodes[index]).await {
                Ok(size) => {
                    silent[index] = None;
                    if size > newest {
                        (newest, grown) = (size, Instant::now());
                    }
                    if size >= before[index] + wanted {
                        taken[index] = Some(started.elapsed());
                    } else {
                        open.push(index);
                    }
                }
                Err(_) if silent[index].get_or_insert_with(Instant::now).elapsed() < SILENCE_MAX => open.push(index),
                Err(error) => {
                    note(&format!("{} is lost and is not measured any more: {error:#}", nodes[index].name));
                    if open.is_empty() && taken.iter().all(Option::is_none) {
                        return Err(error);
                    }
                }
            }
        }
        if grown.elapsed() > STALL_MAX {
            bail!(
                Failure::new("log_stalled", "no node's log grew for a minute under load")
                    .hint("the nodes' logs say why; `stele status` shows where each stands")
            );
        }
    }
    Ok(taken)
}

async fn log_size(node: &NodeWatch) -> Result<u64> {
    Ok(node.client.network().await?.log_size)
}

/// A count as a number for rates; counts here stay far below 2^53.
pub(super) fn f64_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
