//! What the order is told once, at start, and the bounds it keeps.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use stele_types::NetworkId;
use stele_types::limits::BLOCK_BYTES_MAX;

use crate::peer_identity::PeerIdentity;

/// Bytes of a block in one part on the wire: large enough that a megabyte is eight parts, small enough that a vote
/// waits at most a millisecond behind one on a fast link.
pub const PART_BYTES: usize = 128 * 1024;
/// Bytes of one application message: one part.
pub const MESSAGE_BYTES_MAX: usize = PART_BYTES;
/// Application messages this node sends per second. The transport queues without bound, so the sender is bounded.
pub const MESSAGE_BYTES_PER_SECOND_MAX: usize = 16 * 1024 * 1024;
/// Room for certificates and framing beside the block in one sync response.
pub(crate) const SYNC_OVERHEAD_BYTES: usize = 1024 * 1024;
/// Bytes of blocks in one sync response beyond the first block.
pub(crate) const SYNC_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// Wire size of a pub-sub message: a part, or a certificate with two votes of each of 128 validators.
pub(crate) const PUBSUB_BYTES_MAX: u64 = 256 * 1024;

/// Another node that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where this node dials it; none for a peer whose address is not known here, which has to dial this node.
    pub endpoint: Option<Endpoint>,
    /// Its pinned libp2p peer id (`Validator::peer_id`).
    pub peer_id: [u8; 38],
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// When the engine counts as stuck.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// No new height for this long, while a quorum is connected and the node does not idle.
    pub stall: Duration,
    /// Restarts of the engine in a row, without progress, after which the pause before the next one doubles each time.
    pub restarts_max: u32,
    /// Longest pause between restarts.
    pub pause_max: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { stall: Duration::from_secs(30), restarts_max: 3, pause_max: Duration::from_secs(600) }
    }
}

/// How a node that fell behind catches up.
#[derive(Clone, Copy, Debug)]
pub struct SyncConfig {
    /// How often the own height is announced: what a lagging peer waits at most before it notices.
    pub status_interval: Duration,
    /// Heights asked for in one request. Near-empty blocks profit; full blocks are cut to eight megabytes anyway.
    pub batch_heights: usize,
    /// Requests in flight. Times `batch_heights`, it bounds the blocks held in memory while they wait for their turn.
    pub requests_parallel: usize,
    /// When an unanswered request goes to another peer.
    pub request_timeout: Duration,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            status_interval: Duration::from_secs(1),
            batch_heights: 32,
            requests_parallel: 4,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// The order's configuration.
#[derive(Clone, Debug)]
pub struct OrderConfig {
    /// The network: part of every signature and of the protocol names, so networks cannot mix.
    pub network: NetworkId,
    /// Long-term public key of this node's validator; a node outside the validator set follows without voting.
    pub public_key: [u8; 33],
    /// Where peers reach this node.
    pub listen: SocketAddr,
    /// The other nodes. Nobody else may connect.
    pub peers: Vec<Peer>,
    /// Key of the peer links; its peer id is the one in this node's validator record.
    pub peer_identity: PeerIdentity,
    /// Directory of the engine's journal and of undecided blocks; created when missing.
    pub directory: PathBuf,
    /// Largest block, at most `BLOCK_BYTES_MAX`.
    pub block_bytes_max: usize,
    /// When the engine counts as stuck.
    pub watchdog: Watchdog,
    /// How a lagging node catches up.
    pub sync: SyncConfig,
}

impl OrderConfig {
    /// A configuration with the defaults of everything that has one.
    pub fn new(
        network: NetworkId,
        public_key: [u8; 33],
        listen: SocketAddr,
        peers: Vec<Peer>,
        peer_identity: PeerIdentity,
        directory: PathBuf,
    ) -> Self {
        Self {
            network,
            public_key,
            listen,
            peers,
            peer_identity,
            directory,
            block_bytes_max: BLOCK_BYTES_MAX,
            watchdog: Watchdog::default(),
            sync: SyncConfig::default(),
        }
    }
}
