//! Consensus, as the order's own figures tell it.

use std::time::Duration;

use super::family::{CounterFamily, Gauge, Histogram, ImportedHistogram, Total};
use super::label::Direction;
use super::label::Label as _;
use super::registry::Registry;

/// Bounds of the order's own decision histogram, in seconds (`stele_order::figures::DECISION_BUCKETS_MS`).
const DECISION_SECONDS: [f64; 12] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
/// A block a second at load, one in ten seconds (the heartbeat) at rest.
const INTERVAL_SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 60.0];

/// What the order counts of itself; totals since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderFigures<'a> {
    /// Height that is being decided.
    pub height: u64,
    /// Round within it.
    pub round: u64,
    /// Validators of the height.
    pub validators: u64,
    /// Of these, how many this node cannot reach; itself it can.
    pub validators_missing: u64,
    /// Validators that may fail without harm: f.
    pub validators_faulty_max: u64,
    /// Peer links that are up.
    pub peers_connected: u64,
    /// Blocks that the most advanced peer is ahead.
    pub sync_lag: u64,
    /// Rounds beyond the first.
    pub rounds_extra: u64,
    /// Proofs of misbehaviour.
    pub equivocations: u64,
    /// Blocks proposed by this node.
    pub proposals_made: u64,
    /// Proposals of others that were refused.
    pub proposals_refused: u64,
    /// Votes withheld by the guard because they contradict an earlier one.
    pub votes_withheld: u64,
    /// Messages to peers.
    pub messages_sent: u64,
    /// Messages of peers.
    pub messages_received: u64,
    /// Messages dropped.
    pub messages_dropped: u64,
    /// Bytes of the engine's journal.
    pub journal_bytes: u64,
    /// Restarts of the engine by the watchdog.
    pub engine_restarts: u64,
    /// Decisions by duration, see [`OrderMetrics::update`].
    pub decision_buckets: &'a [u64],
    /// Sum of these durations, milliseconds.
    pub decision_ms_total: u64,
}

/// Consensus.
pub struct OrderMetrics {
    height: Gauge,
    round: Gauge,
    validators: Gauge,
    validators_missing: Gauge,
    validators_faulty_max: Gauge,
    peers: Gauge,
    sync_lag: Gauge,
    journal_bytes: Gauge,
    rehearsed_version: Gauge,
    is_validator: Gauge,
    block_interval: Histogram,
    decisions: ImportedHistogram,
    rounds_extra: Total,
    equivocations: Total,
    proposals_made: Total,
    proposals_refused: Total,
    votes_withheld: Total,
    messages_dropped: Total,
    engine_restarts: Total,
    messages: CounterFamily<Direction>,
}

impl OrderMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut total = |name, help| Total::new(registry.counters(name, help, vec![()]));
        let rounds_extra = total("stele_order_rounds_extra_total", "Rounds beyond the first of their height.");
        let equivocations = total("stele_order_equivocations_total", "Proofs that a validator signed two ballots.");
        let proposals_made = total("stele_order_proposals_made_total", "Blocks that this node proposed.");
        let proposals_refused =
            total("stele_order_proposals_refused_total", "Proposals of others that this node voted against.");
        let votes_withheld = total(
            "stele_order_votes_withheld_total",
            "Votes that the guard withheld because an earlier one contradicts them. Never harmless.",
        );
        let messages_dropped =
            total("stele_order_messages_dropped_total", "Messages of peers that were over their budget.");
        let engine_restarts =
            total("stele_order_engine_restarts_total", "Restarts of the consensus engine by the watchdog.");
        Self {
            height: registry.gauges("stele_order_height", "Height that is being decided."),
            round: registry.gauges("stele_order_round", "Round of the height that is being decided."),
            validators: registry.gauges("stele_order_validators", "Validators of the height."),
            validators_missing: registry
                .gauges("stele_order_validators_missing", "Validators that this node cannot reach."),
            validators_faulty_max: registry.gauges(
                "stele_order_validators_faulty_max",
                "Validators that may fail while blocks are still decided.",
            ),
            peers: registry.gauges("stele_order_peers", "Peer links that are up."),
            sync_lag: registry.gauges("stele_order_sync_lag_blocks", "Blocks that the most advanced peer is ahead."),
            journal_bytes: registry.gauges("stele_order_journal_bytes", "Size of the engine's journal."),
            rehearsed_version: registry.gauges(
                "stele_order_rehearsed_version",
                "Protocol version that the configuration lets this node rehearse; 0 outside of rehearsals.",
            ),
            is_validator: registry.gauges("stele_order_is_validator", "Whether this node votes, 0 or 1."),
            block_interval: registry.histograms(
                "stele_order_block_interval_seconds",
                "Block time between a block and its parent.",
                &INTERVAL_SECONDS,
            ),
            decisions: registry.imported(
                "stele_order_decision_duration_seconds",
                "Time from the start of a height to its decision.",
                &DECISION_SECONDS,
            ),
            messages: registry.counters(
                "stele_order_messages_total",
                "Messages between this node and its peers by direction.",
                Direction::every(),
            ),
            rounds_extra,
            equivocations,
            proposals_made,
            proposals_refused,
            votes_withheld,
            messages_dropped,
            engine_restarts,
        }
    }

    /// Takes over the order's figures. `decision_buckets` counts by the bounds 10 ms, 20 ms, 50 ms, 100 ms, 200 ms,
    /// 500 ms, 1 s, 2 s, 5 s, 10 s, 30 s, 60 s and above.
    pub fn update(&self, figures: &OrderFigures<'_>) {
        self.height.set((), figures.height);
        self.round.set((), figures.round);
        self.validators.set((), figures.validators);
        self.validators_missing.set((), figures.validators_missing);
        self.validators_faulty_max.set((), figures.validators_faulty_max);
        self.peers.set((), figures.peers_connected);
        self.sync_lag.set((), figures.sync_lag);
        self.journal_bytes.set((), figures.journal_bytes);
        self.rounds_extra.follow(figures.rounds_extra);
        self.equivocations.follow(figures.equivocations);
        self.proposals_made.follow(figures.proposals_made);
        self.proposals_refused.follow(figures.proposals_refused);
        self.votes_withheld.follow(figures.votes_withheld);
        self.messages_dropped.follow(figures.messages_dropped);
        self.engine_restarts.follow(figures.engine_restarts);
        for (direction, total) in
            [(Direction::Sent, figures.messages_sent), (Direction::Received, figures.messages_received)]
        {
            self.messages.add(direction, total.saturating_sub(self.messages.value(direction)));
        }
        let seconds = Duration::from_millis(figures.decision_ms_total).as_secs_f64();
        self.decisions.import((), figures.decision_buckets, seconds);
    }
    /// The protocol version that this node rehearses.
    pub fn rehearses(&self, version: u32) {
        self.rehearsed_version.set((), u64::from(version));
    }
    /// Whether this node votes at the height.
    pub fn validator(&self, votes: bool) {
        self.is_validator.set((), u64::from(votes));
    }
    /// A block was committed whose time is `interval` after its parent's.
    pub fn block(&self, interval: Duration) {
        self.block_interval.time((), interval);
    }
}
