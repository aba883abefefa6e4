//! What a package holds, and its form as named parts.

use alloc::{
    borrow::{Cow, ToOwned},
    string::String,
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    appraisal::Evidence,
    nonce::NONCE_LENGTH,
    package::{
        error::PackageError,
        part::{self, KEYS_MAX, Kind, Part, Parts, is_key_name},
    },
};

/// Everything that a node hands out for one quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidencePackage {
    /// The verifier's nonce.
    pub nonce: [u8; NONCE_LENGTH],
    /// `Sig_structure` of the checkpoint that the quote speaks for, at most 4,096 bytes.
    pub sig_structure: Vec<u8>,
    /// `TPMS_ATTEST`.
    pub quote_message: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub quote_signature: Vec<u8>,
    /// Values of the quoted PCRs in the `serialized` format of `tpm2_quote --pcr`.
    pub pcrs: Vec<u8>,
    /// `TPM2B_PUBLIC` of the attestation key.
    pub attestation_key: Vec<u8>,
    /// Boot event log, as Linux gives it in `binary_bios_measurements`; at most 4 MiB.
    pub event_log: Option<Vec<u8>>,
    /// IMA log, binary or ASCII; at most 16 MiB.
    pub ima_log: Option<Vec<u8>>,
    /// Release manifest, JSON; at most 1 MiB. It is carried, not judged: what a verifier expects comes from elsewhere.
    pub manifest: Option<Vec<u8>>,
    /// The node's keys, at most [`KEYS_MAX`], in any order; encodings have them in order of their names.
    pub keys: Vec<KeyEvidence>,
}

/// One key of the node and what shows where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvidence {
    /// Its name, such as `seal` or `validator`: 1 to 32 of `a-z`, `0-9`, `-` and `_`.
    pub name: String,
    /// Where the node says that it is; only a proof shows it.
    pub provider: KeyProvider,
    /// `SubjectPublicKeyInfo` in DER, at most [`part::SPKI_LENGTH_MAX`] bytes.
    pub spki: Vec<u8>,
    /// What shows it; a key in software has nothing.
    pub proof: Option<KeyProof>,
}

/// Where a key is, as the node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyProvider {
    /// In the TPM.
    Tpm,
    /// In a token that is reached by PKCS#11.
    Pkcs11,
    /// In the memory of a process.
    Software,
}

impl KeyProvider {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tpm => "tpm",
            Self::Pkcs11 => "pkcs11",
            Self::Software => "software",
        }
    }

    fn from_bytes(word: &[u8]) -> Option<Self> {
        [Self::Tpm, Self::Pkcs11, Self::Software].into_iter().find(|provider| provider.as_str().as_bytes() == word)
    }
}

/// The attestation key's word about another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProof {
    /// The key is in the same TPM: `TPM2_Certify`, qualified by [`crate::key_qualifying_data`].
    Certification {
        /// `TPMS_ATTEST`.
        message: Vec<u8>,
        /// `TPMT_SIGNATURE`.
        signature: Vec<u8>,
        /// `TPMT_PUBLIC` of the key.
        public: Vec<u8>,
    },
    /// The machine vouches for the key: a quote qualified by [`crate::key_qualifying_data`].
    Quote {
        /// `TPMS_ATTEST`.
        message: Vec<u8>,
        /// `TPMT_SIGNATURE`.
        signature: Vec<u8>,
        /// Values of the quoted PCRs in the `serialized` format of `tpm2_quote --pcr`.
        pcrs: Vec<u8>,
    },
}

/// An encoding of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageEncoding {
    /// One JSON object.
    Json,
    /// POSIX ustar.
    Tar,
    /// CMW collection in CBOR.
    Cmw,
}

impl PackageEncoding {
    /// All of them, the first being what a client gets that names none.
    pub const ALL: [Self; 3] = [Self::Json, Self::Tar, Self::Cmw];

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Tar => "application/x-tar",
            Self::Cmw => "application/cmw+cbor",
        }
    }

    /// The encoding of bytes, told by their first one: RFC 9999 reserves those of CBOR maps, and no part's name begins with
    /// a brace.
    fn of_content(bytes: &[u8]) -> Self {
        match bytes.first() {
            Some(0xa0..=0xbf) => Self::Cmw,
            Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => Self::Json,
            _ => Self::Tar,
        }
    }
}

