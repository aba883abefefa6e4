//! All connections of a node.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use bytes::Bytes;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use prometheus_client::registry::Registry;

use crate::Config;
use crate::frame::{Frame, Topic};
use crate::handler::{FromConnection, Handler};

/// What a node is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A peer is connected, and follows a topic of this node: as every peer does, so it is told once for each topic.
    Subscribed(PeerId, Topic),
    /// Never happens: a peer that is connected follows every topic. The engine's network layer matches on it.
    Unsubscribed(PeerId, Topic),
    /// A peer sent something, on a topic that this node may not follow.
    Received(PeerId, Topic, Bytes),
}

/// The behaviour of a node.
#[derive(Default)]
pub struct Behaviour {
    config: Config,
    topics: Vec<Topic>,
    /// Connections of each peer, the newest last.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    events: VecDeque<ToSwarm<Event, Frame>>,
}

impl Behaviour {
    /// One that is connected to nobody.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// The same: traffic is counted where the engine's messages are.
    #[must_use]
    pub fn new_with_metrics(config: Config, _registry: &mut Registry) -> Self {
        Self::new(config)
    }

    /// Topics that this node follows.
    pub fn subscribed(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }

    /// Follows a topic.
    pub fn subscribe(&mut self, topic: Topic) {
        if self.topics.contains(&topic) {
            return;
        }
        let peers = self.connections.keys().map(|peer| ToSwarm::GenerateEvent(Event::Subscribed(*peer, topic.clone())));
        self.events.extend(peers);
        self.topics.push(topic);
    }

    /// Sends a message to every connected peer.
    pub fn broadcast(&mut self, topic: &Topic, message: Bytes) {
        if message.len() > self.config.max_buf_size {
            tracing::warn!(bytes = message.len(), ?topic, "order: a message is too long to be sent");
            return;
        }
        let frame = Frame { topic: topic.clone(), message };
        for (peer, connections) in &self.connections {
            let Some(newest) = connections.last() else { continue };
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: *peer,
                handler: NotifyHandler::One(*newest),
                event: frame.clone(),
            });
        }
    }

    fn opened(&mut self, peer: PeerId, connection: ConnectionId) {
        let connections = self.connections.entry(peer).or_default();
        connections.push(connection);
        if connections.len() == 1 {
            let topics = self.topics.iter().map(|topic| ToSwarm::GenerateEvent(Event::Subscribed(peer, topic.clone())));
            self.events.extend(topics);
        }
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.retain(|known| *known != connection);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.config.max_buf_size))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.config.max_buf_size))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) => self.opened(opened.peer_id, opened.connection_id),
            FromSwarm::ConnectionClosed(closed) => self.closed(closed.peer_id, closed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.events.push_back(match event {
            FromConnection::Received(Frame { topic, message }) => {
                ToSwarm::GenerateEvent(Event::Received(peer, topic, message))
            }
            FromConnection::Broken => {
                ToSwarm::CloseConnection { peer_id: peer, connection: CloseConnection::One(connection) }
            }
        });
    }

    fn poll(&mut self, _context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
