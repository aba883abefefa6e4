//! What goes over the socket of `stele-signer`.
//!
//! A frame is a length (4 bytes, big-endian) and that many bytes of CBOR: an array of the request's number, which the asker
//! chooses and the answer repeats, and a [`Request`] or an [`Answer`]. Answers come in any order. Whoever sends a frame that
//! is too long or cannot be read is cut off.

use std::{fmt, io};

use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::Zeroizing;

use crate::{
    attested::{Certification, Quote},
    custody::{ClassKeyName, SEALED_KEY_LENGTH, SealedClassKey},
    error::SignerError,
    guard::VotePosition,
    kind::SignerKind,
    request::{
        CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PEER_ID_LENGTH_MAX, PeerBindingRequest,
        Step, VoteRequest,
    },
    signer::Signature,
};

/// Version of this protocol; both sides must have the same.
pub const VERSION: u64 = 1;

/// Longest frame of a request in bytes.
pub const REQUEST_LENGTH_MAX: usize = 16 << 10;

/// Longest frame of an answer in bytes: the log of the kernel is the longest.
pub const ANSWER_LENGTH_MAX: usize = 32 << 20;

/// A P-256 point, SEC 1 compressed: by it a request names its key.
pub type KeyBytes = [u8; 33];

/// What a key of the signer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Long-term key of a validator.
    #[n(0)]
    Validator,
    /// Votes in its place over a range of heights.
    #[n(1)]
    Epoch,
    /// Signs checkpoints.
    #[n(2)]
    Seal,
    /// Opens class keys.
    #[n(3)]
    Custody,
}

impl Role {
    /// Stable lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Epoch => "epoch",
            Self::Seal => "seal",
            Self::Custody => "custody",
        }
    }
}

/// A key of the signer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyDescription {
    /// What it is for.
    #[n(0)]
    pub role: Role,
    /// The backend's name ([`SignerKind::name`]).
    #[n(1)]
    pub provider: String,
    /// Its public half.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub public_key: KeyBytes,
}

impl KeyDescription {
    /// The backend.
    ///
    /// # Errors
    /// [`SignerError::BackendUnknown`].
    pub fn kind(&self) -> Result<SignerKind, SignerError> {
        self.provider.parse()
    }
}

/// A signer, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Description {
    /// [`VERSION`] of the signer.
    #[n(0)]
    pub version: u64,
    /// Its keys.
    #[n(1)]
    pub keys: Vec<KeyDescription>,
    /// Whether it has a TPM, and can attest.
    #[n(2)]
    pub attests: bool,
    /// How often it was started with this TPM; none without one.
    #[n(3)]
    pub epoch: Option<u64>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "the fields are those of the requests in crate::request")]
