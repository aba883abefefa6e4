//! Signed statements: COSE_Sign1 (RFC 9052) with CWT claims (RFC 9597), commands or opaque.
//!
//! The bytes that a party submits are the bytes of the leaf: tag 18, a definite array of four, an empty unprotected
//! header. They are kept verbatim; what is parsed is a view.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use minicbor::data::{Tag, Type};

use crate::cbor::{self, CborError, Decoder, Encoder, Field, put};
use crate::code::Code;
use crate::command::Command;
use crate::hash::{Cti, Hash, KeyId, NetworkId, PartyId, StatementId};
use crate::limits::{
    COMMAND_BYTES_MAX, HEADER_DEPTH_MAX, PROTECTED_BYTES_MAX, PROTECTED_LABELS_MAX, PUBLIC_PAYLOAD_BYTES_MAX,
    SIGNATURE_BYTES_MAX, STATEMENT_BYTES_MAX, SUBJECT_BYTES_MAX,
};
use crate::suite::Suite;

/// Content type of a command.
pub const COMMAND_CONTENT_TYPE: &str = "application/vnd.stele.command+cbor";
/// Protected header label (private use) that flags an opaque payload as public: its value is `true`.
pub const LABEL_PUBLIC: i64 = -70_010;
/// Header label of the payload hash algorithm of a COSE hash envelope.
pub const LABEL_PAYLOAD_HASH_ALG: i64 = 258;

const LABEL_ALG: i64 = 1;
const LABEL_CRIT: i64 = 2;
const LABEL_CONTENT_TYPE: i64 = 3;
const LABEL_KID: i64 = 4;
const LABEL_CWT_CLAIMS: i64 = 15;
const CLAIM_ISS: i64 = 1;
const CLAIM_SUB: i64 = 2;
const CLAIM_AUD: i64 = 3;
const CLAIM_IAT: i64 = 6;
const CLAIM_CTI: i64 = 7;

/// What the payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentKind {
    /// A command of this network, with the claims that only commands must have.
    Command {
        /// The command.
        command: Arc<Command>,
        /// `aud`: the network.
        audience: NetworkId,
        /// `iat`: seconds since 1970.
        issued_at: u64,
        /// `cti`: idempotency id.
        cti: Cti,
    },
    /// Anything else: registered as it is (RFC 9943).
    Opaque,
}

/// A parsed statement over its exact bytes. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    entry: Arc<[u8]>,
    protected: Range<usize>,
    payload: Range<usize>,
    signature: Range<usize>,
    id: StatementId,
    suite: Suite,
    key: KeyId,
    issuer: PartyId,
    content: ContentKind,
}

