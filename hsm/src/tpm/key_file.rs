//! Files of TPM keys: `TSS2 PRIVATE KEY` (ASN.1 Specification for TPM 2.0 Key Files, J. Bottomley and D. Woodhouse), which
//! OpenSSL's TPM provider and tpm2-tools read, too.

use std::path::Path;

use der::{
    DecodePem, EncodePem, Sequence,
    asn1::{ObjectIdentifier, OctetString},
    pem::{LineEnding, PemLabel},
};
use stele_evidence::{Public, PublicKey as EvidenceKey};

use crate::{error::SignerError, key_file, public_key::PublicKey};

/// `id-loadablekey`: the private half is wrapped by its parent.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");

/// `id-sealedkey`: the private half is data that was brought from outside.
const SEALED_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.5");

/// `TPM_RH_OWNER`: the parent is the storage key that the owner hierarchy derives.
const PARENT_OWNER: u32 = 0x4000_0001;

/// Longest wrapped private half in bytes: `TPM2B_PRIVATE` of the TPM 2.0 reference code has 1,500 at most.
const PRIVATE_LENGTH_MAX: usize = 2048;

/// A key of a TPM, as its file holds it. The private half is encrypted by the TPM and of use to no other.
#[derive(Clone, Debug)]
pub struct TpmKeyFile {
    /// The public area, checked.
    public: Public,
    /// Buffer of the `TPM2B_PRIVATE`.
    private: Vec<u8>,
    public_key: PublicKey,
}

#[derive(Clone, Debug, Sequence)]
struct TpmKey {
    key_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<bool>,
    parent: u32,
    public: OctetString,
    private: OctetString,
}

impl PemLabel for TpmKey {
    const PEM_LABEL: &'static str = "TSS2 PRIVATE KEY";
}

impl TpmKeyFile {
    /// A key from its public area (`TPMT_PUBLIC`) and the buffer of its `TPM2B_PRIVATE`; `None` unless it is a P-256 key
    /// that signs, made by a TPM and never to leave it.
    #[must_use]
    pub fn from_parts(public: &[u8], private: Vec<u8>) -> Option<Self> {
        let public = Public::parse(public).ok()?;
        let attributes = public.attributes;
        let held = attributes.fixed_tpm() && attributes.fixed_parent() && attributes.sensitive_data_origin();
        if !held || !attributes.sign() || attributes.restricted() || attributes.decrypt() {
            return None;
        }
        let public_key = match &public.key {
            EvidenceKey::P256(key) => PublicKey::from_verifying_key(&key.into()).ok()?,
            _ => return None,
        };
        (private.len() <= PRIVATE_LENGTH_MAX).then_some(Self { public, private, public_key })
    }

    /// Reads a file that only its owner may touch.
    ///
    /// # Errors
    /// [`SignerError::KeyFilePermissions`], [`SignerError::KeyFileIo`], [`SignerError::TpmKeyFileMalformed`].
    pub fn read(path: &Path) -> Result<Self, SignerError> {
        let malformed = || SignerError::TpmKeyFileMalformed { path: path.to_owned() };
        let pem = key_file::read_private(path).map_err(|error| match error {
            SignerError::KeyFileMalformed { .. } => malformed(),
            other => other,
        })?;
        Self::from_pem(&pem).ok_or_else(malformed)
    }

    /// Writes a new file of mode 0600, durably.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`].
    pub fn write_new(&self, path: &Path) -> Result<(), SignerError> {
        let pem = self.to_pem().ok_or_else(|| SignerError::TpmKeyFileMalformed { path: path.to_owned() })?;
        key_file::write_new_private(path, pem.as_bytes())
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The public area, by which the TPM names the key.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    pub(super) fn private(&self) -> &[u8] {
        &self.private
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let key = TpmKey::from_pem(pem).ok()?;
        // A key with a password, a policy or another parent could be loaded, and would then not sign.
        if key.key_type != LOADABLE_KEY || key.empty_auth != Some(true) || key.parent != PARENT_OWNER {
            return None;
        }
        Self::from_parts(unsized_buffer(key.public.as_bytes())?, unsized_buffer(key.private.as_bytes())?.to_vec())
    }

    fn to_pem(&self) -> Option<String> {
        encode(LOADABLE_KEY, self.public.as_bytes(), &self.private)
    }
}

fn encode(key_type: ObjectIdentifier, public: &[u8], private: &[u8]) -> Option<String> {
    let octets = |buffer: &[u8]| {
        let length = u16::try_from(buffer.len()).ok()?.to_be_bytes();
        OctetString::new([&length, buffer].concat()).ok()
    };
    let (public, private) = (octets(public)?, octets(private)?);
    TpmKey { key_type, empty_auth: Some(true), parent: PARENT_OWNER, public, private }.to_pem(LineEnding::LF).ok()
}

/// The file of a sealed secret, from its public area and the buffer of its `TPM2B_PRIVATE`.
pub(super) fn sealed_to_pem(public: &[u8], private: &[u8]) -> Option<String> {
    encode(SEALED_KEY, public, private)
}

/// Public area and private buffer of a sealed secret, in a file that only its owner may touch. The TPM judges both.
pub(super) fn read_sealed(path: &Path) -> Result<(Vec<u8>, Vec<u8>), SignerError> {
    let malformed = || SignerError::TpmKeyFileMalformed { path: path.to_owned() };
    let pem = key_file::read_private(path).map_err(|error| match error {
        SignerError::KeyFileMalformed { .. } => malformed(),
        other => other,
    })?;
    let key = TpmKey::from_pem(&*pem).map_err(|_| malformed())?;
    let bound = key.key_type == SEALED_KEY && key.empty_auth == Some(true) && key.parent == PARENT_OWNER;
    let halves = unsized_buffer(key.public.as_bytes()).zip(unsized_buffer(key.private.as_bytes()));
    let (public, private) =
        halves.filter(|(_, private)| bound && private.len() <= PRIVATE_LENGTH_MAX).ok_or_else(malformed)?;
    Ok((public.to_vec(), private.to_vec()))
}

/// The buffer of a `TPM2B` that is nothing else.
fn unsized_buffer(sized: &[u8]) -> Option<&[u8]> {
    let (length, buffer) = sized.split_first_chunk::<2>()?;
    (usize::from(u16::from_be_bytes(*length)) == buffer.len()).then_some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_types_parents_and_passwords_are_refused() {
        let public = [0_u8; 4];
        let octets = |bytes: &[u8]| OctetString::new(bytes).expect("short");
        let key = |key_type: &str, empty_auth, parent| TpmKey {
            key_type: ObjectIdentifier::new(key_type).expect("identifier"),
            empty_auth,
            parent,
            public: octets(&public),
            private: octets(&[0, 0]),
        };
        for key in [
            key("2.23.133.10.1.4", Some(true), PARENT_OWNER),
            key("2.23.133.10.1.3", None, PARENT_OWNER),
            key("2.23.133.10.1.3", Some(true), 0x8100_0001),
            key("2.23.133.10.1.3", Some(true), PARENT_OWNER),
        ] {
            let pem = key.to_pem(LineEnding::LF).expect("encodes");
            assert!(TpmKeyFile::from_pem(pem.as_bytes()).is_none());
        }
    }
}
