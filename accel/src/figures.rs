//! What the engine did, as plain numbers for whoever exports them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    cost::Kind,
    gpu::GpuState,
    guard::Fault,
    suite::{Suite, Verdict},
};

/// Upper bounds of the buckets in [`Times`], in seconds; a last bucket has no bound.
pub const SECONDS_BUCKETS: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];

/// A snapshot of the engine's counters since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Verification jobs.
    pub verify: JobFigures,
    /// Digest jobs.
    pub digest: JobFigures,
    /// Merkle jobs.
    pub merkle: JobFigures,
    /// Items verified, by [`Suite::index`].
    pub suites: [SuiteFigures; Suite::COUNT],
    /// Decoded public keys, by [`Suite::index`].
    pub key_caches: [CacheFigures; Suite::COUNT],
    /// Ed25519 batch equations evaluated over whole chunks.
    pub batches: u64,
    /// Chunks whose equation failed and were bisected.
    pub bisections: u64,
    /// Small verification jobs that were verified together with others.
    pub together: u64,
    /// Messages hashed by digest jobs.
    pub messages_hashed: u64,
    /// Bytes hashed by digest jobs, prefixes not counted.
    pub bytes_hashed: u64,
    /// Leaves of Merkle jobs.
    pub leaves_hashed: u64,
    /// Jobs refused because the queue was full.
    pub saturated: u64,
    /// Jobs lost to a panic of a worker.
    pub failures: u64,
    /// Items of jobs that are queued or running now.
    pub queue_items: u64,
    /// Arena bytes of jobs that are queued or running now.
    pub queue_bytes: u64,
    /// Worker threads.
    pub threads: u64,
    /// The GPU.
    pub gpu: GpuFigures,
}

/// What the GPU did, and what the checks of it found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GpuFigures {
    /// What it is doing; [`Engine::gpu_status`](crate::Engine::gpu_status) says why.
    pub state: GpuState,
    /// Batches that it answered.
    pub batches: u64,
    /// Batches whose answer was used.
    pub used: GpuBatches,
    /// Signatures found valid by it, by [`Suite::index`]; what it calls invalid is decided on the CPU.
    pub valid: [u64; Suite::COUNT],
    /// Batches that went back to the CPU unanswered.
    pub fallbacks: u64,
    /// From handing a batch over to its answer in memory; batches overlap.
    pub took: Times,
    /// The kernels of a batch alone, where the device tells; the difference is transfer and waiting.
    pub kernels: Times,
    /// Time of cores to make batches, of all cores together: messages are hashed, scalars computed, canaries mixed in.
    pub packing_seconds: f64,
    /// Time that batches waited for a slot, of all batches together: much of it means that the device is what takes time.
    pub waiting_seconds: f64,
    /// Time to copy batches into memory that the device reads and to submit them.
    pub staging_seconds: f64,
    /// Time of cores to judge answers, of all cores together: tags, what is computed again, what is retained.
    pub judging_seconds: f64,
    /// Bytes of input.
    pub bytes_up: u64,
    /// Bytes of answers.
    pub bytes_down: u64,
    /// Time from the start of their compilation until all kernels were compiled.
    pub compile_seconds: f64,
    /// Keys' tables on the device.
    pub tables: u64,
    /// Memory of the device that is taken, all at once when it is opened.
    pub memory_bytes: u64,
    /// Results that were computed again on the CPU.
    pub rechecked: u64,
    /// Signatures accepted before the device was quarantined that the CPU then found invalid: whoever acted on them must
    /// know, so this is to raise an alarm.
    pub retained_wrong: u64,
    /// Answers that were wrong, by [`FAULT_REASONS`]; one is enough for quarantine.
    pub faults: [u64; FAULT_REASONS.len()],
}

/// Batches of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuBatches {
    /// Signatures.
    pub verify: u64,
    /// Digests and trees.
    pub hash: u64,
}

/// What [`GpuFigures::faults`] count, as metric labels.
pub const FAULT_REASONS: [&str; Fault::COUNT] = Fault::LABELS;

/// Jobs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JobFigures {
    /// Jobs done.
    pub jobs: u64,
    /// Items in them.
    pub items: u64,
    /// From submission to result.
    pub times: Times,
}

