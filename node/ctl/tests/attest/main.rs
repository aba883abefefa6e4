//! `stele attest` against a node's routes that a real TPM answers, and against files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../../hsm/evidence/tests/attestation/boot.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod boot;
#[path = "../../../../hsm/tests/swtpm/mod.rs"]
mod swtpm;

#[path = "../../../verify/tests/fixture/mod.rs"]
mod fixture;

mod files;
mod node;
mod online;
mod recipe;
mod signers;
