//! Signature verification over an arena.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use stele_accel_hash::{Span, SpanError};

use crate::{
    cost::{Backend, Kind},
    engine::{Context, ED25519_BATCH_MIN, Priority},
    gpu::{Answer, kernels_of},
    guard::window::Accepted,
    job::{
        Job,
        batch::DeviceBatch,
        device::{Cost, device_units},
        resolve,
        sealed::Parts,
    },
    pool::{Leave, Outcome, Part, Settled, Weight, Work},
    suite::{Signed, Suite, Verdict},
    ticket::Resolver,
};

/// Items of one P-256 or SM2 chunk: about a millisecond of work with tables, some without. Fewer would pay for shared
/// inversions that they share with too few.
const PRIME_CHUNK: Range<usize> = 16..128;

/// Jobs of fewer items than this, of one suite, are verified together if several wait: they would leave lanes idle, and pay
/// for inversions and equations of their own.
const SMALL_ITEMS: usize = 16;

/// Most items that are verified together: some milliseconds without tables, which the first of them waits for.
pub(crate) const TOGETHER_MAX: usize = 128;

/// Fewer items than this are not worth a batch.
const DEVICE_ITEMS_MIN: usize = 64;

/// Bytes that an item takes of the queue's bound besides its arena.
const ITEM_BYTES: usize = size_of::<VerifyItem>();

/// One signature to verify; the spans lie in the job's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyItem {
    /// The rule to apply.
    pub suite: Suite,
    /// The public key; see [`Suite`] for its encodings.
    pub public_key: Span,
    /// The signature, 64 bytes.
    pub signature: Span,
    /// The whole message; it is hashed as the suite says.
    pub message: Span,
}

/// Verifies many signatures; the result has one [`Verdict`] for each item, in order. Suites may be mixed.
#[derive(Clone, Debug, Default)]
pub struct VerifyJob {
    /// The arena.
    pub bytes: Bytes,
    /// The items.
    pub items: Vec<VerifyItem>,
}

impl Job for VerifyJob {
    type Output = Vec<Verdict>;
}

impl Parts for VerifyJob {
    fn validate(&self) -> Result<(), SpanError> {
        for item in &self.items {
            for span in [item.public_key, item.signature, item.message] {
                span.slice(&self.bytes)?;
            }
        }
        Ok(())
    }

    fn weight(&self) -> Weight {
        let bytes = self.items.len().saturating_mul(ITEM_BYTES).saturating_add(self.bytes.len());
        Weight { items: self.items.len(), bytes }
    }

    fn into_work(self, resolver: Resolver<Vec<Verdict>>, priority: Priority, context: Arc<Context>) -> Box<dyn Work> {
        let Plan { order, chunks, batches } = plan(&self, priority, &context);
        Box::new(VerifyWork {
            batches,
            verdicts: self.items.iter().map(|_| AtomicBool::new(false)).collect(),
            job: self,
            order,
            chunks,
            resolver: Mutex::new(Some(resolver)),
            context,
            started: Instant::now(),
        })
    }

    fn empty_output() -> Vec<Verdict> {
        Vec::new()
    }
}

/// A job under way.
pub struct VerifyWork {
    pub(super) job: VerifyJob,
    /// Indices of items, grouped by suite.
    pub(super) order: Vec<usize>,
    chunks: Vec<Chunk>,
    batches: Vec<DeviceBatch>,
    /// True is valid. Each is written by the one chunk or batch that holds its item.
    verdicts: Vec<AtomicBool>,
    resolver: Mutex<Option<Resolver<Vec<Verdict>>>>,
    pub(super) context: Arc<Context>,
    started: Instant,
}

struct Chunk {
    /// Positions in `order`.
    range: Range<usize>,
    place: Place,
}

/// Where a chunk is done.
enum Place {
    Cores(Suite, Cost),
    /// It is a piece of the batch with this number.
    Device(usize),
}

impl Work for VerifyWork {
    fn chunks(&self) -> usize {
        self.chunks.len()
    }

    fn run(&self, chunk: usize, leave: &Leave<'_>) {
        let Chunk { range, place } = &self.chunks[chunk];
        match place {
            Place::Cores(suite, cost) => cost.here(&self.context, || {
                let items = &self.order[range.clone()];
                let verdicts = verdicts_of_cpu(&self.context, *suite, &signed(&self.job, items.iter().copied()));
                self.store(*suite, items.iter().copied().zip(verdicts.into_iter().map(Verdict::is_valid)));
            }),
            Place::Device(batch) => self.pack(&self.batches[*batch], range, leave),
        }
    }

    fn small(&self) -> Option<&VerifyWork> {
        match &*self.chunks {
            [Chunk { range, place: Place::Cores(..) }] if range.len() < SMALL_ITEMS => Some(self),
            _ => None,
        }
    }

