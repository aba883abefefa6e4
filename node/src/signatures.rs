//! Jobs for the accelerator: signatures of statements and of certificates.
//!
//! The priority says who waits, and where the work may be done: statements that parties send or a vote depends on are
//! live, those of blocks that others decided are bulk, and signatures of a quorum are never left to a GPU.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use stele_accel::{Engine, Priority, Span, SubmitError, TicketError, VerifyItem, VerifyJob};
use stele_types::party::EnrolledKey;
use stele_types::{Statement, Suite};

use crate::metrics::Metrics;
use crate::metrics::label::{AccelBackend, AccelOperation, Outcome};

/// Why a job gave no verdicts.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The accelerator's queue is full or the job is too large for it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The accelerator gave the job up.
    #[error(transparent)]
    Ticket(#[from] TicketError),
}

/// One signature to verify.
pub struct Signed<'s> {
    suite: Suite,
    public_key: &'s [u8],
    signature: &'s [u8],
    message: Vec<u8>,
}

impl<'s> Signed<'s> {
    /// The signature of a statement under a key.
    pub fn of(statement: &'s Statement, key: &'s EnrolledKey) -> Self {
        Self {
            suite: key.suite,
            public_key: &key.public_key,
            signature: statement.signature(),
            message: statement.signing_bytes(),
        }
    }
    /// A P-256 signature over a message.
    pub fn p256(public_key: &'s [u8; 33], signature: &'s [u8; 64], message: Vec<u8>) -> Self {
        Self { suite: Suite::Es256, public_key, signature, message }
    }
}

/// Verifies on the accelerator.
#[derive(Clone)]
pub struct Signatures {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
}

impl Signatures {
    /// Work goes to `engine`, figures to `metrics`.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>) -> Self {
        Self { engine, metrics }
    }

    /// One verdict per signature, in order.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub async fn verify<'s>(
        &self,
        priority: Priority,
        signed: impl Iterator<Item = Signed<'s>>,
    ) -> Result<Vec<bool>, SignatureError> {
        let started = Instant::now();
        let (job, unknown) = job(signed);
        let items = job.items.len();
        let verdicts = self.run(priority, job).await;
        if items > 0 {
            let outcome = if verdicts.is_ok() { Outcome::Success } else { Outcome::Failure };
            self.metrics.accel.batch(AccelOperation::Verify, AccelBackend::Cpu, outcome, items, started.elapsed());
        }
        let mut verdicts = verdicts?;
        // Items of a suite that the accelerator does not know have no rule, hence no valid signature.
        for position in unknown {
            verdicts.insert(position, false);
        }
        Ok(verdicts)
    }

    async fn run(&self, priority: Priority, job: VerifyJob) -> Result<Vec<bool>, SignatureError> {
        let ticket = self.engine.submit_with(priority, job).map_err(|refused| refused.reason)?;
        Ok(ticket.await?.into_iter().map(stele_accel::Verdict::is_valid).collect())
    }
}

fn job<'s>(signed: impl Iterator<Item = Signed<'s>>) -> (VerifyJob, Vec<usize>) {
    let mut arena = BytesMut::new();
    let mut items = Vec::new();
    let mut unknown = Vec::new();
    for (position, signed) in signed.enumerate() {
        let suite = match signed.suite {
            Suite::Es256 => stele_accel::Suite::P256,
            Suite::EdDsa => stele_accel::Suite::Ed25519,
            Suite::Sm2Sm3 => stele_accel::Suite::Sm2,
            Suite::MlDsa44 | Suite::MlDsa65 | Suite::MlDsa87 => {
                unknown.push(position);
                continue;
            }
        };
        let mut put = |part: &[u8]| {
            // Arenas stay far below 4 GiB: jobs are bounded by the block and batch limits.
            let span = Span {
                offset: u32::try_from(arena.len()).unwrap_or(u32::MAX),
                length: u32::try_from(part.len()).unwrap_or(u32::MAX),
            };
            arena.extend_from_slice(part);
            span
        };
        items.push(VerifyItem {
            suite,
            public_key: put(signed.public_key),
            signature: put(signed.signature),
            message: put(&signed.message),
        });
    }
    (VerifyJob { bytes: Bytes::from(arena), items }, unknown)
}
