//! What peers send: parts of blocks, application messages, and signs of the height they are at.
//!
//! Listens to the network beside the engine, so it hears peers even while the engine waits to be started.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use malachite::app::consensus::PeerId;
use malachite::app::engine::consensus::{ConsensusMsg, ConsensusRef};
use malachite::app::engine::network::NetworkEvent;
use malachite::app::streaming::StreamMessage;
use malachite_core_types::ValueOrigin;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use stele_types::{Height, ValidatorId};
use tracing::{debug, info, warn};

use crate::application::{Candidate, Origin, Verdict};
use crate::assembly::Assembly;
use crate::context::{BlockStart, Part, Stele, Value};
use crate::figures::count;
use crate::host::proposed_value;
use crate::shared::{Current, Shared};
use crate::undecided::Undecided;

/// Rounds ahead of the engine's for which blocks are taken: what the engine itself accepts votes for.
const ROUNDS_AHEAD_MAX: u32 = 10;
/// From this round on validators publish the block they locked on, whoever proposed it: the engine's last resort for
/// liveness.
const RESTREAM_ROUND: u32 = 10;
/// Blocks one validator may publish for one round: its proposal, and again the one it locked on.
const BLOCKS_PER_ROUND_MAX: u32 = 2;
/// Blocks for the next height that wait until it starts, per validator.
const PARKED_PER_VALIDATOR_MAX: usize = 2;

/// Why a block is not taken, when it only comes late.
const HEIGHT_IS_OVER: &str = "height_is_over";

/// What the inbox is told.
#[derive(Debug)]
pub(crate) enum InboxMessage {
    /// Something happened on the network.
    Network(Box<NetworkEvent<Stele>>),
    /// The engine is about to start this height.
    HeightStarts(u64),
}

impl From<NetworkEvent<Stele>> for InboxMessage {
    fn from(event: NetworkEvent<Stele>) -> Self {
        Self::Network(Box::new(event))
    }
}

pub(crate) struct Inbox {
    pub(crate) shared: Arc<Shared>,
    pub(crate) consensus: ConsensusRef<Stele>,
}

/// A whole block and the validator that sent it.
struct Arrived {
    from: ValidatorId,
    start: BlockStart,
    bytes: Bytes,
}

pub(crate) struct InboxState {
    assembly: Assembly,
    /// Blocks of the next height.
    parked: Vec<Arrived>,
    /// Blocks taken per sender and round of the current and the next height.
    taken: HashMap<(u64, u32, ValidatorId), u32>,
}

