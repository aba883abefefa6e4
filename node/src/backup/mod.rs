//! Backups of a node: a repository of files that prove themselves, and a node made of one.
//!
//! ```text
//!  data directory ── blocks, outcomes, snapshot of the state, class keys (sealed), journal ──┐
//!  running node ──── sealed bodies, through the operator's listener ─────────────────────────┴─► repository
//!                                                                                                  │ verify, drill
//!  empty data directory ◄── everything verified from the genesis file on ◄─────────────────────────┘ restore
//! ```
//!
//! * It is made while the node runs: blocks are only appended, snapshots are finished files, bodies come from the node.
//! * Each backup adds what is new; its manifest is written last, so one that was broken off is none.
//! * No private key and no guard is ever in it. A guard that came back from a backup would have forgotten votes.
//! * [`create`] writes, [`check`] believes, [`restore`] makes a node of it, [`drill`] rehearses that.

mod blocks;
mod bodies;
mod check;
mod command;
mod create;
mod drill;
mod error;
mod file;
mod manifest;
mod point;
mod repository;
mod restore;
mod source;
mod trust;

pub(crate) use command::{BackupCommand, Restore};
pub(crate) use create::last;
use error::BackupError;
