//! Keeps strangers from reading.
//!
//! The engine's transport authenticates every peer, but turns away those that are not pinned only when they introduce
//! themselves, and a stranger need not. Until then it would be sent whatever it subscribes to, and its requests for
//! blocks would be answered. So the sync part of the engine hears the network through this gate, which cancels requests
//! of peers that are not pinned, and whoever shows itself without being pinned is disconnected.

use std::sync::Arc;

use malachite::app::consensus::PeerId;
use malachite::app::engine::network::{NetworkEvent, NetworkMsg, NetworkRef, PersistentPeersOp};
use malachite::app::engine::util::output_port::OutputPort;
use malachite_sync::{RawDecidedValue, Response, ValueResponse};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use stele_types::Height;
use tracing::warn;

use crate::application::Fetched;
use crate::context::Stele;
use crate::engine::STOP_WAIT;
use crate::figures::count;
use crate::shared::Shared;

/// Events that may wait for a subscriber; what the engine's own network keeps.
const EVENTS_WAITING_MAX: usize = 128;

/// Stands before the network: passes every command on, and lets subscribers hear what the gate lets through.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) network: NetworkRef<Stele>,
}

#[ractor::async_trait]
impl Actor for Gate {
    type Msg = NetworkMsg<Stele>;
    type State = Option<ActorRef<Heard>>;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, _: ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(None)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        ear: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let NetworkMsg::Subscribe(subscriber) = message else {
            self.network.cast(message)?;
            return Ok(());
        };
        let port = OutputPort::with_capacity(EVENTS_WAITING_MAX);
        subscriber.subscribe_to_port(&port);
        let listener = Ear { shared: self.shared.clone(), network: self.network.clone(), port };
        let (listener, _) = Actor::spawn_linked(None, listener, (), myself.get_cell()).await?;
        self.network.cast(NetworkMsg::Subscribe(Box::new(listener.clone())))?;
        *ear = Some(listener);
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Self::Msg>, ear: &mut Self::State) -> Result<(), ActorProcessingErr> {
        if let Some(ear) = ear {
            ear.stop(None);
        }
        Ok(())
    }
}

/// Something that happened on the network.
pub(crate) struct Heard(Box<NetworkEvent<Stele>>);

impl From<NetworkEvent<Stele>> for Heard {
    fn from(event: NetworkEvent<Stele>) -> Self {
        Self(Box::new(event))
    }
}

/// Listens for the gate.
struct Ear {
    shared: Arc<Shared>,
    network: NetworkRef<Stele>,
    port: OutputPort<NetworkEvent<Stele>>,
}

#[ractor::async_trait]
impl Actor for Ear {
    type Msg = Heard;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, _: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        Heard(event): Heard,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let stranger = sender_of(&event).filter(|peer| !self.shared.is_pinned(&peer.to_bytes()));
        let Some(stranger) = stranger else {
            if let NetworkEvent::SyncResponse(_, _, Some(Response::ValueResponse(response))) = &*event {
                self.hint(response);
            }
            self.port.send(*event);
            return Ok(());
        };
        match *event {
            // Gone is gone, whoever it was.
            NetworkEvent::PeerDisconnected(_) => self.port.send(*event),
            NetworkEvent::SyncRequest(request, ..) => {
                self.network.cast(NetworkMsg::CancelInboundRequest(request))?;
                self.turn_away(stranger);
            }
            _ => self.turn_away(stranger),
        }
        Ok(())
    }
}

impl Ear {
    /// Tells the application what comes.
    fn hint(&self, response: &ValueResponse<Stele>) {
        self.shared.application.fetched(fetched(response));
    }

