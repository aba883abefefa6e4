//! Once a second: figures that the stages keep of themselves become metrics.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stele_accel::{Engine, GpuState, GpuStatus};
use stele_hsm::remote::SignerSocket;
use stele_order::Order;
use stele_types::ValidatorId;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admission::Admission;
use crate::backup;
use crate::chain::Chain;
use crate::metrics::label::Stage;
use crate::metrics::{Metrics, OrderFigures};
use crate::payload::PayloadSlot;

const INTERVAL: Duration = Duration::from_secs(1);

/// What is looked at.
pub struct Observed {
    /// The chain.
    pub chain: Arc<Chain>,
    /// The front door.
    pub admission: Arc<Admission>,
    /// The order.
    pub order: Arc<Order>,
    /// The accelerator.
    pub engine: Arc<Engine>,
    /// Bodies of records.
    pub payload: Option<Arc<PayloadSlot>>,
    /// Where it goes.
    pub metrics: Arc<Metrics>,
    /// Where its backups leave word.
    pub data_dir: PathBuf,
    /// This node's validator.
    pub validator: ValidatorId,
    /// Statements that may wait.
    pub queue_limit: usize,
    /// The process that holds the node's keys; none if they lie in files.
    pub signer: Option<SignerSocket>,
}

impl Observed {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut device = GpuStatus::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            self.order();
            self.chain();
            self.accelerator(&mut device);
            self.storage().await;
            if let Some((seconds, height)) = backup::last(&self.data_dir) {
                self.metrics.storage.backed_up(seconds, height);
            }
            if let Some(signer) = &self.signer {
                let figures = signer.figures();
                self.metrics.seal.signer(figures.connected, figures.under_way);
            }
            let waiting = self.admission.verifying() + self.admission.pool().len();
            self.metrics.admission.queue(waiting, self.queue_limit);
        }
    }

    /// `known` is what was said last about the GPU.
    fn accelerator(&self, known: &mut GpuStatus) {
        self.metrics.accel.update(&self.engine.figures());
        let status = self.engine.gpu_status();
        if status == *known {
            return;
        }
        let GpuStatus { state, adapter, driver, reason } = &status;
        let name = state.name();
        match state {
            // Not known yet whether there is one.
            GpuState::Starting if adapter.is_empty() => {}
            GpuState::Off => {}
            GpuState::Starting => info!(state = name, %adapter, %driver, "the GPU starts; the cores serve meanwhile"),
            GpuState::Serving => info!(state = name, %adapter, %driver, "the GPU serves bulk work"),
            GpuState::Absent => warn!(state = name, %reason, "no GPU: the cores do everything"),
            GpuState::Lost => error!(state = name, %adapter, %reason, "the GPU is lost: the cores do everything"),
            GpuState::Quarantined => {
                error!(state = name, %adapter, %driver, %reason, "the GPU gave a wrong answer: the cores do everything");
            }
        }
        self.metrics.accel.device(&status);
        *known = status;
    }

    async fn storage(&self) {
        let Some(payload) = self.payload.as_ref().and_then(|slot| slot.payload()) else { return };
        // A store that has stopped keeps its last figures; its requests fail and are counted.
        if let Ok(status) = payload.store().status().await {
            self.metrics.storage.update(&status, payload.waiting());
        }
        if let Ok(traffic) = payload.store().traffic().await {
            self.metrics.storage.traffic(&traffic);
        }
    }

    fn order(&self) {
        let figures = self.order.figures();
        let head = self.chain.head();
        let validators = &head.frame.validators;
        let wide = |count: usize| count as u64;
        let own = validators.index_of(&self.validator).is_some();
        let reached = figures.peers_connected.len() + usize::from(own);
        self.metrics.order.validator(own);
        self.metrics.order.update(&OrderFigures {
            height: figures.height,
            round: u64::from(figures.round),
            validators: wide(validators.len()),
            validators_missing: wide(validators.len().saturating_sub(reached)),
            validators_faulty_max: wide(validators.faulty_max()),
            peers_connected: wide(figures.peers_connected.len()),
            sync_lag: figures.sync_lag,
            rounds_extra: figures.rounds_extra,
            equivocations: figures.equivocations,
            proposals_made: figures.proposals_made,
            proposals_refused: figures.proposals_refused,
            votes_withheld: figures.votes_withheld_double_sign,
            messages_sent: figures.messages_sent,
            messages_received: figures.messages_received,
            messages_dropped: figures.messages_dropped,
            journal_bytes: figures.journal_bytes,
            engine_restarts: figures.engine_restarts,
            decision_buckets: &figures.decision_buckets,
            decision_ms_total: figures.decision_ms_total,
        });
    }

    fn chain(&self) {
        let figures = self.chain.figures();
        let tip = self.chain.tip();
        self.metrics.execute.state(&figures.state);
        self.metrics.log.integrated(tip.log_size);
        let (suspended, lapsed) = self.chain.out_of_attestation();
        self.metrics.attest.validators(suspended, lapsed);
        self.metrics.log.index(figures.index.entries, figures.index.memory_bytes);
        self.metrics.log.rebuild_pending(self.chain.rebuild_pending());
        let sealed = self.chain.checkpoint().map_or(0, |seal| seal.checkpoint.height.0);
        self.metrics.pipeline.lag(Stage::Seal, self.chain.certified().0.saturating_sub(sealed));
    }
}
