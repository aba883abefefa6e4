//! The signature suites and their acceptance rules.

pub(crate) mod ed25519;
mod enrolment;
mod equation;
mod key_cache;
mod keys;
pub(crate) mod p256;
pub(crate) mod sm2;

use thiserror::Error;

use crate::figures::CacheFigures;

pub use self::sm2::DEFAULT_IDENTITY as SM2_DEFAULT_IDENTITY;
pub(crate) use self::{
    ed25519::EdwardsEquation,
    equation::{Equation, Equations, decide},
};

/// Length of a signature of any present suite in bytes: `R ‖ s` or `r ‖ s`.
pub(crate) const SIGNATURE_LENGTH: usize = 64;

/// A signature suite with its one acceptance rule; see the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// Ed25519 under ZIP-215; public keys of 32 bytes.
    Ed25519,
    /// ECDSA over P-256 with SHA-256; public keys in SEC 1, 33 or 65 bytes.
    P256,
    /// SM2 with SM3 and the default identity; public keys in SEC 1, 33 or 65 bytes.
    Sm2,
}

impl Suite {
    /// Number of suites.
    pub const COUNT: usize = 3;

    /// All suites, by [`Self::index`].
    pub const ALL: [Self; Self::COUNT] = [Self::Ed25519, Self::P256, Self::Sm2];

    /// Position in [`Self::ALL`] and in per-suite figures.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Ed25519 => 0,
            Self::P256 => 1,
            Self::Sm2 => 2,
        }
    }

    /// Stable lower-case name, used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::Sm2 => "sm2",
        }
    }
}

/// What a suite's rule says about one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The signature is of this key over this message.
    Valid,
    /// It is not, or key or signature are malformed.
    Invalid,
}

impl Verdict {
    /// True for [`Verdict::Valid`].
    #[must_use]
    pub const fn is_valid(self) -> bool {
        matches!(self, Self::Valid)
    }
}

impl From<bool> for Verdict {
    fn from(valid: bool) -> Self {
        if valid { Self::Valid } else { Self::Invalid }
    }
}

/// Why a public key may not be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The length or the leading byte is not that of an encoding of this suite.
    #[error("the bytes are not a {suite} public key", suite = .0.name())]
    Malformed(Suite),
    /// The coordinates are no point of the curve.
    #[error("the bytes are no point of the {suite} curve", suite = .0.name())]
    NotOnCurve(Suite),
    /// The point has another encoding that is the canonical one.
    #[error("the encoding is not canonical")]
    NotCanonical,
    /// The point has small order: signatures of anyone would verify under it.
    #[error("the point has small order")]
    SmallOrder,
    /// The point has a torsion component: verification rules would disagree about its signatures.
    #[error("the point is not torsion-free")]
    Torsion,
}

impl KeyError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) => "key_malformed",
            Self::NotOnCurve(_) => "key_not_on_curve",
            Self::NotCanonical => "key_not_canonical",
            Self::SmallOrder => "key_small_order",
            Self::Torsion => "key_torsion",
        }
    }
}

/// One item to verify, with its bytes at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) public_key: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) message: &'a [u8],
}

/// The verifiers of all suites with their key caches.
#[derive(Debug)]
pub(crate) struct Verifiers {
    pub(crate) ed25519: ed25519::Verifier,
    pub(crate) p256: p256::Verifier,
    pub(crate) sm2: sm2::Verifier,
}

impl Verifiers {
    /// Each suite has a cache of `key_cache_entries` decoded keys and of `table_bytes` of tables.
    pub(crate) fn new(key_cache_entries: usize, table_bytes: usize) -> Self {
        Self {
            ed25519: ed25519::Verifier::new(key_cache_entries, table_bytes),
            p256: p256::Verifier::new(key_cache_entries, table_bytes),
            sm2: sm2::Verifier::new(key_cache_entries, table_bytes),
        }
    }

    pub(crate) fn cache_figures(&self) -> [CacheFigures; Suite::COUNT] {
        Suite::ALL.map(|suite| match suite {
            Suite::Ed25519 => self.ed25519.cache_figures(),
            Suite::P256 => self.p256.cache_figures(),
            Suite::Sm2 => self.sm2.cache_figures(),
        })
    }
}

/// Verifies one signature on the calling thread, without an engine and without a cache.
#[must_use]
pub fn verify_one(suite: Suite, public_key: &[u8], signature: &[u8], message: &[u8]) -> Verdict {
    let signed = Signed { public_key, signature, message };
    match suite {
        Suite::Ed25519 => ed25519::verify_one(signed),
        Suite::P256 => p256::verify_one(signed),
        Suite::Sm2 => sm2::verify_one(signed),
    }
}

/// Says whether a public key may be enrolled. Stricter than verification: for an enrolled key, every rule
/// in use anywhere accepts the same honest signatures.
///
/// Ed25519: canonical encoding, not of small order, torsion-free. P-256 and SM2: SEC 1 compressed or
/// uncompressed, coordinates below the field's prime, on the curve.
///
/// # Errors
/// [`KeyError`] names the first rule that the key breaks.
pub fn check_public_key(suite: Suite, public_key: &[u8]) -> Result<(), KeyError> {
    match suite {
        Suite::Ed25519 => ed25519::check_public_key(public_key),
        Suite::P256 => p256::check_public_key(public_key),
        Suite::Sm2 => sm2::check_public_key(public_key),
    }
}

/// Whether the bytes have the length and leading byte of SEC 1 section 2.3.3, compressed or uncompressed.
/// Hybrid and compact forms and the point at infinity are refused before any library sees them.
fn is_sec1(bytes: &[u8]) -> bool {
    matches!((bytes.len(), bytes.first()), (33, Some(0x02 | 0x03)) | (65, Some(0x04)))
}
