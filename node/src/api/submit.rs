//! Registration of signed statements: one, or many at once.

use axum::Extension;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use stele_types::exchange::{Progress, StatementStatus, Submitted};
use stele_types::{Code, StatementId};

use super::access::Caller;
use super::backend::Refusal;
use super::body::content_type;
use super::format::{self, CBOR, CBOR_SEQUENCE, COSE, JSON};
use super::parameters::{Parameters, Wait};
use super::problem::Problem;
use super::router::State;
use super::status::{status, status_after};
use super::view::{OctetsView, StatusView, SubmittedView, SubmittedsView};

/// Registers one signed statement.
///
/// The same statement again gets the same answer. Only an answer whose `progress` is `certified` is an acknowledgement;
/// 202 promises nothing.
#[utoipa::path(
    post, path = "/entries", tag = "registration",
    params(
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for the outcome"),
        ("wait" = Option<String>, Query, description = "`executed` or `certified` (default)"),
    ),
    request_body(content = OctetsView, content_type = "application/cose", description = "One COSE_Sign1"),
    responses(
        (status = 200, description = "Known already, or rejected: the certified outcome", body = StatusView),
        (status = 201, description = "Registered; `Location` is the entry", body = StatusView),
        (status = 202, description = "Taken, promises nothing yet; `Location` is the status", body = StatusView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn entry(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let client = caller.party()?;
    let (parts, body) = request.into_parts();
    let wait = wait(&state, parts.uri.query())?;
    content_type(&parts.headers, &[COSE])?;
    let form = format::choose(&parts.headers, &[JSON, CBOR])?;
    ready(&state)?;
    let body = state.bodies.read(client.party, &parts.headers, body, state.limits.body_bytes_max).await?;
    let answer = state.backend.submit(client.party, vec![body.bytes.clone()]).await.pop();
    drop(body);
    let id = answer.unwrap_or(Err(Refusal { code: Code::Internal, retry_after_ms: None }))?;
    let before = state.read(move |backend| status(backend, id)).await?;
    let known = before.progress == Some(Progress::Certified);
    let found = if known { before } else { status_after(&state, id, wait).await? };
    Ok(outcome(&found, known, form))
}

fn outcome(found: &StatementStatus, known: bool, form: &'static str) -> Response {
    let id = found.statement;
    // A statement that was just taken and is not in a block yet is pending, whatever the queue says by now.
    let shown = StatementStatus { progress: found.progress.or(Some(Progress::Pending)), ..found.clone() };
    let mut response = if form == CBOR { format::cbor(&shown) } else { format::json(&StatusView::from(&shown)) };
    let registered = shown.code == Some(Code::Applied);
    let (status, location) = match shown.progress {
        Some(Progress::Certified) if registered && !known => (StatusCode::CREATED, Some(format!("/entries/{id}"))),
        Some(Progress::Certified) => (StatusCode::OK, registered.then(|| format!("/entries/{id}"))),
        _ => (StatusCode::ACCEPTED, Some(format!("/v1/statements/{id}"))),
    };
    *response.status_mut() = status;
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Registers a sequence of signed statements.
///
/// Each is taken or refused on its own, in order; the answer is 429 only when every one was throttled. When some were,
/// `Retry-After` says when to send those again.
#[utoipa::path(
    post, path = "/v1/batch", tag = "registration",
    request_body(content = OctetsView, content_type = "application/cbor-seq",
        description = "COSE_Sign1 statements, one after the other (RFC 8742)"),
    responses(
        (status = 200, description = "One answer for each statement, in order", content(
            (SubmittedsView = "application/json"),
            (OctetsView = "application/cbor-seq"),
        )),
        (status = "4XX", description = "Nothing was taken", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn batch(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let client = caller.party()?;
    let (parts, body) = request.into_parts();
    Parameters::read(parts.uri.query(), &[])?;
    content_type(&parts.headers, &[CBOR_SEQUENCE])?;
    let form = format::choose(&parts.headers, &[CBOR_SEQUENCE, JSON])?;
    ready(&state)?;
    let body = state.bodies.read(client.party, &parts.headers, body, state.limits.batch_bytes_max).await?;
    let entries = super::sequence::split(&body.bytes, state.limits.batch_statements_max)?;
    let answers = state.backend.submit(client.party, entries).await;
    drop(body);
    Ok(answer(&answers, form))
}

fn answer(answers: &[Result<StatementId, Refusal>], form: &'static str) -> Response {
    let throttled = |refusal: &Refusal| matches!(refusal.code, Code::Saturated | Code::ShareExceeded);
    let refusals: Vec<&Refusal> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    let longest = refusals.iter().filter(|refusal| throttled(refusal)).max_by_key(|refusal| refusal.retry_after_ms);
    if let Some(refusal) = longest
        && refusals.len() == answers.len()
        && refusals.iter().all(|refusal| throttled(refusal))
    {
        return Problem::from(**refusal).into_response();
    }
    let items: Vec<Submitted> = answers
        .iter()
        .map(|answer| match answer {
            Ok(id) => Submitted { statement: Some(*id), refusal: None, retry_after_ms: None },
            Err(refusal) => {
                Submitted { statement: None, refusal: Some(refusal.code), retry_after_ms: refusal.retry_after_ms }
            }
        })
        .collect();
    let mut response = if form == JSON {
        format::json(&SubmittedsView { results: items.iter().map(SubmittedView::from).collect() })
    } else {
        format::cbor_sequence(&items)
    };
    if let Some(milliseconds) = longest.and_then(|refusal| refusal.retry_after_ms) {
        let seconds = HeaderValue::from(milliseconds.div_ceil(1_000).max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn wait(state: &State, query: Option<&str>) -> Result<Wait, Problem> {
    Parameters::read(query, &["wait_ms", "wait"])?.wait(state.limits.wait_max_ms)
}

/// A node that does not take part cannot promise to propose what it takes.
fn ready(state: &State) -> Result<(), Problem> {
    match state.backend.not_ready() {
        None => Ok(()),
        Some(reason) => Err(Problem::new(Code::NotReady).detail(format!("{reason}; ask another node"))),
    }
}
