//! Hashing of many messages over an arena.

use std::{
    ops::Range,
    sync::{Arc, Mutex, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use stele_accel_hash::{Digest, HashAlgorithm, Span, SpanError, digest_spans};

use crate::{
    cost::{Backend, Kind},
    engine::{Context, Priority},
    gpu::{self, Answer, Digests, Gpu, Kernel, Reply, Stage},
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

/// Bytes of one chunk: about a millisecond of one core.
const CHUNK_BYTES: usize = 1 << 20;

/// What one message costs besides its bytes, in bytes: padding and finishing.
const MESSAGE_OVERHEAD: usize = 64;

/// Fewer blocks than this are not worth a batch.
const DEVICE_BLOCKS_MIN: usize = 1 << 12;

/// Hashes `prefix ‖ message` for many messages; the result has one digest for each span, in order.
#[derive(Clone, Debug)]
pub struct DigestJob {
    /// The hash function.
    pub algorithm: HashAlgorithm,
    /// Hashed before each message; empty or the domain byte of a tree rule.
    pub prefix: Bytes,
    /// The arena.
    pub bytes: Bytes,
    /// The messages.
    pub messages: Vec<Span>,
}

impl Job for DigestJob {
    type Output = Vec<Digest>;
}

impl Parts for DigestJob {
    fn validate(&self) -> Result<(), SpanError> {
        self.messages.iter().try_for_each(|span| span.slice(&self.bytes).map(drop))
    }

    fn weight(&self) -> Weight {
        let spans = self.messages.len().saturating_mul(size_of::<Span>() + size_of::<Digest>());
        Weight { items: self.messages.len(), bytes: spans.saturating_add(self.bytes.len()) }
    }

    fn into_work(self, resolver: Resolver<Vec<Digest>>, priority: Priority, context: Arc<Context>) -> Box<dyn Work> {
        let chunks = self.plan(priority, &context);
        Box::new(DigestWork {
            digests: chunks.iter().map(|_| OnceLock::new()).collect(),
            sent: chunks.iter().map(|_| OnceLock::new()).collect(),
            job: self,
            chunks,
            resolver: Mutex::new(Some(resolver)),
            context,
            started: Instant::now(),
        })
    }

    fn empty_output() -> Vec<Digest> {
        Vec::new()
    }
}

struct DigestWork {
    job: DigestJob,
    /// Ranges of messages.
    chunks: Vec<(Range<usize>, Cost)>,
    /// What chunks that are with the device left here.
    sent: Vec<OnceLock<(Digests, Duration)>>,
    /// Digests of each chunk.
    digests: Vec<OnceLock<Vec<Digest>>>,
    resolver: Mutex<Option<Resolver<Vec<Digest>>>>,
    context: Arc<Context>,
    started: Instant,
}

impl Work for DigestWork {
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
            Some(digests) => {
                self.store(chunk, digests);
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
            let messages = self.job.messages.len();
            self.context.counters.digest.record(messages as u64, self.started.elapsed());
            let mut digests = Vec::with_capacity(messages);
            for chunk in &self.digests {
                digests.extend_from_slice(chunk.get().map_or(&[], Vec::as_slice));
            }
            digests
        });
    }
}

impl DigestJob {
    /// The first messages go to the device, as many as it is to have, and the others into chunks for the cores.
    fn plan(&self, priority: Priority, context: &Context) -> Vec<(Range<usize>, Cost)> {
        let kind = Kind::Digest(self.algorithm);
        let blocks = |range: &Range<usize>| self.messages[range.clone()].iter().map(|span| self.blocks(*span)).sum();
        let on_cores = |range: Range<usize>| {
            let units = blocks(&range);
            (range, Cost::plan(context, Backend::Cpu, kind, units))
        };
        let gpu = context.gpu_for(priority).filter(|gpu| gpu.serves(&[Kernel::Digest(self.algorithm)]));
        let share =
            gpu.map_or(0, |gpu| device_units(context, gpu, kind, blocks(&(0..self.messages.len())), DEVICE_BLOCKS_MIN));
        let slot = gpu.map_or(0, Gpu::slot_bytes);
        let (parts, rest) = device_parts(&self.messages, share, slot, |span| self.blocks(span));
        let of_device = parts.into_iter().map(|(range, fits)| {
            let backend = if fits { Backend::Gpu } else { Backend::Cpu };
            let units = blocks(&range);
            (range, Cost::plan(context, backend, kind, units))
        });
        let mut chunks: Vec<_> = of_device.collect();
        let ranges = plan(&self.messages[rest..]).into_iter();
        chunks.extend(ranges.map(|range| on_cores(range.start + rest..range.end + rest)));
        chunks
    }

    fn blocks(&self, span: Span) -> usize {
        gpu::blocks(self.prefix.len().saturating_add(usize::try_from(span.length).unwrap_or(usize::MAX / 2)))
    }
}

impl DigestWork {
    fn messages(&self, chunk: usize) -> &[Span] {
        &self.job.messages[self.chunks[chunk].0.clone()]
    }

    fn here(&self, chunk: usize) {
        let DigestJob { algorithm, prefix, bytes, .. } = &self.job;
        self.chunks[chunk].1.here(&self.context, || {
            let digests = digest_spans(*algorithm, prefix, bytes, self.messages(chunk));
            self.store(chunk, digests.expect("spans were checked when the job was submitted"));
        });
    }

    fn store(&self, chunk: usize, digests: Vec<Digest>) {
        self.digests[chunk].get_or_init(|| digests);
        let length: u64 = self.messages(chunk).iter().map(|span| u64::from(span.length)).sum();
        self.context.counters.bytes_hashed.fetch_add(length, Ordering::Relaxed);
    }

    fn send(&self, chunk: usize, leave: &Leave<'_>) -> Option<()> {
        let started = Instant::now();
        let DigestJob { algorithm, prefix, bytes, .. } = &self.job;
        let gpu = serving(&self.context, &[Kernel::Digest(*algorithm)])?;
        let messages = self.messages(chunk).iter().map(|span| span.slice(bytes).ok()).collect::<Option<Vec<_>>>()?;
        let (batch, sent) = Digests::pack(*algorithm, prefix, &messages, Draw::new().nonce())?;
        let packing = started.elapsed();
        gpu.spent(Stage::Pack, packing);
        self.sent[chunk].get_or_init(|| (sent, packing));
        gpu.submit(batch, Reply::Chunk(leave.take()));
        Some(())
    }

    /// What the device says, if it can be believed.
    fn accept(&self, chunk: usize, answer: &Answer) -> Option<Vec<Digest>> {
        let DigestJob { algorithm, prefix, bytes, .. } = &self.job;
        let gpu = self.context.gpu().filter(|gpu| gpu.is_trusted())?;
        let (started, (sent, packing)) = (Instant::now(), self.sent[chunk].get()?);
        let digests = sent.unpack(answer);
        let Some(digests) = digests else {
            self.context.fault(Fault::Tag);
            return None;
        };
        let sample = Draw::new().sample(digests.len(), gpu.config().recheck_one_in);
        let spans: Vec<Span> = sample.iter().map(|index| self.messages(chunk)[*index]).collect();
        let expected = digest_spans(*algorithm, prefix, bytes, &spans).ok()?;
        self.context.guard.rechecked(sample.len());
        if sample.iter().zip(&expected).any(|(index, expected)| digests[*index] != *expected) {
            self.context.fault(Fault::Digest);
            return None;
        }
        let judging = started.elapsed();
        gpu.spent(Stage::Judge, judging);
        self.chunks[chunk].1.there(&self.context, answer.busy, *packing + judging);
        Some(digests)
    }
}

/// Cuts messages from the first on, of about so many blocks together, into batches that fit a slot. One that is too long
/// for the device makes a chunk of its own, marked false. Also says where the rest begins.
fn device_parts(
    messages: &[Span],
    share: usize,
    slot: usize,
    blocks_of: impl Fn(Span) -> usize,
) -> (Vec<(Range<usize>, bool)>, usize) {
    let mut parts = Vec::new();
    let (mut start, mut next, mut blocks, mut taken) = (0, 0, 0, 0);
    while next < messages.len() && taken < share {
        let more = blocks_of(messages[next]);
        let fits = more <= gpu::MESSAGE_BLOCKS_MAX && gpu::digest_bytes(1, more) <= slot;
        if start < next && (!fits || gpu::digest_bytes(next - start + 1, blocks + more) > slot) {
            parts.push((start..next, true));
            (start, blocks) = (next, 0);
        }
        next += 1;
        taken += more;
        blocks += more;
        if !fits {
            parts.push((start..next, false));
            (start, blocks) = (next, 0);
        }
    }
    if start < next {
        parts.push((start..next, true));
    }
    (parts, next)
}

/// Cuts messages, in order, into chunks of about [`CHUNK_BYTES`].
fn plan(messages: &[Span]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut cost) = (0, 0usize);
    for (index, span) in messages.iter().enumerate() {
        let length = usize::try_from(span.length).unwrap_or(usize::MAX);
        cost = cost.saturating_add(length).saturating_add(MESSAGE_OVERHEAD);
        if cost >= CHUNK_BYTES {
            chunks.push(start..index + 1);
            (start, cost) = (index + 1, 0);
        }
    }
    if start < messages.len() {
        chunks.push(start..messages.len());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_messages_in_order() {
        for lengths in [vec![0u32; 5], vec![1 << 21; 3], vec![100_000; 50], vec![1 << 20, 0, 0]] {
            let messages: Vec<Span> = lengths.iter().map(|length| Span { offset: 0, length: *length }).collect();
            let chunks = plan(&messages);
            let mut next = 0;
            for chunk in &chunks {
                assert_eq!(chunk.start, next);
                assert!(!chunk.is_empty());
                next = chunk.end;
            }
            assert_eq!(next, messages.len());
        }
        assert_eq!(plan(&[Span { offset: 0, length: 1 << 21 }; 3]).len(), 3);
    }

    #[test]
    fn parts_for_the_device_fit_a_slot_and_leave_what_is_too_long() {
        let slot = 100_000;
        let lengths = (0..400u32).map(|index| if index % 97 == 5 { 200_000 } else { index * 7 });
        let messages: Vec<Span> = lengths.map(|length| Span { offset: 0, length }).collect();
        let blocks = |span: Span| gpu::blocks(usize::try_from(span.length).expect("small"));
        for share in [0, 1, 300, 5000, usize::MAX] {
            let (parts, rest) = device_parts(&messages, share, slot, blocks);
            let mut next = 0;
            for (range, fits) in &parts {
                assert_eq!(range.start, next);
                assert!(!range.is_empty());
                next = range.end;
                let total: usize = messages[range.clone()].iter().map(|span| blocks(*span)).sum();
                assert_eq!(*fits, gpu::digest_bytes(range.len(), total) <= slot, "{range:?}");
                assert!(*fits || range.len() == 1);
            }
            assert_eq!(rest, next);
            let total: usize = messages[..rest].iter().map(|span| blocks(*span)).sum();
            assert!(total >= share || rest == messages.len());
        }
    }
}
