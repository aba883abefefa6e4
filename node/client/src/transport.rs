//! Requests over a pool of kept-alive HTTP/1.1 connections, bounded in time and size, with fail-over between nodes.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HOST, LINK, LOCATION, RANGE, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use stele_types::Height;

use crate::connector;
use crate::content::{Content, Source};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::ClientError;
use crate::model::Problem;
use crate::retry::RetryPolicy;
use crate::tls::TlsSettings;

/// Idle connections kept for each endpoint: as many as a load generator keeps busy.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long an idle connection is trusted; servers close them after about a minute.
const IDLE_AGE_MAX: Duration = Duration::from_secs(30);
/// Bytes of a problem document that are read.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;
/// Media type of problem documents (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

/// Bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// TCP and TLS handshakes.
    pub connect: Duration,
    /// The whole request beside connecting and a wait that the node was asked for.
    pub answer: Duration,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // The largest answer is a batch of bundles; the node bounds it at the same size.
        Self { connect: Duration::from_secs(3), answer: Duration::from_secs(15), answer_bytes_max: 64 * 1024 * 1024 }
    }
}

/// An answer with status 2xx.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`, empty when there is none.
    pub content_type: String,
    /// `Location`, when there is one.
    pub location: Option<String>,
    /// `Link`, when there is one.
    pub link: Option<String>,
    /// `Content-Range`, when there is one.
    pub content_range: Option<String>,
    /// The body.
    pub body: Bytes,
    /// The node that answered.
    pub endpoint: Endpoint,
}

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) accept: &'static str,
    /// Content type and content of the body.
    pub(crate) body: Option<(&'static str, Source<'a>)>,
    /// What shows that the asker may change the node.
    pub(crate) token: Option<&'a str>,
    /// `Range`.
    pub(crate) range: Option<String>,
    /// How long the node was asked to wait before it answers.
    pub(crate) wait: Duration,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str, accept: &'static str) -> Self {
        Self { method: Method::GET, path, accept, body: None, token: None, range: None, wait: Duration::ZERO }
    }
    pub(crate) fn post(path: &'a str, accept: &'static str, content_type: &'static str, body: Bytes) -> Self {
        Self { method: Method::POST, body: Some((content_type, Source::Bytes(body))), ..Self::get(path, accept) }
    }
    /// Puts what a file holds; it is read while it is sent.
    pub(crate) fn put_file(path: &'a str, accept: &'static str, content_type: &'static str, file: &'a Path) -> Self {
        Self { method: Method::PUT, body: Some((content_type, Source::File(file))), ..Self::get(path, accept) }
    }
    pub(crate) fn showing(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }
    pub(crate) fn range(mut self, from: u64, last: u64) -> Self {
        self.range = Some(format!("bytes={from}-{last}"));
        self
    }
    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// Builds a [`Client`].
#[derive(Debug, Default)]
pub struct ClientBuilder {
    endpoints: Vec<Endpoint>,
    tls: Option<TlsSettings>,
    bounds: Bounds,
    retry: RetryPolicy,
    trusted: Option<Height>,
}

impl ClientBuilder {
    /// Adds a node; requests start at the first and move on when it fails.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }
    /// Whom to believe and who to be; needed for TLS endpoints.
    #[must_use]
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = Some(tls);
        self
    }
    /// Bounds of one request.
    #[must_use]
    pub const fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }
    /// When to try again.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
    /// First height of the validators that the caller trusts: the proofs that nodes give begin there, not at genesis.
    #[must_use]
    pub const fn trusting(mut self, height: Height) -> Self {
        self.trusted = Some(height);
        self
    }
    /// The client. No connection is opened yet.
    ///
    /// # Errors
    /// [`ClientError::NoEndpoint`], [`ClientError::Tls`].
    pub fn build(self) -> Result<Client, ClientError> {
        if self.endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        let tls = self.tls.map(|tls| tls.config().map(Arc::new)).transpose()?;
        if tls.is_none() && self.endpoints.iter().any(|endpoint| endpoint.scheme() == Scheme::Https) {
            return Err(ClientError::tls("a TLS endpoint needs the network CA"));
        }
        let nodes = self.endpoints.into_iter().map(|endpoint| Node { endpoint, idle: Mutex::default() }).collect();
        Ok(Client {
            inner: Arc::new(Inner {
                nodes,
                preferred: AtomicUsize::new(0),
                tls,
                bounds: self.bounds,
                retry: self.retry,
                trusted: self.trusted.unwrap_or(Height(1)),
            }),
        })
    }
}

