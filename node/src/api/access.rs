//! Who may read and do what: the one place that decides it (docs/protocol.md, "Who may read what").
//!
//! | without certificate | party | regulator |
//! |---|---|---|
//! | checkpoints, hash tiles, headers, the network | the same | the same |
//! | a certificate by its number | parties, keys, proposals of the state; own records, assets and mandates | all state |
//! | a registered statement, receipt, bundle or status whose id is known | also by index when it is its own; its own rejected statements | any |
//! | | submit; the feed of its own statements | the whole feed, entry tiles, blocks |
//! | | put bodies of records; the bodies that it has put | sealed bodies |
//!
//! Operators of validators may read blocks, and have copies kept: their own node needs both.

use stele_types::party::Role;
use stele_types::{Code, PartyId};

use super::backend::{Backend, Client};
use super::problem::Problem;
use super::route::Route;
use crate::metrics::label::Listener;
use crate::tls::ClientCertificate;

/// Who may use a route. What depends on the object asked for is decided by [`Caller`]'s methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anyone on the public listener, any active party on theirs.
    Anyone,
    /// An active party.
    Party,
    /// A regulator, or who runs a validator.
    RegulatorOrOperator,
    /// Who runs a validator.
    Operator,
    /// Anyone, the operator's listener included.
    Health,
    /// The operator's listener alone.
    Administrator,
    /// The operator's listener, for whoever can read the node's files.
    Control,
}

/// The far end of a connection, as TLS left it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Where it connected.
    pub listener: Listener,
    /// Its certificate, verified by the handshake.
    pub certificate: Option<ClientCertificate>,
}

/// Who asks. Decided anew for every request, so that a revocation or a suspension ends open connections, too.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    client: Option<Client>,
}

impl Caller {
    /// Decides whether `peer` may use `route` at the second `now` (since 1970).
    ///
    /// # Errors
    /// `client_unauthenticated`, `party_suspended`, `forbidden`, `not_found`.
    pub fn admit(route: Route, peer: &Peer, backend: &dyn Backend, now: i64) -> Result<Self, Problem> {
        let caller = match peer.listener {
            // The handshake asked for a certificate of the network; who holds it matters for health and metrics only.
            Listener::Admin => {
                return match route.rule() {
                    // The router compares the token.
                    Rule::Health | Rule::Administrator | Rule::Control => Ok(Self { client: None }),
                    _ => Err(Problem::not_found("resource on this listener")),
                };
            }
            Listener::Party => Self { client: Some(authenticate(peer, backend, now)?) },
            Listener::Public | Listener::Plain => Self { client: None },
        };
        match route.rule() {
            Rule::Anyone | Rule::Health => {}
            Rule::Party => drop(caller.party()?),
            Rule::RegulatorOrOperator => {
                let client = caller.party()?;
                if !client.roles.contains(Role::Regulator) && !client.roles.contains(Role::Operator) {
                    return Err(Problem::new(Code::Forbidden).detail("this is for regulators and operators"));
                }
            }
            Rule::Operator => {
                if !caller.party()?.roles.contains(Role::Operator) {
                    return Err(Problem::new(Code::Forbidden).detail("copies are between nodes, for their operators"));
                }
            }
            Rule::Administrator | Rule::Control => return Err(Problem::not_found("resource on this listener")),
        }
        Ok(caller)
    }

    /// The party that asks.
    ///
    /// # Errors
    /// `client_unauthenticated` on listeners without client certificates.
    pub fn party(&self) -> Result<Client, Problem> {
        self.client.ok_or_else(|| Problem::new(Code::ClientUnauthenticated))
    }
    /// Whether a regulator asks.
    pub fn is_regulator(&self) -> bool {
        self.has(Role::Regulator)
    }
    /// Whether a party with this role asks.
    pub fn has(&self, role: Role) -> bool {
        self.client.is_some_and(|client| client.roles.contains(role))
    }
    /// Whether this very party asks.
    pub fn is(&self, party: &PartyId) -> bool {
        self.client.is_some_and(|client| client.party == *party)
    }
    /// Whether a party, of whatever role, asks.
    pub fn is_party(&self) -> bool {
        self.client.is_some()
    }
    /// Whether statements of `issuer` may be listed, or read by an index that anyone can count up.
    pub fn may_list(&self, issuer: &PartyId) -> bool {
        self.is_regulator() || self.is(issuer)
    }
    /// Whether a statement of `issuer` may be read by its id: a registered one by anyone, a rejected one by its issuer.
    pub fn may_read(&self, issuer: &PartyId, registered: bool) -> bool {
        registered || self.may_list(issuer)
    }
    /// Whether sealed bodies of others may be read: to keep copies of them, or to sample them.
    pub fn may_copy(&self) -> bool {
        self.has(Role::Regulator) || self.has(Role::Operator)
    }
    /// Whether entries may be read in ranges, whoever issued them.
    pub fn may_range(&self) -> bool {
        self.is_regulator()
    }
}

fn authenticate(peer: &Peer, backend: &dyn Backend, now: i64) -> Result<Client, Problem> {
    let unauthenticated = |detail: &str| Problem::new(Code::ClientUnauthenticated).detail(detail);
    let certificate = peer.certificate.ok_or_else(|| unauthenticated("this listener needs a client certificate"))?;
    if !certificate.validity.contains(now) {
        return Err(unauthenticated("the client certificate has expired; connect with a new one"));
    }
    let client = backend.client(&certificate.key).map_err(Problem::new)?.ok_or_else(|| {
        unauthenticated("no party has pinned the key of this client certificate; pin it with tls.pin")
    })?;
    if client.suspended { Err(Problem::new(Code::PartySuspended)) } else { Ok(client) }
}
