//! Where a key was when it signed: judged afterwards, offline, from evidence that travels with what the key signed.
//!
//! ```text
//!  pinned authority or fingerprint ──► endorsement key       its maker's word that this is a TPM
//!                                            ┆ credential: opened once, before the eyes of whoever enrolled the node
//!                  enrolled name ──────► attestation key     signs only what the TPM made
//!                                            │ certifies, or quotes
//!                                            ▼
//!                                         the key
//! ```
//!
//! No bytes that a node hands out join endorsement and attestation key, for the first signs nothing. A chain to a pinned
//! authority alone would pass a key in software beside the certificate of any TPM, so without an enrolled name nothing is
//! shown.

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    appraisal::Evidence,
    certificate::{CertificateError, Endorsement, EndorsementAnchors, verify_endorsement},
    error::EvidenceError,
    package::{KeyEvidence, KeyProof, KeyProvider, KeyReason, KeyTrust, certification, key_quote},
    policy::Policy,
    public::{Name, Public},
};

/// What a node says of one of its keys.
#[derive(Clone, Copy, Debug)]
pub struct OriginEvidence<'a> {
    /// The key, and the attestation key's word about it. That it is the key that signed is the caller's to know.
    pub key: &'a KeyEvidence,
    /// The node's TPM, if it has one.
    pub tpm: Option<TpmEvidence<'a>>,
}

/// By what a TPM is known, in raw TCG bytes.
#[derive(Clone, Copy, Debug)]
pub struct TpmEvidence<'a> {
    /// `TPM2B_PUBLIC` of the endorsement key.
    pub endorsement_key: &'a [u8],
    /// The maker's certificate of it, DER, perhaps padded.
    pub endorsement_certificate: Option<&'a [u8]>,
    /// `TPM2B_PUBLIC` of the attestation key.
    pub attestation_key: &'a [u8],
}

/// What the verifier believes.
#[derive(Clone, Copy, Debug)]
pub struct OriginExpectation<'a> {
    /// Name of the attestation key that was enrolled.
    pub attestation_key_name: Option<&'a Name>,
    /// Why its endorsement key was believed then.
    pub enrolled: Option<&'a Endorsement>,
    /// Whose endorsement keys are believed now; `None` leaves it with the enrolment.
    pub anchors: Option<&'a EndorsementAnchors>,
    /// Certificates between those of endorsement keys and the anchors', DER.
    pub intermediates: &'a [&'a [u8]],
    /// What a machine must have been that quoted a key; without one such a key is not shown.
    pub policy: Option<&'a Policy>,
    /// When the key signed, in seconds since 1970: certificates have to be valid then.
    pub time: u64,
}

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct OriginVerdict {
    /// Whether everything that was asked holds.
    pub shown: bool,
    /// Why not.
    pub reasons: Vec<OriginReason>,
    /// Where the node says that the key is.
    pub provider: KeyProvider,
    /// What the attestation key's word is worth, if that key is believed.
    pub trust: KeyTrust,
    /// SHA-256 of the key's `SubjectPublicKeyInfo`.
    pub fingerprint: Digest,
    /// Name of the attestation key that spoke for it, hexadecimal.
    pub attestation_key_name: Option<String>,
    /// Why the endorsement key is believed: now, or else at the enrolment.
    pub endorsement: Option<Endorsement>,
}

/// Why it is not shown where a key was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginReason {
    /// Nothing was said that could show it.
    Unproven,
    /// A public area cannot be read.
    Unreadable {
        /// Which key's.
        key: &'static str,
        /// Why.
        error: EvidenceError,
    },
    /// The attestation key is of no enrolment, so nothing shows that it is in a TPM.
    NotEnrolled,
    /// The endorsement key is another than the enrolled one.
    OtherEndorsementKey,
    /// The endorsement key is not believed.
    Endorsement(CertificateError),
    /// A machine vouched for the key, and there is no policy to judge the machine by.
    StateNotJudged,
    /// What the attestation key says of the key does not hold.
    Key(KeyReason),
}

