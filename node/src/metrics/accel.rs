//! Batch verification and bulk hashing.

use std::time::Duration;

use prometheus::IntGaugeVec;
use stele_accel::{Figures, GpuState, GpuStatus};
use stele_types::Suite;

use super::family::{Counter, CounterFamily, Gauge, GaugeFamily, HistogramFamily, ImportedHistogram};
use super::label::{
    AccelBackend, AccelOperation, DeviceDirection, DeviceFault, DeviceState, Label as _, Labels as _, Outcome, Verdict,
};
use super::registry::Registry;

const ITEMS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];
const SECONDS: [f64; 9] = [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 2.5];

/// Suites that the accelerator knows, and its own names for them.
const SUITES: [(Suite, stele_accel::Suite); stele_accel::Suite::COUNT] = [
    (Suite::EdDsa, stele_accel::Suite::Ed25519),
    (Suite::Es256, stele_accel::Suite::P256),
    (Suite::Sm2Sm3, stele_accel::Suite::Sm2),
];

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
    device: DeviceMetrics,
}

/// The GPU.
struct DeviceMetrics {
    state: GaugeFamily<DeviceState>,
    info: IntGaugeVec,
    took: ImportedHistogram,
    kernels: ImportedHistogram,
    bytes: CounterFamily<DeviceDirection>,
    fallbacks: Counter,
    faults: CounterFamily<DeviceFault>,
    rechecked: Counter,
    retained_wrong: Counter,
    tables: Gauge,
    memory: Gauge,
}

impl AccelMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            batches: registry.counters(
                "stele_accel_batches_total",
                "Batches by operation, backend and result: those that the stages hand over (cpu), and those that the GPU \
                 got of them (gpu).",
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
            active: registry.gauges("stele_accel_backend_active", "Whether the backend serves, 0 or 1; the cores always do."),
            threads: registry.gauges("stele_accel_worker_threads", "Threads that verify."),
            tables: registry.gauges("stele_accel_key_tables", "Keys that have a table, by suite."),
            table_bytes: registry.gauges(
                "stele_accel_key_table_bytes",
                "Memory of tables of keys, by suite; accel.key_table_bytes_max bounds each.",
            ),
            device: DeviceMetrics::new(registry),
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
    /// Signatures found in the cache of what was verified.
    pub fn cached(&self, items: u64) {
        self.cached.add((), items);
    }
    /// Takes over the accelerator's own figures.
    pub fn update(&self, figures: &Figures) {
        for (suite, at) in SUITES {
            let at = at.index();
            // What the GPU calls invalid is decided on a core.
            let of_gpu = figures.gpu.valid[at];
            let of_cpu = figures.suites[at].valid.saturating_sub(of_gpu);
            self.verified.follow((suite, AccelBackend::Gpu, Verdict::Valid), of_gpu);
            self.verified.follow((suite, AccelBackend::Cpu, Verdict::Valid), of_cpu);
            self.verified.follow((suite, AccelBackend::Cpu, Verdict::Invalid), figures.suites[at].invalid);
            let cache = figures.key_caches[at];
            self.tables.set(suite, cache.tables);
            self.table_bytes.set(suite, cache.table_bytes);
        }
        self.threads.set((), figures.threads);
        let serves = matches!(figures.gpu.state, GpuState::Starting | GpuState::Serving);
        self.active.set(AccelBackend::Cpu, 1);
        self.active.set(AccelBackend::Gpu, u64::from(serves));
        let gpu = |operation, outcome| (operation, AccelBackend::Gpu, outcome);
        self.batches.follow(gpu(AccelOperation::Verify, Outcome::Success), figures.gpu.used.verify);
        self.batches.follow(gpu(AccelOperation::Hash, Outcome::Success), figures.gpu.used.hash);
        self.device.update(figures);
    }
    /// Names the GPU.
    pub fn device(&self, status: &GpuStatus) {
        self.device.info.reset();
        self.device.info.with_label_values(&[&*status.adapter, &*status.driver]).set(1);
    }
}

