//! Statements in the background, with a record of every acknowledgement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use stele_client::{Client, Wait};
use stele_ctl::author::{Author, Signed, object_id, random};
use stele_types::custody::RecordPut;
use stele_types::exchange::{Progress, StatementStatus};
use stele_types::record::{PlaceCode, RecordClass, Sensitivity};
use stele_types::{Code, Command, Hash, StatementId};
use tokio::task::JoinSet;

use crate::cluster::Cluster;

/// One in so many statements puts a record that exists: rejections are acknowledged, too, and must last.
const REJECTED_ONE_IN: usize = 10;
/// Longest time without outcomes: every fault that a test causes is over by then.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(180);
/// One wait for outcomes.
const WAIT_STEP: Duration = Duration::from_secs(4);
/// Pause after a question that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How heavy a load is.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Submitters, each with a node that it prefers.
    pub workers: usize,
    /// Statements that a submitter has in flight.
    pub batch: usize,
    /// Pause of a submitter between two batches.
    pub pause: Duration,
}

impl Default for LoadOptions {
    /// Some hundred statements a second: several blocks are always under way, and two cores keep time for everything else.
    fn default() -> Self {
        Self { workers: 4, batch: 40, pause: Duration::from_millis(100) }
    }
}

/// A load that runs.
pub struct Load {
    acknowledged: Arc<Mutex<Vec<StatementStatus>>>,
    stop: Arc<AtomicBool>,
    workers: JoinSet<Result<()>>,
}

impl Load {
    /// Starts submitting statements of `party` to all nodes.
    ///
    /// # Errors
    /// When there is no such party.
    pub fn start(cluster: &Cluster, party: &str, options: LoadOptions) -> Result<Self> {
        let clients = (0..options.workers)
            .map(|worker| cluster.roaming_client(party, worker % cluster.network.len()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::over(clients, &cluster.author(party)?, options))
    }

    /// Starts submitting statements of `author`, one submitter over each client.
    pub fn over(clients: Vec<Client>, author: &Author, options: LoadOptions) -> Self {
        let acknowledged: Arc<Mutex<Vec<StatementStatus>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for client in clients {
            let (author, acknowledged, stop) = (author.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            workers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let batch = records(&author, options.batch)?;
                    settle(&client, &batch, &acknowledged).await?;
                    tokio::time::sleep(options.pause).await;
                }
                Ok(())
            });
        }
        Self { acknowledged, stop, workers }
    }

    /// Statements that are acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Greatest height among the acknowledgements so far.
    pub fn acknowledged_height(&self) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.iter().filter_map(|status| status.height).max().unwrap_or_default().0
    }

    /// Waits until `count` more statements are acknowledged than now.
    ///
    /// # Errors
    /// When they are not in `wait_max`.
    pub async fn wait_more(&self, count: usize, wait_max: Duration) -> Result<()> {
        let target = self.acknowledged() + count;
        let deadline = Instant::now() + wait_max;
        while self.acknowledged() < target {
            if Instant::now() > deadline {
                bail!(
                    "{} statements are acknowledged after {} s, not {target}",
                    self.acknowledged(),
                    wait_max.as_secs()
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Stops submitting, waits until everything submitted is acknowledged, and returns the acknowledgements.
    ///
    /// # Errors
    /// When a statement is refused for good, or stays without an outcome.
    pub async fn finish(mut self) -> Result<Vec<StatementStatus>> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.context("a submitter panicked")??;
        }
        Ok(self.take())
    }

    /// Stops at once and returns the acknowledgements: for networks that end on purpose.
    pub async fn abandon(mut self) -> Vec<StatementStatus> {
        self.workers.shutdown().await;
        self.take()
    }

    fn take(&self) -> Vec<StatementStatus> {
        std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A record of noise.
///
/// # Errors
/// When the system gives no random bytes.
pub fn record() -> Result<RecordPut> {
    Ok(RecordPut {
        record: object_id()?,
        class: RecordClass::Property,
        schema: 19_152,
        subject: None,
        place: PlaceCode::new(110_101),
        event_day: 20_000,
        sensitivity: Sensitivity::Personal,
        retention: 0,
        policy: Hash::default(),
        commitment: Hash(random()?),
        body_root: None,
        body_hash: None,
        on_behalf_of: None,
    })
}

/// `count` signed records, some of which put a record that exists.
///
/// # Errors
/// When the system gives no random bytes.
pub fn records(author: &Author, count: usize) -> Result<Vec<Signed>> {
    let mut last = None;
    (0..count)
        .map(|number| {
            let mut record = record()?;
            if number % REJECTED_ONE_IN == REJECTED_ONE_IN - 1 {
                record.record = last.unwrap_or(record.record);
            }
            last = Some(record.record);
            author.command(&Command::RecordPut(record))
        })
        .collect()
}

/// Submits a batch until every statement has a certified outcome, through whatever befalls the nodes.
async fn settle(client: &Client, batch: &[Signed], acknowledged: &Mutex<Vec<StatementStatus>>) -> Result<()> {
    let deadline = Instant::now() + SETTLE_WAIT_MAX;
    let mut open: Vec<&Signed> = batch.iter().collect();
    // What no node knows is submitted, at first everything.
    let mut unknown = open.clone();
    loop {
        let again = match submit(client, &unknown).await {
            Ok(refused) => refused,
            Err(error) if is_passing(&error) => unknown.iter().map(|signed| signed.id).collect(),
            Err(error) => return Err(error),
        };
        let ids: Vec<StatementId> = open.iter().map(|signed| signed.id).collect();
        match client.statuses(&ids, Wait::Certified(WAIT_STEP)).await {
            Ok(statuses) => {
                let certified = |status: &&StatementStatus| status.progress == Some(Progress::Certified);
                let done: Vec<StatementStatus> = statuses.iter().filter(certified).cloned().collect();
                open.retain(|signed| !done.iter().any(|status| status.statement == signed.id));
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
                let lost = |id: &StatementId| {
                    again.contains(id)
                        || statuses.iter().any(|status| status.statement == *id && status.progress.is_none())
                };
                unknown = open.iter().copied().filter(|signed| lost(&signed.id)).collect();
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                if !is_passing(&error) {
                    return Err(error);
                }
                unknown.clone_from(&open);
                tokio::time::sleep(PAUSE).await;
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} statements stay without an outcome, the first is {}", open.len(), open[0].id);
        }
    }
}

/// Submits statements and returns those that were refused for a time.
async fn submit(client: &Client, statements: &[&Signed]) -> Result<Vec<StatementId>> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let mut body = BytesMut::new();
    for signed in statements {
        body.extend_from_slice(&signed.entry);
    }
    let answers = client.submit_batch(body.freeze()).await?;
    let mut refused = Vec::new();
    for (signed, answer) in statements.iter().zip(&answers) {
        match answer.refusal {
            None => {}
            Some(code) if code.is_retryable() => refused.push(signed.id),
            Some(code) => bail!("statement {} was refused: {code}", signed.id),
        }
    }
    Ok(refused)
}

/// Whether time heals an error: nodes die, restart and catch up while a load goes on.
fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<stele_client::ClientError>().is_some_and(|error| {
        error.is_retryable() || matches!(error.protocol_code(), Some(Code::NotReady | Code::NotCertified))
    })
}
