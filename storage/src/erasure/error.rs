//! What can go wrong with an erasure code.

use crate::erasure::{DATA_SHARDS_MAX, ErasureBackend, PARITY_SHARDS_MAX};

/// Why there is no such code, or why shards cannot be made from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// A code of this shape is not to be had.
    #[error(
        "no erasure code has {data} data and {parity} parity shards: 1 to {DATA_SHARDS_MAX}, and at most {PARITY_SHARDS_MAX}"
    )]
    Shape {
        /// Data shards.
        data: usize,
        /// Parity shards.
        parity: usize,
    },
    /// The backend needs a CPU or a library that is not here.
    #[error("erasure backend {} is not available", backend.name())]
    Backend {
        /// Which.
        backend: ErasureBackend,
    },
    /// More shards are lost than there is parity.
    #[error("{present} shards are present and {needed} are needed")]
    TooFewShards {
        /// Shards that are present.
        present: usize,
        /// Shards from which all others can be made.
        needed: usize,
    },
    /// A stripe has no such shard.
    #[error("shard {index} of a stripe of {shards}")]
    ShardIndex {
        /// The index, from zero, data first.
        index: usize,
        /// Shards of the stripe.
        shards: usize,
    },
    /// A shard is named twice as present, or twice as wanted.
    #[error("shard {index} is named twice")]
    ShardRepeated {
        /// Its index.
        index: usize,
    },
}

impl ErasureError {
    /// Stable snake_case code: what API users see, and the label of metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "erasure_shape",
            Self::Backend { .. } => "erasure_backend",
            Self::TooFewShards { .. } => "erasure_too_few_shards",
            Self::ShardIndex { .. } => "erasure_shard_index",
            Self::ShardRepeated { .. } => "erasure_shard_repeated",
        }
    }
}