impl Statement {
    /// Parses the bytes of one statement.
    ///
    /// # Errors
    /// An admission code: `too_large`, `malformed`, `not_deterministic`, `unprotected_not_empty`, `duplicate_label`,
    /// `header_invalid`, `critical_unsupported`, `algorithm_unsupported`, `command_unknown`, `payload_not_opaque`.
    pub fn parse(entry: impl Into<Arc<[u8]>>) -> Result<Self, Code> {
        let entry = entry.into();
        if entry.len() > STATEMENT_BYTES_MAX {
            return Err(Code::TooLarge);
        }
        let parts = Parts::read(&entry)?;
        let header = ProtectedHeader::read(parts.protected)?;
        let suite = Suite::from_cose_algorithm(header.algorithm.ok_or(Code::HeaderInvalid)?)
            .filter(|suite| suite.rule_version_max() > 0)
            .ok_or(Code::AlgorithmUnsupported)?;
        if parts.signature.len() != suite.signature_len() {
            return Err(Code::SignatureInvalid);
        }
        let key = header.key.ok_or(Code::HeaderInvalid)?;
        let issuer = header.issuer.ok_or(Code::HeaderInvalid)?;
        let content = if header.content_type == Some(COMMAND_CONTENT_TYPE) {
            header.command(suite, &parts)?
        } else {
            header.check_opaque(parts.payload)?;
            ContentKind::Opaque
        };
        let id = StatementId(Hash::of(&sig_structure(parts.protected, parts.payload)).0);
        let range = |part: &[u8]| {
            let start = part.as_ptr() as usize - entry.as_ptr() as usize;
            start..start + part.len()
        };
        let (protected, payload, signature) = (range(parts.protected), range(parts.payload), range(parts.signature));
        Ok(Self { protected, payload, signature, id, suite, key, issuer, content, entry })
    }
    /// The exact bytes: the leaf entry.
    pub fn entry(&self) -> &Arc<[u8]> {
        &self.entry
    }
    /// Protected header bytes.
    pub fn protected(&self) -> &[u8] {
        &self.entry[self.protected.clone()]
    }
    /// Payload bytes.
    pub fn payload(&self) -> &[u8] {
        &self.entry[self.payload.clone()]
    }
    /// Signature bytes.
    pub fn signature(&self) -> &[u8] {
        &self.entry[self.signature.clone()]
    }
    /// What the signature covers.
    pub fn signing_bytes(&self) -> Vec<u8> {
        sig_structure(self.protected(), self.payload())
    }
    /// SHA-256 of [`Statement::signing_bytes`].
    pub const fn id(&self) -> StatementId {
        self.id
    }
    /// Suite of the signature.
    pub const fn suite(&self) -> Suite {
        self.suite
    }
    /// Key that signs.
    pub const fn key(&self) -> KeyId {
        self.key
    }
    /// `iss`.
    pub const fn issuer(&self) -> PartyId {
        self.issuer
    }
    /// What the payload is.
    pub const fn content(&self) -> &ContentKind {
        &self.content
    }
    /// The command, if it is one.
    pub fn command(&self) -> Option<&Command> {
        match &self.content {
            ContentKind::Command { command, .. } => Some(command),
            ContentKind::Opaque => None,
        }
    }
}

/// A statement before its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    protected: Vec<u8>,
    payload: Vec<u8>,
}

impl Unsigned {
    /// A command statement.
    pub fn command(
        suite: Suite,
        key: KeyId,
        issuer: PartyId,
        audience: NetworkId,
        issued_at: u64,
        cti: Cti,
        command: &Command,
    ) -> Self {
        let protected = command_header(suite, key, issuer, audience, issued_at, cti, command);
        Self { protected, payload: command.to_bytes() }
    }
    /// An opaque statement: a COSE hash envelope over SHA-256 of something that stays with its owner.
    ///
    /// # Errors
    /// `TooLarge` when `subject` is longer than its bound.
    pub fn hash_envelope(
        suite: Suite,
        key: KeyId,
        issuer: PartyId,
        subject: &str,
        preimage_type: &str,
        digest: Hash,
    ) -> Result<Self, CborError> {
        const SHA256: i64 = -16;
        const LABEL_PREIMAGE_CONTENT_TYPE: i64 = 259;
        let extra = |e: &mut Encoder<'_>| {
            put(e.i64(LABEL_PAYLOAD_HASH_ALG));
            put(e.i64(SHA256));
            put(e.i64(LABEL_PREIMAGE_CONTENT_TYPE));
            put(e.str(preimage_type));
        };
        let protected = opaque_header(suite, key, issuer, subject, None, 2, extra)?;
        Ok(Self { protected, payload: digest.0.to_vec() })
    }
    /// An opaque statement with a public payload of at most 4 KiB.
    ///
    /// # Errors
    /// `TooLarge` when `subject` or `payload` is longer than its bound.
    pub fn public(
        suite: Suite,
        key: KeyId,
        issuer: PartyId,
        subject: &str,
        content_type: &str,
        payload: &[u8],
    ) -> Result<Self, CborError> {
        if payload.len() > PUBLIC_PAYLOAD_BYTES_MAX {
            return Err(CborError::TooLarge);
        }
        let extra = |e: &mut Encoder<'_>| {
            put(e.i64(LABEL_PUBLIC));
            put(e.bool(true));
        };
        let protected = opaque_header(suite, key, issuer, subject, Some(content_type), 1, extra)?;
        Ok(Self { protected, payload: payload.to_owned() })
    }
    /// What has to be signed.
    pub fn signing_bytes(&self) -> Vec<u8> {
        sig_structure(&self.protected, &self.payload)
    }
    /// The statement's id, known before it is signed.
    pub fn id(&self) -> StatementId {
        StatementId(Hash::of(&self.signing_bytes()).0)
    }
    /// The entry with `signature`.
    pub fn into_entry(self, signature: &[u8]) -> Vec<u8> {
        entry_of(&self.protected, &self.payload, signature)
    }
}

