//! The log tree on disk: RFC 9162 subtree hashes and leaf locations as flat arrays.
//!
//! ```text
//!   level-00   leaf hashes                      hash i at byte 32·i
//!   level-KK   complete subtrees of 2^K leaves  hash i at byte 32·i
//!   entries    log index → height, position     packed location i at byte 8·i
//!   synced     base, size and root up to which the files above are durable
//! ```
//!
//! [`LogWriter`] appends, any number of threads read through [`LogStore`]; a size becomes visible when
//! all hashes under it are written, and hashes never change afterwards, so readers take no lock.
//!
//! Appending makes nothing durable: leaves can be read again from the blocks. [`LogStore::sync`], called
//! in the background every few seconds, makes the files durable and then records their size. Opening
//! trusts nothing beyond that record: it cuts the files back to it, checks the root, and the caller
//! appends again what is missing. So no crash, at whatever byte, leaves a wrong hash below the log's
//! size. Proofs are checked against the root before they are given out, and [`LogStore::verify`] checks
//! every inner hash.
//!
//! A node that joins from a snapshot starts at its [`Frontier`](stele_merkle::log::Frontier): such a log
//! proves everything about entries from its *base* on, and answers `log_before_base` for older ones.

mod base;
mod error;
mod files;
mod synced;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub use base::base;
pub use error::LogStoreError;
pub use tree::{LogFigures, LogStore};
pub use writer::LogWriter;
