//! What can be wrong with certificates and keys.

use std::path::PathBuf;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file could not be read or holds nothing of the kind.
    #[error("{what} {}: {source}; it must be a PEM file", path.display())]
    Pem {
        /// What was expected.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file without a certificate.
    #[error("{}: no certificate in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that does not parse.
    #[error("{}: not an X.509 certificate", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or the key is of a kind that TLS does not know.
    #[error("the node's certificate and key cannot be used: {0}")]
    Identity(#[source] rustls::Error),
    /// The authorities cannot issue client certificates.
    #[error("the client CA cannot be used: {0}")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
}