    /// Disconnects a peer. The engine knows only one way: to pin it by its id alone, and to take that back.
    fn turn_away(&self, stranger: PeerId) {
        count(&self.shared.counters.strangers);
        warn!(peer = %stranger, "a peer that is not pinned is turned away");
        let (shared, network) = (self.shared.clone(), self.network.clone());
        tokio::spawn(async move {
            let _turn = shared.peer_changes.lock().await;
            // It may have been pinned meanwhile; then it is no stranger, and its entry must stay.
            if shared.is_pinned(&stranger.to_bytes()) {
                return;
            }
            let Ok(address) = format!("/p2p/{stranger}").parse::<malachite::app::engine::network::Multiaddr>() else {
                return;
            };
            for operation in [PersistentPeersOp::Add(address.clone()), PersistentPeersOp::Remove(address)] {
                // A refusal means that it is already gone.
                let _ =
                    network.call(|reply| NetworkMsg::UpdatePersistentPeers(operation, reply), Some(STOP_WAIT)).await;
            }
        });
    }
}

/// The blocks of a response that say themselves where they belong. Nothing of it has been checked yet: whatever a peer
/// can send must do no harm here, and the engine judges it after this.
fn fetched(response: &ValueResponse<Stele>) -> Vec<Fetched> {
    let place = |(offset, value): (usize, &RawDecidedValue<Stele>)| {
        let height = response.start_height.0.checked_add(u64::try_from(offset).ok()?)?;
        let (certificate, bytes) = (&value.certificate, value.value_bytes.clone());
        (certificate.height.0 == height).then(|| Fetched {
            height: Height(height),
            block: certificate.value_id.0,
            bytes,
        })
    };
    response.values.iter().enumerate().map_while(place).collect()
}

/// The peer that shows itself by an event; none for what this node does itself.
fn sender_of(event: &NetworkEvent<Stele>) -> Option<PeerId> {
    match event {
        NetworkEvent::PeerConnected(peer)
        | NetworkEvent::PeerDisconnected(peer)
        | NetworkEvent::PeerSubscribed(peer, _)
        | NetworkEvent::Vote(peer, _)
        | NetworkEvent::Proposal(peer, _)
        | NetworkEvent::ProposalPart(peer, ..)
        | NetworkEvent::PolkaCertificate(peer, _)
        | NetworkEvent::RoundCertificate(peer, _)
        | NetworkEvent::Status(peer, _)
        | NetworkEvent::SyncRequest(_, peer, _) => Some(*peer),
        NetworkEvent::ValidatorProofReceived { peer_id, .. } => Some(*peer_id),
        NetworkEvent::Listening(_)
        | NetworkEvent::SyncResponse(..)
        | NetworkEvent::SyncRequestFailed(..)
        | NetworkEvent::SyncInboundRequestFailed(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use malachite_core_types::{ExtendedCommitCertificate, Round};
    use proptest::prelude::*;
    use stele_types::BlockId;

    use super::*;
    use crate::context::{EngineHeight, Value};

    fn response(start: u64, heights: &[u64]) -> ValueResponse<Stele> {
        let values = heights.iter().map(|height| {
            let certificate = ExtendedCommitCertificate {
                height: EngineHeight(*height),
                round: Round::new(0),
                value_id: Value(BlockId([7; 32])),
                commit_signatures: Vec::new(),
            };
            RawDecidedValue::new(Bytes::from_static(b"block"), certificate)
        });
        ValueResponse::new(EngineHeight(start), values.collect())
    }

    #[test]
    fn a_response_at_the_end_of_all_heights_is_no_hint_and_no_panic() {
        for (start, heights, expected) in [
            (u64::MAX, &[u64::MAX, 0][..], 1),
            (u64::MAX - 1, &[u64::MAX - 1, u64::MAX, 0], 2),
            (5, &[5, 6, 8], 2),
            (5, &[6], 0),
            (5, &[], 0),
        ] {
            let found = fetched(&response(start, heights));
            assert_eq!(found.iter().map(|block| block.height.0).collect::<Vec<_>>(), heights[..expected]);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_peer_answers_is_a_hint_at_most(start: u64, heights in proptest::collection::vec(any::<u64>(), 0..8)) {
            prop_assert!(fetched(&response(start, &heights)).len() <= heights.len());
        }
    }
}
