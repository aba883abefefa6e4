//! Execution and the state it makes.

use std::time::Duration;

use stele_types::Code;

use super::family::{Counter, CounterFamily, Gauge, Histogram};
use super::label::{Class, Label as _};
use super::registry::Registry;

const SECONDS: [f64; 10] = [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 2.5];
const STATEMENTS: [f64; 9] = [0.0, 1.0, 10.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];

/// Execution.
pub struct ExecuteMetrics {
    height: Gauge,
    transactions: CounterFamily<(Class, Code)>,
    block_duration: Histogram,
    block_transactions: Histogram,
    commit_duration: Histogram,
    state_keys: Gauge,
    state_bytes: Gauge,
    state_history_bytes: Gauge,
    state_roots: Gauge,
    state_batch_nodes: Gauge,
    state_log_bytes: Gauge,
    state_snapshot_height: Gauge,
    state_export_height: Gauge,
    state_snapshot_failures: Gauge,
    state_pages: Gauge,
    state_pages_read: Gauge,
    state_pages_written: Gauge,
    state_device_bytes: Gauge,
    state_device_used_bytes: Gauge,
    /// An invariant of the ledger or the storage did not hold. Any value but 0 needs a person.
    pub invariant_violations: Counter,
    /// A decided header names another root than this node computed. Any value but 0 needs a person.
    pub state_root_mismatches: Counter,
}

impl ExecuteMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let applied = Class::every().into_iter().map(|class| (class, Code::Applied));
        let rejected = Code::every().into_iter().map(|code| (Class::Governance, code));
        Self {
            height: registry.gauges("stele_execute_height", "Height of the newest executed block."),
            transactions: registry.counters(
                "stele_execute_transactions_total",
                "Executed statements by class and outcome.",
                applied.chain(rejected).collect(),
            ),
            block_duration: registry.histograms(
                "stele_execute_block_duration_seconds",
                "Time to apply a block, without making it durable.",
                &SECONDS,
            ),
            block_transactions: registry.histograms(
                "stele_execute_block_transactions",
                "Statements of a block.",
                &STATEMENTS,
            ),
            commit_duration: registry.histograms(
                "stele_execute_commit_duration_seconds",
                "Time to make a block and its results durable.",
                &SECONDS,
            ),
            state_keys: registry.gauges("stele_execute_state_keys", "Keys of the state tree."),
            state_bytes: registry.gauges("stele_execute_state_bytes", "Bytes of memory that the state map holds."),
            state_history_bytes: registry
                .gauges("stele_execute_state_history_bytes", "Bytes of memory that only older provable roots need."),
            state_roots: registry.gauges("stele_execute_state_roots", "Roots that can be proven."),
            state_batch_nodes: registry
                .gauges("stele_execute_state_batch_nodes", "Nodes and places in them that the last commit changed."),
            state_log_bytes: registry.gauges(
                "stele_execute_state_log_bytes",
                "Bytes of write-set log since the newest snapshot: what an opening has to redo.",
            ),
            state_snapshot_height: registry
                .gauges("stele_execute_state_snapshot_height", "Height of the newest snapshot of the state map."),
            state_export_height: registry.gauges(
                "stele_execute_state_export_height",
                "Height of the newest snapshot for nodes that join, since the start.",
            ),
            state_snapshot_failures: registry.gauges(
                "stele_execute_state_snapshot_failures",
                "Snapshots that could not be written since the start.",
            ),
            state_pages: registry
                .gauges("stele_execute_state_pages", "Pages of the state tree; 0 when it is in memory."),
            state_pages_read: registry
                .gauges("stele_execute_state_pages_read", "Pages of the state read from disk since the start."),
            state_pages_written: registry
                .gauges("stele_execute_state_pages_written", "Pages of the state written to disk since the start."),
            state_device_bytes: registry
                .gauges("stele_execute_state_device_bytes", "Bytes of the device that the state's pages lie on."),
            state_device_used_bytes: registry.gauges(
                "stele_execute_state_device_used_bytes",
                "Bytes of that device that pages of the state, of older roots and of checkpoints take.",
            ),
            invariant_violations: registry.counters(
                "stele_execute_invariant_violations_total",
                "Invariants of the ledger or the storage that did not hold.",
                vec![()],
            ),
            state_root_mismatches: registry.counters(
                "stele_execute_state_root_mismatches_total",
                "Decided headers whose roots differ from those that this node computed; it stops voting.",
                vec![()],
            ),
        }
    }

    /// A block of `statements` was applied in `duration`.
    pub fn block(&self, height: u64, statements: usize, duration: Duration) {
        self.height.set((), height);
        self.block_transactions.observe((), f64::from(u32::try_from(statements).unwrap_or(u32::MAX)));
        self.block_duration.time((), duration);
    }
    /// A statement of a block had this outcome.
    pub fn transaction(&self, class: Class, outcome: Code) {
        self.transactions.increment((class, outcome));
    }
    /// A block and its results became durable in `duration`.
    pub fn commit(&self, duration: Duration) {
        self.commit_duration.time((), duration);
    }
    /// What the state map says of itself.
    pub fn state(&self, figures: &stele_state::Figures) {
        self.state_keys.set((), figures.keys);
        self.state_bytes.set((), figures.memory_bytes);
        self.state_history_bytes.set((), figures.history_bytes);
        self.state_roots.set((), figures.roots);
        self.state_batch_nodes.set((), figures.batch_nodes);
        self.state_log_bytes.set((), figures.log_bytes);
        self.state_snapshot_height.set((), figures.snapshot_height.unwrap_or_default());
        self.state_export_height.set((), figures.export_height.unwrap_or_default());
        self.state_snapshot_failures.set((), figures.snapshot_failures);
        self.state_pages.set((), figures.pages);
        self.state_pages_read.set((), figures.pages_read);
        self.state_pages_written.set((), figures.pages_written);
        self.state_device_bytes.set((), figures.device_bytes);
        self.state_device_used_bytes.set((), figures.device_used_bytes);
    }
}
