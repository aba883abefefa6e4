//! Networks of real processes for tests: start them, load them, hurt them, and compare what is left.
//!
//! A [`Cluster`] is a network of `steled` processes on loopback in a directory of its own. A [`Load`] submits statements in
//! the background and keeps a record of every acknowledgement: a statement counts as acknowledged once a node said that
//! its outcome is certified. [`agreement::check`] then asks every node for the same statements, headers and roots.
//!
//! ```text
//!  Cluster::start ──► Load::start ──► kill, wipe, split, flood ──► Load::finish ──► agreement::check
//! ```
//!
//! What it is not: it mocks nothing and skips nothing. Without the daemon, a test fails with the command that builds it.
//! Sizes are for a quick run on two cores; `STELE_SLOW=1` asks for the large ones.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod chance;
pub mod cluster;
pub mod command_line;
pub mod disk;
pub mod load;
pub mod maker;
pub mod memory;
pub mod namespaces;
pub mod process;
pub mod signers;
pub mod slow_tpm;
pub mod wire;

pub use chance::Chance;
pub use cluster::Cluster;
pub use command_line::CommandLine;
pub use load::{Load, LoadOptions};
pub use maker::Maker;

/// Size of a test: `quick` normally, `slow` when `STELE_SLOW=1`.
pub fn scale(quick: usize, slow: usize) -> usize {
    if std::env::var_os("STELE_SLOW").is_some_and(|value| value == "1") { slow } else { quick }
}
