//! The engine: takes jobs, hands out tickets.

use std::{
    fmt, io,
    num::NonZero,
    sync::{Arc, OnceLock, atomic::Ordering},
    thread,
};

use stele_accel_hash::SpanError;
use thiserror::Error;

use crate::{
    cost::Costs,
    curve::{P256, Sm2},
    figures::{Counters, Figures},
    gpu::{Gpu, GpuConfig, GpuStatus},
    guard::{GuardCounters, canary::Canaries, window::Window},
    job::Job,
    pool::{Pool, Weight},
    suite::{EdwardsEquation, Equation, Verifiers},
    ticket::{Ticket, ticket},
};

/// Most worker threads; more than any present machine has cores.
const THREADS_MAX: usize = 1024;

/// How the engine is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Worker threads; 0 is one for each core.
    pub threads: usize,
    /// Most items of all jobs that are queued or running: about ten seconds of Ed25519 on two cores.
    pub queue_items_max: usize,
    /// Most arena bytes of all jobs that are queued or running.
    pub queue_bytes_max: usize,
    /// Decoded public keys remembered for each suite, about 400 bytes each.
    pub key_cache_entries: usize,
    /// Most bytes of tables of each suite, of which a key that is used often gets one of 86 KiB; less than that
    /// means no tables. What is given here may be taken three times.
    pub key_table_bytes_max: usize,
    /// Most Ed25519 signatures of one batch equation, which is also one chunk of work; at least
    /// [`ED25519_BATCH_MIN`]. Larger is cheaper per signature until the points leave the second-level
    /// cache, but it is also what live work waits for and what one bad signature spoils.
    pub ed25519_batch_max: usize,
    /// The GPU; none: the CPU does everything.
    pub gpu: Option<GpuConfig>,
}

/// Least value of [`EngineConfig::ed25519_batch_max`].
pub const ED25519_BATCH_MIN: usize = 64;

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            queue_items_max: 1 << 20,
            queue_bytes_max: 1 << 30,
            key_cache_entries: 1 << 14,
            key_table_bytes_max: 128 << 20,
            ed25519_batch_max: 512,
            gpu: None,
        }
    }
}

/// Which jobs go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Someone waits for it: admission, votes, execution.
    #[default]
    Live,
    /// Catch-up, replay, import, audits; gets what live work leaves, and one chunk in eight.
    Bulk,
    /// Quorum signatures: queued as live work, and never given to a GPU, whatever is configured.
    Quorum,
}

/// Why the engine could not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The configuration asks for something absurd.
    #[error("accel.threads is {threads}; at most {THREADS_MAX} are allowed")]
    TooManyThreads {
        /// Threads asked for.
        threads: usize,
    },
    /// A worker thread could not be started.
    #[error("a worker thread could not be started: {0}")]
    Thread(#[source] io::Error),
}

impl EngineError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooManyThreads { .. } => "too_many_threads",
            Self::Thread(_) => "thread_failed",
        }
    }
}

/// Why a job was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The queue is full; try again later, or use [`Engine::submit_blocking`].
    #[error("the accelerator's queue is full")]
    Saturated,
    /// The job alone is larger than the queue's bounds; split it.
    #[error("the job is larger than the accelerator's queue")]
    TooLarge,
    /// A span leaves the arena: a mistake of the caller.
    #[error(transparent)]
    Span(#[from] SpanError),
}

impl SubmitError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Saturated => "accel_saturated",
            Self::TooLarge => "accel_job_too_large",
            Self::Span(_) => "accel_span_outside",
        }
    }

    /// Whether the same job may be taken later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Saturated)
    }
}

/// A job that was not queued, given back with the reason.
pub struct Refused<J> {
    /// Why.
    pub reason: SubmitError,
    /// The job, unchanged.
    pub job: J,
}

/// The accelerator. Share it in an `Arc`; dropping it ends the workers after their present chunks and
/// resolves the tickets of unfinished jobs with [`TicketError::Stopped`](crate::TicketError::Stopped).
#[derive(Debug)]
pub struct Engine {
    pool: Pool,
    context: Arc<Context>,
}

