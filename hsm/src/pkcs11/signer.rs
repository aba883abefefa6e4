//! A key in a token that signs the typed requests.

use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
};
use p256::ecdsa::VerifyingKey;
use sha2::{Digest as _, Sha256};

use crate::{
    backend::{Backend, HardwareSigner},
    error::SignerError,
    kind::SignerKind,
    pkcs11::{
        fault::Fault,
        token::{OpenSession, Pkcs11Token, Worker},
    },
    public_key::PublicKey,
    signer::Signature,
};

/// DER of `prime256v1`, as `CKA_EC_PARAMS` wants it.
const P256_PARAMETERS: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// Longest label of a key in bytes.
const LABEL_LENGTH_MAX: usize = 64;

/// A P-256 key that a token made and never gives away.
pub type Pkcs11Signer = HardwareSigner<Worker>;

/// A key, by the label of its two halves.
#[derive(Debug)]
pub struct Pkcs11Key(String);

impl HardwareSigner<Worker> {
    /// Lets the token make a new key pair under a label. Blocks.
    ///
    /// # Errors
    /// [`SignerError::TokenKeyExists`], and errors of the token.
    pub fn generate(token: &Pkcs11Token, label: &str) -> Result<Self, SignerError> {
        let owned = checked(label)?;
        let made = token.queue().call_blocking(move |worker| {
            worker.attempt(|session| {
                if session.private_key(&owned)?.is_some() || session.find(ObjectClass::PUBLIC_KEY, &owned)?.is_some() {
                    return Ok(false);
                }
                generate_pair(session, &owned)?;
                Ok(true)
            })
        });
        if !made? {
            return Err(SignerError::TokenKeyExists { label: label.to_owned() });
        }
        Self::open(token, label)
    }

    /// Finds the key of a label. Guards are added with [`Self::with_vote_guard`] and [`Self::with_checkpoint_guard`];
    /// without one the signer refuses requests of that kind. Blocks.
    ///
    /// # Errors
    /// [`SignerError::TokenKeyMissing`], [`SignerError::TokenKeyExtractable`] for a key that can be, or could once be, taken
    /// out, and errors of the token.
    pub fn open(token: &Pkcs11Token, label: &str) -> Result<Self, SignerError> {
        let owned = checked(label)?;
        let found = token.queue().call_blocking(move |worker| worker.attempt(|session| read_pair(session, &owned)));
        let missing = || SignerError::TokenKeyMissing { label: label.to_owned() };
        let (point, held) = found?.ok_or_else(missing)?;
        if !held {
            return Err(SignerError::TokenKeyExtractable { label: label.to_owned() });
        }
        let key = VerifyingKey::from_sec1_bytes(&point).map_err(|_| missing())?;
        Ok(Self::new(token.queue(), Pkcs11Key(label.to_owned()), PublicKey::from_verifying_key(&key)?))
    }
}

impl Backend for Worker {
    type Key = Pkcs11Key;

    const KIND: SignerKind = SignerKind::Pkcs11;
    const LOST: fn() -> SignerError = || SignerError::TokenLost;
    const BUSY: fn() -> SignerError = || SignerError::TokenBusy;

    fn sign(&mut self, key: &Pkcs11Key, bytes: &[u8]) -> Result<Signature, SignerError> {
        let digest = Sha256::digest(bytes);
        let signature = self.attempt(|session| {
            // The key was there when the signer was opened; a token without it is not the token.
            let handle = session.private_key(&key.0)?.ok_or(Fault::Lost)?;
            Ok(session.session.sign(&Mechanism::Ecdsa, handle, &digest)?)
        });
        signature?.try_into().map_err(|_| SignerError::SigningFailed)
    }

    fn reset(&mut self) {
        self.disconnect();
    }
}

fn checked(label: &str) -> Result<String, SignerError> {
    if label.is_empty() || label.len() > LABEL_LENGTH_MAX {
        return Err(SignerError::MalformedRequest { reason: "the key's label is empty or too long" });
    }
    Ok(label.to_owned())
}

fn generate_pair(session: &OpenSession, label: &str) -> Result<(), Fault> {
    let name = || label.as_bytes().to_vec();
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256_PARAMETERS.to_vec()),
        Attribute::Label(name()),
        Attribute::Id(name()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(name()),
        Attribute::Id(name()),
    ];
    session.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    Ok(())
}

/// The public point, SEC 1, and whether the private half was made in the token and can never leave it.
fn read_pair(session: &mut OpenSession, label: &str) -> Result<Option<(Vec<u8>, bool)>, Fault> {
    let (Some(private), Some(public)) = (session.private_key(label)?, session.find(ObjectClass::PUBLIC_KEY, label)?)
    else {
        return Ok(None);
    };
    let point = session.session.get_attributes(public, &[AttributeType::EcPoint])?.into_iter().find_map(|attribute| {
        // PKCS#11 section 6.3.3: the point is an OCTET STRING in DER; a point of P-256 has 65 bytes.
        match attribute {
            Attribute::EcPoint(der) => der.strip_prefix(b"\x04\x41").map(<[u8]>::to_vec),
            _ => None,
        }
    });
    Ok(point.zip(Some(is_held(session, private)?)))
}

fn is_held(session: &OpenSession, private: ObjectHandle) -> Result<bool, Fault> {
    let wanted = [
        (AttributeType::Sensitive, Attribute::Sensitive(true)),
        (AttributeType::AlwaysSensitive, Attribute::AlwaysSensitive(true)),
        (AttributeType::Extractable, Attribute::Extractable(false)),
        (AttributeType::NeverExtractable, Attribute::NeverExtractable(true)),
    ];
    let types = wanted.each_ref().map(|(attribute_type, _)| *attribute_type);
    let found = session.session.get_attributes(private, &types)?;
    Ok(wanted.iter().all(|(_, attribute)| found.contains(attribute)))
}
