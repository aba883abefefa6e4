//! Encoding of what the engine sends to peers and writes to its journal.
//!
//! Both ends run the same release and the journal lives for one height, so this is a private, fixed-width binary form;
//! nothing here outlives the engine. The primitives and their bounds are in `wire`.

use bytes::{BufMut, Bytes};
use malachite::app::consensus::{LivenessMsg, ProposedValue, SignedConsensusMsg};
use malachite::app::streaming::{StreamContent, StreamId, StreamMessage};
use malachite::app::types::PeerId;
use malachite::app::types::codec::{Codec, HasEncodedLen};
use malachite::app::types::sync::{RawDecidedValue, Request, Response, Status};
use malachite_core_types::{
    ExtendedCommitCertificate, ExtendedCommitSignature, PolkaCertificate, RoundCertificate, RoundCertificateType,
    RoundSignature, SignedMessage, ValidatorProof, Validity,
};
use malachite_sync::{ValueRequest, ValueResponse};

use crate::config::PART_BYTES;
use crate::context::{Address, BlockStart, Part, Proposal, Seal, Stele};
use crate::wire::{CERTIFICATE_SIGNATURES_MAX, CodecError, Decoded, Reader, Writer};

/// Bytes of a stream id.
pub(crate) const STREAM_ID_BYTES: usize = 16;
/// Blocks in one sync response; the engine asks for far fewer.
const RESPONSE_BLOCKS_MAX: usize = 1_024;
/// A libp2p peer id of an Ed25519 key has 38 bytes; other key types have up to 42.
const PEER_ID_BYTES_MAX: usize = 64;

/// A signature alone, as the engine asks for it.
pub(crate) fn encode_seal(seal: &Seal) -> Decoded<Vec<u8>> {
    let mut writer = Writer::with_capacity(97);
    writer.seal(seal)?;
    Ok(writer.0.to_vec())
}

/// Reads what [`encode_seal`] wrote.
pub(crate) fn decode_seal(bytes: Bytes) -> Decoded<Seal> {
    let mut reader = Reader(bytes);
    let seal = reader.seal()?;
    reader.finish(seal)
}

/// The one codec of journal, network and sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineCodec;

impl Codec<SignedConsensusMsg<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<SignedConsensusMsg<Stele>> {
        let mut reader = Reader(bytes);
        let message = match reader.byte()? {
            0 => SignedConsensusMsg::Vote(reader.vote()?),
            1 => {
                let proposal = Proposal {
                    height: reader.height()?,
                    round: reader.round()?,
                    value: reader.value()?,
                    valid_round: reader.round()?,
                    address: reader.address()?,
                };
                SignedConsensusMsg::Proposal(SignedMessage::new(proposal, reader.seal()?))
            }
            tag => return Err(CodecError::Tag { field: "consensus message", tag }),
        };
        reader.finish(message)
    }

    fn encode(&self, message: &SignedConsensusMsg<Stele>) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(256);
        match message {
            SignedConsensusMsg::Vote(vote) => {
                writer.0.put_u8(0);
                writer.vote(vote)?;
            }
            SignedConsensusMsg::Proposal(proposal) => {
                writer.0.put_u8(1);
                writer.height(proposal.message.height);
                writer.round(proposal.message.round);
                writer.value(&proposal.message.value);
                writer.round(proposal.message.valid_round);
                writer.address(&proposal.message.address);
                writer.seal(&proposal.signature)?;
            }
        }
        Ok(writer.finish())
    }
}

impl Codec<PolkaCertificate<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<PolkaCertificate<Stele>> {
        let mut reader = Reader(bytes);
        let certificate = reader.polka()?;
        reader.finish(certificate)
    }

    fn encode(&self, certificate: &PolkaCertificate<Stele>) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(1_024);
        writer.polka(certificate)?;
        Ok(writer.finish())
    }
}

impl Codec<LivenessMsg<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<LivenessMsg<Stele>> {
        let mut reader = Reader(bytes);
        let message = match reader.byte()? {
            0 => LivenessMsg::Vote(reader.vote()?),
            1 => LivenessMsg::PolkaCertificate(reader.polka()?),
            2 => LivenessMsg::SkipRoundCertificate(decode_round_certificate(&mut reader)?),
            tag => return Err(CodecError::Tag { field: "liveness message", tag }),
        };
        reader.finish(message)
    }

    fn encode(&self, message: &LivenessMsg<Stele>) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(1_024);
        match message {
            LivenessMsg::Vote(vote) => {
                writer.0.put_u8(0);
                writer.vote(vote)?;
            }
            LivenessMsg::PolkaCertificate(certificate) => {
                writer.0.put_u8(1);
                writer.polka(certificate)?;
            }
            LivenessMsg::SkipRoundCertificate(certificate) => {
                writer.0.put_u8(2);
                encode_round_certificate(&mut writer, certificate)?;
            }
        }
        Ok(writer.finish())
    }
}