/// RFC 9052 section 4.4: `["Signature1", protected, external_aad = h'', payload]`.
pub fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(protected.len() + payload.len() + 24);
    let mut e = Encoder::new(&mut bytes);
    put(e.array(4));
    put(e.str("Signature1"));
    put(e.bytes(protected));
    put(e.bytes(&[]));
    put(e.bytes(payload));
    bytes
}

/// The leaf entry: tag 18, array of four, empty unprotected header.
fn entry_of(protected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(protected.len() + payload.len() + signature.len() + 16);
    let mut e = Encoder::new(&mut bytes);
    put(e.tag(Tag::new(18)));
    put(e.array(4));
    put(e.bytes(protected));
    put(e.map(0));
    put(e.bytes(payload));
    put(e.bytes(signature));
    bytes
}

fn command_header(
    suite: Suite,
    key: KeyId,
    issuer: PartyId,
    audience: NetworkId,
    issued_at: u64,
    cti: Cti,
    command: &Command,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let mut e = Encoder::new(&mut bytes);
    put(e.map(4));
    put(e.i64(LABEL_ALG));
    put(e.i64(suite.cose_algorithm()));
    put(e.i64(LABEL_CONTENT_TYPE));
    put(e.str(COMMAND_CONTENT_TYPE));
    put(e.i64(LABEL_KID));
    key.encode(&mut e);
    put(e.i64(LABEL_CWT_CLAIMS));
    put(e.map(5));
    put(e.i64(CLAIM_ISS));
    put(e.str(&issuer.to_hex()));
    put(e.i64(CLAIM_SUB));
    put(e.str(&command.subject().to_hex()));
    put(e.i64(CLAIM_AUD));
    put(e.str(&audience.to_hex()));
    put(e.i64(CLAIM_IAT));
    put(e.u64(issued_at));
    put(e.i64(CLAIM_CTI));
    cti.encode(&mut e);
    bytes
}

fn opaque_header(
    suite: Suite,
    key: KeyId,
    issuer: PartyId,
    subject: &str,
    content_type: Option<&str>,
    extra_pairs: u64,
    extra: impl Fn(&mut Encoder<'_>),
) -> Result<Vec<u8>, CborError> {
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
        return Err(CborError::TooLarge);
    }
    let mut bytes = Vec::with_capacity(256);
    let mut e = Encoder::new(&mut bytes);
    put(e.map(3 + u64::from(content_type.is_some()) + extra_pairs));
    put(e.i64(LABEL_ALG));
    put(e.i64(suite.cose_algorithm()));
    if let Some(content_type) = content_type {
        put(e.i64(LABEL_CONTENT_TYPE));
        put(e.str(content_type));
    }
    put(e.i64(LABEL_KID));
    key.encode(&mut e);
    put(e.i64(LABEL_CWT_CLAIMS));
    put(e.map(2));
    put(e.i64(CLAIM_ISS));
    put(e.str(&issuer.to_hex()));
    put(e.i64(CLAIM_SUB));
    put(e.str(subject));
    extra(&mut e);
    if bytes.len() > PROTECTED_BYTES_MAX { Err(CborError::TooLarge) } else { Ok(bytes) }
}

/// The three byte strings of an entry.
struct Parts<'b> {
    protected: &'b [u8],
    payload: &'b [u8],
    signature: &'b [u8],
}