    fn settle(&self, chunk: usize, answer: Option<Answer>) -> Settled {
        self.batch_of(chunk).map_or(Settled::Done, |batch| self.take_back(batch, answer.as_ref()))
    }

    fn part(&self, chunk: usize, part: Part) -> Settled {
        self.batch_of(chunk).map_or(Settled::Done, |batch| self.go_on(batch, part))
    }

    fn finish(&self, outcome: Outcome) {
        resolve(&self.resolver, outcome, &self.context, || {
            let read = |valid: &AtomicBool| Verdict::from(valid.load(Ordering::Relaxed));
            self.context.counters.verify.record(self.verdicts.len() as u64, self.started.elapsed());
            self.verdicts.iter().map(read).collect()
        });
    }
}

impl VerifyWork {
    /// The suite of a small job.
    pub(crate) fn suite(&self) -> Suite {
        match self.chunks.first() {
            Some(Chunk { place: Place::Cores(suite, _), .. }) => *suite,
            _ => Suite::ALL[0],
        }
    }

    fn costs(&self) -> impl Iterator<Item = Cost> {
        self.chunks.iter().filter_map(|chunk| match chunk.place {
            Place::Cores(_, cost) => Some(cost),
            Place::Device(_) => None,
        })
    }

    fn batch_of(&self, chunk: usize) -> Option<&DeviceBatch> {
        match self.chunks[chunk].place {
            Place::Device(batch) => self.batches.get(batch),
            Place::Cores(..) => None,
        }
    }

    pub(crate) fn items(&self) -> usize {
        self.order.len()
    }

    /// Verifies small jobs of one suite, which leave it to this to store their verdicts.
    pub(crate) fn run_together(works: &[&Self]) {
        let Some(first) = works.first() else { return };
        let (context, suite) = (&first.context, first.suite());
        let costs: Vec<Cost> = works.iter().flat_map(|work| work.costs()).collect();
        Cost::together(&costs, context, || {
            let all = works.iter().flat_map(|work| signed(&work.job, work.order.iter().copied()));
            let items: Vec<Signed<'_>> = all.collect();
            let mut verdicts = verdicts_of_cpu(context, suite, &items).into_iter().map(Verdict::is_valid);
            for work in works {
                work.store(suite, work.order.iter().copied().zip(verdicts.by_ref()));
            }
        });
        context.counters.together.fetch_add(works.len() as u64, Ordering::Relaxed);
    }

    /// Stores verdicts of items, by their indices.
    pub(super) fn store(&self, suite: Suite, verdicts: impl Iterator<Item = (usize, bool)>) {
        let mut counts = [0; 2];
        for (index, valid) in verdicts {
            // Relaxed: the pool's countdown orders all chunks before `finish`.
            self.verdicts[index].store(valid, Ordering::Relaxed);
            counts[usize::from(valid)] += 1;
        }
        let [invalid, valid] = counts;
        self.context.counters.verdicts(suite, Verdict::Valid, valid);
        self.context.counters.verdicts(suite, Verdict::Invalid, invalid);
    }
}

/// Items with their bytes at hand.
pub(super) fn signed(job: &VerifyJob, items: impl IntoIterator<Item = usize>) -> Vec<Signed<'_>> {
    items.into_iter().map(|index| signed_item(&job.bytes, &job.items[index])).collect()
}

fn signed_item<'j>(bytes: &'j Bytes, item: &VerifyItem) -> Signed<'j> {
    Signed {
        public_key: bytes_of(bytes, item.public_key),
        signature: bytes_of(bytes, item.signature),
        message: bytes_of(bytes, item.message),
    }
}

/// Verifies again what the device accepted before it was found wrong.
pub(super) fn recheck(context: &Context, accepted: &Accepted) {
    for suite in Suite::ALL {
        let items = accepted.items.iter().filter(|item| item.suite == suite);
        let items: Vec<Signed<'_>> = items.map(|item| signed_item(&accepted.bytes, item)).collect();
        let verdicts = verdicts_of_cpu(context, suite, &items);
        context.guard.rechecked(items.len());
        context.guard.retained_wrong(verdicts.iter().filter(|verdict| !verdict.is_valid()).count());
    }
}

