//! Counters that every signer keeps in the same way.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::{
    error::SignerError,
    signer::{Signature, SignerFigures},
};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) votes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) epoch_certificates: AtomicU64,
    pub(crate) custody_receipts: AtomicU64,
    pub(crate) peer_bindings: AtomicU64,
    guard_refusals: AtomicU64,
    failures: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counters {
    /// Counts what became of a request.
    pub(crate) fn settle(
        &self,
        signed: &AtomicU64,
        started: Instant,
        result: Result<Signature, SignerError>,
    ) -> Result<Signature, SignerError> {
        match &result {
            Ok(_) => {
                signed.fetch_add(1, Ordering::Relaxed);
                let elapsed = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.nanoseconds.fetch_add(elapsed, Ordering::Relaxed);
            }
            Err(error) if error.is_guard_refusal() => {
                self.guard_refusals.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    pub(crate) fn read(&self) -> SignerFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SignerFigures {
            votes_signed: read(&self.votes),
            checkpoints_signed: read(&self.checkpoints),
            epoch_certificates_signed: read(&self.epoch_certificates),
            custody_receipts_signed: read(&self.custody_receipts),
            peer_bindings_signed: read(&self.peer_bindings),
            guard_refusals: read(&self.guard_refusals),
            failures: read(&self.failures),
            signing_nanoseconds: read(&self.nanoseconds),
        }
    }
}
