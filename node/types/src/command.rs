//! Commands: the payloads that `apply` executes. Each platform owns a range of 256 numbers.
//!
//! A command is a deterministic CBOR map; key 0 holds its number and keys from 1 its fields. Commands carry no free text
//! and no personal data.

use alloc::vec::Vec;

use crate::asset::{AssetCancel, AssetRegister};
use crate::attestation::AttestationReport;
use crate::cbor::{self, CborError, Decoder, Encoder, Field, MapReader, put};
use crate::custody::{RecordCorrect, RecordPut};
use crate::governance::{
    Approve, EpochCertify, ParametersChange, Propose, ProtocolUpgrade, ValidatorsChange, Withdraw,
};
use crate::hash::{Hash, ObjectId};
use crate::limits::COMMAND_BYTES_MAX;
use crate::party::{
    KeyEnrol, KeyReset, KeyRevoke, KeyRotate, MandateGive, MandateWithdraw, PartyEnrol, PartyStanding, RoleChange,
    TlsPin,
};

crate::codes! {
    /// A platform's range: the high byte of the command number.
    pub enum Family: u8 {
        /// Data registration, 0x0100–0x01ff.
        Registration = 1 => "registration",
        /// Valuation of state and private assets, 0x0200–0x02ff.
        Valuation = 2 => "valuation",
        /// The data platform: custody and exchange, 0x0300–0x03ff.
        Custody = 3 => "custody",
        /// The transaction node: accounts and transfers, 0x0400–0x04ff.
        Payments = 4 => "payments",
        /// Management of state digital assets, 0x0500–0x05ff.
        StateAssets = 5 => "state_assets",
        /// Parties, keys, roles, mandates, parameters and validators, 0x0600–0x06ff.
        Governance = 6 => "governance",
    }
}

/// Pairs of the largest command map, its number included.
const PAIRS_MAX: usize = 33;

macro_rules! commands {
    ($($(#[$meta:meta])* $number:literal $word:literal $variant:ident($body:ty) dual $dual:literal;)*) => {
        /// A command with its fields.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Command { $($(#[$meta])* $variant($body)),* }

        impl Command {
            /// Number, word and keys of every command, in number order.
            pub const SCHEMA: &'static [(u16, &'static str, &'static [(u64, &'static str)])] =
                &[$(($number, $word, <$body>::KEYS)),*];

            /// The number on the wire.
            pub const fn number(&self) -> u16 {
                match self { $(Self::$variant(_) => $number),* }
            }
            /// The word for people and metrics.
            pub const fn as_str(&self) -> &'static str {
                match self { $(Self::$variant(_) => $word),* }
            }
            /// Whether it takes effect only by `propose` and `approve`.
            pub const fn needs_dual_control(&self) -> bool {
                match self { $(Self::$variant(_) => $dual),* }
            }
            fn pairs(&self) -> u64 {
                match self { $(Self::$variant(body) => body.pairs()),* }
            }
            fn encode_pairs(&self, e: &mut Encoder<'_>) {
                match self { $(Self::$variant(body) => body.encode_pairs(e)),* }
            }
            fn decode_pairs(number: u16, map: &mut MapReader<'_, '_>) -> Result<Self, CborError> {
                match number {
                    $($number => <$body>::decode_pairs(map).map(Self::$variant),)*
                    _ => Err(CborError::OutOfRange),
                }
            }
        }
    };
}

