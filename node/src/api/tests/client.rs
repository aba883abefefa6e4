//! A small HTTP client that shows everything: one connection per request unless it is kept.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificates::{Authority, Identity};

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
    /// Code of a problem; `none` for anything else.
    pub(super) fn code(&self) -> String {
        let problem = self.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
        if problem { self.json()["code"].as_str().unwrap().to_owned() } else { "none".to_owned() }
    }
    pub(super) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where to connect, and as whom.
#[derive(Clone)]
pub(super) struct Client {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

/// A request before its body.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }
    pub(super) fn post(path: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: Method::POST, path: path.into(), headers: Vec::new(), body: body.into() }
            .with(header::CONTENT_TYPE, content_type)
    }
    pub(super) fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    fn request(self) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(self.path).header(header::HOST, "localhost");
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Body::from(self.body)).unwrap()
    }
}

impl Client {
    pub(super) fn mutual(address: SocketAddr, authority: &Authority, identity: &Identity) -> Self {
        Self { address, tls: Some(authority.client_config(Some(identity), &[b"http/1.1"])) }
    }
    pub(super) fn tls(address: SocketAddr, authority: &Authority) -> Self {
        Self { address, tls: Some(authority.client_config(None, &[b"http/1.1"])) }
    }
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
    /// The same client, over HTTP/2.
    pub(super) fn http2(&self) -> Self {
        let tls = self.tls.as_ref().map(|config| {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        });
        Self { address: self.address, tls }
    }

    /// Whether this client speaks HTTP/2.
    pub(super) fn http2_is_on(&self) -> bool {
        self.tls.as_ref().is_some_and(|config| config.alpn_protocols == [b"h2".to_vec()])
    }

    /// The bare stream, to send what no client would.
    pub(super) async fn raw(&self) -> Box<dyn Stream> {
        self.stream().await.unwrap()
    }

    async fn stream(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?))
            }
        }
    }

    /// A connection that stays open.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let io = TokioIo::new(self.stream().await.map_err(|error| error.to_string())?);
        if self.http2_is_on() {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            return Ok(Connection::Two(sender));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Connection::One(sender))
    }

    /// One request on a connection of its own; an error when there is no answer at all.
    pub(super) async fn try_send(&self, ask: Ask) -> Result<Answer, String> {
        self.connect().await?.send(ask).await
    }

    /// One request that is answered.
    pub(super) async fn send(&self, ask: Ask) -> Answer {
        self.try_send(ask).await.unwrap()
    }

    /// One `GET` that is answered.
    pub(super) async fn get(&self, path: impl Into<String>) -> Answer {
        self.send(Ask::get(path)).await
    }
}

/// An open connection.
pub(super) enum Connection {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Connection {
    pub(super) async fn send(&mut self, ask: Ask) -> Result<Answer, String> {
        let request = ask.request();
        let response = match self {
            Self::One(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                let (mut parts, body) = request.into_parts();
                parts.uri = format!("https://localhost{}", parts.uri).parse().unwrap();
                parts.headers.remove(header::HOST);
                sender.send_request(Request::from_parts(parts, body)).await
            }
        };
        let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}
