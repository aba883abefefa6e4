//! The resources of a node, one function each.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use stele_evidence::exchange::{Activated, Activation, Challenge, Identity};
use stele_evidence::package::{PACKAGE_LENGTH_MAX, PackageEncoding};
use stele_types::cbor::{self, Decoder, Field};
use stele_types::exchange::{BundleReply, CertifiedBlock, CertifiedHeader, StateProof, StatementStatus, Submitted};
use stele_types::limits::{BUNDLE_BYTES_MAX, GENESIS_BYTES_MAX, PATH_MAX, STATEMENT_BYTES_MAX};
use stele_types::record::RecordClass;
use stele_types::{Hash, Height, ObjectId, StatementId};

use crate::error::ClientError;
use crate::model::{
    BlobView, BodyCustodyView, ClassKeysView, ConsistencyView, CopyRequest, CopyView, FeedPage, KeptPage, NetworkView,
    RootsView, SnapshotView, SnapshotsView, StandpointView, StoredPage,
};
use crate::transport::{Ask, Client, Response};

const JSON: &str = "application/json";
const COSE: &str = "application/cose";
const CBOR: &str = "application/cbor";
const OCTETS: &str = "application/octet-stream";
const CBOR_SEQUENCE: &str = "application/cbor-seq";
/// Nodes of a consistency path: one more than an inclusion path (RFC 9162 section 2.1.4).
const CONSISTENCY_PATH_MAX: usize = PATH_MAX + 1;

/// Bytes a second of a transfer at least: a slower one is given up.
const TRANSFER_RATE_MIN: u64 = 256 << 10;

/// What a quorum bundle carries beside the proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleParts {
    /// The statement itself.
    pub entry: bool,
    /// What the node's TPM says of the key that signed the checkpoint.
    pub signer: bool,
}

/// What a status request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: the answer comes at once.
    None,
    /// A block that holds the statement.
    Executed(Duration),
    /// A header that certifies its outcome.
    Certified(Duration),
}

impl Wait {
    fn query(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Executed(wait) => format!("?wait_ms={}&wait=executed", wait.as_millis()),
            Self::Certified(wait) => format!("?wait_ms={}&wait=certified", wait.as_millis()),
        }
    }
    const fn duration(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Executed(wait) | Self::Certified(wait) => wait,
        }
    }
}

impl Client {
    /// `POST /entries`: registers one signed statement and waits for its outcome as long as `wait` says. Only an answer
    /// whose progress is `certified` is an acknowledgement.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal at admission carries the code.
    pub async fn register(&self, entry: Bytes, wait: Wait) -> Result<StatementStatus, ClientError> {
        let path = format!("/entries{}", wait.query());
        value(&self.ask(Ask::post(&path, CBOR, COSE, entry).waiting(wait.duration())).await?)
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
    pub async fn statuses(&self, ids: &[StatementId], wait: Wait) -> Result<Vec<StatementStatus>, ClientError> {
        let path = format!("/v1/statuses{}", wait.query());
        let ask = Ask::post(&path, CBOR_SEQUENCE, CBOR_SEQUENCE, id_sequence(ids)).waiting(wait.duration());
        sequence(&self.ask(ask).await?)
    }

    /// `POST /v1/bundles`: quorum bundles of many statements, with the statements themselves when `with_entries`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bundles(&self, ids: &[StatementId], with_entries: bool) -> Result<Vec<BundleReply>, ClientError> {
        let entries = if with_entries { "&entry=1" } else { "" };
        let path = format!("/v1/bundles?from={}{entries}", self.trusted());
        sequence(&self.ask(Ask::post(&path, CBOR_SEQUENCE, CBOR_SEQUENCE, id_sequence(ids))).await?)
    }

