//! What is known of statements: status, entry, receipt, quorum bundle.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{RawQuery, Request, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;
use stele_types::exchange::{BundleReply, StatementStatus};
use stele_types::{Bundle, Code, Height, LogIndex, PartyId, Receipt, Statement, StatementId, cbor};

use super::access::Caller;
use super::attest;
use super::backend::{Backend, BackendError, Location};
use super::body::content_type;
use super::cache::{self, Keep};
use super::format::{self, CBOR, CBOR_SEQUENCE, COSE, JSON};
use super::parameters::{self, EntryName, Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::status::{self, SEAL_INTERVAL, next_block};
use super::view::{OctetsView, StatementsView, StatusView, StatusesView};
use crate::metrics::label::ProofKind;

/// Bundles of one bulk request: each is a few kilobytes and some reads of the log, so an answer stays within megabytes.
pub(super) const BUNDLES_MAX: usize = 512;

/// Where a statement is.
#[utoipa::path(
    get, path = "/v1/statements/{statement}", tag = "statements",
    params(
        ("statement" = String, Path, description = "Statement id"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for the outcome"),
        ("wait" = Option<String>, Query, description = "`executed` or `certified` (default)"),
    ),
    responses(
        (status = 200, description = "What is known", content((StatusView = "application/json"), (OctetsView = "application/cbor"))),
        (status = 404, description = "Not known to this node; submit it again", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn status(
    Extract(state): Extract<State>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = Parameters::read(query.as_deref(), &["wait_ms", "wait"])?.wait(state.limits.wait_max_ms)?;
    let form = format::choose(&headers, &[JSON, CBOR])?;
    let found = status::status_after(&state, parameters::statement(&text)?, wait).await?;
    if found.progress.is_none() {
        let detail = "this node does not know the statement; nothing was promised, submit it (again)";
        return Err(Problem::not_found("statement").detail(detail));
    }
    let response = if form == CBOR { format::cbor(&found) } else { format::json(&StatusView::from(&found)) };
    Ok(cache::volatile(response))
}

/// Where many statements are.
#[utoipa::path(
    post, path = "/v1/statuses", tag = "statements",
    params(
        ("wait_ms" = Option<u64>, Query, description = "How long to wait until every outcome is known"),
        ("wait" = Option<String>, Query, description = "`executed` or `certified` (default)"),
    ),
    request_body(content((StatementsView = "application/json"), (OctetsView = "application/cbor-seq"))),
    responses(
        (status = 200, description = "One status for each id, in order; a statement that is not known has no `progress`",
            content((StatusesView = "application/json"), (OctetsView = "application/cbor-seq"))),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn statuses(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let wait = Parameters::read(parts.uri.query(), &["wait_ms", "wait"])?.wait(state.limits.wait_max_ms)?;
    let sent = content_type(&parts.headers, &[CBOR_SEQUENCE, JSON])?;
    let form =
        format::choose(&parts.headers, if sent == JSON { &[JSON, CBOR_SEQUENCE] } else { &[CBOR_SEQUENCE, JSON] })?;
    let body = state.bodies.read(caller.party()?.party, &parts.headers, body, state.limits.batch_bytes_max).await?;
    let ids = parameters::statements(sent, &body.bytes, state.limits.batch_statements_max)?;
    // A long poll holds them and what is known of them for as long as it waits.
    let _kept = body.keep(ids.len() * (size_of::<StatementId>() + 2 * size_of::<StatementStatus>()))?;
    let found = status::statuses(&state, ids, wait).await?;
    Ok(cache::volatile(if form == JSON {
        format::json(&StatusesView { statuses: found.iter().map(StatusView::from).collect() })
    } else {
        format::cbor_sequence(&found)
    }))
}

/// The exact bytes of a statement, and whose they are.
struct Found {
    id: StatementId,
    issuer: PartyId,
    registered: bool,
    entry: Arc<[u8]>,
}

fn find(backend: &dyn Backend, name: EntryName) -> Result<Option<Found>, BackendError> {
    let (location, registered) = match name {
        EntryName::Id(id) => match backend.executed(&id)? {
            Some(executed) => (executed.location, executed.code == Code::Applied),
            None => return Ok(None),
        },
        EntryName::Index(index) => match backend.location_of_leaf(index)? {
            Some(location) => (location, true),
            None => return Ok(None),
        },
    };
    at(backend, location, registered)
}

fn at(backend: &dyn Backend, location: Location, registered: bool) -> Result<Option<Found>, BackendError> {
    let Some(entry) = backend.entry(location)? else { return Ok(None) };
    let statement = Statement::parse(Arc::clone(&entry))
        .map_err(|code| BackendError::Failed(format!("a stored statement does not parse: {code}").into()))?;
    Ok(Some(Found { id: statement.id(), issuer: statement.issuer(), registered, entry }))
}

/// The signed statement itself.
#[utoipa::path(
    get, path = "/entries/{entry}", tag = "statements",
    params(("entry" = String, Path, description = "Statement id, or log index of an own statement")),
    responses(
        (status = 200, description = "The COSE_Sign1, byte for byte", body = OctetsView, content_type = "application/cose"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn entry(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[COSE])?;
    let name = EntryName::read(&text)?;
    if matches!(name, EntryName::Index(_)) {
        caller.party()?;
    }
    let found = state.read(move |backend| find(backend, name)).await?;
    let readable = |found: &Found| match name {
        EntryName::Id(_) => caller.may_read(&found.issuer, found.registered),
        EntryName::Index(_) => caller.may_list(&found.issuer),
    };
    let found = found.filter(readable).ok_or_else(|| Problem::not_found("entry"))?;
    let tag = found.id.to_hex();
    Ok(cache::immutable(&headers, &tag, Keep::Private, || format::bytes(COSE, found.entry.to_vec())))
}

/// A receipt (RFC 9942) under the newest certified checkpoint of this node.
#[utoipa::path(
    get, path = "/receipts/{entry}", tag = "statements",
    params(
        ("entry" = String, Path, description = "Statement id or log index"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for the checkpoint"),
    ),
    responses(
        (status = 200, description = "The COSE Receipt", body = OctetsView, content_type = "application/cose"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn receipt(
    Extract(state): Extract<State>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = Parameters::read(query.as_deref(), &["wait_ms"])?.wait(state.limits.wait_max_ms)?;
    format::choose(&headers, &[COSE])?;
    let name = EntryName::read(&text)?;
    let deadline = Instant::now() + wait.time;
    let answer = sealed(&state, deadline, move |backend| receipt_of(backend, name)).await;
    state.metrics.log.proof(ProofKind::Receipt, matches!(answer, Ok(Some(_))));
    let receipt = answer?.ok_or_else(|| {
        Problem::not_found("receipt").detail("no leaf of that name; a rejected statement has a bundle, no receipt")
    })?;
    Ok(cache::volatile(format::bytes(COSE, cbor::to_vec(&receipt))))
}

fn receipt_of(backend: &dyn Backend, name: EntryName) -> Result<Option<Receipt>, BackendError> {
    let index: Option<LogIndex> = match name {
        EntryName::Index(index) => Some(index),
        EntryName::Id(id) => backend.executed(&id)?.and_then(|executed| executed.index),
    };
    index.map_or(Ok(None), |index| backend.receipt(index))
}

/// The quorum bundle: everything that proves the outcome offline.
#[utoipa::path(
    get, path = "/bundles/{statement}", tag = "statements",
    params(
        ("statement" = String, Path, description = "Statement id"),
        ("entry" = Option<u8>, Query, description = "1: with the statement itself"),
        ("from" = Option<u64>, Query, description = "Height whose validators the caller trusts: the chain begins there. 1 by default"),
        ("signer" = Option<u8>, Query, description = "1: with what the node's TPM says of its checkpoint key"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for the certificate"),
    ),
    responses(
        (status = 200, description = "The bundle", body = OctetsView, content_type = "application/cbor"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn bundle(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = Parameters::read(query.as_deref(), &["entry", "from", "signer", "wait_ms"])?;
    let (wait, with_entry, from) = (query.wait(state.limits.wait_max_ms)?, query.flag("entry")?, query.from()?);
    let with_signer = query.flag("signer")?;
    format::choose(&headers, &[CBOR])?;
    let id = parameters::statement(&text)?;
    let deadline = Instant::now() + wait.time;
    let answer = sealed(&state, deadline, move |backend| bundle_of(backend, &caller, &id, with_entry, from)).await;
    state.metrics.log.proof(ProofKind::Bundle, matches!(answer, Ok(Some(_))));
    let mut bundle = answer?.ok_or_else(|| Problem::not_found("statement"))?;
    if with_signer && bundle.receipt.is_some() {
        bundle.checkpoint_signer = Some(attest::checkpoint_signer(&state).await?);
    }
    Ok(cache::volatile(format::cbor(&bundle)))
}

/// A bundle with the statement in it, when it was asked for and the caller may read it.
fn bundle_of(
    backend: &dyn Backend,
    caller: &Caller,
    id: &StatementId,
    with_entry: bool,
    from: Height,
) -> Result<Option<Bundle>, BackendError> {
    let readable = with_entry
        && find(backend, EntryName::Id(*id))?.is_some_and(|found| caller.may_read(&found.issuer, found.registered));
    backend.bundle(id, readable, from)
}

/// The quorum bundles of many statements.
#[utoipa::path(
    post, path = "/v1/bundles", tag = "statements",
    params(
        ("entry" = Option<u8>, Query, description = "1: with the statements themselves"),
        ("from" = Option<u64>, Query, description = "Height whose validators the caller trusts: the chains begin there. 1 by default"),
    ),
    request_body(content((StatementsView = "application/json"), (OctetsView = "application/cbor-seq"))),
    responses(
        (status = 200, description = "One reply for each id, in order: a bundle or a code", body = OctetsView, content_type = "application/cbor-seq"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn bundles(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let query = Parameters::read(parts.uri.query(), &["entry", "from"])?;
    let (with_entry, from) = (query.flag("entry")?, query.from()?);
    let sent = content_type(&parts.headers, &[CBOR_SEQUENCE, JSON])?;
    format::choose(&parts.headers, &[CBOR_SEQUENCE])?;
    let body = state.bodies.read(caller.party()?.party, &parts.headers, body, state.limits.body_bytes_max).await?;
    let ids = parameters::statements(sent, &body.bytes, BUNDLES_MAX)?;
    drop(body);
    let replies = state
        .read(move |backend| {
            ids.into_iter()
                .map(|statement| match bundle_of(backend, &caller, &statement, with_entry, from) {
                    Ok(Some(bundle)) => Ok(BundleReply { statement, bundle: Some(bundle), refusal: None }),
                    Ok(None) => Ok(BundleReply { statement, bundle: None, refusal: Some(Code::NotFound) }),
                    Err(BackendError::NotCertified) => {
                        Ok(BundleReply { statement, bundle: None, refusal: Some(Code::NotCertified) })
                    }
                    Err(error) => Err(error),
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
    for reply in &replies {
        state.metrics.log.proof(ProofKind::Bundle, reply.bundle.is_some());
    }
    Ok(cache::volatile(format::cbor_sequence(&replies)))
}

/// Asks again until the answer is there or the deadline has come. What nobody knows can come with a block alone; what was
/// executed may wait for a signed checkpoint, and no block tells when that is there.
async fn sealed<T: Send + 'static>(
    state: &State,
    deadline: Instant,
    question: impl Fn(&dyn Backend) -> Result<Option<T>, BackendError> + Clone + Send + 'static,
) -> Result<Option<T>, Problem> {
    loop {
        let standing = state.backend.standing().height;
        let answer = state.read(question.clone()).await;
        let left = deadline.saturating_duration_since(Instant::now());
        match &answer {
            Ok(None) if next_block(state, standing, deadline).await => {}
            Err(problem) if problem.code() == Code::NotCertified && !left.is_zero() => {
                tokio::time::sleep(SEAL_INTERVAL.min(left)).await;
            }
            _ => return answer,
        }
    }
}
