//! The first state.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use stele_types::cbor::List;
use stele_types::code::Code;
use stele_types::genesis::Genesis;
use stele_types::hash::NetworkId;
use stele_types::header::Height;
use stele_types::party::Founder;
use stele_types::proposer::ProposerSchedule;
use stele_types::vote::EpochCertificate;

use crate::change;
use crate::execute::governor;
use crate::key_check;
use crate::state::{StateKey, Stored, Write, encode};
use crate::value::{
    ChainRecord, EpochRecord, GovernorsRecord, KeyRecord, ParametersRecord, PartyRecord, ProtocolRecord, ReplayQueue,
    TlsPinRecord, ValidatorSetHead, ValidatorsRecord,
};

/// Checks what [`Genesis::check`] leaves to the ledger: keys, pins, regions, certificates. A network that fails this
/// could not act under its own rules.
///
/// # Errors
/// `key_invalid`, `suite_disabled`, `already_exists` (a key or pin of two founders), `party_unknown` (a validator's
/// party is no founder), `epoch_invalid`, `field_invalid` (region), `state_conflict` (fewer than two governors hold a
/// key of an enabled suite).
pub fn check_genesis(genesis: &Genesis) -> Result<(), Code> {
    if genesis.region.get().checked_ilog10() != Some(5) {
        return Err(Code::FieldInvalid);
    }
    let mut keys = BTreeMap::new();
    let mut pins = BTreeMap::new();
    for founder in genesis.founders.iter() {
        if !genesis.parameters.allows(founder.key.suite) {
            return Err(Code::SuiteDisabled);
        }
        if !key_check::is_valid(&founder.key) {
            return Err(Code::KeyInvalid);
        }
        let twice = keys.insert(founder.key.id(), ()).is_some();
        if twice || founder.tls_pins.iter().any(|pin| pins.insert(*pin, ()).is_some()) {
            return Err(Code::AlreadyExists);
        }
    }
    let mut governors = GovernorsRecord { groups: List::default() };
    for founder in genesis.founders.iter() {
        governors = governors.moved(None, governor::group(&party(founder, genesis)));
    }
    let parameters = ParametersRecord { current: genesis.parameters.clone(), pending: None };
    if governors.able(&parameters) < governor::GOVERNORS_MIN {
        return Err(Code::StateConflict);
    }
    for validator in genesis.validators.iter() {
        if !key_check::is_p256_point(&validator.public_key) || !key_check::is_ed25519_point(&validator.peer_key) {
            return Err(Code::KeyInvalid);
        }
        if !genesis.founders.iter().any(|founder| founder.party == validator.party) {
            return Err(Code::PartyUnknown);
        }
    }
    genesis.epoch_certificates.iter().try_for_each(|certificate| check_certificate(genesis, certificate))
}

fn check_certificate(genesis: &Genesis, certificate: &EpochCertificate) -> Result<(), Code> {
    let index = genesis.validators.index_of(&certificate.validator).ok_or(Code::EpochInvalid)?;
    let validator = genesis.validators.get(index).ok_or(Code::EpochInvalid)?;
    let span = certificate.until_height.0.checked_sub(certificate.from_height.0);
    let once = genesis.epoch_certificates.iter().filter(|other| other.validator == certificate.validator).count() == 1;
    let fits = once
        && certificate.network == NetworkId([0; 32])
        && certificate.from_height.0 <= 1
        && span.is_some_and(|span| span < EpochCertificate::HEIGHTS_MAX);
    let signed = fits && key_check::is_signed_by(certificate, &validator.public_key);
    if signed { Ok(()) } else { Err(Code::EpochInvalid) }
}

/// The writes that make the first state, by ascending key.
///
/// `genesis` passed [`Genesis::check`] and [`check_genesis`].
pub fn genesis_writes(genesis: &Genesis) -> Vec<Write> {
    let mut writes = Writes::default();
    writes.put(&(), &ChainRecord { height: Height(0), time_ms: genesis.time_ms, log_size: 0 });
    writes.put(&(), &ParametersRecord { current: genesis.parameters.clone(), pending: None });
    writes.put(&(), &ProtocolRecord { version: genesis.parameters.protocol_version, pending: None });
    writes.put(&(), &ProposerSchedule::new(genesis.validators.len()));
    writes.put(&(), &ReplayQueue { floor_ms: 0, head: 0, tail: 0 });
    writes.validators(genesis);
    let mut governors = GovernorsRecord { groups: List::default() };
    for founder in genesis.founders.iter() {
        let record = party(founder, genesis);
        governors = governors.moved(None, governor::group(&record));
        writes.put(&founder.party, &record);
        let key = KeyRecord { party: founder.party, key: founder.key.clone(), enrolled: Height(0), ended: None };
        writes.put(&founder.key.id(), &key);
        for pin in founder.tls_pins.iter() {
            writes.put(pin, &TlsPinRecord { party: founder.party });
        }
    }
    writes.put(&(), &governors);
    writes.0.into_iter().map(|(key, value)| (key, Some(value))).collect()
}

fn party(founder: &Founder, genesis: &Genesis) -> PartyRecord {
    PartyRecord {
        organisation: founder.organisation,
        roles: founder.roles,
        suspended: false,
        keys: List::new([(founder.key.id(), founder.key.suite)].into()).expect("one key is within the bound"),
        tls_pins: founder.tls_pins.clone(),
        enrolled_ms: genesis.time_ms,
    }
}

#[derive(Default)]
struct Writes(BTreeMap<StateKey, Vec<u8>>);

impl Writes {
    fn put<T: Stored>(&mut self, id: &T::Id, value: &T) {
        self.0.insert(T::state_key(id), encode(value));
    }

    fn validators(&mut self, genesis: &Genesis) {
        let count = u16::try_from(genesis.validators.len()).expect("a set is smaller than a u16 counts");
        let head = ValidatorSetHead { since: Height(1), count };
        for (id, chunk) in change::validator_chunks(&head, &genesis.validators) {
            self.put(&id, &chunk);
        }
        self.put(&(), &ValidatorsRecord { current: head, pending: None });
        for certificate in genesis.epoch_certificates.iter() {
            let certificates = List::new([certificate.clone()].into()).expect("one certificate is within the bound");
            self.put(&certificate.validator, &EpochRecord { certificates });
        }
    }
}
