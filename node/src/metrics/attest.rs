//! What the TPM was asked to attest, and what regulators found out about validators.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::family::{CounterFamily, Gauge, Histogram};
use super::label::{Labels as _, Outcome};
use super::registry::Registry;

/// A TPM quotes in 100 to 500 ms.
const SECONDS: [f64; 8] = [5e-3, 2.5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Quotes.
pub struct AttestMetrics {
    quotes: CounterFamily<Outcome>,
    duration: Histogram,
    last_success: Gauge,
    suspended: Gauge,
    lapsed: Gauge,
}

impl AttestMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            quotes: registry.counters(
                "stele_attest_quotes_total",
                "Quotes asked of the TPM by result.",
                Outcome::all(),
            ),
            duration: registry.histograms(
                "stele_attest_quote_duration_seconds",
                "Time for the evidence of one quote, its logs included.",
                &SECONDS,
            ),
            last_success: registry.gauges(
                "stele_attest_last_success_timestamp_seconds",
                "When the TPM last quoted, seconds since 1970; 0 before.",
            ),
            suspended: registry.gauges(
                "stele_attest_validators_suspended",
                "Validators that are out of the set until a verdict on their evidence passes.",
            ),
            lapsed: registry.gauges(
                "stele_attest_validators_lapsed",
                "Validators in force whose evidence failed, or passed too long ago, and of whom no more may be out.",
            ),
        }
    }

    /// Validators that are suspended, and those in force that have lapsed.
    pub fn validators(&self, suspended: usize, lapsed: usize) {
        self.suspended.set((), suspended as u64);
        self.lapsed.set((), lapsed as u64);
    }

    /// A quote was given, or not, after `duration`.
    pub fn quoted(&self, given: bool, duration: Duration) {
        self.quotes.increment(if given { Outcome::Success } else { Outcome::Failure });
        self.duration.time((), duration);
        if given {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_success.set((), now.as_secs());
        }
    }
}
