//! What may be signed: one structure per kind, each with its own domain.
//!
//! The caller names the fields and hands over the exact bytes to be signed; the signer parses those bytes and
//! refuses them unless they say the same. So the guard judges what is really signed, not what a caller claims,
//! and a signature made for one kind is never valid for another:
//!
//! | kind | bytes |
//! |---|---|
//! | proposal | `["stele/proposal/v1", network, 1, height, round, block, valid round or null, key or null]` |
//! | vote | `["stele/vote/v1", network, 2 or 3, height, round, block or null, null, key or null]` |
//! | checkpoint | `["Signature1", protected, h'', root]`, RFC 9052 section 4.4; log size in a claim of `protected` |
//! | epoch certificate | `["stele/epoch/v1", network, validator, key, from, until, policy]` |
//! | custody receipt | `["stele/custody-receipt/v1", network, hash, body root, length, height, time]` |
//! | peer binding | `"PoV" ‖ u32 length ‖ public key ‖ u32 length ‖ peer id`, as the consensus engine wants it |
//!
//! All but the last are deterministic CBOR arrays. What an attestation key signs is made by the TPM itself and begins with
//! `ff TCG`, which none of them does; only its qualifying data is asked for, and that is a hash with a domain of its own
//! (`stele/quote/v1`, `stele/key/v1`).

use std::fmt;

use crate::{cbor::Reader, error::SignerError};

/// Longest bytes to be signed: the largest, checkpoints and epoch certificates, have about 300; the room is
/// for post-quantum epoch keys.
pub const SIGNING_BYTES_MAX: usize = 4096;

/// Longest peer id in bytes; those of libp2p have 38 or 34.
pub const PEER_ID_LENGTH_MAX: usize = 64;

/// Label of the CWT claims in a protected header, RFC 9597.
const LABEL_CWT_CLAIMS: i64 = 15;

/// Private claim of a checkpoint: number of leaves of the log.
const CLAIM_LOG_SIZE: i64 = -70_002;

/// A step of a consensus round, in the order in which a validator takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The proposer's message.
    Propose,
    /// First vote.
    Prevote,
    /// Second vote.
    Precommit,
}

impl Step {
    /// Stable lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
        }
    }

    /// The number in signing bytes and guard records.
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Propose => 1,
            Self::Prevote => 2,
            Self::Precommit => 3,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Propose),
            2 => Some(Self::Prevote),
            3 => Some(Self::Precommit),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One consensus message of this validator.
#[derive(Clone, Copy, Debug)]
pub struct VoteRequest<'a> {
    /// The validator that votes; must be the one the guard belongs to.
    pub validator: [u8; 32],
    /// Height of the block that is voted on.
    pub height: u64,
    /// Round within the height, from 0.
    pub round: u32,
    /// Step within the round.
    pub step: Step,
    /// The block's id, or `None` for a vote for nil.
    pub value_id: Option<[u8; 32]>,
    /// The exact bytes to be signed.
    pub bytes: &'a [u8],
}

/// One signed tree head.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointRequest<'a> {
    /// Number of leaves of the log.
    pub tree_size: u64,
    /// Root over those leaves.
    pub root: [u8; 32],
    /// The exact bytes to be signed: the COSE `Sig_structure`.
    pub sig_structure: &'a [u8],
}

/// A certificate that lets an epoch key vote for a validator.
#[derive(Clone, Copy, Debug)]
pub struct EpochCertificateRequest<'a> {
    /// The validator that certifies.
    pub validator: [u8; 32],
    /// The epoch key, as its algorithm encodes it.
    pub epoch_key: &'a [u8],
    /// First height at which the epoch key may vote.
    pub height_first: u64,
    /// Last height at which the epoch key may vote.
    pub height_last: u64,
    /// The exact bytes to be signed.
    pub bytes: &'a [u8],
}

/// The statement that this node holds a copy of a sealed body.
#[derive(Clone, Copy, Debug)]
pub struct CustodyReceiptRequest<'a> {
    /// Content root of the sealed body.
    pub root: [u8; 32],
    /// Bytes of it.
    pub length: u64,
    /// The exact bytes to be signed.
    pub bytes: &'a [u8],
}

