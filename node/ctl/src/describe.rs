//! Values of the state for people, read from their proven bytes.

use anyhow::{Context as _, Result, anyhow};
use stele_ledger::value::{
    AssetRecord, CertificateRecord, KeyRecord, MandateRecord, PartyRecord, ProposalRecord, RecordAnchor, StandingRecord,
};
use stele_ledger::{StateKey, Stored};
use stele_types::asset::CertificateNumber;
use stele_types::party::Role;
use stele_types::record::PlaceCode;
use stele_types::{Command, Family, Hash, KeyId, ObjectId, PartyId, StatementId, ValidatorId};

use crate::failure::Failure;
use crate::output::Record;

/// A value of the state by its kind and id.
#[derive(Clone, Debug)]
pub enum Object {
    /// A party.
    Party(PartyId),
    /// A signing key.
    Key(KeyId),
    /// The anchor of a record.
    Record(ObjectId),
    /// A data asset.
    Asset(ObjectId),
    /// The number of a certificate.
    Certificate(CertificateNumber),
    /// A mandate.
    Mandate(ObjectId),
    /// A proposal.
    Proposal(StatementId),
    /// How a validator stands with regulators.
    Validator(ValidatorId),
}

impl Object {
    /// Kinds that can be asked for.
    pub const KINDS: [&'static str; 8] =
        ["party", "key", "record", "asset", "certificate", "mandate", "proposal", "validator"];

    /// Reads the id of a kind.
    ///
    /// # Errors
    /// When the kind is unknown or the id has another form.
    pub fn parse(kind: &str, id: &str) -> Result<Self> {
        let object = match kind {
            "party" => PartyId::from_hex(id).map(Self::Party),
            "key" => KeyId::from_hex(id).map(Self::Key),
            "record" => ObjectId::from_hex(id).map(Self::Record),
            "asset" => ObjectId::from_hex(id).map(Self::Asset),
            "certificate" => CertificateNumber::parse(id).map(Self::Certificate),
            "mandate" => ObjectId::from_hex(id).map(Self::Mandate),
            "proposal" => StatementId::from_hex(id).map(Self::Proposal),
            "validator" => ValidatorId::from_hex(id).map(Self::Validator),
            _ => return Err(anyhow!("{kind} is none of {}", Self::KINDS.join(", "))),
        };
        let expected = match kind {
            "proposal" | "validator" => "64 hexadecimal digits, lower case",
            "certificate" => "a certificate number as printed, with its check digits",
            _ => "32 hexadecimal digits, lower case",
        };
        object.ok_or_else(|| Failure::new("parameter_invalid", format!("{id} is no {kind} id")).hint(expected).into())
    }
    /// Reads `KIND/ID`.
    ///
    /// # Errors
    /// As [`Object::parse`].
    pub fn parse_path(path: &str) -> Result<Self> {
        let (kind, id) = path.split_once('/').ok_or_else(|| {
            Failure::new("parameter_invalid", format!("{path} is no KIND/ID"))
                .hint(format!("kinds are: {}", Self::KINDS.join(", ")))
        })?;
        Self::parse(kind, id)
    }
    /// The word of its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Party(_) => "party",
            Self::Key(_) => "key",
            Self::Record(_) => "record",
            Self::Asset(_) => "asset",
            Self::Certificate(_) => "certificate",
            Self::Mandate(_) => "mandate",
            Self::Proposal(_) => "proposal",
            Self::Validator(_) => "validator",
        }
    }
    /// The id as a path names it.
    pub fn id(&self) -> String {
        match self {
            Self::Party(id) => id.to_hex(),
            Self::Key(id) => id.to_hex(),
            Self::Record(id) | Self::Asset(id) | Self::Mandate(id) => id.to_hex(),
            Self::Certificate(number) => number.to_text(),
            Self::Proposal(id) => id.to_hex(),
            Self::Validator(id) => id.to_hex(),
        }
    }
    /// Its key in the state tree.
    pub fn state_key(&self) -> StateKey {
        match self {
            Self::Party(id) => PartyRecord::state_key(id),
            Self::Key(id) => KeyRecord::state_key(id),
            Self::Record(id) => RecordAnchor::state_key(id),
            Self::Asset(id) => AssetRecord::state_key(id),
            Self::Certificate(number) => CertificateRecord::state_key(number),
            Self::Mandate(id) => MandateRecord::state_key(id),
            Self::Proposal(id) => ProposalRecord::state_key(id),
            Self::Validator(id) => StandingRecord::state_key(id),
        }
    }
    /// What the value says.
    ///
    /// # Errors
    /// When the bytes are no value of this kind.
    pub fn describe(&self, value: &[u8]) -> Result<Record> {
        let record = Record::new().with(self.kind(), self.id());
        Ok(match self {
            Self::Party(_) => party(record, &read(value)?),
            Self::Key(_) => key(record, &read(value)?),
            Self::Record(_) => anchor(record, &read(value)?),
            Self::Asset(_) => asset(record, &read(value)?),
            Self::Certificate(_) => record.with("asset", read::<CertificateRecord>(value)?.asset.to_hex()),
            Self::Mandate(_) => mandate(record, &read(value)?),
            Self::Proposal(_) => proposal(record, &read(value)?),
            Self::Validator(_) => standing(record, &read(value)?),
        })
    }
}

