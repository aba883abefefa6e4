//! From submission to receipt: the figure that users feel, measured for statements that this node admitted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use stele_types::Height;

use crate::metrics::Metrics;
use crate::metrics::label::Class;

/// Blocks whose statements wait for a seal; beyond it the oldest are given up, which only loses samples.
const BLOCKS_MAX: usize = 256;

/// Class and arrival of a statement.
type Arrival = (Class, Instant);

/// Arrival times of decided statements that wait for a certified checkpoint.
pub struct ReceiptClock {
    metrics: Arc<Metrics>,
    waiting: Mutex<VecDeque<(Height, Vec<Arrival>)>>,
}

impl ReceiptClock {
    /// A clock that reports to `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { metrics, waiting: Mutex::default() })
    }
    /// Statements of this node were decided at `height`.
    pub fn decided(&self, height: Height, arrivals: Vec<Arrival>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((height, arrivals));
        while waiting.len() > BLOCKS_MAX {
            waiting.pop_front();
        }
    }
    /// A checkpoint that covers `height` is signed and certified.
    pub fn sealed(&self, height: Height) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.front().is_some_and(|(decided, _)| *decided <= height) {
            for (class, arrived) in waiting.pop_front().into_iter().flat_map(|(_, arrivals)| arrivals) {
                self.metrics.pipeline.receipt(class, arrived.elapsed());
            }
        }
    }
}