/// What all jobs share.
#[derive(Debug)]
pub struct Context {
    pub(crate) verifiers: Verifiers,
    pub(crate) counters: Counters,
    pub(crate) threads: usize,
    pub(crate) ed25519_batch_max: usize,
    pub(crate) costs: Arc<Costs>,
    pub(crate) guard: GuardCounters,
    pub(crate) window: Window,
    pub(crate) canaries_ed25519: OnceLock<Canaries<EdwardsEquation>>,
    pub(crate) canaries_p256: OnceLock<Canaries<Equation<P256>>>,
    pub(crate) canaries_sm2: OnceLock<Canaries<Equation<Sm2>>>,
    gpu: OnceLock<Gpu>,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`EngineError`] when threads cannot be had.
    pub fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        let threads = match config.threads {
            0 => thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX),
            threads if threads <= THREADS_MAX => threads,
            threads => return Err(EngineError::TooManyThreads { threads }),
        };
        let bound = Weight { items: config.queue_items_max, bytes: config.queue_bytes_max };
        let pool = Pool::new(threads, bound).map_err(EngineError::Thread)?;
        let context = Arc::new(Context {
            verifiers: Verifiers::new(config.key_cache_entries, config.key_table_bytes_max),
            counters: Counters::default(),
            threads: pool.threads(),
            ed25519_batch_max: config.ed25519_batch_max.max(ED25519_BATCH_MIN),
            costs: Arc::default(),
            guard: GuardCounters::default(),
            window: config
                .gpu
                .as_ref()
                .map_or(Window::new(0, 0), |gpu| Window::new(gpu.retained_items_max, gpu.retained_bytes_max)),
            canaries_ed25519: OnceLock::new(),
            canaries_p256: OnceLock::new(),
            canaries_sm2: OnceLock::new(),
            gpu: OnceLock::new(),
        });
        if let Some(gpu) = &config.gpu {
            let fitted = Arc::downgrade(&context);
            let gpu = Gpu::start(gpu, move || {
                if let Some(context) = fitted.upgrade() {
                    crate::job::fit(&context);
                }
            });
            context.gpu.get_or_init(|| gpu);
        }
        Ok(Self { pool, context })
    }

    /// Queues a live job; never blocks.
    ///
    /// # Errors
    /// [`Refused`] with the job when the queue is full, the job is too large or a span is wrong.
    pub fn submit<J: Job>(&self, job: J) -> Result<Ticket<J::Output>, Refused<J>> {
        self.submit_with(Priority::Live, job)
    }

    /// Queues a job of either priority; never blocks.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_with<J: Job>(&self, priority: Priority, job: J) -> Result<Ticket<J::Output>, Refused<J>> {
        let weight = match self.admit(&job) {
            Ok(weight) => weight,
            Err(reason) => return Err(Refused { reason, job }),
        };
        let (ticket, resolver) = ticket();
        if weight.items == 0 {
            resolver.resolve(Ok(J::empty_output()));
            return Ok(ticket);
        }
        if !self.pool.reserve(weight) {
            self.context.counters.saturated.fetch_add(1, Ordering::Relaxed);
            return Err(Refused { reason: SubmitError::Saturated, job });
        }
        self.pool.enqueue(priority, weight, job.into_work(resolver, priority, Arc::clone(&self.context)));
        Ok(ticket)
    }

    /// Queues a job and blocks the calling thread while the queue is full. Not for use inside an
    /// asynchronous task.
    ///
    /// # Errors
    /// [`Refused`] with the job when it is too large or a span is wrong; never
    /// [`SubmitError::Saturated`].
    pub fn submit_blocking<J: Job>(&self, priority: Priority, job: J) -> Result<Ticket<J::Output>, Refused<J>> {
        let weight = match self.admit(&job) {
            Ok(weight) => weight,
            Err(reason) => return Err(Refused { reason, job }),
        };
        let (ticket, resolver) = ticket();
        if weight.items == 0 {
            resolver.resolve(Ok(J::empty_output()));
            return Ok(ticket);
        }
        self.pool.reserve_blocking(weight);
        self.pool.enqueue(priority, weight, job.into_work(resolver, priority, Arc::clone(&self.context)));
        Ok(ticket)
    }

    /// What the GPU is doing, and why it does not serve where it does not. Its figures are in [`Self::figures`].
    #[must_use]
    pub fn gpu_status(&self) -> GpuStatus {
        self.context.gpu.get().map(Gpu::status).unwrap_or_default()
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let held = self.pool.held();
        let mut gpu = self.context.gpu.get().map(Gpu::figures).unwrap_or_default();
        self.context.guard.fill(&mut gpu);
        self.context.counters.fill(&mut gpu);
        Figures {
            gpu,
            key_caches: self.context.verifiers.cache_figures(),
            queue_items: held.items as u64,
            queue_bytes: held.bytes as u64,
            threads: self.context.threads as u64,
            ..self.context.counters.snapshot()
        }
    }

    fn admit<J: Job>(&self, job: &J) -> Result<Weight, SubmitError> {
        job.validate()?;
        let weight = job.weight();
        if self.pool.admits(weight) { Ok(weight) } else { Err(SubmitError::TooLarge) }
    }
}

#[cfg(test)]
impl Engine {
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}

impl Drop for Engine {
    /// What the GPU has under way belongs to jobs whose tickets say that the engine stopped.
    fn drop(&mut self) {
        if let Some(gpu) = self.context.gpu.get() {
            gpu.stop();
        }
    }
}

impl Context {
    /// The GPU, if work of this priority may go there.
    pub(crate) fn gpu_for(&self, priority: Priority) -> Option<&Gpu> {
        self.gpu.get().filter(|gpu| match priority {
            Priority::Bulk => true,
            Priority::Live => gpu.config().live,
            Priority::Quorum => false,
        })
    }

    /// The GPU.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        self.gpu.get()
    }
}

impl<J> fmt::Debug for Refused<J> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<J> fmt::Display for Refused<J> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(formatter)
    }
}

impl<J> std::error::Error for Refused<J> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}
