//! Keys in a real TPM 2.0 in software: signing, attesting, and every way in which a TPM goes away.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../requests/mod.rs"]
mod requests;
#[path = "../swtpm/mod.rs"]
mod swtpm;

mod attestation;
mod epochs;
mod keys;
mod losses;
mod sealing;
