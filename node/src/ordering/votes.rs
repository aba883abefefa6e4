//! Votes of this node: the order's ballots on the signer's keys.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use stele_hsm::{Signer, Step, VoteRequest};
use stele_order::{LastBallot, SignerError, VoteSigner};
use stele_types::vote::Ballot;
use stele_types::{EpochCertificate, Height, ValidatorId, VoteKey, VoteKind, VoteSignature};
use tracing::warn;

use crate::metrics::Metrics;
use crate::metrics::label::SealKey;

/// An epoch key with the certificate that lends it the vote.
pub struct EpochKey {
    /// The certificate.
    pub certificate: EpochCertificate,
    /// The key.
    pub signer: Arc<dyn Signer>,
}

/// Signs ballots with the newest epoch key that covers the height, else with the long-term key, which is always valid.
pub struct BallotSigner {
    validator: ValidatorId,
    long_term: Arc<dyn Signer>,
    epochs: Arc<dyn Fn() -> Vec<Arc<EpochKey>> + Send + Sync>,
    metrics: Arc<Metrics>,
    /// Whether it was told that a certified key is gone.
    missed: AtomicBool,
}

impl BallotSigner {
    /// A signer for `validator`. `epochs` gives the epoch keys that the ledger certifies now; none in `direct` mode.
    pub fn new(
        validator: ValidatorId,
        long_term: Arc<dyn Signer>,
        epochs: Arc<dyn Fn() -> Vec<Arc<EpochKey>> + Send + Sync>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { validator, long_term, epochs, metrics, missed: AtomicBool::new(false) }
    }

    async fn sign_with(
        &self,
        signer: &dyn Signer,
        name: SealKey,
        key: VoteKey,
        ballot: &Ballot,
    ) -> Result<VoteSignature, stele_hsm::SignerError> {
        let bytes = ballot.signing_bytes(&key);
        let request = VoteRequest {
            validator: self.validator.0,
            height: ballot.height.0,
            round: ballot.round,
            step: match ballot.kind {
                VoteKind::Proposal => Step::Propose,
                VoteKind::Prevote => Step::Prevote,
                VoteKind::Precommit => Step::Precommit,
            },
            value_id: ballot.block.map(|block| block.0),
            bytes: &bytes,
        };
        let started = Instant::now();
        let signed = signer.sign_vote(&request).await;
        // What a guard withholds is counted as that, by the order.
        if !signed.as_ref().is_err_and(stele_hsm::SignerError::is_guard_refusal) {
            self.metrics.seal.signature(signer.kind().into(), name, signed.is_ok(), started.elapsed());
        }
        Ok(VoteSignature { key, signature: signed? })
    }
}

/// What the order is told of a failure.
fn refused(error: &stele_hsm::SignerError) -> SignerError {
    let reason = error.to_string();
    if error.is_double_sign() {
        SignerError::DoubleSign
    } else if error.is_retryable() {
        SignerError::Unavailable { reason }
    } else {
        SignerError::Refused { reason }
    }
}

#[async_trait]
impl VoteSigner for BallotSigner {
    async fn sign(&self, ballot: Ballot) -> Result<VoteSignature, SignerError> {
        // Certificates of one validator may overlap; a key that was certified later takes the place of the one before.
        let mut covering = (self.epochs)();
        covering.retain(|epoch| epoch.certificate.covers(ballot.height));
        covering.sort_by_key(|epoch| Reverse(epoch.certificate.from_height));
        for epoch in &covering {
            let key = VoteKey::Delegated(epoch.certificate.hash());
            match self.sign_with(&*epoch.signer, SealKey::Epoch, key, &ballot).await {
                // Retired, or lost with the signer's memory. Another key of the validator may say the same.
                Err(error) if error.code() == "signer_key" => {
                    if !self.missed.swap(true, Ordering::Relaxed) {
                        warn!(%error, "a certified epoch key is not held any more: another key votes");
                    }
                }
                signed => return signed.map_err(|error| refused(&error)),
            }
        }
        let signed = self.sign_with(&*self.long_term, SealKey::LongTerm, VoteKey::Direct, &ballot).await;
        signed.map_err(|error| refused(&error))
    }

    async fn last(&self) -> Result<Option<LastBallot>, SignerError> {
        let last = match self.long_term.last_vote().await {
            Ok(last) => last,
            // A follower's key has no guard, and signs nothing.
            Err(stele_hsm::SignerError::GuardMissing { .. }) => return Ok(None),
            Err(error) => return Err(refused(&error)),
        };
        // A floor at which nothing was signed is no ballot.
        Ok(last.filter(|last| last.round < u32::MAX).map(|last| {
            let kind = match last.step {
                Step::Propose => VoteKind::Proposal,
                Step::Prevote => VoteKind::Prevote,
                Step::Precommit => VoteKind::Precommit,
            };
            LastBallot { height: Height(last.height), round: last.round, kind }
        }))
    }

    async fn abstain(&self, height: Height) -> Result<(), SignerError> {
        self.long_term.abstain(height.0).await.map_err(|error| refused(&error))
    }
}
