//! Who signs this node's votes, and what happens when it does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malachite::Signer;
use malachite_core_types::{SignedMessage, ValidatorProof, VoteExtensionScope, VoteType};
use malachite_signing::Error as EngineSigningError;
use stele_types::vote::{Ballot, VoteKind};
use stele_types::{Height, NetworkId, VoteSignature};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::context::{Proposal, Seal, Stele, Vote};
use crate::figures::{Counters, count};

/// First pause before a signer that was not available is asked again.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long one signature is waited for. The engine stands still meanwhile, so it stays below a round's timeouts; then
/// the node abstains from this step and takes part in the next one.
const SIGN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a ballot was not signed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignerError {
    /// The signer cannot be reached or is busy; asked again.
    #[error("the vote signer is not available: {reason}")]
    Unavailable {
        /// For the log; never a secret.
        reason: String,
    },
    /// The guard holds another ballot for this height, round and step. The node does not vote.
    #[error("the guard holds another ballot for this step")]
    DoubleSign,
    /// The signer refuses for good (a key outside its policy, say). The node does not vote.
    #[error("the vote signer refused: {reason}")]
    Refused {
        /// For the log; never a secret.
        reason: String,
    },
}

impl SignerError {
    /// Whether asking again can help.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Stable code for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::DoubleSign => "double_sign",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The last ballot that was signed, as the signer's guard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBallot {
    /// Height of the block.
    pub height: Height,
    /// Round within the height.
    pub round: u32,
    /// What it was.
    pub kind: VoteKind,
}

/// Signs this node's ballots, with the long-term key or an epoch key.
///
/// Implementations keep their own guard against signing two ballots for one step, outside the engine's journal: the
/// engine may ask twice for the same ballot after a crash and must then get a signature again.
#[async_trait]
pub trait VoteSigner: Send + Sync + 'static {
    /// Signs `ballot.signing_bytes(&key)` with the key it chooses and names.
    ///
    /// # Errors
    /// See [`SignerError`].
    async fn sign(&self, ballot: Ballot) -> Result<VoteSignature, SignerError>;

    /// The last ballot that was signed; none when there was none, or for a signer without a guard.
    ///
    /// # Errors
    /// See [`SignerError`]; the order then does not start.
    async fn last(&self) -> Result<Option<LastBallot>, SignerError> {
        Ok(None)
    }

    /// Signs nothing at `height` or below it any more, durably: the order no longer knows what this validator is bound to
    /// by its votes there. Asked only of a signer that has told its last ballot.
    ///
    /// # Errors
    /// See [`SignerError`].
    async fn abstain(&self, height: Height) -> Result<(), SignerError> {
        let _ = height;
        Ok(())
    }

    /// Signs the engine's statement that a peer id belongs to this validator (`"PoV" ‖ length ‖ public key ‖ length ‖
    /// peer id`) with the long-term key, r ‖ s. None when the signer does not sign such statements: peers know the
    /// peer id from the validator record anyway.
    ///
    /// # Errors
    /// See [`SignerError`]; the node then starts without the statement.
    async fn prove_peer(&self, statement: &[u8]) -> Result<Option<[u8; 64]>, SignerError> {
        let _ = statement;
        Ok(None)
    }
}

/// A vote that was signed before the engine started and never sent, and whether the engine wanted another one since.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    ballot: Mutex<Option<LastBallot>>,
    contradicted: AtomicBool,
}

impl Unsent {
    pub(crate) fn set(&self, ballot: Option<LastBallot>) {
        *self.ballot.lock().unwrap_or_else(PoisonError::into_inner) = ballot;
        self.contradicted.store(false, Ordering::Relaxed);
    }

    /// Whether the round of that vote has to be left, since this validator can give no other one in it.
    pub(crate) fn is_contradicted(&self) -> bool {
        self.contradicted.load(Ordering::Relaxed)
    }

    /// Says that the guard withholds `ballot`; whether that is because of the vote that was never sent.
    fn contradict(&self, ballot: &Ballot) -> bool {
        let refused = LastBallot { height: ballot.height, round: ballot.round, kind: ballot.kind };
        let because = *self.ballot.lock().unwrap_or_else(PoisonError::into_inner) == Some(refused);
        self.contradicted.fetch_or(because, Ordering::Relaxed);
        because
    }
}

/// Asks the signer until it answers, refuses, or the patience ends.
pub(crate) struct Signing {
    pub(crate) network: NetworkId,
    signer: Arc<dyn VoteSigner>,
    counters: Arc<Counters>,
    unsent: Arc<Unsent>,
    /// The proposal signed last in advance.
    proposal: Mutex<Option<(Ballot, VoteSignature)>>,
}

