//! What a TPM attests, in raw TCG bytes: the same for whoever asks it and for whoever hears of it from another process.

use stele_evidence::package::KeyProof;
#[cfg(feature = "remote")]
use {
    crate::{SignerError, SignerKind, remote::wire},
    stele_evidence::package::{KeyEvidence, KeyProvider},
};

/// A quote, as `tpm2_checkquote` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "remote", derive(minicbor::Encode, minicbor::Decode))]
pub struct Quote {
    /// `TPMS_ATTEST`.
    #[cfg_attr(feature = "remote", cbor(n(0), with = "minicbor::bytes"))]
    pub message: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    #[cfg_attr(feature = "remote", cbor(n(1), with = "minicbor::bytes"))]
    pub signature: Vec<u8>,
    /// Values of the quoted PCRs in the `serialized` format of `tpm2_quote --pcr`.
    #[cfg_attr(feature = "remote", cbor(n(2), with = "minicbor::bytes"))]
    pub pcrs: Vec<u8>,
}

/// The attestation key's word that a key is of its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "remote", derive(minicbor::Encode, minicbor::Decode))]
pub struct Certification {
    /// `TPMS_ATTEST`.
    #[cfg_attr(feature = "remote", cbor(n(0), with = "minicbor::bytes"))]
    pub message: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    #[cfg_attr(feature = "remote", cbor(n(1), with = "minicbor::bytes"))]
    pub signature: Vec<u8>,
    /// `TPMT_PUBLIC` of the certified key.
    #[cfg_attr(feature = "remote", cbor(n(2), with = "minicbor::bytes"))]
    pub public: Vec<u8>,
}

impl From<Quote> for KeyProof {
    fn from(quote: Quote) -> Self {
        Self::Quote { message: quote.message, signature: quote.signature, pcrs: quote.pcrs }
    }
}

impl From<Certification> for KeyProof {
    fn from(certification: Certification) -> Self {
        let Certification { message, signature, public } = certification;
        Self::Certification { message, signature, public }
    }
}

/// A key as verifiers know it.
#[cfg(feature = "remote")]
impl TryFrom<wire::KeyEvidence> for KeyEvidence {
    type Error = SignerError;

    fn try_from(key: wire::KeyEvidence) -> Result<Self, SignerError> {
        let provider = match key.key.kind()? {
            SignerKind::Tpm => KeyProvider::Tpm,
            SignerKind::Pkcs11 => KeyProvider::Pkcs11,
            SignerKind::Software => KeyProvider::Software,
        };
        let proof = key.certification.map(KeyProof::from).or(key.quote.map(KeyProof::from));
        Ok(Self { name: key.key.role.name().into(), provider, spki: key.spki, proof })
    }
}
