//! Reading and writing the primitives of the engine's messages. Integers are big endian; lists are bounded before they
//! are allocated; bytes are sliced from the received buffer, never copied.

use bytes::{BufMut, Bytes, BytesMut};
use malachite_core_types::{NilOrVal, PolkaCertificate, PolkaSignature, Round, SignedMessage, VoteType};
use stele_types::limits::VALIDATORS_MAX;
use stele_types::{BlockId, Hash, ValidatorId, VoteKey, VoteSignature};

use crate::context::{Address, EngineHeight, Seal, Stele, Value, Vote};

/// Most votes in one certificate: a round certificate may carry a prevote and a precommit of each validator.
pub(crate) const CERTIFICATE_SIGNATURES_MAX: usize = 2 * VALIDATORS_MAX;

/// Why bytes from a peer or the journal were refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the message ends early")]
    Truncated,
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    #[error("unknown tag {tag} for {field}")]
    Tag { field: &'static str, tag: u8 },
    #[error("{field} has {count} entries or bytes, at most {max} are allowed")]
    TooLarge { field: &'static str, count: usize, max: usize },
    #[error("malformed peer id")]
    PeerId,
    #[error("the signature was withheld, there is nothing to send")]
    Withheld,
}

pub(crate) type Decoded<T> = Result<T, CodecError>;

/// Builds a message.
pub(crate) struct Writer(pub(crate) BytesMut);

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(BytesMut::with_capacity(capacity))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Decoded<()> {
        let count = u32::try_from(bytes.len()).map_err(|_| CodecError::TooLarge {
            field: "bytes",
            count: bytes.len(),
            max: u32::MAX as usize,
        })?;
        self.0.put_u32(count);
        self.0.put_slice(bytes);
        Ok(())
    }

    pub(crate) fn count(&mut self, field: &'static str, count: usize, max: usize) -> Decoded<()> {
        match u32::try_from(count) {
            Ok(encoded) if count <= max => {
                self.0.put_u32(encoded);
                Ok(())
            }
            _ => Err(CodecError::TooLarge { field, count, max }),
        }
    }

    /// Nil is zero, round r is r + 1: rounds stay far below 2^32.
    pub(crate) fn round(&mut self, round: Round) {
        self.0.put_u64(round.as_u32().map_or(0, |round| u64::from(round) + 1));
    }

    pub(crate) fn height(&mut self, height: EngineHeight) {
        self.0.put_u64(height.0);
    }

    pub(crate) fn address(&mut self, address: &Address) {
        self.0.put_slice(address.0.as_bytes());
    }

    pub(crate) fn value(&mut self, value: &Value) {
        self.0.put_slice(value.0.as_bytes());
    }

    pub(crate) fn optional_value(&mut self, value: &NilOrVal<Value>) {
        match value {
            NilOrVal::Nil => self.0.put_u8(0),
            NilOrVal::Val(value) => {
                self.0.put_u8(1);
                self.value(value);
            }
        }
    }

    pub(crate) fn seal(&mut self, seal: &Seal) -> Decoded<()> {
        let Seal::Signed(signature) = seal else { return Err(CodecError::Withheld) };
        match signature.key {
            VoteKey::Direct => self.0.put_u8(0),
            VoteKey::Delegated(certificate) => {
                self.0.put_u8(1);
                self.0.put_slice(certificate.as_bytes());
            }
        }
        self.0.put_slice(&signature.signature);
        Ok(())
    }

    pub(crate) fn vote(&mut self, vote: &SignedMessage<Stele, Vote>) -> Decoded<()> {
        self.vote_kind(vote.message.kind);
        self.height(vote.message.height);
        self.round(vote.message.round);
        self.optional_value(&vote.message.value);
        self.address(&vote.message.address);
        self.seal(&vote.signature)
    }

    pub(crate) fn vote_kind(&mut self, kind: VoteType) {
        self.0.put_u8(match kind {
            VoteType::Prevote => 0,
            VoteType::Precommit => 1,
        });
    }

    pub(crate) fn polka(&mut self, certificate: &PolkaCertificate<Stele>) -> Decoded<()> {
        self.height(certificate.height);
        self.round(certificate.round);
        self.value(&certificate.value_id);
        self.count("prevotes", certificate.polka_signatures.len(), CERTIFICATE_SIGNATURES_MAX)?;
        for signature in &certificate.polka_signatures {
            self.address(&signature.address);
            self.seal(&signature.signature)?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Takes a message apart.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn take(&mut self, count: usize) -> Decoded<Bytes> {
        if count > self.0.len() {
            return Err(CodecError::Truncated);
        }
        Ok(self.0.split_to(count))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let taken = self.take(N)?;
        taken.as_ref().try_into().map_err(|_| CodecError::Truncated)
    }

    pub(crate) fn byte(&mut self) -> Decoded<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self, field: &'static str, max: usize) -> Decoded<Bytes> {
        let count = self.count(field, max)?;
        self.take(count)
    }

    pub(crate) fn count(&mut self, field: &'static str, max: usize) -> Decoded<usize> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > max { Err(CodecError::TooLarge { field, count, max }) } else { Ok(count) }
    }

    pub(crate) fn round(&mut self) -> Decoded<Round> {
        let encoded = self.u64()?;
        let Some(round) = encoded.checked_sub(1) else { return Ok(Round::Nil) };
        u32::try_from(round).map(Round::new).map_err(|_| CodecError::TooLarge {
            field: "round",
            count: usize::MAX,
            max: u32::MAX as usize,
        })
    }

    pub(crate) fn height(&mut self) -> Decoded<EngineHeight> {
        Ok(EngineHeight(self.u64()?))
    }

    pub(crate) fn address(&mut self) -> Decoded<Address> {
        Ok(Address(ValidatorId(self.array()?)))
    }

    pub(crate) fn value(&mut self) -> Decoded<Value> {
        Ok(Value(BlockId(self.array()?)))
    }

    pub(crate) fn optional_value(&mut self) -> Decoded<NilOrVal<Value>> {
        match self.byte()? {
            0 => Ok(NilOrVal::Nil),
            1 => Ok(NilOrVal::Val(self.value()?)),
            tag => Err(CodecError::Tag { field: "value", tag }),
        }
    }

    pub(crate) fn seal(&mut self) -> Decoded<Seal> {
        let key = match self.byte()? {
            0 => VoteKey::Direct,
            1 => VoteKey::Delegated(Hash(self.array()?)),
            tag => return Err(CodecError::Tag { field: "vote key", tag }),
        };
        Ok(Seal::Signed(VoteSignature { key, signature: self.array()? }))
    }

    pub(crate) fn vote_kind(&mut self) -> Decoded<VoteType> {
        match self.byte()? {
            0 => Ok(VoteType::Prevote),
            1 => Ok(VoteType::Precommit),
            tag => Err(CodecError::Tag { field: "vote", tag }),
        }
    }

    pub(crate) fn vote(&mut self) -> Decoded<SignedMessage<Stele, Vote>> {
        let vote = Vote {
            kind: self.vote_kind()?,
            height: self.height()?,
            round: self.round()?,
            value: self.optional_value()?,
            address: self.address()?,
        };
        Ok(SignedMessage::new(vote, self.seal()?))
    }

    pub(crate) fn polka(&mut self) -> Decoded<PolkaCertificate<Stele>> {
        let (height, round, value_id) = (self.height()?, self.round()?, self.value()?);
        let count = self.count("prevotes", CERTIFICATE_SIGNATURES_MAX)?;
        let polka_signatures =
            (0..count).map(|_| Ok(PolkaSignature::new(self.address()?, self.seal()?))).collect::<Decoded<_>>()?;
        Ok(PolkaCertificate { height, round, value_id, polka_signatures })
    }

    pub(crate) fn finish<T>(self, value: T) -> Decoded<T> {
        if self.0.is_empty() { Ok(value) } else { Err(CodecError::Trailing(self.0.len())) }
    }
}