/// Judges what is known of a key. Every reason is collected.
#[must_use]
pub fn trace_origin(evidence: &OriginEvidence<'_>, expectation: &OriginExpectation<'_>) -> OriginVerdict {
    let mut reasons = Vec::new();
    let mut endorsement = None;
    let mut attestation_key = None;
    if let Some(tpm) = &evidence.tpm {
        match believe(tpm, expectation) {
            Ok(believed) => endorsement = believed,
            Err(reason) => reasons.push(reason),
        }
        match Public::parse_sized(tpm.attestation_key) {
            Ok(public) => attestation_key = Some((tpm.attestation_key, public.name())),
            Err(error) => reasons.push(OriginReason::Unreadable { key: "attestation key", error }),
        }
    }
    let mut trust = KeyTrust::Unproven;
    if let (Some((bytes, name)), Some(proof)) = (&attestation_key, &evidence.key.proof) {
        if expectation.attestation_key_name.is_none() {
            reasons.push(OriginReason::NotEnrolled);
        }
        let name = expectation.attestation_key_name.unwrap_or(name);
        let (shown, against) = judge(evidence.key, proof, bytes, name, expectation.policy);
        trust = shown;
        reasons.extend(against);
    } else if reasons.is_empty() {
        reasons.push(OriginReason::Unproven);
    }
    OriginVerdict {
        shown: reasons.is_empty(),
        reasons,
        provider: evidence.key.provider,
        trust,
        fingerprint: HashAlgorithm::Sha256.digest(&[&evidence.key.spki]),
        attestation_key_name: attestation_key.map(|(_, name)| name.to_hex()),
        endorsement,
    }
}

/// Whether the endorsement key is believed, and why.
fn believe(tpm: &TpmEvidence<'_>, expectation: &OriginExpectation<'_>) -> Result<Option<Endorsement>, OriginReason> {
    let key = Public::parse_sized(tpm.endorsement_key)
        .map_err(|error| OriginReason::Unreadable { key: "endorsement key", error })?;
    let fingerprint = key.key.fingerprint();
    if expectation.enrolled.is_some_and(|enrolled| *enrolled.fingerprint() != fingerprint) {
        return Err(OriginReason::OtherEndorsementKey);
    }
    let Some(anchors) = expectation.anchors else { return Ok(expectation.enrolled.cloned()) };
    let certificate = tpm.endorsement_certificate;
    verify_endorsement(&key, certificate, expectation.intermediates, anchors, expectation.time)
        .map(Some)
        .map_err(OriginReason::Endorsement)
}

/// What an attestation key of this name says of a key.
fn judge(
    key: &KeyEvidence,
    proof: &KeyProof,
    attestation_key: &[u8],
    name: &Name,
    policy: Option<&Policy>,
) -> (KeyTrust, Vec<OriginReason>) {
    let against: Vec<KeyReason> = match (proof, policy) {
        (KeyProof::Certification { message, signature, public }, _) => {
            Vec::from_iter(certification(key, public, (message, signature), attestation_key, name))
        }
        (KeyProof::Quote { message, signature, pcrs }, Some(policy)) => {
            let evidence =
                Evidence { quote: message, signature, pcrs, attestation_key, event_log: None, ima_log: None };
            key_quote(key, &evidence, name, policy)
        }
        (KeyProof::Quote { .. }, None) => return (KeyTrust::Unproven, vec![OriginReason::StateNotJudged]),
    };
    let trust = match proof {
        _ if !against.is_empty() => KeyTrust::Refused,
        KeyProof::Certification { .. } => KeyTrust::Certified,
        KeyProof::Quote { .. } => KeyTrust::Quoted,
    };
    (trust, against.into_iter().map(OriginReason::Key).collect())
}

impl OriginReason {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unproven => "key_unproven",
            Self::Unreadable { error, .. } => error.code(),
            Self::NotEnrolled => "attestation_key_not_enrolled",
            Self::OtherEndorsementKey => "endorsement_key_other",
            Self::Endorsement(error) => error.code(),
            Self::StateNotJudged => "key_state_not_judged",
            Self::Key(reason) => reason.code(),
        }
    }
}

impl fmt::Display for OriginReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unproven => formatter.write_str("nothing shows where the key is"),
            Self::Unreadable { key, error } => write!(formatter, "the {key} cannot be read: {error}"),
            Self::NotEnrolled => formatter
                .write_str("no enrolment names the attestation key, and nothing else shows that it is in a TPM"),
            Self::OtherEndorsementKey => formatter.write_str("the endorsement key is another than the enrolled one"),
            Self::Endorsement(error) => write!(formatter, "the endorsement key is not believed: {error}"),
            Self::StateNotJudged => {
                formatter.write_str("a machine vouched for the key, and no policy says what the machine must have been")
            }
            Self::Key(reason) => reason.fmt(formatter),
        }
    }
}

impl Serialize for OriginReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("OriginReason", 2)?;
        fields.serialize_field("code", self.code())?;
        fields.serialize_field("message", &self.to_string())?;
        fields.end()
    }
}
