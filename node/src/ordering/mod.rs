//! The node as the order sees it: builds, judges and commits blocks, and serves them to peers.
//!
//! ```text
//!  pool ──► propose ──► order ──► commit ──► chain::Writer ──► head
//!                ▲        │ validate (peers' blocks)
//!                └────────┘ own results must equal those that the header certifies
//! ```

mod ahead;
mod forward;
mod propose;
mod validate;
mod votes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use stele_accel::Priority;
use stele_order::{
    Application, ApplicationError, Candidate, Decided, Equivocation, Fetched, HeightStart, Origin, Proposed, Verdict,
};
use stele_types::cbor::Blob;
use stele_types::parameters::PROTOCOL_VERSION;
use stele_types::{Block, BlockId, Height, PartyId, ValidatorId, cbor};
use tracing::{error, info, warn};

pub use forward::forward_overdue;
pub use votes::{BallotSigner, EpochKey};

use self::ahead::Ahead;
use crate::admission::{Admission, Pooled, Verified, unix_ms};
use crate::alarm::Alarm;
use crate::chain::{Chain, ChainError, Prepared, Writer};
use crate::metrics::Metrics;
use crate::metrics::label::Class;
use crate::receipt_clock::ReceiptClock;
use crate::signatures::Signatures;
use crate::store::durable;

/// How long blocks are read for one question of a peer, which does not wait for long: from the archive they come slowly.
const READ_MAX: Duration = Duration::from_secs(5);

/// Blocks judged but not decided: a few rounds of one height.
const PREPARED_MAX: usize = 64;

/// What the node brings to the order.
pub struct Ordering {
    chain: Arc<Chain>,
    writer: Arc<Mutex<Writer>>,
    admission: Arc<Admission>,
    signatures: Signatures,
    verified: Arc<Verified>,
    metrics: Arc<Metrics>,
    /// This node's validator.
    validator: ValidatorId,
    evidence: PathBuf,
    prepared: Mutex<HashMap<BlockId, Judged>>,
    ahead: Arc<Ahead>,
    drawn: Mutex<Vec<Draw>>,
    clock: Arc<ReceiptClock>,
    alarm: Arc<Alarm>,
    protocol_version_max: u32,
}

/// A block that was found valid.
struct Judged {
    block: Arc<Prepared>,
    /// Whether its signatures were verified as votes ask for it: one that was fetched may have been verified on a GPU, and
    /// is judged again before a vote.
    for_votes: bool,
}

/// Statements of one proposal of this node.
struct Draw {
    height: Height,
    statements: Vec<(PartyId, Pooled)>,
}

/// The parts that [`Ordering`] is made of.
pub struct Parts {
    /// The chain.
    pub chain: Arc<Chain>,
    /// Its writer.
    pub writer: Writer,
    /// The front door.
    pub admission: Arc<Admission>,
    /// The accelerator.
    pub signatures: Signatures,
    /// Signatures verified before.
    pub verified: Arc<Verified>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Times from submission to receipt.
    pub clock: Arc<ReceiptClock>,
    /// This node's validator.
    pub validator: ValidatorId,
    /// Directory for proofs of misbehaviour.
    pub evidence: PathBuf,
    /// Raised when this node must not vote any more.
    pub alarm: Arc<Alarm>,
    /// Newest protocol version whose heights this node executes.
    pub protocol_version_max: u32,
}

