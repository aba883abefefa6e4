//! Families of metrics with typed labels.

use std::collections::BTreeMap;
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

/// Histograms with labels `L` whose bucket counts another part keeps.
#[derive(Clone)]
pub struct ImportedHistogramFamily<L> {
    description: Desc,
    bounds: Arc<[f64]>,
    state: Arc<Mutex<BTreeMap<Vec<&'static str>, Imported>>>,
    labels: PhantomData<L>,
}

/// One such histogram without labels.
pub type ImportedHistogram = ImportedHistogramFamily<()>;

#[derive(Default)]
struct Imported {
    counts: Vec<u64>,
    sum: f64,
}

impl<L: Labels> ImportedHistogramFamily<L> {
    pub(super) fn new(name: &str, help: &str, bounds: &[f64]) -> Self {
        let names = L::NAMES.iter().map(|name| (*name).to_owned()).collect();
        let description = Desc::new(name.to_owned(), help.to_owned(), names, std::collections::HashMap::new())
            .expect("metric names are valid constants");
        let family = Self { description, bounds: bounds.into(), state: Arc::default(), labels: PhantomData };
        L::all().into_iter().for_each(|labels| family.import(labels, &[], 0.0));
        family
    }
    /// Takes over the counts per bucket (the last one above every bound) and the sum of all observations.
    pub fn import(&self, labels: L, counts: &[u64], sum: f64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let imported = state.entry(labels.values().as_ref().to_vec()).or_default();
        imported.counts.clear();
        imported.counts.extend_from_slice(counts);
        imported.sum = sum;
    }

    fn metric(&self, values: &[&'static str], imported: &Imported) -> proto::Metric {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, bound) in self.bounds.iter().enumerate() {
            cumulative += imported.counts.get(index).copied().unwrap_or(0);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(imported.counts.iter().sum());
        histogram.set_sample_sum(imported.sum);
        histogram.set_bucket(buckets);
        let label = |(name, value): (&&str, &&str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metric = proto::Metric::default();
        metric.set_label(L::NAMES.iter().zip(values).map(label).collect());
        metric.set_histogram(histogram);
        metric
    }
}

impl<L: Labels + Send + Sync> Collector for ImportedHistogramFamily<L> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }
    fn collect(&self) -> Vec<proto::MetricFamily> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(state.iter().map(|(values, imported)| self.metric(values, imported)).collect());
        vec![family]
    }
}
