//! The API over real TLS on loopback: who may do what, bad input, bounds, and the committed documents.
//!
//! Behind the listeners stands a small ledger in memory: real genesis, real statements, executed by `stele-ledger`, with
//! real state and log proofs. Only consensus is missing: each submission is a block at once.

mod access;
mod bodies;
mod bounds;
mod certificates;
mod client;
mod documents;
mod input;
mod ledger;
mod resources;

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::certificates::{Authority, Identity};
use self::client::Client;
use self::ledger::MemoryLedger;
use super::Api;
use crate::config::{ApiLimits, ApiSection, MetricsSection};
use crate::metrics::label::Listener;
use crate::metrics::{Metrics, Version};

/// Parties of the test network, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    GovernorA,
    GovernorB,
    Agency,
    Other,
    Regulator,
    Operator,
    Suspended,
}

impl Party {
    const ALL: [Self; 7] =
        [Self::GovernorA, Self::GovernorB, Self::Agency, Self::Other, Self::Regulator, Self::Operator, Self::Suspended];
    fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// A node's API with everything that a test needs to talk to it.
struct Bench {
    ledger: Arc<MemoryLedger>,
    metrics: Arc<Metrics>,
    authority: Authority,
    identities: Vec<Identity>,
    addresses: [(Listener, SocketAddr); 4],
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    _directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with_limits(ApiLimits::default()).await
    }

    async fn with_limits(limits: ApiLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("network");
        let identities: Vec<Identity> = Party::ALL.iter().map(|_| authority.client()).collect();
        let ledger = MemoryLedger::new(&identities);
        let server = authority.server();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let section = ApiSection {
            party_listen: loopback,
            public_listen: Some(loopback),
            plain_listen: Some(loopback),
            certificate: file("api.crt", &server.certificate_pem),
            key: file("api.key", &server.key_pem),
            client_ca: file("ca.crt", &authority.pem()),
            limits,
        };
        let admin = MetricsSection { listen: Some(loopback) };
        let metrics = Metrics::new(&Version::default());
        let api = Api::bind(&section, &admin, Arc::clone(&ledger) as _, Arc::clone(&metrics)).await.unwrap();
        let addresses = [Listener::Party, Listener::Public, Listener::Plain, Listener::Admin]
            .map(|listener| (listener, api.address(listener).unwrap()));
        let stop = CancellationToken::new();
        let served = tokio::spawn(api.serve(stop.clone()));
        Self { ledger, metrics, authority, identities, addresses, stop, served, _directory: directory }
    }

    fn address(&self, listener: Listener) -> SocketAddr {
        self.addresses.iter().find(|(kind, _)| *kind == listener).unwrap().1
    }

    fn identity(&self, party: Party) -> &Identity {
        &self.identities[usize::from(party.number() - 1)]
    }

    /// A client of the party listener with the party's certificate.
    fn party(&self, party: Party) -> Client {
        Client::mutual(self.address(Listener::Party), &self.authority, self.identity(party))
    }

    fn public(&self) -> Client {
        Client::tls(self.address(Listener::Public), &self.authority)
    }

    fn plain(&self) -> Client {
        Client::plain(self.address(Listener::Plain))
    }

    fn admin(&self) -> Client {
        Client::plain(self.address(Listener::Admin))
    }
}
