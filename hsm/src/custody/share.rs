//! Shares of a custody key, each sealed for whoever keeps it.
//!
//! A share is a file of JSON: what everybody may know (how many there are and are required, of which key, the commitments by
//! which a false one is told), and the share itself, sealed by HPKE for its holder. A holder gives a share on by sealing it
//! anew for the signer that recovers the key; in clear it is nowhere but in the memory of those two.

use p256::{
    ProjectivePoint, PublicKey, Scalar,
    elliptic_curve::{PrimeField as _, sec1::ToEncodedPoint as _},
    pkcs8::EncodePublicKey as _,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    custody::{
        class_key::KEY_LENGTH,
        envelope::{self, CustodyPublicKey, OVERHEAD},
        key::CustodyKey,
        polynomial::{self, Polynomial},
    },
    hexadecimal::{from_hex, to_hex},
};

/// Name of the scheme, and domain of the seal.
const SCHEME: &str = "stele/custody-share/v1";

/// Shares at most: people who can be called together.
pub const SHARES_MAX: u8 = 16;

/// Shares that are required at least: one alone would be a copy of the key.
const REQUIRED_MIN: u8 = 2;

/// Longest name of a holder in bytes.
const HOLDER_LENGTH_MAX: usize = 32;

/// Why a share, or a set of shares, gives no key.
#[derive(Debug, Error)]
pub enum ShareError {
    /// It is no share.
    #[error("this is no share: {reason}")]
    Malformed {
        /// Why.
        reason: &'static str,
    },
    /// Its checksum is of something else.
    #[error("the share of {holder} is damaged: its checksum is of something else")]
    Damaged {
        /// Whose it says it is.
        holder: String,
    },
    /// It is sealed for another key.
    #[error("the share of {holder} is sealed for another key")]
    Foreign {
        /// Whose it is.
        holder: String,
    },
    /// It opens and is not what was dealt out.
    #[error("the share of {holder} is false: it is not what was dealt out")]
    False {
        /// Whose it is.
        holder: String,
    },
    /// There are fewer shares than are required.
    #[error("{given} shares are too few; {required} are required")]
    TooFew {
        /// How many there are.
        given: usize,
        /// How many are required.
        required: u8,
    },
    /// They are not all of one splitting of one key.
    #[error("the shares are not all of one splitting of one key")]
    Mixed,
    /// One share is there twice.
    #[error("share {index} is there twice")]
    Repeated {
        /// Its number.
        index: u8,
    },
    /// A key cannot be split like that.
    #[error("a key is split into 2 to {SHARES_MAX} shares, of which 2 or more are required")]
    Count,
    /// A holder cannot be one.
    #[error("the holder {name} has no P-256 key, no name of 1 to 32 letters, digits and hyphens, or is there twice")]
    Holder {
        /// The holder's name.
        name: String,
    },
}

impl ShareError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "share_malformed",
            Self::Damaged { .. } => "share_damaged",
            Self::Foreign { .. } => "share_foreign",
            Self::False { .. } => "share_false",
            Self::TooFew { .. } => "shares_too_few",
            Self::Mixed => "shares_mixed",
            Self::Repeated { .. } => "share_repeated",
            Self::Count => "shares_count",
            Self::Holder { .. } => "share_holder",
        }
    }
}

/// Who keeps a share.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ShareHolder {
    /// Name, which the share's file bears: letters, digits and hyphens.
    pub name: String,
    /// Public half of the holder's key: SEC 1, compressed or not, hexadecimal.
    pub public_key: String,
}

impl ShareHolder {
    /// The key for which the share is sealed.
    ///
    /// # Errors
    /// [`ShareError::Holder`].
    pub fn key(&self) -> Result<CustodyPublicKey, ShareError> {
        let letters = self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let named = letters && (1..=HOLDER_LENGTH_MAX).contains(&self.name.len());
        let point = recipient(&self.public_key).filter(|_| named);
        point.ok_or_else(|| ShareError::Holder { name: self.name.chars().take(HOLDER_LENGTH_MAX).collect() })
    }
}

