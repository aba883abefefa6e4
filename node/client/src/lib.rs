//! The typed HTTP client of a Stele node.
//!
//! A [`Client`] knows several nodes of one network and speaks to one of them at a time over a kept-alive connection.
//! Everything it sends may be sent twice: statements are idempotent by their id, so a request whose node dies, is not
//! ready or is saturated goes to the next node or waits as long as the node asked.
//!
//! ```text
//!  resource (entries, batch, receipts, state, feed) ──► retry (fail-over, Retry-After) ──► transport (pool, TLS, bounds)
//! ```
//!
//! What it is not: it verifies nothing. What it returns are bytes and claims of one node; `stele-verify` decides what
//! they prove.

#![forbid(unsafe_code)]

mod connector;
mod content;
mod endpoint;
mod error;
mod model;
mod resources;
mod retry;
mod tls;
mod transport;

pub use endpoint::{Endpoint, Scheme};
pub use error::ClientError;
pub use model::{
    BlobView, BodyCustodyView, CheckpointKeyView, ClassKeyView, ClassKeysView, CopyRequest, CopyView,
    CustodyReceiptView, FeedData, FeedEvent, FeedPage, KeptPage, KeptView, LimitsView, NetworkView, Problem, RootsView,
    SnapshotView, StandpointView, StoredPage, StoredView, ValidatorView,
};
pub use resources::{BundleParts, Wait};
pub use retry::RetryPolicy;
pub use tls::{ClientIdentity, TlsSettings};
pub use transport::{Bounds, Client, ClientBuilder, Response};