/// The statement that a network peer id speaks for this signer's key.
#[derive(Clone, Copy, Debug)]
pub struct PeerBindingRequest<'a> {
    /// The signer's own public key, SEC 1 compressed.
    pub public_key: &'a [u8],
    /// The peer id, as the transport encodes it.
    pub peer_id: &'a [u8],
}

impl VoteRequest<'_> {
    /// Checks that the bytes say what the fields say.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        require_length(self.bytes)?;
        let signed =
            SignedVote::read(self.bytes).ok_or(SignerError::MalformedRequest { reason: "the bytes are not a vote" })?;
        let named = SignedVote { step: self.step, height: self.height, round: self.round, value_id: self.value_id };
        if signed != named {
            return Err(SignerError::MalformedRequest { reason: "the bytes are another vote" });
        }
        Ok(())
    }
}

impl VoteRequest<'_> {
    /// The bytes without the name of the key at their end: what is voted, whichever key of the validator says it.
    /// All of them if they are not a vote.
    pub(crate) fn ballot(&self) -> &[u8] {
        let mut reader = Reader::new(self.bytes);
        if reader.array() != Some(8) || (0..7).any(|_| reader.optional(Reader::skip).is_none()) {
            return self.bytes;
        }
        &self.bytes[..self.bytes.len() - reader.left()]
    }
}

/// The fields of a vote's bytes that the guard judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SignedVote {
    step: Step,
    height: u64,
    round: u32,
    value_id: Option<[u8; 32]>,
}

impl SignedVote {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != 8 {
            return None;
        }
        let domain = reader.text()?;
        let _network = reader.hash()?;
        let step = Step::from_byte(u8::try_from(reader.unsigned()?).ok()?)?;
        let height = reader.unsigned()?;
        let round = u32::try_from(reader.unsigned()?).ok()?;
        let value_id = reader.optional(Reader::hash)?;
        let valid_round = reader.optional(Reader::unsigned)?;
        let _key = reader.optional(Reader::hash)?;
        let well_formed = match step {
            Step::Propose => domain == b"stele/proposal/v1" && value_id.is_some(),
            Step::Prevote | Step::Precommit => domain == b"stele/vote/v1" && valid_round.is_none(),
        };
        (well_formed && reader.is_at_end()).then_some(Self { step, height, round, value_id })
    }
}

impl CheckpointRequest<'_> {
    /// Checks that the bytes are a `Sig_structure` over exactly this root and size.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        require_length(self.sig_structure)?;
        let (log_size, root) = read_checkpoint(self.sig_structure)
            .ok_or(SignerError::MalformedRequest { reason: "the bytes are not a checkpoint" })?;
        if (log_size, root) != (self.tree_size, self.root) {
            return Err(SignerError::MalformedRequest { reason: "the bytes are another checkpoint" });
        }
        Ok(())
    }
}

/// Log size and root of a checkpoint's `Sig_structure`.
fn read_checkpoint(bytes: &[u8]) -> Option<(u64, [u8; 32])> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != 4 || reader.text()? != b"Signature1" {
        return None;
    }
    let protected = reader.bytes()?;
    let external = reader.bytes()?;
    let root = reader.hash()?;
    if !external.is_empty() || !reader.is_at_end() {
        return None;
    }
    Some((read_log_size(protected)?, root))
}

/// The log size among the claims of a protected header. A label that appears twice is refused, so that no
/// reader can see another size than this one.
fn read_log_size(protected: &[u8]) -> Option<u64> {
    let mut header = Reader::new(protected);
    let mut claims = None;
    for _ in 0..header.map()? {
        let label = header.integer()?;
        let value = header;
        header.skip()?;
        if label == LABEL_CWT_CLAIMS && claims.replace(value).is_some() {
            return None;
        }
    }
    let mut claims = claims?;
    let mut log_size = None;
    for _ in 0..claims.map()? {
        let label = claims.integer()?;
        let mut value = claims;
        claims.skip()?;
        if label == CLAIM_LOG_SIZE && log_size.replace(value.unsigned()?).is_some() {
            return None;
        }
    }
    if header.is_at_end() { log_size } else { None }
}

