//! The one hot keyed index: statement id → height and position in the block.
//!
//! Every statement of every block is entered, applied or rejected, so the outcome of any submission is
//! found by its id. Ids are SHA-256 values; 16 bytes of one are the key. A caller always compares the
//! full id with the block that the index points to, so a shared prefix costs a wrong pointer, never a
//! wrong answer. When an id was entered twice (an opaque statement registered again after the replay
//! window), the newest location wins.
//!
//! ```text
//!   put_block ──► queue (bounded) ──► memtable ──► run ──► run ──► … merged four by four
//!                 │ full: the caller waits           fixed 24-byte entries, sorted, 4 KiB blocks
//!   lookup  ◄──── queue, memtable, runs from the newest to the oldest
//! ```
//!
//! A *run* is an immutable sorted file. Because keys are uniform, a position is found by interpolation
//! between exact ranks kept for every 2,720 entries or so (0.003 bytes of RAM an entry): in most cases
//! one read of 4 KiB a run. Four runs of a tier are merged into one of the next tier in the background,
//! small merges before large ones, so the number of runs grows with the logarithm of the entries.
//!
//! The index is derived from the blocks and never on the commit path: nothing is durable when
//! [`put_block`] returns. [`complete_through`] says up to which height the runs on disk are complete;
//! after opening, the node puts the blocks behind it again. Damage found in a run (every 4 KiB carry a
//! checksum) is answered with `index_corrupt`, and [`StatementIndex::reset`] starts anew.
//!
//! [`put_block`]: StatementIndex::put_block
//! [`complete_through`]: StatementIndex::complete_through

mod catalog;
mod entry;
mod error;
mod feed;
mod manifest;
mod merge;
mod run;
mod store;
#[cfg(test)]
mod tests;

pub use entry::StatementId;
pub use error::IndexError;
pub use store::{IndexFigures, IndexOptions, StatementIndex};
