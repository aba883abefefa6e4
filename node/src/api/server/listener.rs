//! One listener: the accept loop and the TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::{CipherSuite, ServerConnection};
use stele_types::Hash;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::access::Peer;
use super::super::commons::Commons;
use super::super::router::Gate;
use super::connection::{self, Protocol};
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
        let places = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
        let clients = Commons::new(limits.connections_max);
        let context = Arc::new(Context { kind, clients, tls, router, gate, limits, metrics, stop: stop.clone() });
        let mut connections = JoinSet::new();
        tracing::info!(listener = ?kind, address = %local, "listening");
        loop {
            // Beyond the bound, clients wait in the kernel's queue instead of being turned away.
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let open = Open::new(Arc::clone(&context));
                    connections.spawn(async move {
                        let _place = place;
                        open.0.converse(stream).await;
                    });
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
    async fn converse(self: &Arc<Self>, stream: TcpStream) {
        // Answers are written whole; waiting to fill a segment would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else {
            let peer = Peer { listener: self.kind, certificate: None };
            return connection::serve(self, stream, peer, Protocol::Http1).await;
        };
        let tls = TlsAcceptor::from(tls.current());
        let limit = Duration::from_millis(self.limits.handshake_timeout_ms);
        let shaken = tokio::select! {
            () = self.stop.cancelled() => return,
            shaken = tokio::time::timeout(limit, tls.accept(stream)) => shaken,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.metrics.tls.handshake(failure(&error), TlsSuite::None),
            Err(_) => return self.metrics.tls.handshake(Handshake::TimedOut, TlsSuite::None),
        };
        let (_, session) = stream.get_ref();
        let certificate =
            session.peer_certificates().and_then(<[_]>::first).and_then(|leaf| ClientCertificate::read(leaf));
        let Ok(_place) = self.clients.take(certificate.map(|certificate| certificate.key), 1) else {
            return self.metrics.tls.handshake(Handshake::ShareExceeded, suite(session));
        };
        self.metrics.tls.handshake(Handshake::Completed, suite(session));
        let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        let peer = Peer { listener: self.kind, certificate };
        connection::serve(self, stream, peer, protocol).await;
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
