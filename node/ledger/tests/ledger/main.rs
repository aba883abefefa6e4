//! The ledger's rules, seen from outside: blocks in, outcomes and state out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attestation;
mod change;
mod custody;
mod dual_control;
mod epoch;
mod golden;
mod mandates;
mod model;
mod network;
mod parties;
mod properties;
mod registration;
mod replay;
