//! The rules of Stele's two authenticated structures, and the proofs that third parties check against them.
//!
//! * [`log`]: the append-only log of statements, an RFC 9162 SHA-256 tree. The statements tree and the outcomes
//!   tree of a block use the same rules.
//! * [`tile`]: how that log is served as static files (C2SP tlog-tiles).
//! * [`state`]: the state tree, a history-independent sparse binary tree over 256-bit keys, hashed with SHA-256 or
//!   SM3, with membership and non-membership proofs.
//!
//! ```text
//!   entry ── leaf_hash ──► Frontier ──► root          key, value ──► leaf ──► node … ──► root
//!                │                                        │
//!                └─ HashSource ──► inclusion,             └─ Proof ──► verify(root, key, value or none)
//!                                  consistency, tiles
//! ```
//!
//! What this crate is not: a store. It keeps no files and no engine; `stele-state` holds the map, the node holds the
//! log's flat files and gives them to this crate as a [`log::HashSource`].
//!
//! The crate is pure: `no_std` with `alloc`, no clock, no randomness, no unsafe code, and it builds for
//! `wasm32-unknown-unknown`, so that a verifier can run in a browser. Nothing here panics on input from outside:
//! what a peer or a file can get wrong is an error value. The formats never change once released; they are pinned by
//! `tests/vectors.rs`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod log;
pub mod state;
pub mod tile;

/// Bytes in every hash of this crate (SHA-256 and SM3 both give 256 bits).
pub const HASH_BYTES: usize = 32;

/// A SHA-256 or SM3 digest.
pub type Hash = [u8; HASH_BYTES];
