//! From one height to the next: commit, idle, start.
//!
//! One task, strictly in order. It is where idling happens: the engine asks what comes after a decided height and keeps
//! serving peers while it waits for the answer, so the answer is held back until there is something to decide. No timer
//! of a round runs meanwhile. When the node starts a height by itself it wakes the others; any message of a peer for
//! that height wakes it in turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use malachite::app::consensus::MisbehaviorEvidence;
use malachite::app::engine::consensus::{ConsensusMsg, ConsensusRef};
use malachite::app::engine::host::{HeightParams, Next};
use malachite_core_types::{
    CommitCertificate as EngineCertificate, LinearTimeouts, Round, ValueOrigin, VoteExtensionPolicy,
};
use ractor::{ActorRef, RpcReplyPort};
use stele_types::cbor::List;
use stele_types::parameters::Timeouts;
use stele_types::vote::Ballot;
use stele_types::{CommitCertificate, CommitSignature, NetworkId, ValidatorId};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use crate::application::{Candidate, Decided, Equivocation, HeightStart, Origin, Verdict};
use crate::context::{EngineHeight, EngineValidators, Seal, Stele, Value};
use crate::figures::count;
use crate::host::{proposed_value, respond};
use crate::inbox::InboxMessage;
use crate::order::StopReason;
use crate::shared::{Current, Shared};
use crate::signer::{proposal_ballot, vote_ballot};

/// How long a node that started a height waits for a sign of the others before it wakes them. While blocks follow each
/// other the proposer's parts arrive sooner, and nothing is sent.
const WAKE_DELAY: Duration = Duration::from_millis(10);

/// What the engine asks about heights.
pub(crate) enum HeightEvent {
    Ready {
        reply_to: RpcReplyPort<(EngineHeight, HeightParams<Stele>)>,
    },
    Decided {
        certificate: EngineCertificate<Stele>,
        reply_to: RpcReplyPort<()>,
    },
    Finalized {
        certificate: EngineCertificate<Stele>,
        evidence: MisbehaviorEvidence<Stele>,
        reply_to: RpcReplyPort<Next<Stele>>,
    },
}

/// The task's view of the running engine.
pub(crate) struct Heights {
    pub(crate) shared: Arc<Shared>,
    pub(crate) consensus: ConsensusRef<Stele>,
    pub(crate) inbox: ActorRef<InboxMessage>,
    /// Newest height committed through this engine.
    pub(crate) committed: u64,
}

