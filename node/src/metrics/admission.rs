//! Admission: statements that knock, and what became of them.

use std::time::Duration;

use stele_types::Code;

use super::family::{Counter, CounterFamily, Gauge, HistogramFamily};
use super::label::{AdmissionStage, Admitted, Class, Label as _, ThrottleReason};
use super::registry::Registry;

/// From microseconds (decoding) to the longest wait for a place in the queue.
const SECONDS: [f64; 10] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.5, 2.5];

/// Admission.
pub struct AdmissionMetrics {
    submissions: CounterFamily<(Class, Admitted)>,
    bytes: CounterFamily<Class>,
    duration: HistogramFamily<AdmissionStage>,
    queue: Gauge,
    queue_limit: Gauge,
    deduplicated: Counter,
    throttled: CounterFamily<ThrottleReason>,
}

impl AdmissionMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        // Every class can be accepted; refusals of classes that never happened would be hundreds of empty series.
        let accepted = Class::every().into_iter().map(|class| (class, Admitted::Accepted));
        let refused = Admitted::every().into_iter().map(|result| (Class::Unparsed, result));
        Self {
            submissions: registry.counters(
                "stele_admission_submissions_total",
                "Submitted statements by class and result: accepted, or the code of the refusal.",
                accepted.chain(refused).collect(),
            ),
            bytes: registry.counters(
                "stele_admission_submission_bytes_total",
                "Bytes of submitted statements by class.",
                Class::every(),
            ),
            duration: registry.histograms(
                "stele_admission_duration_seconds",
                "Time that a batch of submitted statements spends in a step of admission.",
                &SECONDS,
            ),
            queue: registry
                .gauges("stele_admission_queue_submissions", "Statements that are verified and wait to be ordered."),
            queue_limit: registry
                .gauges("stele_admission_queue_submissions_limit", "Statements that may wait to be ordered."),
            deduplicated: registry.counters(
                "stele_admission_deduplicated_total",
                "Submitted statements that were known already.",
                vec![()],
            ),
            throttled: registry.counters(
                "stele_admission_throttled_total",
                "Statements turned away for now, answered with 429 and a time to wait.",
                ThrottleReason::every(),
            ),
        }
    }

    /// A statement was taken.
    pub fn accepted(&self, class: Class, bytes: usize) {
        self.submissions.increment((class, Admitted::Accepted));
        self.bytes.add(class, u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    /// A statement was refused. Two refusals are throttling and are counted as such, too.
    pub fn refused(&self, class: Class, code: Code, bytes: usize) {
        self.submissions.increment((class, Admitted::Refused(code)));
        self.bytes.add(class, u64::try_from(bytes).unwrap_or(u64::MAX));
        match code {
            Code::Saturated => self.throttled.increment(ThrottleReason::Saturated),
            Code::ShareExceeded => self.throttled.increment(ThrottleReason::ShareExceeded),
            _ => {}
        }
    }
    /// A statement was known already.
    pub fn deduplicated(&self) {
        self.deduplicated.increment(());
    }
    /// A batch spent `duration` in `stage`.
    pub fn stage(&self, stage: AdmissionStage, duration: Duration) {
        self.duration.time(stage, duration);
    }
    /// How many statements wait, and may wait.
    pub fn queue(&self, statements: usize, limit: usize) {
        self.queue.set((), u64::try_from(statements).unwrap_or(u64::MAX));
        self.queue_limit.set((), u64::try_from(limit).unwrap_or(u64::MAX));
    }
}