fn decode_round_certificate(reader: &mut Reader) -> Decoded<RoundCertificate<Stele>> {
    let (height, round) = (reader.height()?, reader.round()?);
    let cert_type = match reader.byte()? {
        0 => RoundCertificateType::Skip,
        1 => RoundCertificateType::Precommit,
        tag => return Err(CodecError::Tag { field: "round certificate", tag }),
    };
    let count = reader.count("round votes", CERTIFICATE_SIGNATURES_MAX)?;
    let round_signatures = (0..count)
        .map(|_| {
            let kind = reader.vote_kind()?;
            let value = reader.optional_value()?;
            Ok(RoundSignature::new(kind, value, reader.address()?, reader.seal()?))
        })
        .collect::<Decoded<_>>()?;
    Ok(RoundCertificate { height, round, cert_type, round_signatures })
}

fn encode_round_certificate(writer: &mut Writer, certificate: &RoundCertificate<Stele>) -> Decoded<()> {
    writer.height(certificate.height);
    writer.round(certificate.round);
    writer.0.put_u8(match certificate.cert_type {
        RoundCertificateType::Skip => 0,
        RoundCertificateType::Precommit => 1,
    });
    writer.count("round votes", certificate.round_signatures.len(), CERTIFICATE_SIGNATURES_MAX)?;
    for signature in &certificate.round_signatures {
        writer.vote_kind(signature.vote_type);
        writer.optional_value(&signature.value_id);
        writer.address(&signature.address);
        writer.seal(&signature.signature)?;
    }
    Ok(())
}

impl Codec<Part> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<Part> {
        let mut reader = Reader(bytes);
        let part = match reader.byte()? {
            0 => Part::Start(BlockStart {
                height: reader.height()?,
                round: reader.round()?,
                valid_round: reader.round()?,
                proposer: reader.address()?.0,
                bytes: reader.u32()?,
            }),
            1 => Part::Data(reader.bytes("part", PART_BYTES)?),
            2 => Part::Message(reader.bytes("message", PART_BYTES)?),
            3 => Part::Wake(reader.height()?),
            tag => return Err(CodecError::Tag { field: "part", tag }),
        };
        reader.finish(part)
    }

    fn encode(&self, part: &Part) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(128);
        match part {
            Part::Start(start) => {
                writer.0.put_u8(0);
                writer.height(start.height);
                writer.round(start.round);
                writer.round(start.valid_round);
                writer.address(&Address(start.proposer));
                writer.0.put_u32(start.bytes);
            }
            Part::Data(bytes) => {
                writer.0.put_u8(1);
                writer.bytes(bytes)?;
            }
            Part::Message(bytes) => {
                writer.0.put_u8(2);
                writer.bytes(bytes)?;
            }
            Part::Wake(height) => {
                writer.0.put_u8(3);
                writer.height(*height);
            }
        }
        Ok(writer.finish())
    }
}

impl Codec<StreamMessage<Part>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<StreamMessage<Part>> {
        let mut reader = Reader(bytes);
        let stream = reader.take(STREAM_ID_BYTES)?;
        let sequence = reader.u64()?;
        let part = EngineCodec.decode(reader.0)?;
        Ok(StreamMessage::new(StreamId::new(stream), sequence, StreamContent::Data(part)))
    }

    fn encode(&self, message: &StreamMessage<Part>) -> Decoded<Bytes> {
        // The parts say themselves where a stream ends; the engine's own end marker is not used.
        let Some(part) = message.content.as_data() else {
            return Err(CodecError::Tag { field: "stream", tag: 0 });
        };
        let stream = message.stream_id.to_bytes();
        if stream.len() != STREAM_ID_BYTES {
            return Err(CodecError::TooLarge { field: "stream id", count: stream.len(), max: STREAM_ID_BYTES });
        }
        let encoded = EngineCodec.encode(part)?;
        let mut writer = Writer::with_capacity(STREAM_ID_BYTES + 8 + encoded.len());
        writer.0.put_slice(&stream);
        writer.0.put_u64(message.sequence);
        writer.0.put_slice(&encoded);
        Ok(writer.finish())
    }
}

impl Codec<ValidatorProof<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<ValidatorProof<Stele>> {
        let mut reader = Reader(bytes);
        let public_key = reader.bytes("public key", 33)?.to_vec();
        let peer_id = reader.bytes("peer id", PEER_ID_BYTES_MAX)?.to_vec();
        let seal = reader.seal()?;
        reader.finish(ValidatorProof::new(public_key, peer_id, seal))
    }

    fn encode(&self, proof: &ValidatorProof<Stele>) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(256);
        writer.bytes(&proof.public_key)?;
        writer.bytes(&proof.peer_id)?;
        writer.seal(&proof.signature)?;
        Ok(writer.finish())
    }
}

