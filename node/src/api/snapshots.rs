//! Snapshots of the state: how a node joins without executing everything since genesis.

use axum::extract::{RawQuery, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;

use super::backend::Backend;
use super::cache::{self, Keep};
use super::format::{self, JSON, OCTETS};
use super::parameters::{self, Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::view::{OctetsView, SnapshotView, SnapshotsView, StandpointView};

/// The snapshots that a node can join by. For regulators and operators.
#[utoipa::path(
    get, path = "/v1/snapshots", tag = "chain",
    responses(
        (status = 200, description = "Newest first; they stay for two intervals", body = SnapshotsView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn snapshots(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[JSON])?;
    let snapshots = state.read(Backend::snapshots).await?;
    let snapshots = snapshots.iter().map(SnapshotView::from).collect();
    Ok(cache::volatile(format::json(&SnapshotsView { snapshots })))
}

/// What goes with a snapshot: where the log stands, and the outcomes of its block. For regulators and operators.
#[utoipa::path(
    get, path = "/v1/snapshots/{height}", tag = "chain",
    params(("height" = u64, Path, description = "Height of the snapshot")),
    responses(
        (status = 200, description = "The header of the next height certifies all of it", body = StandpointView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn snapshot(
    Extract(state): Extract<State>,
    Named(text): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[JSON])?;
    let height = parameters::height(&text)?;
    let found = state.read(move |backend| backend.standpoint(height)).await?;
    let standpoint = found.ok_or_else(missing)?;
    let view = StandpointView::from(&standpoint);
    Ok(cache::immutable(&headers, &format!("standpoint-{height}"), Keep::Private, || format::json(&view)))
}

/// All pairs of one range of keys with the proof that they are all, as docs/protocol.md says. For regulators and
/// operators.
#[utoipa::path(
    get, path = "/v1/snapshots/{height}/{index}", tag = "chain",
    params(
        ("height" = u64, Path, description = "Height of the snapshot"),
        ("index" = u64, Path, description = "The range: its first bits as a number, from 0"),
    ),
    responses(
        (status = 200, description = "The chunk", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn chunk(
    Extract(state): Extract<State>,
    Named((height, index)): Named<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[OCTETS])?;
    let height = parameters::height(&height)?;
    let index: u64 = index.parse().map_err(|_| Problem::parameter("index", "a number from 0"))?;
    let found = state.read(move |backend| backend.snapshot_chunk(height, index)).await?;
    let bytes = found.ok_or_else(missing)?;
    let tag = format!("chunk-{height}-{index}");
    Ok(cache::immutable(&headers, &tag, Keep::Private, || format::bytes(OCTETS, bytes)))
}

fn missing() -> Problem {
    Problem::not_found("snapshot").detail("snapshots stay for two intervals; GET /v1/snapshots lists them")
}
