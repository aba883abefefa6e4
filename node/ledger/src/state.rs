//! Where a value lies in the state: domains, keys, and the view through which `apply` reads.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};
use stele_types::cbor::{self, CborError, Decoder, Field};

/// Key of the authenticated state: SHA-256("stele/state/v1" ‖ domain ‖ natural key), uniform by construction.
pub type StateKey = [u8; 32];

/// Bytes of one value at most: values stay within a page of the state store, longer things are split into chunks.
pub const VALUE_BYTES_MAX: usize = 4096;

/// One change of the state: the new value of a key, or none when the key is deleted.
pub type Write = (StateKey, Option<Vec<u8>>);

/// Read access to the state after one height.
pub trait StateView {
    /// The value of `key`, if there is one.
    fn get(&self, key: &StateKey) -> Option<Vec<u8>>;
    /// These keys are read next: a view may fetch them side by side, which one read after the other cannot.
    fn prefetch(&self, _keys: &[StateKey]) {}
}

/// What kind of value a key names. The number is part of the key's hash and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Domain {
    /// Height, time and log size.
    Chain = 0x01,
    /// Parameters in force and waiting.
    Parameters = 0x02,
    /// Which validator set is in force and which waits.
    Validators = 0x03,
    /// Validators of one set, in chunks.
    ValidatorChunk = 0x04,
    /// Silences of the proposers.
    Schedule = 0x05,
    /// Protocol version in force and waiting.
    Protocol = 0x06,
    /// Epoch certificates of one validator.
    Epoch = 0x07,
    /// How many governors can act.
    Governors = 0x08,
    /// Since when the rule of admission holds, and who is suspended by it.
    Attestation = 0x09,
    /// What regulators found out about one validator.
    Standing = 0x0a,
    /// A party.
    Party = 0x10,
    /// A signing key.
    Key = 0x11,
    /// The party of a client certificate's key.
    TlsPin = 0x12,
    /// A mandate.
    Mandate = 0x13,
    /// Live mandates from one party to another.
    MandatePair = 0x14,
    /// A proposal under dual control.
    Proposal = 0x18,
    /// The command of an open proposal, in chunks.
    ProposalChunk = 0x19,
    /// Open proposals of one party.
    OpenProposals = 0x1a,
    /// The anchor of a record.
    Record = 0x20,
    /// A registered data asset.
    Asset = 0x30,
    /// The asset of a certificate number.
    Certificate = 0x31,
    /// The last serial of a region, kind and year.
    Serial = 0x32,
    /// The asset that claims a right over a content.
    Claim = 0x33,
    /// Outcome of one statement within the replay window.
    Replay = 0x40,
    /// Replay entries that are swept together.
    ReplayChunk = 0x41,
    /// Floor of the window and range of the chunks.
    ReplayQueue = 0x42,
}

/// The state key of a natural key in a domain. All natural keys of one domain have the same length, so their parts need
/// no separators.
pub(crate) fn state_key(domain: Domain, natural: &[&[u8]]) -> StateKey {
    let mut digest = Sha256::new();
    digest.update(b"stele/state/v1");
    digest.update([domain as u8]);
    for part in natural {
        digest.update(part);
    }
    digest.finalize().into()
}

/// A value of the state: deterministic CBOR under a key of its domain.
pub trait Stored: Field {
    /// The natural key.
    type Id: ?Sized;
    /// The domain.
    const DOMAIN: Domain;

    /// The state key of an id.
    fn state_key(id: &Self::Id) -> StateKey;

    /// Reads a value that came with a proof; anything but the deterministic encoding is refused.
    ///
    /// # Errors
    /// Any [`CborError`]; `TooLarge` above [`VALUE_BYTES_MAX`].
    fn from_value(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(CborError::TooLarge);
        }
        cbor::from_slice(bytes)
    }
}

/// Reads a value of our own state. The state was written by this crate and its root is agreed on, so bytes that do not
/// decode mean a damaged store, and to go on would be to fork.
pub(crate) fn decode<T: Stored>(bytes: &[u8]) -> T {
    let mut decoder = Decoder::new(bytes);
    let value = T::decode(&mut decoder).ok().filter(|_| decoder.position() == bytes.len());
    match value {
        Some(value) => value,
        None => panic!("a state value of domain {:?} is damaged", T::DOMAIN),
    }
}

/// Encodes a value and asserts its bound.
pub(crate) fn encode<T: Stored>(value: &T) -> Vec<u8> {
    // Most values are a few hundred bytes: one allocation instead of a growing one.
    let mut bytes = Vec::with_capacity(288);
    value.encode(&mut cbor::Encoder::new(&mut bytes));
    assert!(bytes.len() <= VALUE_BYTES_MAX, "a value of domain {:?} exceeds its bound", T::DOMAIN);
    bytes
}

/// Names the domain and the natural key of a value type.
macro_rules! stored {
    ($ty:ty, $domain:ident, $id:ty, |$name:pat_param| [$($part:expr),*]) => {
        impl $crate::state::Stored for $ty {
            type Id = $id;
            const DOMAIN: $crate::state::Domain = $crate::state::Domain::$domain;
            fn state_key($name: &$id) -> $crate::state::StateKey {
                $crate::state::state_key(Self::DOMAIN, &[$($part),*])
            }
        }
    };
}
pub(crate) use stored;

/// Reads and decodes one value of a view.
pub(crate) fn read<T: Stored>(view: &dyn StateView, id: &T::Id) -> Option<T> {
    view.get(&T::state_key(id)).map(|bytes| decode(&bytes))
}
