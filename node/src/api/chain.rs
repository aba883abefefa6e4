//! Headers, blocks, checkpoints, tiles.

use axum::Extension;
use axum::extract::{RawQuery, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;
use stele_merkle::tile::{Tile, TileKind, entry_bundle};
use stele_types::exchange::CertifiedBlock;
use stele_types::{Block, Code, LogIndex};

use super::access::Caller;
use super::backend::{Backend, BackendError, SealedHead};
use super::cache::{self, Keep};
use super::format::{self, CBOR, COSE, JSON, OCTETS};
use super::parameters::{self, Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::view::{CertifiedHeaderView, CheckpointView, ConsistencyView, OctetsView};
use crate::metrics::label::ProofKind;

/// A header with this node's certificate for it, and the way to its validators.
#[utoipa::path(
    get, path = "/v1/headers/{height}", tag = "chain",
    params(
        ("height" = u64, Path, description = "Height, from 1"),
        ("from" = Option<u64>, Query, description = "Height whose validators the caller trusts: the chain begins there. 1 by default"),
    ),
    responses(
        (status = 200, description = "Header, certificate, epoch certificates and validator-set changes", content((CertifiedHeaderView = "application/json"), (OctetsView = "application/cbor"))),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn header(
    Extract(state): Extract<State>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = Parameters::read(query.as_deref(), &["from"])?.from()?;
    let form = format::choose(&headers, &[JSON, CBOR])?;
    let height = parameters::height(&text)?;
    let found = state.read(move |backend| backend.header(height, from)).await?;
    let certified = found.ok_or_else(|| Problem::not_found("height"))?;
    // Certificates of one block differ per node, and the chain by where it begins, so the tag names all of them.
    let word = if form == CBOR { "cbor" } else { "json" };
    let tag = format!("{}-{from}-{word}", certified.certificate.hash().to_hex());
    Ok(cache::immutable(&headers, &tag, Keep::Public, || match form {
        CBOR => format::cbor(&certified),
        _ => format::json(&CertifiedHeaderView::from(&certified)),
    }))
}

/// A block with this node's certificate for it. For regulators and operators.
#[utoipa::path(
    get, path = "/v1/blocks/{height}", tag = "chain",
    params(("height" = u64, Path, description = "Height, from 1")),
    responses(
        (status = 200, description = "Block and certificate", body = OctetsView, content_type = "application/cbor"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn block(
    Extract(state): Extract<State>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[CBOR])?;
    let height = parameters::height(&text)?;
    let found = state.read(move |backend| backend.block(height)).await?;
    let (block, certificate) = found.ok_or_else(|| Problem::not_found("height"))?;
    let tag = certificate.hash().to_hex();
    let certified = CertifiedBlock { block, certificate };
    Ok(cache::immutable(&headers, &tag, Keep::Private, || format::cbor(&certified)))
}

/// The newest checkpoint that this node signed. As `application/cose` it is a COSE_Sign1 whose payload is the log root.
#[utoipa::path(
    get, path = "/v1/checkpoint", tag = "log",
    responses(
        (status = 200, description = "The checkpoint", content((CheckpointView = "application/json"), (OctetsView = "application/cose"))),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn checkpoint(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    let form = format::choose(&headers, &[JSON, COSE])?;
    let missing = || Problem::not_found("checkpoint").detail("this node has not signed a checkpoint yet");
    let head = state.backend.checkpoint().ok_or_else(missing)?;
    let response = if form == COSE { format::bytes(COSE, sign1(&head)) } else { format::json(&view(&head)) };
    Ok(cache::volatile(response))
}

fn view(head: &SealedHead) -> CheckpointView {
    let checkpoint = &head.checkpoint;
    CheckpointView {
        network: checkpoint.network.to_hex(),
        height: checkpoint.height.0,
        log_size: checkpoint.log_size,
        log_root: head.log_root.to_hex(),
        state_root: checkpoint.state_root.to_hex(),
        time_ms: checkpoint.time_ms,
        suite: checkpoint.suite.as_str(),
        key: checkpoint.key.to_hex(),
        protected: hex::encode(checkpoint.protected()),
        signature: hex::encode(head.signature),
    }
}

/// COSE_Sign1 with the log root attached: what the receipts of this tree head carry detached.
fn sign1(head: &SealedHead) -> Vec<u8> {
    let protected = head.checkpoint.protected();
    let mut bytes = Vec::with_capacity(protected.len() + 128);
    // Tag 18, array of four; the protected header is longer than 23 bytes and shorter than 65,536.
    let length = u16::try_from(protected.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&[0xd2, 0x84]);
    match u8::try_from(length) {
        Ok(short) => bytes.extend_from_slice(&[0x58, short]),
        Err(_) => {
            bytes.push(0x59);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&protected);
    bytes.push(0xa0);
    bytes.extend_from_slice(&[0x58, 32]);
    bytes.extend_from_slice(&head.log_root.0);
    bytes.extend_from_slice(&[0x58, 64]);
    bytes.extend_from_slice(&head.signature);
    bytes
}

/// A tile of the log (C2SP tlog-tiles). Hash tiles are for everyone, entry bundles for regulators.
#[utoipa::path(
    get, path = "/tile/{tile}", tag = "log",
    params(("tile" = String, Path, description = "`<level>/<index>[.p/<width>]` or `entries/<index>[.p/<width>]`")),
    responses(
        (status = 200, description = "The tile's bytes; they never change", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn tile(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[OCTETS])?;
    let path = format!("tile/{text}");
    let tile = Tile::parse(&path).map_err(|_| Problem::parameter("tile", "not a path of C2SP tlog-tiles"))?;
    let entries = tile.kind() == TileKind::Entries;
    if entries && !caller.may_range() {
        let detail = "entry bundles are for regulators; fetch own entries through /v1/feed and /entries";
        return Err(if caller.is_party() {
            Problem::new(Code::Forbidden).detail(detail)
        } else {
            Problem::new(Code::ClientUnauthenticated).detail(detail)
        });
    }
    let read = state.read(move |backend| if entries { entry_tile(backend, &tile) } else { backend.tile(&tile) }).await;
    state.metrics.log.proof(ProofKind::Tile, matches!(read, Ok(Some(_))));
    let bytes = read?.ok_or_else(|| Problem::not_found("tile").detail("the log does not have all of this tile yet"))?;
    let keep = if entries { Keep::Private } else { Keep::Public };
    // A path names the same bytes for ever, so it is its own tag.
    Ok(cache::immutable(&headers, &path, keep, || format::bytes(OCTETS, bytes)))
}

fn entry_tile(backend: &dyn Backend, tile: &Tile) -> Result<Option<Vec<u8>>, BackendError> {
    if !tile.is_in(backend.standing().log_size) {
        return Ok(None);
    }
    let mut leaves = Leaves::default();
    let mut entries = Vec::with_capacity(usize::from(tile.width()));
    for offset in 0..u64::from(tile.width()) {
        let Some(leaf) = leaves.read(backend, LogIndex(tile.first() + offset))? else { return Ok(None) };
        entries.push(leaf.entry);
    }
    entry_bundle(entries.iter().map(|entry| &**entry))
        .map(Some)
        .map_err(|error| BackendError::Failed(error.to_string().into()))
}

/// Reads leaves in order, each block once.
#[derive(Default)]
pub(super) struct Leaves {
    block: Option<Block>,
}

/// A leaf with its place.
pub(super) struct Leaf {
    pub(super) height: u64,
    pub(super) position: u32,
    pub(super) time_ms: u64,
    pub(super) entry: std::sync::Arc<[u8]>,
}

impl Leaves {
    pub(super) fn read(&mut self, backend: &dyn Backend, index: LogIndex) -> Result<Option<Leaf>, BackendError> {
        let Some(location) = backend.location_of_leaf(index)? else { return Ok(None) };
        let height = stele_types::Height(location.height());
        if self.block.as_ref().is_none_or(|block| block.header.height != height) {
            let Some((block, _)) = backend.block(height)? else { return Err(BackendError::Pruned) };
            self.block = Some(block);
        }
        let position = location.position();
        Ok(self.block.as_ref().and_then(|block| {
            let entry = block.entries.get(usize::try_from(position).ok()?)?.clone();
            Some(Leaf { height: height.0, position, time_ms: block.header.time_ms, entry })
        }))
    }
}

/// RFC 9162 consistency proof between two sizes of the log.
#[utoipa::path(
    get, path = "/v1/consistency", tag = "log",
    params(
        ("old" = u64, Query, description = "Smaller size, from 1"),
        ("new" = u64, Query, description = "Larger size"),
    ),
    responses(
        (status = 200, description = "The proof", body = ConsistencyView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn consistency(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = Parameters::read(query.as_deref(), &["old", "new"])?;
    format::choose(&headers, &[JSON])?;
    let size = state.backend.standing().log_size;
    let new = query.number("new", 1, size)?.ok_or_else(|| Problem::parameter("new", "name the larger size"))?;
    let old = query.number("old", 1, new)?.ok_or_else(|| Problem::parameter("old", "name the smaller size"))?;
    let read = state.read(move |backend| backend.consistency(old, new)).await;
    state.metrics.log.proof(ProofKind::Consistency, read.is_ok());
    let path = read?.iter().map(stele_types::Hash::to_hex).collect();
    let view = ConsistencyView { old, new, path };
    Ok(cache::immutable(&headers, &format!("{old}-{new}"), Keep::Public, || format::json(&view)))
}
