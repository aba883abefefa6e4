//! Where each node of a network stands, asked of each by itself.

use anyhow::Result;
use stele_client::{Bounds, Client, Endpoint, NetworkView, RetryPolicy};
use stele_types::{Hash, Header, Height};

use crate::network::profile::NodeProfile;
use crate::session::Session;

/// Where one node stands.
#[derive(Clone, Debug)]
pub struct NodeStanding {
    /// Its name.
    pub name: String,
    /// What it says of the network.
    pub view: Result<NetworkView, String>,
    /// Why it is not ready; none when it is.
    pub not_ready: Option<String>,
    /// Peers it is connected to, from its metrics, when they can be read from here.
    pub peers: Option<u64>,
}

/// Roots that a header certifies, at a height that all nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The header.
    pub header: Hash,
    /// Leaves of the log below it.
    pub log_size: u64,
    /// Root of the log.
    pub log_root: Hash,
    /// Root of the state.
    pub state_root: Hash,
}

impl Roots {
    /// Roots of a header.
    pub fn of(header: &Header) -> Self {
        Self {
            header: Hash(header.id().0),
            log_size: header.log_size,
            log_root: header.log_root,
            state_root: header.state_root,
        }
    }
}

impl NodeStanding {
    /// Height, when the node answers.
    pub fn height(&self) -> Option<u64> {
        self.view.as_ref().ok().map(|view| view.height)
    }
}

/// Asks every node of the network; one that does not answer is told as such.
///
/// # Errors
/// When there is no network directory.
pub async fn standings(session: &Session) -> Result<Vec<NodeStanding>> {
    let mut standings = Vec::new();
    for node in session.chosen_nodes()? {
        let view = session.probe(&node)?.network().await.map_err(|error| error.code().to_owned());
        let (not_ready, peers) = match operator_client(&node) {
            Ok(client) => {
                let ready = client.ready().await;
                let metrics = client.metrics().await.ok();
                (ready.err().map(|error| error.code().to_owned()), metrics.as_deref().and_then(peers))
            }
            Err(error) => (Some(error.to_string()), None),
        };
        standings.push(NodeStanding { name: node.name, view, not_ready, peers });
    }
    Ok(standings)
}

/// The roots of each node at the newest height that all answering nodes have; none below height 1.
///
/// # Errors
/// When there is no network directory.
pub async fn roots(session: &Session, standings: &[NodeStanding]) -> Result<Option<(Height, Vec<Option<Roots>>)>> {
    let Some(height) = standings.iter().filter_map(NodeStanding::height).min().filter(|height| *height > 0) else {
        return Ok(None);
    };
    let mut roots = Vec::new();
    for node in session.chosen_nodes()? {
        let header = session.probe(&node)?.header(Height(height)).await.ok();
        roots.push(header.map(|answer| Roots::of(&answer.header)));
    }
    Ok(Some((Height(height), roots)))
}

/// A client of the listener of a node's operator.
pub(crate) fn operator_client(node: &NodeProfile) -> Result<Client> {
    let second = std::time::Duration::from_secs(1);
    let bounds = Bounds { connect: second, answer: second, ..Bounds::default() };
    let builder = Client::builder().bounds(bounds).retry(RetryPolicy::NONE);
    Ok(builder.endpoint(Endpoint::http(&node.metrics)?).build()?)
}

/// The gauge of peer links that are up, in the Prometheus text format.
fn peers(metrics: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix("stele_order_peers "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_from_the_gauge() {
        let text = "# TYPE stele_order_peers gauge\nstele_order_peers 3\nstele_order_peers_other 4\n";
        assert_eq!(peers(text), Some(3));
        assert_eq!(peers(""), None);
    }
}