impl Codec<ProposedValue<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<ProposedValue<Stele>> {
        let mut reader = Reader(bytes);
        let value = ProposedValue {
            height: reader.height()?,
            round: reader.round()?,
            valid_round: reader.round()?,
            proposer: reader.address()?,
            value: reader.value()?,
            validity: Validity::from_bool(reader.byte()? == 1),
        };
        reader.finish(value)
    }

    fn encode(&self, value: &ProposedValue<Stele>) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(128);
        writer.height(value.height);
        writer.round(value.round);
        writer.round(value.valid_round);
        writer.address(&value.proposer);
        writer.value(&value.value);
        writer.0.put_u8(u8::from(value.validity.to_bool()));
        Ok(writer.finish())
    }
}

impl Codec<Status<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<Status<Stele>> {
        let mut reader = Reader(bytes);
        let peer = reader.bytes("peer id", PEER_ID_BYTES_MAX)?;
        let status = Status {
            peer_id: PeerId::from_bytes(&peer).map_err(|_| CodecError::PeerId)?,
            tip_height: reader.height()?,
            history_min_height: reader.height()?,
        };
        reader.finish(status)
    }

    fn encode(&self, status: &Status<Stele>) -> Decoded<Bytes> {
        let mut writer = Writer::with_capacity(64);
        writer.bytes(&status.peer_id.to_bytes())?;
        writer.height(status.tip_height);
        writer.height(status.history_min_height);
        Ok(writer.finish())
    }
}

impl Codec<Request<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<Request<Stele>> {
        let mut reader = Reader(bytes);
        let (from, until) = (reader.height()?, reader.height()?);
        reader.finish(Request::ValueRequest(ValueRequest::new(from..=until)))
    }

    fn encode(&self, request: &Request<Stele>) -> Decoded<Bytes> {
        let Request::ValueRequest(request) = request;
        let mut writer = Writer::with_capacity(16);
        writer.height(*request.range.start());
        writer.height(*request.range.end());
        Ok(writer.finish())
    }
}

impl Codec<Response<Stele>> for EngineCodec {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Decoded<Response<Stele>> {
        let mut reader = Reader(bytes);
        let start_height = reader.height()?;
        let count = reader.count("blocks", RESPONSE_BLOCKS_MAX)?;
        let values = (0..count)
            .map(|_| {
                let value_bytes = reader.bytes("block", usize::MAX)?;
                let (height, round, value_id) = (reader.height()?, reader.round()?, reader.value()?);
                let signatures = reader.count("precommits", CERTIFICATE_SIGNATURES_MAX)?;
                let commit_signatures = (0..signatures)
                    .map(|_| Ok(ExtendedCommitSignature::new(reader.address()?, reader.seal()?, None)))
                    .collect::<Decoded<_>>()?;
                let certificate = ExtendedCommitCertificate { height, round, value_id, commit_signatures };
                Ok(RawDecidedValue::new(value_bytes, certificate))
            })
            .collect::<Decoded<_>>()?;
        reader.finish(Response::ValueResponse(ValueResponse::new(start_height, values)))
    }

    fn encode(&self, response: &Response<Stele>) -> Decoded<Bytes> {
        let Response::ValueResponse(values) = response;
        let mut writer = Writer::with_capacity(self.encoded_len(response)?);
        writer.height(values.start_height);
        writer.count("blocks", values.values.len(), RESPONSE_BLOCKS_MAX)?;
        for value in &values.values {
            writer.bytes(&value.value_bytes)?;
            writer.height(value.certificate.height);
            writer.round(value.certificate.round);
            writer.value(&value.certificate.value_id);
            writer.count("precommits", value.certificate.commit_signatures.len(), CERTIFICATE_SIGNATURES_MAX)?;
            for signature in &value.certificate.commit_signatures {
                writer.address(&signature.address);
                writer.seal(&signature.signature)?;
            }
        }
        Ok(writer.finish())
    }
}

impl HasEncodedLen<Response<Stele>> for EngineCodec {
    /// An upper bound: every signature counted as a delegated one.
    fn encoded_len(&self, response: &Response<Stele>) -> Decoded<usize> {
        const FIXED: usize = 4 + 8 + 8 + 32 + 4;
        const SIGNATURE: usize = 32 + 1 + 32 + 64;
        let Response::ValueResponse(values) = response;
        Ok(12
            + values
                .values
                .iter()
                .map(|value| FIXED + value.value_bytes.len() + SIGNATURE * value.certificate.commit_signatures.len())
                .sum::<usize>())
    }
}

