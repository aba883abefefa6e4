//! Registration: one place that knows every family and how it is described.

use prometheus::core::Collector;
use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

use super::family::{CounterFamily, GaugeFamily, HistogramFamily, ImportedHistogramFamily};
use super::label::Labels;

/// What the documentation says of a family.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) labels: Vec<&'static str>,
    pub(super) help: &'static str,
}

pub(super) struct Registry {
    inner: prometheus::Registry,
    descriptions: Vec<Description>,
}

/// Names and labels are constants of this module's children and a test renders all of them.
const CONSTANT: &str = "metric names and labels are valid constants, each registered once";

impl Registry {
    pub(super) fn new() -> Self {
        Self { inner: prometheus::Registry::new(), descriptions: Vec::new() }
    }

    fn register(&mut self, name: &str, kind: &'static str, labels: &[&'static str], help: &'static str) {
        let description = Description { name: name.to_owned(), kind, labels: labels.to_vec(), help };
        self.descriptions.push(description);
    }

    fn collect(&self, collector: impl Collector + 'static) {
        self.inner.register(Box::new(collector)).expect(CONSTANT);
    }

    /// A counter family with each of `initial` at 0.
    pub(super) fn counters<L: Labels>(&mut self, name: &str, help: &'static str, initial: Vec<L>) -> CounterFamily<L> {
        let inner = IntCounterVec::new(Opts::new(name, help), L::NAMES).expect(CONSTANT);
        self.collect(inner.clone());
        self.register(name, "counter", L::NAMES, help);
        let family = CounterFamily::new(inner);
        initial.iter().for_each(|labels| family.add(*labels, 0));
        family
    }

    /// A gauge family with every series at 0.
    pub(super) fn gauges<L: Labels>(&mut self, name: &str, help: &'static str) -> GaugeFamily<L> {
        let inner = IntGaugeVec::new(Opts::new(name, help), L::NAMES).expect(CONSTANT);
        self.collect(inner.clone());
        self.register(name, "gauge", L::NAMES, help);
        let family = GaugeFamily::new(inner);
        L::all().into_iter().for_each(|labels| family.set(labels, 0));
        family
    }

    /// A histogram family with every series empty.
    pub(super) fn histograms<L: Labels>(
        &mut self,
        name: &str,
        help: &'static str,
        buckets: &[f64],
    ) -> HistogramFamily<L> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let inner = HistogramVec::new(options, L::NAMES).expect(CONSTANT);
        self.collect(inner.clone());
        self.register(name, "histogram", L::NAMES, help);
        let family = HistogramFamily::new(inner);
        L::all().into_iter().for_each(|labels| family.prepare(labels));
        family
    }

    /// A histogram family whose counts come from elsewhere.
    pub(super) fn imported<L: Labels + Send + Sync + 'static>(
        &mut self,
        name: &str,
        help: &'static str,
        bounds: &[f64],
    ) -> ImportedHistogramFamily<L> {
        let family = ImportedHistogramFamily::new(name, help, bounds);
        self.collect(family.clone());
        self.register(name, "histogram", L::NAMES, help);
        family
    }

    /// A gauge of value 1 whose labels say something about the process.
    pub(super) fn info(&mut self, name: &str, help: &'static str, labels: &[(&'static str, &str)]) {
        let names: Vec<&'static str> = labels.iter().map(|(name, _)| *name).collect();
        let values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
        let inner = IntGaugeVec::new(Opts::new(name, help), &names).expect(CONSTANT);
        inner.with_label_values(&values).set(1);
        self.collect(inner);
        self.register(name, "gauge", &names, help);
    }

    /// A gauge of value 1 whose labels are set later.
    pub(super) fn late_info<const N: usize>(
        &mut self,
        name: &str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> IntGaugeVec {
        let inner = IntGaugeVec::new(Opts::new(name, help), &labels).expect(CONSTANT);
        inner.with_label_values(&[""; N]).set(0);
        self.collect(inner.clone());
        self.register(name, "gauge", &labels, help);
        inner
    }

    /// The `process_*` families of the operating system's view.
    pub(super) fn process(&mut self) {
        self.collect(prometheus::process_collector::ProcessCollector::for_self());
    }

    pub(super) fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    pub(super) fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.inner.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
