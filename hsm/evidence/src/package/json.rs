//! JSON: one object, bytes in base64 (RFC 4648 section 4), the nonce in hexadecimal. Unknown members are ignored, so that a
//! newer node can say more.

use alloc::{string::String, vec::Vec};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    algorithm::{from_hex, to_hex},
    nonce::NONCE_LENGTH,
    package::{
        content::{EvidencePackage, KeyEvidence, KeyProof, KeyProvider},
        error::PackageError,
        part::PACKAGE_LENGTH_MAX,
    },
};

/// Longest JSON form: base64 takes a third more.
const JSON_LENGTH_MAX: usize = PACKAGE_LENGTH_MAX / 3 * 4;

/// Bytes that are base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| de::Error::custom("not base64 of RFC 4648 section 4"))
    }
}

#[derive(Serialize, Deserialize)]
struct PackageView {
    nonce: String,
    checkpoint: Base64,
    quote: QuoteView,
    attestation_key: Base64,
    event_log: Option<Base64>,
    ima_log: Option<Base64>,
    manifest: Option<Base64>,
    keys: Vec<KeyEvidence>,
}

#[derive(Serialize, Deserialize)]
struct QuoteView {
    message: Base64,
    signature: Base64,
    pcrs: Base64,
}

#[derive(Serialize, Deserialize)]
struct CertificationView {
    message: Base64,
    signature: Base64,
    public: Base64,
}

#[derive(Serialize, Deserialize)]
struct KeyView {
    name: String,
    provider: KeyProvider,
    spki: Base64,
    certification: Option<CertificationView>,
    quote: Option<QuoteView>,
}

impl EvidencePackage {
    /// The package as JSON.
    ///
    /// # Errors
    /// As [`EvidencePackage::encode`].
    pub fn to_json(&self) -> Result<Vec<u8>, PackageError> {
        self.parts()?;
        let some = |bytes: &Option<Vec<u8>>| bytes.clone().map(Base64);
        let view = PackageView {
            nonce: to_hex(&self.nonce),
            checkpoint: Base64(self.sig_structure.clone()),
            quote: QuoteView {
                message: Base64(self.quote_message.clone()),
                signature: Base64(self.quote_signature.clone()),
                pcrs: Base64(self.pcrs.clone()),
            },
            attestation_key: Base64(self.attestation_key.clone()),
            event_log: some(&self.event_log),
            ima_log: some(&self.ima_log),
            manifest: some(&self.manifest),
            keys: self.keys_by_name()?.into_iter().cloned().collect(),
        };
        // Strings alone: nothing that JSON could not say.
        let bytes = serde_json::to_vec(&view).map_err(|_| PackageError::Malformed { reason: "not JSON" })?;
        if bytes.len() > JSON_LENGTH_MAX {
            return Err(PackageError::TooLarge { part: "package", limit: JSON_LENGTH_MAX });
        }
        Ok(bytes)
    }

    /// Reads a package from JSON.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, PackageError> {
        if bytes.len() > JSON_LENGTH_MAX {
            return Err(PackageError::TooLarge { part: "package", limit: JSON_LENGTH_MAX });
        }
        let view: PackageView = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => PackageError::Truncated,
            _ => PackageError::Malformed { reason: "not the JSON of an evidence package" },
        })?;
        let nonce = from_hex(&view.nonce, NONCE_LENGTH).and_then(|nonce| nonce.try_into().ok());
        let some = |bytes: Option<Base64>| bytes.map(|bytes| bytes.0);
        let mut package = Self {
            nonce: nonce.ok_or(PackageError::Malformed { reason: "a nonce has 32 bytes" })?,
            sig_structure: view.checkpoint.0,
            quote_message: view.quote.message.0,
            quote_signature: view.quote.signature.0,
            pcrs: view.quote.pcrs.0,
            attestation_key: view.attestation_key.0,
            event_log: some(view.event_log),
            ima_log: some(view.ima_log),
            manifest: some(view.manifest),
            keys: view.keys,
        };
        package.parts()?;
        package.keys.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(package)
    }
}

impl Serialize for KeyEvidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own = |bytes: &Vec<u8>| Base64(bytes.clone());
        let (certification, quote) = match &self.proof {
            None => (None, None),
            Some(KeyProof::Certification { message, signature, public }) => {
                let (message, signature) = (own(message), own(signature));
                (Some(CertificationView { message, signature, public: own(public) }), None)
            }
            Some(KeyProof::Quote { message, signature, pcrs }) => {
                let (message, signature) = (own(message), own(signature));
                (None, Some(QuoteView { message, signature, pcrs: own(pcrs) }))
            }
        };
        let (name, provider, spki) = (self.name.clone(), self.provider, own(&self.spki));
        KeyView { name, provider, spki, certification, quote }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyEvidence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let view = KeyView::deserialize(deserializer)?;
        let proof = match (view.certification, view.quote) {
            (None, None) => None,
            (Some(certification), None) => Some(KeyProof::Certification {
                message: certification.message.0,
                signature: certification.signature.0,
                public: certification.public.0,
            }),
            (None, Some(quote)) => {
                Some(KeyProof::Quote { message: quote.message.0, signature: quote.signature.0, pcrs: quote.pcrs.0 })
            }
            (Some(_), Some(_)) => return Err(de::Error::custom("a key has a certification or a quote, not both")),
        };
        Ok(Self { name: view.name, provider: view.provider, spki: view.spki.0, proof })
    }
}
