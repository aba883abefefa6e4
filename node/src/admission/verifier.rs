//! The verification stage: drains the lanes into batches for the accelerator.

use std::sync::{Arc, Mutex, PoisonError};

use stele_accel::Priority;
use stele_types::party::EnrolledKey;
use stele_types::{Code, PartyId, Statement};
use tokio::sync::{Notify, Semaphore, oneshot};
use tracing::warn;

use super::pool::{Place, Pool};
use super::turns::Turns;
use super::verified::Verified;
use crate::metrics::Metrics;
use crate::metrics::label::AdmissionStage;
use crate::signatures::{Signatures, Signed};

/// Statements of one batch: large enough for the batch equation on every core, small enough that a batch takes some
/// tens of milliseconds.
const BATCH_MAX: usize = 2_048;
/// Batches in flight: one runs while the next is gathered.
const BATCHES_MAX: usize = 2;

/// A parsed statement with the key that its signature must verify under.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The statement.
    pub statement: Statement,
    /// Its key, under the newest state.
    pub key: EnrolledKey,
    /// Whether it was decided already, so that only its signature is of interest.
    pub decided: bool,
}

/// Where the verdict goes.
pub(super) type Reply = oneshot::Sender<Result<(), Code>>;

struct Waiting {
    checked: Checked,
    place: Place,
    reply: Reply,
}

/// See the [module](self).
pub struct Verifier {
    shared: Arc<Shared>,
}

/// The queue is bounded by the places of the pool: who waits here holds one.
struct Shared {
    turns: Mutex<Turns<Waiting>>,
    arrivals: Notify,
}

impl Shared {
    fn turns(&self) -> std::sync::MutexGuard<'_, Turns<Waiting>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verifier {
    /// Starts the stage on the current runtime; it ends when this is dropped.
    pub(super) fn start(
        signatures: Signatures,
        pool: Arc<Pool>,
        verified: Arc<Verified>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(Shared { turns: Mutex::default(), arrivals: Notify::new() });
        let stage = Stage { signatures, pool, verified, metrics };
        tokio::spawn(run(Arc::downgrade(&shared), Arc::new(stage)));
        Self { shared }
    }
    /// Statements that wait.
    pub(super) fn len(&self) -> usize {
        self.shared.turns().len()
    }
    /// Queues a statement; `reply` gets the verdict.
    pub(super) fn enqueue(&self, party: PartyId, place: Place, checked: Checked, reply: Reply) {
        self.shared.turns().push(party, Waiting { checked, place, reply });
        self.shared.arrivals.notify_one();
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shared.arrivals.notify_one();
    }
}

/// Where a batch goes.
struct Stage {
    signatures: Signatures,
    pool: Arc<Pool>,
    verified: Arc<Verified>,
    metrics: Arc<Metrics>,
}

async fn run(shared: std::sync::Weak<Shared>, stage: Arc<Stage>) {
    let batches = Arc::new(Semaphore::new(BATCHES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&batches).acquire_owned().await else { return };
        let batch = {
            let Some(shared) = shared.upgrade() else { return };
            let batch = shared.turns().take(BATCH_MAX, |_| true);
            if batch.is_empty() {
                // Another handle may end while this one waits; a drop notifies.
                tokio::select! {
                    () = shared.arrivals.notified() => {}
                    () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
                }
                continue;
            }
            batch
        };
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            let started = std::time::Instant::now();
            verify(&stage, batch).await;
            stage.metrics.admission.stage(AdmissionStage::Verify, started.elapsed());
            drop(permit);
        });
    }
}

async fn verify(stage: &Stage, batch: Vec<(PartyId, Waiting)>) {
    let signed = batch.iter().map(|(_, waiting)| Signed::of(&waiting.checked.statement, &waiting.checked.key));
    let verdicts = match stage.signatures.verify(Priority::Live, signed).await {
        Ok(verdicts) => verdicts,
        Err(error) => {
            warn!(%error, "a batch was not verified");
            for (_, waiting) in batch {
                let _ = waiting.reply.send(Err(Code::Saturated));
            }
            return;
        }
    };
    let mut replies = Vec::with_capacity(batch.len());
    let mut valid = Vec::with_capacity(batch.len());
    let mut keys = Vec::with_capacity(batch.len());
    for ((_, waiting), verdict) in batch.into_iter().zip(verdicts) {
        if verdict && waiting.checked.decided {
            let _ = waiting.reply.send(Ok(()));
        } else if verdict {
            keys.push(Verified::key(
                waiting.checked.key.suite.rule_version_max(),
                &waiting.checked.key.public_key,
                &waiting.checked.statement,
            ));
            valid.push((waiting.place, waiting.checked.statement));
            replies.push(waiting.reply);
        } else {
            let _ = waiting.reply.send(Err(Code::SignatureInvalid));
        }
    }
    stage.verified.add(keys.into_iter());
    for (reply, taken) in replies.into_iter().zip(stage.pool.add(valid)) {
        let _ = reply.send(if taken { Ok(()) } else { Err(Code::Saturated) });
    }
}
