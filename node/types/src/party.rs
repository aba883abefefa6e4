//! Parties and what they may do: roles, enrolled keys, pinned TLS keys, mandates.

use crate::cbor::{Blob, CborError, Decoder, Encoder, Field, List};
use crate::hash::{Hash, KeyId, ObjectId, PartyId};
use crate::limits::{PARTY_PINS_MAX, PUBLIC_KEY_BYTES_MAX};
use crate::suite::Suite;

crate::codes! {
    /// What a party does on the network. A party may hold several roles.
    pub enum Role: u8 {
        /// Proposes and approves changes of parties, parameters and validators.
        Governor = 0 => "governor",
        /// Registers and cancels data assets.
        Registrar = 1 => "registrar",
        /// Keeps records of persons and things; reads them for a stated case.
        Agency = 2 => "agency",
        /// Gives opinions of value.
        Appraiser = 3 => "appraiser",
        /// Keeps bodies and their keys for others.
        Custodian = 4 => "custodian",
        /// Issues and redeems instruments.
        Issuer = 5 => "issuer",
        /// Holds state assets and their accounts.
        Treasury = 6 => "treasury",
        /// Replays, samples, attests; lists what others may not list.
        Regulator = 7 => "regulator",
        /// Signs orders of freeze, seizure and unsealing.
        Court = 8 => "court",
        /// Runs a validator.
        Operator = 9 => "operator",
    }
}

/// A set of [`Role`]s, bit n for role number n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RoleSet(u32);

impl RoleSet {
    /// No role.
    pub const EMPTY: Self = Self(0);
    /// The set of `roles`.
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |bits, role| bits | 1 << role.number()))
    }
    /// Whether `role` is in the set.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & 1 << role.number() != 0
    }
    /// Whether no role is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Roles of either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Roles of this set that are not in `other`.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// The roles in number order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.iter().copied().filter(move |role| self.contains(*role))
    }
}

impl Field for RoleSet {
    fn encode(&self, e: &mut Encoder<'_>) {
        self.0.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let bits = u32::decode(d)?;
        let assigned = Role::ALL.iter().fold(0, |bits, role| bits | 1 << role.number());
        if bits & !assigned == 0 { Ok(Self(bits)) } else { Err(CborError::OutOfRange) }
    }
}

/// Unified social credit code of an organisation: 18 upper-case letters and digits (GB 32100).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrganisationCode([u8; 18]);

impl OrganisationCode {
    /// Reads 18 upper-case letters and digits.
    pub fn new(text: &str) -> Option<Self> {
        let code: [u8; 18] = text.as_bytes().try_into().ok()?;
        code.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()).then_some(Self(code))
    }
    /// The code as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Field for OrganisationCode {
    fn encode(&self, e: &mut Encoder<'_>) {
        crate::cbor::put(e.str(self.as_str()));
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        Self::new(d.str()?).ok_or(CborError::OutOfRange)
    }
}

/// A public key in its suite's canonical form.
pub type PublicKey = Blob<PUBLIC_KEY_BYTES_MAX>;
/// SHA-256 of the SubjectPublicKeyInfo of each client certificate that speaks for a party.
pub type TlsPins = List<Hash, PARTY_PINS_MAX>;

crate::record! {
    /// A signing key with its suite.
    pub struct EnrolledKey {
        /// Suite of the key.
        1 => suite: Suite,
        /// Canonical public key.
        2 => public_key: PublicKey,
    }
}

impl EnrolledKey {
    /// The COSE `kid` of this key.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.suite, &self.public_key)
    }
    /// Whether the key has its suite's length; curve membership is the verifier's to check.
    pub fn has_suite_length(&self) -> bool {
        self.public_key.len() == self.suite.public_key_len()
    }
}

crate::record! {
    /// A party that genesis founds.
    pub struct Founder {
        /// Its id.
        1 => party: PartyId,
        /// Its organisation, when it has a code.
        2 => organisation: Option<OrganisationCode>,
        /// Its roles.
        3 => roles: RoleSet,
        /// Its first key.
        4 => key: EnrolledKey,
        /// Its client certificates' keys.
        5 => tls_pins: TlsPins,
    }
}

crate::record! {
    /// `party.enrol` (dual control): a party with its first key.
    pub struct PartyEnrol {
        /// Id of the new party.
        1 => party: PartyId,
        /// Its organisation, when it has a code.
        2 => organisation: Option<OrganisationCode>,
        /// Its roles.
        3 => roles: RoleSet,
        /// Its first key.
        4 => key: EnrolledKey,
        /// Its client certificates' keys.
        5 => tls_pins: TlsPins,
    }
}

impl From<Founder> for PartyEnrol {
    /// Whoever does not found a network is enrolled in it, with the same record.
    fn from(Founder { party, organisation, roles, key, tls_pins }: Founder) -> Self {
        Self { party, organisation, roles, key, tls_pins }
    }
}

crate::record! {
    /// `party.suspend`, `party.resume` (dual control).
    pub struct PartyStanding {
        /// The party.
        1 => party: PartyId,
    }
}

crate::record! {
    /// `role.grant`, `role.revoke` (dual control).
    pub struct RoleChange {
        /// The party.
        1 => party: PartyId,
        /// Roles to add or take away.
        2 => roles: RoleSet,
    }
}

crate::record! {
    /// `key.enrol`: one more key of the issuer.
    pub struct KeyEnrol {
        /// The key.
        1 => key: EnrolledKey,
    }
}

crate::record! {
    /// `key.rotate`: a new key of the issuer in place of an old one.
    pub struct KeyRotate {
        /// The key that ends.
        1 => old: KeyId,
        /// The key that begins.
        2 => new: EnrolledKey,
    }
}

crate::codes! {
    /// Why a key was revoked.
    pub enum RevocationReason: u8 {
        /// The holder no longer uses it.
        Superseded = 1 => "superseded",
        /// It may be known to others.
        Compromised = 2 => "compromised",
        /// Its holder ceased to exist.
        Ceased = 3 => "ceased",
    }
}

crate::record! {
    /// `key.revoke`: ends a key of the issuer.
    pub struct KeyRevoke {
        /// The key.
        1 => key: KeyId,
        /// Why.
        2 => reason: RevocationReason,
    }
}

crate::record! {
    /// `key.reset` (dual control): a first key again for a party that lost all of its own; every older key ends.
    pub struct KeyReset {
        /// The party.
        1 => party: PartyId,
        /// The new key.
        2 => key: EnrolledKey,
    }
}

crate::record! {
    /// `tls.pin`: the issuer's client certificate keys, whole.
    pub struct TlsPin {
        /// SHA-256 of each SubjectPublicKeyInfo.
        1 => pins: TlsPins,
    }
}

crate::record! {
    /// `mandate.give`: the issuer lets another party act for it.
    pub struct MandateGive {
        /// Id of the mandate.
        1 => mandate: ObjectId,
        /// Who may act.
        2 => grantee: PartyId,
        /// Families of commands (high byte of the command number) that it covers, ascending.
        3 => families: List<u8, 8>,
        /// First instant, block time in milliseconds.
        4 => valid_from_ms: u64,
        /// Last instant, block time in milliseconds.
        5 => valid_until_ms: u64,
    }
}

crate::record! {
    /// `mandate.withdraw`: ends a mandate that the issuer gave.
    pub struct MandateWithdraw {
        /// The mandate.
        1 => mandate: ObjectId,
    }
}
