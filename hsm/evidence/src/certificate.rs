//! Certificates of endorsement keys: X.509 (RFC 5280) as the TCG EK Credential Profile uses it, from the key to an authority
//! or a fingerprint that the verifier pinned.
//!
//! Names are compared byte for byte, as authorities write them. Revocation lists are not read: a vendor's list is fetched by
//! whoever keeps the pins, who takes the pin away.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, time::Duration};

use der::{
    Decode, Reader as _, SliceReader,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef},
};
use serde::{Deserialize, Serialize};
use x509_cert::{
    TbsCertificate,
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage},
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    key::PublicKey,
    public::Public,
    rsa::RsaPublicKey,
};

/// Longest certificate in bytes; those of endorsement keys have 1 to 2 KiB.
pub const CERTIFICATE_LENGTH_MAX: usize = 8192;

/// Certificates that may lie between an endorsement key's and a pinned one; vendors use one or two.
pub const INTERMEDIATES_MAX: usize = 8;

/// `tcg-kp-EKCertificate`.
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Some vendors say that an endorsement key does OAEP only.
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Signature algorithms: identifier, hash, and whether it is RSA.
const SIGNATURES: [(ObjectIdentifier, HashAlgorithm, bool); 6] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), HashAlgorithm::Sha256, false),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), HashAlgorithm::Sha384, false),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), HashAlgorithm::Sha512, false),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), HashAlgorithm::Sha256, true),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), HashAlgorithm::Sha384, true),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), HashAlgorithm::Sha512, true),
];

/// Extensions that may be critical: those that are judged here, and those that cannot narrow what is judged.
const KNOWN_EXTENSIONS: [ObjectIdentifier; 6] = [
    // basicConstraints, keyUsage and extKeyUsage are judged.
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
    // subjectAltName holds the TPM's maker and model, critical because the subject is empty.
    ObjectIdentifier::new_unwrap("2.5.29.17"),
    // certificatePolicies, subjectDirectoryAttributes.
    ObjectIdentifier::new_unwrap("2.5.29.32"),
    ObjectIdentifier::new_unwrap("2.5.29.9"),
];

/// Why an endorsement key is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// It is longer than is read, or there are too many.
    TooLarge,
    /// It is no certificate in DER.
    Malformed,
    /// Its key or signature is of an algorithm that is not supported.
    UnsupportedAlgorithm,
    /// A critical extension is not known.
    CriticalExtension,
    /// The certificate is of another key than the endorsement key.
    OtherKey,
    /// The certificate is for another use than endorsement.
    OtherUse,
    /// The key has not the attributes of an endorsement key.
    KeyAttributes,
    /// No certificate of the key was given, and its fingerprint is not pinned.
    NotPinned,
    /// No way leads from the certificate to a pinned authority by valid signatures of certificate authorities.
    NoPath,
    /// A certificate of the way is not valid at that time.
    NotValidAtTime,
}

impl CertificateError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "certificate_too_large",
            Self::Malformed => "certificate_malformed",
            Self::UnsupportedAlgorithm => "certificate_algorithm_unsupported",
            Self::CriticalExtension => "certificate_critical_extension",
            Self::OtherKey => "certificate_of_other_key",
            Self::OtherUse => "certificate_of_other_use",
            Self::KeyAttributes => "endorsement_key_attributes",
            Self::NotPinned => "endorsement_key_not_pinned",
            Self::NoPath => "certificate_no_path",
            Self::NotValidAtTime => "certificate_not_valid_at_time",
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "a certificate is too long, or there are too many",
            Self::Malformed => "a certificate is not DER of RFC 5280",
            Self::UnsupportedAlgorithm => "a certificate uses an algorithm that is not supported",
            Self::CriticalExtension => "a certificate has a critical extension that is not known",
            Self::OtherKey => "the certificate is of another key than the endorsement key",
            Self::OtherUse => "the certificate is not for an endorsement key",
            Self::KeyAttributes => "the key is not a restricted decryption key that is fixed to its TPM",
            Self::NotPinned => "there is no certificate of the endorsement key, and its fingerprint is not pinned",
            Self::NoPath => "the certificate leads to no pinned authority",
            Self::NotValidAtTime => "a certificate is not valid at that time",
        })
    }
}

impl core::error::Error for CertificateError {}

/// What the verifier believes about endorsement keys.
#[derive(Clone, Debug, Default)]
pub struct EndorsementAnchors {
    /// Certificates of authorities, DER.
    pub authorities: Vec<Vec<u8>>,
    /// Fingerprints of endorsement keys: SHA-256 of their `SubjectPublicKeyInfo` ([`PublicKey::fingerprint`]).
    pub fingerprints: Vec<Digest>,
}