/// Durations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// Their sum.
    pub seconds: f64,
    /// How many took at most [`SECONDS_BUCKETS`]`[i]` and more than the bound before; the last took longer. Not
    /// cumulative.
    pub buckets: [u64; SECONDS_BUCKETS.len() + 1],
}

/// Verdicts of one suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuiteFigures {
    /// Items found valid.
    pub valid: u64,
    /// Items found invalid.
    pub invalid: u64,
}

/// Hits and misses of a key cache, and its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Keys found decoded.
    pub hits: u64,
    /// Keys decoded anew.
    pub misses: u64,
    /// Keys that have a table now.
    pub tables: u64,
    /// Bytes of memory that these take.
    pub table_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) verify: JobCounters,
    pub(crate) digest: JobCounters,
    pub(crate) merkle: JobCounters,
    pub(crate) verdicts: [[AtomicU64; 2]; Suite::COUNT],
    pub(crate) device_verify_batches: AtomicU64,
    pub(crate) device_hash_batches: AtomicU64,
    pub(crate) device_valid: [AtomicU64; Suite::COUNT],
    pub(crate) batches: AtomicU64,
    pub(crate) bisections: AtomicU64,
    pub(crate) together: AtomicU64,
    pub(crate) bytes_hashed: AtomicU64,
    pub(crate) saturated: AtomicU64,
    pub(crate) failures: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct JobCounters {
    jobs: AtomicU64,
    items: AtomicU64,
    times: TimeCounters,
}

#[derive(Debug, Default)]
pub(crate) struct TimeCounters {
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; SECONDS_BUCKETS.len() + 1],
}

impl Counters {
    pub(crate) fn verdicts(&self, suite: Suite, verdict: Verdict, count: u64) {
        let column = usize::from(verdict == Verdict::Valid);
        self.verdicts[suite.index()][column].fetch_add(count, Ordering::Relaxed);
    }

    /// An answer of the device was used.
    pub(crate) fn device_batch(&self, kind: Kind) {
        let counter = match kind {
            Kind::Verify(_) => &self.device_verify_batches,
            Kind::Digest(_) | Kind::Merkle(_) => &self.device_hash_batches,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fill(&self, figures: &mut GpuFigures) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        figures.used = GpuBatches { verify: read(&self.device_verify_batches), hash: read(&self.device_hash_batches) };
        figures.valid = self.device_valid.each_ref().map(read);
    }

    pub(crate) fn snapshot(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let digest = self.digest.snapshot();
        let merkle = self.merkle.snapshot();
        Figures {
            verify: self.verify.snapshot(),
            digest,
            merkle,
            suites: self
                .verdicts
                .each_ref()
                .map(|[invalid, valid]| SuiteFigures { valid: read(valid), invalid: read(invalid) }),
            batches: read(&self.batches),
            bisections: read(&self.bisections),
            together: read(&self.together),
            messages_hashed: digest.items,
            bytes_hashed: read(&self.bytes_hashed),
            leaves_hashed: merkle.items,
            saturated: read(&self.saturated),
            failures: read(&self.failures),
            ..Figures::default()
        }
    }
}

impl JobCounters {
    pub(crate) fn record(&self, items: u64, elapsed: Duration) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(items, Ordering::Relaxed);
        self.times.record(elapsed);
    }

    fn snapshot(&self) -> JobFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JobFigures { jobs: read(&self.jobs), items: read(&self.items), times: self.times.snapshot() }
    }
}

impl TimeCounters {
    pub(crate) fn record(&self, elapsed: Duration) {
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let seconds = elapsed.as_secs_f64();
        let bucket = SECONDS_BUCKETS.iter().take_while(|bound| **bound < seconds).count();
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Times {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Times {
            seconds: Duration::from_nanos(read(&self.nanoseconds)).as_secs_f64(),
            buckets: self.buckets.each_ref().map(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let counters = JobCounters::default();
        counters.record(3, Duration::from_micros(100));
        counters.record(4, Duration::from_micros(101));
        counters.record(5, Duration::from_secs(3));
        let figures = counters.snapshot();
        assert_eq!((figures.jobs, figures.items), (3, 12));
        assert_eq!(figures.times.buckets, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!((figures.times.seconds - 3.000_201).abs() < 1e-9);
    }
}