pub enum Request<'b> {
    /// Which keys are there?
    #[n(0)]
    Describe,
    /// [`VoteRequest`].
    #[n(1)]
    Vote {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[cbor(n(1), with = "minicbor::bytes")]
        validator: [u8; 32],
        #[n(2)]
        position: Position,
        #[cbor(n(3), with = "minicbor::bytes")]
        value_id: Option<[u8; 32]>,
        #[cbor(b(4), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// [`CheckpointRequest`].
    #[n(2)]
    Checkpoint {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[n(1)]
        tree_size: u64,
        #[cbor(n(2), with = "minicbor::bytes")]
        root: [u8; 32],
        #[cbor(b(3), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// [`EpochCertificateRequest`].
    #[n(3)]
    EpochCertificate {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[cbor(n(1), with = "minicbor::bytes")]
        validator: [u8; 32],
        #[cbor(b(2), with = "minicbor::bytes")]
        epoch_key: &'b [u8],
        #[n(3)]
        height_first: u64,
        #[n(4)]
        height_last: u64,
        #[cbor(b(5), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// [`CustodyReceiptRequest`].
    #[n(4)]
    CustodyReceipt {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[cbor(n(1), with = "minicbor::bytes")]
        root: [u8; 32],
        #[n(2)]
        length: u64,
        #[cbor(b(3), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// [`PeerBindingRequest`].
    #[n(5)]
    PeerBinding {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[cbor(b(1), with = "minicbor::bytes")]
        peer_id: &'b [u8],
    },
    /// The last vote that was signed.
    #[n(6)]
    LastVote {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
    },
    /// Sign nothing at this height or below it any more.
    #[n(7)]
    Abstain {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[n(1)]
        height: u64,
    },
    /// Make one more epoch key.
    #[n(8)]
    MakeEpochKey,
    /// Destroy an epoch key. Whether another covers its heights is the asker's to know.
    #[n(13)]
    RetireEpochKey {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
    },
    /// Who is the TPM, and which keys does it answer for?
    #[n(9)]
    Identity,
    /// Open a credential.
    #[n(10)]
    Activate {
        #[cbor(b(0), with = "minicbor::bytes")]
        id_object: &'b [u8],
        #[cbor(b(1), with = "minicbor::bytes")]
        encrypted_seed: &'b [u8],
    },
    /// Quote the PCRs for a verifier's nonce and the ledger's head.
    #[n(11)]
    Quote {
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
        #[n(1)]
        tree_size: u64,
        #[cbor(n(2), with = "minicbor::bytes")]
        root: [u8; 32],
        #[cbor(b(3), with = "minicbor::bytes")]
        bytes: &'b [u8],
        #[cbor(b(4), with = "minicbor::bytes")]
        pcrs: &'b [u8],
    },
    /// A log of what was measured, as the kernel gives it.
    #[n(12)]
    Log {
        #[n(0)]
        log: Log,
    },
    /// Open a class key of a network that was sealed for the custody key under its name.
    #[n(14)]
    OpenClassKey {
        #[cbor(n(0), with = "minicbor::bytes")]
        key: KeyBytes,
        #[cbor(n(1), with = "minicbor::bytes")]
        network: [u8; 32],
        #[n(2)]
        class: u16,
        #[cbor(n(3), with = "minicbor::bytes")]
        id: [u8; 16],
        #[cbor(n(4), with = "minicbor::bytes")]
        sealed: [u8; SEALED_KEY_LENGTH],
    },
}

/// A log of what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Log {
    /// By the firmware and the boot loader, TCG PC Client Platform Firmware Profile section 10.
    #[n(0)]
    Boot,
    /// By the kernel's Integrity Measurement Architecture.
    #[n(1)]
    Ima,
    /// What the release predicts; not measured, but what the measurements are held against.
    #[n(2)]
    Manifest,
}

/// Where a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Position {
    /// Height of the block.
    #[n(0)]
    pub height: u64,
    /// Round within the height.
    #[n(1)]
    pub round: u32,
    /// 1 proposal, 2 prevote, 3 precommit.
    #[n(2)]
    pub step: u8,
}

impl From<VotePosition> for Position {
    fn from(position: VotePosition) -> Self {
        Self { height: position.height, round: position.round, step: position.step.to_byte() }
    }
}

impl TryFrom<Position> for VotePosition {
    type Error = SignerError;

    fn try_from(position: Position) -> Result<Self, SignerError> {
        let unknown = SignerError::MalformedRequest { reason: "the step of the vote is unknown" };
        let step = Step::from_byte(position.step).ok_or(unknown)?;
        Ok(Self { height: position.height, round: position.round, step })
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "the fields are those of the answers that they become")]
pub enum Answer {
    /// To [`Request::Describe`].
    #[n(0)]
    Description {
        #[n(0)]
        description: Description,
    },
    /// To whatever asks for one.
    #[n(1)]
    Signature {
        #[cbor(n(0), with = "minicbor::bytes")]
        signature: Signature,
    },
    /// To [`Request::LastVote`].
    #[n(2)]
    LastVote {
        #[n(0)]
        position: Option<Position>,
    },
    /// To [`Request::Abstain`] and [`Request::RetireEpochKey`].
    #[n(3)]
    Done,
    /// To [`Request::MakeEpochKey`].
    #[n(4)]
    Key {
        #[n(0)]
        key: KeyDescription,
    },
    /// To [`Request::Identity`].
    #[n(5)]
    Identity {
        #[n(0)]
        identity: Box<Identity>,
    },
    /// To [`Request::Activate`] and [`Request::OpenClassKey`].
    #[n(6)]
    Secret {
        #[n(0)]
        secret: Secret,
    },
    /// To [`Request::Quote`].
    #[n(7)]
    Quote {
        #[n(0)]
        quote: Quote,
    },
    /// To [`Request::Log`]; none if the machine has no such log.
    #[n(8)]
    Log {
        #[cbor(n(0), with = "minicbor::bytes")]
        bytes: Option<Vec<u8>>,
    },
    /// It was refused, or failed.
    #[n(9)]
    Refused {
        #[n(0)]
        refusal: Refusal,
    },
}

/// A secret that is wiped when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl<C> Encode<C> for Secret {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Secret {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(Zeroizing::new(decoder.bytes()?.to_vec())))
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// Stable code ([`SignerError::code`]).
    #[n(0)]
    pub code: String,
    /// For people; never a secret.
    #[n(1)]
    pub message: String,
    /// Whether the same request may succeed later ([`SignerError::is_retryable`]).
    #[n(2)]
    pub retryable: bool,
    /// Whether a guard said no ([`SignerError::is_guard_refusal`]).
    #[n(3)]
    pub guard: bool,
}

