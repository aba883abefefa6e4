//! What the order measures of itself, for metrics and the watchdog.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stele_types::ValidatorId;

/// Upper bounds, in milliseconds, of the buckets of [`Figures::decision_buckets`]; a last bucket holds the rest.
pub const DECISION_BUCKETS_MS: [u64; 12] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/// A snapshot of the order's state. Counters start at zero with the process.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Height that is being decided.
    pub height: u64,
    /// Round within it.
    pub round: u32,
    /// Whether the node idles before this height.
    pub idle: bool,
    /// Validators of the height.
    pub validators: usize,
    /// Votes that decide.
    pub quorum: usize,
    /// Validators whose peer link is up, without this node.
    pub peers_connected: Vec<ValidatorId>,
    /// Heights that the most advanced peer is ahead of this node's committed height.
    pub sync_lag: u64,
    /// Blocks committed since start.
    pub committed: u64,
    /// Of these, fetched from peers.
    pub committed_by_sync: u64,
    /// Bytes of committed blocks.
    pub committed_bytes: u64,
    /// Rounds beyond the first that were started: silent proposers, invalid proposals, lost messages.
    pub rounds_extra: u64,
    /// Sum of the times from the start of a height to its decision, milliseconds.
    pub decision_ms_total: u64,
    /// Decisions by duration; see [`DECISION_BUCKETS_MS`].
    pub decision_buckets: [u64; DECISION_BUCKETS_MS.len() + 1],
    /// Blocks proposed by this node.
    pub proposals_made: u64,
    /// Blocks that the application found invalid or malformed.
    pub proposals_refused: u64,
    /// Proposals and votes signed.
    pub signatures: u64,
    /// Sum of the times these took, milliseconds.
    pub signature_ms_total: u64,
    /// Times the signer was asked again.
    pub signer_retries: u64,
    /// Votes withheld because the guard held another ballot: never harmless.
    pub votes_withheld_double_sign: u64,
    /// Votes withheld for another reason.
    pub votes_withheld_other: u64,
    /// Proofs of misbehaviour handed to the application.
    pub equivocations: u64,
    /// Parts of blocks refused: unknown sender, wrong proposer, out of bounds.
    pub parts_refused: u64,
    /// Times a peer that is not pinned showed itself and was turned away.
    pub strangers: u64,
    /// Bytes of blocks being assembled.
    pub assembly_bytes: u64,
    /// Bytes of undecided blocks in memory.
    pub undecided_bytes: u64,
    /// Application messages sent.
    pub messages_sent: u64,
    /// Application messages received.
    pub messages_received: u64,
    /// Application messages dropped: sender over its budget, or the application fell behind.
    pub messages_dropped: u64,
    /// Blocks served to peers that catch up.
    pub blocks_served: u64,
    /// Size of the engine's journal.
    pub journal_bytes: u64,
    /// Restarts of the engine by the watchdog.
    pub engine_restarts: u64,
    /// Heights restarted because the decided block was missing.
    pub heights_restarted: u64,
}

impl Figures {
    /// Whether enough validators are connected, this one included, for blocks to be decided.
    pub fn has_quorum(&self) -> bool {
        self.peers_connected.len() + 1 >= self.quorum
    }
}

