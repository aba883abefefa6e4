//! Answers the engine's questions.
//!
//! The engine's own connector waits for each answer before it takes the next question; here each question that may take
//! time gets a task of its own, so a slow proposal never delays a commit or an answer to a syncing peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use malachite::app::engine::host::{HostMsg, LocallyProposedValue, ProposedValue, SyncedValueOutcome};
use malachite::app::types::sync::RawDecidedValue;
use malachite_core_types::{ExtendedCommitCertificate, ExtendedCommitSignature, Round, Validity};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use stele_types::{Height, ValidatorId};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::application::{Candidate, Decided, Origin, Verdict};
use crate::config::SYNC_RESPONSE_BYTES;
use crate::context::{Address, BlockStart, EngineHeight, Proposal, Seal, Stele, Value};
use crate::figures::count;
use crate::heights::HeightEvent;
use crate::shared::Shared;
use crate::signer::Signing;
use crate::undecided::Undecided;

pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) signing: Arc<Signing>,
    pub(crate) heights: mpsc::UnboundedSender<HeightEvent>,
    /// Set by tests: the host falls silent, as a stuck engine would.
    pub(crate) frozen: Arc<AtomicBool>,
}

#[ractor::async_trait]
impl Actor for Host {
    type Msg = HostMsg<Stele>;
    /// Questions left unanswered while frozen: dropping them would tell the engine.
    type State = Vec<HostMsg<Stele>>;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, _: ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        unanswered: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if self.frozen.load(Ordering::Relaxed) {
            unanswered.push(message);
        } else {
            self.answer(message);
        }
        Ok(())
    }
}

impl Host {
    fn answer(&self, message: HostMsg<Stele>) {
        let shared = self.shared.clone();
        match message {
            HostMsg::ConsensusReady { reply_to } => self.height_event(HeightEvent::Ready { reply_to }),
            HostMsg::Decided { certificate, reply_to, .. } => {
                self.height_event(HeightEvent::Decided { certificate, reply_to });
            }
            HostMsg::Finalized { certificate, evidence, reply_to, .. } => {
                self.height_event(HeightEvent::Finalized { certificate, evidence, reply_to });
            }
            HostMsg::StartedRound { height, round, proposer, reply_to, .. } => {
                self.round_started(height, round, &proposer);
                // Blocks that outlived a restart are handed over when the height starts, see `heights`.
                respond(reply_to, Vec::new());
            }
            HostMsg::GetValue { height, round, reply_to, .. } => {
                tokio::spawn(propose(shared, self.signing.clone(), height, round, reply_to));
            }
            HostMsg::RestreamValue { height, round, valid_round, address, value_id } => {
                if let Some(bytes) = shared.undecided.bytes(&value_id.0) {
                    let start = BlockStart { height, round, valid_round, proposer: address.0, bytes: size_of(&bytes) };
                    tokio::spawn(async move { shared.publish_block(start, &bytes) });
                } else {
                    warn!(height = height.0, block = %value_id, "a block to be published again is not known");
                }
            }
            HostMsg::GetHistoryMinHeight { reply_to } => {
                tokio::spawn(async move {
                    respond(reply_to, shared.application.history_start().await.into());
                });
            }
            HostMsg::GetDecidedValues { range, reply_to } => {
                tokio::spawn(serve(shared, (*range.start()).into(), (*range.end()).into(), reply_to));
            }
            HostMsg::ProcessSyncedValue { height, round, proposer, value_bytes, reply_to } => {
                tokio::spawn(async move {
                    let outcome = synced(&shared, height, round, proposer.0, value_bytes).await;
                    respond(reply_to, outcome);
                });
            }
            // Parts come to the inbox straight from the network; the engine's detour is not needed.
            HostMsg::ReceivedProposalPart { .. } => {}
            // Vote extensions are switched off for every height.
            HostMsg::ExtendVote { reply_to, .. } => respond(reply_to, None),
            HostMsg::VerifyVoteExtensions { extensions, reply_to, .. } => {
                respond(reply_to, extensions.into_iter().map(|(address, ())| (address, Ok(()))).collect());
            }
        }
    }

    fn height_event(&self, event: HeightEvent) {
        if self.heights.send(event).is_err() {
            debug!("the engine is being stopped");
        }
    }

    fn round_started(&self, height: EngineHeight, round: Round, proposer: &Address) {
        let counters = &self.shared.counters;
        let number = round.as_u32().unwrap_or(0);
        counters.round.store(number.into(), Ordering::Relaxed);
        if number > 0 {
            count(&counters.rounds_extra);
            info!(height = height.0, round = number, %proposer, "another round");
        }
    }
}

/// Answers, unless the engine no longer listens.
pub(crate) fn respond<T: Send + 'static>(reply_to: RpcReplyPort<T>, answer: T) {
    if reply_to.send(answer).is_err() {
        debug!("the engine no longer waits for this answer");
    }
}

