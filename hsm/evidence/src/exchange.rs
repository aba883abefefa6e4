//! What a node and its verifiers say to each other in JSON, beside the evidence package: identity, activation of a
//! credential, the nonce, and what a verifier keeps of an enrolled node.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    algorithm::{from_hex, to_hex},
    certificate::Endorsement,
    credential::Credential,
    nonce::NONCE_LENGTH,
    package::{Base64, KeyEvidence, KeyProvider},
    public::Name,
};

/// `GET /v1/attest/identity`: by what the node is known. Claims until an endorsement chain, a credential and the keys'
/// proofs show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `TPM2B_PUBLIC` of the endorsement key.
    #[serde(with = "base64_text")]
    pub endorsement_key: Vec<u8>,
    /// The maker's certificate of it, DER, perhaps padded; `None` if the TPM has none.
    #[serde(with = "base64_option")]
    pub endorsement_certificate: Option<Vec<u8>>,
    /// `TPM2B_PUBLIC` of the attestation key.
    #[serde(with = "base64_text")]
    pub attestation_key: Vec<u8>,
    /// Its name, which follows from it.
    pub attestation_key_name: Name,
    /// The node's keys.
    pub keys: Vec<KeyEvidence>,
}

/// `POST /v1/attest/activate`: a credential for the node's TPM to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// `TPM2B_ID_OBJECT`.
    #[serde(with = "base64_text")]
    pub id_object: Vec<u8>,
    /// `TPM2B_ENCRYPTED_SECRET`.
    #[serde(with = "base64_text")]
    pub encrypted_seed: Vec<u8>,
}

/// The answer to an [`Activation`]. The secret is the verifier's own, is used once and protects nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// The secret of the credential.
    #[serde(with = "base64_text")]
    pub secret: Vec<u8>,
}

/// `POST /v1/attest/quote`: the verifier's nonce; the answer is an evidence package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// Random bytes that the verifier uses once; 64 hexadecimal digits.
    #[serde(with = "nonce_text")]
    pub nonce: [u8; NONCE_LENGTH],
}

/// What a verifier keeps of a node whose endorsement key it believes and whose TPM opened a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Name of the attestation key.
    pub attestation_key_name: Name,
    /// Why the endorsement key was believed.
    pub endorsement: Endorsement,
    /// Keys that the node had.
    pub keys: Vec<EnrolledKey>,
}

/// A key of an enrolled node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledKey {
    /// Its name.
    pub name: String,
    /// Where the node said that it is.
    pub provider: KeyProvider,
    /// `SubjectPublicKeyInfo` in DER.
    #[serde(with = "base64_text")]
    pub spki: Vec<u8>,
}

impl From<Credential> for Activation {
    fn from(credential: Credential) -> Self {
        Self { id_object: credential.id_object, encrypted_seed: credential.encrypted_seed }
    }
}

impl From<Activation> for Credential {
    fn from(activation: Activation) -> Self {
        Self { id_object: activation.id_object, encrypted_seed: activation.encrypted_seed }
    }
}

impl From<&KeyEvidence> for EnrolledKey {
    fn from(key: &KeyEvidence) -> Self {
        Self { name: key.name.clone(), provider: key.provider, spki: key.spki.clone() }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_hex(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

mod base64_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Base64(bytes.into()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Base64::deserialize(deserializer).map(|bytes| bytes.0)
    }
}

mod base64_option {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Base64).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<Base64>::deserialize(deserializer).map(|bytes| bytes.map(|bytes| bytes.0))
    }
}

mod nonce_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(nonce: &[u8; NONCE_LENGTH], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(nonce))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; NONCE_LENGTH], D::Error> {
        let nonce = from_hex(&String::deserialize(deserializer)?, NONCE_LENGTH);
        let nonce = nonce.and_then(|nonce| nonce.try_into().ok());
        nonce.ok_or_else(|| de::Error::custom("a nonce is 64 hexadecimal digits"))
    }
}