#[cfg(test)]
mod tests {
    use malachite_core_types::{NilOrVal, Round, VoteType};
    use proptest::prelude::*;
    use stele_types::{BlockId, Hash, ValidatorId, VoteKey, VoteSignature};

    use super::*;
    use crate::context::{EngineHeight, Value, Vote};

    fn signature(delegated: bool) -> Seal {
        let key = if delegated { VoteKey::Delegated(Hash([7; 32])) } else { VoteKey::Direct };
        Seal::Signed(VoteSignature { key, signature: [9; 64] })
    }

    fn address(byte: u8) -> Address {
        Address(ValidatorId([byte; 32]))
    }

    fn vote(round: u32, value: NilOrVal<Value>, delegated: bool) -> SignedMessage<Stele, Vote> {
        let vote = Vote {
            kind: VoteType::Precommit,
            height: EngineHeight(42),
            round: Round::new(round),
            value,
            address: address(3),
        };
        SignedMessage::new(vote, signature(delegated))
    }

    fn response() -> Response<Stele> {
        let certificate = ExtendedCommitCertificate {
            height: EngineHeight(5),
            round: Round::new(1),
            value_id: Value(BlockId([1; 32])),
            commit_signatures: vec![
                ExtendedCommitSignature::new(address(1), signature(true), None),
                ExtendedCommitSignature::new(address(2), signature(false), None),
            ],
        };
        let value = RawDecidedValue::new(Bytes::from_static(b"block"), certificate);
        Response::ValueResponse(ValueResponse::new(EngineHeight(5), vec![value]))
    }

    #[test]
    fn votes_and_responses_round_trip() {
        for (value, delegated) in [(NilOrVal::Nil, false), (NilOrVal::Val(Value(BlockId([8; 32]))), true)] {
            let message = SignedConsensusMsg::Vote(vote(3, value, delegated));
            let encoded = EngineCodec.encode(&message).unwrap();
            assert_eq!(Codec::<SignedConsensusMsg<Stele>>::decode(&EngineCodec, encoded).unwrap(), message);
        }
        let response = response();
        let encoded = EngineCodec.encode(&response).unwrap();
        assert!(encoded.len() <= EngineCodec.encoded_len(&response).unwrap());
        assert_eq!(Codec::<Response<Stele>>::decode(&EngineCodec, encoded).unwrap(), response);
    }

    #[test]
    fn a_withheld_signature_cannot_be_sent() {
        let mut message = vote(0, NilOrVal::Nil, false);
        message.signature = Seal::Withheld;
        let encoded = EngineCodec.encode(&SignedConsensusMsg::Vote(message));
        assert!(matches!(encoded, Err(CodecError::Withheld)));
    }

    #[test]
    fn parts_keep_their_bytes_and_their_bounds() {
        let message = StreamMessage::new(
            StreamId::new(Bytes::from_static(&[1; STREAM_ID_BYTES])),
            7,
            StreamContent::Data(Part::Data(Bytes::from_static(b"abc"))),
        );
        let encoded = EngineCodec.encode(&message).unwrap();
        assert_eq!(Codec::<StreamMessage<Part>>::decode(&EngineCodec, encoded).unwrap(), message);

        let oversized = EngineCodec.encode(&Part::Message(Bytes::from(vec![0; PART_BYTES + 1]))).unwrap();
        assert!(matches!(
            Codec::<Part>::decode(&EngineCodec, oversized),
            Err(CodecError::TooLarge { field: "message", .. })
        ));
    }

    proptest! {
        #[test]
        fn bytes_from_a_peer_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = Bytes::from(bytes);
            let _ = Codec::<SignedConsensusMsg<Stele>>::decode(&EngineCodec, bytes.clone());
            let _ = Codec::<LivenessMsg<Stele>>::decode(&EngineCodec, bytes.clone());
            let _ = Codec::<StreamMessage<Part>>::decode(&EngineCodec, bytes.clone());
            let _ = Codec::<Status<Stele>>::decode(&EngineCodec, bytes.clone());
            let _ = Codec::<ProposedValue<Stele>>::decode(&EngineCodec, bytes.clone());
            let _ = Codec::<ValidatorProof<Stele>>::decode(&EngineCodec, bytes.clone());
            let _ = Codec::<Response<Stele>>::decode(&EngineCodec, bytes);
        }

        #[test]
        fn a_truncated_message_is_refused(cut in 0usize..200) {
            let encoded = EngineCodec.encode(&response()).unwrap();
            let cut = cut.min(encoded.len() - 1);
            prop_assert!(Codec::<Response<Stele>>::decode(&EngineCodec, encoded.slice(..cut)).is_err());
        }
    }
}