impl Ordering {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let ahead = Ahead::new(Arc::clone(&parts.chain), parts.signatures.clone(), Arc::clone(&parts.verified));
        Arc::new(Self {
            ahead,
            chain: parts.chain,
            writer: Arc::new(Mutex::new(parts.writer)),
            admission: parts.admission,
            signatures: parts.signatures,
            verified: parts.verified,
            metrics: parts.metrics,
            validator: parts.validator,
            evidence: parts.evidence,
            prepared: Mutex::default(),
            drawn: Mutex::default(),
            clock: parts.clock,
            alarm: parts.alarm,
            protocol_version_max: parts.protocol_version_max,
        })
    }

    fn prepared(&self) -> MutexGuard<'_, HashMap<BlockId, Judged>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drawn(&self) -> MutexGuard<'_, Vec<Draw>> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a block was judged before, for what it is wanted for now.
    fn judged(&self, id: &BlockId, priority: Priority) -> bool {
        self.prepared().get(id).is_some_and(|judged| judged.for_votes || priority == Priority::Bulk)
    }

    /// Keeps a block for its decision and executes it ahead of it on a thread of its own.
    fn keep(&self, prepared: &Arc<Prepared>, for_votes: bool) {
        {
            let mut kept = self.prepared();
            if kept.len() >= PREPARED_MAX {
                let tip = self.chain.tip().height;
                kept.retain(|_, judged| judged.block.header.height > tip);
            }
            let for_votes = for_votes || kept.get(&prepared.id).is_some_and(|judged| judged.for_votes);
            if kept.len() < PREPARED_MAX {
                kept.insert(prepared.id, Judged { block: Arc::clone(prepared), for_votes });
            }
        }
        let (chain, prepared) = (Arc::clone(&self.chain), Arc::clone(prepared));
        tokio::task::spawn_blocking(move || {
            // The state must still be the parent's; a block of a later height waits for its turn.
            if prepared.header.height == chain.tip().height.next() {
                // What fails here fails again when the block is committed, and is dealt with there.
                let _ = chain.execution(&prepared);
            }
        });
    }

    /// Settles the statements of this node's proposals at `height`: decided ones are forgotten, the others wait again.
    fn settle(&self, height: Height, block: &Prepared) {
        let pool = self.admission.pool();
        pool.forget(block.statements.iter().map(stele_types::Statement::id).collect::<Vec<_>>().iter());
        let settled: Vec<Draw> = {
            let mut drawn = self.drawn();
            let (settled, open) = drawn.drain(..).partition(|draw| draw.height <= height);
            *drawn = open;
            settled
        };
        let mut arrivals = Vec::new();
        for draw in settled {
            // What was forgotten above was decided; the rest waits again.
            for (_, pooled) in draw.statements.iter().filter(|(_, pooled)| !pool.contains(&pooled.statement.id())) {
                arrivals.push((Class::of(&pooled.statement), pooled.arrived));
            }
            pool.put_back(draw.statements);
        }
        self.clock.decided(height, arrivals);
        self.prepared().retain(|_, judged| judged.block.header.height > height);
        self.ahead.settle(height);
    }

    fn halt(&self, error: &ChainError) -> ApplicationError {
        ApplicationError::Halt { reason: self.alarm.raise_for(error) }
    }

    fn record_commit(&self, prepared: &Prepared, parent_time_ms: u64, started: Instant) {
        let header = &prepared.header;
        self.metrics.execute.commit(started.elapsed());
        self.metrics.order.block(Duration::from_millis(header.time_ms.saturating_sub(parent_time_ms)));
        let Some((applied, duration)) = prepared.executed() else { return };
        self.metrics.execute.block(header.height.0, prepared.statements.len(), duration);
        self.metrics.log.appended(applied.first_index.0 + applied.leaves.len() as u64, started.elapsed());
        for (statement, outcome) in prepared.statements.iter().zip(&applied.outcomes) {
            self.metrics.execute.transaction(Class::of(statement), outcome.code);
        }
    }
}

#[async_trait]
impl Application for Ordering {
    async fn next(&self) -> Result<HeightStart, ApplicationError> {
        let head = self.chain.head();
        let frame = &head.frame;
        // A rehearsed version is one number far above the real ones; those between are as unknown as ever.
        let known = frame.protocol_version <= PROTOCOL_VERSION || frame.protocol_version == self.protocol_version_max;
        if !known {
            let reason = format!(
                "height {} needs protocol version {}, this program executes {}: install the new release",
                head.tip.height.next(),
                frame.protocol_version,
                self.protocol_version_max
            );
            warn!(version = frame.protocol_version, "halting cleanly at the activation of a newer protocol version");
            self.alarm.raise(reason.clone());
            return Err(ApplicationError::Halt { reason });
        }
        if let Some(reason) = self.alarm.reason() {
            return Err(ApplicationError::Halt { reason });
        }
        Ok(HeightStart {
            height: head.tip.height.next(),
            validators: Arc::new(frame.validators.clone()),
            proposers: Arc::new(frame.schedule.clone()),
            timeouts: frame.parameters.timeouts.clone(),
            epoch_certificates: frame.epoch_certificates.clone().into(),
        })
    }

