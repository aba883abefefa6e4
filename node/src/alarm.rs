//! The alarm: why this node must not vote any more.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stele_types::{Height, ValidatorId};
use tokio::sync::watch;
use tracing::error;

use crate::chain::ChainError;
use crate::metrics::Metrics;

/// Raised once, and never taken back: the node stays up to serve reads and says that it is not ready.
pub struct Alarm {
    metrics: Arc<Metrics>,
    reason: watch::Sender<Option<String>>,
    /// Whether a store failed, so that a restart may help.
    storage: AtomicBool,
    /// Validators whose proposals for a height name other results than this node has.
    others: Mutex<(Height, BTreeSet<ValidatorId>)>,
}

impl Alarm {
    /// An alarm that is quiet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            reason: watch::Sender::new(None),
            storage: AtomicBool::new(false),
            others: Mutex::default(),
        })
    }

    /// Raises it; later reasons change nothing, since the first is the cause.
    pub fn raise(&self, reason: String) {
        self.reason.send_if_modified(|raised| {
            let first = raised.is_none();
            if first {
                error!(reason, "this node stops voting");
                *raised = Some(reason);
            }
            first
        });
    }

    /// Raises it for a failure of the chain and returns the reason. A divergence is counted once, however it showed.
    pub fn raise_for(&self, error: &ChainError) -> String {
        let reason = if matches!(error, ChainError::Diverged { .. }) {
            if self.reason().is_none() {
                self.metrics.execute.state_root_mismatches.increment(());
            }
            format!("{}: {error}", error.code())
        } else {
            // Clients read the reason; what the system said of files stays in the log.
            error!(code = error.code(), %error, "the chain failed");
            self.storage.store(true, Ordering::Relaxed);
            error.code().to_owned()
        };
        self.raise(reason.clone());
        reason
    }

    /// Notes that a validator proposed a block at `height` which names another `what` than this node has. One such
    /// validator may lie; among more than `faulty_max` of them one is honest, so either this node has diverged or the
    /// network has, and the alarm is raised.
    pub fn note_other_results(&self, from: ValidatorId, faulty_max: usize, height: Height, what: &'static str) {
        let certain = {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            if others.0 != height {
                *others = (height, BTreeSet::new());
            }
            others.1.insert(from);
            others.1.len() > faulty_max
        };
        if certain {
            self.raise_for(&ChainError::Diverged { height: height.0, what });
        }
    }

    /// Whether a store failed: recovery by restart is what it is made for, while a divergence comes back.
    pub fn is_storage_failure(&self) -> bool {
        self.storage.load(Ordering::Relaxed)
    }

    /// Why it was raised.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Resolves when it is raised. Cancel-safe.
    pub async fn raised(&self) -> String {
        let mut reason = self.reason.subscribe();
        let raised = reason.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match raised {
            Some(reason) => reason,
            // The sender lives in `self`, so waiting ends only with a reason.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Version;

    fn mismatches(metrics: &Metrics) -> String {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("stele_execute_state_root_mismatches_total"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    #[test]
    fn one_liar_raises_nothing_and_a_divergence_counts_once() {
        let metrics = Metrics::new(&Version::default());
        let alarm = Alarm::new(Arc::clone(&metrics));
        let note = |from, height| alarm.note_other_results(ValidatorId([from; 32]), 1, Height(height), "state root");
        note(1, 7);
        note(1, 7);
        note(2, 8);
        assert_eq!(alarm.reason(), None, "one validator at each height");
        note(3, 8);
        assert!(alarm.reason().unwrap().starts_with("state_diverged: height 8"));
        assert_eq!(mismatches(&metrics), "1");
        alarm.raise_for(&ChainError::Diverged { height: 9, what: "log root" });
        assert!(alarm.reason().unwrap().starts_with("state_diverged: height 8"), "the first reason stays");
        assert_eq!(mismatches(&metrics), "1");
    }
}
