//! The network's own certificate authority and the TLS certificates of nodes and parties.
//!
//! Certificates only carry keys: who may do what is the pin in the party's ledger record, so revocation is a ledger
//! event and no revocation list exists (design 4.2.7). All TLS keys are P-256.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use stele_types::Hash;

use crate::keys;

/// Life of the network's certificate authority: twenty years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Life of a certificate: two years, within the 825 days that TLS stacks accept.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Certificates begin an hour before they are made, because clocks differ.
const CLOCK_SLACK: Duration = Duration::from_secs(3_600);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A node's listeners.
    Server,
    /// A party's client certificate.
    Client,
}

/// A certificate and its private key, both PEM, with the pin of its key.
pub struct Leaf {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key: PKCS#8 PEM.
    pub key: zeroize::Zeroizing<String>,
    /// SHA-256 of the SubjectPublicKeyInfo: what the ledger pins.
    pub pin: Hash,
}

/// The certificate authority of one network.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, its key included.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn create(network_name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("key of the network's certificate authority")?;
        let mut params = params(&format!("{network_name} network CA"), AUTHORITY_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("certificate of the network's authority")?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Opens an authority from its files.
    ///
    /// # Errors
    /// When a file cannot be read, others may read the key, or either is malformed.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self> {
        let pem = std::fs::read_to_string(certificate)
            .with_context(|| format!("cannot read the network CA {}", certificate.display()))?;
        let key = KeyPair::from_pem(&keys::read_secret(key)?).context("malformed key of the network CA")?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).context("malformed certificate of the network CA")?;
        Ok(Self { certificate: pem, issuer })
    }

    /// The authority's certificate in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Writes certificate and key; the key gets mode 0600.
    ///
    /// # Errors
    /// When a file exists or cannot be written.
    pub fn save_new(&self, certificate: &Path, key: &Path) -> Result<()> {
        std::fs::write(certificate, &self.certificate)
            .with_context(|| format!("cannot write {}", certificate.display()))?;
        let pem = zeroize::Zeroizing::new(self.issuer.key().serialize_pem());
        keys::write_secret_new(key, pem.as_bytes())
    }

    /// A certificate for `name`; `hosts` are host names and IP addresses of a server.
    ///
    /// # Errors
    /// When a host is no valid name or the key cannot be made.
    pub fn issue(&self, name: &str, hosts: &[String], usage: Usage) -> Result<Leaf> {
        let key = KeyPair::generate().with_context(|| format!("TLS key of {name}"))?;
        let mut params = params(name, CERTIFICATE_LIFE)?;
        params.subject_alt_names =
            CertificateParams::new(hosts.to_vec()).with_context(|| format!("host names of {name}"))?.subject_alt_names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("TLS certificate of {name}"))?;
        let pin = Hash::of(&key.subject_public_key_info());
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem().into(), pin })
    }
}

fn params(name: &str, life: Duration) -> Result<CertificateParams> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1) + since_epoch.saturating_sub(CLOCK_SLACK);
    params.not_after = params.not_before + life;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
