//! Bulk SHA-256 and SM3 on the CPU: many messages at once, same result as one at a time.
//!
//! A ledger hashes millions of short, independent inputs: leaves, tree interiors, state pages. One
//! message is a serial chain and cannot be made faster by wider registers; sixteen messages can, one
//! in each lane. Everything here therefore takes *batches* and chooses the kernel itself:
//!
//! ```text
//!  digest_batch / digest_spans / node_pairs / node_level
//!        │  messages, one prefix
//!        ▼
//!    active kernel ─┬─ AVX-512, 16 lanes ┐
//!                   ├─ AVX2, 8 lanes     ├─ lanes refill as messages end (x86-64)
//!                   ├─ SHA-NI, 2 ways    ┘
//!                   └─ portable: `sha2` (SHA-NI where the CPU has it) and `sm3`
//! ```
//!
//! The prefix is the domain byte of the tree rules (RFC 9162 section 2.1.1: `0x00` for a leaf,
//! `0x01` for a node); it is hashed before each message without being copied in front of it.
//!
//! [`sha512_batch`] does the same for the challenges of Ed25519, in eight lanes of AVX-512 or one at a time.
//!
//! [`prefetch`] and [`prefer_huge_pages`] are here too, for walks over trees too large for the caches: they are the other
//! things that a safe crate needs of the processor and the system.
//!
//! This crate holds no rule of any tree beyond "pair neighbours": which bytes are leaves and which
//! prefix they get is decided by the caller. It uses no GPU, starts no thread and keeps no state.

mod algorithm;
mod batch;
mod huge_pages;
mod kernel;
mod prefetch;
mod sha512;
mod span;
mod tree;

pub use crate::{
    algorithm::{DIGEST_LENGTH, Digest, HashAlgorithm, digest},
    batch::{digest_batch, digest_spans},
    huge_pages::prefer_huge_pages,
    kernel::{Kernel, active_kernel},
    prefetch::prefetch,
    sha512::sha512_batch,
    span::{Span, SpanError},
    tree::{LEAF_PREFIX, NODE_PREFIX, node_level, node_pairs, tree_root},
};