/// A client of one network. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Vec<Node>,
    /// Index of the node that answered last.
    preferred: AtomicUsize,
    tls: Option<Arc<rustls::ClientConfig>>,
    bounds: Bounds,
    retry: RetryPolicy,
    /// First height of the validators that the caller trusts.
    trusted: Height,
}

struct Node {
    endpoint: Endpoint,
    idle: Mutex<VecDeque<(SendRequest<Content>, Instant)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.inner.nodes.iter().map(|node| node.endpoint.to_string())).finish()
    }
}

impl Client {
    /// Starts a new client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
    /// A client of one node.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn of(endpoint: Endpoint, tls: Option<TlsSettings>) -> Result<Self, ClientError> {
        ClientBuilder { endpoints: vec![endpoint], tls, ..ClientBuilder::default() }.build()
    }
    /// The nodes, in the order in which they were named.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.inner.nodes.iter().map(|node| &node.endpoint)
    }

    /// First height of the validators that the caller trusts.
    pub(crate) fn trusted(&self) -> Height {
        self.inner.trusted
    }

    /// Asks until a node answers with 2xx, an error that stays, or the tries are used up.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        let start = inner.preferred.load(Ordering::Relaxed);
        let mut node = start % inner.nodes.len();
        let mut moved: u32 = 0;
        let mut tries: u32 = 0;
        loop {
            let error = match inner.ask_node(&inner.nodes[node], &ask).await {
                Ok(response) => {
                    inner.preferred.store(node, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => error,
            };
            tries += 1;
            if !error.is_retryable() || tries >= inner.retry.tries_max {
                return Err(error);
            }
            if error.is_of_node() && inner.nodes.len() > 1 {
                node = (node + 1) % inner.nodes.len();
                moved += 1;
                // The other nodes are asked at once; only after a whole round is there a pause.
                if !(moved as usize).is_multiple_of(inner.nodes.len()) {
                    continue;
                }
            }
            tokio::time::sleep(inner.retry.pause(tries, error.retry_after())).await;
        }
    }
}

impl Inner {
    async fn ask_node(&self, node: &Node, ask: &Ask<'_>) -> Result<Response, ClientError> {
        let endpoint = node.endpoint.to_string();
        let after = self.bounds.answer + ask.wait;
        let broken = |error: &hyper::Error| ClientError::Broken { endpoint: endpoint.clone(), reason: reason(error) };
        // A kept connection may have been closed meanwhile; then a fresh one is used, once.
        for kept in [true, false] {
            let sender = if kept { node.take() } else { None };
            let (mut sender, is_kept) = match sender {
                Some(sender) => (sender, true),
                None => (self.connect(node).await?, false),
            };
            let exchange = async {
                let answer =
                    sender.send_request(self.request(&node.endpoint, ask)?).await.map_err(|error| broken(&error))?;
                self.read(&node.endpoint, answer).await
            };
            match tokio::time::timeout(after, exchange).await {
                Err(_) => return Err(ClientError::Timeout { endpoint, after }),
                Ok(Err(ClientError::Broken { .. })) if is_kept => {}
                Ok(result) => {
                    if sender.is_ready() || sender.ready().await.is_ok() {
                        node.keep(sender);
                    }
                    return result;
                }
            }
        }
        Err(ClientError::Broken { endpoint, reason: "the connection closed twice".into() })
    }

