//! Where the key was that signed a bundle's checkpoint: what the bundle says of it, judged by what the verifier believes.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use stele_evidence::exchange::Enrolment;
use stele_evidence::package::{KeyEvidence, KeyProof, KeyProvider, KeyTrust};
use stele_evidence::{
    Digest, Endorsement, EndorsementAnchors, Name, OriginEvidence, OriginExpectation, OriginReason, OriginVerdict,
    Policy, PublicKey, TpmEvidence, trace_origin,
};
use stele_types::receipt::Receipt;
use stele_types::signer::{self, KeyAttestation};
use stele_types::{Bundle, Suite};

use crate::attestation::{parse_fingerprint, parse_name, read_certificates, read_enrolment, read_policy};

/// Files and names by which a verifier knows the node that signed.
#[derive(Clone, Debug, Default, Args)]
pub struct SignerArguments {
    /// The node as `stele attest enrol` wrote it: ask where its checkpoint key was
    #[arg(long, value_name = "FILE")]
    pub enrolment: Option<PathBuf>,
    /// Name of the node's attestation key, if it came another way than by an enrolment
    #[arg(long, value_name = "HEX", value_parser = parse_name, conflicts_with = "enrolment")]
    pub attestation_key_name: Option<Name>,
    /// Certificate of an authority that must have certified the endorsement key, PEM or DER; several may be given
    #[arg(long, value_name = "FILE")]
    pub anchor: Vec<PathBuf>,
    /// Certificate between the endorsement key's and the authority's; several may be given
    #[arg(long, value_name = "FILE")]
    pub intermediate: Vec<PathBuf>,
    /// Fingerprint that the endorsement key must have; several may be given
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    pub fingerprint: Vec<Digest>,
    /// What a machine must have been that vouched for a key in a token
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// What the files say.
#[derive(Debug)]
pub struct SignerBeliefs {
    attestation_key_name: Option<Name>,
    enrolled: Option<Endorsement>,
    anchors: Option<EndorsementAnchors>,
    intermediates: Vec<Vec<u8>>,
    policy: Option<Policy>,
    asked: bool,
}

/// What is shown of a bundle's signer.
#[derive(Debug)]
pub struct SignerVerdict {
    /// The judgement.
    pub origin: OriginVerdict,
    /// Whether the bundle says anything of its signer.
    pub said: bool,
    /// Whether the verifier asked for it, so that a bundle whose signer is not shown is not enough.
    pub asked: bool,
}

impl SignerArguments {
    /// Whether anything is asked.
    pub fn is_asked(&self) -> bool {
        let Self { enrolment, attestation_key_name, anchor, intermediate, fingerprint, policy } = self;
        enrolment.is_some()
            || attestation_key_name.is_some()
            || policy.is_some()
            || !(anchor.is_empty() && intermediate.is_empty() && fingerprint.is_empty())
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or is not what it should be.
    pub fn read(&self) -> Result<SignerBeliefs> {
        let enrolment = self.enrolment.as_deref().map(read_enrolment).transpose()?;
        let (name, enrolled) = match enrolment {
            Some(Enrolment { attestation_key_name, endorsement, .. }) => {
                (Some(attestation_key_name), Some(endorsement))
            }
            None => (self.attestation_key_name.clone(), None),
        };
        let all = |paths: &[PathBuf]| -> Result<Vec<Vec<u8>>> {
            Ok(paths.iter().map(|path| read_certificates(path)).collect::<Result<Vec<_>>>()?.concat())
        };
        let authorities = all(&self.anchor)?;
        let pinned = !(authorities.is_empty() && self.fingerprint.is_empty());
        Ok(SignerBeliefs {
            attestation_key_name: name,
            enrolled,
            anchors: pinned.then(|| EndorsementAnchors { authorities, fingerprints: self.fingerprint.clone() }),
            intermediates: all(&self.intermediate)?,
            policy: self.policy.as_deref().map(read_policy).transpose()?,
            asked: self.is_asked(),
        })
    }
}

impl SignerBeliefs {
    /// Judges what a bundle says of the key that signed its receipt; `checkpoint_key` is the one under which the signature
    /// verified.
    #[must_use]
    pub fn judge(&self, bundle: &Bundle, receipt: &Receipt, checkpoint_key: &[u8]) -> SignerVerdict {
        let said = bundle.checkpoint_signer.as_ref();
        let key = KeyEvidence {
            name: "seal".to_owned(),
            provider: said.map_or(KeyProvider::Software, |said| provider(said.provider)),
            spki: spki(receipt.checkpoint.suite, checkpoint_key),
            proof: said.and_then(|said| said.attestation.as_ref()).and_then(proof),
        };
        let tpm = said.and_then(|said| said.tpm.as_ref()).map(|tpm| TpmEvidence {
            endorsement_key: &tpm.endorsement_key,
            endorsement_certificate: tpm.endorsement_certificate.as_deref(),
            attestation_key: &tpm.attestation_key,
        });
        let intermediates: Vec<&[u8]> = self.intermediates.iter().map(Vec::as_slice).collect();
        let expectation = OriginExpectation {
            attestation_key_name: self.attestation_key_name.as_ref(),
            enrolled: self.enrolled.as_ref(),
            anchors: self.anchors.as_ref(),
            intermediates: &intermediates,
            policy: self.policy.as_ref(),
            time: receipt.checkpoint.time_ms / 1000,
        };
        let origin = trace_origin(&OriginEvidence { key: &key, tpm }, &expectation);
        SignerVerdict { origin, said: said.is_some(), asked: self.asked }
    }
}

impl SignerVerdict {
    /// The verdict as named values, in order.
    #[must_use]
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let OriginVerdict { reasons, provider, fingerprint, attestation_key_name, endorsement, .. } = &self.origin;
        let codes: Vec<&str> = reasons.iter().map(OriginReason::code).collect();
        let endorsed_by = match endorsement {
            None => Value::Null,
            Some(Endorsement::Fingerprint { fingerprint }) => fingerprint.to_string().into(),
            Some(Endorsement::Authority { authority, .. }) => authority.as_str().into(),
        };
        vec![
            ("signer", self.word().into()),
            ("signer_shown", self.explanation().into()),
            ("signer_codes", codes.into()),
            ("signer_says", self.said.then(|| provider.as_str()).into()),
            ("signer_key", fingerprint.to_string().into()),
            ("attestation_key", attestation_key_name.clone().into()),
            ("endorsed_by", endorsed_by),
        ]
    }