/// A block's size on the wire; blocks are far smaller than 4 GiB, see `propose`.
fn size_of(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

async fn propose(
    shared: Arc<Shared>,
    signing: Arc<Signing>,
    height: EngineHeight,
    round: Round,
    reply_to: RpcReplyPort<LocallyProposedValue<Stele>>,
) {
    let Some(number) = round.as_u32() else { return };
    // After a restart the same block again: the guard would refuse to sign another one.
    let (id, bytes) = match shared.undecided.proposed_by(height.0, number, &shared.validator) {
        Some(known) => known,
        None => match shared.application.propose(height.into(), number).await {
            Ok(proposed) => (proposed.id, proposed.bytes),
            Err(failure) => {
                warn!(height = height.0, round = number, %failure, "no proposal of this node in this round");
                return;
            }
        },
    };
    if bytes.is_empty() || bytes.len() > shared.config.block_bytes_max {
        let (size, max) = (bytes.len(), shared.config.block_bytes_max);
        error!(height = height.0, size, max, "the application's block does not fit and is not proposed");
        return;
    }
    let proposer = shared.validator;
    shared
        .publish_block(BlockStart { height, round, valid_round: Round::Nil, proposer, bytes: size_of(&bytes) }, &bytes);
    let block = Undecided { height: height.0, round: number, valid_round: None, proposer, bytes };
    shared.undecided.insert(id, block.clone(), true);
    let proposal = Proposal { height, round, value: Value(id), valid_round: Round::Nil, address: Address(proposer) };
    // The block is on disk before anything about it is signed: after a crash this very block is proposed again.
    if let Err(failure) = shared.undecided.make_durable(block).await {
        shared.storage_failed(&failure);
        return;
    }
    if signing.sign_in_advance(&proposal).await {
        count(&shared.counters.proposals_made);
        respond(reply_to, LocallyProposedValue::new(height, round, Value(id)));
    }
}

/// Serves a peer that catches up.
async fn serve(shared: Arc<Shared>, from: Height, until: Height, reply_to: RpcReplyPort<Vec<RawDecidedValue<Stele>>>) {
    let blocks = match shared.application.blocks(from, until, SYNC_RESPONSE_BYTES).await {
        Ok(blocks) => blocks,
        Err(failure) => {
            warn!(from = from.0, until = until.0, %failure, "no blocks for a peer that catches up");
            Vec::new()
        }
    };
    let values: Vec<_> = blocks.into_iter().map_while(decided_value).collect();
    shared.counters.blocks_served.fetch_add(values.len() as u64, Ordering::Relaxed);
    respond(reply_to, values);
}

/// None when the certificate does not fit its validators: then nothing from there on is served.
fn decided_value(decided: Decided) -> Option<RawDecidedValue<Stele>> {
    let Decided { certificate, validators, bytes } = decided;
    let commit_signatures = certificate
        .signatures
        .iter()
        .map(|signature| {
            let validator = validators.get(usize::from(signature.validator))?;
            let seal = Seal::Signed(signature.signature);
            Some(ExtendedCommitSignature::new(Address(validator.id()), seal, None))
        })
        .collect::<Option<_>>()?;
    let certificate = ExtendedCommitCertificate {
        height: certificate.height.into(),
        round: Round::new(certificate.round),
        value_id: Value(certificate.block),
        commit_signatures,
    };
    Some(RawDecidedValue::new(bytes, certificate))
}

/// Judges a block that others decided. Its certificate has been verified.
async fn synced(
    shared: &Shared,
    height: EngineHeight,
    round: Round,
    proposer: ValidatorId,
    bytes: Bytes,
) -> SyncedValueOutcome<Stele> {
    let number = round.as_u32().unwrap_or(0);
    if bytes.len() > shared.config.block_bytes_max {
        return SyncedValueOutcome::PeerFault;
    }
    let candidate = Candidate {
        height: height.into(),
        round: number,
        proposer,
        sender: None,
        origin: Origin::Sync,
        bytes: bytes.clone(),
    };
    let (id, valid) = match shared.application.validate(candidate).await {
        Verdict::Valid(id) => {
            shared.note_agreement(height.0);
            (id, true)
        }
        Verdict::Invalid(id, code) => {
            // The engine compares its id with the certificate's only after this: a peer that lies is found out there,
            // and an honest one's block takes the note back.
            error!(height = height.0, block = %id, code, "a block said to be decided is invalid here");
            shared.note_disagreement(height.0, code);
            (id, false)
        }
        Verdict::Malformed => return SyncedValueOutcome::PeerFault,
        Verdict::Undecided => return SyncedValueOutcome::LocalTransientError,
    };
    let block = Undecided { height: height.0, round: number, valid_round: None, proposer, bytes };
    shared.undecided.insert(id, block.clone(), valid);
    if let Err(failure) = shared.undecided.make_restartable(block).await {
        shared.storage_failed(&failure);
        return SyncedValueOutcome::LocalTransientError;
    }
    shared.synced_height.store(height.0, Ordering::Relaxed);
    SyncedValueOutcome::Verdict(proposed_value(height, round, Round::Nil, proposer, Value(id), valid))
}

pub(crate) fn proposed_value(
    height: EngineHeight,
    round: Round,
    valid_round: Round,
    proposer: ValidatorId,
    value: Value,
    valid: bool,
) -> ProposedValue<Stele> {
    let validity = Validity::from_bool(valid);
    ProposedValue { height, round, valid_round, proposer: Address(proposer), value, validity }
}
