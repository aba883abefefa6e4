//! From the table of routes to handlers: every request passes the guard, which counts it, bounds it and asks [`access`].
//!
//! [`access`]: super::access

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post, put};
use stele_types::{Code, PartyId};

use super::access::{Caller, Peer, Rule};
use super::backend::{Backend, BackendError};
use super::body::{BodyBudget, drain};
use super::commons::{Commons, Part};
use super::problem::Problem;
use super::reads::{CALLER, Reads};
use super::route::Route;
use super::{
    answer, attest, blobs, chain, custody, document, feed, health, network, snapshots, state, statements, storage,
    submit,
};
use crate::config::ApiLimits;
use crate::metrics::Metrics;

/// Memory for answers at least: half of it, the share of one, holds the largest, 512 bundles with their entries.
const ANSWERS_BYTES_MIN: usize = 128 << 20;

/// What every handler needs.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: ApiLimits,
    pub(super) bodies: BodyBudget,
    /// Bytes of answers that are not sent yet, of the public and of each party.
    answers: Arc<Commons<Option<PartyId>>>,
    /// Bodies of records on their way.
    pub(super) transfers: Arc<Commons<PartyId>>,
    reads: Reads,
}

/// Shared by all requests.
pub(super) type State = Arc<Shared>;

impl Shared {
    pub(super) fn new(backend: Arc<dyn Backend>, metrics: Arc<Metrics>, limits: ApiLimits) -> State {
        let timeout = Duration::from_millis(limits.body_timeout_ms);
        let bodies = BodyBudget::new(limits.body_memory_bytes_max, timeout, Arc::clone(&metrics));
        let answers = Commons::new(limits.body_memory_bytes_max.max(ANSWERS_BYTES_MIN));
        let transfers = Commons::new(limits.transfers_max);
        Arc::new(Self { backend, metrics, limits, bodies, answers, transfers, reads: Reads::new() })
    }

    /// Asks the node something that may touch the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Backend) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, Problem> {
        let backend = Arc::clone(&self.backend);
        match self.reads.run(move || question(&*backend)).await {
            Ok(answer) => answer.map_err(Problem::from),
            Err(error) => Err(BackendError::Failed(error.into()).into()),
        }
    }
}

/// Requests in progress on one listener.
pub(super) type Gate = Arc<Commons<PartyId>>;

/// Every route with its guard. Connections add [`Peer`] and [`Gate`] to their requests.
pub(super) fn router(shared: &State) -> Router {
    let mut paths: BTreeMap<&'static str, MethodRouter<State>> = BTreeMap::new();
    for route in Route::ALL {
        let guarded = guarded(handler(*route), shared, *route);
        let merged = match paths.remove(route.path()) {
            Some(others) => others.merge(guarded),
            None => guarded,
        };
        paths.insert(route.path(), merged);
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        router = router.route(
            path,
            methods.fallback_service(guarded(wrong_method(), shared, Route::Unmatched).with_state(Arc::clone(shared))),
        );
    }
    let fallback: MethodRouter<State> = axum::routing::any(nowhere);
    router
        .fallback_service(guarded(fallback, shared, Route::Unmatched).with_state(Arc::clone(shared)))
        .with_state(Arc::clone(shared))
}

fn handler(route: Route) -> MethodRouter<State> {
    match route {
        Route::RegisterEntry => post(submit::entry),
        Route::RegisterBatch => post(submit::batch),
        Route::Entry => get(statements::entry),
        Route::Receipt => get(statements::receipt),
        Route::Bundle => get(statements::bundle),
        Route::Status => get(statements::status),
        Route::Statuses => post(statements::statuses),
        Route::Bundles => post(statements::bundles),
        Route::Header => get(chain::header),
        Route::Block => get(chain::block),
        Route::Snapshots => get(snapshots::snapshots),
        Route::Snapshot => get(snapshots::snapshot),
        Route::SnapshotChunk => get(snapshots::chunk),
        Route::Checkpoint => get(chain::checkpoint),
        Route::Tile => get(chain::tile),
        Route::Consistency => get(chain::consistency),
        Route::State => get(state::state),
        Route::PutBody => put(blobs::put),
        Route::Blob => get(blobs::body),
        Route::SealedBlob => get(blobs::sealed),
        Route::BodyCustody => get(custody::of_body),
        Route::CopyBody => post(custody::copy),
        Route::MissingBodies => post(custody::missing),
        Route::KeptBodies => get(custody::bodies),
        Route::ClassKeys => get(custody::class_keys),
        Route::AttestIdentity => get(attest::identity),
        Route::AttestActivate => post(attest::activate),
        Route::AttestQuote => post(attest::quote),
        Route::AttestEvidence => get(attest::evidence),
        Route::AttestLog => get(attest::log),
        Route::Storage => get(storage::status),
        Route::ScrubStorage => post(storage::scrub),
        Route::RebuildStorage => post(storage::rebuild),
        Route::StoredBodies => get(storage::bodies),
        Route::StoredBody => get(storage::body),
        Route::StoredBlocks => get(storage::blocks),
        Route::ReplaceDrive => post(storage::replace),
        Route::Feed => get(feed::feed),
        Route::Network => get(network::network),
        Route::Genesis => get(network::genesis),
        Route::OpenApi => get(document::openapi),
        Route::Live => get(health::live),
        Route::Ready => get(health::ready),
        Route::Metrics => get(health::metrics),
        Route::Unmatched => axum::routing::any(nowhere),
    }
}

