//! Keys in a real PKCS#11 token in software: SoftHSM. Its module reads its configuration from the environment when it is
//! loaded, so each test runs once more in a process of its own, with a token of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../requests/mod.rs"]
mod requests;

mod keys;
mod softhsm;