/// Why an endorsement key is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Endorsement {
    /// Its fingerprint is pinned.
    Fingerprint {
        /// Its fingerprint.
        fingerprint: Digest,
    },
    /// A pinned authority vouches for it.
    Authority {
        /// Its fingerprint.
        fingerprint: Digest,
        /// Name of the pinned authority, RFC 4514.
        authority: String,
        /// Serial number of the key's certificate, hexadecimal.
        serial: String,
        /// Certificates between the key's and the authority's.
        intermediates: usize,
    },
}

impl Endorsement {
    /// The endorsement key's fingerprint.
    #[must_use]
    pub const fn fingerprint(&self) -> &Digest {
        match self {
            Self::Fingerprint { fingerprint } | Self::Authority { fingerprint, .. } => fingerprint,
        }
    }
}

/// Checks an endorsement key: pinned by fingerprint, or certified up to a pinned authority. `time` is when the way must be
/// valid, in seconds since 1970; `certificate` may be padded to the size of its NV index.
///
/// # Errors
/// [`CertificateError`].
pub fn verify_endorsement(
    endorsement_key: &Public,
    certificate: Option<&[u8]>,
    intermediates: &[&[u8]],
    anchors: &EndorsementAnchors,
    time: u64,
) -> Result<Endorsement, CertificateError> {
    let attributes = endorsement_key.attributes;
    // Only such a key makes the TPM check the name in a credential before it gives the secret back.
    if !(attributes.fixed_tpm() && attributes.restricted() && attributes.decrypt()) || attributes.sign() {
        return Err(CertificateError::KeyAttributes);
    }
    let fingerprint = endorsement_key.key.fingerprint();
    if anchors.fingerprints.contains(&fingerprint) {
        return Ok(Endorsement::Fingerprint { fingerprint });
    }
    if intermediates.len() > INTERMEDIATES_MAX {
        return Err(CertificateError::TooLarge);
    }
    let leaf = Certificate::parse(certificate.ok_or(CertificateError::NotPinned)?)?;
    if leaf.key()? != endorsement_key.key {
        return Err(CertificateError::OtherKey);
    }
    leaf.require_endorsement()?;
    leaf.require_valid(time)?;
    let authorities = parse_all(anchors.authorities.iter().map(Vec::as_slice))?;
    let mut others = parse_all(intermediates.iter().copied())?;
    let serial = crate::algorithm::to_hex(leaf.tbs.serial_number.as_bytes());
    let mut current = leaf;
    for used in 0..=INTERMEDIATES_MAX {
        let pinned = authorities.iter().find(|authority| authority.signed(&current, used));
        if let Some(authority) = pinned {
            authority.require_valid(time)?;
            let authority = authority.tbs.subject.to_string();
            return Ok(Endorsement::Authority { fingerprint, authority, serial, intermediates: used });
        }
        let next = others.iter().position(|other| other.signed(&current, used)).ok_or(CertificateError::NoPath)?;
        current = others.swap_remove(next);
        current.require_valid(time)?;
    }
    Err(CertificateError::NoPath)
}

fn parse_all<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Certificate<'a>>, CertificateError> {
    certificates.map(Certificate::parse).collect()
}

