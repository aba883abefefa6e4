//! TLS towards nodes: the network's own authority, and the party's client certificate.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::ClientError;

/// A party's client certificate with its key, both PEM. `Debug` shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl ClientIdentity {
    /// Reads a certificate chain and its PKCS#8 key.
    ///
    /// # Errors
    /// [`ClientError::Tls`].
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, ClientError> {
        let certificates = certificates_of(certificates, "client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| ClientError::tls(format!("client key: {error}")))?;
        Ok(Self { certificates, key: Arc::new(key) })
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// Whom the client believes and who it is.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    roots: Arc<RootCertStore>,
    identity: Option<ClientIdentity>,
}

impl TlsSettings {
    /// Trusts the network's authority in PEM and nobody else.
    ///
    /// # Errors
    /// [`ClientError::Tls`].
    pub fn new(network_ca: &str) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_of(network_ca, "network CA")? {
            roots.add(certificate).map_err(|error| ClientError::tls(format!("network CA: {error}")))?;
        }
        Ok(Self { roots: Arc::new(roots), identity: None })
    }
    /// Presents `identity` to nodes.
    #[must_use]
    pub fn with_identity(mut self, identity: ClientIdentity) -> Self {
        self.identity = Some(identity);
        self
    }
    pub(crate) fn config(&self) -> Result<rustls::ClientConfig, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(ClientError::tls)?
            .with_root_certificates(self.roots.clone());
        match &self.identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.certificates.clone(), identity.key.clone_key())
                .map_err(|error| ClientError::tls(format!("client certificate and key: {error}"))),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn certificates_of(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| ClientError::tls(format!("{what}: {error}")))?;
    if certificates.is_empty() {
        Err(ClientError::tls(format!("{what}: no certificate in the file")))
    } else {
        Ok(certificates)
    }
}