impl DeviceMetrics {
    fn new(registry: &mut Registry) -> Self {
        Self {
            state: registry.gauges("stele_accel_device_state", "What the GPU is doing: 1 for its present state."),
            info: registry.late_info(
                "stele_accel_device_info",
                "Name and driver of the GPU; the value is 1 where there is one.",
                ["adapter", "driver"],
            ),
            took: registry.imported(
                "stele_accel_device_batch_duration_seconds",
                "Time from handing a batch to the GPU to its answer in memory; batches overlap.",
                &stele_accel::SECONDS_BUCKETS,
            ),
            kernels: registry.imported(
                "stele_accel_device_kernel_duration_seconds",
                "Time of a batch's kernels alone, where the GPU tells; the rest is transfer and waiting.",
                &stele_accel::SECONDS_BUCKETS,
            ),
            bytes: registry.counters(
                "stele_accel_device_bytes_total",
                "Bytes that went to the GPU and came from it.",
                DeviceDirection::all(),
            ),
            fallbacks: registry.counters(
                "stele_accel_fallbacks_total",
                "Batches that went back from the GPU to the cores without an answer.",
                vec![()],
            ),
            faults: registry.counters(
                "stele_accel_device_faults_total",
                "Wrong answers of the GPU, by what found them; the first one quarantines it.",
                DeviceFault::all(),
            ),
            rechecked: registry.counters(
                "stele_accel_device_rechecked_total",
                "Answers of the GPU that the cores computed again.",
                vec![()],
            ),
            retained_wrong: registry.counters(
                "stele_accel_device_retained_wrong_total",
                "Signatures that the GPU had accepted before it was found wrong, and that are invalid.",
                vec![()],
            ),
            tables: registry.gauges("stele_accel_device_key_tables", "Keys that have a table on the GPU."),
            memory: registry.gauges("stele_accel_device_memory_bytes", "Memory of the GPU that is taken."),
        }
    }

    fn update(&self, figures: &Figures) {
        let gpu = &figures.gpu;
        let present = match gpu.state {
            GpuState::Off => DeviceState::Off,
            GpuState::Starting => DeviceState::Starting,
            GpuState::Serving => DeviceState::Serving,
            GpuState::Absent => DeviceState::Absent,
            GpuState::Lost => DeviceState::Lost,
            GpuState::Quarantined => DeviceState::Quarantined,
        };
        for state in DeviceState::every() {
            self.state.set(state, u64::from(state == present));
        }
        self.took.import((), &gpu.took.buckets, gpu.took.seconds);
        self.kernels.import((), &gpu.kernels.buckets, gpu.kernels.seconds);
        self.bytes.follow(DeviceDirection::Up, gpu.bytes_up);
        self.bytes.follow(DeviceDirection::Down, gpu.bytes_down);
        self.fallbacks.follow((), gpu.fallbacks);
        for (fault, count) in DeviceFault::every().into_iter().zip(gpu.faults) {
            self.faults.follow(fault, count);
        }
        self.rechecked.follow((), gpu.rechecked);
        self.retained_wrong.follow((), gpu.retained_wrong);
        self.tables.set((), gpu.tables);
        self.memory.set((), gpu.memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_accelerators_names_in_its_order() {
        let labels: Vec<&str> = DeviceFault::every().into_iter().map(super::super::label::Label::text).collect();
        assert_eq!(labels, stele_accel::FAULT_REASONS);
    }

    #[test]
    fn states_have_the_accelerators_names() {
        let states = [
            GpuState::Off,
            GpuState::Starting,
            GpuState::Serving,
            GpuState::Absent,
            GpuState::Lost,
            GpuState::Quarantined,
        ];
        let labels: Vec<&str> = DeviceState::every().into_iter().map(super::super::label::Label::text).collect();
        assert_eq!(labels, states.map(GpuState::name));
    }
}
