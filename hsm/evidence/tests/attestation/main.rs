//! Evidence of a real TPM, judged here and by the tools that others use.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/swtpm/mod.rs"]
mod swtpm;

mod boot;
mod certificates;
mod credentials;
mod hostile;
mod kernel;
mod keylime;
mod keys;
mod packages;
mod platform;
mod quotes;
mod tarballs;
mod vectors;
mod verdicts;
