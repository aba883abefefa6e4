//! Listeners: accepting, bounding, timing out, stopping.

mod activity;
mod certificates;
mod connection;
mod handshakes;
mod listener;
mod stall;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::commons::Commons;
use super::router::{Shared, router};
use crate::config::{ApiSection, MetricsSection};
use crate::metrics::Metrics;
use crate::metrics::label::Listener;
use crate::tls::{TlsError, TlsSlot};
pub use certificates::Certificates;
use listener::Acceptor;

/// Connections that the kernel has accepted and the node not yet; `net.core.somaxconn`, 4,096 by default, bounds it, too.
const BACKLOG: u32 = 4_096;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("{key} = \"{address}\": {source}; is another program using the port?")]
    Listen {
        /// Key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl ApiError {
    /// Stable name.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Listen { .. } => "listen",
        }
    }
}

/// A listener with its key in the configuration, its address and its TLS settings.
type Wanted = (Listener, &'static str, Option<SocketAddr>, Option<TlsSlot>);

/// The listeners, bound and not serving yet.
pub struct Api {
    acceptors: Vec<Acceptor>,
    certificates: Certificates,
    grace: Duration,
}

impl Api {
    /// Reads certificates and binds every configured address, so that a fault shows before the node says it is ready.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn bind(
        section: &ApiSection,
        admin: &MetricsSection,
        backend: Arc<dyn Backend>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ApiError> {
        let certificates = Certificates::read(section, Arc::clone(&metrics))?;
        let shared = Shared::new(backend, Arc::clone(&metrics), section.limits);
        let router = router(&shared);
        let mut acceptors = Vec::new();
        let admin_tls = admin.listen.filter(|address| !address.ip().is_loopback()).map(|_| certificates.mutual());
        let wanted: [Wanted; 4] = [
            (Listener::Party, "api.party_listen", Some(section.party_listen), Some(certificates.mutual())),
            (Listener::Public, "api.public_listen", section.public_listen, Some(certificates.public())),
            (Listener::Plain, "api.plain_listen", section.plain_listen, None),
            (Listener::Admin, "metrics.listen", admin.listen, admin_tls),
        ];
        for (kind, key, address, tls) in wanted {
            let Some(address) = address else { continue };
            let failed = |source| ApiError::Listen { key, address, source };
            let socket = listen(address).map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            acceptors.push(Acceptor {
                kind,
                local,
                socket,
                tls,
                router: router.clone(),
                gate: Commons::new(section.limits.requests_max),
                limits: section.limits,
                metrics: Arc::clone(&metrics),
            });
        }
        Ok(Self { acceptors, certificates, grace: Duration::from_millis(section.limits.shutdown_grace_ms) })
    }

    /// The address that a listener is bound to; with port 0 in the configuration the system chose the port.
    pub fn address(&self, listener: Listener) -> Option<SocketAddr> {
        self.acceptors.iter().find(|acceptor| acceptor.kind == listener).map(|acceptor| acceptor.local)
    }

    /// The certificates that it serves with.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Serves until `stop` is cancelled; then accepts nothing more, lets requests in progress end within the grace, and
    /// closes the rest.
    pub async fn serve(self, stop: CancellationToken) {
        let mut listeners = JoinSet::new();
        for acceptor in self.acceptors {
            listeners.spawn(acceptor.serve(stop.clone(), self.grace));
        }
        while listeners.join_next().await.is_some() {}
    }
}

/// Binds an address. Tokio's own way asks for fewer connections in the queue than the kernel allows.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted node gets its port back although connections of the old one linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
