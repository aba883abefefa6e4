//! The JSON forms of answers that no CBOR form exists for. Unknown fields are ignored, so that a newer node can say more.

use serde::{Deserialize, Serialize};

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem {
    /// One line for people.
    #[serde(default)]
    pub title: Option<String>,
    /// What happened this time and what to do.
    #[serde(default)]
    pub detail: Option<String>,
    /// The stable code.
    #[serde(default)]
    pub code: Option<String>,
    /// How long to wait before the same request.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// A snapshot of the state by which a node can join.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct SnapshotView {
    /// The state is the one after this height.
    pub height: u64,
    /// Its root, hexadecimal.
    pub state_root: String,
    /// It has 2^depth chunks.
    pub depth: u8,
    /// Pairs in all.
    pub pairs: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// What goes with a snapshot.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct StandpointView {
    /// The log's right edge, hexadecimal.
    pub log_frontier: String,
    /// Outcomes of the block at its height, hexadecimal.
    pub outcomes: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct SnapshotsView {
    pub(crate) snapshots: Vec<SnapshotView>,
}

/// The network as one node knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkView {
    /// Network id, hexadecimal.
    pub network: String,
    /// Its name.
    pub name: String,
    /// Newest committed height.
    pub height: u64,
    /// Results up to this height are certified by a header.
    pub certified_height: u64,
    /// Leaves of the log.
    pub log_size: u64,
    /// Parameters in force.
    pub parameters: serde_json::Value,
    /// Validators in force.
    pub validators: Vec<ValidatorView>,
    /// Validators that are out of the set until a verdict on their evidence passes.
    #[serde(default)]
    pub suspended_validators: Vec<ValidatorView>,
    /// The key that signs this node's checkpoints, once it signed one.
    #[serde(default)]
    pub checkpoint_key: Option<CheckpointKeyView>,
    /// Bounds of the node's API.
    pub limits: LimitsView,
}

/// One validator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ValidatorView {
    /// Its id, hexadecimal.
    pub id: String,
    /// Long-term P-256 key, SEC1 compressed, hexadecimal.
    pub public_key: String,
    /// libp2p peer id, hexadecimal.
    pub peer_id: String,
    /// The party that runs it, hexadecimal.
    pub party: String,
}

/// A node's checkpoint key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckpointKeyView {
    /// Key id, hexadecimal.
    pub id: String,
    /// Word of the suite.
    pub suite: String,
    /// SEC1 compressed, hexadecimal.
    pub public_key: String,
    /// SubjectPublicKeyInfo in PEM.
    pub pem: String,
}

/// Bounds of one node's API.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitsView {
    /// Bytes of a batch.
    pub batch_bytes_max: usize,
    /// Statements of a batch, and ids of a bulk query.
    pub batch_statements_max: usize,
    /// Bundles of one bulk query.
    pub bundles_max: usize,
    /// Longest wait of a request, milliseconds.
    pub wait_max_ms: u64,
}

/// RFC 9162 consistency proof.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConsistencyView {
    /// Hashes, hexadecimal.
    pub(crate) path: Vec<String>,
}

/// Part of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// CloudEvents in log order.
    pub events: Vec<FeedEvent>,
    /// The cursor of the next page.
    pub next: u64,
}

/// One registered statement: a CloudEvent (CloudEvents 1.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEvent {
    /// Statement id, hexadecimal.
    pub id: String,
    /// `stele.` and the command, or `stele.opaque`.
    pub r#type: String,
    /// Block time, RFC 3339.
    pub time: String,
    /// What the feed says of the statement.
    pub data: FeedData,
}

/// What the feed says of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedData {
    /// Log index.
    pub index: u64,
    /// Height of the block.
    pub height: u64,
    /// Position in the block.
    pub position: u32,
    /// Issuer, hexadecimal.
    pub issuer: String,
    /// Object of the command, hexadecimal.
    #[serde(default)]
    pub object: Option<String>,
}

/// A class key, sealed for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassKeyView {
    /// Custody key of the node that made it, hexadecimal.
    pub origin: String,
    /// Number of the class of records.
    pub class: u16,
    /// Its id, hexadecimal.
    pub id: String,
    /// Encapsulated key and ciphertext, hexadecimal.
    pub sealed: String,
}

/// What a node is asked to keep a copy of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Custody key of the node that asks, hexadecimal.
    pub origin: String,
    /// Root of the sealed body, hexadecimal.
    pub root: String,
    /// Bytes of the sealed body.
    pub length: u64,
    /// Year in which its retention ends; 0 if it does not.
    pub retention_year: u16,
    /// No statement in the blocks up to this height refers to it; absent if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreferenced_at: Option<u64>,
    /// Its class key, sealed for the node that is asked.
    pub class_key: ClassKeyView,
}

/// A node's word that it holds a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyView {
    /// `stele_types::custody::CustodyReceipt`, hexadecimal.
    pub receipt: String,
}

/// Roots of bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootsView {
    /// Hexadecimal.
    pub roots: Vec<String>,
}

/// A body that a node keeps for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// Root of the sealed body, hexadecimal.
    pub root: String,
    /// Year in which its retention ends; 0 if it does not.
    pub retention_year: u16,
    /// Whether no statement refers to it yet.
    pub unreferenced: bool,
}

/// Some of the bodies that a node keeps for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPage {
    /// Height up to which blocks were looked at for references.
    pub height: u64,
    /// The bodies.
    pub bodies: Vec<KeptView>,
    /// Bodies that the node could not read, or not tell whose they are.
    #[serde(default)]
    pub unreadable: u64,
    /// Where to go on, if there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// Objects to skip there.
    #[serde(default)]
    pub skip: u32,
}

/// A body that a node stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredView {
    /// Root of the sealed form.
    pub root: String,
    /// Number of its class of records.
    pub class: u8,
    /// Year in which its retention ends; 0: it does not.
    pub retention_year: u16,
}

/// Some of the bodies that a node stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPage {
    /// The bodies.
    pub bodies: Vec<StoredView>,
    /// Directories of segments that the node could not read.
    #[serde(default)]
    pub unreadable: u64,
    /// Where to go on, if there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// Objects to skip there.
    #[serde(default)]
    pub skip: u32,
}

/// Class keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassKeysView {
    /// Each sealed for the node that asked.
    pub keys: Vec<ClassKeyView>,
}

/// Where a body has to be, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyCustodyView {
    /// The level that its class asks for.
    pub wanted: String,
    /// The level that it has.
    pub reached: String,
    /// What other nodes signed for it.
    #[serde(default)]
    pub receipts: Vec<CustodyReceiptView>,
}

impl BodyCustodyView {
    /// Whether it is where it has to be.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.wanted == self.reached
    }
}

/// A custody receipt, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodyReceiptView {
    /// Checkpoint key of the node that holds the copy, SEC1 compressed, hexadecimal.
    pub key: String,
    /// `stele_types::custody::CustodyReceipt`, hexadecimal.
    pub receipt: String,
}

/// A body that a node took.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BlobView {
    /// Root of the sealed form, hexadecimal.
    pub root: String,
    /// `HMAC-SHA-256(salt, body)`, hexadecimal.
    pub commitment: String,
    /// The salt, hexadecimal; as secret as the body.
    pub salt: String,
    /// Bytes of the body.
    pub length: u64,
    /// Where it has to be, and where it is.
    pub custody: BodyCustodyView,
}