impl<'b> Parts<'b> {
    fn read(entry: &'b [u8]) -> Result<Self, Code> {
        let d = &mut Decoder::new(entry);
        let malformed = |_| Code::Malformed;
        if d.tag().map_err(malformed)?.as_u64() != 18 || d.array().map_err(malformed)? != Some(4) {
            return Err(Code::Malformed);
        }
        let protected = d.bytes().map_err(malformed)?;
        match d.map().map_err(malformed)? {
            Some(0) => {}
            _ => return Err(Code::UnprotectedNotEmpty),
        }
        let parts =
            Self { protected, payload: d.bytes().map_err(malformed)?, signature: d.bytes().map_err(malformed)? };
        if d.position() != entry.len() {
            return Err(Code::Malformed);
        }
        if protected.len() > PROTECTED_BYTES_MAX || parts.signature.len() > SIGNATURE_BYTES_MAX {
            return Err(Code::TooLarge);
        }
        if entry_of(parts.protected, parts.payload, parts.signature) != entry {
            return Err(Code::NotDeterministic);
        }
        Ok(parts)
    }
}

/// The labels and claims that Stele interprets; others are allowed in opaque statements only.
#[derive(Default)]
struct ProtectedHeader<'b> {
    algorithm: Option<i64>,
    content_type: Option<&'b str>,
    key: Option<KeyId>,
    issuer: Option<PartyId>,
    subject: Option<&'b str>,
    audience: Option<&'b str>,
    issued_at: Option<u64>,
    cti: Option<Cti>,
    payload_hash_algorithm: Option<i64>,
    public: bool,
}

impl<'b> ProtectedHeader<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Code> {
        let mut header = Self::default();
        let d = &mut Decoder::new(bytes);
        read_pairs(d, |label, d| header.label(label, d))?;
        if d.position() == bytes.len() { Ok(header) } else { Err(Code::Malformed) }
    }

    fn label(&mut self, label: Label<'b>, d: &mut Decoder<'b>) -> Result<(), Code> {
        let invalid = |_| Code::HeaderInvalid;
        match label {
            Label::Number(LABEL_ALG) => self.algorithm = Some(d.i64().map_err(|_| Code::AlgorithmUnsupported)?),
            Label::Number(LABEL_CRIT) => return Err(Code::CriticalUnsupported),
            // Content types are a media type or a CoAP content format; only the former can name a command.
            Label::Number(LABEL_CONTENT_TYPE) => match d.datatype().map_err(invalid)? {
                Type::String => self.content_type = Some(d.str().map_err(invalid)?),
                _ => drop(d.u64().map_err(invalid)?),
            },
            Label::Number(LABEL_KID) => self.key = Some(KeyId::decode(d).map_err(|_| Code::HeaderInvalid)?),
            Label::Number(LABEL_CWT_CLAIMS) => read_pairs(d, |label, d| self.claim(label, d))?,
            Label::Number(LABEL_PAYLOAD_HASH_ALG) => self.payload_hash_algorithm = Some(d.i64().map_err(invalid)?),
            Label::Number(LABEL_PUBLIC) => self.public = d.bool().map_err(invalid)?,
            _ => skip(d, HEADER_DEPTH_MAX)?,
        }
        Ok(())
    }

    fn claim(&mut self, claim: Label<'b>, d: &mut Decoder<'b>) -> Result<(), Code> {
        let invalid = |_| Code::HeaderInvalid;
        match claim {
            Label::Number(CLAIM_ISS) => {
                let party = PartyId::from_hex(d.str().map_err(invalid)?);
                self.issuer = Some(party.ok_or(Code::HeaderInvalid)?);
            }
            Label::Number(CLAIM_SUB) => self.subject = Some(d.str().map_err(invalid)?),
            Label::Number(CLAIM_AUD) => self.audience = Some(d.str().map_err(invalid)?),
            Label::Number(CLAIM_IAT) => self.issued_at = Some(d.u64().map_err(invalid)?),
            Label::Number(CLAIM_CTI) => self.cti = Some(Cti::decode(d).map_err(|_| Code::HeaderInvalid)?),
            _ => skip(d, HEADER_DEPTH_MAX)?,
        }
        Ok(())
    }

    /// The rules of a command: the header is exactly the deterministic one, the payload re-encodes to itself.
    fn command(&self, suite: Suite, parts: &Parts<'_>) -> Result<ContentKind, Code> {
        let (Some(key), Some(issuer), Some(issued_at), Some(cti)) = (self.key, self.issuer, self.issued_at, self.cti)
        else {
            return Err(Code::HeaderInvalid);
        };
        let audience = self.audience.and_then(NetworkId::from_hex).ok_or(Code::HeaderInvalid)?;
        if parts.payload.len() > COMMAND_BYTES_MAX {
            return Err(Code::TooLarge);
        }
        let command = Command::from_bytes(parts.payload).map_err(|error| match Command::number_of(parts.payload) {
            Some(number) if Command::SCHEMA.iter().all(|(known, ..)| *known != number) => Code::CommandUnknown,
            _ => Code::from(error),
        })?;
        if self.subject != Some(command.subject().to_hex().as_str()) {
            return Err(Code::HeaderInvalid);
        }
        if command_header(suite, key, issuer, audience, issued_at, cti, &command) != parts.protected {
            return Err(Code::NotDeterministic);
        }
        Ok(ContentKind::Command { command: Arc::new(command), audience, issued_at, cti })
    }

    /// The rules of an opaque statement (design 4.1.2): a hash envelope, or small and flagged public.
    fn check_opaque(&self, payload: &[u8]) -> Result<(), Code> {
        match self.subject {
            Some(subject) if (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) => {}
            _ => return Err(Code::HeaderInvalid),
        }
        // Digest sizes of the COSE hash algorithms SHA-256, SHA-384 and SHA-512 (RFC 9054).
        let digest_len = match self.payload_hash_algorithm {
            Some(-16) => Some(32),
            Some(-43) => Some(48),
            Some(-44) => Some(64),
            Some(_) => return Err(Code::PayloadNotOpaque),
            None => None,
        };
        match digest_len {
            Some(len) if payload.len() == len => Ok(()),
            None if self.public && payload.len() <= PUBLIC_PAYLOAD_BYTES_MAX => Ok(()),
            None if self.public => Err(Code::TooLarge),
            _ => Err(Code::PayloadNotOpaque),
        }
    }
}