impl From<&SignerError> for Refusal {
    fn from(error: &SignerError) -> Self {
        let (retryable, guard) = (error.is_retryable(), error.is_guard_refusal());
        Self { code: error.code().into(), message: error.to_string(), retryable, guard }
    }
}

impl From<Refusal> for SignerError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, retryable, guard } = refusal;
        let code = Self::known_code(&code);
        Self::Remote { code, message, retryable, guard }
    }
}

/// By what a node's TPM and keys are known.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// `TPM2B_PUBLIC` of the endorsement key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub endorsement_key: Vec<u8>,
    /// The maker's certificate of the endorsement key, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub endorsement_certificate: Option<Vec<u8>>,
    /// `TPM2B_PUBLIC` of the attestation key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub attestation_key: Vec<u8>,
    /// Long-term keys of the node, with what the TPM says of them.
    #[n(3)]
    pub keys: Vec<KeyEvidence>,
}

/// What a TPM says of a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyEvidence {
    /// The key.
    #[n(0)]
    pub key: KeyDescription,
    /// `SubjectPublicKeyInfo` in DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub spki: Vec<u8>,
    /// For a key of the TPM itself.
    #[n(2)]
    pub certification: Option<Certification>,
    /// For a key outside it: a quote that is qualified by the key.
    #[n(3)]
    pub quote: Option<Quote>,
}

impl<'b> Request<'b> {
    /// A vote with a key.
    #[must_use]
    pub fn vote(key: KeyBytes, request: &VoteRequest<'b>) -> Self {
        let position = Position { height: request.height, round: request.round, step: request.step.to_byte() };
        let VoteRequest { validator, value_id, bytes, .. } = *request;
        Self::Vote { key, validator, position, value_id, bytes }
    }

    /// A checkpoint with a key.
    #[must_use]
    pub const fn checkpoint(key: KeyBytes, request: &CheckpointRequest<'b>) -> Self {
        let CheckpointRequest { tree_size, root, sig_structure: bytes } = *request;
        Self::Checkpoint { key, tree_size, root, bytes }
    }

    /// An epoch certificate with a key.
    #[must_use]
    pub const fn epoch_certificate(key: KeyBytes, request: &EpochCertificateRequest<'b>) -> Self {
        let EpochCertificateRequest { validator, epoch_key, height_first, height_last, bytes } = *request;
        Self::EpochCertificate { key, validator, epoch_key, height_first, height_last, bytes }
    }

    /// A custody receipt with a key.
    #[must_use]
    pub const fn custody_receipt(key: KeyBytes, request: &CustodyReceiptRequest<'b>) -> Self {
        let CustodyReceiptRequest { root, length, bytes } = *request;
        Self::CustodyReceipt { key, root, length, bytes }
    }

    /// A class key that a custody key opens.
    #[must_use]
    pub const fn open_class_key(key: KeyBytes, class_key: &SealedClassKey) -> Self {
        let ClassKeyName { network, class, id } = class_key.name;
        Self::OpenClassKey { key, network, class, id, sealed: class_key.sealed }
    }

    /// A peer binding with a key.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`] for another key, and for a peer id that is too long for a frame.
    pub fn peer_binding(key: KeyBytes, request: &PeerBindingRequest<'b>) -> Result<Self, SignerError> {
        if request.public_key != key {
            return Err(SignerError::MalformedRequest { reason: "the public key is not this signer's" });
        }
        if request.peer_id.len() > PEER_ID_LENGTH_MAX {
            return Err(SignerError::MalformedRequest { reason: "public key or peer id is empty or too long" });
        }
        Ok(Self::PeerBinding { key, peer_id: request.peer_id })
    }
}