    async fn work(&self, _height: Height) {
        loop {
            let arrival = self.admission.arrivals().notified();
            let head = self.chain.head();
            // Results of a non-empty block want the certificate of the next one at once.
            if head.tip.statements > 0 || !self.admission.pool().is_empty() {
                return;
            }
            let due_ms = head.tip.time_ms.saturating_add(head.frame.parameters.heartbeat_ms);
            let wait = Duration::from_millis(due_ms.saturating_sub(unix_ms()));
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = arrival => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn propose(&self, height: Height, round: u32) -> Result<Proposed, ApplicationError> {
        let prepared = self.build(height, round).await?;
        let proposed = Proposed { id: prepared.id, bytes: prepared.bytes.clone() };
        self.keep(&prepared, true);
        Ok(proposed)
    }

    async fn validate(&self, candidate: Candidate) -> Verdict {
        let (height, sender) = (candidate.height, candidate.sender);
        let for_votes = candidate.origin != Origin::Sync;
        match self.judge(candidate).await {
            Ok(prepared) => {
                let id = prepared.id;
                self.keep(&prepared, for_votes);
                Verdict::Valid(id)
            }
            Err(validate::Refusal::Invalid(id, reason)) => {
                warn!(%height, block = %id, reason, "voting nil on an invalid proposal");
                Verdict::Invalid(id, reason)
            }
            Err(validate::Refusal::OtherResults(id, what)) => {
                let reason = validate::mismatch_code(what);
                warn!(%height, block = %id, reason, "voting nil on a proposal that certifies other results than these");
                if let Some(sender) = sender {
                    let faulty_max = self.chain.head().frame.validators.faulty_max();
                    self.alarm.note_other_results(sender, faulty_max, height, what);
                }
                Verdict::Invalid(id, reason)
            }
            Err(validate::Refusal::Malformed(reason)) => {
                warn!(%height, reason, "dropping what is not a block");
                Verdict::Malformed
            }
            Err(validate::Refusal::Undecided(reason)) => {
                info!(%height, reason, "a proposal cannot be judged now");
                Verdict::Undecided
            }
        }
    }

    async fn commit(&self, decided: Decided) -> Result<(), ApplicationError> {
        let started = Instant::now();
        let kept = self.prepared().get(&decided.certificate.block).map(|judged| Arc::clone(&judged.block));
        let prepared = match kept {
            Some(prepared) => prepared,
            None => {
                let bytes = decided.bytes.clone();
                let decoded = tokio::task::spawn_blocking(move || {
                    let block = Block::from_bytes(&bytes)?;
                    Prepared::new(block, bytes).map_err(|code| ChainError::Statement { code })
                })
                .await;
                match decoded {
                    Ok(Ok(prepared)) => Arc::new(prepared),
                    Ok(Err(error)) => return Err(self.halt(&error)),
                    Err(panicked) => return Err(ApplicationError::Halt { reason: panicked.to_string() }),
                }
            }
        };
        let parent_time_ms = self.chain.tip().time_ms;
        let (writer, block) = (Arc::clone(&self.writer), Arc::clone(&prepared));
        let committed = tokio::task::spawn_blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.commit(&block, &decided.certificate)
        })
        .await;
        match committed {
            Ok(Ok(head)) => {
                self.record_commit(&prepared, parent_time_ms, started);
                self.settle(head.tip.height, &prepared);
                Ok(())
            }
            Ok(Err(error)) => Err(self.halt(&error)),
            Err(panicked) => Err(ApplicationError::Halt { reason: panicked.to_string() }),
        }
    }

    async fn blocks(&self, from: Height, until: Height, bytes_max: usize) -> Result<Vec<Decided>, ApplicationError> {
        let chain = Arc::clone(&self.chain);
        let read = tokio::task::spawn_blocking(move || {
            let (mut blocks, begun) = (Vec::new(), Instant::now());
            let mut bytes = 0;
            for height in from.0..=until.0 {
                let stored = match chain.stored(Height(height)) {
                    Ok(Some(stored)) => stored,
                    Ok(None) => break,
                    // What was read already helps whoever asks.
                    Err(_) if !blocks.is_empty() => break,
                    Err(error) => return Err(error),
                };
                bytes += stored.block().len() + stored.certificate().len();
                let is_late = begun.elapsed() > READ_MAX;
                if (bytes > bytes_max || is_late) && !blocks.is_empty() {
                    break;
                }
                blocks.push(Decided {
                    certificate: cbor::from_slice(stored.certificate())?,
                    validators: Arc::new(chain.validators_at(Height(height))),
                    bytes: Bytes::copy_from_slice(stored.block()),
                });
            }
            Ok::<_, ChainError>(blocks)
        })
        .await;
        match read {
            Ok(Ok(blocks)) => Ok(blocks),
            Ok(Err(error)) => Err(ApplicationError::Unavailable { reason: error.to_string() }),
            Err(panicked) => Err(ApplicationError::Unavailable { reason: panicked.to_string() }),
        }
    }

    async fn history_start(&self) -> Height {
        self.chain.history_min().unwrap_or(Height(1))
    }

    async fn equivocation(&self, equivocation: Equivocation) {
        let [(first, first_signature), (second, second_signature)] = &equivocation.ballots;
        error!(
            validator = %equivocation.validator,
            height = first.height.0,
            round = first.round,
            kind = first.kind.as_str(),
            "a validator signed two ballots for one step; the proof is kept"
        );
        let mut record = Vec::new();
        for (ballot, signature) in [(first, first_signature), (second, second_signature)] {
            // The exact bytes that were signed, so that anyone can check the proof.
            record.extend(cbor::to_vec(&Blob::<4096>::new(ballot.signing_bytes(&signature.key)).unwrap_or_default()));
            record.extend(cbor::to_vec(signature));
        }
        let name = format!(
            "{:020}-{}-{}-{}.cbor-seq",
            first.height.0,
            first.round,
            first.kind.as_str(),
            &equivocation.validator.to_hex()[..16]
        );
        let written = durable::create_directory(&self.evidence)
            .and_then(|()| durable::replace_file(&self.evidence, &name, &record));
        if let Err(error) = written {
            error!(%error, "the proof of misbehaviour was not written");
        }
    }

    async fn message(&self, from: ValidatorId, bytes: Bytes) {
        self.receive(from, &bytes).await;
    }

    fn fetched(&self, blocks: Vec<Fetched>) {
        self.ahead.begin(blocks);
    }
}
