//! Metrics: what operators see of every stage, in the words of the stages.
//!
//! ```text
//!   admission ─► accel ─► order ─► execute ─► log ─► seal      api        each a struct of typed handles
//!        └──────────────────┬─────────────────────────┘
//!                       Registry ──► Prometheus text on the admin listener
//!                           └──────► docs/monitoring/metrics.md, generated and checked
//! ```
//!
//! This is the only module that names the `prometheus` crate. Labels are enumerations ([`label`]), never ids or text
//! from outside, so the number of series is known; every series exists from the start with the value 0, so that a rate
//! over it is right from its first event. Durations are seconds, sizes bytes, as Prometheus asks.

mod accel;
mod admission;
mod attest;
mod build;
mod document;
mod execute;
mod family;
mod http;
pub mod label;
mod log;
mod messages;
mod order;
mod pipeline;
mod registry;
mod seal;
mod storage;

use std::sync::Arc;

pub use accel::AccelMetrics;
pub use admission::AdmissionMetrics;
pub use attest::AttestMetrics;
pub use build::{BuildMetrics, Version};
pub use document::document;
pub use execute::ExecuteMetrics;
pub use family::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, HistogramFamily, ImportedHistogram, ImportedHistogramFamily,
    Total,
};
pub use http::{HttpMetrics, TlsMetrics};
pub use log::LogMetrics;
pub use messages::MessageCounter;
pub use order::{OrderFigures, OrderMetrics};
pub use pipeline::PipelineMetrics;
pub use seal::SealMetrics;
pub use storage::StorageMetrics;

use registry::Registry;

/// The handles of every stage. One instance per node; tests make their own.
pub struct Metrics {
    registry: Registry,
    /// The program and the process.
    pub build: BuildMetrics,
    /// Admission.
    pub admission: AdmissionMetrics,
    /// Batch verification and hashing.
    pub accel: AccelMetrics,
    /// Consensus.
    pub order: OrderMetrics,
    /// Execution and state.
    pub execute: ExecuteMetrics,
    /// The log.
    pub log: LogMetrics,
    /// Checkpoint and vote signatures.
    pub seal: SealMetrics,
    /// The TPM's word for the machine.
    pub attest: AttestMetrics,
    /// Bodies of records.
    pub storage: StorageMetrics,
    /// HTTP.
    pub http: HttpMetrics,
    /// TLS.
    pub tls: TlsMetrics,
    /// From end to end.
    pub pipeline: PipelineMetrics,
}

impl Metrics {
    /// Registers every family, each series at 0.
    pub fn new(version: &Version) -> Arc<Self> {
        let mut registry = Registry::new();
        let build = BuildMetrics::new(&mut registry, version);
        let admission = AdmissionMetrics::new(&mut registry);
        let accel = AccelMetrics::new(&mut registry);
        let order = OrderMetrics::new(&mut registry);
        let execute = ExecuteMetrics::new(&mut registry);
        let log = LogMetrics::new(&mut registry);
        let seal = SealMetrics::new(&mut registry);
        let attest = AttestMetrics::new(&mut registry);
        let storage = StorageMetrics::new(&mut registry);
        let http = HttpMetrics::new(&mut registry);
        let tls = TlsMetrics::new(&mut registry);
        let pipeline = PipelineMetrics::new(&mut registry);
        Arc::new(Self {
            registry,
            build,
            admission,
            accel,
            order,
            execute,
            log,
            seal,
            attest,
            storage,
            http,
            tls,
            pipeline,
        })
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.registry.render()
    }
}

/// Content type of [`Metrics::render`].
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests;
