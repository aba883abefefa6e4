//! One connection: a stream out, a stream in.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use asynchronous_codec::Framed;
use futures::{Sink as _, Stream as _};
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol};

use crate::frame::{Frame, FrameCodec};

/// Bytes that wait for a peer to take them, at most, on each connection; two blocks of the largest size.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Streams that are opened in a row without one frame getting through, before the connection is given up.
const ATTEMPTS_MAX: u8 = 3;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/stele/broadcast/1");

/// What a connection tells.
#[derive(Debug)]
pub enum FromConnection {
    /// A frame came.
    Received(Frame),
    /// It carries nothing any more, or something that is no frame.
    Broken,
}

type Frames = Framed<Stream, FrameCodec>;

/// The stream that is written to.
enum Outbound {
    None,
    Opening,
    Open(Box<Frames>),
}

/// The handler of a connection.
pub struct Handler {
    message_bytes_max: usize,
    outbound: Outbound,
    inbound: Option<Box<Frames>>,
    /// Frames that wait, and the bytes of them.
    queue: VecDeque<Frame>,
    queued: usize,
    attempts: u8,
    broken: bool,
    /// Whether it was told.
    told: bool,
}

impl Handler {
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            outbound: Outbound::None,
            inbound: None,
            queue: VecDeque::new(),
            queued: 0,
            attempts: 0,
            broken: false,
            told: false,
        }
    }

    fn frames(&self, stream: Stream) -> Box<Frames> {
        Box::new(Framed::new(stream, FrameCodec::new(self.message_bytes_max)))
    }

    /// Reads from the peer; a frame, if there is one.
    fn read(&mut self, context: &mut Context<'_>) -> Option<Frame> {
        let inbound = self.inbound.as_mut()?;
        match Pin::new(inbound.as_mut()).poll_next(context) {
            Poll::Ready(Some(Ok(frame))) => return Some(frame),
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "order: a broadcast stream broke");
                self.broken |= error.kind() == std::io::ErrorKind::InvalidData;
                self.inbound = None;
            }
            // The peer opens another one if it has more to say.
            Poll::Ready(None) => self.inbound = None,
            Poll::Pending => {}
        }
        None
    }

    /// Writes what waits, as far as the peer takes it.
    fn write(&mut self, context: &mut Context<'_>) {
        let Outbound::Open(frames) = &mut self.outbound else { return };
        let mut stream = Pin::new(frames.as_mut());
        let written = loop {
            match stream.as_mut().poll_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Pending => break Ok(()),
            }
            let Some(frame) = self.queue.pop_front() else { break Ok(()) };
            self.queued -= frame.bytes();
            if let Err(error) = stream.as_mut().start_send(frame) {
                break Err(error);
            }
        };
        let flushed = match stream.poll_flush(context) {
            Poll::Ready(Ok(())) => {
                self.attempts = 0;
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(()),
        };
        if let Err(error) = written.and(flushed) {
            tracing::debug!(%error, "order: a broadcast stream broke");
            self.failed();
        }
    }

    fn failed(&mut self) {
        self.outbound = Outbound::None;
        self.attempts = self.attempts.saturating_add(1);
        self.broken |= self.attempts >= ATTEMPTS_MAX;
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Frame;
    type ToBehaviour = FromConnection;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, frame: Frame) {
        if self.broken {
            return;
        }
        self.queued += frame.bytes();
        self.queue.push_back(frame);
        while self.queued > QUEUE_BYTES_MAX {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.queued -= oldest.bytes();
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.write(context);
        if let Some(frame) = self.read(context) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(FromConnection::Received(frame)));
        }
        if self.broken {
            if self.told {
                return Poll::Pending;
            }
            self.told = true;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(FromConnection::Broken));
        }
        // Before there is anything to send: then nothing has to wait for it.
        if matches!(self.outbound, Outbound::None) {
            self.outbound = Outbound::Opening;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.outbound = Outbound::Open(self.frames(protocol));
            }
            // One at a time: the last one that the peer opened is the one that it writes to.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.inbound = Some(self.frames(protocol));
            }
            ConnectionEvent::DialUpgradeError(failed) => {
                tracing::debug!(error = %failed.error, "order: no broadcast stream");
                self.failed();
            }
            _ => {}
        }
    }
}