/// A share that is sealed for its holder, or for a signer that recovers the key.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SealedShare {
    /// [`SCHEME`].
    scheme: String,
    /// The network whose bodies are sealed under the key, hexadecimal; none if it was split before there was one.
    network: Option<String>,
    /// SHA-256 of the `SubjectPublicKeyInfo` of the custody key.
    fingerprint: String,
    /// Shares that give the key back.
    required: u8,
    /// Shares that were dealt out.
    count: u8,
    /// Which of them this is, from 1.
    index: u8,
    /// Points, SEC 1 compressed; the first is the public half of the custody key.
    commitments: Vec<String>,
    /// Who keeps it.
    holder: String,
    /// For whom it is sealed: SEC 1 compressed.
    recipient: String,
    /// Encapsulated key and ciphertext.
    sealed: String,
    /// SHA-256 of all of the above.
    checksum: String,
}

/// What everybody may know of a share.
#[derive(Clone, PartialEq, Eq)]
struct Facts {
    network: Option<[u8; 32]>,
    required: u8,
    count: u8,
    index: u8,
    commitments: Vec<PublicKey>,
}

/// A share in clear. Wiped when it is dropped, and never shown.
pub struct OpenShare {
    facts: Facts,
    holder: String,
    value: Zeroizing<Scalar>,
}

impl CustodyKey {
    /// Splits the key into a share for each holder, `required` of which give it back.
    ///
    /// # Errors
    /// [`ShareError::Count`], [`ShareError::Holder`].
    pub fn split(
        &self,
        required: u8,
        holders: &[ShareHolder],
        network: Option<[u8; 32]>,
    ) -> Result<Vec<SealedShare>, ShareError> {
        let count = u8::try_from(holders.len()).ok().filter(|count| *count <= SHARES_MAX).ok_or(ShareError::Count)?;
        if required < REQUIRED_MIN || required > count {
            return Err(ShareError::Count);
        }
        let twice = |at: usize, holder: &ShareHolder| holders[..at].iter().any(|other| other.name == holder.name);
        if let Some((_, holder)) = holders.iter().enumerate().find(|(at, holder)| twice(*at, holder)) {
            return Err(ShareError::Holder { name: holder.name.clone() });
        }
        let secret = Zeroizing::new(*self.scalar().to_nonzero_scalar());
        let polynomial = Polynomial::random(&secret, required);
        // A coefficient is zero, and its point none, once in 2^256 times.
        let points = polynomial.commitments().into_iter().map(|point| PublicKey::from_affine(point.to_affine()));
        let commitments: Vec<PublicKey> = points.collect::<Result<_, _>>().map_err(|_| ShareError::Count)?;
        let deal = |(index, holder): (u8, &ShareHolder)| {
            let facts = Facts { network, required, count, index, commitments: commitments.clone() };
            OpenShare { facts, holder: holder.name.clone(), value: polynomial.at(index) }.seal(&holder.key()?)
        };
        (1..=count).zip(holders).map(deal).collect()
    }

    /// The key that shares give back.
    ///
    /// # Errors
    /// [`ShareError::TooFew`], [`ShareError::Mixed`], [`ShareError::Repeated`].
    pub fn join(shares: &[OpenShare]) -> Result<Self, ShareError> {
        let Some(first) = shares.first() else { return Err(ShareError::TooFew { given: 0, required: REQUIRED_MIN }) };
        if !shares.iter().all(|share| share.facts.is_dealt_with(&first.facts)) {
            return Err(ShareError::Mixed);
        }
        for (at, share) in shares.iter().enumerate() {
            let index = share.facts.index;
            if shares[..at].iter().any(|other| other.facts.index == index) {
                return Err(ShareError::Repeated { index });
            }
        }
        let required = first.facts.required;
        let Some(enough) = shares.get(..required.into()) else {
            return Err(ShareError::TooFew { given: shares.len(), required });
        };
        let values: Vec<(u8, &Scalar)> = enough.iter().map(|share| (share.facts.index, &*share.value)).collect();
        let secret = polynomial::at_zero(&values).ok_or(ShareError::Mixed)?;
        let bytes = Zeroizing::new(secret.to_bytes());
        let key = Self::from_secret(&bytes).map_err(|_| ShareError::Mixed)?;
        // Every share was held against the commitments, so the key is that of the first.
        if *key.public_key() == first.facts.public_key() { Ok(key) } else { Err(ShareError::Mixed) }
    }
}

