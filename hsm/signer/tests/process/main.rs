//! The process as its users meet it: a real TPM and token behind it, a real socket before it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attesting;
mod ceremony;
mod core_files;
#[path = "../../../tests/custodians/mod.rs"]
mod custodians;
mod custody;
mod failing;
mod host;
mod ledger;
#[path = "../../../tests/requests/mod.rs"]
mod requests;
mod signing;
#[path = "../../../tests/swtpm/mod.rs"]
mod swtpm;
