//! The command line of Stele, and the pieces of it that tests and the task runner reuse.
//!
//! `stele` is for operators, agencies and regulators: it makes networks, signs and submits statements, fetches receipts
//! and verifies them offline. It keeps no state but files: a network's directory holds addresses, the genesis file and
//! the keys of the parties that work from this machine. `stele-verify` is the lean offline verifier; it needs no network
//! directory and no runtime.
//!
//! ```text
//!  commands ──► author (signs) ──► stele-client ──► nodes
//!     │            └── keys            ▲
//!     ├── network (init, profile)       │
//!     ├── localnet (processes)          │
//!     └── load (generator) ─────────────┘
//! ```
//!
//! What it is not: it never holds a node's voting or seal key in use, and it trusts no node: what it shows as proven, it
//! has verified with `stele-verify`.

#![forbid(unsafe_code)]

pub mod attestation;
pub mod author;
pub mod ceremony;
pub mod commands;
pub mod describe;
pub mod failure;
pub mod keys;
pub mod load;
pub mod localnet;
pub mod network;
pub mod output;
pub mod pki;
pub mod progress;
pub mod registration;
pub mod rejection;
pub mod session;
pub mod signer;
pub mod standing;
pub mod state_query;
pub mod submission;
pub mod verification;