/// A frame: its length, then number and body in CBOR.
///
/// # Errors
/// [`SignerError::MalformedRequest`] if the body is longer than `length_max`.
pub fn frame<T: Encode<()>>(number: u64, body: &T, length_max: usize) -> Result<Vec<u8>, SignerError> {
    let too_long = SignerError::MalformedRequest { reason: "the bytes are too long" };
    /// Room for every frame with a secret, so that growing never leaves a copy of one behind.
    const ROOM: usize = 512;
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.resize(4, 0);
    // Writing into memory cannot fail.
    if minicbor::encode((number, body), &mut bytes).is_err() {
        return Err(too_long);
    }
    let length = bytes.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= length_max => {
            bytes[..4].copy_from_slice(&prefix.to_be_bytes());
            Ok(bytes)
        }
        _ => Err(too_long),
    }
}

/// Number and body of a frame.
///
/// # Errors
/// `InvalidData` for bytes that are no such frame.
pub fn parse<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> io::Result<(u64, T)> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let parsed = decoder.decode().map_err(|_| io::ErrorKind::InvalidData)?;
    if decoder.position() == bytes.len() { Ok(parsed) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads the bytes of the next frame; none at the end of the stream. They are taken in as they come, so a length that lies
/// costs little, and wiped when they are dropped: they may hold a secret.
///
/// # Errors
/// `InvalidData` for a frame that is longer than `length_max`, and errors of the stream.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), length_max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    /// Room for every frame but logs, so that one with a secret never grows and leaves a copy behind.
    const ROOM: usize = 4096;
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(prefix);
    if usize::try_from(length).is_ok_and(|length| length <= length_max) {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
        stream.take(length.into()).read_to_end(&mut bytes).await?;
        if bytes.len() == usize::try_from(length).unwrap_or(usize::MAX) {
            return Ok(Some(bytes));
        }
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_and_answers_are_read_back() {
        let vote = Request::Vote {
            key: [2; 33],
            validator: [1; 32],
            position: Position { height: 5, round: 0, step: 2 },
            value_id: None,
            bytes: b"vote",
        };
        let name = ClassKeyName { network: [1; 32], class: 300, id: [2; 16] };
        let open = Request::open_class_key([2; 33], &SealedClassKey { name, sealed: [3; SEALED_KEY_LENGTH] });
        let requests =
            [Request::Describe, vote, open, Request::Log { log: Log::Ima }, Request::LastVote { key: [3; 33] }];
        for request in requests {
            let framed = frame(7, &request, REQUEST_LENGTH_MAX).expect("short");
            assert_eq!(parse::<Request<'_>>(&framed[4..]).expect("own frame"), (7, request));
        }
        for answer in [Answer::Done, Answer::LastVote { position: None }, Answer::Log { bytes: Some(vec![1; 300]) }] {
            let framed = frame(9, &answer, ANSWER_LENGTH_MAX).expect("short");
            assert_eq!(parse::<Answer>(&framed[4..]).expect("own frame"), (9, answer));
        }
        let long = Request::Activate { id_object: &[0; REQUEST_LENGTH_MAX], encrypted_seed: &[] };
        assert_eq!(frame(1, &long, REQUEST_LENGTH_MAX).expect_err("too long").code(), "malformed_request");
    }

    #[test]
    fn refusals_keep_what_callers_decide_by() {
        for error in [
            SignerError::DoubleSign { height: 1, round: 0, step: Step::Prevote },
            SignerError::TpmLost,
            SignerError::MalformedRequest { reason: "the bytes are not a vote" },
        ] {
            let told: SignerError = Refusal::from(&error).into();
            assert_eq!((told.code(), told.to_string()), (error.code(), error.to_string()));
            assert_eq!(told.is_retryable(), error.is_retryable());
            assert_eq!(told.is_guard_refusal(), error.is_guard_refusal());
            assert_eq!(told.is_double_sign(), error.is_double_sign());
        }
        let unknown =
            Refusal { code: "of_a_later_version".into(), message: "no".into(), retryable: false, guard: false };
        assert_eq!(SignerError::from(unknown).code(), "signer_refused");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse::<Request<'_>>(&bytes));
            drop(parse::<Answer>(&bytes));
        }

        #[test]
        fn a_request_that_was_changed_is_another_or_none(at in 0_usize..70, bit in 0_u8..8) {
            let request = Request::Checkpoint { key: [2; 33], tree_size: 9, root: [1; 32], bytes: b"bytes" };
            let mut framed = frame(7, &request, REQUEST_LENGTH_MAX).expect("short");
            let length = framed.len() - 4;
            framed[4 + at % length] ^= 1 << bit;
            if let Ok(parsed) = parse::<Request<'_>>(&framed[4..]) {
                prop_assert_ne!(parsed, (7, request));
            }
        }
    }
}
