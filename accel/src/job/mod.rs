//! The kinds of work that the engine takes.

use std::sync::{Mutex, PoisonError, atomic::Ordering};

use crate::{
    engine::Context,
    pool::Outcome,
    ticket::{Resolver, TicketError},
};

mod batch;
pub(crate) mod device;
pub(crate) mod digest;
pub(crate) mod merkle;
pub(crate) mod verify;

/// Work for the engine: [`VerifyJob`](crate::VerifyJob), [`DigestJob`](crate::DigestJob) or
/// [`MerkleJob`](crate::MerkleJob). Sealed, because jobs and backends are made for each other.
pub trait Job: sealed::Parts {
    /// What its ticket resolves to.
    type Output: Send + 'static;
}

pub(crate) use self::device::fit;

/// Resolves a job's ticket, once: with its output, which is made only now, or as failed.
fn resolve<T>(resolver: &Mutex<Option<Resolver<T>>>, outcome: Outcome, context: &Context, output: impl FnOnce() -> T) {
    let resolver = resolver.lock().unwrap_or_else(PoisonError::into_inner).take();
    let result = match outcome {
        Outcome::Done => Ok(output()),
        Outcome::Panicked => {
            context.counters.failures.fetch_add(1, Ordering::Relaxed);
            Err(TicketError::Failed)
        }
    };
    if let Some(resolver) = resolver {
        resolver.resolve(result);
    }
}

pub(crate) mod sealed {
    use std::sync::Arc;

    use stele_accel_hash::SpanError;

    use crate::{
        engine::{Context, Priority},
        job::Job,
        pool::{Weight, Work},
        ticket::Resolver,
    };

    /// The engine's side of a job.
    pub trait Parts: Sized {
        /// Checks what the caller is responsible for.
        fn validate(&self) -> Result<(), SpanError>;

        /// What the job takes of the queue's bounds.
        fn weight(&self) -> Weight;

        /// Cuts a job of at least one item into chunks.
        fn into_work(
            self,
            resolver: Resolver<Self::Output>,
            priority: Priority,
            context: Arc<Context>,
        ) -> Box<dyn Work>
        where
            Self: Job;

        /// The result of a job without items.
        fn empty_output() -> Self::Output
        where
            Self: Job;
    }
}
