//! Votes of this node: the order's ballots on the signer's keys.

use std::sync::Arc;

use async_trait::async_trait;
use stele_hsm::{Signer, Step, VoteGuard, VoteRequest};
use stele_order::{LastBallot, SignerError, VoteSigner};
use stele_types::vote::Ballot;
use stele_types::{EpochCertificate, Height, ValidatorId, VoteKey, VoteKind, VoteSignature};

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
    /// What every key of the validator has signed; none for a follower.
    guard: Option<Arc<VoteGuard>>,
}

impl BallotSigner {
    /// A signer for `validator`. `epochs` gives the epoch keys that the ledger certifies now; none in `direct` mode.
    pub fn new(
        validator: ValidatorId,
        long_term: Arc<dyn Signer>,
        epochs: Arc<dyn Fn() -> Vec<Arc<EpochKey>> + Send + Sync>,
    ) -> Self {
        Self { validator, long_term, epochs, guard: None }
    }

    /// The same signer, which tells what `guard` has recorded.
    pub fn guarded(self, guard: Arc<VoteGuard>) -> Self {
        Self { guard: Some(guard), ..self }
    }
}

#[async_trait]
impl VoteSigner for BallotSigner {
    async fn sign(&self, ballot: Ballot) -> Result<VoteSignature, SignerError> {
        // Certificates of one validator may overlap; a key that was certified later takes the place of the one before.
        let covering = (self.epochs)().into_iter().filter(|epoch| epoch.certificate.covers(ballot.height));
        let epoch = covering.max_by_key(|epoch| epoch.certificate.from_height);
        let (signer, key) = match &epoch {
            Some(epoch) => (&epoch.signer, VoteKey::Delegated(epoch.certificate.hash())),
            None => (&self.long_term, VoteKey::Direct),
        };
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
        match signer.sign_vote(&request).await {
            Ok(signature) => Ok(VoteSignature { key, signature }),
            Err(stele_hsm::SignerError::DoubleSign { .. }) => Err(SignerError::DoubleSign),
            Err(error) if error.is_retryable() => Err(SignerError::Unavailable { reason: error.to_string() }),
            Err(error) => Err(SignerError::Refused { reason: error.to_string() }),
        }
    }

    async fn last(&self) -> Option<LastBallot> {
        // A floor at which nothing was signed is no ballot.
        let last = self.guard.as_ref()?.last().filter(|last| last.round < u32::MAX)?;
        let kind = match last.step {
            Step::Propose => VoteKind::Proposal,
            Step::Prevote => VoteKind::Prevote,
            Step::Precommit => VoteKind::Precommit,
        };
        Some(LastBallot { height: Height(last.height), round: last.round, kind })
    }

    async fn abstain(&self, height: Height) -> Result<(), SignerError> {
        let Some(guard) = &self.guard else { return Ok(()) };
        guard.abstain(height.0).map_err(|error| SignerError::Refused { reason: error.to_string() })
    }
}
