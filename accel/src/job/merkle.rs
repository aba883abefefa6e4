//! Tree interiors over leaf hashes.

use std::{
    ops::Range,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use stele_accel_hash::{DIGEST_LENGTH, Digest, HashAlgorithm, SpanError, node_level};

use crate::{
    cost::{Backend, Kind},
    engine::{Context, Priority},
    gpu::{Answer, Gpu, Kernel, Levels, Reply, Stage, TAGGED_DIGEST_WORDS},
    guard::{Draw, Fault},
    job::{
        Job,
        device::{Cost, device_units, send_waiting, serving},
        resolve,
        sealed::Parts,
    },
    pool::{Leave, Outcome, Part, Settled, Weight, Work},
    ticket::Resolver,
};

/// Levels that one chunk computes over its aligned leaves: 4,096 leaves, about a millisecond.
const CHUNK_LEVELS: u32 = 12;

/// Leaves of one chunk.
const CHUNK_LEAVES: usize = 1 << CHUNK_LEVELS;

/// Bytes that a leaf takes of a slot: as many nodes above it as leaves, each with its tag.
const DEVICE_LEAF_BYTES: usize = 4 * TAGGED_DIGEST_WORDS;

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

    fn into_work(self, resolver: Resolver<MerkleLevels>, priority: Priority, context: Arc<Context>) -> Box<dyn Work> {
        let subtrees = self.leaves.len().div_ceil(CHUNK_LEAVES);
        let chunks = self.plan(subtrees, priority, &context);
        Box::new(MerkleWork {
            sent: chunks.iter().map(|_| OnceLock::new()).collect(),
            chunks,
            algorithm: self.algorithm,
            keep_levels: self.keep_levels,
            leaves: Leaves(Arc::new(self.leaves)),
            subtrees: (0..subtrees).map(|_| OnceLock::new()).collect(),
            resolver: Mutex::new(Some(resolver)),
            context,
            started: Instant::now(),
        })
    }

    fn empty_output() -> MerkleLevels {
        MerkleLevels::default()
    }
}

/// Leaves that batches share with their job: a copy of each would cost more than its levels do on a device.
#[derive(Clone)]
struct Leaves(Arc<Vec<Digest>>);

