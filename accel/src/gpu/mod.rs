//! The GPU, through Vulkan.
//!
//! ```text
//!  a chunk of work ─► guard: nonce, canaries ─► Batch ─► ring of slots ─► device ─► Answer ─► guard ─► results
//!                                                           │ poller, one thread            │ anything wrong
//!                                                           └─ device lost ─────────────────┴─► the CPU does the chunk
//! ```
//!
//! Everything here is best effort: a batch that the device does not answer comes back as an [`Errand`] without an
//! answer, and the CPU does it. Until the kernels are compiled, and where there is no device at all, the CPU does all.
//!
//! No secret goes to the device: messages and signatures are public, and bodies are hashed as ciphertext.
//!
//! [`Errand`]: crate::pool::Errand

mod cache;
mod config;
mod device;
mod hashing;
mod kernel;
mod layout;
mod machine;
mod question;
mod ring;
mod service;
mod signatures;
mod tables;
#[cfg(test)]
mod tests;

pub use self::{
    config::{Assign, GpuConfig},
    service::{GPU_THREADS, GpuState, GpuStatus},
};
pub(crate) use self::{
    hashing::{Digests, Levels, MESSAGE_BLOCKS_MAX, blocks, digest_bytes},
    kernel::{BLOCK_WORDS, EdwardsItem, Kernel, Parameters, PrimeItem, PrimeSuite, TAGGED_DIGEST_WORDS},
    question::{Question, Questions, SuiteCurve, kernels_of},
    ring::{Answer, Batch, Measure, Pass, Reply},
    service::{Gpu, Stage},
    signatures::{PART_ITEMS_MIN, Packed, Signatures},
    tables::AnyTable,
};
