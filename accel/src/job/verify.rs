//! Signature verification over an arena.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use stele_accel_hash::{Span, SpanError};

use crate::{
    cost::{Backend, Kind},
    engine::{Context, ED25519_BATCH_MIN, Priority},
    gpu::{Answer, Reply, Signatures, kernels_of},
    guard::{Draw, Fault, window::Accepted},
    job::{
        Job,
        device::{Cost, device_units, serving},
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
        let (order, chunks) = plan(&self, priority, &context);
        Box::new(VerifyWork {
            sent: chunks.iter().map(|_| OnceLock::new()).collect(),
            refused: chunks.iter().map(|_| OnceLock::new()).collect(),
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

/// Signatures of a part of a chunk that a device did not do: a core needs some milliseconds for them.
const REDO_ITEMS: usize = 512;

/// Signatures that a device calls invalid and that are looked at at once, by the worker that got the answer.
const REFUSED_MAX: usize = 256;

/// Signatures of a batch for a device, where the job is not large: enough for the device, little for the core that packs.
const DEVICE_CHUNK_ITEMS: usize = 8_192;

/// A job under way.
pub struct VerifyWork {
    job: VerifyJob,
    /// Indices of items, grouped by suite and sorted by key.
    order: Vec<usize>,
    chunks: Vec<Chunk>,
    /// What chunks that are with the device left here.
    sent: Vec<OnceLock<Sent>>,
    /// Of a chunk that came back with much called invalid: the items that all cores look at, by their places in it.
    refused: Vec<OnceLock<Vec<usize>>>,
    /// True is valid. Each is written by the one chunk that holds its item.
    verdicts: Vec<AtomicBool>,
    resolver: Mutex<Option<Resolver<Vec<Verdict>>>>,
    context: Arc<Context>,
    started: Instant,
}

/// A chunk that a device has.
struct Sent {
    signatures: Signatures,
    /// Time that making it took here.
    packing: Duration,
}

struct Chunk {
    suite: Suite,
    /// Positions in `order`.
    range: Range<usize>,
    cost: Cost,
}

impl Work for VerifyWork {
    fn chunks(&self) -> usize {
        self.chunks.len()
    }

    fn run(&self, chunk: usize, leave: &Leave<'_>) {
        if !self.chunks[chunk].cost.is_device() || self.send(chunk, leave).is_none() {
            self.here(chunk);
        }
    }

    fn small(&self) -> Option<&VerifyWork> {
        match &*self.chunks {
            [chunk] if chunk.range.len() < SMALL_ITEMS && !chunk.cost.is_device() => Some(self),
            _ => None,
        }
    }

    fn settle(&self, chunk: usize, answer: Option<Answer>) -> Settled {
        let Chunk { range, cost, .. } = &self.chunks[chunk];
        let left = match answer.and_then(|answer| self.accept(chunk, &answer)) {
            Some(refused) if refused.is_empty() => return Settled::Done,
            Some(refused) => self.refused[chunk].get_or_init(|| refused).len(),
            None => {
                cost.give_up(&self.context);
                range.len()
            }
        };
        Settled::Redo(left.div_ceil(REDO_ITEMS).max(1))
    }

    fn redo(&self, chunk: usize, part: Part) {
        let Chunk { range, cost, .. } = &self.chunks[chunk];
        match self.refused[chunk].get() {
            Some(refused) => {
                let own = &refused[part.of(&(0..refused.len()))];
                cost.again(&self.context, own.len(), || {
                    self.context.guard.rechecked(own.len());
                    if self.look_at(chunk, own).iter().any(|verdict| verdict.is_valid()) {
                        self.context.fault(Fault::Invalid);
                    }
                });
            }
            None => {
                let own = part.of(&(0..range.len()));
                cost.again(&self.context, own.len(), || drop(self.look_at(chunk, &own.collect::<Vec<_>>())));
            }
        }
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
        self.chunks.first().map_or(Suite::ALL[0], |chunk| chunk.suite)
    }

    pub(crate) fn items(&self) -> usize {
        self.order.len()
    }

    /// Verifies small jobs of one suite, which leave it to this to store their verdicts.
    pub(crate) fn run_together(works: &[&Self]) {
        let Some(first) = works.first() else { return };
        let (context, suite) = (&first.context, first.suite());
        let costs: Vec<Cost> = works.iter().flat_map(|work| work.chunks.iter().map(|chunk| chunk.cost)).collect();
        Cost::together(&costs, context, || {
            let items: Vec<Signed<'_>> = works.iter().flat_map(|work| signed(&work.job, &work.order)).collect();
            let verdicts = verdicts_of_cpu(context, suite, &items);
            let mut rest = &*verdicts;
            for work in works {
                let (own, others) = rest.split_at(work.items());
                work.store(0, 0..own.len(), own);
                rest = others;
            }
        });
        context.counters.together.fetch_add(works.len() as u64, Ordering::Relaxed);
    }

    fn here(&self, chunk: usize) {
        let Chunk { suite, range, cost } = &self.chunks[chunk];
        cost.here(&self.context, || {
            let items = signed(&self.job, &self.order[range.clone()]);
            self.store(chunk, 0..range.len(), &verdicts_of_cpu(&self.context, *suite, &items));
        });
    }

    /// Verifies some items of a chunk, by their places in it, on this core, and stores the verdicts.
    fn look_at(&self, chunk: usize, places: &[usize]) -> Vec<Verdict> {
        let Chunk { suite, range, .. } = &self.chunks[chunk];
        let items: Vec<usize> = places.iter().map(|place| self.order[range.start + place]).collect();
        let verdicts = verdicts_of_cpu(&self.context, *suite, &signed(&self.job, &items));
        self.store(chunk, places.iter().copied(), &verdicts);
        verdicts
    }

    /// Stores verdicts of items of a chunk, by their places in it.
    fn store(&self, chunk: usize, places: impl Iterator<Item = usize>, verdicts: &[Verdict]) {
        let Chunk { suite, range, .. } = &self.chunks[chunk];
        let mut valid = 0;
        for (place, verdict) in places.zip(verdicts) {
            let index = self.order[range.start + place];
            // Relaxed: the pool's countdown orders all chunks before `finish`.
            self.verdicts[index].store(verdict.is_valid(), Ordering::Relaxed);
            valid += u64::from(verdict.is_valid());
        }
        let counters = &self.context.counters;
        counters.verdicts(*suite, Verdict::Valid, valid);
        counters.verdicts(*suite, Verdict::Invalid, verdicts.len() as u64 - valid);
    }

    fn send(&self, chunk: usize, leave: &Leave<'_>) -> Option<()> {
        let Chunk { suite, range, .. } = &self.chunks[chunk];
        let (gpu, context) = (serving(&self.context, kernels_of(*suite))?, &self.context);
        let started = Instant::now();
        let items = signed(&self.job, &self.order[range.clone()]);
        let verifiers = &context.verifiers;
        let (batch, sent) = match suite {
            Suite::Ed25519 => {
                Signatures::pack(&verifiers.ed25519.equations(&items), context.canaries_ed25519.get()?, gpu)?
            }
            Suite::P256 => Signatures::pack(&verifiers.p256.equations(&items), context.canaries_p256.get()?, gpu)?,
            Suite::Sm2 => Signatures::pack(&verifiers.sm2.equations(&items), context.canaries_sm2.get()?, gpu)?,
        };
        self.sent[chunk].get_or_init(|| Sent { signatures: sent, packing: started.elapsed() });
        gpu.submit(batch, Reply::Chunk(leave.take()));
        Some(())
    }

    /// Stores what the device says, if it can be believed, and returns the items that are still to be looked at. Whatever
    /// it calls invalid is left to the CPU, and a share of the rest is checked there.
    fn accept(&self, chunk: usize, answer: &Answer) -> Option<Vec<usize>> {
        let Chunk { suite, range, cost } = &self.chunks[chunk];
        let (order, context) = (&self.order[range.clone()], &self.context);
        let gpu = context.gpu().filter(|gpu| gpu.is_trusted())?;
        let (started, sent) = (Instant::now(), self.sent[chunk].get()?);
        let found = match sent.signatures.unpack(answer) {
            Ok(found) => found,
            Err(fault) => {
                context.fault(fault);
                return None;
            }
        };
        let on_cpu = |places: &[usize]| {
            let items: Vec<usize> = places.iter().map(|place| order[*place]).collect();
            context.guard.rechecked(items.len());
            verdicts_of_cpu(context, *suite, &signed(&self.job, &items))
        };
        let places = |valid: bool| -> Vec<usize> {
            found.iter().filter(|(_, verdict)| *verdict == valid).map(|(place, _)| *place).collect()
        };
        let (accepted, refused) = (places(true), places(false));
        let sample = Draw::new().sample(accepted.len(), gpu.config().recheck_one_in);
        let sample: Vec<usize> = sample.into_iter().map(|index| accepted[index]).collect();
        if !on_cpu(&sample).iter().all(|verdict| verdict.is_valid()) {
            context.fault(Fault::Valid);
            return None;
        }
        // Nothing is invalid because a device says so. Where that is much, all cores look at it.
        let flood = refused.len() > REFUSED_MAX;
        if !flood && on_cpu(&refused).iter().any(|verdict| verdict.is_valid()) {
            context.fault(Fault::Invalid);
            return None;
        }
        let items = accepted.iter().map(|place| &self.job.items[order[*place]]);
        context.window.keep(Accepted::copy(&self.job.bytes, items));
        // Whoever found the device wrong meanwhile took the window after saying so: either this was in it, or is not used.
        if !gpu.is_trusted() {
            return None;
        }
        cost.there(context, answer, sent.packing + started.elapsed());
        context.counters.device_valid[suite.index()].fetch_add(accepted.len() as u64, Ordering::Relaxed);
        self.store(chunk, accepted.iter().copied(), &vec![Verdict::Valid; accepted.len()]);
        // What was not sent had no key or signature that decodes.
        let mut invalid = vec![true; order.len()];
        accepted.iter().for_each(|place| invalid[*place] = false);
        if flood {
            refused.iter().for_each(|place| invalid[*place] = false);
        }
        let invalid: Vec<usize> = (0..order.len()).filter(|place| invalid[*place]).collect();
        self.store(chunk, invalid.iter().copied(), &vec![Verdict::Invalid; invalid.len()]);
        Some(if flood { refused } else { Vec::new() })
    }
}

/// Items with their bytes at hand.
fn signed<'j>(job: &'j VerifyJob, items: &[usize]) -> Vec<Signed<'j>> {
    items.iter().map(|index| signed_item(&job.bytes, &job.items[*index])).collect()
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
fn verdicts_of_cpu(context: &Context, suite: Suite, items: &[Signed<'_>]) -> Vec<Verdict> {
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

/// Groups the items by suite, sorts them by key and cuts the groups into chunks. Neighbours under the same key share
/// its look-up, and in Ed25519 their terms are added up before they cost a point multiplication.
fn plan(job: &VerifyJob, priority: Priority, context: &Context) -> (Vec<usize>, Vec<Chunk>) {
    let Context { threads, ed25519_batch_max, .. } = *context;
    let mut order = Vec::with_capacity(job.items.len());
    let mut chunks = Vec::new();
    for (suite, bounds) in
        [(Suite::Sm2, PRIME_CHUNK), (Suite::P256, PRIME_CHUNK), (Suite::Ed25519, ED25519_BATCH_MIN..ed25519_batch_max)]
    {
        let start = order.len();
        let items = job.items.iter().enumerate();
        order.extend(items.filter(|(_, item)| item.suite == suite).map(|(index, _)| index));
        let group = &mut order[start..];
        group.sort_by_cached_key(|index| {
            let key = bytes_of(&job.bytes, job.items[*index].public_key);
            // The first byte is the same in all keys of SEC 1.
            key.get(1..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_be_bytes(*bytes))
        });
        let (start, group) = {
            let share = device_share(suite, priority, context, group.len());
            chunks.extend(share.chunks.into_iter().map(|range| {
                let range = start + range.start..start + range.end;
                let cost = Cost::plan(context, Backend::Gpu, Kind::Verify(suite), range.len());
                Chunk { suite, range, cost }
            }));
            (start + share.items, &group[share.items..])
        };
        let length = group.len().div_ceil(threads).clamp(bounds.start, bounds.end);
        let parts = group.len().div_ceil(length);
        let end = order.len();
        // Even parts, so that no last chunk of a few items pays for an equation of its own.
        chunks.extend((0..parts).map(|part| {
            let range = start + (end - start) * part / parts..start + (end - start) * (part + 1) / parts;
            let cost = Cost::plan(context, Backend::Cpu, Kind::Verify(suite), range.len());
            Chunk { suite, range, cost }
        }));
    }
    (order, chunks)
}

/// The first items of a suite go to the device, as many as it is to have, in even batches.
struct DeviceShare {
    items: usize,
    chunks: Vec<Range<usize>>,
}

fn device_share(suite: Suite, priority: Priority, context: &Context, items: usize) -> DeviceShare {
    let gpu = context.gpu_for(priority).filter(|gpu| gpu.serves(kernels_of(suite)));
    let Some(gpu) = gpu else { return DeviceShare { items: 0, chunks: Vec::new() } };
    let items = device_units(context, gpu, Kind::Verify(suite), items, DEVICE_ITEMS_MIN);
    // Each worker packs for the device: in one piece, one core would pack while the others have nothing to do.
    let most = gpu.signatures_max().clamp(1, DEVICE_CHUNK_ITEMS.max(items / (4 * context.threads.max(1))));
    let parts = items.div_ceil(most);
    DeviceShare { items, chunks: (0..parts).map(|part| items * part / parts..items * (part + 1) / parts).collect() }
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
            let (order, chunks) = plan(&job(&suites), Priority::Bulk, engine.context());
            let mut seen = vec![false; count];
            for chunk in &chunks {
                assert!(!chunk.range.is_empty());
                for index in &order[chunk.range.clone()] {
                    assert_eq!(suites[*index], chunk.suite);
                    assert!(!std::mem::replace(&mut seen[*index], true), "item {index} twice");
                }
            }
            assert!(seen.iter().all(|seen| *seen));
        }
    }
}
