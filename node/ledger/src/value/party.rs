//! Parties, their keys, client certificates and mandates.

use stele_types::cbor::List;
use stele_types::hash::{Hash, KeyId, ObjectId, PartyId};
use stele_types::header::Height;
use stele_types::limits::PARTY_KEYS_MAX;
use stele_types::party::{EnrolledKey, OrganisationCode, RevocationReason, RoleSet, TlsPins};
use stele_types::suite::Suite;

use crate::state::stored;

/// Live mandates from one party to another: enough for one per family, with a successor given before an end.
pub const MANDATES_PER_PAIR_MAX: usize = 16;

stele_types::record! {
    /// A party, under its id.
    pub struct PartyRecord {
        /// Its organisation, when it has a code.
        1 => organisation: Option<OrganisationCode>,
        /// Its roles.
        2 => roles: RoleSet,
        /// Whether it may not act.
        3 => suspended: bool,
        /// Its live keys with their suites, oldest first.
        4 => keys: List<(KeyId, Suite), PARTY_KEYS_MAX>,
        /// SHA-256 of the SubjectPublicKeyInfo of each of its client certificates.
        5 => tls_pins: TlsPins,
        /// Block time of its enrolment, milliseconds.
        6 => enrolled_ms: u64,
    }
}
stored!(PartyRecord, Party, PartyId, |id| [&id.0]);

stele_types::record! {
    /// End of a key.
    pub struct KeyEnd {
        /// Height of the block that ended it.
        1 => height: Height,
        /// Why: as its holder said, or superseded by rotation or reset.
        2 => reason: RevocationReason,
    }
}

stele_types::record! {
    /// A key, under its id. It stays after its end, so that an id is never enrolled twice.
    pub struct KeyRecord {
        /// Who holds it.
        1 => party: PartyId,
        /// The key.
        2 => key: EnrolledKey,
        /// Height of the block that enrolled it; 0 for genesis.
        3 => enrolled: Height,
        /// Its end, if it ended.
        4 => ended: Option<KeyEnd>,
    }
}
stored!(KeyRecord, Key, KeyId, |id| [&id.0]);

stele_types::record! {
    /// The party of a client certificate's key, under SHA-256 of the SubjectPublicKeyInfo.
    pub struct TlsPinRecord {
        /// The party.
        1 => party: PartyId,
    }
}
stored!(TlsPinRecord, TlsPin, Hash, |pin| [&pin.0]);

stele_types::record! {
    /// A mandate, under its id. It stays after its end.
    pub struct MandateRecord {
        /// Who gave it.
        1 => grantor: PartyId,
        /// Who may act.
        2 => grantee: PartyId,
        /// Families of commands it covers, ascending.
        3 => families: List<u8, 8>,
        /// First instant, block time in milliseconds.
        4 => valid_from_ms: u64,
        /// Last instant, block time in milliseconds.
        5 => valid_until_ms: u64,
        /// Block time of its withdrawal, if it was withdrawn.
        6 => withdrawn_ms: Option<u64>,
    }
}
stored!(MandateRecord, Mandate, ObjectId, |id| [&id.0]);

stele_types::record! {
    /// What a command needs of a mandate.
    pub struct PairMandate {
        /// Id of the mandate.
        1 => mandate: ObjectId,
        /// Families of commands it covers, ascending.
        2 => families: List<u8, 8>,
        /// First instant, block time in milliseconds.
        3 => valid_from_ms: u64,
        /// Last instant, block time in milliseconds.
        4 => valid_until_ms: u64,
    }
}

stele_types::record! {
    /// Mandates that were not withdrawn, under (grantor, grantee); ended ones go when the next is given.
    pub struct MandatePair {
        /// The mandates in the order in which they were given.
        1 => mandates: List<PairMandate, MANDATES_PER_PAIR_MAX>,
    }
}
stored!(MandatePair, MandatePair, (PartyId, PartyId), |(grantor, grantee)| [&grantor.0, &grantee.0]);
