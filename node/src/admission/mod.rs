//! Admission: what a party submits is parsed, deduplicated, verified in batches and queued for a block, fairly.
//!
//! ```text
//!  submit ──► place ──► parse ──► turns (per party) ──► accel batch ──► pool (turns per party) ──► proposer
//!    ▲          │ 429     │ code                           │ signature_invalid      │ 2 s
//!    └──────────┴─────────┴────────────────────────────────┘                        └──► forwarded to other proposers
//! ```
//!
//! A statement takes a place in the pool before any work is spent on it and keeps it until it is drawn for a block, so one
//! bound, [`shares`], holds for all of admission. Where statements wait, parties take [`turns`]. A party at a hundred
//! times its share fills its own places and is told to come back; the others do not wait behind it. An admitted
//! statement promises nothing: only an outcome under a certified header does.

mod pool;
mod shares;
mod turns;
mod verified;
mod verifier;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use stele_ledger::{SigningKeys, is_remembered, prefetch};
use stele_types::{Code, ContentKind, PartyId, Statement, StatementId};
use tokio::sync::{Notify, oneshot};

use pool::Place;
pub use pool::{Pool, Pooled};
pub use verified::Verified;
pub use verifier::{Checked, Verifier};

use crate::chain::Chain;
use crate::metrics::Metrics;
use crate::metrics::label::{AdmissionStage, Class};
use crate::signatures::Signatures;

/// Statements that may be verified or wait for a block.
pub const POOL_STATEMENTS_MAX: usize = 131_072;
/// Bytes that may wait for a block.
pub const POOL_BYTES_MAX: usize = 128 << 20;
/// Statements of one submission.
pub const SUBMISSION_STATEMENTS_MAX: usize = 10_000;
/// What a refused client is asked to wait.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Bounds of admission, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Statements that may be verified or wait for a block.
    pub pool_statements_max: usize,
    /// Bytes that may wait for a block.
    pub pool_bytes_max: usize,
    /// Part of the pool that one party may hold, in percent.
    pub party_share_percent: u8,
}

impl Limits {
    /// What one party may hold of a queue.
    pub(crate) fn party_max(&self, capacity: usize) -> usize {
        (capacity.saturating_mul(usize::from(self.party_share_percent)) / 100).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { pool_statements_max: POOL_STATEMENTS_MAX, pool_bytes_max: POOL_BYTES_MAX, party_share_percent: 50 }
    }
}

/// Why a statement was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// When to come back, for codes that time can change.
    pub retry_after_ms: Option<u32>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        let retry = || u32::try_from(RETRY_AFTER.as_millis()).unwrap_or(u32::MAX);
        Self { code, retry_after_ms: code.is_retryable().then(retry) }
    }
}

/// The front door of a node.
pub struct Admission {
    chain: Arc<Chain>,
    pool: Arc<Pool>,
    verifier: Verifier,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// Starts the verification tasks on the current runtime.
    pub fn start(
        chain: Arc<Chain>,
        signatures: Signatures,
        verified: Arc<Verified>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let party_max = limits.party_max(limits.pool_statements_max);
        let pool = Arc::new(Pool::new(limits.pool_statements_max, party_max, limits.pool_bytes_max));
        let verifier = Verifier::start(signatures, Arc::clone(&pool), verified, Arc::clone(&metrics));
        Arc::new(Self { chain, pool, verifier, metrics })
    }

    /// Statements that wait for a block.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Statements that wait for verification.
    pub fn verifying(&self) -> usize {
        self.verifier.len()
    }

    /// Wakes when a statement arrives in the pool.
    pub fn arrivals(&self) -> &Notify {
        self.pool.arrivals()
    }

    /// Whether a statement waits for a block here.
    pub fn is_pending(&self, id: &StatementId) -> bool {
        self.pool.contains(id)
    }

    /// Admits statements of `party`, the holder of the client certificate. Answers per statement, in order, once each is
    /// verified and queued, or known already.
    pub async fn submit(&self, party: PartyId, entries: Vec<Bytes>) -> Vec<Result<StatementId, Refusal>> {
        if entries.len() > SUBMISSION_STATEMENTS_MAX {
            return vec![Err(Code::TooLarge.into()); entries.len()];
        }
        let (places, code) = self.pool.places(party, entries.iter().map(Bytes::len));
        let (taken, refused) = (places.len(), entries.len() - places.len());
        let mut answers: Vec<Answer> = Vec::with_capacity(entries.len());
        self.parse(party, entries.into_iter().zip(places).collect(), &mut answers).await;
        let mut results = Vec::with_capacity(taken + refused);
        for answer in answers {
            let Answer { class, bytes, state } = answer;
            let result = match state {
                State::Known(id) => {
                    self.metrics.admission.deduplicated();
                    Ok(id)
                }
                State::Refused(code) => Err(code),
                // The verifier answers, or stopped with the node.
                State::Waiting(id, reply) => reply.await.unwrap_or(Err(Code::NotReady)).map(|()| id),
            };
            match result {
                Ok(_) => self.metrics.admission.accepted(class, bytes),
                Err(code) => self.metrics.admission.refused(class, code, bytes),
            }
            results.push(result.map_err(Refusal::from));
        }
        for _ in 0..refused {
            self.metrics.admission.refused(Class::Unparsed, code, 0);
        }
        results.resize(taken + refused, Err(code.into()));
        results
    }

