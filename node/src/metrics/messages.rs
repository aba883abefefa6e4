//! Counts the lines of the node's own log, so that a burst of warnings is seen without reading them.

use std::sync::Arc;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Metrics;
use super::label::Severity;

/// A layer of the tracing subscriber.
pub struct MessageCounter(Arc<Metrics>);

impl MessageCounter {
    /// Counts into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }
}

impl<S: Subscriber> Layer<S> for MessageCounter {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let severity = match *event.metadata().level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warn,
            Level::INFO => Severity::Info,
            Level::DEBUG => Severity::Debug,
            Level::TRACE => Severity::Trace,
        };
        self.0.build.messages.increment(severity);
    }
}
