//! Requests that the typed client would not send, and connections that say nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of an answer that are read: problems are short.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Longest exchange.
const EXCHANGE_MAX: Duration = Duration::from_secs(40);

/// Certificates of one speaker.
#[derive(Clone)]
pub struct Speaker {
    config: Arc<rustls::ClientConfig>,
}

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Head and body as text.
    pub text: String,
}

impl Answer {
    /// The stable code of the problem in the body.
    pub fn code(&self) -> Option<&str> {
        let (_, rest) = self.text.split_once("\"code\":")?;
        rest.trim_start().strip_prefix('"')?.split('"').next()
    }
}

impl Speaker {
    /// Trusts `network_ca` in PEM; presents certificate and key in PEM, if any.
    ///
    /// # Errors
    /// When a certificate or key is malformed.
    pub fn new(network_ca: &str, identity: Option<(&str, &str)>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(network_ca.as_bytes()) {
            roots.add(certificate.context("network CA")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .context("client certificate")?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
            }
        };
        Ok(Self { config: Arc::new(config) })
    }

    /// Opens a connection and says nothing on it.
    ///
    /// # Errors
    /// When TCP or TLS fails.
    pub async fn connect(&self, address: &str) -> Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').context("address")?.0.to_owned();
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host).context("host")?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await.context("TLS handshake")
    }

    /// Sends one request and reads the answer to its end.
    ///
    /// # Errors
    /// When the connection fails before an answer comes: with TLS 1.3, a refused client certificate shows here.
    pub async fn request(&self, address: &str, head: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let exchange = async {
            let mut stream = self.connect(address).await?;
            let text = format!(
                "{head} HTTP/1.1\r\nhost: {address}\r\naccept: application/json, */*\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(text.as_bytes()).await.context("request head")?;
            // A node answers a body that is too large before it is sent whole, and closes.
            let sent = stream.write_all(body).await;
            let mut answer = Vec::new();
            let read = (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
            ensure!(!answer.is_empty(), "no answer: {sent:?} {read:?}");
            let text = String::from_utf8_lossy(&answer).into_owned();
            let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
            Ok(Answer { status, text })
        };
        tokio::time::timeout(EXCHANGE_MAX, exchange).await.context("no answer in time")?
    }
}