impl EpochCertificateRequest<'_> {
    /// Checks that the bytes say what the fields say.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        require_length(self.bytes)?;
        if self.height_first > self.height_last {
            return Err(SignerError::MalformedRequest { reason: "the height range is empty" });
        }
        let signed = read_epoch_certificate(self.bytes)
            .ok_or(SignerError::MalformedRequest { reason: "the bytes are not an epoch certificate" })?;
        if signed != (self.validator, self.epoch_key, self.height_first, self.height_last) {
            let reason = "the bytes are another epoch certificate";
            return Err(SignerError::MalformedRequest { reason });
        }
        Ok(())
    }
}

/// Validator, key, first and last height of an epoch certificate.
fn read_epoch_certificate(bytes: &[u8]) -> Option<([u8; 32], &[u8], u64, u64)> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != 7 || reader.text()? != b"stele/epoch/v1" {
        return None;
    }
    let _network = reader.hash()?;
    let validator = reader.hash()?;
    let key = reader.bytes()?;
    let (first, last) = (reader.unsigned()?, reader.unsigned()?);
    let _policy = reader.hash()?;
    reader.is_at_end().then_some((validator, key, first, last))
}

impl CustodyReceiptRequest<'_> {
    /// Checks that the bytes say what the fields say.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        require_length(self.bytes)?;
        let signed = read_custody_receipt(self.bytes)
            .ok_or(SignerError::MalformedRequest { reason: "the bytes are not a custody receipt" })?;
        if signed != (self.root, self.length) {
            return Err(SignerError::MalformedRequest { reason: "the bytes are another custody receipt" });
        }
        Ok(())
    }
}

/// Body root and length of a custody receipt.
fn read_custody_receipt(bytes: &[u8]) -> Option<([u8; 32], u64)> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != 7 || reader.text()? != b"stele/custody-receipt/v1" {
        return None;
    }
    let _network = reader.hash()?;
    let _hash = reader.unsigned()?;
    let (root, length) = (reader.hash()?, reader.unsigned()?);
    let (_height, _time) = (reader.unsigned()?, reader.unsigned()?);
    reader.is_at_end().then_some((root, length))
}

impl PeerBindingRequest<'_> {
    /// The bytes to be signed. They begin with `P`, which no CBOR array does.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`] when key or peer id are empty or too long.
    pub fn signing_bytes(&self) -> Result<Vec<u8>, SignerError> {
        let mut bytes = b"PoV".to_vec();
        for field in [self.public_key, self.peer_id] {
            let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
            if field.is_empty() || field.len() > PEER_ID_LENGTH_MAX {
                let reason = "public key or peer id is empty or too long";
                return Err(SignerError::MalformedRequest { reason });
            }
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(field);
        }
        Ok(bytes)
    }
}

