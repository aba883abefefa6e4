//! The types the engine is parameterised with: thin wrappers around `stele-types`.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use bytes::Bytes;
use malachite_core_types::{
    self as core_types, LinearTimeouts, NilOrVal, Round, SignedExtension, SigningScheme, VoteType,
};
use stele_types::{BlockId, Height, ProposerSchedule, ValidatorId, ValidatorSet, VoteSignature};

/// The engine's view of this network; carries no state, the validator set carries the schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stele;

/// A validator's id as the engine's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(pub(crate) ValidatorId);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_short(f, self.0.as_bytes())
    }
}

impl core_types::Address for Address {}

/// A block height as the engine counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EngineHeight(pub(crate) u64);

impl From<Height> for EngineHeight {
    fn from(height: Height) -> Self {
        Self(height.0)
    }
}

impl From<EngineHeight> for Height {
    fn from(height: EngineHeight) -> Self {
        Self(height.0)
    }
}

impl fmt::Display for EngineHeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core_types::Height for EngineHeight {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// A block id as the engine's value and value id: votes carry only this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Value(pub(crate) BlockId);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_short(f, self.0.as_bytes())
    }
}

impl core_types::Value for Value {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

fn write_short(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A signature, or the absence of one that the signer withheld.
///
/// The engine has no way to abstain. A withheld signature fails verification at home, so it is not counted, and cannot
/// be encoded, so it never reaches a peer: the node does not vote and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seal {
    Signed(VoteSignature),
    Withheld,
}

/// A validator's long-term key, parsed once per height.
#[derive(Clone)]
pub(crate) struct PublicKey {
    pub(crate) validator: ValidatorId,
    pub(crate) bytes: [u8; 33],
    /// Absent when the bytes are no point of the curve: then nothing verifies.
    parsed: Option<Arc<ParsedPublicKey>>,
}

impl PublicKey {
    pub(crate) fn new(bytes: [u8; 33]) -> Self {
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).ok().map(Arc::new);
        Self { validator: ValidatorId::of(&bytes), bytes, parsed }
    }

    /// Whether `signature` (r ‖ s) over `message` is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.parsed.as_ref().is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_short(f, &self.bytes)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

/// P-256 with SHA-256, signatures of 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheme;

impl SigningScheme for Scheme {
    type DecodingError = &'static str;
    type Signature = Seal;
    type PublicKey = PublicKey;
    /// Private keys never enter the engine.
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Seal, Self::DecodingError> {
        crate::codec::decode_seal(Bytes::copy_from_slice(bytes)).map_err(|_| "malformed signature")
    }

    fn encode_signature(signature: &Seal) -> Vec<u8> {
        crate::codec::encode_seal(signature).unwrap_or_default()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, Self::DecodingError> {
        bytes.try_into().map(PublicKey::new).map_err(|_| "a public key is 33 bytes")
    }

    fn encode_public_key(public_key: &PublicKey) -> Vec<u8> {
        public_key.bytes.to_vec()
    }
}

/// One validator in the engine's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineValidator {
    address: Address,
    key: PublicKey,
}

impl core_types::Validator<Stele> for EngineValidator {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn voting_power(&self) -> u64 {
        1
    }
}

/// The validators of a height together with who proposes when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineValidators {
    validators: Arc<[EngineValidator]>,
    schedule: Arc<ProposerSchedule>,
    set: Arc<ValidatorSet>,
}

impl EngineValidators {
    pub(crate) fn new(set: Arc<ValidatorSet>, schedule: Arc<ProposerSchedule>) -> Self {
        let validators = set
            .iter()
            .map(|validator| {
                let key = PublicKey::new(validator.public_key);
                EngineValidator { address: Address(key.validator), key }
            })
            .collect();
        Self { validators, schedule, set }
    }

    /// The same validators under the next height's schedule; their keys stay parsed.
    pub(crate) fn rescheduled(&self, schedule: Arc<ProposerSchedule>) -> Self {
        Self { schedule, ..self.clone() }
    }

    pub(crate) fn set(&self) -> &Arc<ValidatorSet> {
        &self.set
    }

    /// Index of a validator in the set; ids are sorted there, as they are here.
    pub(crate) fn index_of(&self, id: &ValidatorId) -> Option<u16> {
        let index = self.validators.binary_search_by(|validator| validator.address.0.cmp(id)).ok()?;
        u16::try_from(index).ok()
    }

