//! The log of statements.

use std::time::Duration;

use super::family::{CounterFamily, Gauge, Histogram};
use super::label::{Labels as _, Outcome, ProofKind};
use super::registry::Registry;

const SECONDS: [f64; 9] = [1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5];

/// The log.
pub struct LogMetrics {
    tree_size: Gauge,
    integrated_size: Gauge,
    checkpoint_size: Gauge,
    checkpoint_height: Gauge,
    checkpoint_time: Gauge,
    append_duration: Histogram,
    index_entries: Gauge,
    index_bytes: Gauge,
    proofs: CounterFamily<(ProofKind, Outcome)>,
    rebuild_pending: Gauge,
}

impl LogMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            tree_size: registry.gauges("stele_log_tree_size", "Leaves after the newest committed block."),
            integrated_size: registry
                .gauges("stele_log_integrated_size", "Leaves whose hashes are in the files of the log."),
            checkpoint_size: registry.gauges("stele_log_checkpoint_size", "Leaves under the newest signed checkpoint."),
            checkpoint_height: registry
                .gauges("stele_log_checkpoint_height", "Height of the newest signed checkpoint."),
            checkpoint_time: registry.gauges(
                "stele_log_checkpoint_timestamp_seconds",
                "When the newest checkpoint was signed, seconds since 1970.",
            ),
            append_duration: registry.histograms(
                "stele_log_append_duration_seconds",
                "Time to add the leaves of a block.",
                &SECONDS,
            ),
            index_entries: registry.gauges("stele_log_index_entries", "Statements in the statement index."),
            index_bytes: registry
                .gauges("stele_log_index_bytes", "Bytes of memory that the statement index holds beside its files."),
            proofs: registry.counters(
                "stele_log_proofs_served_total",
                "Proofs asked for by kind and result.",
                <(ProofKind, Outcome)>::all(),
            ),
            rebuild_pending: registry.gauges(
                "stele_log_rebuild_pending",
                "Whether a read found a derived store damaged, so that the next start builds all of them again, 0 or 1.",
            ),
        }
    }

    /// The leaves of a block were added in `duration`.
    pub fn appended(&self, tree_size: u64, duration: Duration) {
        self.tree_size.set((), tree_size);
        self.append_duration.time((), duration);
    }
    /// Leaves whose hashes are in the files.
    pub fn integrated(&self, size: u64) {
        self.integrated_size.set((), size);
    }
    /// Size of the statement index.
    pub fn index(&self, entries: u64, memory_bytes: u64) {
        self.index_entries.set((), entries);
        self.index_bytes.set((), memory_bytes);
    }
    /// Whether the next start builds the derived stores again.
    pub fn rebuild_pending(&self, pending: bool) {
        self.rebuild_pending.set((), u64::from(pending));
    }
    /// A checkpoint was signed, at `now_seconds` since 1970.
    pub fn checkpoint(&self, height: u64, size: u64, now_seconds: u64) {
        self.checkpoint_height.set((), height);
        self.checkpoint_size.set((), size);
        self.checkpoint_time.set((), now_seconds);
    }
    /// A proof was asked for.
    pub fn proof(&self, kind: ProofKind, served: bool) {
        self.proofs.increment((kind, if served { Outcome::Success } else { Outcome::Failure }));
    }
}