    fn word(&self) -> &'static str {
        match self.origin.trust {
            trust if self.origin.shown => trust.as_str(),
            _ => "not_shown",
        }
    }

    fn explanation(&self) -> String {
        if !self.asked {
            return "nothing: name an enrolment of the node to ask where its checkpoint key was".to_owned();
        }
        if !self.origin.shown {
            let reasons: Vec<String> = self.origin.reasons.iter().map(ToString::to_string).collect();
            return format!("nothing: {}", reasons.join("; "));
        }
        match self.origin.trust {
            KeyTrust::Certified => "the checkpoint key was made in the TPM of this attestation key and never leaves it",
            _ => "a machine of this attestation key, in a state that the policy allows, vouched for the checkpoint key",
        }
        .to_owned()
    }
}

/// The checkpoint key as TPMs are qualified by it; empty for a suite that none of them has, which no evidence is about.
fn spki(suite: Suite, key: &[u8]) -> Vec<u8> {
    match suite {
        Suite::Es256 => PublicKey::p256_from_sec1(key).map(|key| key.spki_der()).unwrap_or_default(),
        _ => Vec::new(),
    }
}

const fn provider(provider: signer::KeyProvider) -> KeyProvider {
    match provider {
        signer::KeyProvider::Tpm => KeyProvider::Tpm,
        signer::KeyProvider::Pkcs11 => KeyProvider::Pkcs11,
        signer::KeyProvider::Software => KeyProvider::Software,
    }
}

/// A certification or a quote; what is neither or both shows nothing.
fn proof(attestation: &KeyAttestation) -> Option<KeyProof> {
    let (message, signature) = (attestation.message.to_vec(), attestation.signature.to_vec());
    match (&attestation.public_area, &attestation.pcr_values) {
        (Some(public), None) => Some(KeyProof::Certification { message, signature, public: public.to_vec() }),
        (None, Some(pcrs)) => Some(KeyProof::Quote { message, signature, pcrs: pcrs.to_vec() }),
        _ => None,
    }
}
