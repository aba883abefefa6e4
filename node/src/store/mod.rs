//! What a node keeps on disk beside the state map: blocks, the log tree, and one keyed index.
//!
//! ```text
//!   decided block ──► blocks   source of truth: one append and one fdatasync per block
//!                       │
//!                       ├────► log     RFC 9162 subtree hashes and leaf locations, flat arrays
//!                       └────► index   statement id → height and position, sorted runs
//! ```
//!
//! Only [`blocks`] is durable before a call returns. [`log`] and [`index`] are derived: each says at
//! open how far it is complete, and the node feeds it the blocks that follow. Losing either one costs
//! time, never a fact. All three speak byte slices and know nothing of statements, consensus or tokio;
//! calls block the calling thread.
//!
//! Every module has one error enum with a stable code. After a failed write or fsync a part is
//! *poisoned*: what the kernel holds and what the disk holds may differ from then on, so every later
//! call fails and the node restarts from what really is on disk.

pub mod blocks;
pub(crate) mod durable;
pub mod index;
mod location;
pub mod log;
mod poison;
#[cfg(test)]
mod tests;

pub use location::{HEIGHT_MAX, Location, POSITION_MAX};