/// Reads a value of the state.
///
/// # Errors
/// When the bytes are none.
pub fn read<T: Stored>(value: &[u8]) -> Result<T> {
    T::from_value(value)
        .map_err(|error| anyhow!("{error}"))
        .context("a value of the state that this program does not know")
}

fn party(record: Record, value: &PartyRecord) -> Record {
    record
        .with_option("organisation", value.organisation.map(|code| code.as_str().to_owned()))
        .with("roles", value.roles.iter().map(Role::as_str).collect::<Vec<_>>())
        .with("suspended", value.suspended)
        .with("keys", value.keys.iter().map(|(id, suite)| format!("{id} {suite}")).collect::<Vec<_>>())
        .with("tls_pins", value.tls_pins.iter().map(Hash::to_hex).collect::<Vec<_>>())
        .with("enrolled_ms", value.enrolled_ms)
}

fn key(record: Record, value: &KeyRecord) -> Record {
    record
        .with("party", value.party.to_hex())
        .with("suite", value.key.suite.as_str())
        .with("public_key", hex::encode(&*value.key.public_key))
        .with("enrolled_height", value.enrolled.0)
        .with_option("ended_height", value.ended.as_ref().map(|end| end.height.0))
        .with_option("ended_reason", value.ended.as_ref().map(|end| end.reason.as_str()))
}

fn anchor(record: Record, value: &RecordAnchor) -> Record {
    record
        .with("issuer", value.issuer.to_hex())
        .with("class", value.class.as_str())
        .with("schema", value.schema)
        .with_option("subject", value.subject.map(hex::encode))
        .with_option("place", value.place.map(PlaceCode::get))
        .with("event_day", value.event_day)
        .with("sensitivity", value.sensitivity.as_str())
        .with("retention", value.retention)
        .with("policy", value.policy.to_hex())
        .with("commitment", value.commitment.to_hex())
        .with_option("body_root", value.body_root.map(|root| root.to_hex()))
        .with_option("on_behalf_of", value.on_behalf_of.map(|party| party.to_hex()))
        .with("version", value.version)
        .with("index", value.index.0)
        .with_option("previous", value.previous.map(|index| index.0))
}

fn asset(record: Record, value: &AssetRecord) -> Record {
    let certificate = &value.certificate;
    record
        .with("number", value.number.to_text())
        .with("kind", certificate.kind.as_str())
        .with("region", certificate.region.get())
        .with("holder", certificate.holder.to_hex())
        .with("registrar", value.registrar.to_hex())
        .with("rights", certificate.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>())
        .with("origin", certificate.origin.as_str())
        .with("class", certificate.class.as_str())
        .with("sensitivity", certificate.sensitivity.as_str())
        .with("schema", certificate.schema)
        .with("records", certificate.records)
        .with("bytes", certificate.bytes)
        .with("content_root", certificate.content_root.to_hex())
        .with("content_hash", certificate.content_hash.as_str())
        .with_option("valid_until_day", certificate.valid_until_day)
        .with("index", value.index.0)
        .with("registered_ms", value.registered_ms)
        .with_option("ended", value.ended.as_ref().map(|end| end.reason.as_str()))
}

fn mandate(record: Record, value: &MandateRecord) -> Record {
    let word = |number: &u8| Family::from_number(*number).map_or("unassigned", Family::as_str);
    record
        .with("grantor", value.grantor.to_hex())
        .with("grantee", value.grantee.to_hex())
        .with("families", value.families.iter().map(word).collect::<Vec<_>>())
        .with("valid_from_ms", value.valid_from_ms)
        .with("valid_until_ms", value.valid_until_ms)
        .with_option("withdrawn_ms", value.withdrawn_ms)
}

fn proposal(record: Record, value: &ProposalRecord) -> Record {
    let word = Command::SCHEMA.iter().find(|(number, ..)| *number == value.command_number).map(|(_, word, _)| *word);
    record
        .with("proposer", value.proposer.to_hex())
        .with_option("command", word)
        .with("command_hash", value.command_hash.to_hex())
        .with("expires_ms", value.expires_ms)
        .with_option("decision", value.decision.as_ref().map(|decision| decision.kind.as_str()))
        .with_option("decided_by", value.decision.as_ref().map(|decision| decision.party.to_hex()))
}

fn standing(record: Record, value: &StandingRecord) -> Record {
    let newest = value.newest.as_ref();
    record
        .with("admitted_ms", value.admitted_ms)
        .with_option("passed_ms", value.passed_ms)
        .with_option("newest_verdict", newest.map(|newest| newest.verdict.as_str()))
        .with_option("newest_ms", newest.map(|newest| newest.time_ms))
        .with_option("reporter", newest.map(|newest| newest.reporter.to_hex()))
        .with_option("evidence", newest.map(|newest| newest.evidence.to_hex()))
        .with_option("policy", newest.map(|newest| newest.policy.to_hex()))
}
