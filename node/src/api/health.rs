//! For operators: does the process run, does the node serve, what does it measure?

use axum::extract::State as Extract;
use axum::response::Response;
use stele_types::Code;

use super::cache;
use super::format;
use super::problem::Problem;
use super::router::State;
use crate::metrics::TEXT_CONTENT_TYPE;

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn live() -> Response {
    cache::volatile(format::bytes("text/plain; charset=utf-8", "ok\n"))
}

/// Whether the node takes part: it has caught up, its stores and its signer work.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "It does", body = String),
        (status = 503, description = "It does not; the detail says why", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(Extract(state): Extract<State>) -> Result<Response, Problem> {
    match state.backend.not_ready() {
        None => Ok(cache::volatile(format::bytes("text/plain; charset=utf-8", "ready\n"))),
        Some(reason) => Err(Problem::new(Code::NotReady).detail(reason)),
    }
}

/// Metrics in the Prometheus text format. On the operator's listener alone.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "Metrics", body = String)))]
pub(super) async fn metrics(Extract(state): Extract<State>) -> Response {
    cache::volatile(format::bytes(TEXT_CONTENT_TYPE, state.metrics.render()))
}
