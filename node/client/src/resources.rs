//! The resources of a node, one function each.

use std::time::Duration;

use bytes::Bytes;
use stele_types::cbor::{self, Decoder, Field};
use stele_types::exchange::{BundleReply, CertifiedHeader, StateProof, StatementStatus, Submitted};
use stele_types::limits::{BUNDLE_BYTES_MAX, STATEMENT_BYTES_MAX};
use stele_types::{Height, StatementId};

use crate::error::ClientError;
use crate::model::{FeedPage, NetworkView};
use crate::transport::{Ask, Client, Response};

const JSON: &str = "application/json";
const COSE: &str = "application/cose";
const CBOR: &str = "application/cbor";
const CBOR_SEQUENCE: &str = "application/cbor-seq";

/// What a status request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: the answer comes at once.
    None,
    /// A block that holds the statement.
    Committed(Duration),
    /// A header that certifies its outcome.
    Certified(Duration),
}

impl Wait {
    fn query(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Committed(wait) => format!("?wait_ms={}", wait.as_millis()),
            Self::Certified(wait) => format!("?wait_ms={}&wait=certified", wait.as_millis()),
        }
    }
    const fn duration(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Committed(wait) | Self::Certified(wait) => wait,
        }
    }
}

/// Answer to one statement.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Path of the status or of the registered entry.
    pub location: Option<String>,
    /// Whether the statement is registered already (201) or only accepted (202), which promises nothing.
    pub is_registered: bool,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// `POST /entries`: registers one signed statement.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal at admission carries the code.
    pub async fn register(&self, entry: Bytes, wait: Duration) -> Result<Accepted, ClientError> {
        let path =
            if wait.is_zero() { "/entries".to_owned() } else { format!("/entries?wait_ms={}", wait.as_millis()) };
        let response = self.ask(Ask::post(&path, COSE_OR_CBOR, COSE, entry).waiting(wait)).await?;
        Ok(Accepted { is_registered: response.status == 201, location: response.location, body: response.body })
    }

    /// `POST /v1/batch`: submits a CBOR sequence of statements; the answers come in the order of the statements.
    ///
    /// # Errors
    /// [`ClientError`] for the batch as a whole; each statement's own refusal is in its item.
    pub async fn submit_batch(&self, statements: Bytes) -> Result<Vec<Submitted>, ClientError> {
        sequence(&self.ask(Ask::post("/v1/batch", CBOR_SEQUENCE, CBOR_SEQUENCE, statements)).await?)
    }

    /// `GET /v1/statements/{id}`: what became of a statement.
    ///
    /// # Errors
    /// [`ClientError`]; `not_found` when the node does not know the statement.
    pub async fn statement(&self, id: &StatementId, wait: Wait) -> Result<StatementStatus, ClientError> {
        let path = format!("/v1/statements/{id}{}", wait.query());
        value(&self.ask(Ask::get(&path, CBOR).waiting(wait.duration())).await?)
    }

    /// `POST /v1/statuses`: what became of many statements, in the order of the ids.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn statuses(&self, ids: &[StatementId]) -> Result<Vec<StatementStatus>, ClientError> {
        sequence(&self.ask(Ask::post("/v1/statuses", CBOR_SEQUENCE, JSON, id_list(ids))).await?)
    }

    /// `POST /v1/bundles`: quorum bundles of many statements.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bundles(&self, ids: &[StatementId]) -> Result<Vec<BundleReply>, ClientError> {
        sequence(&self.ask(Ask::post("/v1/bundles", CBOR_SEQUENCE, JSON, id_list(ids))).await?)
    }

    /// `GET /entries/{id}`: the statement as it was registered.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn entry(&self, id: &str) -> Result<Bytes, ClientError> {
        let response = self.ask(Ask::get(&format!("/entries/{id}"), COSE)).await?;
        if response.body.len() > STATEMENT_BYTES_MAX {
            return Err(unexpected(&response, "larger than a statement"));
        }
        Ok(response.body)
    }

    /// `GET /receipts/{id}`: one node's receipt.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipt(&self, id: &str) -> Result<Bytes, ClientError> {
        Ok(self.ask(Ask::get(&format!("/receipts/{id}"), COSE_OR_CBOR)).await?.body)
    }

    /// `GET /bundles/{id}`: the quorum bundle, with the statement itself when `with_entry`.
    ///
    /// # Errors
    /// [`ClientError`]; `not_certified` is retried.
    pub async fn bundle(&self, id: &StatementId, with_entry: bool) -> Result<Bytes, ClientError> {
        let path = format!("/bundles/{id}{}", if with_entry { "?entry=1" } else { "" });
        let response = self.ask(Ask::get(&path, CBOR)).await?;
        if response.body.len() > BUNDLE_BYTES_MAX {
            return Err(unexpected(&response, "larger than a bundle"));
        }
        Ok(response.body)
    }

    /// `GET /v1/headers/{height}`: header and commit certificate.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn header(&self, height: Height) -> Result<CertifiedHeader, ClientError> {
        value(&self.ask(Ask::get(&format!("/v1/headers/{height}"), CBOR)).await?)
    }

    /// `GET /v1/checkpoint`: the newest signed tree head.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn checkpoint(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Ask::get("/v1/checkpoint", COSE_OR_CBOR)).await?.body)
    }

    /// `GET /v1/state/{kind}/{id}`: a value of the state with its proof.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&self, kind: &str, id: &str) -> Result<StateProof, ClientError> {
        value(&self.ask(Ask::get(&format!("/v1/state/{kind}/{id}"), CBOR)).await?)
    }

    /// `GET /v1/feed`: registered statements from a log index on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn feed(&self, cursor: u64, limit: u32) -> Result<FeedPage, ClientError> {
        json(&self.ask(Ask::get(&format!("/v1/feed?cursor={cursor}&limit={limit}"), JSON)).await?)
    }

    /// `GET /v1/network`: where the node stands.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn network(&self) -> Result<NetworkView, ClientError> {
        json(&self.ask(Ask::get("/v1/network", JSON)).await?)
    }

    /// `GET /readyz`: whether the node takes statements.
    ///
    /// # Errors
    /// [`ClientError`] with what it says when it is not.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.ask(Ask::get("/readyz", "*/*")).await.map(drop)
    }

    /// `GET /metrics`: the node's metrics in the Prometheus text format.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.ask(Ask::get("/metrics", "text/plain")).await?;
        String::from_utf8(response.body.to_vec()).map_err(|_| ClientError::Unexpected {
            endpoint: response.endpoint.to_string(),
            reason: "metrics are not UTF-8".into(),
        })
    }
}

