//! Votes, the keys they name, and the commit certificates that votes make.
//!
//! A vote names its key: the validator's long-term key (`direct`, always valid) or an epoch key by the hash of its
//! certificate (`delegated`). The name is inside the signed bytes.

use alloc::vec::Vec;

use crate::cbor::{self, CborError, Decoder, Encoder, Field, List, put};
use crate::hash::{BlockId, Hash, NetworkId, ValidatorId};
use crate::header::Height;
use crate::limits::VALIDATORS_MAX;

crate::codes! {
    /// What is signed.
    pub enum VoteKind: u8 {
        /// A proposal.
        Proposal = 1 => "proposal",
        /// First vote.
        Prevote = 2 => "prevote",
        /// Second vote; a quorum of them for one block is a commit certificate.
        Precommit = 3 => "precommit",
    }
}

/// The key that signs a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VoteKey {
    /// The validator's long-term key.
    Direct,
    /// The epoch key of the certificate with this hash.
    Delegated(Hash),
}

impl Field for VoteKey {
    fn encode(&self, e: &mut Encoder<'_>) {
        match self {
            Self::Direct => put(e.null()),
            Self::Delegated(hash) => hash.encode(e),
        }
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        Ok(Option::<Hash>::decode(d)?.map_or(Self::Direct, Self::Delegated))
    }
}

/// A P-256 signature (r ‖ s) with the name of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VoteSignature {
    /// The key.
    pub key: VoteKey,
    /// r ‖ s, big-endian.
    pub signature: [u8; 64],
}

impl Field for VoteSignature {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.array(2));
        self.key.encode(e);
        self.signature.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let (key, signature) = Field::decode(d)?;
        Ok(Self { key, signature })
    }
}

/// What a vote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// The network.
    pub network: NetworkId,
    /// Proposal, prevote or precommit.
    pub kind: VoteKind,
    /// Height voted on.
    pub height: Height,
    /// Round voted on.
    pub round: u32,
    /// The block, or nil.
    pub block: Option<BlockId>,
    /// Proposals: the earlier round in which the block had a quorum of prevotes.
    pub valid_round: Option<u32>,
}

impl Ballot {
    /// The bytes that a vote signs: the array `[domain, network, kind, height, round, block, valid round, key]`; the domain
    /// of proposals is "stele/proposal/v1" and that of votes "stele/vote/v1", so that a signer tells them by their head.
    pub fn signing_bytes(&self, key: &VoteKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        let mut e = Encoder::new(&mut bytes);
        put(e.array(8));
        put(e.str(match self.kind {
            VoteKind::Proposal => "stele/proposal/v1",
            VoteKind::Prevote | VoteKind::Precommit => "stele/vote/v1",
        }));
        self.network.encode(&mut e);
        self.kind.encode(&mut e);
        self.height.encode(&mut e);
        self.round.encode(&mut e);
        self.block.encode(&mut e);
        self.valid_round.encode(&mut e);
        key.encode(&mut e);
        bytes
    }
}

/// One signature of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitSignature {
    /// Index in the validator set of the height.
    pub validator: u16,
    /// The precommit's signature.
    pub signature: VoteSignature,
}

impl Field for CommitSignature {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.array(2));
        self.validator.encode(e);
        self.signature.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let (validator, signature) = Field::decode(d)?;
        Ok(Self { validator, signature })
    }
}

crate::record! {
    /// A quorum of precommits for one block. Certificates of one block differ per node; all are good.
    pub struct CommitCertificate {
        /// Height of the block.
        1 => height: Height,
        /// Round of the precommits.
        2 => round: u32,
        /// The block.
        3 => block: BlockId,
        /// Signatures by ascending validator index, each index once.
        4 => signatures: List<CommitSignature, VALIDATORS_MAX>,
    }
}

impl CommitCertificate {
    /// SHA-256("stele/certificate/v1" ‖ certificate).
    pub fn hash(&self) -> Hash {
        Hash::tagged("stele/certificate/v1", &[&cbor::to_vec(self)])
    }
    /// Whether the indices ascend, so that no validator counts twice.
    pub fn is_ordered(&self) -> bool {
        self.signatures.windows(2).all(|pair| pair[0].validator < pair[1].validator)
    }
    /// What every signature of it signs, but for the name of the key.
    pub fn ballot(&self, network: NetworkId) -> Ballot {
        Ballot {
            network,
            kind: VoteKind::Precommit,
            height: self.height,
            round: self.round,
            block: Some(self.block),
            valid_round: None,
        }
    }
}

crate::record! {
    /// A validator's long-term key lends a short-lived key its vote.
    pub struct EpochCertificate {
        /// The network.
        1 => network: NetworkId,
        /// The validator.
        2 => validator: ValidatorId,
        /// The epoch key, P-256, SEC1 compressed.
        3 => public_key: [u8; 33],
        /// First height at which it votes.
        4 => from_height: Height,
        /// Last height at which it votes.
        5 => until_height: Height,
        /// Hash of the PCR policy under which the key is released; zeros for a software key.
        6 => pcr_policy: Hash,
        /// Signature of the long-term key over [`EpochCertificate::signing_bytes`], r ‖ s.
        7 => signature: [u8; 64],
    }
}

impl EpochCertificate {
    /// Longest height range of one certificate: about a week at one block a second.
    pub const HEIGHTS_MAX: u64 = 1_000_000;

    /// The array `["stele/epoch/v1", network, validator, key, from, until, policy]`.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(192);
        let mut e = Encoder::new(&mut bytes);
        put(e.array(7));
        put(e.str("stele/epoch/v1"));
        self.network.encode(&mut e);
        self.validator.encode(&mut e);
        self.public_key.encode(&mut e);
        self.from_height.encode(&mut e);
        self.until_height.encode(&mut e);
        self.pcr_policy.encode(&mut e);
        bytes
    }
    /// SHA-256("stele/epoch-certificate/v1" ‖ certificate): what a delegated vote names.
    pub fn hash(&self) -> Hash {
        Hash::tagged("stele/epoch-certificate/v1", &[&cbor::to_vec(self)])
    }
    /// Whether it may vote at `height`.
    pub fn covers(&self, height: Height) -> bool {
        self.from_height <= height && height <= self.until_height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_part_of_what_is_signed() {
        let ballot = Ballot {
            network: NetworkId([1; 32]),
            kind: VoteKind::Precommit,
            height: Height(7),
            round: 0,
            block: None,
            valid_round: None,
        };
        let direct = ballot.signing_bytes(&VoteKey::Direct);
        assert_ne!(direct, ballot.signing_bytes(&VoteKey::Delegated(Hash([0; 32]))));
        assert_ne!(direct, Ballot { kind: VoteKind::Prevote, ..ballot }.signing_bytes(&VoteKey::Direct));
    }
}
