//! Identifiers: fixed-size byte strings that cannot be mixed up.
//!
//! Text forms are lower-case hexadecimal of the full length. Ids that are hashes are SHA-256 with a domain tag, except
//! the statement id, which is SHA-256 of the COSE `Sig_structure` (RFC 9052 section 4.4) so that a re-randomised ECDSA
//! signature does not make a new statement.

use alloc::string::String;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::cbor::{CborError, Decoder, Encoder, Field};
use crate::suite::Suite;

macro_rules! byte_id {
    ($($(#[$meta:meta])* $name:ident[$len:literal];)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Bytes of this id.
            pub const LEN: usize = $len;
            /// The id as bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] { &self.0 }
            /// Lower-case hexadecimal.
            pub fn to_hex(&self) -> String { to_hex(&self.0) }
            /// Reads lower-case hexadecimal of the exact length.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $len];
                from_hex(text, &mut bytes).then_some(Self(bytes))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self { Self(bytes) }
        }
        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] { &self.0 }
        }
        impl Field for $name {
            fn encode(&self, e: &mut Encoder<'_>) { self.0.encode(e); }
            fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> { Field::decode(d).map(Self) }
        }
    )*};
}

byte_id! {
    /// A SHA-256 digest, or a root of the approved hash.
    Hash[32];
    /// SHA-256 of the genesis file: what keeps a statement of one network out of every other.
    NetworkId[32];
    /// SHA-256("stele/header/v1" ‖ header): what validators vote on.
    BlockId[32];
    /// SHA-256 of the statement's `Sig_structure`.
    StatementId[32];
    /// SHA-256("stele/validator/v1" ‖ long-term public key, SEC1 compressed).
    ValidatorId[32];
    /// A party (agency, bank, operator, court): 128 bits chosen at enrolment.
    PartyId[16];
    /// An object (asset, record, mandate): 128 bits, time-ordered UUIDv7 by convention.
    ObjectId[16];
    /// First 16 bytes of SHA-256("stele/key/v1" ‖ suite ‖ public key): the COSE `kid`.
    KeyId[16];
    /// CWT id (claim 7): the idempotency key of a command, unique per issuer.
    Cti[16];
}

impl Hash {
    /// SHA-256 of `tag` followed by `parts`. Tags end in a version and never share a prefix with another tag.
    pub fn tagged(tag: &str, parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        digest.update(tag.as_bytes());
        for part in parts {
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
    /// Plain SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl KeyId {
    /// The id of a public key in its suite's canonical form.
    pub fn of(suite: Suite, public_key: &[u8]) -> Self {
        let hash = Hash::tagged("stele/key/v1", &[&suite.cose_algorithm().to_be_bytes(), public_key]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.0[..16]);
        Self(id)
    }
}

impl ValidatorId {
    /// The id of a long-term P-256 key (SEC1 compressed, 33 bytes).
    pub fn of(public_key: &[u8; 33]) -> Self {
        Self(Hash::tagged("stele/validator/v1", &[public_key]).0)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

fn from_hex(text: &str, out: &mut [u8]) -> bool {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 {
        return false;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else { return false };
        *byte = high << 4 | low;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_refuses_other_forms() {
        let id = PartyId([0xa5; 16]);
        assert_eq!(PartyId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(PartyId::from_hex("A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5"), None, "upper case has another form");
        assert_eq!(PartyId::from_hex("a5"), None);
    }

    #[test]
    fn key_ids_depend_on_the_suite() {
        let key = [2; 33];
        assert_ne!(KeyId::of(Suite::Es256, &key), KeyId::of(Suite::Sm2Sm3, &key));
    }
}