impl Heights {
    /// Runs until `stop` is set. A commit that has begun is finished first.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<HeightEvent>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let event = tokio::select! {
                () = stopped(&mut stop) => return,
                event = events.recv() => event,
            };
            match event {
                None => return,
                Some(HeightEvent::Decided { certificate, reply_to }) => {
                    if self.commit(certificate).await {
                        respond(reply_to, ());
                    }
                }
                Some(HeightEvent::Ready { reply_to }) => {
                    if let Some((height, parameters)) = self.start_next(true, &mut stop).await {
                        respond(reply_to, (height, parameters));
                    }
                }
                Some(HeightEvent::Finalized { certificate, evidence, reply_to }) => {
                    self.report(evidence).await;
                    if certificate.height.0 == self.committed {
                        if let Some((height, parameters)) = self.start_next(false, &mut stop).await {
                            respond(reply_to, Next::Start(height, parameters));
                        }
                    } else if self.shared.stopping.borrow().is_none()
                        && let Some(start) = self.shared.insist("next", || self.shared.application.next()).await
                    {
                        count(&self.shared.counters.heights_restarted);
                        let parameters = parameters(&start, self.validators(&start));
                        respond(reply_to, Next::Restart(certificate.height, parameters));
                    }
                }
            }
        }
    }

    /// Commits a decided block; false when it is not at hand or the application halts.
    async fn commit(&mut self, certificate: EngineCertificate<Stele>) -> bool {
        let shared = self.shared.clone();
        let height = certificate.height.0;
        let Some(current) = shared.current() else { return false };
        let Some(bytes) = shared.undecided.bytes(&certificate.value_id.0) else {
            // Possible after a power failure during a catch-up: the journal outlived the block. The height is started
            // again and the block comes by sync.
            error!(height, block = %certificate.value_id, "the decided block is missing, the height starts again");
            return false;
        };
        let Some(certificate) = our_certificate(&certificate, &current.validators) else {
            error!(height, "the engine's certificate does not fit the validators, the height starts again");
            return false;
        };
        let decided = Decided { certificate, validators: current.validators.set().clone(), bytes };
        let size = decided.bytes.len();
        shared.committing.store(true, Ordering::Relaxed);
        let committed = shared.insist("commit", || shared.application.commit(decided.clone())).await;
        shared.committing.store(false, Ordering::Relaxed);
        if committed.is_none() {
            return false;
        }
        self.committed = height;
        shared.counters.height_decided(size, shared.synced_height.load(Ordering::Relaxed) == height);
        shared.undecided.forget_below(height + 1);
        shared.note_progress();
        true
    }

    /// Learns the next height from the application, idles, and tells with what to start it.
    async fn start_next(
        &mut self,
        engine_is_new: bool,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<(EngineHeight, HeightParams<Stele>)> {
        let shared = self.shared.clone();
        let start = shared.insist("next", || shared.application.next()).await?;
        let height = start.height.0;
        if self.committed > 0 && height != self.committed + 1 {
            let reason = format!("after height {} the application wants {height}", self.committed);
            shared.stop_for(StopReason::Application(reason));
            return None;
        }
        let validators = self.validators(&start);
        shared.undecided.forget_below(height);
        if engine_is_new {
            self.recover(height).await;
        }
        if self.inbox.cast(InboxMessage::HeightStarts(height)).is_err() {
            debug!("the engine is being stopped");
        }

        let started_by_us = self.idle(&start, stop).await?;
        shared.note_progress();
        shared.counters.height_starts(height);
        let proposes = validators.proposer_id(height, 0) == shared.validator;
        if started_by_us && !proposes && validators.set().len() > 1 {
            let shared = shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(WAKE_DELAY).await;
                if !shared.is_started_elsewhere(height) {
                    shared.publish_wake(height);
                }
            });
        }
        Some((start.height.into(), parameters(&start, validators)))
    }

    /// Waits for work. True when this node's application had some, false when a peer was first; none when stopped.
    async fn idle(&self, start: &HeightStart, stop: &mut watch::Receiver<bool>) -> Option<bool> {
        let shared = &self.shared;
        let height = start.height.0;
        if shared.is_started_elsewhere(height) {
            return Some(false);
        }
        shared.counters.height.store(height, Ordering::Relaxed);
        shared.counters.idle.store(true, Ordering::Relaxed);
        let by_us = tokio::select! {
            biased;
            () = stopped(stop) => None,
            () = shared.started_elsewhere(height) => Some(false),
            () = shared.application.work(start.height) => Some(true),
        };
        shared.counters.idle.store(false, Ordering::Relaxed);
        by_us
    }

    /// Makes `start` the current height and returns the engine's form of its validators.
    fn validators(&self, start: &HeightStart) -> EngineValidators {
        let validators = match self.shared.current() {
            Some(current) if *current.validators.set() == start.validators => {
                current.validators.rescheduled(start.proposers.clone())
            }
            _ => EngineValidators::new(start.validators.clone(), start.proposers.clone()),
        };
        self.shared.epoch_keys.replace(self.shared.network(), &validators, &start.epoch_certificates);
        self.shared.set_current(Current { height: start.height.0, validators: validators.clone() });
        validators
    }

    /// Gives a new engine the blocks of this height that are still known: those in memory after a restart of the
    /// engine, those on disk after a restart of the process. The engine replays its journal first.
    async fn recover(&self, height: u64) {
        let shared = &self.shared;
        if shared.undecided.of_height(height).is_empty() {
            let recovered = match shared.undecided.recover(height, shared.config.block_bytes_max) {
                Ok(recovered) => recovered,
                Err(failure) => {
                    shared.storage_failed(&failure);
                    return;
                }
            };
            for block in recovered {
                let candidate = Candidate {
                    height: stele_types::Height(height),
                    round: block.round,
                    proposer: block.proposer,
                    sender: None,
                    origin: Origin::Repeated,
                    bytes: block.bytes.clone(),
                };
                match shared.application.validate(candidate).await {
                    Verdict::Valid(id) => shared.undecided.insert(id, block, true),
                    Verdict::Invalid(id, _) => shared.undecided.insert(id, block, false),
                    Verdict::Malformed | Verdict::Undecided => warn!(height, "an undecided block on disk is of no use"),
                }
            }
        }
        for (id, block, valid) in shared.undecided.of_height(height) {
            let valid_round = block.valid_round.map_or(Round::Nil, Round::new);
            let round = Round::new(block.round);
            let value = proposed_value(EngineHeight(height), round, valid_round, block.proposer, Value(id), valid);
            if self.consensus.cast(ConsensusMsg::ReceivedProposedValue(value, ValueOrigin::Consensus)).is_err() {
                return;
            }
        }
    }

    /// Hands proofs of misbehaviour to the application.
    async fn report(&self, evidence: MisbehaviorEvidence<Stele>) {
        for equivocation in equivocations(self.shared.network(), evidence) {
            let (first, _) = equivocation.ballots[0];
            count(&self.shared.counters.equivocations);
            warn!(
                validator = %equivocation.validator,
                height = first.height.0,
                round = first.round,
                kind = ?first.kind,
                "equivocation"
            );
            self.shared.application.equivocation(equivocation).await;
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the engine is gone, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn equivocations(network: NetworkId, evidence: MisbehaviorEvidence<Stele>) -> Vec<Equivocation> {
    let mut proofs = Vec::new();
    let mut add = |validator: ValidatorId, ballots: [Ballot; 2], seals: [Seal; 2]| {
        if let [Seal::Signed(first), Seal::Signed(second)] = seals {
            proofs.push(Equivocation { validator, ballots: [(ballots[0], first), (ballots[1], second)] });
        }
    };
    for (address, pairs) in evidence.votes {
        for (first, second) in pairs {
            let ballots = [vote_ballot(network, &first.message), vote_ballot(network, &second.message)];
            add(address.0, ballots, [first.signature, second.signature]);
        }
    }
    for (address, pairs) in evidence.proposals.iter() {
        for (first, second) in pairs {
            let ballots = [proposal_ballot(network, &first.message), proposal_ballot(network, &second.message)];
            add(address.0, ballots, [first.signature, second.signature]);
        }
    }
    proofs
}

fn parameters(start: &HeightStart, validators: EngineValidators) -> HeightParams<Stele> {
    HeightParams::new(validators, timeouts(&start.timeouts), None)
        .with_vote_extension_policy(VoteExtensionPolicy::Disabled)
}

fn timeouts(timeouts: &Timeouts) -> LinearTimeouts {
    let ms = |milliseconds: u32| Duration::from_millis(milliseconds.into());
    LinearTimeouts {
        propose: ms(timeouts.propose_ms),
        propose_delta: ms(timeouts.propose_step_ms),
        prevote: ms(timeouts.prevote_ms),
        prevote_delta: ms(timeouts.prevote_step_ms),
        precommit: ms(timeouts.precommit_ms),
        precommit_delta: ms(timeouts.precommit_step_ms),
        // A round without a decision lasts at most this long; then votes may have been lost and are sent again.
        rebroadcast: ms(timeouts.propose_ms) + ms(timeouts.prevote_ms) + ms(timeouts.precommit_ms),
        ..LinearTimeouts::default()
    }
}

/// The engine's certificate with validators by index, in ascending order. None when it names a stranger.
fn our_certificate(certificate: &EngineCertificate<Stele>, validators: &EngineValidators) -> Option<CommitCertificate> {
    let mut signatures = certificate
        .commit_signatures
        .iter()
        .map(|signature| {
            let Seal::Signed(vote_signature) = signature.signature else { return None };
            Some(CommitSignature { validator: validators.index_of(&signature.address.0)?, signature: vote_signature })
        })
        .collect::<Option<Vec<_>>>()?;
    signatures.sort_by_key(|signature| signature.validator);
    signatures.dedup_by_key(|signature| signature.validator);
    Some(CommitCertificate {
        height: certificate.height.into(),
        round: certificate.round.as_u32()?,
        block: certificate.value_id.0,
        signatures: List::new(signatures).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use malachite_core_types::{NilOrVal, SignedMessage, VoteType};
    use stele_types::{BlockId, VoteKey, VoteSignature};

    use super::*;
    use crate::context::{Address, Vote};

    #[test]
    fn double_votes_become_proofs() {
        let vote = |block: u8| {
            let vote = Vote {
                kind: VoteType::Precommit,
                height: EngineHeight(9),
                round: Round::new(2),
                value: NilOrVal::Val(Value(BlockId([block; 32]))),
                address: Address(ValidatorId([7; 32])),
            };
            let signature = VoteSignature { key: VoteKey::Direct, signature: [block; 64] };
            SignedMessage::new(vote, Seal::Signed(signature))
        };
        let mut evidence = MisbehaviorEvidence::<Stele> { proposals: Default::default(), votes: Default::default() };
        evidence.votes.add(vote(1), vote(2));
        let proofs = equivocations(NetworkId([3; 32]), evidence);
        assert_eq!(proofs.len(), 1);
        assert_eq!(proofs[0].validator, ValidatorId([7; 32]));
        for ((ballot, signature), block) in proofs[0].ballots.iter().zip(1u8..) {
            assert_eq!((ballot.height.0, ballot.round, ballot.block), (9, 2, Some(BlockId([block; 32]))));
            assert_eq!(signature.signature, [block; 64]);
        }
    }
}
