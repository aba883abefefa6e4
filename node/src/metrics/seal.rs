//! Signatures of the node's own keys.

use std::time::Duration;

use super::family::{CounterFamily, Gauge, HistogramFamily};
use super::label::{Labels as _, Outcome, Provider, SealKey};
use super::registry::Registry;

/// A software key signs in microseconds, a TPM in 100 to 500 ms.
const SECONDS: [f64; 9] = [1e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.25, 0.5, 2.5];

/// Signatures.
pub struct SealMetrics {
    signatures: CounterFamily<(Provider, SealKey, Outcome)>,
    duration: HistogramFamily<Provider>,
    queue: Gauge,
    connected: Gauge,
}

impl SealMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            signatures: registry.counters(
                "stele_seal_signatures_total",
                "Signatures asked of the node's keys by provider, key and result.",
                <(Provider, SealKey, Outcome)>::all(),
            ),
            duration: registry.histograms(
                "stele_seal_sign_duration_seconds",
                "Time for one signature, its guard's write included.",
                &SECONDS,
            ),
            queue: registry.gauges("stele_seal_queue_requests", "Requests that stele-signer has not answered."),
            connected: registry.gauges(
                "stele_seal_signer_connected",
                "1 while stele-signer is connected; 0 also where all keys lie in files.",
            ),
        }
    }

    /// A signature was asked for and given, or not, after `duration`.
    pub fn signature(&self, provider: Provider, key: SealKey, given: bool, duration: Duration) {
        let outcome = if given { Outcome::Success } else { Outcome::Failure };
        self.signatures.increment((provider, key, outcome));
        self.duration.time(provider, duration);
    }
    /// Whether `stele-signer` is connected, and how many requests it has not answered.
    pub fn signer(&self, connected: bool, requests: usize) {
        self.connected.set((), u64::from(connected));
        self.queue.set((), u64::try_from(requests).unwrap_or(u64::MAX));
    }
}