impl SealedShare {
    /// Who keeps it.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Which of the shares it is, from 1.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// SHA-256 of the `SubjectPublicKeyInfo` of the custody key, hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The network that it names.
    #[must_use]
    pub fn network(&self) -> Option<[u8; 32]> {
        self.network.as_deref().and_then(from_hex)
    }

    /// Opens it with the key that it is sealed for, and holds it against the commitments.
    ///
    /// # Errors
    /// [`ShareError::Malformed`], [`ShareError::Damaged`], [`ShareError::Foreign`], [`ShareError::False`].
    pub fn open(&self, key: &CustodyKey) -> Result<OpenShare, ShareError> {
        let facts = self.check()?;
        let holder = || self.holder.clone();
        let sealed: [u8; OVERHEAD + KEY_LENGTH] =
            from_hex(&self.sealed).ok_or(malformed("it holds no sealed share"))?;
        let bytes = key.open(&facts.info(), &sealed).ok_or_else(|| ShareError::Foreign { holder: holder() })?;
        let bytes: Zeroizing<[u8; KEY_LENGTH]> =
            Zeroizing::new(bytes.as_slice().try_into().map_err(|_| malformed("the share has another length"))?);
        let value: Option<Scalar> = Scalar::from_repr((*bytes).into()).into();
        let value = Zeroizing::new(value.ok_or_else(|| ShareError::False { holder: holder() })?);
        let commitments: Vec<ProjectivePoint> = facts.commitments.iter().map(PublicKey::to_projective).collect();
        if !polynomial::has_value(&commitments, facts.index, &value) {
            return Err(ShareError::False { holder: holder() });
        }
        Ok(OpenShare { facts, holder: holder(), value })
    }

    /// What it says of itself, if that is whole and agrees.
    ///
    /// # Errors
    /// [`ShareError::Malformed`], [`ShareError::Damaged`].
    fn check(&self) -> Result<Facts, ShareError> {
        if self.scheme != SCHEME {
            return Err(malformed("its scheme is unknown"));
        }
        let network = match &self.network {
            Some(text) => Some(from_hex(text).ok_or(malformed("its network is no id"))?),
            None => None,
        };
        let within = REQUIRED_MIN <= self.required && self.required <= self.count && self.count <= SHARES_MAX;
        if !within || self.index == 0 || self.index > self.count || self.commitments.len() != usize::from(self.required)
        {
            return Err(malformed("its numbers do not agree"));
        }
        let points: Option<Vec<PublicKey>> = self.commitments.iter().map(|text| point(text)).collect();
        let commitments = points.ok_or(malformed("a commitment is no point of P-256"))?;
        let Self { required, count, index, .. } = *self;
        let facts = Facts { network, required, count, index, commitments };
        if self.checksum != self.sum(&facts) || self.fingerprint != facts.fingerprint() {
            return Err(ShareError::Damaged { holder: self.holder.chars().take(HOLDER_LENGTH_MAX).collect() });
        }
        Ok(facts)
    }

    fn sum(&self, facts: &Facts) -> String {
        let mut hasher = Sha256::new_with_prefix(facts.info());
        for text in [&self.fingerprint, &self.holder, &self.recipient, &self.sealed] {
            hasher.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            hasher.update(text);
        }
        to_hex(&hasher.finalize())
    }
}

