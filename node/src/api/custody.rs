//! Copies of bodies: what nodes ask of each other, and what a party is told of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use stele_client::CopyRequest;
use stele_hsm::custody::CustodyPublicKey;
use stele_storage::StorageError;
use stele_types::record::RecordClass;
use stele_types::{Code, Hash, cbor};

use super::access::Caller;
use super::backend::BackendError;
use super::blobs;
use super::body::content_type;
use super::cache;
use super::format::{self, JSON};
use super::parameters::{self, Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::view::{BodyCustodyView, ClassKeysView, CopyRequestView, CopyView, KeptBodiesView, KeptBodyView, RootsView};
use crate::config::CustodyLevel;
use crate::payload::{AskedCopy, Custody, CustodyError, PayloadError};

/// Longest request: a thousand roots.
const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// Least time that a question for a copy takes: another node is asked.
const WAIT_MS: u64 = 2_000;

/// Most roots of one question.
const ROOTS_MAX: usize = 1024;

/// Where a body has to be, and where it is. For the party that put it, regulators and operators.
///
/// A receipt is the word of another node that it holds a copy, signed by its checkpoint key at the time of the answer.
#[utoipa::path(
    get, path = "/v1/blobs/{root}/custody", tag = "payload",
    params(
        ("root" = String, Path, description = "Root of the sealed form: 64 hexadecimal digits"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for a copy, two seconds at least"),
    ),
    responses(
        (status = 200, description = "The level that its class asks for, and the one that it has", body = BodyCustodyView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_body(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(root): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(query.as_deref(), &["wait_ms"])?;
    let wait = parameters.number("wait_ms", 0, state.limits.wait_max_ms)?.unwrap_or(WAIT_MS).max(WAIT_MS);
    format::choose(&headers, &[JSON])?;
    let root = parameters::root(&root)?;
    let payload = blobs::payload(&state)?;
    let sealed = payload.sealed(&root).await.map_err(blobs::problem)?;
    let header = sealed.header().clone();
    drop(sealed);
    if !caller.is(&header.party) && !caller.may_copy() {
        return Err(Problem::not_found("body"));
    }
    let _transfer = state.transfers.take(Some(caller.party()?.party), 1).map_err(Problem::new)?;
    let class = header.class;
    if let Some(custody) = state.backend.custody()
        && !custody.came_here(&header).await
    {
        return Err(Problem::not_found("body that came to this node; ask the node that took it"));
    }
    let view = reached_within(&state, root, class, Duration::from_millis(wait)).await;
    Ok(cache::volatile(format::json(&view)))
}

/// Where a body of this node is, as soon as it is where its class asks for it, or after `wait`.
pub(super) async fn reached_within(state: &State, root: Hash, class: RecordClass, wait: Duration) -> BodyCustodyView {
    let (custody, cold) = (state.backend.custody(), state.backend.cold());
    let level = custody.as_ref().map_or(CustodyLevel::Local, |custody| custody.level(class));
    let copied = async {
        let custody = custody.as_ref().filter(|custody| custody.wants_copy(class))?;
        custody.copied_within(root, wait).await
    };
    let held = async {
        match &cold {
            Some(cold) if level == CustodyLevel::Cold => cold.reached_within(root, wait).await,
            Some(cold) => cold.holds(&root).await,
            None => false,
        }
    };
    let (copied, held) = tokio::join!(copied, held);
    BodyCustodyView::new(level, copied.as_ref(), held)
}

/// Keeps a copy of a sealed body, which the node fetches from the one that asks, and signs for it. For nodes that name each
/// other in their configurations.
#[utoipa::path(
    post, path = "/v1/custody/copies", tag = "payload",
    request_body(content = CopyRequestView),
    responses(
        (status = 200, description = "The copy is durable, and every byte of it was verified", body = CopyView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
        (status = "5XX", description = "Not taken now", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn copy(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (asked, party): (CopyRequest, _) = read(&state, &caller, request).await?;
    let custody = custody(&state)?;
    let transfer = state.transfers.take(Some(party), 1).map_err(Problem::new)?;
    let network = state.backend.genesis().network();
    let asked =
        AskedCopy::read(&asked, network).ok_or_else(|| Problem::new(Code::Malformed).detail("no copy request"))?;
    // Also when whoever asked has gone meanwhile: the copy is wanted.
    let kept = tokio::spawn(async move {
        let _transfer = transfer;
        custody.keep(&asked).await
    });
    let kept = kept.await;
    let receipt = kept.map_err(|_| Problem::new(Code::Internal))?.map_err(problem)?;
    Ok(cache::volatile(format::json(&CopyView { receipt: hex::encode(cbor::to_vec(&receipt)) })))
}

/// Which of some sealed bodies are not here. For operators.
#[utoipa::path(
    post, path = "/v1/custody/missing", tag = "payload",
    request_body(content = RootsView),
    responses(
        (status = 200, description = "Those that are missing", body = RootsView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn missing(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (asked, _): (RootsView, _) = read(&state, &caller, request).await?;
    let roots: Option<Vec<Hash>> = asked.roots.iter().map(|root| Hash::from_hex(root)).collect();
    let roots = roots.filter(|roots| roots.len() <= ROOTS_MAX);
    let roots = roots.ok_or_else(|| {
        Problem::new(Code::Malformed).detail(format!("send at most {ROOTS_MAX} roots of 64 hexadecimal digits"))
    })?;
    let missing = custody(&state)?.missing(&roots).await.map_err(problem)?;
    let roots = missing.iter().map(|root| root.to_hex().to_string()).collect();
    Ok(cache::volatile(format::json(&RootsView { roots })))
}

/// Some of the bodies here whose class keys a node made: those that came to it. For nodes that name each other.
#[utoipa::path(
    get, path = "/v1/custody/bodies", tag = "payload",
    params(
        ("origin" = String, Query, description = "Custody key of the node: 130 hexadecimal digits"),
        ("from" = Option<u32>, Query, description = "Where to go on: `next` of the answer before"),
        ("skip" = Option<u32>, Query, description = "`skip` of the answer before"),
    ),
    responses(
        (status = 200, description = "Bodies, and where to go on", body = KeptBodiesView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn bodies(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(query.as_deref(), &["origin", "from", "skip"])?;
    format::choose(&headers, &[JSON])?;
    let origin = key("origin", &parameters)?;
    let (from, skip) = parameters.place()?;
    let kept = custody(&state)?.kept_for(&origin, from, skip).await.map_err(problem)?;
    let bodies = kept.bodies.iter().map(KeptBodyView::from).collect();
    let (next, skip) = kept.next.map_or((None, 0), |(next, skip)| (Some(next), skip));
    let view = KeptBodiesView { height: kept.height.0, bodies, unreadable: kept.unreadable, next, skip };
    Ok(cache::volatile(format::json(&view)))
}

/// All class keys of this node, sealed for another one. For nodes that name each other.
#[utoipa::path(
    get, path = "/v1/custody/class-keys", tag = "payload",
    params(("for" = String, Query, description = "Custody key of the other node: 130 hexadecimal digits")),
    responses(
        (status = 200, description = "Only that node can open them", body = ClassKeysView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn class_keys(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(query.as_deref(), &["for"])?;
    format::choose(&headers, &[JSON])?;
    let recipient = key("for", &parameters)?;
    let keys = custody(&state)?.class_keys_for(&recipient).await.map_err(problem)?;
    Ok(cache::volatile(format::json(&ClassKeysView::new(keys))))
}

/// What a party sends, and which it is.
async fn read<T: DeserializeOwned>(
    state: &State,
    caller: &Caller,
    request: Request,
) -> Result<(T, stele_types::PartyId), Problem> {
    let party = caller.party()?.party;
    let (parts, body) = request.into_parts();
    content_type(&parts.headers, &[JSON])?;
    format::choose(&parts.headers, &[JSON])?;
    let reserved = state.bodies.read(party, &parts.headers, body, REQUEST_BYTES_MAX).await?;
    let bytes: Bytes = reserved.bytes.clone();
    let read =
        serde_json::from_slice(&bytes).map_err(|error| Problem::new(Code::Malformed).detail(error.to_string()))?;
    Ok((read, party))
}

fn key(name: &'static str, parameters: &Parameters<'_>) -> Result<CustodyPublicKey, Problem> {
    let key = parameters.word(name).and_then(|word| hex::decode(word).ok()).and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| Problem::parameter(name, "a custody key: 130 hexadecimal digits"))
}

fn custody(state: &State) -> Result<Arc<Custody>, Problem> {
    blobs::payload(state)?;
    state
        .backend
        .custody()
        .ok_or_else(|| Problem::new(Code::NotFound).detail("this node keeps no copies: it has no [payload.custody]"))
}

fn problem(error: CustodyError) -> Problem {
    match error {
        CustodyError::Payload(PayloadError::Storage(StorageError::NotFound)) => Problem::not_found("body"),
        CustodyError::Payload(PayloadError::Custody(error)) => {
            tracing::warn!(code = error.code(), %error, "a class key is refused");
            Problem::new(Code::BodySealed).detail("the class key was not sealed for this node")
        }
        CustodyError::Payload(error) => blobs::problem(error),
        CustodyError::Stranger => Problem::new(Code::Forbidden)
            .detail("this node's configuration does not name that custody key: see payload.custody.keepers"),
        CustodyError::TooLong { bytes_max } => {
            Problem::new(Code::TooLarge).detail(format!("a sealed body here has at most {bytes_max} bytes"))
        }
        CustodyError::Elsewhere => Problem::not_found("body that came to this node"),
        CustodyError::Busy => Problem::new(Code::Saturated),
        error @ (CustodyError::Keeper { .. } | CustodyError::Foreign { .. } | CustodyError::Nobody) => {
            tracing::warn!(code = error.code(), %error, "a copy cannot be fetched");
            Problem::new(Code::NotReady).detail("the body cannot be fetched from the node that asks")
        }
        error => BackendError::Failed(Box::new(error)).into(),
    }
}

/// The status of an answer to who put a body.
pub(super) fn status(view: &BodyCustodyView) -> StatusCode {
    if view.is_reached() { StatusCode::CREATED } else { StatusCode::ACCEPTED }
}