impl Signing {
    pub(crate) fn new(
        network: NetworkId,
        signer: Arc<dyn VoteSigner>,
        counters: Arc<Counters>,
        unsent: Arc<Unsent>,
    ) -> Self {
        Self { network, signer, counters, unsent, proposal: Mutex::new(None) }
    }

    /// Signs a proposal before the engine hears of the block. Were the signature withheld afterwards, the engine would
    /// wait in its own round for a proposal that never comes; without a block its timeout ends the wait. It also takes
    /// one slow signature out of the engine's way.
    pub(crate) async fn sign_in_advance(&self, proposal: &Proposal) -> bool {
        let ballot = proposal_ballot(self.network, proposal);
        match self.seal(ballot).await {
            Seal::Signed(signature) => {
                *self.advance() = Some((ballot, signature));
                true
            }
            Seal::Withheld => false,
        }
    }

    async fn seal(&self, ballot: Ballot) -> Seal {
        let started = Instant::now();
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let failure = match tokio::time::timeout(SIGN_WAIT_MAX, self.signer.sign(ballot)).await {
                Ok(Ok(signature)) => {
                    self.counters.signed(started.elapsed());
                    return Seal::Signed(signature);
                }
                Ok(Err(failure)) => failure,
                Err(_) => SignerError::Unavailable { reason: "no answer in time".into() },
            };
            let (height, round, kind) = (ballot.height.0, ballot.round, ballot.kind);
            if matches!(failure, SignerError::DoubleSign) && self.unsent.contradict(&ballot) {
                // No second validator with this key, but what a crash left.
                warn!(height, round, ?kind, "another vote was signed here and never sent: the round is left");
                return Seal::Withheld;
            }
            let gives_up = !failure.is_retryable() || started.elapsed() + pause > SIGN_WAIT_MAX;
            if gives_up {
                self.counters.withheld(failure.code());
                error!(height, round, ?kind, code = failure.code(), %failure, "vote withheld");
                return Seal::Withheld;
            }
            count(&self.counters.signer_retries);
            warn!(height, round, ?kind, %failure, "the vote signer is asked again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn advance(&self) -> MutexGuard<'_, Option<(Ballot, VoteSignature)>> {
        self.proposal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's signer: never fails, because a failing one stops the engine; it withholds instead.
pub(crate) struct EngineSigner(pub(crate) Arc<Signing>);

/// What a proposal says, in the network's terms.
pub(crate) fn proposal_ballot(network: NetworkId, proposal: &Proposal) -> Ballot {
    Ballot {
        network,
        kind: VoteKind::Proposal,
        height: Height(proposal.height.0),
        round: proposal.round.as_u32().unwrap_or(0),
        block: Some(proposal.value.0),
        valid_round: proposal.valid_round.as_u32(),
    }
}

/// What a vote says, in the network's terms.
pub(crate) fn vote_ballot(network: NetworkId, vote: &Vote) -> Ballot {
    Ballot {
        network,
        kind: vote_kind(vote.kind),
        height: Height(vote.height.0),
        round: vote.round.as_u32().unwrap_or(0),
        block: vote.block(),
        valid_round: None,
    }
}

/// The kind of a vote, in the network's terms.
pub(crate) const fn vote_kind(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

#[async_trait]
impl Signer<Stele> for EngineSigner {
    async fn sign_vote(&self, vote: Vote) -> Result<SignedMessage<Stele, Vote>, EngineSigningError> {
        let seal = self.0.seal(vote_ballot(self.0.network, &vote)).await;
        Ok(SignedMessage::new(vote, seal))
    }

    async fn sign_proposal(&self, proposal: Proposal) -> Result<SignedMessage<Stele, Proposal>, EngineSigningError> {
        let ballot = proposal_ballot(self.0.network, &proposal);
        let in_advance = self.0.advance().filter(|(signed, _)| *signed == ballot);
        let seal = match in_advance {
            Some((_, signature)) => Seal::Signed(signature),
            None => self.0.seal(ballot).await,
        };
        Ok(SignedMessage::new(proposal, seal))
    }

    async fn sign_vote_extension(
        &self,
        _scope: VoteExtensionScope<Stele>,
        extension: (),
    ) -> Result<SignedMessage<Stele, ()>, EngineSigningError> {
        // Vote extensions are switched off for every height.
        Ok(SignedMessage::new(extension, Seal::Withheld))
    }

    async fn sign_validator_proof(
        &self,
        public_key: Vec<u8>,
        peer_id: Vec<u8>,
    ) -> Result<ValidatorProof<Stele>, EngineSigningError> {
        // The proof is made once, at start, by `peer_proof`.
        Ok(ValidatorProof::new(public_key, peer_id, Seal::Withheld))
    }
}

/// The encoded proof that binds `peer_id` to the validator, when the signer makes such proofs.
pub(crate) async fn peer_proof(signer: &dyn VoteSigner, public_key: &[u8; 33], peer_id: &[u8]) -> Option<Bytes> {
    use malachite::app::types::codec::Codec as _;
    use stele_types::VoteKey;

    let statement = ValidatorProof::<Stele>::signing_bytes(public_key, peer_id);
    let signature = match signer.prove_peer(&statement).await {
        Ok(signature) => signature?,
        Err(failure) => {
            warn!(%failure, "starting without a proof of the peer id");
            return None;
        }
    };
    let seal = Seal::Signed(VoteSignature { key: VoteKey::Direct, signature });
    let proof = ValidatorProof::<Stele>::new(public_key.to_vec(), peer_id.to_vec(), seal);
    crate::codec::EngineCodec.encode(&proof).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use stele_types::VoteKey;

    use super::*;

    /// Answers the n-th request as the list says, the last entry for ever.
    struct Scripted {
        answers: Vec<Option<SignerError>>,
        requests: AtomicU32,
    }

    #[async_trait]
    impl VoteSigner for Scripted {
        async fn sign(&self, _ballot: Ballot) -> Result<VoteSignature, SignerError> {
            let request = self.requests.fetch_add(1, Ordering::Relaxed) as usize;
            match &self.answers[request.min(self.answers.len() - 1)] {
                Some(failure) => Err(failure.clone()),
                None => Ok(VoteSignature { key: VoteKey::Direct, signature: [1; 64] }),
            }
        }
    }

    /// Never answers.
    struct Silent;

    #[async_trait]
    impl VoteSigner for Silent {
        async fn sign(&self, _ballot: Ballot) -> Result<VoteSignature, SignerError> {
            std::future::pending().await
        }
    }

    fn away() -> Option<SignerError> {
        Some(SignerError::Unavailable { reason: "busy".into() })
    }

    fn ballot() -> Ballot {
        let (network, kind) = (NetworkId([1; 32]), VoteKind::Prevote);
        Ballot { network, kind, height: Height(3), round: 0, block: None, valid_round: None }
    }

    async fn seal(signer: impl VoteSigner) -> (Seal, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let signing = Signing::new(NetworkId([1; 32]), Arc::new(signer), counters.clone(), Arc::default());
        (signing.seal(ballot()).await, counters)
    }

    #[tokio::test]
    async fn a_vote_that_a_crash_left_is_no_double_vote_and_its_round_is_left() {
        let refuses = || Scripted { answers: vec![Some(SignerError::DoubleSign)], requests: AtomicU32::new(0) };
        let left = LastBallot { height: ballot().height, round: ballot().round, kind: ballot().kind };
        let elsewhere = LastBallot { round: left.round + 1, ..left };
        for (unsent_ballot, is_left) in [(left, true), (elsewhere, false)] {
            let (counters, unsent) = (Arc::new(Counters::default()), Arc::new(Unsent::default()));
            unsent.set(Some(unsent_ballot));
            let signing = Signing::new(NetworkId([1; 32]), Arc::new(refuses()), counters.clone(), Arc::clone(&unsent));
            assert_eq!(signing.seal(ballot()).await, Seal::Withheld);
            assert_eq!(unsent.is_contradicted(), is_left);
            assert_eq!(counters.snapshot().votes_withheld_double_sign, u64::from(!is_left));
            unsent.set(None);
            assert!(!unsent.is_contradicted());
        }
    }

    #[tokio::test]
    async fn a_busy_signer_is_asked_again_and_a_refusal_is_final() {
        let (sealed, counters) =
            seal(Scripted { answers: vec![away(), away(), None], requests: AtomicU32::new(0) }).await;
        assert!(matches!(sealed, Seal::Signed(_)));
        assert_eq!(counters.snapshot().signer_retries, 2);

        let (sealed, counters) =
            seal(Scripted { answers: vec![Some(SignerError::DoubleSign), None], requests: AtomicU32::new(0) }).await;
        assert_eq!(sealed, Seal::Withheld);
        assert_eq!(counters.snapshot().votes_withheld_double_sign, 1);
    }

    #[tokio::test]
    async fn the_engine_does_not_wait_for_ever() {
        let started = Instant::now();
        let (sealed, counters) = seal(Silent).await;
        assert_eq!(sealed, Seal::Withheld);
        let (also_sealed, _) = seal(Scripted { answers: vec![away()], requests: AtomicU32::new(0) }).await;
        assert_eq!(also_sealed, Seal::Withheld);
        assert_eq!(counters.snapshot().votes_withheld_other, 1);
        assert!(started.elapsed() < 3 * SIGN_WAIT_MAX, "{:?}", started.elapsed());
    }
}
