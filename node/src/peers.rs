//! Which peers may connect: the nodes of the configuration, and the validators of the ledger.
//!
//! The ledger pins a validator's peer id but not its address. So whoever the ledger makes a validator may connect from
//! the moment the change is decided, and dials this node; where this node dials it is said in the configuration, which
//! is read again on SIGHUP. Whoever the ledger removed may not connect any more, whatever the configuration says.

use std::collections::BTreeSet;
use std::sync::Arc;

use stele_ledger::query;
use stele_order::{Endpoint, Order, Peer};
use stele_types::ValidatorSet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chain::Chain;
use crate::config::PeerAddress;

/// A peer id, see `stele_types::Validator::peer_id`.
type PeerId = [u8; 38];

/// The peers to pin now.
pub fn wanted(chain: &Chain, configured: &[PeerAddress], own: &PeerId) -> Vec<Peer> {
    let members = {
        let head = chain.head();
        let pending = chain.reading(|view| query::pending_validators(view)).ok().flatten();
        let mut members = ids([&head.frame.validators, &head.frame.next_validators].into_iter().chain(&pending));
        // Whoever is suspended follows, to be there when a verdict brings it back.
        members.extend(chain.suspended().iter().map(stele_types::Validator::peer_id));
        members
    };
    let former = chain.validator_history();
    select(configured, &members, &ids(&former), own)
}

fn ids<'s>(sets: impl IntoIterator<Item = &'s ValidatorSet>) -> BTreeSet<PeerId> {
    sets.into_iter().flat_map(ValidatorSet::iter).map(stele_types::Validator::peer_id).collect()
}

/// Configured peers, without those that were validators and are none now; and validators that are not configured.
fn select(
    configured: &[PeerAddress],
    members: &BTreeSet<PeerId>,
    history: &BTreeSet<PeerId>,
    own: &PeerId,
) -> Vec<Peer> {
    let dialled = configured.iter().filter_map(|peer| {
        // `Config::load` refused entries without either.
        let (host, port) = peer.split()?;
        Some(Peer { endpoint: Some(Endpoint { host: host.to_owned(), port }), peer_id: peer.peer_id_bytes()? })
    });
    let mut peers: Vec<Peer> =
        dialled.filter(|peer| members.contains(&peer.peer_id) || !history.contains(&peer.peer_id)).collect();
    let known: BTreeSet<PeerId> = peers.iter().map(|peer| peer.peer_id).collect();
    let unknown = members.iter().filter(|id| *id != own && !known.contains(*id));
    peers.extend(unknown.map(|id| Peer { endpoint: None, peer_id: *id }));
    peers
}

/// Pins the peers anew whenever the ledger or the configuration changes who they are.
pub struct Pinning {
    /// The chain.
    pub chain: Arc<Chain>,
    /// The order.
    pub order: Arc<Order>,
    /// Peers of the configuration.
    pub configured: watch::Receiver<Vec<PeerAddress>>,
    /// This node's peer id.
    pub own: PeerId,
    /// What the order pinned when it started.
    pub pinned: Vec<Peer>,
}

impl Pinning {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut heads = self.chain.watch();
        let mut seen = None;
        loop {
            // Before the look: a head that comes in between is looked at next.
            heads.mark_unchanged();
            let change = self.chain.validator_change();
            let configured = self.configured.borrow_and_update().clone();
            if seen.as_ref() != Some(&(change, configured.clone())) {
                self.pin(&configured).await;
                seen = Some((change, configured));
            }
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return },
                changed = self.configured.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    async fn pin(&mut self, configured: &[PeerAddress]) {
        let peers = wanted(&self.chain, configured, &self.own);
        if peers == self.pinned {
            return;
        }
        let dialled = peers.iter().filter(|peer| peer.endpoint.is_some()).count();
        info!(height = self.chain.tip().height.0, peers = peers.len(), dialled, "peers are pinned anew");
        if let Err(error) = self.order.pin_peers(peers.clone()).await {
            // The list stands; the engine takes it whole when it is started again.
            warn!(code = error.code(), %error, "a peer was not pinned in the running engine");
        }
        self.pinned = peers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> PeerId {
        let mut id = [byte; 38];
        id[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        id
    }

    fn entry(byte: u8) -> PeerAddress {
        PeerAddress { address: format!("10.0.0.{byte}:7400"), peer_id: hex::encode(id(byte)) }
    }

    #[test]
    fn validators_are_pinned_followers_stay_and_those_removed_go() {
        let configured: Vec<PeerAddress> = [2, 3, 9].into_iter().map(entry).collect();
        // 1 is this node, 3 was removed, 4 is new and its address is not known, 9 follows.
        let members = [1, 2, 4].into_iter().map(id).collect();
        let history = [1, 2, 3].into_iter().map(id).collect();
        let peers = select(&configured, &members, &history, &id(1));
        let endpoint = |byte| Some(Endpoint { host: format!("10.0.0.{byte}"), port: 7400 });
        let expected = [(2, endpoint(2)), (9, endpoint(9)), (4, None)];
        assert_eq!(peers, expected.map(|(byte, endpoint)| Peer { endpoint, peer_id: id(byte) }));
    }
}