    async fn connect(&self, node: &Node) -> Result<SendRequest<Content>, ClientError> {
        let endpoint = node.endpoint.to_string();
        let after = self.bounds.connect;
        let opening = async {
            let stream = connector::connect(&node.endpoint, self.tls.as_ref()).await?;
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| ClientError::Connect { endpoint: endpoint.clone(), reason: reason(&error) })
        };
        let (sender, connection) = tokio::time::timeout(after, opening)
            .await
            .map_err(|_| ClientError::Timeout { endpoint: endpoint.clone(), after })??;
        // Ends by itself when the sender is dropped or the node closes; its errors reach the request.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn request(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Request<Content>, ClientError> {
        let mut builder = Request::builder()
            .method(ask.method.clone())
            .uri(ask.path)
            .header(HOST, endpoint.authority())
            .header(USER_AGENT, concat!("stele-client/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, ask.accept);
        if let Some((content_type, _)) = &ask.body {
            builder = builder.header(CONTENT_TYPE, *content_type);
        }
        if let Some(token) = ask.token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = &ask.range {
            builder = builder.header(RANGE, range);
        }
        let unwritten = |reason: String| ClientError::Unexpected {
            endpoint: endpoint.to_string(),
            reason: format!("the request cannot be written: {reason}"),
        };
        let body = match &ask.body {
            Some((_, source)) => source.open().map_err(|error| unwritten(error.to_string()))?,
            None => Content::default(),
        };
        builder.body(body).map_err(|error| unwritten(error.to_string()))
    }

    async fn read(
        &self,
        endpoint: &Endpoint,
        answer: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Response, ClientError> {
        let status = answer.status();
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let content_type = header(CONTENT_TYPE).unwrap_or_default();
        let (location, link, retry_after) = (header(LOCATION), header(LINK), header(RETRY_AFTER));
        let content_range = header(CONTENT_RANGE);
        let bytes_max = if status.is_success() { self.bounds.answer_bytes_max } else { PROBLEM_BYTES_MAX };
        let body = collect(endpoint, answer.into_body(), bytes_max).await?;
        if status.is_success() {
            return Ok(Response {
                status: status.as_u16(),
                content_type,
                location,
                link,
                content_range,
                body,
                endpoint: endpoint.clone(),
            });
        }
        Err(refusal(endpoint, status, &content_type, retry_after.as_deref(), &body))
    }
}

impl Node {
    fn take(&self) -> Option<SendRequest<Content>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = idle.pop_back() {
            if since.elapsed() < IDLE_AGE_MAX && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }
    fn keep(&self, sender: SendRequest<Content>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() == IDLE_CONNECTIONS_MAX {
            idle.pop_front();
        }
        idle.push_back((sender, Instant::now()));
    }
}

async fn collect(endpoint: &Endpoint, mut body: hyper::body::Incoming, bytes_max: usize) -> Result<Bytes, ClientError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ClientError::Broken { endpoint: endpoint.to_string(), reason: reason(&error) })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > bytes_max {
            return Err(ClientError::TooLarge { endpoint: endpoint.to_string(), bytes_max });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn refusal(
    endpoint: &Endpoint,
    status: StatusCode,
    content_type: &str,
    retry_after: Option<&str>,
    body: &[u8],
) -> ClientError {
    let problem: Problem = if content_type.starts_with(PROBLEM_TYPE) || content_type.starts_with("application/json") {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        Problem::default()
    };
    let seconds = retry_after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
    ClientError::Refused {
        endpoint: endpoint.to_string(),
        status: status.as_u16(),
        code: problem.code.unwrap_or_else(|| format!("http_{}", status.as_u16())),
        detail: problem.detail.or(problem.title),
        // Milliseconds when the node gives them; the header knows whole seconds only.
        retry_after: problem.retry_after_ms.map(Duration::from_millis).or(seconds),
    }
}

/// What HTTP says, with the cause that hyper keeps apart.
fn reason(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
