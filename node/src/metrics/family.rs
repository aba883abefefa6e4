//! Families of metrics with typed labels.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::label::Labels;

/// Counters with labels `L`.
#[derive(Clone)]
pub struct CounterFamily<L> {
    inner: IntCounterVec,
    labels: PhantomData<L>,
}

/// One counter without labels.
pub type Counter = CounterFamily<()>;

impl<L: Labels> CounterFamily<L> {
    pub(super) fn new(inner: IntCounterVec) -> Self {
        Self { inner, labels: PhantomData }
    }
    /// Counts `amount`.
    pub fn add(&self, labels: L, amount: u64) {
        self.inner.with_label_values(labels.values().as_ref()).inc_by(amount);
    }
    /// Counts one.
    pub fn increment(&self, labels: L) {
        self.add(labels, 1);
    }
    /// Raises the counter to `total`; a smaller total leaves it as it is.
    pub fn follow(&self, labels: L, total: u64) {
        let value = self.value(labels);
        if total > value {
            self.add(labels, total - value);
        }
    }
    /// The present value.
    pub fn value(&self, labels: L) -> u64 {
        self.inner.with_label_values(labels.values().as_ref()).get()
    }
}

/// A counter that follows a total which another part keeps.
#[derive(Clone)]
pub struct Total(Counter);

impl Total {
    pub(super) fn new(counter: Counter) -> Self {
        Self(counter)
    }
    /// Raises the counter to `total`; a smaller total, after a restart of that part, counts from there.
    pub fn follow(&self, total: u64) {
        self.0.follow((), total);
    }
    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.value(())
    }
}

/// Gauges with labels `L`.
#[derive(Clone)]
pub struct GaugeFamily<L> {
    inner: IntGaugeVec,
    labels: PhantomData<L>,
}

/// One gauge without labels.
pub type Gauge = GaugeFamily<()>;

impl<L: Labels> GaugeFamily<L> {
    pub(super) fn new(inner: IntGaugeVec) -> Self {
        Self { inner, labels: PhantomData }
    }
    /// Sets the value; beyond 2^63 it stays at the largest.
    pub fn set(&self, labels: L, value: u64) {
        self.set_signed(labels, i64::try_from(value).unwrap_or(i64::MAX));
    }
    /// Sets a value that may be negative.
    pub fn set_signed(&self, labels: L, value: i64) {
        self.inner.with_label_values(labels.values().as_ref()).set(value);
    }
    /// Adds, or subtracts.
    pub fn change(&self, labels: L, by: i64) {
        self.inner.with_label_values(labels.values().as_ref()).add(by);
    }
    /// The present value.
    pub fn value(&self, labels: L) -> i64 {
        self.inner.with_label_values(labels.values().as_ref()).get()
    }
}

/// Histograms with labels `L`.
#[derive(Clone)]
pub struct HistogramFamily<L> {
    inner: HistogramVec,
    labels: PhantomData<L>,
}

/// One histogram without labels.
pub type Histogram = HistogramFamily<()>;

impl<L: Labels> HistogramFamily<L> {
    pub(super) fn new(inner: HistogramVec) -> Self {
        Self { inner, labels: PhantomData }
    }
    pub(super) fn prepare(&self, labels: L) {
        drop(self.inner.with_label_values(labels.values().as_ref()));
    }
    /// Observes a duration, in seconds.
    pub fn time(&self, labels: L, duration: Duration) {
        self.observe(labels, duration.as_secs_f64());
    }
    /// Observes a size or a count.
    pub fn observe(&self, labels: L, value: f64) {
        self.inner.with_label_values(labels.values().as_ref()).observe(value);
    }
}

/// A histogram whose bucket counts another part keeps.
#[derive(Clone)]
pub struct ImportedHistogram {
    description: Desc,
    bounds: Arc<[f64]>,
    state: Arc<Mutex<Imported>>,
}

#[derive(Default)]
struct Imported {
    counts: Vec<u64>,
    sum: f64,
}

impl ImportedHistogram {
    pub(super) fn new(name: &str, help: &str, bounds: &[f64]) -> Self {
        let description = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), std::collections::HashMap::new())
            .expect("metric names are valid constants");
        Self { description, bounds: bounds.into(), state: Arc::default() }
    }
    /// Takes over the counts per bucket (the last one above every bound) and the sum of all observations.
    pub fn import(&self, counts: &[u64], sum: f64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counts.clear();
        state.counts.extend_from_slice(counts);
        state.sum = sum;
    }
}

impl Collector for ImportedHistogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }
    fn collect(&self) -> Vec<proto::MetricFamily> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, bound) in self.bounds.iter().enumerate() {
            cumulative += state.counts.get(index).copied().unwrap_or(0);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(state.counts.iter().sum());
        histogram.set_sample_sum(state.sum);
        histogram.set_bucket(buckets);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}
