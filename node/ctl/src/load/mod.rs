//! The load generator: statements signed beforehand, submitted in batches, measured until every node holds them.
//!
//! It is light, because on a small machine it runs beside the nodes that it measures: signing happens before the measured
//! window, batches are large, connections few, and one long poll follows each batch. A batch counts as answered when its
//! last statement has a certified outcome, which is when a receipt for it can be had.
//!
//! ```text
//!  workload (sign) ──► Batch ──► drive (submit, resend what was throttled, follow) ──► Report
//!                                   └── watch: log size of every node, side by side
//! ```

mod drive;
mod report;
mod workload;

pub use drive::{Feeder, LoadOptions, NodeWatch, drive};
pub use report::{JsonLine, NodeRate, Report, write_json_lines};
pub use workload::{Batch, Content, enrol_keys, sign_batches, steps};
