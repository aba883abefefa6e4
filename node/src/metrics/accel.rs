//! Batch verification and bulk hashing.

use std::time::Duration;

use stele_types::Suite;

use super::family::{CounterFamily, Gauge, GaugeFamily, HistogramFamily};
use super::label::{AccelBackend, AccelOperation, Label as _, Labels as _, Outcome, Verdict};
use super::registry::Registry;

const ITEMS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];
const SECONDS: [f64; 9] = [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 2.5];

/// Batches of the accelerator.
pub struct AccelMetrics {
    batches: CounterFamily<(AccelOperation, AccelBackend, Outcome)>,
    items: HistogramFamily<(AccelOperation, AccelBackend)>,
    duration: HistogramFamily<(AccelOperation, AccelBackend)>,
    verified: CounterFamily<(Suite, AccelBackend, Verdict)>,
    cached: CounterFamily<()>,
    active: GaugeFamily<AccelBackend>,
    threads: Gauge,
    tables: GaugeFamily<Suite>,
    table_bytes: GaugeFamily<Suite>,
}

impl AccelMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            batches: registry.counters(
                "stele_accel_batches_total",
                "Batches by operation, backend and result.",
                <(AccelOperation, AccelBackend, Outcome)>::all(),
            ),
            items: registry.histograms("stele_accel_batch_items", "Items of a batch.", &ITEMS),
            duration: registry.histograms(
                "stele_accel_batch_duration_seconds",
                "Time from handing over a batch to its verdict.",
                &SECONDS,
            ),
            verified: registry.counters(
                "stele_accel_items_verified_total",
                "Signatures by suite, backend and verdict.",
                <(Suite, AccelBackend, Verdict)>::all(),
            ),
            cached: registry.counters(
                "stele_accel_items_cached_total",
                "Signatures that were not verified again, because this node had verified the same bytes before.",
                vec![()],
            ),
            active: registry.gauges("stele_accel_backend_active", "Whether the backend serves batches, 0 or 1."),
            threads: registry.gauges("stele_accel_worker_threads", "Threads that verify."),
            tables: registry.gauges("stele_accel_key_tables", "Keys that have a table, by suite."),
            table_bytes: registry.gauges(
                "stele_accel_key_table_bytes",
                "Memory of tables of keys, by suite; accel.key_table_bytes_max bounds each.",
            ),
        }
    }

    /// A batch ended.
    pub fn batch(
        &self,
        operation: AccelOperation,
        backend: AccelBackend,
        outcome: Outcome,
        items: usize,
        duration: Duration,
    ) {
        self.batches.increment((operation, backend, outcome));
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        self.items.observe((operation, backend), f64::from(items));
        self.duration.time((operation, backend), duration);
    }
    /// Verdicts of a batch, by suite.
    pub fn verified(&self, suite: Suite, backend: AccelBackend, valid: u64, invalid: u64) {
        self.verified.add((suite, backend, Verdict::Valid), valid);
        self.verified.add((suite, backend, Verdict::Invalid), invalid);
    }
    /// Signatures found in the cache of what was verified.
    pub fn cached(&self, items: u64) {
        self.cached.add((), items);
    }
    /// Tables of keys of a suite, and their memory.
    pub fn key_tables(&self, suite: Suite, tables: u64, bytes: u64) {
        self.tables.set(suite, tables);
        self.table_bytes.set(suite, bytes);
    }
    /// The backend that serves, and its threads.
    pub fn backend(&self, backend: AccelBackend, threads: usize) {
        for each in AccelBackend::every() {
            self.active.set(each, u64::from(each == backend));
        }
        self.threads.set((), u64::try_from(threads).unwrap_or(u64::MAX));
    }
}