    /// `GET /entries/{entry}`: the statement of an id, or of a log index, as it was registered.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn entry(&self, entry: &str) -> Result<Bytes, ClientError> {
        let response = self.ask(Ask::get(&format!("/entries/{}", path_part(entry)), COSE)).await?;
        bounded(response, STATEMENT_BYTES_MAX, "larger than a statement")
    }

    /// `GET /receipts/{entry}`: one node's receipt for a statement id or log index.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipt(&self, entry: &str, wait: Duration) -> Result<Bytes, ClientError> {
        let path = format!("/receipts/{}?wait_ms={}", path_part(entry), wait.as_millis());
        let response = self.ask(Ask::get(&path, COSE).waiting(wait)).await?;
        bounded(response, STATEMENT_BYTES_MAX, "larger than a receipt")
    }

    /// `GET /bundles/{id}`: the encoded quorum bundle with the parts that are asked for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bundle(&self, id: &StatementId, parts: BundleParts, wait: Duration) -> Result<Bytes, ClientError> {
        let entry = if parts.entry { "&entry=1" } else { "" };
        let signer = if parts.signer { "&signer=1" } else { "" };
        let path = format!("/bundles/{id}?from={}&wait_ms={}{entry}{signer}", self.trusted(), wait.as_millis());
        bounded(self.ask(Ask::get(&path, CBOR).waiting(wait)).await?, BUNDLE_BYTES_MAX, "larger than a bundle")
    }

    /// `GET /v1/headers/{height}`: header, commit certificate, and the way to it from the validators that the caller
    /// trusts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn header(&self, height: Height) -> Result<CertifiedHeader, ClientError> {
        value(&self.ask(Ask::get(&format!("/v1/headers/{height}?from={}", self.trusted()), CBOR)).await?)
    }

    /// `GET /v1/blocks/{height}`: a block with the node's certificate for it. For regulators and operators.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block(&self, height: Height) -> Result<CertifiedBlock, ClientError> {
        value(&self.ask(Ask::get(&format!("/v1/blocks/{height}"), CBOR)).await?)
    }

    /// `GET /v1/snapshots`: the snapshots that a node can join by, newest first. For regulators and operators.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, ClientError> {
        json::<SnapshotsView>(&self.ask(Ask::get("/v1/snapshots", JSON)).await?).map(|view| view.snapshots)
    }

    /// `GET /v1/snapshots/{height}`: what goes with a snapshot.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn standpoint(&self, height: Height) -> Result<StandpointView, ClientError> {
        json(&self.ask(Ask::get(&format!("/v1/snapshots/{height}"), JSON)).await?)
    }

    /// `GET /v1/snapshots/{height}/{index}`: all pairs of one range of keys, with their proof.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot_chunk(&self, height: Height, index: u64) -> Result<Bytes, ClientError> {
        Ok(self.ask(Ask::get(&format!("/v1/snapshots/{height}/{index}"), OCTETS)).await?.body)
    }

    /// `GET /v1/consistency`: RFC 9162 proof that the log of `new` leaves begins with that of `old` leaves.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, ClientError> {
        let response = self.ask(Ask::get(&format!("/v1/consistency?old={old}&new={new}"), JSON)).await?;
        let view: ConsistencyView = json(&response)?;
        if view.path.len() > CONSISTENCY_PATH_MAX {
            return Err(unexpected(&response, "longer than a consistency proof"));
        }
        let hash = |text: &String| Hash::from_hex(text).ok_or_else(|| unexpected(&response, "a hash is malformed"));
        view.path.iter().map(hash).collect()
    }

    /// `GET /v1/checkpoint`: the newest tree head, signed by this node: a COSE_Sign1 with the log root as payload.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn checkpoint(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Ask::get("/v1/checkpoint", COSE)).await?.body)
    }

    /// `GET /v1/state/{kind}/{id}`: values of the state with their proofs. A certificate number has two: the asset's id,
    /// and the asset.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&self, kind: &str, id: &str) -> Result<Vec<StateProof>, ClientError> {
        let path = format!("/v1/state/{}/{}?from={}", path_part(kind), path_part(id), self.trusted());
        sequence(&self.ask(Ask::get(&path, CBOR_SEQUENCE)).await?)
    }

    /// `GET /v1/feed`: registered statements from a log index on, waiting for new ones as long as `wait` says.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn feed(&self, cursor: u64, limit: u32, wait: Duration) -> Result<FeedPage, ClientError> {
        let path = format!("/v1/feed?cursor={cursor}&limit={limit}&wait_ms={}", wait.as_millis());
        let response = self.ask(Ask::get(&path, "application/cloudevents-batch+json").waiting(wait)).await?;
        let next =
            response.link.as_deref().and_then(next_cursor).ok_or_else(|| unexpected(&response, "no next cursor"))?;
        Ok(FeedPage { events: json(&response)?, next })
    }

    /// `GET /v1/network`: the network as this node knows it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn network(&self) -> Result<NetworkView, ClientError> {
        json(&self.ask(Ask::get("/v1/network", JSON)).await?)
    }

    /// `GET /v1/genesis`: the genesis file, byte for byte. Its SHA-256 is the network id; compare it with the one you
    /// were given.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn genesis(&self) -> Result<Bytes, ClientError> {
        bounded(self.ask(Ask::get("/v1/genesis", CBOR)).await?, GENESIS_BYTES_MAX, "larger than a genesis file")
    }

    /// `PUT /v1/records/{record}/body`: puts what a file holds, which is read while it is sent. Each try makes another blob;
    /// those that nothing refers to are removed by the node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_body(
        &self,
        record: &ObjectId,
        class: RecordClass,
        retention_year: Option<u16>,
        file: &Path,
    ) -> Result<BlobView, ClientError> {
        let year = retention_year.map(|year| format!("&retention_year={year}")).unwrap_or_default();
        let path = format!("/v1/records/{}/body?class={class}{year}", record.to_hex());
        let length = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        let ask = Ask::put_file(&path, JSON, OCTETS, file).waiting(Duration::from_secs(length / TRANSFER_RATE_MIN));
        json(&self.ask(ask).await?)
    }

    /// `GET /v1/blobs/{root}`: bytes of a body from `from` on, at most `bytes_max`, and the length of the whole.
    ///
    /// # Errors
    /// [`ClientError`]; `range_invalid` where it ends at or before `from`.
    pub async fn body(&self, root: &Hash, from: u64, bytes_max: u64) -> Result<(Bytes, u64), ClientError> {
        self.range(&format!("/v1/blobs/{}", root.to_hex()), from, bytes_max).await
    }

    /// `GET /v1/blobs/{root}/sealed`: sealed bytes of a body from `from` on, at most `bytes_max`, and the length of the whole.
    ///
    /// # Errors
    /// As [`Client::body`].
    pub async fn sealed_body(&self, root: &Hash, from: u64, bytes_max: u64) -> Result<(Bytes, u64), ClientError> {
        self.range(&format!("/v1/blobs/{}/sealed", root.to_hex()), from, bytes_max).await
    }

    /// `GET /v1/blobs/{root}/custody`: where a body has to be, and where it is; waits for that at most so long.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn body_custody(&self, root: &Hash, wait: Duration) -> Result<BodyCustodyView, ClientError> {
        let path = format!("/v1/blobs/{}/custody?wait_ms={}", root.to_hex(), wait.as_millis());
        json(&self.ask(Ask::get(&path, JSON).waiting(wait)).await?)
    }

    /// `POST /v1/custody/copies`: has a node keep a copy of a sealed body, which it fetches from the one that asks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn copy_body(&self, asked: &CopyRequest) -> Result<CopyView, ClientError> {
        let wait = Duration::from_secs(asked.length / TRANSFER_RATE_MIN);
        json(&self.ask(Ask::post("/v1/custody/copies", JSON, JSON, written(asked)).waiting(wait)).await?)
    }

    /// `POST /v1/custody/missing`: which of some sealed bodies a node does not have.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn missing_bodies(&self, roots: &RootsView) -> Result<RootsView, ClientError> {
        json(&self.ask(Ask::post("/v1/custody/missing", JSON, JSON, written(roots))).await?)
    }

    /// `GET /v1/custody/bodies`: some of the bodies that a node has and whose class keys the node with the custody key
    /// `origin` made.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kept_bodies(&self, origin: &str, from: u32, skip: u32) -> Result<KeptPage, ClientError> {
        let path = format!("/v1/custody/bodies?origin={origin}&from={from}&skip={skip}");
        json(&self.ask(Ask::get(&path, JSON)).await?)
    }

    /// `GET /v1/custody/class-keys`: all class keys that a node has, sealed for the custody key `recipient`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn class_keys(&self, recipient: &str) -> Result<ClassKeysView, ClientError> {
        let path = format!("/v1/custody/class-keys?for={recipient}");
        json(&self.ask(Ask::get(&path, JSON)).await?)
    }

    async fn range(&self, path: &str, from: u64, bytes_max: u64) -> Result<(Bytes, u64), ClientError> {
        self.range_of(Ask::get(path, OCTETS), from, bytes_max).await
    }

    async fn range_of(&self, ask: Ask<'_>, from: u64, bytes_max: u64) -> Result<(Bytes, u64), ClientError> {
        let last = from.saturating_add(bytes_max.max(1)) - 1;
        let ask = ask.range(from, last).waiting(Duration::from_secs(bytes_max / TRANSFER_RATE_MIN));
        let response = self.ask(ask).await?;
        // A node, or something before it, that ignores ranges must not be taken for one that gives them.
        let span = response.content_range.as_deref().and_then(content_range);
        match span {
            Some((first, end, total)) if first == from && end > first && end - first == response.body.len() as u64 => {
                Ok((response.body, total))
            }
            _ => Err(unexpected(&response, "the answer is not the range that was asked for")),
        }
    }

    /// `GET /v1/storage` of the operator's listener: how the payload store is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn storage(&self) -> Result<serde_json::Value, ClientError> {
        json(&self.ask(Ask::get("/v1/storage", JSON)).await?)
    }

    /// `POST /v1/storage/scrub` of the operator's listener.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn scrub_storage(&self, token: &str) -> Result<serde_json::Value, ClientError> {
        let ask = Ask::post("/v1/storage/scrub", JSON, JSON, Bytes::new()).showing(token);
        json(&self.ask(ask).await?)
    }

    /// `POST /v1/storage/rebuild` of the operator's listener.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rebuild_storage(&self, token: &str) -> Result<serde_json::Value, ClientError> {
        let ask = Ask::post("/v1/storage/rebuild", JSON, JSON, Bytes::new()).showing(token);
        json(&self.ask(ask).await?)
    }

    /// `GET /v1/storage/bodies` of the operator's listener: some of the bodies that are stored, from where the answer before
    /// says.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stored_bodies(&self, token: &str, from: u32, skip: u32) -> Result<StoredPage, ClientError> {
        let path = format!("/v1/storage/bodies?from={from}&skip={skip}");
        json(&self.ask(Ask::get(&path, JSON).showing(token)).await?)
    }

    /// `GET /v1/storage/bodies/{root}` of the operator's listener: as [`Client::sealed_body`].
    ///
    /// # Errors
    /// As [`Client::body`].
    pub async fn stored_body(
        &self,
        token: &str,
        root: &Hash,
        from: u64,
        bytes_max: u64,
    ) -> Result<(Bytes, u64), ClientError> {
        let path = format!("/v1/storage/bodies/{}", root.to_hex());
        self.range_of(Ask::get(&path, OCTETS).showing(token), from, bytes_max).await
    }

    /// `GET /v1/storage/blocks/{root}` of the operator's listener: bytes of a segment of blocks that the node has archived.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stored_blocks(&self, token: &str, root: &Hash, from: u64, bytes: usize) -> Result<Bytes, ClientError> {
        let path = format!("/v1/storage/blocks/{}?from={from}&bytes={bytes}", root.to_hex());
        Ok(self.ask(Ask::get(&path, OCTETS).showing(token)).await?.body)
    }

    /// `POST /v1/storage/drives/{drive}` of the operator's listener.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn replace_drive(
        &self,
        token: &str,
        drive: usize,
        path: &Path,
    ) -> Result<serde_json::Value, ClientError> {
        let asked = serde_json::json!({ "path": path.display().to_string() }).to_string();
        let resource = format!("/v1/storage/drives/{drive}");
        json(&self.ask(Ask::post(&resource, JSON, JSON, asked.into()).showing(token)).await?)
    }

    /// `GET /v1/attest/identity`: by what the node's machine and its keys are known.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn attest_identity(&self) -> Result<Identity, ClientError> {
        json(&self.ask(Ask::get("/v1/attest/identity", JSON)).await?)
    }

    /// `POST /v1/attest/activate`: has the node's TPM open a credential, which only the one that it was made for can.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn attest_activate(&self, activation: &Activation) -> Result<Activated, ClientError> {
        json(&self.ask(Ask::post("/v1/attest/activate", JSON, JSON, written(activation))).await?)
    }

    /// `POST /v1/attest/quote`: an evidence package that answers the nonce, encoded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn attest_quote(&self, challenge: &Challenge, encoding: PackageEncoding) -> Result<Bytes, ClientError> {
        let ask = Ask::post("/v1/attest/quote", encoding.media_type(), JSON, written(challenge));
        // As JSON it takes a third more.
        bounded(self.ask(ask).await?, PACKAGE_LENGTH_MAX / 3 * 4, "larger than an evidence package")
    }

    /// `GET /v1/attest/log/boot`: the boot event log, as Linux gives it in `binary_bios_measurements`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn attest_boot_log(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Ask::get("/v1/attest/log/boot", OCTETS)).await?.body)
    }

    /// `GET /v1/attest/log/ima`: the kernel's log of what was measured after the boot.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn attest_ima_log(&self) -> Result<Bytes, ClientError> {
        Ok(self.ask(Ask::get("/v1/attest/log/ima", OCTETS)).await?.body)
    }

    /// `GET /readyz`: whether the node takes part.
    ///
    /// # Errors
    /// [`ClientError`] with the reason when it does not.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.ask(Ask::get("/readyz", "*/*")).await.map(drop)
    }

    /// `GET /metrics`: the node's metrics in the Prometheus text format.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.ask(Ask::get("/metrics", "*/*")).await?;
        String::from_utf8(response.body.to_vec()).map_err(|_| ClientError::Unexpected {
            endpoint: response.endpoint.to_string(),
            reason: "metrics are not UTF-8".into(),
        })
    }
}

