//! What carries the requests of `object_store`: one pool of HTTP/1.1 connections, with the workspace's TLS.
//!
//! It bounds what the library leaves to its transport: how long a connection and an answer may take, how many requests are
//! under way, and how long an answer is. An endpoint that promises a terabyte is not believed.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::{ColdError, ColdOptions};

/// Most bytes of an answer to what does not ask for a range: a listing of 1,000 names has half a megabyte.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// How long a connection may be idle: less than after what gateways close theirs.
const IDLE: Duration = Duration::from_secs(20);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connections to one endpoint.
#[derive(Clone)]
pub(crate) struct Transport {
    client: Client<Connector, HttpRequestBody>,
    turns: Arc<Semaphore>,
    request_timeout: Duration,
}

impl Transport {
    pub(crate) fn new(options: &ColdOptions) -> Result<Self, ColdError> {
        let tls = options.authorities.as_ref().map(|file| {
            let unreadable = |error: rustls_pki_types::pem::Error| ColdError::option("authorities", error.to_string());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                let added = roots.add(certificate.map_err(unreadable)?);
                added.map_err(|error| ColdError::option("authorities", error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(ColdError::option("authorities", "names a file without certificates"));
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.map_err(|error| ColdError::option("authorities", error.to_string()))?;
            Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        });
        let connector = Connector { tls: tls.transpose()?, timeout: options.connect_timeout };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(options.requests_max)
            .build(connector);
        let turns = Arc::new(Semaphore::new(options.requests_max));
        Ok(Self { client, turns, request_timeout: options.request_timeout })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let carried = tokio::time::timeout(self.request_timeout, async {
            let _turn = self.turns.acquire().await.map_err(|closed| HttpError::new(HttpErrorKind::Unknown, closed))?;
            let bytes_max = answer_bytes_max(&request);
            let answer = self.client.request(request).await.map_err(failed)?;
            let (parts, body) = answer.into_parts();
            believable(&parts.headers, bytes_max)?;
            // Taken here: a body that nobody reads would keep its turn, and one that trickles has no end.
            let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            let body = Limited::new(body, limit).collect().await.map_err(interrupted)?.to_bytes();
            Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)))
        });
        carried.await.unwrap_or_else(|elapsed| Err(HttpError::new(HttpErrorKind::Timeout, elapsed)))
    }
}

/// Most bytes that the answer to a request may have.
fn answer_bytes_max(request: &HttpRequest) -> u64 {
    if request.method() == Method::HEAD {
        // It says how long the object is, and has no body.
        return u64::MAX;
    }
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let asked = range.and_then(|range| {
        let (start, end) = range.split_once('-')?;
        end.parse::<u64>().ok()?.checked_sub(start.parse().ok()?)?.checked_add(1)
    });
    // A refusal may be longer than what was asked for.
    asked.unwrap_or(0).max(ANSWER_BYTES_MAX)
}

/// Whether numbers in an answer are ones that can be counted with.
fn believable(headers: &HeaderMap, bytes_max: u64) -> Result<(), HttpError> {
    let refused = |what| Err(HttpError::new_boxed(HttpErrorKind::Decode, BoxError::from(what)));
    let number = |digits: &str| digits.is_empty() || digits.len() <= 18;
    let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().unwrap_or_default().parse::<u64>());
    if length.is_some_and(|length| length.is_ok_and(|length| length > bytes_max)) {
        return refused("the answer is longer than what was asked for");
    }
    let range = headers.get(CONTENT_RANGE).map(|range| range.to_str().unwrap_or_default());
    if range.is_some_and(|range| !range.split(|character: char| !character.is_ascii_digit()).all(number)) {
        return refused("the answer is of a range that no object has");
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: ClientError) -> HttpError {
    if error.is_connect() {
        return HttpError::new(HttpErrorKind::Connect, error);
    }
    let mut source = std::error::Error::source(&error);
    let mut kind = HttpErrorKind::Unknown;
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<hyper::Error>()
            && (cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled())
        {
            kind = HttpErrorKind::Interrupted;
        }
        if cause.downcast_ref::<io::Error>().is_some() {
            kind = HttpErrorKind::Interrupted;
        }
        source = cause.source();
    }
    HttpError::new(kind, error)
}

fn interrupted(error: BoxError) -> HttpError {
    let kind =
        if error.is::<http_body_util::LengthLimitError>() { HttpErrorKind::Decode } else { HttpErrorKind::Interrupted };
    HttpError::new_boxed(kind, error)
}

/// Opens connections.
#[derive(Clone)]
struct Connector {
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

/// A connection, encrypted or on this host.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl Connection for Box<dyn Socket> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Connector {
    async fn open(self, uri: Uri) -> io::Result<Box<dyn Socket>> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        // Requests are written whole; waiting for more would only add latency.
        stream.set_nodelay(true)?;
        match (&self.tls, secure) {
            (_, false) => Ok(Box::new(stream)),
            (Some(tls), true) => {
                let server = ServerName::try_from(host).map_err(io::Error::other)?;
                Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(server, stream).await?))
            }
            (None, true) => Err(io::Error::other("no authority was named for an https endpoint")),
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let opened = tokio::time::timeout(connector.timeout, connector.open(uri)).await;
            opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        })
    }
}

/// An answer that was taken whole.
pub(crate) struct Answer {
    pub(crate) status: http::StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Transport {
    /// Carries a request that `object_store` has no word for.
    pub(crate) async fn ask(&self, request: HttpRequest) -> Result<Answer, HttpError> {
        let (parts, body) = self.call(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_nothing_has_are_not_believed() {
        let headers = |name, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        assert!(believable(&headers(CONTENT_LENGTH, "1000"), 1_000).is_ok());
        assert!(believable(&headers(CONTENT_LENGTH, "1001"), 1_000).is_err());
        assert!(believable(&headers(CONTENT_RANGE, "bytes 0-99/100"), 1_000).is_ok());
        assert!(believable(&headers(CONTENT_RANGE, "bytes 0-99/*"), 1_000).is_ok());
        assert!(believable(&headers(CONTENT_RANGE, "bytes 0-18446744073709551615/100"), 1_000).is_err());
    }

    #[test]
    fn an_answer_is_as_long_as_what_was_asked_for() {
        let request = |method: Method, range: &str| {
            let request = http::Request::builder().method(method).header(RANGE, range);
            answer_bytes_max(&request.body(HttpRequestBody::empty()).unwrap())
        };
        assert_eq!(request(Method::GET, "bytes=10-8388617"), 8 << 20);
        for nonsense in ["bytes=0-9", "bytes=9-0", "bytes=-5", "bytes=0-18446744073709551615", "lines=1-2"] {
            assert_eq!(request(Method::GET, nonsense), ANSWER_BYTES_MAX, "{nonsense}");
        }
        assert_eq!(request(Method::HEAD, "bytes=0-9"), u64::MAX);
    }
}
