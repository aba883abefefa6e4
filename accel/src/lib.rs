//! The accelerator: signature verification and hashing in bulk.
//!
//! The node does little else that costs: every statement carries a signature, every validator checks every
//! one, a node that catches up checks a year of them. This crate takes such work as *jobs* over flat arenas
//! (one byte buffer and spans into it), cuts them into chunks, and answers with one verdict or digest per
//! item, in order.
//!
//! ```text
//!   submit(VerifyJob | DigestJob | MerkleJob, priority)
//!        │ bounded queue: live before bulk
//!        ▼
//!        │ small jobs that wait anyway go together
//!   workers, one per core ──► suite::ed25519   tables, else batch equation, bisection
//!        │                    suite::p256      tables, else wNAF
//!        │                    suite::sm2       tables, else wNAF
//!        │                    stele-accel-hash multi-buffer kernels
//!        │  ▲ what a GPU gets of bulk work: batch ─► gpu ─► guard; unanswered or wrong: here
//!        ▼
//!   Ticket: a Future, or wait()
//! ```
//!
//! **The acceptance rules** are consensus: two nodes that disagree about one signature have forked. They are
//! therefore stated once ([`Suite`]), a verdict never depends on how items were batched, and the tests
//! compare each suite with an independent implementation item by item:
//!
//! - Ed25519 under ZIP-215: `s < ℓ`, any encoding of `A` and `R` that decodes, `[8][s]B = [8]R + [8][k]A`.
//!   It is the only rule under which single and batch verification accept the same set.
//! - ES256: ECDSA over P-256 with SHA-256; `r` and `s` in `1..n`, high and low `s` alike.
//! - SM2 with SM3 and the default identity, GB/T 32918.2; `r` and `s` in `1..n`, `r + s ≠ 0`, and the point
//!   of the last step is not the point at infinity, which has no x-coordinate.
//!
//! A malformed key or signature is [`Verdict::Invalid`], never an error: it comes from outside. A span that
//! leaves its arena is the caller's mistake and is refused before anything is queued.
//!
//! The CPU is the definition of right; the GPU may only be faster. It is optional at run time: without one, while its
//! kernels are compiled and after it was lost or found wrong, the CPU does everything.

mod cost;
mod curve;
mod engine;
mod figures;
mod gpu;
mod guard;
mod job;
mod pool;
mod suite;
mod ticket;

pub use bytes::Bytes;
pub use stele_accel_hash::{
    DIGEST_LENGTH, Digest, HashAlgorithm, Kernel, LEAF_PREFIX, NODE_PREFIX, Span, SpanError, active_kernel,
};

pub use crate::{
    engine::{ED25519_BATCH_MIN, Engine, EngineConfig, EngineError, Priority, Refused, SubmitError},
    figures::{
        CacheFigures, FAULT_REASONS, Figures, GpuBatches, GpuFigures, JobFigures, SECONDS_BUCKETS, SuiteFigures, Times,
    },
    gpu::{Assign, GPU_THREADS, GpuConfig, GpuState, GpuStatus},
    job::{
        Job,
        digest::DigestJob,
        merkle::{MerkleJob, MerkleLevels},
        verify::{VerifyItem, VerifyJob},
    },
    suite::{KeyError, SM2_DEFAULT_IDENTITY, Suite, Verdict, check_public_key, verify_one},
    ticket::{Ticket, TicketError},
};