impl AsRef<[u8]> for Leaves {
    fn as_ref(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

struct MerkleWork {
    algorithm: HashAlgorithm,
    keep_levels: bool,
    leaves: Leaves,
    /// Ranges of subtrees: one for a core, many for the device.
    chunks: Vec<(Range<usize>, Cost)>,
    /// What chunks that are with the device left here.
    sent: Vec<OnceLock<(Levels, Duration)>>,
    /// Levels over each chunk of leaves, [`CHUNK_LEVELS`] of them if there is more than one chunk; only
    /// the last unless levels are kept.
    subtrees: Vec<OnceLock<Vec<Vec<Digest>>>>,
    resolver: Mutex<Option<Resolver<MerkleLevels>>>,
    context: Arc<Context>,
    started: Instant,
}

impl Work for MerkleWork {
    fn chunks(&self) -> usize {
        self.chunks.len()
    }

    fn run(&self, chunk: usize, leave: &Leave<'_>) {
        if !self.chunks[chunk].1.is_device() || self.send(chunk, leave).is_none() {
            self.here(chunk);
        }
    }

    fn settle(&self, chunk: usize, answer: Option<Answer>) -> Settled {
        send_waiting(&self.context);
        match answer.and_then(|answer| self.accept(chunk, &answer)) {
            Some(levels) => {
                self.store(chunk, &levels);
                Settled::Done
            }
            // A core hashes a slot's bytes in little time.
            None => Settled::Parts(1),
        }
    }

    fn part(&self, chunk: usize, _whole: Part) -> Settled {
        self.here(chunk);
        Settled::Done
    }

    fn finish(&self, outcome: Outcome) {
        resolve(&self.resolver, outcome, &self.context, || {
            let output = self.assemble();
            let leaves = self.leaves.0.len();
            self.context.counters.merkle.record(leaves as u64, self.started.elapsed());
            output
        });
    }
}

impl MerkleJob {
    /// The first subtrees go to the device, as many as it is to have.
    fn plan(&self, subtrees: usize, priority: Priority, context: &Context) -> Vec<(Range<usize>, Cost)> {
        let kind = Kind::Merkle(self.algorithm);
        let gpu = context.gpu_for(priority).filter(|gpu| subtrees > 1 && gpu.serves(&kernels(self.algorithm)));
        let share = gpu.map_or(0, |gpu| device_units(context, gpu, kind, self.leaves.len(), CHUNK_LEAVES));
        // A batch is at least a subtree, so a slot that is smaller than that gets none.
        let batch = gpu.map_or(0, Gpu::slot_bytes) / DEVICE_LEAF_BYTES / CHUNK_LEAVES;
        let of_device = if batch == 0 { 0 } else { share.div_ceil(CHUNK_LEAVES).min(subtrees) };
        let cost = |backend, range: Range<usize>| {
            let units = self.leaves.len().min(range.end * CHUNK_LEAVES) - range.start * CHUNK_LEAVES;
            (range, Cost::plan(context, backend, kind, units))
        };
        let mut chunks = Vec::new();
        for start in (0..of_device).step_by(batch.max(1)) {
            chunks.push(cost(Backend::Gpu, start..of_device.min(start + batch)));
        }
        chunks.extend((of_device..subtrees).map(|subtree| cost(Backend::Cpu, subtree..subtree + 1)));
        chunks
    }
}

const fn kernels(algorithm: HashAlgorithm) -> [Kernel; 2] {
    [Kernel::FirstLevel(algorithm), Kernel::NextLevel(algorithm)]
}

impl MerkleWork {
    fn here(&self, chunk: usize) {
        let (range, cost) = &self.chunks[chunk];
        cost.here(&self.context, || {
            for subtree in range.clone() {
                let levels = self.levels(subtree);
                self.subtrees[subtree].get_or_init(|| levels);
            }
        });
    }

    fn leaves(&self, subtrees: &Range<usize>) -> &[Digest] {
        &self.leaves.0[self.places(subtrees)]
    }

    fn places(&self, subtrees: &Range<usize>) -> Range<usize> {
        subtrees.start * CHUNK_LEAVES..self.leaves.0.len().min(subtrees.end * CHUNK_LEAVES)
    }

    fn send(&self, chunk: usize, leave: &Leave<'_>) -> Option<()> {
        let started = Instant::now();
        let gpu = serving(&self.context, &kernels(self.algorithm))?;
        let Range { start, end } = self.places(&self.chunks[chunk].0);
        let leaves = Bytes::from_owner(self.leaves.clone()).slice(start * DIGEST_LENGTH..end * DIGEST_LENGTH);
        let nonce = Draw::new().nonce();
        let (batch, sent) = Levels::pack(self.algorithm, leaves, CHUNK_LEVELS, self.keep_levels, nonce)?;
        let packing = started.elapsed();
        gpu.spent(Stage::Pack, packing);
        self.sent[chunk].get_or_init(|| (sent, packing));
        gpu.submit(batch, Reply::Chunk(leave.take()));
        Some(())
    }

    /// What the device says, if it can be believed.
    fn accept(&self, chunk: usize, answer: &Answer) -> Option<Vec<Vec<Digest>>> {
        let gpu = self.context.gpu().filter(|gpu| gpu.is_trusted())?;
        let (started, (sent, packing)) = (Instant::now(), self.sent[chunk].get()?);
        let Some(levels): Option<Vec<Vec<Digest>>> = sent.unpack(answer) else {
            self.context.fault(Fault::Tag);
            return None;
        };
        if !self.agrees(chunk, &levels, gpu.config().recheck_one_in) {
            self.context.fault(Fault::Digest);
            return None;
        }
        let judging = started.elapsed();
        gpu.spent(Stage::Judge, judging);
        self.chunks[chunk].1.there(&self.context, answer.busy, *packing + judging);
        Some(levels)
    }

    /// Whether a sample of nodes is what the CPU computes. Where levels are kept, a node is checked against its children;
    /// else one subtree is computed again.
    fn agrees(&self, chunk: usize, levels: &[Vec<Digest>], one_in: u32) -> bool {
        let (range, mut draw) = (&self.chunks[chunk].0, Draw::new());
        if !self.keep_levels {
            let place = draw.below(range.len());
            self.context.guard.rechecked(1);
            let top = self.levels(range.start + place);
            return levels.last().and_then(|level| level.get(place)) == top.last().and_then(|level| level.first());
        }
        let mut below = self.leaves(range);
        for level in levels {
            let sample = draw.sample(level.len(), one_in);
            self.context.guard.rechecked(sample.len());
            let children = |index: &usize| &below[2 * index..below.len().min(2 * index + 2)];
            if sample.iter().any(|index| node_level(self.algorithm, children(index)) != level[*index..=*index]) {
                return false;
            }
            below = level;
        }
        true
    }

    /// Cuts the levels over many subtrees into those of each.
    fn store(&self, chunk: usize, levels: &[Vec<Digest>]) {
        let lowest = CHUNK_LEVELS - u32::try_from(levels.len()).unwrap_or(CHUNK_LEVELS);
        for (place, subtree) in self.chunks[chunk].0.clone().enumerate() {
            let cut = levels.iter().zip(lowest..).map(|(level, height)| {
                let width = CHUNK_LEAVES >> (height + 1);
                level[level.len().min(place * width)..level.len().min((place + 1) * width)].to_vec()
            });
            self.subtrees[subtree].get_or_init(|| cut.collect());
        }
    }

    /// The levels over one subtree, or the last of them.
    fn levels(&self, subtree: usize) -> Vec<Vec<Digest>> {
        let leaves = self.leaves(&(subtree..subtree + 1));
        let mut levels: Vec<Vec<Digest>> = Vec::new();
        for _ in 0..CHUNK_LEVELS {
            let below = levels.last().map_or(leaves, Vec::as_slice);
            // A lone tree stops at its root; a part of a larger one carries a lone node up all levels.
            if below.len() == 1 && self.subtrees.len() == 1 {
                break;
            }
            let level = node_level(self.algorithm, below);
            if !self.keep_levels {
                levels.clear();
            }
            levels.push(level);
        }
        levels
    }

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
            let above = node_level(self.algorithm, level);
            levels.push(above);
        }
        let top = levels.last().unwrap_or(&*self.leaves.0);
        let root = top.first().copied();
        if !self.keep_levels {
            levels.clear();
        }
        MerkleLevels { root, levels }
    }
}