fn guarded(methods: MethodRouter<State>, shared: &State, route: Route) -> MethodRouter<State> {
    let shared = Arc::clone(shared);
    methods.layer(middleware::from_fn(move |request: Request, next: Next| {
        let shared = Arc::clone(&shared);
        async move { guard(&shared, route, request, next).await }
    }))
}

fn wrong_method() -> MethodRouter<State> {
    axum::routing::any(|| async { Problem::new(Code::MethodUnsupported) })
}

async fn nowhere() -> Problem {
    Problem::new(Code::NotFound).detail("there is no such resource; see /openapi.json")
}

/// Counts a request even when its client goes away before the answer.
struct Progress<'m> {
    metrics: &'m Metrics,
    ended: bool,
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.http.abandon();
        }
    }
}

async fn guard(shared: &State, route: Route, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    shared.metrics.http.begin();
    let mut progress = Progress { metrics: &shared.metrics, ended: false };
    let response = match admit(shared, route, &mut request) {
        Ok((party, place)) => {
            let response = CALLER.scope(party, next.run(request)).await;
            match place {
                None => response,
                Some(place) => match shared.answers.take(Some(party), answer::bytes(&response)) {
                    Ok(memory) => answer::holding(response, (place, memory)),
                    Err(code) => Problem::new(code).into_response(),
                },
            }
        }
        Err(problem) => {
            // Otherwise the end of the request may overtake the answer.
            drain(request.body_mut()).await;
            problem.into_response()
        }
    };
    progress.ended = true;
    let bytes = response.body().size_hint().exact();
    shared.metrics.http.end(route, response.status().as_u16(), bytes, begun.elapsed());
    response
}

/// Who asks, if it is a party, and its place among the requests in progress.
type Admitted = (Option<PartyId>, Option<Part<PartyId>>);

/// Finds out who asks and takes a place among the requests in progress.
fn admit(shared: &State, route: Route, request: &mut Request) -> Result<Admitted, Problem> {
    let extensions = request.extensions();
    let (Some(peer), Some(gate)) = (extensions.get::<Peer>().copied(), extensions.get::<Gate>().cloned()) else {
        // Connections always add both; without them nobody could say who asks.
        return Err(Problem::new(Code::Internal));
    };
    let caller = Caller::admit(route, &peer, &*shared.backend, unix_seconds())?;
    if route.rule() == Rule::Control {
        control(shared, request)?;
    }
    let party = caller.party().ok().map(|client| client.party);
    // Health is answered even when the listener is full, and is charged for nothing: that is when operators ask.
    let place = match route.rule() {
        Rule::Health | Rule::Administrator | Rule::Control => None,
        _ => Some(gate.take(party, 1).map_err(Problem::new)?),
    };
    request.extensions_mut().insert(caller);
    Ok((party, place))
}

/// Whoever would change something shows that it can read the node's files: the operator's listener may be plain, and any
/// process of the machine, or a page in a browser there, can reach it.
fn control(shared: &State, request: &Request) -> Result<(), Problem> {
    let shown =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let expected = shared.backend.control_token();
    match shown.zip(expected) {
        Some((shown, expected)) if expected.is(shown) => Ok(()),
        _ => Err(Problem::new(Code::Forbidden).detail("show the token in control.token of the node's data directory")),
    }
}

/// Seconds since 1970 by the machine's clock.
pub(super) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