commands! {
    /// First registration of a data asset.
    0x0101 "asset.register" AssetRegister(AssetRegister) dual false;
    /// End of a certificate.
    0x0102 "asset.cancel" AssetCancel(AssetCancel) dual false;
    /// Anchor of a record.
    0x0301 "record.put" RecordPut(RecordPut) dual false;
    /// New version of a record.
    0x0302 "record.correct" RecordCorrect(RecordCorrect) dual false;
    /// A new party.
    0x0601 "party.enrol" PartyEnrol(PartyEnrol) dual true;
    /// A party may no longer act.
    0x0602 "party.suspend" PartySuspend(PartyStanding) dual true;
    /// A suspended party may act again.
    0x0603 "party.resume" PartyResume(PartyStanding) dual true;
    /// More roles.
    0x0604 "role.grant" RoleGrant(RoleChange) dual true;
    /// Fewer roles.
    0x0605 "role.revoke" RoleRevoke(RoleChange) dual true;
    /// One more key.
    0x0610 "key.enrol" KeyEnrol(KeyEnrol) dual false;
    /// A key in place of another.
    0x0611 "key.rotate" KeyRotate(KeyRotate) dual false;
    /// End of a key.
    0x0612 "key.revoke" KeyRevoke(KeyRevoke) dual false;
    /// A first key again.
    0x0613 "key.reset" KeyReset(KeyReset) dual true;
    /// Client certificate keys.
    0x0614 "tls.pin" TlsPin(TlsPin) dual false;
    /// A mandate begins.
    0x0620 "mandate.give" MandateGive(MandateGive) dual false;
    /// A mandate ends.
    0x0621 "mandate.withdraw" MandateWithdraw(MandateWithdraw) dual false;
    /// A command that waits for approval.
    0x0630 "propose" Propose(Propose) dual false;
    /// Approval of a proposal.
    0x0631 "approve" Approve(Approve) dual false;
    /// Withdrawal of a proposal.
    0x0632 "withdraw" Withdraw(Withdraw) dual false;
    /// New parameters.
    0x0640 "parameters.change" ParametersChange(ParametersChange) dual true;
    /// New validators.
    0x0641 "validators.change" ValidatorsChange(ValidatorsChange) dual true;
    /// New protocol version.
    0x0642 "protocol.upgrade" ProtocolUpgrade(ProtocolUpgrade) dual true;
    /// Certificate of an epoch key.
    0x0643 "epoch.certify" EpochCertify(EpochCertify) dual false;
    /// A verdict on a validator's evidence.
    0x0650 "attestation.report" AttestationReport(AttestationReport) dual false;
}

impl Command {
    /// The platform that the command belongs to.
    pub fn family(&self) -> Family {
        let [high, _] = self.number().to_be_bytes();
        Family::from_number(high).unwrap_or(Family::Governance)
    }
    /// The deterministic encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }
    /// Decodes a command.
    ///
    /// # Errors
    /// Any [`CborError`]; `OutOfRange` also for a number that is not assigned.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(CborError::TooLarge);
        }
        cbor::from_slice(bytes)
    }
    /// The number in an encoded command, whether it is assigned or not.
    pub fn number_of(bytes: &[u8]) -> Option<u16> {
        let mut decoder = Decoder::new(bytes);
        cbor::map_len(&mut decoder, PAIRS_MAX).ok()?;
        (decoder.u64().ok()? == 0).then_some(())?;
        decoder.u16().ok()
    }
    /// Content root of the sealed body that the command refers to.
    pub const fn body_root(&self) -> Option<Hash> {
        match self {
            Self::RecordPut(body) => body.body_root,
            Self::RecordCorrect(body) => body.body_root,
            _ => None,
        }
    }
    /// What the `sub` claim of the statement must name, as 32 hexadecimal digits: the object of the command, or zeros
    /// when it concerns the network as a whole.
    pub fn subject(&self) -> ObjectId {
        let head = |bytes: &[u8; 32]| {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[..16]);
            ObjectId(id)
        };
        match self {
            Self::AssetRegister(body) => body.asset,
            Self::AssetCancel(body) => body.asset,
            Self::RecordPut(body) => body.record,
            Self::RecordCorrect(body) => body.record,
            Self::PartyEnrol(body) => ObjectId(body.party.0),
            Self::PartySuspend(body) | Self::PartyResume(body) => ObjectId(body.party.0),
            Self::RoleGrant(body) | Self::RoleRevoke(body) => ObjectId(body.party.0),
            Self::KeyEnrol(body) => ObjectId(body.key.id().0),
            Self::KeyRotate(body) => ObjectId(body.old.0),
            Self::KeyRevoke(body) => ObjectId(body.key.0),
            Self::KeyReset(body) => ObjectId(body.party.0),
            Self::MandateGive(body) => body.mandate,
            Self::MandateWithdraw(body) => body.mandate,
            Self::Approve(body) => head(&body.proposal.0),
            Self::Withdraw(body) => head(&body.proposal.0),
            Self::EpochCertify(body) => head(&body.certificate.validator.0),
            Self::AttestationReport(body) => head(&body.validator.0),
            Self::TlsPin(_)
            | Self::Propose(_)
            | Self::ParametersChange(_)
            | Self::ValidatorsChange(_)
            | Self::ProtocolUpgrade(_) => ObjectId::default(),
        }
    }
}

impl Field for Command {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.map(1 + self.pairs()));
        put(e.u64(0));
        self.number().encode(e);
        self.encode_pairs(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let mut map = MapReader::new(d, PAIRS_MAX)?;
        let number = map.field(0)?;
        let command = Self::decode_pairs(number, &mut map)?;
        map.finish()?;
        Ok(command)
    }
}