    /// Id of the validator with that index.
    pub(crate) fn id_of(&self, index: usize) -> Option<ValidatorId> {
        self.validators.get(index).map(|validator| validator.address.0)
    }

    pub(crate) fn public_key(&self, id: &ValidatorId) -> Option<&PublicKey> {
        self.index_of(id).map(|index| &self.validators[usize::from(index)].key)
    }

    /// Who proposes at `height` in `round`.
    pub(crate) fn proposer(&self, height: u64, round: u32) -> &EngineValidator {
        // The set is never empty; the remainder guards against a schedule of another size.
        &self.validators[self.schedule.proposer(height, round) % self.validators.len()]
    }

    pub(crate) fn proposer_id(&self, height: u64, round: u32) -> ValidatorId {
        self.proposer(height, round).address.0
    }
}

impl core_types::ValidatorSet<Stele> for EngineValidators {
    fn count(&self) -> usize {
        self.validators.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.validators.len() as u64
    }

    fn get_by_address(&self, address: &Address) -> Option<&EngineValidator> {
        self.index_of(&address.0).map(|index| &self.validators[usize::from(index)])
    }

    fn get_by_index(&self, index: usize) -> Option<&EngineValidator> {
        self.validators.get(index)
    }
}

/// A proposal: binds a block id to a round and, if it is a re-proposal, to the round of its quorum of prevotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) height: EngineHeight,
    pub(crate) round: Round,
    pub(crate) value: Value,
    pub(crate) valid_round: Round,
    pub(crate) address: Address,
}

impl core_types::Proposal<Stele> for Proposal {
    fn height(&self) -> EngineHeight {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.valid_round
    }

    fn validator_address(&self) -> &Address {
        &self.address
    }
}

/// A prevote or precommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) kind: VoteType,
    pub(crate) height: EngineHeight,
    pub(crate) round: Round,
    pub(crate) value: NilOrVal<Value>,
    pub(crate) address: Address,
}

impl Vote {
    /// The block voted for, or none for nil.
    pub(crate) fn block(&self) -> Option<BlockId> {
        match self.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(value) => Some(value.0),
        }
    }
}

impl core_types::Vote<Stele> for Vote {
    fn height(&self) -> EngineHeight {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<Value> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Value> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.address
    }

    fn extension(&self) -> Option<&SignedExtension<Stele>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Stele>> {
        None
    }

    fn extend(self, _extension: SignedExtension<Stele>) -> Self {
        self
    }
}

/// What travels on the engine's proposal channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// First part of a block: what it is and how large.
    Start(BlockStart),
    /// The bytes of a block, in sequence; all of `PART_BYTES` but the last.
    Data(Bytes),
    /// An application message of the node; no part of a proposal.
    Message(Bytes),
    /// The sender starts this height: idle validators start it too.
    Wake(EngineHeight),
}

/// Announces a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockStart {
    pub(crate) height: EngineHeight,
    pub(crate) round: Round,
    pub(crate) valid_round: Round,
    /// The validator that proposed it in `round`.
    pub(crate) proposer: ValidatorId,
    /// Bytes of the whole block.
    pub(crate) bytes: u32,
}

impl core_types::ProposalPart<Stele> for Part {
    fn is_first(&self) -> bool {
        matches!(self, Self::Start(_))
    }

    fn is_last(&self) -> bool {
        false
    }
}

impl core_types::Context for Stele {
    type Address = Address;
    type Height = EngineHeight;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = EngineValidator;
    type ValidatorSet = EngineValidators;
    type Timeouts = LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Scheme;

    fn select_proposer<'a>(
        &self,
        validators: &'a EngineValidators,
        height: EngineHeight,
        round: Round,
    ) -> &'a EngineValidator {
        validators.proposer(height.0, round.as_u32().unwrap_or(0))
    }

    fn new_proposal(
        &self,
        height: EngineHeight,
        round: Round,
        value: Value,
        valid_round: Round,
        address: Address,
    ) -> Proposal {
        Proposal { height, round, value, valid_round, address }
    }

    fn new_prevote(&self, height: EngineHeight, round: Round, value: NilOrVal<Value>, address: Address) -> Vote {
        Vote { kind: VoteType::Prevote, height, round, value, address }
    }

    fn new_precommit(&self, height: EngineHeight, round: Round, value: NilOrVal<Value>, address: Address) -> Vote {
        Vote { kind: VoteType::Precommit, height, round, value, address }
    }
}
