//! The node: stages wired into one daemon, `steled`.
//!
//! ```text
//!  api ──► admission ──► order ──► chain (execute, log) ──► seal
//!   ▲          │ accel     │ ordering: propose, judge, commit   │
//!   └──────────┴───────────┴───── reads: receipts, bundles ◄────┘
//! ```
//!
//! One noun per stage, from module to metric: [`admission`] takes statements in, [`ordering`] is what the order engine
//! asks the node, [`chain`] executes and keeps, [`seal`] signs tree heads, [`api`] serves. [`node`] starts and stops them;
//! it is the only place that knows everyone. Consensus itself lives in `stele-order`, rules in `stele-ledger`, bytes in
//! `stele-types`; what is here is tasks, files and sockets.

#![forbid(unsafe_code)]

pub mod accelerator;
pub mod admission;
pub mod alarm;
pub mod api;
pub mod attestor;
pub mod backend;
mod backup;
mod bench;
pub mod chain;
pub mod config;
pub mod control;
pub mod daemon;
mod fetch;
mod join;
mod keys;
pub mod metrics;
pub mod node;
pub mod observe;
pub mod ordering;
pub mod payload;
pub mod peers;
pub mod receipt_clock;
pub mod seal;
pub mod signatures;
mod state;
pub mod store;
pub mod tls;
mod vote;

pub use node::{Node, NodeError};