#[ractor::async_trait]
impl Actor for Inbox {
    type Msg = InboxMessage;
    type State = InboxState;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, _: ()) -> Result<Self::State, ActorProcessingErr> {
        let assembly = Assembly::new(self.shared.config.block_bytes_max);
        Ok(InboxState { assembly, parked: Vec::new(), taken: HashMap::new() })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            InboxMessage::Network(event) => self.on_network(state, *event),
            InboxMessage::HeightStarts(height) => self.on_height(state, height),
        }
        self.shared.counters.assembly_bytes.store(state.assembly.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Inbox {
    fn on_network(&self, state: &mut InboxState, event: NetworkEvent<Stele>) {
        match event {
            NetworkEvent::PeerConnected(peer) => self.on_connection(peer, true),
            NetworkEvent::PeerDisconnected(peer) => self.on_connection(peer, false),
            NetworkEvent::Status(peer, status) => self.shared.peer_committed(peer.to_bytes(), status.tip_height.0),
            NetworkEvent::Vote(peer, vote) => self.shared.peer_started(peer.to_bytes(), vote.message.height.0),
            NetworkEvent::Proposal(peer, proposal) => {
                self.shared.peer_started(peer.to_bytes(), proposal.message.height.0);
            }
            NetworkEvent::ProposalPart(peer, _, message) => self.on_part(state, peer, message),
            _ => {}
        }
    }

    fn on_connection(&self, peer: PeerId, open: bool) {
        if let Some(validator) = self.shared.validator_of(&peer.to_bytes()) {
            info!(%validator, %peer, "{}", if open { "connected to a validator" } else { "a validator is disconnected" });
        }
        self.shared.peer_connected(peer.to_bytes(), open);
    }

    fn on_part(&self, state: &mut InboxState, peer: PeerId, message: StreamMessage<Part>) {
        let peer_id = peer.to_bytes();
        let Some(from) = self.shared.validator_of(&peer_id) else {
            count(&self.shared.counters.parts_refused);
            return;
        };
        let Some(part) = message.content.into_data() else { return };
        match part {
            Part::Message(bytes) => self.shared.deliver(from, bytes),
            Part::Wake(height) => self.shared.peer_started(peer_id, height.0),
            Part::Start(_) | Part::Data(_) => {
                if let Part::Start(start) = part {
                    self.shared.peer_started(peer_id, start.height.0);
                    if let Err(reason) = self.admit(state, from, start) {
                        debug!(%from, height = start.height.0, reason, "a block is not taken");
                        state.assembly.refuse(from, &message.stream_id.to_bytes());
                        // Blocks of heights that others decided meanwhile are nobody's fault.
                        if reason != HEIGHT_IS_OVER {
                            count(&self.shared.counters.parts_refused);
                        }
                        return;
                    }
                }
                match state.assembly.add(from, &message.stream_id.to_bytes(), message.sequence, part) {
                    Ok(None) => {}
                    Ok(Some((start, bytes))) => self.on_block(state, Arrived { from, start, bytes }),
                    Err(refused) => {
                        warn!(%from, %refused, "a part is refused");
                        count(&self.shared.counters.parts_refused);
                    }
                }
            }
        }
    }

    /// Whether a block with this announcement may be of use.
    fn admit(&self, state: &mut InboxState, from: ValidatorId, start: BlockStart) -> Result<(), &'static str> {
        let current = self.shared.current().ok_or("not_started")?;
        let height = start.height.0;
        let round = start.round.as_u32().ok_or("round_nil")?;
        if height < current.height {
            return Err(HEIGHT_IS_OVER);
        }
        if height > current.height + 1 {
            return Err("height_ahead");
        }
        let engine_round =
            if height == current.height { self.shared.counters.round.load(Ordering::Relaxed) } else { 0 };
        if u64::from(round) > engine_round + u64::from(ROUNDS_AHEAD_MAX) {
            return Err("round_ahead");
        }
        // The proposers of the next height are known only when this one is decided; parked blocks are checked then.
        if height == current.height && !may_publish(&current, from, start, round) {
            return Err("not_the_proposer");
        }
        let taken = state.taken.entry((height, round, from)).or_default();
        if *taken == BLOCKS_PER_ROUND_MAX {
            return Err("too_many_for_the_round");
        }
        *taken += 1;
        Ok(())
    }

    fn on_block(&self, state: &mut InboxState, arrived: Arrived) {
        let Some(current) = self.shared.current() else { return };
        match arrived.start.height.0.checked_sub(current.height) {
            Some(0) => self.judge(arrived),
            Some(1) => {
                let parked = state.parked.iter().filter(|parked| parked.from == arrived.from).count();
                if parked < PARKED_PER_VALIDATOR_MAX {
                    state.parked.push(arrived);
                }
            }
            _ => {}
        }
    }

    fn on_height(&self, state: &mut InboxState, height: u64) {
        let Some(current) = self.shared.current() else { return };
        state.assembly.forget_below(height);
        state.assembly.retain(|validator| current.validators.index_of(validator).is_some());
        state.taken.retain(|(taken_height, ..), _| *taken_height >= height);
        for arrived in std::mem::take(&mut state.parked) {
            let round = arrived.start.round.as_u32().unwrap_or(0);
            if arrived.start.height.0 == height && may_publish(&current, arrived.from, arrived.start, round) {
                self.judge(arrived);
            }
        }
    }

    /// Validates a block in a task of its own and tells the engine.
    fn judge(&self, arrived: Arrived) {
        let shared = self.shared.clone();
        let consensus = self.consensus.clone();
        tokio::spawn(async move { judge(&shared, &consensus, arrived).await });
    }
}

/// Whether `from` may publish the block: the round's proposer, or in late rounds any validator that locked on it.
fn may_publish(current: &Current, from: ValidatorId, start: BlockStart, round: u32) -> bool {
    start.proposer == current.validators.proposer_id(start.height.0, round)
        && (from == start.proposer || round >= RESTREAM_ROUND)
}

async fn judge(shared: &Shared, consensus: &ConsensusRef<Stele>, arrived: Arrived) {
    let Arrived { from, start, bytes } = arrived;
    let (height, round) = (start.height.0, start.round.as_u32().unwrap_or(0));
    let block = Undecided {
        height,
        round,
        valid_round: start.valid_round.as_u32(),
        proposer: start.proposer,
        bytes: bytes.clone(),
    };
    let candidate = Candidate {
        height: Height(height),
        round,
        proposer: start.proposer,
        sender: Some(from),
        origin: if start.valid_round.is_nil() { Origin::Fresh } else { Origin::Repeated },
        bytes,
    };
    // The disk and the application work side by side; the engine hears of the block when both are done.
    let (durable, verdict) =
        tokio::join!(shared.undecided.make_durable(block.clone()), shared.application.validate(candidate));
    if let Err(failure) = durable {
        shared.storage_failed(&failure);
        return;
    }
    let (id, valid) = match verdict {
        Verdict::Valid(id) => (id, true),
        Verdict::Invalid(id, code) => {
            warn!(height, round, proposer = %start.proposer, block = %id, code, "an invalid block was proposed");
            count(&shared.counters.proposals_refused);
            (id, false)
        }
        Verdict::Malformed => {
            warn!(height, round, proposer = %start.proposer, "something that is no block was proposed");
            count(&shared.counters.proposals_refused);
            return;
        }
        Verdict::Undecided => return,
    };
    shared.undecided.insert(id, block, valid);
    let value = proposed_value(start.height, start.round, start.valid_round, start.proposer, Value(id), valid);
    if consensus.cast(ConsensusMsg::ReceivedProposedValue(value, ValueOrigin::Consensus)).is_err() {
        debug!(height, "the engine is gone");
    }
}
