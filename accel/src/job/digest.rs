//! Hashing of many messages over an arena.

use std::{
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use stele_accel_hash::{Digest, HashAlgorithm, Span, SpanError, digest_spans};

use crate::{
    engine::Context,
    job::{Job, sealed::Parts},
    pool::{Outcome, Weight, Work},
    ticket::{Resolver, TicketError},
};

/// Bytes of one chunk: about a millisecond of one core.
const CHUNK_BYTES: usize = 1 << 20;

/// What one message costs besides its bytes, in bytes: padding and finishing.
const MESSAGE_OVERHEAD: usize = 64;

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

    fn into_work(self, resolver: Resolver<Vec<Digest>>, context: Arc<Context>) -> Box<dyn Work> {
        let chunks = plan(&self.messages);
        Box::new(DigestWork {
            digests: chunks.iter().map(|_| OnceLock::new()).collect(),
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
    chunks: Vec<Range<usize>>,
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

    fn run(&self, chunk: usize) {
        let DigestJob { algorithm, prefix, bytes, messages } = &self.job;
        let messages = &messages[self.chunks[chunk].clone()];
        let digests =
            digest_spans(*algorithm, prefix, bytes, messages).expect("spans were checked when the job was submitted");
        self.digests[chunk].get_or_init(|| digests);
        let length: u64 = messages.iter().map(|span| u64::from(span.length)).sum();
        self.context.counters.bytes_hashed.fetch_add(length, Ordering::Relaxed);
    }

    fn finish(&self, outcome: Outcome) {
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match outcome {
            Outcome::Done => {
                let messages = self.job.messages.len();
                self.context.counters.digest.record(messages as u64, self.started.elapsed());
                let mut digests = Vec::with_capacity(messages);
                for chunk in &self.digests {
                    digests.extend_from_slice(chunk.get().map_or(&[], Vec::as_slice));
                }
                Ok(digests)
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
}
