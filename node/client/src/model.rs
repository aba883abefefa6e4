//! The JSON forms of answers that no CBOR form exists for. Unknown fields are ignored, so that a newer node can say more.

use serde::{Deserialize, Serialize};

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem {
    /// One line for people.
    #[serde(default)]
    pub title: Option<String>,
    /// What happened this time.
    #[serde(default)]
    pub detail: Option<String>,
    /// The stable code.
    #[serde(default)]
    pub code: Option<String>,
    /// How long to wait before the same request.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// Where a node stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkView {
    /// Network id, hexadecimal.
    pub network: String,
    /// Newest committed height.
    pub height: u64,
    /// Leaves of the log after it.
    pub log_size: u64,
    /// Root of the log after it, hexadecimal.
    pub log_root: String,
    /// Root of the state tree after it, hexadecimal.
    pub state_root: String,
}

/// Part of the feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedPage {
    /// Registered statements in log order.
    pub items: Vec<FeedItem>,
    /// The cursor of the next page.
    pub next: u64,
}

/// One registered statement of the feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedItem {
    /// Log index.
    pub index: u64,
    /// Statement id, hexadecimal.
    pub statement: String,
    /// What the node says of it besides.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}
