//! Submits many statements through the batch endpoint and follows each to its certified outcome.
//!
//! Batches are bounded in number and bytes, a few are in flight at a time, what is throttled is sent again after the time
//! that the node names, and what a node lost is submitted again: statements are idempotent.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use stele_client::{Client, Wait};
use stele_types::exchange::Progress;
use stele_types::{Code, Height, LogIndex, StatementId};

use crate::author::Signed;
use crate::failure::Failure;

/// Statements of one batch: signatures are verified in batches, and an answer comes when all of them are.
pub const BATCH_STATEMENTS: usize = 500;
/// Bytes of one batch, below what nodes take.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Statements that may be without an outcome at once: about what a node's queue holds for one party.
const OPEN_STATEMENTS_MAX: usize = 8_000;
/// One wait for outcomes; longer waits are repeated.
const WAIT_STEP: Duration = Duration::from_secs(5);
/// Waits without any progress until outcomes are told to be open.
const IDLE_STEPS_MAX: u32 = 24;
/// Pause when every statement that waits was throttled and no time was named.
const THROTTLED_PAUSE: Duration = Duration::from_millis(250);

/// How to submit.
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    /// Whether to wait for certified outcomes.
    pub wait: bool,
    /// Statements of one batch.
    pub batch_statements: usize,
}

impl Default for Submission {
    fn default() -> Self {
        Self { wait: true, batch_statements: BATCH_STATEMENTS }
    }
}

/// What became of one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The statement.
    pub id: StatementId,
    /// Why admission refused it.
    pub refusal: Option<Code>,
    /// Its certified outcome.
    pub code: Option<Code>,
    /// Its leaf, when it applied.
    pub index: Option<LogIndex>,
    /// Height of its block.
    pub height: Option<Height>,
}

impl Submission {
    /// Submits `statements` in order; `progress` hears how many are done. The outcomes are in the order of the statements.
    ///
    /// # Errors
    /// When no node answers, or outcomes stay open for two minutes.
    pub async fn run(self, client: &Client, statements: &[Signed], progress: impl Fn(usize)) -> Result<Vec<Outcome>> {
        let blank = |signed: &Signed| Outcome { id: signed.id, refusal: None, code: None, index: None, height: None };
        let mut outcomes: Vec<Outcome> = statements.iter().map(blank).collect();
        let mut waiting: VecDeque<usize> = (0..statements.len()).collect();
        let mut open: Vec<usize> = Vec::new();
        let (mut done, mut idle) = (0, 0);
        while !waiting.is_empty() || !open.is_empty() {
            let before = done;
            let mut pause = None;
            if !waiting.is_empty() && open.len() < OPEN_STATEMENTS_MAX {
                let batch = self.next_batch(&mut waiting, statements);
                let body: Vec<u8> = batch.iter().flat_map(|index| statements[*index].entry.iter().copied()).collect();
                let answers = client.submit_batch(Bytes::from(body)).await?;
                if answers.len() != batch.len() {
                    bail!("the node answered {} of {} statements of a batch", answers.len(), batch.len());
                }
                for (index, answer) in batch.into_iter().zip(answers).rev() {
                    match answer.refusal {
                        None if self.wait => open.push(index),
                        None => done += 1,
                        Some(code) if code.is_retryable() => {
                            waiting.push_front(index);
                            let asked = answer.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
                            pause = Some(asked.unwrap_or(THROTTLED_PAUSE));
                        }
                        Some(code) => {
                            outcomes[index].refusal = Some(code);
                            done += 1;
                        }
                    }
                }
            }
            let must_wait = waiting.is_empty() || open.len() >= OPEN_STATEMENTS_MAX || pause.is_some();
            if must_wait && !open.is_empty() {
                let lost = settle(client, &mut open, &mut outcomes, pause.unwrap_or(WAIT_STEP).min(WAIT_STEP)).await?;
                waiting.extend(lost);
                done = outcomes.iter().filter(|outcome| outcome.code.is_some() || outcome.refusal.is_some()).count();
            } else if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            progress(done);
            idle = if done > before || (!must_wait && pause.is_none()) { 0 } else { idle + 1 };
            if idle > IDLE_STEPS_MAX {
                bail!(Failure::new("outcome_open", format!("{} statements have no certified outcome yet", statements.len() - done))
                    .hint("do the nodes agree on new blocks (`stele status`)? submitting the same statements again is safe"));
            }
        }
        Ok(outcomes)
    }

    fn next_batch(self, waiting: &mut VecDeque<usize>, statements: &[Signed]) -> Vec<usize> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(index) = waiting.front().copied() {
            bytes += statements[index].entry.len();
            if batch.len() == self.batch_statements || (bytes > BATCH_BYTES_MAX && !batch.is_empty()) {
                break;
            }
            waiting.pop_front();
            batch.push(index);
        }
        batch
    }
}

/// Asks for the outcomes of what is open, oldest first; gives back what the node does not know any more.
async fn settle(
    client: &Client,
    open: &mut Vec<usize>,
    outcomes: &mut [Outcome],
    wait: Duration,
) -> Result<Vec<usize>> {
    /// Ids of one question; nodes take some thousand.
    const IDS_MAX: usize = 2_000;
    let asked: Vec<usize> = open.iter().copied().take(IDS_MAX).collect();
    let ids: Vec<StatementId> = asked.iter().map(|index| outcomes[*index].id).collect();
    let statuses = client.statuses(&ids, Wait::Certified(wait)).await?;
    let mut lost = Vec::new();
    for (index, status) in asked.into_iter().zip(statuses) {
        if status.progress == Some(Progress::Certified) {
            let outcome = &mut outcomes[index];
            (outcome.code, outcome.index, outcome.height) = (status.code, status.index, status.height);
        } else if status.progress.is_none() {
            lost.push(index);
        }
    }
    open.retain(|index| outcomes[*index].code.is_none() && !lost.contains(index));
    Ok(lost)
}
