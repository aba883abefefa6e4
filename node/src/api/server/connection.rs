//! One connection: HTTP/1.1 or HTTP/2, bounded and watched.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use stele_types::Code;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use super::super::access::Peer;
use super::super::answer;
use super::super::problem::Problem;
use super::activity::{Activity, Verdict};
use super::listener::Context;
use super::stall::Watched;

/// Bytes of a request's head: paths and a few headers.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// A peer that takes an answer more slowly than this, after the write timeout, is cut off.
const SLOWEST_BYTES_PER_S: u64 = 32 * 1024;
/// What a header costs beside its bytes (RFC 9113, section 6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;
/// Read buffer of an HTTP/1.1 connection; it must hold a head, and bodies pass through it.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Receive windows of HTTP/2: one batch may be in flight, no more.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Answers buffered for one HTTP/2 stream before its handler waits.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Resets that a peer may leave unread: bounds the "rapid reset" attack (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 64;

/// What was agreed in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Adds to each request who asks, and to the connection that it is busy.
#[derive(Clone)]
struct Conversation {
    context: Arc<Context>,
    peer: Peer,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Conversation {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.activity.begin();
        // The HTTP/2 half keeps to the bound by itself; the buffer of the other one holds more than a head may have.
        if head_bytes(&request) > HEAD_BYTES_MAX as usize {
            let problem = Problem::new(Code::TooLarge).status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            let problem = problem.detail(format!("the head of a request has at most {HEAD_BYTES_MAX} bytes"));
            return Box::pin(async move { Ok(problem.into_response()) });
        }
        if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
            let problem = Problem::parameter("Host", "an HTTP/1.1 request names the host (RFC 9112, section 3.2)");
            return Box::pin(async move { Ok(problem.into_response()) });
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.context.gate.clone());
        let answering = self.context.router.clone().oneshot(request);
        let (activity, write_timeout) = (Arc::clone(&self.activity), self.context.limits.write_timeout_ms);
        Box::pin(async move {
            let response = answering.await.unwrap_or_else(|never| match never {});
            let time = Duration::from_millis(write_timeout)
                + Duration::from_secs(answer::length(&response) / SLOWEST_BYTES_PER_S);
            let on_its_way = activity.answer(time);
            Ok(answer::holding(response, (busy, on_its_way)))
        })
    }
}

/// Size of a request's head, counted as HTTP/2 counts it.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES);
    request.uri().path_and_query().map_or(0, |target| target.as_str().len()) + headers.sum::<usize>()
}

/// Serves a connection until it ends, is idle or slow for too long, or the node stops.
pub(super) async fn serve<S>(context: &Arc<Context>, stream: S, peer: Peer, protocol: Protocol)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &context.limits;
    let activity = Arc::new(Activity::new(protocol == Protocol::Http1));
    let service = Conversation { context: Arc::clone(context), peer, activity: Arc::clone(&activity) };
    let write_timeout = Duration::from_millis(limits.write_timeout_ms);
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity), write_timeout));
    match protocol {
        Protocol::Http1 => {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(limits.idle_timeout_ms))
                .max_buf_size(BUFFER_BYTES_MAX)
                .serve_connection(io, service);
            watch(context, &activity, connection, hyper::server::conn::http1::Connection::graceful_shutdown).await;
        }
        Protocol::Http2 => {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams_max)
                .max_header_list_size(HEAD_BYTES_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
                .keep_alive_interval(Duration::from_millis(limits.idle_timeout_ms))
                .keep_alive_timeout(Duration::from_millis(limits.header_timeout_ms))
                .serve_connection(io, service);
            watch(context, &activity, connection, hyper::server::conn::http2::Connection::graceful_shutdown).await;
        }
    }
}

/// Drives a connection and looks at it now and then. What ends it is the peer's affair, so errors are not logged.
async fn watch<C, E>(context: &Context, activity: &Activity, connection: C, close: impl Fn(Pin<&mut C>))
where
    C: Future<Output = Result<(), E>>,
{
    let head = Duration::from_millis(context.limits.header_timeout_ms);
    let idle = Duration::from_millis(context.limits.idle_timeout_ms);
    // Half the shorter bound: a connection outlives its bound by half at most, and 10,000 idle ones cost 2,000 looks a
    // second at the default.
    let mut looks = tokio::time::interval(head.min(idle) / 2);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = pin!(connection);
    let mut closing = false;
    loop {
        tokio::select! {
            _ended = connection.as_mut() => return,
            () = context.stop.cancelled(), if !closing => {
                closing = true;
                close(connection.as_mut());
            }
            _ = looks.tick() => match activity.judge(head, idle) {
                Verdict::Alive => {}
                // A peer that sends its head byte by byte is not owed an answer.
                Verdict::SlowHead | Verdict::Unread => return,
                Verdict::Idle if closing => return,
                Verdict::Idle => {
                    closing = true;
                    close(connection.as_mut());
                }
            },
        }
    }
}
