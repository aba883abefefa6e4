//! What a third party needs to believe a Stele network without asking it.
//!
//! A quorum bundle proves that a statement is in the log, or that it was rejected. Checking it takes the bundle, a
//! [`TrustAnchor`] (the genesis file, or a pinned height with the hash of its validator set) and this crate; no
//! connection, no clock, no software of the node.
//!
//! ```text
//!  TrustAnchor ─► chain of validator sets ─► CertifiedHeader ─┬─► bundle      registered, or rejected
//!                 (each link certified       (quorum of the   ├─► state       values under the state root
//!                  by the set before)         height's set)   └─► checkpoint  a node that contradicts the quorum
//!
//!  receipt + entry + checkpoint key ─────────────────────────────► receipt    vouched by one node only
//!  custody receipt + checkpoint key ─────────────────────────────► custody    a body that one node says it holds
//! ```
//!
//! A receipt alone is the word of one node; only a quorum makes a registration. The two never share a verdict, nor an
//! exit code: see [`verdict`].
//!
//! What it is not: it fetches nothing and decides nothing about what a statement means. It cannot know that a validator
//! set it trusts was replaced later unless the proof or a newer pin says so: whoever verifies years later pins a recent
//! height.
//!
//! The crate is `no_std`, free of unsafe code and of foreign libraries, and builds for `wasm32-unknown-unknown`, so that
//! a verifier runs in a browser or on a phone. Nothing from outside makes it panic; work is bounded by the size limits
//! of the encodings.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod anchor;
pub mod bundle;
pub mod certificate;
pub mod chain;
pub mod checkpoint;
pub mod custody;
pub mod error;
pub mod key;
pub mod receipt;
pub mod signature;
pub mod state;
pub mod statement;
pub mod verdict;

pub use anchor::TrustAnchor;
pub use bundle::Expectation;
pub use chain::CertifiedHeader;
pub use error::VerifyError;
pub use key::PublicKey;
pub use state::StateVerdict;
pub use verdict::{Registered, Rejected, Verdict, Vouched};
