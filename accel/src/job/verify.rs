//! Signature verification over an arena.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use stele_accel_hash::{Span, SpanError};

use crate::{
    cost::{Backend, Kind},
    engine::{Context, ED25519_BATCH_MIN, Priority},
    gpu::Answer,
    job::{Job, device::Cost, sealed::Parts},
    pool::{Leave, Outcome, Weight, Work},
    suite::{Signed, Suite, Verdict},
    ticket::{Resolver, TicketError},
};

/// Items of one P-256 or SM2 chunk: about a millisecond of work with tables, some without. Fewer would pay for shared
/// inversions that they share with too few.
const PRIME_CHUNK: Range<usize> = 16..128;

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

    fn into_work(self, resolver: Resolver<Vec<Verdict>>, _priority: Priority, context: Arc<Context>) -> Box<dyn Work> {
        let (order, chunks) = plan(&self, &context);
        Box::new(VerifyWork {
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

struct VerifyWork {
    job: VerifyJob,
    /// Indices of items, grouped by suite and sorted by key.
    order: Vec<usize>,
    chunks: Vec<Chunk>,
    /// True is valid. Each is written by the one chunk that holds its item.
    verdicts: Vec<AtomicBool>,
    resolver: Mutex<Option<Resolver<Vec<Verdict>>>>,
    context: Arc<Context>,
    started: Instant,
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

    fn run(&self, chunk: usize, _leave: &Leave<'_>) {
        self.here(chunk);
    }

    fn settle(&self, chunk: usize, _answer: Option<Answer>) {
        self.here(chunk);
    }

    fn finish(&self, outcome: Outcome) {
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match outcome {
            Outcome::Done => {
                let read = |valid: &AtomicBool| Verdict::from(valid.load(Ordering::Relaxed));
                self.context.counters.verify.record(self.verdicts.len() as u64, self.started.elapsed());
                Ok(self.verdicts.iter().map(read).collect())
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

impl VerifyWork {
    fn here(&self, chunk: usize) {
        let Chunk { suite, range, cost } = &self.chunks[chunk];
        cost.here(&self.context, || {
            let items: Vec<Signed<'_>> = self.order[range.clone()].iter().map(|index| self.signed(*index)).collect();
            self.store(chunk, &verdicts_of_cpu(&self.context, *suite, &items));
        });
    }

    fn store(&self, chunk: usize, verdicts: &[Verdict]) {
        let Chunk { suite, range, .. } = &self.chunks[chunk];
        let mut valid = 0;
        for (index, verdict) in self.order[range.clone()].iter().zip(verdicts) {
            // Relaxed: the pool's countdown orders all chunks before `finish`.
            self.verdicts[*index].store(verdict.is_valid(), Ordering::Relaxed);
            valid += u64::from(verdict.is_valid());
        }
        let counters = &self.context.counters;
        counters.verdicts(*suite, Verdict::Valid, valid);
        counters.verdicts(*suite, Verdict::Invalid, verdicts.len() as u64 - valid);
    }

    fn signed(&self, index: usize) -> Signed<'_> {
        let item = &self.job.items[index];
        Signed {
            public_key: bytes_of(&self.job.bytes, item.public_key),
            signature: bytes_of(&self.job.bytes, item.signature),
            message: bytes_of(&self.job.bytes, item.message),
        }
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
fn plan(job: &VerifyJob, context: &Context) -> (Vec<usize>, Vec<Chunk>) {
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
            let (order, chunks) = plan(&job(&suites), engine.context());
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
