//! The protocol of a ceremony.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use stele_evidence::exchange::Identity;

use crate::ceremony::canonical;
use crate::failure::Failure;
use crate::keys::SigningKey;

/// Form of the document, and domain of its signatures.
pub(super) const VERSION: &str = "stele/ceremony/v1";

/// A protocol with the signatures of those who were present.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Protocol {
    /// [`VERSION`].
    pub version: String,
    /// Of which node the keys are.
    pub node: String,
    /// Where it was.
    pub place: String,
    /// Who was present.
    pub present: Vec<Present>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Signatures over all of the above, one of each who was present, in the same order.
    pub signatures: Vec<Signed>,
}

/// Somebody who was present.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Present {
    /// Name.
    pub name: String,
    /// What for.
    pub role: String,
    /// Suite of the key that signs the protocol.
    pub suite: String,
    /// Its public half, hexadecimal.
    pub public_key: String,
}

/// The signature of somebody who was present.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Signed {
    /// Name.
    pub name: String,
    /// 64 bytes in the suite's form, hexadecimal.
    pub signature: String,
}

/// One thing that was done. Times are milliseconds since 1970 by the clock of the machine.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The configuration of `stele-signer` was checked.
    Configuration {
        /// When.
        time_ms: u64,
        /// SHA-256 of its file.
        sha256: String,
    },
    /// Keys were made.
    Keys {
        /// When.
        time_ms: u64,
        /// Their public halves.
        keys: Vec<MadeKey>,
    },
    /// The TPM said what it is, and which keys it holds.
    Identity {
        /// When.
        time_ms: u64,
        /// SHA-256 of the `SubjectPublicKeyInfo` of the endorsement key: by it a verifier pins the machine.
        endorsement_key_sha256: String,
        /// What it said.
        identity: Box<Identity>,
    },
    /// The custody key was shared out.
    Shares {
        /// When.
        time_ms: u64,
        /// The files.
        shares: Vec<DealtShare>,
    },
}

/// A key that was made.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct MadeKey {
    /// What it is for.
    pub role: String,
    /// What holds it, or seals it.
    pub signer: String,
    /// SEC 1 compressed, hexadecimal.
    pub public_key: String,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fingerprint: String,
}

/// A share that was given out.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct DealtShare {
    /// Whose it is.
    pub holder: String,
    /// Which of them it is.
    pub index: u8,
    /// Fingerprint of the key that was shared.
    pub fingerprint: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// What is shown of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It is in the TPM, was made there and never leaves it.
    Certified,
    /// The TPM's machine vouched for it.
    Quoted,
    /// Nothing: it lies in a file, or sealed.
    None,
}

impl Evidence {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certified => "certified",
            Self::Quoted => "quoted",
            Self::None => "none",
        }
    }
}

impl Step {
    /// When it was done.
    #[must_use]
    pub const fn time_ms(&self) -> u64 {
        match self {
            Self::Configuration { time_ms, .. }
            | Self::Keys { time_ms, .. }
            | Self::Identity { time_ms, .. }
            | Self::Shares { time_ms, .. } => *time_ms,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Configuration { .. } => "configuration",
            Self::Keys { .. } => "keys",
            Self::Identity { .. } => "identity",
            Self::Shares { .. } => "shares",
        }
    }
}

impl Protocol {
    /// Reads a file. It is in the one form, and one line.
    ///
    /// # Errors
    /// `ceremony_malformed`, `ceremony_not_canonical`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed = |error: serde_json::Error| {
            let what = format!("this is no protocol of a ceremony: {error}");
            Failure::new("ceremony_malformed", what).hint("`stele key ceremony conduct` writes one")
        };
        let protocol: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if protocol.to_bytes()? != bytes {
            // Whoever reads it must see what was signed: no member twice, none that this program does not know.
            return Err(Failure::new("ceremony_not_canonical", "the file is not in the form of RFC 8785").into());
        }
        Ok(protocol)
    }

    /// The file.
    ///
    /// # Errors
    /// None that can happen: everything in it has a form in JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let value = serde_json::to_value(self).context("protocol")?;
        Ok([canonical::to_bytes(&value), b"\n".to_vec()].concat())
    }

    /// What those who were present sign: the domain, and the document without signatures.
    ///
    /// # Errors
    /// As [`Self::to_bytes`].
    pub fn signing_bytes(&self) -> Result<Vec<u8>> {
        let mut value = serde_json::to_value(self).context("protocol")?;
        if let Some(members) = value.as_object_mut() {
            members.remove("signatures");
        }
        Ok([VERSION.as_bytes(), b"\n", &canonical::to_bytes(&value)].concat())
    }

    /// Adds a signature.
    ///
    /// # Errors
    /// When the arithmetic of the curve fails.
    pub(super) fn sign(&mut self, name: &str, key: &SigningKey) -> Result<()> {
        let signature = hex::encode(key.sign(&self.signing_bytes()?)?);
        self.signatures.push(Signed { name: name.to_owned(), signature });
        Ok(())
    }
}
