//! What the API reads from a client's certificate, after the handshake has verified it.

use stele_types::Hash;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Time in which a certificate is valid, seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

impl Validity {
    /// Whether the second lies in it.
    pub fn contains(&self, unix_seconds: i64) -> bool {
        (self.not_before..=self.not_after).contains(&unix_seconds)
    }
}

/// The parts of a client certificate that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the SubjectPublicKeyInfo: what a party pins.
    pub key: Hash,
    /// The handshake checked this once; connections outlive certificates, so requests check it again.
    pub validity: Validity,
}

impl ClientCertificate {
    /// Reads a DER certificate; none when it does not parse.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self { key: Hash::of(certificate.public_key().raw), validity: validity(&certificate) })
    }
}

pub(super) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
}