/// A request that is always the same bytes for the same value.
fn written(value: &impl serde::Serialize) -> Bytes {
    // Strings and numbers: nothing that JSON could not say.
    serde_json::to_vec(value).unwrap_or_default().into()
}

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

fn bounded(response: Response, bytes_max: usize, reason: &str) -> Result<Bytes, ClientError> {
    if response.body.len() > bytes_max { Err(unexpected(&response, reason)) } else { Ok(response.body) }
}

fn unexpected(response: &Response, reason: &str) -> ClientError {
    ClientError::Unexpected { endpoint: response.endpoint.to_string(), reason: reason.to_owned() }
}

/// Statement ids as a CBOR sequence of byte strings.
fn id_sequence(ids: &[StatementId]) -> Bytes {
    ids.iter().flat_map(|id| [0x58, 32].into_iter().chain(id.0)).collect::<Vec<u8>>().into()
}

/// Names and ids are words, digits and dashes; anything else cannot name a resource and is left out, so that no text of a
/// user can reach another path.
fn path_part(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect()
}

/// First byte, end and length of the whole in `bytes 5-9/100`.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (last < total).then_some((first, last + 1, total))
}

/// The cursor in `</v1/feed?cursor=7&limit=100>; rel="next"`.
fn next_cursor(link: &str) -> Option<u64> {
    let (_, rest) = link.split_once("cursor=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_is_read_from_the_link() {
        assert_eq!(next_cursor("</v1/feed?cursor=42&limit=100>; rel=\"next\""), Some(42));
        assert_eq!(next_cursor("</v1/feed?limit=100>; rel=\"next\""), None);
    }

    #[test]
    fn a_range_says_where_it_lies() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 10, 100)));
        for other in ["bytes */100", "bytes 5-9/9", "bytes 5-9/*", "5-9/100", ""] {
            assert_eq!(content_range(other), None, "{other}");
        }
    }

    #[test]
    fn ids_are_byte_strings_of_32_bytes() {
        let ids = id_sequence(&[StatementId([1; 32]), StatementId([2; 32])]);
        assert_eq!((ids.len(), &ids[..3], &ids[34..37]), (68, &[0x58, 32, 1][..], &[0x58, 32, 2][..]));
    }

    #[test]
    fn text_of_a_user_stays_one_part_of_the_path() {
        assert_eq!(path_part("../v1/network?x=1"), "v1networkx1");
        assert_eq!(path_part("ST-110000-DR-2026-00000042-17"), "ST-110000-DR-2026-00000042-17");
    }
}
