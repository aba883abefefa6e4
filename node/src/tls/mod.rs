//! TLS of the node's listeners: rustls with one named crypto provider.
//!
//! The network CA says only that a certificate belongs to this network. *Which* party it speaks for, and whether it still
//! may, is on the ledger: the SHA-256 of the certificate's SubjectPublicKeyInfo is pinned in the party's record, so a
//! revocation is a ledger event and no revocation list is asked. That look-up happens per request, in the API.
//!
//! [`provider`] is the seam for other cryptography: TLS with SM2 and SM4 (RFC 8998) needs a provider that rustls 0.23 does
//! not have, and goes in here.

mod certificate;
mod error;
mod identity;
mod slot;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

pub use certificate::{ClientCertificate, Validity};
pub use error::TlsError;
pub use identity::{TlsIdentity, read_authorities};
pub use slot::TlsSlot;

/// Protocols offered, HTTP/2 first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The cryptography of every listener.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Server side for the public: no client certificate is asked for.
///
/// # Errors
/// [`TlsError::Identity`] when key and certificate do not belong together.
pub fn public_config(identity: &TlsIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Identity)?
        .with_no_client_auth();
    finish(builder.with_single_cert(identity.chain(), identity.key()).map_err(TlsError::Identity)?)
}

/// Server side for parties and operators: a certificate of one of `authorities` is required.
///
/// # Errors
/// [`TlsError::Identity`], [`TlsError::Authorities`].
pub fn mutual_config(identity: &TlsIdentity, authorities: RootCertStore) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider())
        .build()
        .map_err(TlsError::Authorities)?;
    // TLS 1.3 only: parties run our client or a current one, and certificates stay encrypted on the wire.
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Identity)?
        .with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(identity.chain(), identity.key()).map_err(TlsError::Identity)?;
    // A resumed session would skip the check of the client certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    finish(config)
}

fn finish(mut config: ServerConfig) -> Result<Arc<ServerConfig>, TlsError> {
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}
