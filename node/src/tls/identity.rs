//! The node's own certificate and key, and the authorities it trusts, from PEM files.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::{Validity, validity};
use super::error::TlsError;

/// Certificates in one file at most: a chain has three, a list of authorities a few more.
const CERTIFICATES_MAX: usize = 64;

/// The node's certificate chain with its key. The key is wiped from memory when it is dropped.
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    validity: Validity,
}

impl TlsIdentity {
    /// Reads the chain (leaf first) and the key.
    ///
    /// # Errors
    /// `Pem`, `Empty`, `Certificate`.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let leaf = chain.first().ok_or_else(|| TlsError::Empty { path: certificate.to_owned() })?;
        let malformed = || TlsError::Certificate { path: certificate.to_owned() };
        let validity = X509Certificate::from_der(leaf).map(|(_, leaf)| validity(&leaf)).map_err(|_| malformed())?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
            what: "key",
            path: key.to_owned(),
            source,
        })?;
        Ok(Self { chain, key, validity })
    }
    /// When the certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// The certificates of a file as authorities for client certificates.
///
/// # Errors
/// `Pem`, `Empty`, `Certificate`.
pub fn read_authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|_| TlsError::Certificate { path: path.to_owned() })?;
    }
    if store.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(store) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { what: "certificate", path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .take(CERTIFICATES_MAX)
        .map(|certificate| certificate.map_err(failed))
        .collect()
}
