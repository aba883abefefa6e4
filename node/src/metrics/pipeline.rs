//! From end to end: how long a submitter waits, and for which stage.

use std::time::Duration;

use super::family::{GaugeFamily, HistogramFamily};
use super::label::{Class, Stage};
use super::registry::Registry;

/// The objective is 1 s at the 99th percentile (docs/specification.md).
const SECONDS: [f64; 10] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0];

/// From end to end.
pub struct PipelineMetrics {
    receipt: HistogramFamily<Class>,
    lag: GaugeFamily<Stage>,
}

impl PipelineMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            receipt: registry.histograms(
                "stele_receipt_duration_seconds",
                "Time from the acceptance of a statement to its receipt under a signed and certified checkpoint.",
                &SECONDS,
            ),
            lag: registry.gauges(
                "stele_pipeline_stage_lag_blocks",
                "Blocks by which a stage is behind the newest committed block.",
            ),
        }
    }

    /// A statement that this node accepted has its receipt, after `duration`.
    pub fn receipt(&self, class: Class, duration: Duration) {
        self.receipt.time(class, duration);
    }
    /// A stage is `blocks` behind.
    pub fn lag(&self, stage: Stage, blocks: u64) {
        self.lag.set(stage, blocks);
    }
}
