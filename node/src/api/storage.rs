//! The payload store, for its operator.

use std::path::PathBuf;

use axum::extract::{RawQuery, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use stele_types::Code;

use super::backend::BackendError;
use super::blobs::{self, Form};
use super::body::content_type;
use super::cache;
use super::format::{self, JSON, OCTETS};
use super::parameters::{self, Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::view::{OctetsView, ReplacementView, StorageView, StoredBodiesView, StoredBodyView};
use crate::payload::{Job, listing};
use crate::store::blocks::ArchiveError;

/// Bytes of archived blocks in one answer: a block with its certificate, and as much again.
const BLOCKS_BYTES_MAX: u64 = 16 << 20;

/// Longest request.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// How the payload store is, and what it is being made to do.
#[utoipa::path(
    get, path = "/v1/storage", tag = "health",
    responses(
        (status = 200, description = "Drives, room, what was found", body = StorageView),
        (status = "4XX", description = "The node keeps no bodies", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn status(Extract(state): Extract<State>) -> Result<Response, Problem> {
    Ok(cache::volatile(format::json(&view(&state).await?)))
}

/// Begins to read everything that is stored, and to mend what is damaged.
#[utoipa::path(
    post, path = "/v1/storage/scrub", tag = "health",
    responses(
        (status = 202, description = "It has begun", body = StorageView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn scrub(Extract(state): Extract<State>) -> Result<Response, Problem> {
    begin(&state, Job::Scrub).await
}

/// Begins to bring back from other nodes what this one should have: the bodies that came to it, and its copies of others'.
#[utoipa::path(
    post, path = "/v1/storage/rebuild", tag = "health",
    responses(
        (status = 202, description = "It has begun", body = StorageView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rebuild(Extract(state): Extract<State>) -> Result<Response, Problem> {
    begin(&state, Job::Rebuild).await
}

/// Takes a device in the place of a drive, and makes again on it what it should hold. What is on the device is lost.
#[utoipa::path(
    post, path = "/v1/storage/drives/{drive}", tag = "health",
    params(("drive" = usize, Path, description = "Number of the drive, from 0")),
    request_body(content = ReplacementView),
    responses(
        (status = 202, description = "It has begun", body = StorageView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replace(
    Extract(state): Extract<State>,
    Named(drive): Named<usize>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    content_type(&parts.headers, &[JSON])?;
    let malformed = || Problem::new(Code::Malformed).detail("send {\"path\": \"/dev/…\"}, an absolute path");
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| malformed())?.to_bytes();
    let asked: ReplacementView = serde_json::from_slice(&body).map_err(|_| malformed())?;
    let path = PathBuf::from(asked.path);
    if !path.is_absolute() {
        return Err(malformed());
    }
    let drives = view(&state).await?.drives.len();
    if drive >= drives {
        return Err(Problem::parameter("drive", &format!("a number below {drives}")));
    }
    begin(&state, Job::Replace { drive, path }).await
}

/// Some of the bodies that are stored, for a backup.
#[utoipa::path(
    get, path = "/v1/storage/bodies", tag = "health",
    params(
        ("from" = Option<u32>, Query, description = "Where to go on: `next` of the answer before"),
        ("skip" = Option<u32>, Query, description = "`skip` of the answer before"),
    ),
    responses(
        (status = 200, description = "Bodies, and where to go on", body = StoredBodiesView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn bodies(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(query.as_deref(), &["from", "skip"])?;
    format::choose(&headers, &[JSON])?;
    let (from, skip) = parameters.place()?;
    let payload = blobs::payload(&state)?;
    let page = listing::page(payload.store(), from, skip, listing::OBJECTS_MAX).await;
    let page = page.map_err(|error| blobs::problem(error.into()))?;
    let (next, skip) = page.next.map_or((None, 0), |(next, skip)| (Some(next), skip));
    let bodies = page.objects.iter().map(StoredBodyView::from).collect();
    Ok(cache::volatile(format::json(&StoredBodiesView { bodies, unreadable: page.unreadable, next, skip })))
}

/// The sealed form of a body that is stored, for a backup.
#[utoipa::path(
    get, path = "/v1/storage/bodies/{root}", tag = "health",
    params(("root" = String, Path, description = "Root of the sealed form: 64 hexadecimal digits")),
    responses(
        (status = 200, description = "The sealed form", body = OctetsView, content_type = "application/octet-stream"),
        (status = 206, description = "The range of it", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn body(
    Extract(state): Extract<State>,
    Named(root): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    blobs::give(&state, None, Form::Sealed, &root, query.as_deref(), &headers).await
}

/// Bytes of a segment of blocks that the node has archived, opened, for a backup.
#[utoipa::path(
    get, path = "/v1/storage/blocks/{root}", tag = "health",
    params(
        ("root" = String, Path, description = "Root that the segment is stored under: 64 hexadecimal digits"),
        ("from" = Option<u64>, Query, description = "First byte; 0 without it"),
        ("bytes" = u64, Query, description = "How many; up to 16 MiB"),
    ),
    responses(
        (status = 200, description = "The bytes", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn blocks(
    Extract(state): Extract<State>,
    Named(root): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(query.as_deref(), &["from", "bytes"])?;
    format::choose(&headers, &[OCTETS])?;
    let root = parameters::root(&root)?;
    let from = parameters.number("from", 0, u64::MAX)?.unwrap_or_default();
    let bytes = parameters.number("bytes", 1, BLOCKS_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| Problem::parameter("bytes", "how many bytes are wanted"))?;
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    let archive = state.backend.archive().ok_or_else(missing)?;
    let read = state.read(move |_| Ok(archive.read(&root.0, from, length))).await?;
    let bytes = read.map_err(|error| match error {
        ArchiveError::Away { retry_after, reason } => Problem::from(BackendError::Away { retry_after, reason }),
        ArchiveError::Lost { reason } => Problem::new(Code::BodyDamaged).detail(reason),
    })?;
    Ok(cache::volatile(format::bytes(OCTETS, bytes)))
}

async fn begin(state: &State, job: Job) -> Result<Response, Problem> {
    let upkeep = state.backend.upkeep().ok_or_else(missing)?;
    upkeep.begin(job).map_err(|code| {
        Problem::new(code).detail("something is being done already; GET /v1/storage says what and how far it is")
    })?;
    let mut response = format::json(&view(state).await?);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(cache::volatile(response))
}

async fn view(state: &State) -> Result<StorageView, Problem> {
    let payload = state.backend.payload().map_err(|code| match code {
        Code::NotFound => missing(),
        _ => Problem::new(code).detail("the store is not open; the node's own log says why"),
    })?;
    let job = state.backend.upkeep().map(|upkeep| upkeep.job_state()).unwrap_or_default();
    let status =
        payload.store().status().await.map_err(|error| Problem::from(BackendError::Failed(Box::new(error))))?;
    Ok(StorageView::new(&status, &payload.store().paths(), &job, (payload.waiting(), payload.alone())))
}

fn missing() -> Problem {
    Problem::new(Code::NotFound).detail("this node keeps no bodies: its configuration has no [payload]")
}