    async fn parse(&self, party: PartyId, entries: Vec<(Bytes, Place)>, answers: &mut Vec<Answer>) {
        /// Statements parsed before other tasks get the thread: about half a millisecond.
        const SLICE: usize = 128;
        let started = std::time::Instant::now();
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            let slice: Vec<_> = entries
                .by_ref()
                .take(SLICE)
                .map(|(entry, place)| (Statement::parse(&entry[..]), entry.len(), place))
                .collect();
            let classes = slice.iter().map(|(statement, ..)| statement.as_ref().map_or(Class::Unparsed, Class::of));
            let sizes: Vec<(Class, usize)> = classes.zip(slice.iter().map(|(_, bytes, _)| *bytes)).collect();
            let mut parsed = Vec::with_capacity(slice.len());
            let read = self.chain.reading(|view| {
                let mut keys = SigningKeys::new(view);
                let head = self.chain.head();
                let now_ms = unix_ms();
                prefetch(view, slice.iter().filter_map(|(statement, ..)| statement.as_ref().ok()), now_ms);
                for (statement, bytes, place) in slice {
                    let result = statement.and_then(|statement| {
                        self.check(&statement, bytes, &head.frame.parameters, now_ms)?;
                        if self.pool.holds(&statement) {
                            return Ok(Checking::Known(statement.id()));
                        }
                        // Decided lately: ordering it again would cost every validator its check and give the same
                        // outcome. The id says nothing of the signature, which is checked as long as its key lives.
                        let decided = is_remembered(view, &statement);
                        match keys.of(&statement).cloned() {
                            Ok(key) => Ok(Checking::New(Box::new(Checked { statement, key, decided }))),
                            Err(_) if decided => Ok(Checking::Known(statement.id())),
                            Err(code) => Err(code),
                        }
                    });
                    parsed.push((place, result));
                }
            });
            if read.is_err() {
                // The node halts.
                let refused = |(class, bytes)| Answer { class, bytes, state: State::Refused(Code::NotReady) };
                answers.extend(sizes.into_iter().map(refused));
                continue;
            }
            for ((class, bytes), (place, result)) in sizes.into_iter().zip(parsed) {
                let state = match result {
                    Err(code) => State::Refused(code),
                    Ok(Checking::Known(id)) => State::Known(id),
                    Ok(Checking::New(checked)) => {
                        let id = checked.statement.id();
                        let (reply, answer) = oneshot::channel();
                        self.verifier.enqueue(party, place, *checked, reply);
                        State::Waiting(id, answer)
                    }
                };
                answers.push(Answer { class, bytes, state });
            }
            tokio::task::yield_now().await;
        }
        self.metrics.admission.stage(AdmissionStage::Precheck, started.elapsed());
    }

    /// What can be told without the signature: network, size and time. `apply` decides about time again, by block time.
    fn check(
        &self,
        statement: &Statement,
        bytes: usize,
        parameters: &stele_types::Parameters,
        now_ms: u64,
    ) -> Result<(), Code> {
        if bytes > usize::try_from(parameters.statement_bytes_max).unwrap_or(usize::MAX) {
            return Err(Code::TooLarge);
        }
        if !parameters.allows(statement.suite()) {
            return Err(Code::SuiteDisabled);
        }
        if let ContentKind::Command { audience, issued_at, .. } = statement.content() {
            if *audience != self.chain.network() {
                return Err(Code::ForeignNetwork);
            }
            let issued_ms = issued_at.saturating_mul(1000);
            if issued_ms.saturating_add(parameters.replay_past_ms) < now_ms {
                return Err(Code::Stale);
            }
            if issued_ms > now_ms.saturating_add(parameters.replay_future_ms) {
                return Err(Code::Early);
            }
        }
        Ok(())
    }
}

enum Checking {
    Known(StatementId),
    New(Box<Checked>),
}

/// What became of one entry, and what it counts as.
struct Answer {
    class: Class,
    bytes: usize,
    state: State,
}

enum State {
    Known(StatementId),
    Refused(Code),
    Waiting(StatementId, oneshot::Receiver<Result<(), Code>>),
}

/// The wall clock in milliseconds since 1970; zero before it.
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
