//! The state machine of the five platforms: what a committed block does to the state.
//!
//! [`apply`] takes a view of the state after the parent, a header and its statements, and gives back writes, one outcome
//! per statement, the statements that became leaves of the log, and events. It is pure: block time is the only time, and
//! the same blocks give the same bytes on every machine. State = fold(blocks).
//!
//! ```text
//!  Statement ──► replay window ──► key ──► party ──► authority ──► command ──► Outcome
//!                  (replay)      (signing)          (authority)   (execute)      │
//!                     ▲                                              │           │
//!                     └───────── first outcome, kept ────────────────┼───────────┘
//!                                                                    ▼
//!                         Transaction ─► Overlay of the block ─► writes over the StateView
//! ```
//!
//! * A statement applies whole or not at all: it writes into a transaction over the block's overlay.
//! * A statement that was decided within the replay window has the same outcome again (see [`replay`]).
//! * Who may do what is one table (see [`authority`]); what a governor proposes, another governor approves.
//! * Rules change at a height that lies at least two ahead (see [`Frame`]).
//!
//! What this crate is not: it verifies no statement's signature (whoever votes does; [`signing_key`] says under which
//! key), keeps no tree and hashes no root, and reads no body of a record. It is `no_std` and builds for
//! `wasm32-unknown-unknown`, so that a regulator can replay in a browser.
//!
//! Keys of the state are described by [`Domain`], values by the types of [`value`]; [`query`] reads them.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod apply;
mod attestation;
pub mod authority;
mod change;
pub mod event;
mod execute;
mod frame;
mod genesis;
mod key_check;
mod overlay;
pub mod query;
pub mod replay;
mod signing;
mod state;
pub mod value;

pub use apply::{Applied, apply, prefetch};
pub use attestation::lapsed_validators;
pub use event::{Event, EventKind};
pub use execute::{
    ACTIVATION_DISTANCE_MAX, ACTIVATION_DISTANCE_MIN, CURVE_CHECKS_MAX, GOVERNORS_MIN, MANDATE_LIFE_MAX_MS,
};
pub use frame::{Frame, frame};
pub use genesis::{check_genesis, genesis_writes};
pub use replay::{SWEEP_KEYS_MAX, is_remembered};
pub use signing::{SigningKeys, signing_key};
pub use state::{Domain, StateKey, StateView, Stored, VALUE_BYTES_MAX, Write};
