//! Validators: who votes, under which long-term key, from which peer.

use alloc::vec::Vec;

use crate::cbor::{self, CborError, Decoder, Encoder, Field, List};
use crate::hash::{Hash, PartyId, ValidatorId};
use crate::limits::VALIDATORS_MAX;

crate::record! {
    /// One validator. All have the same weight.
    pub struct Validator {
        /// Long-term P-256 key, SEC1 compressed.
        1 => public_key: [u8; 33],
        /// Ed25519 key of its peer link; the libp2p peer id is the identity multihash of this key.
        2 => peer_key: [u8; 32],
        /// The party that runs it.
        3 => party: PartyId,
    }
}

impl Validator {
    /// Its id.
    pub fn id(&self) -> ValidatorId {
        ValidatorId::of(&self.public_key)
    }
    /// libp2p peer id: identity multihash (00 24) of the protobuf public key {type: Ed25519, data} (08 01 12 20 ‖ key).
    pub fn peer_id(&self) -> [u8; 38] {
        let mut id = [0; 38];
        id[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        id[6..].copy_from_slice(&self.peer_key);
        id
    }
}

/// Validators in ascending order of id, each key once, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet(List<Validator, VALIDATORS_MAX>);

impl ValidatorSet {
    /// Orders `validators` by id.
    ///
    /// # Errors
    /// `OutOfRange` when there is none or a long-term key, or a peer key, appears twice; `TooLarge`.
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, CborError> {
        validators.sort_by_key(Validator::id);
        Self::checked(List::new(validators)?)
    }
    fn checked(list: List<Validator, VALIDATORS_MAX>) -> Result<Self, CborError> {
        let ordered = list.windows(2).all(|pair| pair[0].id() < pair[1].id());
        let mut peers: Vec<_> = list.iter().map(|validator| validator.peer_key).collect();
        peers.sort_unstable();
        let distinct = peers.windows(2).all(|pair| pair[0] != pair[1]);
        if ordered && distinct && !list.is_empty() { Ok(Self(list)) } else { Err(CborError::OutOfRange) }
    }
    /// The validators by index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Validator> {
        self.0.iter()
    }
    /// How many there are; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The validator of an index.
    pub fn get(&self, index: usize) -> Option<&Validator> {
        self.0.get(index)
    }
    /// Index of an id.
    pub fn index_of(&self, id: &ValidatorId) -> Option<usize> {
        self.0.iter().position(|validator| validator.id() == *id)
    }
    /// How many may be faulty: f of n ≥ 3f + 1.
    pub fn faulty_max(&self) -> usize {
        (self.0.len() - 1) / 3
    }
    /// Signatures that certify: more than two thirds.
    pub fn quorum(&self) -> usize {
        self.0.len() * 2 / 3 + 1
    }
    /// SHA-256("stele/validators/v1" ‖ set).
    pub fn hash(&self) -> Hash {
        Hash::tagged("stele/validators/v1", &[&cbor::to_vec(self)])
    }
}

impl Field for ValidatorSet {
    fn encode(&self, e: &mut Encoder<'_>) {
        self.0.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        Self::checked(List::decode(d)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validator(byte: u8) -> Validator {
        Validator { public_key: [byte; 33], peer_key: [byte; 32], party: PartyId([byte; 16]) }
    }

    #[test]
    fn sets_have_one_order_and_no_doubles() {
        let set = ValidatorSet::new([1, 2, 3, 4].map(validator).into()).unwrap();
        let same = ValidatorSet::new([4, 3, 2, 1].map(validator).into()).unwrap();
        assert_eq!(set.hash(), same.hash());
        assert_eq!((set.quorum(), set.faulty_max()), (3, 1));
        assert!(ValidatorSet::new([1, 1].map(validator).into()).is_err());
        assert!(ValidatorSet::new(Vec::new()).is_err());
        assert_eq!(cbor::from_slice::<ValidatorSet>(&cbor::to_vec(&set)), Ok(set));
    }
}