/// What `POST /entries` and `GET /receipts` answer with.
const COSE_OR_CBOR: &str = "application/cose, application/cbor, application/json";

fn json<T: serde::de::DeserializeOwned>(response: &Response) -> Result<T, ClientError> {
    serde_json::from_slice(&response.body).map_err(|error| unexpected(response, &error.to_string()))
}

/// Exactly one CBOR value.
fn value<T: Field>(response: &Response) -> Result<T, ClientError> {
    cbor::from_slice(&response.body).map_err(|error| unexpected(response, &error.to_string()))
}

/// CBOR values one after the other (RFC 8742); each takes at least one byte, so the answer's bound is theirs.
fn sequence<T: Field>(response: &Response) -> Result<Vec<T>, ClientError> {
    let mut decoder = Decoder::new(&response.body);
    let mut values = Vec::new();
    while decoder.position() < response.body.len() {
        let value = T::decode(&mut decoder).map_err(|error| unexpected(response, &error.to_string()))?;
        values.push(value);
    }
    Ok(values)
}

fn unexpected(response: &Response, reason: &str) -> ClientError {
    ClientError::Unexpected { endpoint: response.endpoint.to_string(), reason: reason.to_owned() }
}

fn id_list(ids: &[StatementId]) -> Bytes {
    let quoted: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    Bytes::from(format!("[{}]", quoted.join(",")))
}