/// What the CPU says, which is what is right.
pub(super) fn verdicts_of_cpu(context: &Context, suite: Suite, items: &[Signed<'_>]) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Invalid; items.len()];
    let (verifiers, counters) = (&context.verifiers, &context.counters);
    match suite {
        Suite::Ed25519 => {
            let figures = verifiers.ed25519.verify(items, &mut verdicts);
            counters.batches.fetch_add(u64::from(figures.equation), Ordering::Relaxed);
            counters.bisections.fetch_add(u64::from(figures.bisected), Ordering::Relaxed);
        }
        Suite::P256 => verifiers.p256.verify(items, &mut verdicts),
        Suite::Sm2 => verifiers.sm2.verify(items, &mut verdicts),
    }
    verdicts
}

/// Spans were checked by `validate`; an empty slice can only make an item invalid.
fn bytes_of(arena: &Bytes, span: Span) -> &[u8] {
    span.slice(arena).unwrap_or_default()
}

/// Sorts what stands for items by the keys of these. Neighbours under the same key share its look-up, and in Ed25519 their
/// terms are added up before they cost a point multiplication.
pub(super) fn sort_by_key<T>(job: &VerifyJob, all: &mut [T], item: impl Fn(&T) -> usize) {
    all.sort_by_cached_key(|one| {
        let key = bytes_of(&job.bytes, job.items[item(one)].public_key);
        // The first byte is the same in all keys of SEC 1.
        key.get(1..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_be_bytes(*bytes))
    });
}

/// How a job is done.
struct Plan {
    order: Vec<usize>,
    chunks: Vec<Chunk>,
    batches: Vec<DeviceBatch>,
}

/// Groups the items by suite and cuts the groups into batches for the device and chunks for the cores, which are sorted by
/// key. Those of the device are sorted by whoever packs them: here one thread would sort while all others wait.
fn plan(job: &VerifyJob, priority: Priority, context: &Context) -> Plan {
    let Context { threads, ed25519_batch_max, .. } = *context;
    let mut groups = [const { Vec::new() }; Suite::COUNT];
    for (index, item) in job.items.iter().enumerate() {
        groups[item.suite.index()].push(index);
    }
    let (mut order, mut chunks, mut batches) = (Vec::with_capacity(job.items.len()), Vec::new(), Vec::new());
    for (suite, bounds) in
        [(Suite::Sm2, PRIME_CHUNK), (Suite::P256, PRIME_CHUNK), (Suite::Ed25519, ED25519_BATCH_MIN..ed25519_batch_max)]
    {
        let group = &mut groups[suite.index()];
        let start = order.len();
        let share = device_share(suite, priority, context, group.len());
        for range in &share.batches {
            let batch = DeviceBatch::plan(context, suite, start + range.start..start + range.end);
            let place = batches.len();
            chunks.extend(batch.pieces().map(|range| Chunk { range, place: Place::Device(place) }));
            batches.push(batch);
        }
        let of_cores = &mut group[share.items..];
        sort_by_key(job, of_cores, |index| *index);
        let length = of_cores.len().div_ceil(threads).clamp(bounds.start, bounds.end);
        let parts = of_cores.len().div_ceil(length);
        order.append(group);
        // Even parts, so that no last chunk of a few items pays for an equation of its own.
        let range = start + share.items..order.len();
        chunks.extend((0..parts).map(|index| {
            let range = Part { index, count: parts }.of(&range);
            let cost = Cost::plan(context, Backend::Cpu, Kind::Verify(suite), range.len());
            Chunk { range, place: Place::Cores(suite, cost) }
        }));
    }
    Plan { order, chunks, batches }
}

/// The first items of a suite go to the device, as many as it is to have, in even batches.
struct DeviceShare {
    items: usize,
    batches: Vec<Range<usize>>,
}

fn device_share(suite: Suite, priority: Priority, context: &Context, items: usize) -> DeviceShare {
    let gpu = context.gpu_for(priority).filter(|gpu| gpu.serves(kernels_of(suite)));
    let Some(gpu) = gpu else { return DeviceShare { items: 0, batches: Vec::new() } };
    let items = device_units(context, gpu, Kind::Verify(suite), items, DEVICE_ITEMS_MIN);
    let count = items.div_ceil(gpu.signatures_max().max(1));
    DeviceShare { items, batches: (0..count).map(|index| Part { index, count }.of(&(0..items))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, EngineConfig};

    fn job(suites: &[Suite]) -> VerifyJob {
        let span = Span::default();
        let items = suites
            .iter()
            .map(|suite| VerifyItem { suite: *suite, public_key: span, signature: span, message: span })
            .collect();
        VerifyJob { bytes: Bytes::new(), items }
    }

    #[test]
    fn every_item_is_in_exactly_one_chunk_of_its_suite() {
        for (count, threads) in [(1usize, 1usize), (7, 2), (64, 2), (1000, 3), (3001, 16)] {
            let suites: Vec<Suite> = (0..count).map(|index| Suite::ALL[index * 7 % 5 % 3]).collect();
            let engine = Engine::new(&EngineConfig { threads, ..EngineConfig::default() }).expect("engine");
            let Plan { order, chunks, .. } = plan(&job(&suites), Priority::Bulk, engine.context());
            let mut seen = vec![false; count];
            for chunk in &chunks {
                assert!(!chunk.range.is_empty());
                let Place::Cores(suite, _) = chunk.place else { panic!("there is no device") };
                for index in &order[chunk.range.clone()] {
                    assert_eq!(suites[*index], suite);
                    assert!(!std::mem::replace(&mut seen[*index], true), "item {index} twice");
                }
            }
            assert!(seen.iter().all(|seen| *seen));
        }
    }
}
