//! The kinds of work that the engine takes.

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
