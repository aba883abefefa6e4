//! One listener: the accept loop and the TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::{CipherSuite, ServerConnection};
use stele_types::Hash;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::super::access::Peer;
use super::super::commons::{Commons, Part};
use super::super::router::Gate;
use super::connection::{self, Protocol};
use super::handshakes::{Handshakes, Handshaking};
use crate::config::ApiLimits;
use crate::metrics::Metrics;
use crate::metrics::label::{Handshake, Listener, TlsSuite};
use crate::tls::{ClientCertificate, TlsSlot};

/// Pause after a failed accept: the usual reason is that the process has no file descriptor left, and one comes free only
/// when a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
pub(super) struct Acceptor {
    pub(super) kind: Listener,
    pub(super) local: SocketAddr,
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsSlot>,
    pub(super) router: Router,
    pub(super) gate: Gate,
    pub(super) limits: ApiLimits,
    pub(super) metrics: Arc<Metrics>,
}

/// What every connection of a listener shares.
pub(super) struct Context {
    pub(super) kind: Listener,
    /// Connections by the keys of their clients' certificates, so that no client takes all places.
    pub(super) clients: Arc<Commons<Hash>>,
    /// Places of connections whose handshake is over.
    pub(super) places: Semaphore,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) tls: Option<TlsSlot>,
    pub(super) router: Router,
    pub(super) gate: Gate,
    pub(super) limits: ApiLimits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
}

/// Counts a connection as long as it lives.
struct Open(Arc<Context>);

impl Open {
    fn new(context: Arc<Context>) -> Self {
        context.metrics.http.connection(context.kind, 1);
        Self(context)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.http.connection(self.0.kind, -1);
    }
}

impl Acceptor {
    pub(super) async fn serve(self, stop: CancellationToken, grace: Duration) {
        let Self { kind, socket, tls, router, gate, limits, metrics, local } = self;
        let context = Arc::new(Context {
            kind,
            clients: Commons::new(limits.connections_max),
            places: Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)),
            handshakes: Handshakes::new(),
            tls,
            router,
            gate,
            limits,
            metrics,
            stop: stop.clone(),
        });
        let mut connections = JoinSet::new();
        tracing::info!(listener = ?kind, address = %local, "listening");
        loop {
            // Beyond the bound, clients wait in the kernel's queue instead of being turned away.
            let handshaking = tokio::select! {
                () = stop.cancelled() => break,
                handshaking = context.handshakes.begin() => handshaking,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let context = Arc::clone(&context);
                    connections.spawn(async move { context.converse(stream, handshaking).await });
                }
                Err(error) => {
                    tracing::warn!(listener = ?kind, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(socket);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::info!(listener = ?kind, "requests in progress were cut off at the end of the grace");
        }
        connections.shutdown().await;
    }
}

impl Context {
    async fn converse(self: &Arc<Self>, stream: TcpStream, handshaking: Handshaking) {
        // Answers are written whole; waiting to fill a segment would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let limit = Duration::from_millis(self.limits.handshake_timeout_ms);
        let shaken = tokio::select! {
            () = self.stop.cancelled() => return,
            () = handshaking.displaced() => {
                return self.metrics.tls.handshake(Handshake::Displaced, TlsSuite::None);
            }
            shaken = tokio::time::timeout(limit, self.shake(stream)) => shaken,
        };
        drop(handshaking);
        match shaken {
            Ok(Some(shaken)) => shaken.serve(self).await,
            Ok(None) => {}
            Err(_) => self.metrics.tls.handshake(Handshake::TimedOut, TlsSuite::None),
        }
    }

    /// The handshake, and the wait for a place behind it.
    async fn shake(&self, stream: TcpStream) -> Option<Shaken<'_>> {
        let Some(tls) = &self.tls else {
            let place = self.places.acquire().await.ok()?;
            return Some(Shaken { stream: Stream::Plain(stream), certificate: None, places: (place, None) });
        };
        let stream = match TlsAcceptor::from(tls.current()).accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                self.metrics.tls.handshake(failure(&error), TlsSuite::None);
                return None;
            }
        };
        let (_, session) = stream.get_ref();
        let certificate =
            session.peer_certificates().and_then(<[_]>::first).and_then(|leaf| ClientCertificate::read(leaf));
        let share = match certificate.map(|certificate| self.clients.take(Some(certificate.key), 1)) {
            None => None,
            Some(Ok(share)) => Some(share),
            Some(Err(_)) => {
                self.metrics.tls.handshake(Handshake::ShareExceeded, suite(session));
                return None;
            }
        };
        let place = self.places.acquire().await.ok()?;
        self.metrics.tls.handshake(Handshake::Completed, suite(session));
        Some(Shaken { stream: Stream::Tls(Box::new(stream)), certificate, places: (place, share) })
    }
}

/// A connection whose handshake is over, with what it holds until its end.
struct Shaken<'a> {
    stream: Stream,
    certificate: Option<ClientCertificate>,
    places: (SemaphorePermit<'a>, Option<Part<Hash>>),
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Shaken<'_> {
    async fn serve(self, context: &Arc<Context>) {
        let Self { stream, certificate, places: _places } = self;
        let _open = Open::new(Arc::clone(context));
        let peer = Peer { listener: context.kind, certificate };
        match stream {
            Stream::Plain(stream) => connection::serve(context, stream, peer, Protocol::Http1).await,
            Stream::Tls(stream) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
                connection::serve(context, stream, peer, protocol).await;
            }
        }
    }
}

fn failure(error: &std::io::Error) -> Handshake {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Handshake::CertificateRefused
        }
        _ => Handshake::Failed,
    }
}

fn suite(session: &ServerConnection) -> TlsSuite {
    match session.negotiated_cipher_suite().map(|suite| suite.suite()) {
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => TlsSuite::Aes256,
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => TlsSuite::Aes128,
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => TlsSuite::ChaCha20,
        Some(_) => TlsSuite::Tls12,
        None => TlsSuite::None,
    }
}