impl OpenShare {
    /// Seals it for a key.
    ///
    /// # Errors
    /// [`ShareError::Holder`] if that is none.
    pub fn seal(&self, recipient: &CustodyPublicKey) -> Result<SealedShare, ShareError> {
        let refused = || ShareError::Holder { name: self.holder.clone() };
        let bytes = Zeroizing::new(self.value.to_bytes());
        let sealed = envelope::seal(recipient, &self.facts.info(), &bytes).ok_or_else(refused)?;
        let recipient = PublicKey::from_sec1_bytes(recipient).map_err(|_| refused())?;
        let facts = &self.facts;
        let mut share = SealedShare {
            scheme: SCHEME.into(),
            network: facts.network.as_ref().map(|network| to_hex(network)),
            fingerprint: facts.fingerprint(),
            required: facts.required,
            count: facts.count,
            index: facts.index,
            commitments: facts.commitments.iter().map(|point| to_hex(&compressed(point))).collect(),
            holder: self.holder.clone(),
            recipient: to_hex(&compressed(&recipient)),
            sealed: to_hex(&sealed),
            checksum: String::new(),
        };
        share.checksum = share.sum(facts);
        Ok(share)
    }
}

impl Facts {
    /// What the seal is bound to.
    fn info(&self) -> Vec<u8> {
        let numbers = [self.required, self.count, self.index, u8::from(self.network.is_some())];
        let mut bytes = [SCHEME.as_bytes(), &numbers, &self.network.unwrap_or_default()].concat();
        self.commitments.iter().for_each(|point| bytes.extend(compressed(point)));
        bytes
    }

    fn is_dealt_with(&self, other: &Self) -> bool {
        Self { index: other.index, ..self.clone() } == *other
    }

    /// The first commitment is the public half of what was split.
    fn public_key(&self) -> CustodyPublicKey {
        let mut bytes = [0; size_of::<CustodyPublicKey>()];
        if let Some(point) = self.commitments.first() {
            bytes.copy_from_slice(point.to_encoded_point(false).as_bytes());
        }
        bytes
    }

    fn fingerprint(&self) -> String {
        let spki = self.commitments.first().and_then(|point| point.to_public_key_der().ok());
        spki.map(|spki| to_hex(&Sha256::digest(spki.as_bytes()))).unwrap_or_default()
    }
}

const fn malformed(reason: &'static str) -> ShareError {
    ShareError::Malformed { reason }
}

fn point(text: &str) -> Option<PublicKey> {
    let bytes: [u8; 33] = from_hex(text)?;
    PublicKey::from_sec1_bytes(&bytes).ok()
}

fn compressed(point: &PublicKey) -> Vec<u8> {
    point.to_encoded_point(true).as_bytes().to_vec()
}

/// A public key from the hexadecimal text of its SEC 1 encoding, compressed or not.
fn recipient(text: &str) -> Option<CustodyPublicKey> {
    let long: Option<CustodyPublicKey> = from_hex(text);
    let point = match long {
        Some(bytes) => PublicKey::from_sec1_bytes(&bytes).ok(),
        None => point(text),
    };
    point?.to_encoded_point(false).as_bytes().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a checksum that fits: whoever knows a holder's public key can make it.
    #[test]
    fn a_share_that_was_made_up_is_false() {
        let (key, holder) = (CustodyKey::generate().expect("key"), CustodyKey::generate().expect("key"));
        let named = |name: &str| ShareHolder { name: name.into(), public_key: to_hex(holder.public_key()) };
        let shares = key.split(2, &[named("anna"), named("boris")], None).expect("two of two");
        let mut made_up = shares[0].open(&holder).expect("its own");
        made_up.value = shares[1].open(&holder).expect("its own").value;
        let sealed = made_up.seal(holder.public_key()).expect("a key");
        assert_eq!(sealed.open(&holder).err().expect("false").code(), "share_false");
        // Nor one that is dealt with others' commitments.
        let other = CustodyKey::generate().expect("key").split(2, &[named("anna"), named("boris")], None).expect("two");
        let mut swapped = shares[0].open(&holder).expect("its own");
        swapped.facts.commitments.clone_from(&other[0].check().expect("whole").commitments);
        let sealed = swapped.seal(holder.public_key()).expect("a key");
        assert_eq!(sealed.open(&holder).err().expect("false").code(), "share_false");
    }
}