/// The live counters behind [`Figures`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) height: AtomicU64,
    pub(crate) round: AtomicU64,
    pub(crate) idle: AtomicBool,
    pub(crate) committed: AtomicU64,
    pub(crate) committed_by_sync: AtomicU64,
    pub(crate) committed_bytes: AtomicU64,
    pub(crate) rounds_extra: AtomicU64,
    pub(crate) decision_ms_total: AtomicU64,
    pub(crate) decision_buckets: [AtomicU64; DECISION_BUCKETS_MS.len() + 1],
    pub(crate) proposals_made: AtomicU64,
    pub(crate) proposals_refused: AtomicU64,
    pub(crate) signatures: AtomicU64,
    pub(crate) signature_ms_total: AtomicU64,
    pub(crate) signer_retries: AtomicU64,
    pub(crate) withheld_double_sign: AtomicU64,
    pub(crate) withheld_other: AtomicU64,
    pub(crate) equivocations: AtomicU64,
    pub(crate) parts_refused: AtomicU64,
    pub(crate) strangers: AtomicU64,
    pub(crate) assembly_bytes: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) blocks_served: AtomicU64,
    pub(crate) engine_restarts: AtomicU64,
    pub(crate) heights_restarted: AtomicU64,
    height_started: Mutex<Option<Instant>>,
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn withheld(&self, code: &'static str) {
        count(if code == "double_sign" { &self.withheld_double_sign } else { &self.withheld_other });
    }

    pub(crate) fn signed(&self, elapsed: Duration) {
        count(&self.signatures);
        self.signature_ms_total.fetch_add(milliseconds(elapsed), Ordering::Relaxed);
    }

    pub(crate) fn height_starts(&self, height: u64) {
        self.height.store(height, Ordering::Relaxed);
        self.round.store(0, Ordering::Relaxed);
        *self.started() = Some(Instant::now());
    }

    pub(crate) fn height_decided(&self, bytes: usize, by_sync: bool) {
        count(&self.committed);
        self.committed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if by_sync {
            count(&self.committed_by_sync);
        }
        if let Some(started) = self.started().take() {
            let elapsed_ms = milliseconds(started.elapsed());
            self.decision_ms_total.fetch_add(elapsed_ms, Ordering::Relaxed);
            count(&self.decision_buckets[DECISION_BUCKETS_MS.partition_point(|bound| *bound < elapsed_ms)]);
        }
    }

    /// The snapshot, without what only others know: validators, peers, sizes of files and stores.
    pub(crate) fn snapshot(&self) -> Figures {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            height: load(&self.height),
            round: u32::try_from(load(&self.round)).unwrap_or(u32::MAX),
            idle: self.idle.load(Ordering::Relaxed),
            committed: load(&self.committed),
            committed_by_sync: load(&self.committed_by_sync),
            committed_bytes: load(&self.committed_bytes),
            rounds_extra: load(&self.rounds_extra),
            decision_ms_total: load(&self.decision_ms_total),
            decision_buckets: std::array::from_fn(|index| load(&self.decision_buckets[index])),
            proposals_made: load(&self.proposals_made),
            proposals_refused: load(&self.proposals_refused),
            signatures: load(&self.signatures),
            signature_ms_total: load(&self.signature_ms_total),
            signer_retries: load(&self.signer_retries),
            votes_withheld_double_sign: load(&self.withheld_double_sign),
            votes_withheld_other: load(&self.withheld_other),
            equivocations: load(&self.equivocations),
            parts_refused: load(&self.parts_refused),
            strangers: load(&self.strangers),
            assembly_bytes: load(&self.assembly_bytes),
            messages_sent: load(&self.messages_sent),
            messages_received: load(&self.messages_received),
            messages_dropped: load(&self.messages_dropped),
            blocks_served: load(&self.blocks_served),
            engine_restarts: load(&self.engine_restarts),
            heights_restarted: load(&self.heights_restarted),
            ..Figures::default()
        }
    }

    fn started(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.height_started.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_fall_into_the_bucket_that_bounds_them() {
        let counters = Counters::default();
        counters.height_starts(7);
        counters.height_decided(100, true);
        counters.height_decided(50, false);
        let figures = counters.snapshot();
        assert_eq!((figures.height, figures.committed, figures.committed_by_sync), (7, 2, 1));
        assert_eq!(figures.committed_bytes, 150);
        assert_eq!(figures.decision_buckets.iter().sum::<u64>(), 1, "a height counts once");
        assert_eq!(DECISION_BUCKETS_MS.partition_point(|bound| *bound < 10), 0);
        assert_eq!(DECISION_BUCKETS_MS.partition_point(|bound| *bound < 60_001), DECISION_BUCKETS_MS.len());
    }
}
