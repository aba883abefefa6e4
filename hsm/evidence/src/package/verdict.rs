//! What came out for a whole package: the platform and its keys.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    algorithm::Digest,
    certificate::Endorsement,
    package::content::KeyProvider,
    verdict::{Facts, Reason, write_verdict},
};

/// The outcome for a package.
#[derive(Clone, Debug, Serialize)]
pub struct PackageVerdict {
    /// Whether everything that was asked holds.
    pub passed: bool,
    /// Why not: the platform's reasons first, the gravest before others.
    pub reasons: Vec<PackageReason>,
    /// Reasons of the platform beyond [`crate::REASONS_MAX`].
    pub reasons_left_out: usize,
    /// What the evidence says of the platform; see [`crate::Verdict::facts`].
    pub facts: Facts,
    /// SHA-256 of the checkpoint's `Sig_structure`: the head of the ledger for which the quote speaks.
    pub checkpoint: Digest,
    /// The node's keys.
    pub keys: Vec<KeyFact>,
    /// What the verifier believes of the endorsement key, if it enrolled the platform with one.
    pub endorsement: Option<Endorsement>,
}

/// One key of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFact {
    /// Its name.
    pub name: String,
    /// Where the node says that it is.
    pub provider: KeyProvider,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fingerprint: Digest,
    /// What was shown.
    pub trust: KeyTrust,
    /// Whether the same key was enrolled under this name; `None` if keys were not compared.
    pub enrolled: Option<bool>,
}

/// What was shown of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyTrust {
    /// It is in the same TPM as the attestation key, and never leaves it.
    Certified,
    /// A machine of the same attestation key, in a state that the policy allows, vouched for it.
    Quoted,
    /// Nothing: it may be in the memory of a process, or in any other machine.
    Unproven,
    /// What was to show it does not hold.
    Refused,
}

impl KeyTrust {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certified => "certified",
            Self::Quoted => "quoted",
            Self::Unproven => "unproven",
            Self::Refused => "refused",
        }
    }
}

/// Why a package is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageReason {
    /// Something speaks against the platform.
    Platform(Box<Reason>),
    /// The package is for another nonce than was asked with.
    Nonce,
    /// Something speaks against a key.
    Key {
        /// Its name.
        name: String,
        /// What.
        reason: KeyReason,
    },
}

/// What speaks against a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyReason {
    /// Its certification or quote does not hold.
    Proof(Box<Reason>),
    /// The certified public area is of another key.
    OtherKey,
    /// Nothing shows where it is, and that was demanded.
    Unproven,
    /// Nothing shows where it is, and it was not enrolled under this name.
    NotEnrolled,
}

impl KeyReason {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Proof(reason) => reason.code(),
            Self::OtherKey => "key_other",
            Self::Unproven => "key_unproven",
            Self::NotEnrolled => "key_not_enrolled",
        }
    }
}

impl fmt::Display for KeyReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proof(reason) => reason.fmt(formatter),
            Self::OtherKey => formatter.write_str("another key was certified than is shown"),
            Self::Unproven => formatter.write_str("nothing shows where it is"),
            Self::NotEnrolled => formatter.write_str("nothing shows where it is, and it was not enrolled"),
        }
    }
}

impl PackageReason {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Platform(reason) => reason.code(),
            Self::Nonce => "nonce_differs",
            Self::Key { reason, .. } => reason.code(),
        }
    }

    /// The reason in the terms of a quote or certification.
    const fn inner(&self) -> Option<&Reason> {
        match self {
            Self::Platform(reason) => Some(reason),
            Self::Key { reason: KeyReason::Proof(reason), .. } => Some(reason),
            _ => None,
        }
    }
}

impl fmt::Display for PackageReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(reason) => reason.fmt(formatter),
            Self::Nonce => formatter.write_str("the package is for another nonce than was asked with"),
            Self::Key { name, reason } => write!(formatter, "key {name}: {reason}"),
        }
    }
}

impl Serialize for PackageReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = if let Self::Key { name, .. } = self { Some(name) } else { None };
        let mut fields = serializer.serialize_struct("PackageReason", 5)?;
        fields.serialize_field("code", self.code())?;
        fields.serialize_field("message", &self.to_string())?;
        fields.serialize_field("key", &key)?;
        fields.serialize_field("pcr", &self.inner().and_then(Reason::pcr))?;
        let difference = self.inner().and_then(Reason::difference);
        fields.serialize_field("difference", &difference.map(ToString::to_string))?;
        fields.end()
    }
}

impl fmt::Display for PackageVerdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_verdict(
            formatter,
            self.passed,
            self.reasons.iter().map(|reason| (reason.code(), reason)),
            self.reasons_left_out,
        )
    }
}
