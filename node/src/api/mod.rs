//! The node's HTTP interface: three listeners, one table of routes, one place that decides who may use them.
//!
//! ```text
//!   party   (mTLS) ──┐
//!   public  (TLS)  ──┼─► server ─► Route ─► access ─► handler ─► Backend (chain, admission)
//!   plain (loopback)─┤   bounds      table    rules       │
//!   admin           ─┘                                    └─► JSON, CBOR, COSE or problem+json
//! ```
//!
//! * [`Route`] names every resource with its path, method and rule; nothing is served that is not in it.
//! * [`access`] is the only code that decides who may read what. It asks the ledger at every request, so that a revoked
//!   certificate key or a suspended party is refused on connections that are already open.
//! * [`server`] accepts, bounds and times out: connections, requests in progress, bytes of bodies in memory, heads,
//!   bodies, idle connections and unread answers.
//! * Errors are RFC 9457 problem details with the stable codes of `stele_types::Code` and a word on what to do.
//! * Registration follows SCITT (RFC 9943) resources. Every request is idempotent: the same statement gets the same
//!   answer, whichever node is asked.
//!
//! What it is not: it verifies nothing and keeps nothing. The node behind it is a [`Backend`]; tests put a small one there.
//! Bodies, statements and keys never reach the node's own log.

pub mod access;
mod answer;
mod attest;
mod backend;
mod blobs;
mod body;
mod cache;
mod chain;
mod commons;
mod custody;
mod document;
mod feed;
mod format;
mod health;
mod network;
mod parameters;
mod problem;
mod reads;
mod route;
mod router;
mod sequence;
mod server;
mod snapshots;
mod state;
mod statements;
mod status;
mod storage;
mod submit;
mod view;

pub(crate) use access::Rule;
pub use backend::{
    Backend, BackendError, Client, Executed, InForce, Location, Refusal, SealedHead, Snapshot, Standing, Standpoint,
};
pub use document::document;
pub use problem::{PROBLEM_CONTENT_TYPE, Problem};
pub use route::Route;
pub use server::{Api, ApiError, Certificates};

#[cfg(test)]
mod tests;