/// A certificate with the bytes that its signature covers.
struct Certificate<'a> {
    tbs_bytes: &'a [u8],
    tbs: TbsCertificate,
    algorithm: ObjectIdentifier,
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, CertificateError> {
        if bytes.len() > CERTIFICATE_LENGTH_MAX {
            return Err(CertificateError::TooLarge);
        }
        let certificate = Self::parse_der(bytes).map_err(|_| CertificateError::Malformed)?;
        let extensions = certificate.tbs.extensions.as_deref().unwrap_or_default();
        // A second extension of one type could say something else than the first.
        let twice = |at: usize| extensions[..at].iter().any(|other| other.extn_id == extensions[at].extn_id);
        if (0..extensions.len()).any(twice) {
            return Err(CertificateError::Malformed);
        }
        if extensions.iter().any(|extension| extension.critical && !KNOWN_EXTENSIONS.contains(&extension.extn_id)) {
            return Err(CertificateError::CriticalExtension);
        }
        Ok(certificate)
    }

    fn parse_der(bytes: &'a [u8]) -> der::Result<Self> {
        let mut outer = SliceReader::new(without_padding(bytes))?;
        let parsed = outer.sequence(|reader| {
            let tbs_bytes = reader.tlv_bytes()?;
            let algorithm = AlgorithmIdentifierOwned::decode(reader)?;
            let signature = BitStringRef::decode(reader)?;
            let tbs = TbsCertificate::from_der(tbs_bytes)?;
            if tbs.signature != algorithm {
                return Err(der::ErrorKind::Failed.into());
            }
            let signature = signature.as_bytes().ok_or(der::ErrorKind::Failed)?;
            Ok(Self { tbs_bytes, tbs, algorithm: algorithm.oid, signature })
        })?;
        outer.finish(parsed)
    }

    fn key(&self) -> Result<PublicKey, CertificateError> {
        read_key(&self.tbs.subject_public_key_info)
    }

    /// Whether this certificate is of an authority that may sign below `depth` others, and signed `other`.
    fn signed(&self, other: &Certificate<'_>, depth: usize) -> bool {
        self.tbs.subject == other.tbs.issuer
            && self.is_authority(depth)
            && self.key().is_ok_and(|key| verify_signature(&key, other))
    }

    /// RFC 5280 sections 4.2.1.3 and 4.2.1.9.
    fn is_authority(&self, depth: usize) -> bool {
        let Ok(Some((_, constraints))) = self.tbs.get::<BasicConstraints>() else { return false };
        let signs = match self.tbs.get::<KeyUsage>() {
            Ok(usage) => usage.is_none_or(|(_, usage)| usage.key_cert_sign()),
            Err(_) => false,
        };
        constraints.ca && signs && constraints.path_len_constraint.is_none_or(|most| depth <= usize::from(most))
    }

    fn require_endorsement(&self) -> Result<(), CertificateError> {
        let usage = self.tbs.get::<ExtendedKeyUsage>().map_err(|_| CertificateError::Malformed)?;
        let constraints = self.tbs.get::<BasicConstraints>().map_err(|_| CertificateError::Malformed)?;
        let endorses = usage.is_none_or(|(_, usage)| usage.0.contains(&EK_CERTIFICATE));
        if !endorses || constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(CertificateError::OtherUse);
        }
        Ok(())
    }

    fn require_valid(&self, time: u64) -> Result<(), CertificateError> {
        let validity = &self.tbs.validity;
        let time = Duration::from_secs(time);
        if time < validity.not_before.to_unix_duration() || time > validity.not_after.to_unix_duration() {
            return Err(CertificateError::NotValidAtTime);
        }
        Ok(())
    }
}

/// NV indices are as large as the vendor made them; the rest is zeros or ones.
fn without_padding(bytes: &[u8]) -> &[u8] {
    let length = match bytes {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => return bytes,
    };
    match bytes.split_at_checked(length) {
        Some((certificate, rest)) if rest.iter().all(|byte| *byte == 0) || rest.iter().all(|byte| *byte == 0xff) => {
            certificate
        }
        _ => bytes,
    }
}

fn read_key(info: &SubjectPublicKeyInfoOwned) -> Result<PublicKey, CertificateError> {
    let bits = info.subject_public_key.as_bytes().ok_or(CertificateError::Malformed)?;
    match info.algorithm.oid {
        RSA_ENCRYPTION | RSAES_OAEP => {
            let malformed = |_: der::Error| CertificateError::Malformed;
            let mut reader = SliceReader::new(bits).map_err(malformed)?;
            let (modulus, exponent) =
                reader.sequence(|reader| Ok((UintRef::decode(reader)?, u32::decode(reader)?))).map_err(malformed)?;
            reader.finish(()).map_err(malformed)?;
            RsaPublicKey::new(modulus.as_bytes(), exponent).map(PublicKey::Rsa)
        }
        EC_PUBLIC_KEY => {
            let parameters = info.algorithm.parameters.as_ref().ok_or(CertificateError::Malformed)?;
            let curve = AnyRef::from(parameters).decode_as::<ObjectIdentifier>();
            match curve.map_err(|_| CertificateError::UnsupportedAlgorithm)? {
                P256 => PublicKey::p256_from_sec1(bits).ok(),
                P384 => PublicKey::p384_from_sec1(bits).ok(),
                _ => None,
            }
        }
        _ => None,
    }
    .ok_or(CertificateError::UnsupportedAlgorithm)
}

fn verify_signature(key: &PublicKey, certificate: &Certificate<'_>) -> bool {
    let known = SIGNATURES.iter().find(|(identifier, ..)| *identifier == certificate.algorithm);
    let Some((_, hash, rsa)) = known else { return false };
    let digest = hash.digest(&[certificate.tbs_bytes]);
    match key {
        PublicKey::Rsa(key) => *rsa && key.verify_pkcs1(*hash, digest.as_bytes(), certificate.signature),
        PublicKey::P256(_) | PublicKey::P384(_) => {
            let Ok((r, s)) = read_ecdsa(certificate.signature) else { return false };
            !rsa && key.verify_ecdsa(&digest, r.as_bytes(), s.as_bytes())
        }
    }
}

/// `ECDSA-Sig-Value`, RFC 3279 section 2.2.3.
fn read_ecdsa(bytes: &[u8]) -> der::Result<(UintRef<'_>, UintRef<'_>)> {
    let mut reader = SliceReader::new(bytes)?;
    let values = reader.sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?)))?;
    reader.finish(values)
}