/// A header label or claim name: an integer or a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label<'b> {
    Number(i64),
    Text(&'b str),
}

/// Reads a definite map with distinct labels.
fn read_pairs<'b>(
    d: &mut Decoder<'b>,
    mut pair: impl FnMut(Label<'b>, &mut Decoder<'b>) -> Result<(), Code>,
) -> Result<(), Code> {
    let count = cbor::map_len(d, PROTECTED_LABELS_MAX)?;
    let mut seen: [Option<Label<'b>>; PROTECTED_LABELS_MAX] = [None; PROTECTED_LABELS_MAX];
    for position in 0..count {
        let label = match d.datatype().map_err(|_| Code::Malformed)? {
            Type::String => Label::Text(d.str().map_err(|_| Code::Malformed)?),
            _ => Label::Number(d.i64().map_err(|_| Code::Malformed)?),
        };
        if seen[..position].contains(&Some(label)) {
            return Err(Code::DuplicateLabel);
        }
        seen[position] = Some(label);
        pair(label, d)?;
    }
    Ok(())
}

/// Passes over one value of bounded depth.
fn skip(d: &mut Decoder<'_>, depth: usize) -> Result<(), Code> {
    let malformed = |_| Code::Malformed;
    let deeper = depth.checked_sub(1).ok_or(Code::TooLarge)?;
    match d.datatype().map_err(malformed)? {
        Type::Array => {
            for _ in 0..cbor::array_len(d, PROTECTED_BYTES_MAX)? {
                skip(d, deeper)?;
            }
        }
        Type::Map => {
            for _ in 0..cbor::map_len(d, PROTECTED_BYTES_MAX)? {
                skip(d, deeper)?;
                skip(d, deeper)?;
            }
        }
        Type::Tag => {
            d.tag().map_err(malformed)?;
            skip(d, deeper)?;
        }
        Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef | Type::Break | Type::Unknown(_) => {
            return Err(Code::Malformed);
        }
        _ => d.skip().map_err(malformed)?,
    }
    Ok(())
}

/// The `iss` claim of a party.
pub fn issuer_claim(party: PartyId) -> String {
    party.to_hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::party::{KeyRevoke, RevocationReason};

    fn command() -> Command {
        Command::KeyRevoke(KeyRevoke { key: KeyId([9; 16]), reason: RevocationReason::Superseded })
    }

    fn unsigned() -> Unsigned {
        Unsigned::command(
            Suite::EdDsa,
            KeyId([1; 16]),
            PartyId([2; 16]),
            NetworkId([3; 32]),
            1_764_000_000,
            Cti([4; 16]),
            &command(),
        )
    }

    #[test]
    fn a_command_parses_to_what_was_written() {
        let entry = unsigned().into_entry(&[5; 64]);
        let statement = Statement::parse(entry.clone()).unwrap();
        assert_eq!(statement.id(), unsigned().id());
        assert_eq!(statement.command(), Some(&command()));
        assert_eq!(statement.signing_bytes(), unsigned().signing_bytes());
        assert_eq!((statement.signature(), &statement.entry()[..]), (&[5; 64][..], &entry[..]));
    }

    #[test]
    fn the_id_does_not_depend_on_the_signature() {
        let one = Statement::parse(unsigned().into_entry(&[5; 64])).unwrap();
        let other = Statement::parse(unsigned().into_entry(&[6; 64])).unwrap();
        assert_eq!(one.id(), other.id());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused_or_another_statement() {
        let entry = unsigned().into_entry(&[5; 64]);
        let id = Statement::parse(entry.clone()).unwrap().id();
        for cut in 0..entry.len() {
            assert!(Statement::parse(&entry[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..entry.len() * 8 {
            let mut flipped = entry.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Statement::parse(flipped.clone()) {
                assert!(other.id() != id || other.signature() != [5; 64], "bit {bit}");
                assert_eq!(&other.entry()[..], flipped);
            }
        }
    }

    #[test]
    fn refusals_carry_their_code() {
        let entry = unsigned().into_entry(&[5; 64]);
        let with_unprotected = {
            let at = entry.len() - unsigned().payload.len() - 64 - 5;
            let mut bytes = entry.clone();
            assert_eq!(bytes[at], 0xa0);
            bytes.splice(at..=at, [0xa1, 0x01, 0x26]);
            bytes
        };
        assert_eq!(Statement::parse(with_unprotected), Err(Code::UnprotectedNotEmpty));
        assert_eq!(Statement::parse(alloc::vec![0; STATEMENT_BYTES_MAX + 1]), Err(Code::TooLarge));
        assert_eq!(Statement::parse(&entry[1..]), Err(Code::Malformed), "untagged");
        let unknown = Unsigned { payload: alloc::vec![0xa1, 0x00, 0x19, 0x06, 0x99], ..unsigned() };
        assert_eq!(Statement::parse(unknown.into_entry(&[5; 64])), Err(Code::CommandUnknown));
    }

    #[test]
    fn opaque_payloads_are_envelopes_or_public() {
        let key = (Suite::Es256, KeyId([1; 16]), PartyId([2; 16]));
        let envelope =
            Unsigned::hash_envelope(key.0, key.1, key.2, "report-7", "application/pdf", Hash([7; 32])).unwrap();
        let statement = Statement::parse(envelope.into_entry(&[5; 64])).unwrap();
        assert_eq!(statement.content(), &ContentKind::Opaque);
        let public = Unsigned::public(key.0, key.1, key.2, "notice", "text/plain", b"open").unwrap();
        assert!(Statement::parse(public.clone().into_entry(&[5; 64])).is_ok());
        let mut hidden = public;
        let flag = hidden.protected.len() - 1;
        hidden.protected[flag] = 0xf4;
        assert_eq!(Statement::parse(hidden.into_entry(&[5; 64])), Err(Code::PayloadNotOpaque));
    }
}
