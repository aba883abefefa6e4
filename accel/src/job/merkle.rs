//! Tree interiors over leaf hashes.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    time::Instant,
};

use stele_accel_hash::{Digest, HashAlgorithm, SpanError, node_level};

use crate::{
    engine::Context,
    job::{Job, sealed::Parts},
    pool::{Outcome, Weight, Work},
    ticket::{Resolver, TicketError},
};

/// Levels that one chunk computes over its aligned leaves: 4,096 leaves, about a millisecond.
const CHUNK_LEVELS: u32 = 12;

/// Leaves of one chunk.
const CHUNK_LEAVES: usize = 1 << CHUNK_LEVELS;

/// Computes the interior of an RFC 9162 tree over leaf *hashes*. An odd last node of a level moves up
/// unchanged, which gives the tree head of section 2.1.1.
#[derive(Clone, Debug)]
pub struct MerkleJob {
    /// The hash function.
    pub algorithm: HashAlgorithm,
    /// Hashes of the leaves, in order.
    pub leaves: Vec<Digest>,
    /// Keep every level, for proofs and tiles; otherwise only the root is returned.
    pub keep_levels: bool,
}

/// The interior of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MerkleLevels {
    /// The tree head, or `None` for no leaves (the head of the empty tree is its owner's rule).
    pub root: Option<Digest>,
    /// Level `i` has the nodes over `2^(i+1)` leaves each; the last level is the root alone. Empty unless
    /// levels were asked for, and for a tree of one leaf.
    pub levels: Vec<Vec<Digest>>,
}

impl Job for MerkleJob {
    type Output = MerkleLevels;
}

impl Parts for MerkleJob {
    fn validate(&self) -> Result<(), SpanError> {
        Ok(())
    }

    fn weight(&self) -> Weight {
        // Leaves, and as many interior nodes when they are kept.
        let bytes = self.leaves.len().saturating_mul(2 * size_of::<Digest>());
        Weight { items: self.leaves.len(), bytes }
    }

    fn into_work(self, resolver: Resolver<MerkleLevels>, context: Arc<Context>) -> Box<dyn Work> {
        let chunks = self.leaves.len().div_ceil(CHUNK_LEAVES);
        Box::new(MerkleWork {
            job: self,
            subtrees: (0..chunks).map(|_| OnceLock::new()).collect(),
            resolver: Mutex::new(Some(resolver)),
            context,
            started: Instant::now(),
        })
    }

    fn empty_output() -> MerkleLevels {
        MerkleLevels::default()
    }
}

struct MerkleWork {
    job: MerkleJob,
    /// Levels over each chunk of leaves, [`CHUNK_LEVELS`] of them if there is more than one chunk; only
    /// the last unless levels are kept.
    subtrees: Vec<OnceLock<Vec<Vec<Digest>>>>,
    resolver: Mutex<Option<Resolver<MerkleLevels>>>,
    context: Arc<Context>,
    started: Instant,
}

impl Work for MerkleWork {
    fn chunks(&self) -> usize {
        self.subtrees.len()
    }

    fn run(&self, chunk: usize) {
        let MerkleJob { algorithm, leaves, keep_levels } = &self.job;
        let start = chunk * CHUNK_LEAVES;
        let leaves = &leaves[start..leaves.len().min(start + CHUNK_LEAVES)];
        let mut levels: Vec<Vec<Digest>> = Vec::new();
        for _ in 0..CHUNK_LEVELS {
            let below = levels.last().map_or(leaves, Vec::as_slice);
            // A lone tree stops at its root; a part of a larger one carries a lone node up all levels.
            if below.len() == 1 && self.subtrees.len() == 1 {
                break;
            }
            let level = node_level(*algorithm, below);
            if !keep_levels {
                levels.clear();
            }
            levels.push(level);
        }
        self.subtrees[chunk].get_or_init(|| levels);
    }

    fn finish(&self, outcome: Outcome) {
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match outcome {
            Outcome::Done => {
                let output = self.assemble();
                let leaves = self.job.leaves.len();
                self.context.counters.merkle.record(leaves as u64, self.started.elapsed());
                Ok(output)
            }
            Outcome::Panicked => {
                self.context.counters.failures.fetch_add(1, Ordering::Relaxed);
                Err(TicketError::Failed)
            }
        };
        if let Some(resolver) = resolver {
            resolver.resolve(result);
        }
    }
}

impl MerkleWork {
    /// Joins the levels of the parts and adds those above them.
    fn assemble(&self) -> MerkleLevels {
        let mut levels: Vec<Vec<Digest>> = Vec::new();
        for subtree in self.subtrees.iter().filter_map(OnceLock::get) {
            for (height, level) in subtree.iter().enumerate() {
                match levels.get_mut(height) {
                    Some(joined) => joined.extend_from_slice(level),
                    None => levels.push(level.clone()),
                }
            }
        }
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = node_level(self.job.algorithm, level);
            levels.push(above);
        }
        let top = levels.last().unwrap_or(&self.job.leaves);
        let root = top.first().copied();
        if !self.job.keep_levels {
            levels.clear();
        }
        MerkleLevels { root, levels }
    }
}