fn require_length(bytes: &[u8]) -> Result<(), SignerError> {
    if bytes.len() > SIGNING_BYTES_MAX {
        return Err(SignerError::MalformedRequest { reason: "the bytes are too long" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(major: u8, argument: u64) -> Vec<u8> {
        let major = major << 5;
        match argument {
            0..24 => vec![major | u8::try_from(argument).expect("small")],
            24..256 => vec![major | 24, u8::try_from(argument).expect("small")],
            256..65536 => [&[major | 25][..], &u16::try_from(argument).expect("small").to_be_bytes()].concat(),
            65536..0x1_0000_0000 => {
                [&[major | 26][..], &u32::try_from(argument).expect("small").to_be_bytes()].concat()
            }
            _ => [&[major | 27][..], &argument.to_be_bytes()].concat(),
        }
    }

    fn text(value: &str) -> Vec<u8> {
        [head(3, value.len() as u64), value.into()].concat()
    }

    fn bytes(value: &[u8]) -> Vec<u8> {
        [head(2, value.len() as u64), value.into()].concat()
    }

    fn optional(value: Option<Vec<u8>>) -> Vec<u8> {
        value.unwrap_or(vec![0xf6])
    }

    fn vote_bytes(
        domain: &str,
        kind: u64,
        height: u64,
        round: u64,
        value: Option<[u8; 32]>,
        valid_round: Option<u64>,
    ) -> Vec<u8> {
        [
            head(4, 8),
            text(domain),
            bytes(&[7; 32]),
            head(0, kind),
            head(0, height),
            head(0, round),
            optional(value.map(|value| bytes(&value))),
            optional(valid_round.map(|round| head(0, round))),
            optional(Some(bytes(&[3; 32]))),
        ]
        .concat()
    }

    fn vote(step: Step, value_id: Option<[u8; 32]>, bytes: &[u8]) -> Result<(), SignerError> {
        VoteRequest { validator: [1; 32], height: 300, round: 2, step, value_id, bytes }.validate()
    }

    #[test]
    fn a_vote_must_say_what_its_fields_say() {
        let value = Some([9; 32]);
        let whole = vote_bytes("stele/vote/v1", 2, 300, 2, value, None);
        vote(Step::Prevote, value, &whole).expect("vote");
        vote(Step::Precommit, None, &vote_bytes("stele/vote/v1", 3, 300, 2, None, None)).expect("nil");
        vote(Step::Propose, value, &vote_bytes("stele/proposal/v1", 1, 300, 2, value, Some(1))).expect("proposal");
        for (step, value_id, bytes) in [
            (Step::Precommit, value, whole.clone()),
            (Step::Prevote, Some([8; 32]), whole.clone()),
            (Step::Prevote, None, whole.clone()),
            (Step::Prevote, value, vote_bytes("stele/vote/v1", 2, 301, 2, value, None)),
            (Step::Prevote, value, vote_bytes("stele/vote/v1", 2, 300, 3, value, None)),
            (Step::Prevote, value, vote_bytes("stele/vote/v1", 2, 300, 2, value, Some(1))),
            (Step::Prevote, value, vote_bytes("stele/vote/v2", 2, 300, 2, value, None)),
            (Step::Prevote, value, vote_bytes("stele/proposal/v1", 2, 300, 2, value, None)),
            (Step::Propose, value, vote_bytes("stele/vote/v1", 1, 300, 2, value, None)),
            (Step::Propose, None, vote_bytes("stele/proposal/v1", 1, 300, 2, None, None)),
            (Step::Prevote, value, [whole.clone(), vec![0]].concat()),
            (Step::Prevote, value, vec![0; SIGNING_BYTES_MAX + 1]),
        ] {
            let error = vote(step, value_id, &bytes).expect_err("refused");
            assert_eq!(error.code(), "malformed_request");
        }
        for end in 0..whole.len() {
            vote(Step::Prevote, value, &whole[..end]).expect_err("cut");
        }
    }

    #[test]
    fn a_ballot_is_the_same_under_every_key_and_no_other_vote_is() {
        let request = |bytes: &[u8]| {
            let step = Step::Prevote;
            VoteRequest { validator: [1; 32], height: 300, round: 2, step, value_id: None, bytes }.ballot().to_vec()
        };
        let delegated = vote_bytes("stele/vote/v1", 2, 300, 2, Some([9; 32]), None);
        let mut direct = delegated[..delegated.len() - 34].to_vec();
        let ballot = direct.clone();
        direct.push(0xf6);
        assert_eq!(request(&delegated), ballot);
        assert_eq!(request(&direct), ballot);
        assert_ne!(request(&vote_bytes("stele/vote/v1", 2, 300, 3, Some([9; 32]), None)), ballot);
        assert_eq!(request(b"no vote"), b"no vote");
    }

    fn protected(size: u64) -> Vec<u8> {
        let claims = [head(5, 2), head(0, 1), text("issuer"), head(1, 70_001), head(0, size)];
        [head(5, 3), head(0, 1), head(1, 6), head(0, 4), bytes(&[5; 16]), head(0, 15), claims.concat()].concat()
    }

    fn sig_structure(protected: &[u8], root: &[u8]) -> Vec<u8> {
        [head(4, 4), text("Signature1"), bytes(protected), bytes(b""), bytes(root)].concat()
    }

    fn checkpoint(tree_size: u64, root: [u8; 32], bytes: &[u8]) -> Result<(), SignerError> {
        CheckpointRequest { tree_size, root, sig_structure: bytes }.validate()
    }

    #[test]
    fn a_checkpoint_must_say_its_size_and_root() {
        let root = [7; 32];
        for size in [0, 23, 1 << 20, u64::MAX] {
            checkpoint(size, root, &sig_structure(&protected(size), &root)).expect("checkpoint");
        }
        let whole = sig_structure(&protected(1000), &root);
        checkpoint(1000, root, &whole).expect("whole");
        checkpoint(1001, root, &whole).expect_err("other size");
        checkpoint(1000, [8; 32], &whole).expect_err("other root");
        for end in 0..whole.len() {
            checkpoint(1000, root, &whole[..end]).expect_err("cut");
        }
        checkpoint(1000, root, &[&whole[..], &[0]].concat()).expect_err("trailing byte");
        checkpoint(1000, root, &sig_structure(&[0xa0], &root)).expect_err("no size");
        checkpoint(1000, root, &sig_structure(&protected(1000), b"text")).expect_err("no root");
    }

    #[test]
    fn a_header_with_two_sizes_is_refused() {
        let claims = [head(1, 70_001), head(0, 5)].concat();
        let twice = [head(5, 1), head(0, 15), head(5, 2), claims.clone(), claims.clone()].concat();
        checkpoint(5, [7; 32], &sig_structure(&twice, &[7; 32])).expect_err("claim twice");
        let map = [head(0, 15), head(5, 1), claims].concat();
        checkpoint(5, [7; 32], &sig_structure(&[head(5, 1), map.clone()].concat(), &[7; 32])).expect("once");
        let twice = [head(5, 2), map.clone(), map].concat();
        checkpoint(5, [7; 32], &sig_structure(&twice, &[7; 32])).expect_err("claims twice");
    }

    #[test]
    fn an_epoch_certificate_must_say_what_its_fields_say() {
        let certificate = |domain: &str, first: u64| {
            let fields = [bytes(&[1; 32]), bytes(&[2; 32]), bytes(&[4; 33]), head(0, first), head(0, 900)];
            [head(4, 7), text(domain), fields.concat(), bytes(&[0; 32])].concat()
        };
        let request = |validator, epoch_key: &[u8], height_first, height_last, bytes: &[u8]| {
            EpochCertificateRequest { validator, epoch_key, height_first, height_last, bytes }.validate()
        };
        let whole = certificate("stele/epoch/v1", 100);
        request([2; 32], &[4; 33], 100, 900, &whole).expect("certificate");
        request([3; 32], &[4; 33], 100, 900, &whole).expect_err("other validator");
        request([2; 32], &[5; 33], 100, 900, &whole).expect_err("other key");
        request([2; 32], &[4; 33], 99, 900, &whole).expect_err("other range");
        request([2; 32], &[4; 33], 901, 900, &certificate("stele/epoch/v1", 901)).expect_err("empty range");
        request([2; 32], &[4; 33], 100, 900, &certificate("stele/vote/v1", 100)).expect_err("other domain");
        for end in 0..whole.len() {
            request([2; 32], &[4; 33], 100, 900, &whole[..end]).expect_err("cut");
        }
    }

    #[test]
    fn a_peer_binding_is_bounded_and_no_array() {
        let bytes = PeerBindingRequest { public_key: &[2; 33], peer_id: b"peer" }.signing_bytes();
        let bytes = bytes.expect("binding");
        assert_eq!(bytes, [&b"PoV\0\0\0\x21"[..], &[2; 33], b"\0\0\0\x04peer"].concat());
        assert_ne!(bytes[0] >> 5, 4);
        let long = [0; PEER_ID_LENGTH_MAX + 1];
        PeerBindingRequest { public_key: &[2; 33], peer_id: &long }.signing_bytes().expect_err("long");
        PeerBindingRequest { public_key: &[], peer_id: b"peer" }.signing_bytes().expect_err("empty");
    }
}