impl EvidencePackage {
    /// Writes the package. The same package always gives the same bytes.
    ///
    /// # Errors
    /// [`PackageError::TooLarge`] for parts beyond their bounds, [`PackageError::Unknown`] and [`PackageError::Repeated`] for
    /// names of keys that are none or twice there.
    pub fn encode(&self, encoding: PackageEncoding) -> Result<Vec<u8>, PackageError> {
        match encoding {
            PackageEncoding::Json => self.to_json(),
            PackageEncoding::Tar => self.to_tar(),
            PackageEncoding::Cmw => self.to_cmw(),
        }
    }

    /// Reads a package in any encoding, told by its content.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PackageError> {
        match PackageEncoding::of_content(bytes) {
            PackageEncoding::Json => Self::from_json(bytes),
            PackageEncoding::Tar => Self::from_tar(bytes),
            PackageEncoding::Cmw => Self::from_cmw(bytes),
        }
    }

    /// Reads a package from its parts: names and bytes of files, as the tar has them.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, PackageError> {
        let mut parts = Parts::default();
        files.into_iter().try_for_each(|(name, bytes)| parts.insert(name, bytes))?;
        Self::from_parts(parts)
    }

    /// The quote and its logs, to be appraised by themselves.
    #[must_use]
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence {
            quote: &self.quote_message,
            signature: &self.quote_signature,
            pcrs: &self.pcrs,
            attestation_key: &self.attestation_key,
            event_log: self.event_log.as_deref(),
            ima_log: self.ima_log.as_deref(),
        }
    }

    /// The parts in the order of the table in [`crate::package`], keys by name; all are within their bounds.
    pub(super) fn parts(&self) -> Result<Vec<Part<'_>>, PackageError> {
        let fixed: [(&'static Kind, Option<&[u8]>); 9] = [
            (part::NONCE, Some(&self.nonce)),
            (part::CHECKPOINT, Some(&self.sig_structure)),
            (part::QUOTE_MESSAGE, Some(&self.quote_message)),
            (part::QUOTE_SIGNATURE, Some(&self.quote_signature)),
            (part::PCRS, Some(&self.pcrs)),
            (part::ATTESTATION_KEY, Some(&self.attestation_key)),
            (part::EVENT_LOG, self.event_log.as_deref()),
            (part::IMA_LOG, self.ima_log.as_deref()),
            (part::MANIFEST, self.manifest.as_deref()),
        ];
        let there = |(kind, bytes): (&'static Kind, Option<_>)| {
            bytes.map(|bytes| Part { name: Cow::Borrowed(kind.name), kind, bytes })
        };
        let mut parts: Vec<Part<'_>> = fixed.into_iter().filter_map(there).collect();
        for key in self.keys_by_name()? {
            let of_key = |(kind, bytes)| Part { name: Cow::Owned(Kind::name_of(kind, &key.name)), kind, bytes };
            parts.extend(key.parts().map(of_key));
        }
        parts.iter().try_for_each(|part| part.kind.require_length(part.bytes.len()))?;
        Ok(parts)
    }

    /// The keys in order of their names, each of which names one.
    pub(super) fn keys_by_name(&self) -> Result<Vec<&KeyEvidence>, PackageError> {
        if self.keys.len() > KEYS_MAX {
            return Err(PackageError::TooLarge { part: "list of keys", limit: KEYS_MAX });
        }
        if let Some(strange) = self.keys.iter().find(|key| !is_key_name(&key.name)) {
            return Err(PackageError::unknown(strange.name.as_bytes()));
        }
        let mut keys: Vec<&KeyEvidence> = self.keys.iter().collect();
        keys.sort_by(|one, other| one.name.cmp(&other.name));
        if keys.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return Err(PackageError::Repeated { part: part::KEY_SPKI.name });
        }
        Ok(keys)
    }

    pub(super) fn from_parts(mut parts: Parts<'_>) -> Result<Self, PackageError> {
        let nonce = parts.require(part::NONCE)?.try_into();
        let mut package = Self {
            nonce: nonce.map_err(|_| PackageError::Malformed { reason: "a nonce has 32 bytes" })?,
            sig_structure: parts.require(part::CHECKPOINT)?.to_vec(),
            quote_message: parts.require(part::QUOTE_MESSAGE)?.to_vec(),
            quote_signature: parts.require(part::QUOTE_SIGNATURE)?.to_vec(),
            pcrs: parts.require(part::PCRS)?.to_vec(),
            attestation_key: parts.require(part::ATTESTATION_KEY)?.to_vec(),
            event_log: parts.take(part::EVENT_LOG).map(<[u8]>::to_vec),
            ima_log: parts.take(part::IMA_LOG).map(<[u8]>::to_vec),
            manifest: parts.take(part::MANIFEST).map(<[u8]>::to_vec),
            keys: Vec::new(),
        };
        while let Some(name) = parts.next_key() {
            if package.keys.len() == KEYS_MAX {
                return Err(PackageError::TooLarge { part: "list of keys", limit: KEYS_MAX });
            }
            package.keys.push(KeyEvidence::from_parts(name, &mut parts)?);
        }
        package.keys.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(package)
    }
}

impl KeyEvidence {
    fn parts(&self) -> impl Iterator<Item = (&'static Kind, &[u8])> {
        let proof: [(&'static Kind, Option<&Vec<u8>>); 4] = match &self.proof {
            None => [
                (part::KEY_MESSAGE, None),
                (part::KEY_SIGNATURE, None),
                (part::KEY_PUBLIC, None),
                (part::KEY_PCRS, None),
            ],
            Some(KeyProof::Certification { message, signature, public }) => [
                (part::KEY_MESSAGE, Some(message)),
                (part::KEY_SIGNATURE, Some(signature)),
                (part::KEY_PUBLIC, Some(public)),
                (part::KEY_PCRS, None),
            ],
            Some(KeyProof::Quote { message, signature, pcrs }) => [
                (part::KEY_MESSAGE, Some(message)),
                (part::KEY_SIGNATURE, Some(signature)),
                (part::KEY_PUBLIC, None),
                (part::KEY_PCRS, Some(pcrs)),
            ],
        };
        let own = [(part::KEY_SPKI, self.spki.as_slice()), (part::KEY_PROVIDER, self.provider.as_str().as_bytes())];
        own.into_iter().chain(proof.into_iter().filter_map(|(kind, bytes)| Some((kind, bytes?.as_slice()))))
    }

    fn from_parts(name: &str, parts: &mut Parts<'_>) -> Result<Self, PackageError> {
        let mut take = |kind: &Kind| parts.take_of_key(kind, name).map(<[u8]>::to_vec);
        let missing = |kind: &'static Kind| PackageError::Missing { part: kind.name };
        let spki = take(part::KEY_SPKI).ok_or_else(|| missing(part::KEY_SPKI))?;
        let provider = take(part::KEY_PROVIDER).ok_or_else(|| missing(part::KEY_PROVIDER))?;
        let provider = KeyProvider::from_bytes(&provider)
            .ok_or(PackageError::Malformed { reason: "a provider is tpm, pkcs11 or software" })?;
        let whole = (take(part::KEY_MESSAGE), take(part::KEY_SIGNATURE), take(part::KEY_PUBLIC), take(part::KEY_PCRS));
        let proof = match whole {
            (None, None, None, None) => None,
            (Some(message), Some(signature), Some(public), None) => {
                Some(KeyProof::Certification { message, signature, public })
            }
            (Some(message), Some(signature), None, Some(pcrs)) => Some(KeyProof::Quote { message, signature, pcrs }),
            _ => {
                let reason = "a key has message, signature and one of public area and PCR values, or none of them";
                return Err(PackageError::Malformed { reason });
            }
        };
        Ok(Self { name: name.to_owned(), provider, spki, proof })
    }
}
