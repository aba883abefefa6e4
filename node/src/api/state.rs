//! Values of the state with proofs: parties, keys, records, assets, certificates, mandates, proposals, validators.

use axum::Extension;
use axum::extract::{RawQuery, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use stele_ledger::value::{
    AssetRecord, CertificateRecord, KeyRecord, MandateRecord, PartyRecord, ProposalRecord, RecordAnchor, StandingRecord,
};
use stele_ledger::{StateKey, Stored};
use stele_types::asset::CertificateNumber;
use stele_types::exchange::StateProof;
use stele_types::party::Role;
use stele_types::{Family, Height, KeyId, ObjectId, PartyId, StatementId, ValidatorId};

use super::access::Caller;
use super::backend::{Backend, BackendError};
use super::cache;
use super::format::{self, CBOR_SEQUENCE, JSON};
use super::parameters::{Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::view::{OctetsView, StateProofView};
use crate::metrics::label::ProofKind;

/// What is asked for.
#[derive(Clone, Debug)]
enum Query {
    Party(PartyId),
    Key(KeyId),
    Record(ObjectId),
    Asset(ObjectId),
    Certificate(CertificateNumber),
    Mandate(ObjectId),
    Proposal(StatementId),
    Validator(ValidatorId),
}

/// Who may read a value.
enum Readers {
    /// Anyone: certificates are public.
    Anyone,
    /// Every party.
    Parties,
    /// The parties concerned, those of a role, and regulators.
    Concerned(Vec<PartyId>, Option<Role>),
}

impl Query {
    fn read(kind: &str, id: &str) -> Result<Self, Problem> {
        let expected = match kind {
            "certificate" => "a certificate number with its check digits, as printed",
            "proposal" | "validator" => "an id: 64 hexadecimal digits, lower case",
            _ => "an id: 32 hexadecimal digits, lower case",
        };
        let query = match kind {
            "party" => PartyId::from_hex(id).map(Self::Party),
            "key" => KeyId::from_hex(id).map(Self::Key),
            "record" => ObjectId::from_hex(id).map(Self::Record),
            "asset" => ObjectId::from_hex(id).map(Self::Asset),
            "certificate" => CertificateNumber::parse(id).map(Self::Certificate),
            "mandate" => ObjectId::from_hex(id).map(Self::Mandate),
            "proposal" => StatementId::from_hex(id).map(Self::Proposal),
            "validator" => ValidatorId::from_hex(id).map(Self::Validator),
            _ => {
                let kinds = "party, key, record, asset, certificate, mandate, proposal or validator";
                return Err(Problem::parameter("kind", kinds));
            }
        };
        query.ok_or_else(|| Problem::parameter("id", expected))
    }

    fn key(&self) -> StateKey {
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

    /// Who may learn that there is no such value. Ids of objects are not to be probed by others.
    fn absence_readers(&self) -> Readers {
        match self {
            Self::Certificate(_) => Readers::Anyone,
            Self::Party(_) | Self::Key(_) | Self::Proposal(_) | Self::Validator(_) => Readers::Parties,
            Self::Record(_) | Self::Asset(_) | Self::Mandate(_) => Readers::Concerned(Vec::new(), None),
        }
    }

    /// The value as people read it, and who may.
    fn describe(&self, value: &[u8]) -> Result<(Value, Readers), stele_types::cbor::CborError> {
        Ok(match self {
            Self::Party(_) => (party(&PartyRecord::from_value(value)?), Readers::Parties),
            Self::Key(_) => (key(&KeyRecord::from_value(value)?), Readers::Parties),
            Self::Record(_) => {
                let anchor = RecordAnchor::from_value(value)?;
                let parties = std::iter::once(anchor.issuer).chain(anchor.on_behalf_of).collect();
                (record(&anchor), Readers::Concerned(parties, None))
            }
            Self::Asset(_) => {
                let asset_record = AssetRecord::from_value(value)?;
                let parties = vec![asset_record.registrar, asset_record.certificate.holder];
                (asset(&asset_record), Readers::Concerned(parties, Some(Role::Registrar)))
            }
            Self::Certificate(_) => {
                let certificate = CertificateRecord::from_value(value)?;
                (json!({ "asset": certificate.asset.to_hex() }), Readers::Anyone)
            }
            Self::Mandate(_) => {
                let mandate_record = MandateRecord::from_value(value)?;
                let parties = vec![mandate_record.grantor, mandate_record.grantee];
                (mandate(&mandate_record), Readers::Concerned(parties, None))
            }
            Self::Proposal(_) => {
                let proposal_record = ProposalRecord::from_value(value)?;
                let parties = vec![proposal_record.proposer];
                (proposal(&proposal_record), Readers::Concerned(parties, Some(Role::Governor)))
            }
            Self::Validator(_) => (standing(&StandingRecord::from_value(value)?), Readers::Parties),
        })
    }
}

impl Readers {
    fn include(&self, caller: &Caller) -> bool {
        match self {
            Self::Anyone => true,
            Self::Parties => caller.is_party(),
            Self::Concerned(parties, role) => {
                caller.is_regulator()
                    || parties.iter().any(|party| caller.is(party))
                    || role.is_some_and(|role| caller.has(role))
            }
        }
    }
}

/// A value of the state with its proof. For a certificate number two values: the asset's id, and the asset.
#[utoipa::path(
    get, path = "/v1/state/{kind}/{id}", tag = "state",
    params(
        ("kind" = String, Path, description = "`party`, `key`, `record`, `asset`, `certificate`, `mandate`, `proposal` or `validator`, how it stands with regulators"),
        ("id" = String, Path, description = "Id in hexadecimal, or the number of a certificate as printed"),
        ("from" = Option<u64>, Query, description = "Height whose validators the caller trusts: the chain begins there. 1 by default"),
    ),
    responses(
        (status = 200, description = "The values with proofs; a value that is absent is proven absent",
            content((Vec<StateProofView> = "application/json"), (OctetsView = "application/cbor-seq"))),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn state(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named((kind, id)): Named<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = Parameters::read(query.as_deref(), &["from"])?.from()?;
    let form = format::choose(&headers, &[JSON, CBOR_SEQUENCE])?;
    let query = Query::read(&kind, &id)?;
    // Without a certificate only certificates can be asked for, whatever there is.
    if !matches!(query, Query::Certificate(_)) {
        caller.party()?;
    }
    let answer = state.read(move |backend| read(backend, &caller, &query, from)).await;
    state.metrics.log.proof(ProofKind::State, matches!(answer, Ok(Some(_))));
    let found = answer?.ok_or_else(|| Problem::not_found("value"))?;
    Ok(cache::volatile(if form == JSON {
        format::json(&found.iter().map(view).collect::<Vec<_>>())
    } else {
        format::cbor_sequence(&found.into_iter().map(|(proof, _)| proof).collect::<Vec<_>>())
    }))
}

type Found = (StateProof, Option<Value>);

fn read(
    backend: &dyn Backend,
    caller: &Caller,
    query: &Query,
    from: Height,
) -> Result<Option<Vec<Found>>, BackendError> {
    let Some(first) = read_one(backend, caller, query, from)? else { return Ok(None) };
    let mut found = vec![first];
    if let (Query::Certificate(_), (StateProof { value: Some(value), .. }, _)) = (query, &found[0]) {
        let certificate = CertificateRecord::from_value(value).map_err(|error| BackendError::Failed(error.into()))?;
        let asset_query = Query::Asset(certificate.asset);
        let proof = backend.prove_state(&asset_query.key(), from)?;
        // Who knows the number may read the certificate: this is the one way to an asset that is open to all.
        let described = described(&asset_query, &proof)?.map(|(value, _)| value);
        found.push((proof, described));
    }
    Ok(Some(found))
}

fn read_one(
    backend: &dyn Backend,
    caller: &Caller,
    query: &Query,
    from: Height,
) -> Result<Option<Found>, BackendError> {
    let proof = backend.prove_state(&query.key(), from)?;
    let (value, readers) = match described(query, &proof)? {
        Some((value, readers)) => (Some(value), readers),
        None => (None, query.absence_readers()),
    };
    Ok(readers.include(caller).then_some((proof, value)))
}

fn described(query: &Query, proof: &StateProof) -> Result<Option<(Value, Readers)>, BackendError> {
    let Some(value) = &proof.value else { return Ok(None) };
    query.describe(value).map(Some).map_err(|error| BackendError::Failed(error.into()))
}

fn view((proof, value): &Found) -> StateProofView {
    StateProofView {
        key: proof.key.to_hex(),
        record: value.clone(),
        value: proof.value.as_ref().map(|value| hex::encode(&**value)),
        proof: hex::encode(&*proof.proof),
        root: proof.root.to_hex(),
        height: proof.height.0,
        certified_by: proof.certified_by.as_ref().map(Into::into),
    }
}

fn party(record: &PartyRecord) -> Value {
    json!({
        "organisation": record.organisation.map(|code| code.as_str().to_owned()),
        "roles": record.roles.iter().map(Role::as_str).collect::<Vec<_>>(),
        "suspended": record.suspended,
        "keys": record.keys.iter().map(|(id, suite)| json!({ "id": id.to_hex(), "suite": suite.as_str() }))
            .collect::<Vec<_>>(),
        "tls_pins": record.tls_pins.iter().map(stele_types::Hash::to_hex).collect::<Vec<_>>(),
        "enrolled_ms": record.enrolled_ms,
    })
}

fn key(record: &KeyRecord) -> Value {
    json!({
        "party": record.party.to_hex(),
        "suite": record.key.suite.as_str(),
        "public_key": hex::encode(&*record.key.public_key),
        "enrolled_height": record.enrolled.0,
        "ended": record.ended.as_ref().map(|end| json!({ "height": end.height.0, "reason": end.reason.as_str() })),
    })
}

fn record(anchor: &RecordAnchor) -> Value {
    json!({
        "issuer": anchor.issuer.to_hex(),
        "class": anchor.class.as_str(),
        "schema": anchor.schema,
        "subject": anchor.subject.map(hex::encode),
        "place": anchor.place.map(stele_types::record::PlaceCode::get),
        "event_day": anchor.event_day,
        "sensitivity": anchor.sensitivity.as_str(),
        "retention": anchor.retention,
        "policy": anchor.policy.to_hex(),
        "commitment": anchor.commitment.to_hex(),
        "body_root": anchor.body_root.map(|root| root.to_hex()),
        "body_hash": anchor.body_hash.map(stele_types::record::ContentHash::as_str),
        "on_behalf_of": anchor.on_behalf_of.map(|party| party.to_hex()),
        "version": anchor.version,
        "index": anchor.index.0,
        "previous": anchor.previous.map(|index| index.0),
    })
}

fn asset(record: &AssetRecord) -> Value {
    let certificate = &record.certificate;
    json!({
        "number": record.number.to_text(),
        "registrar": record.registrar.to_hex(),
        "index": record.index.0,
        "registered_ms": record.registered_ms,
        "asset": certificate.asset.to_hex(),
        "kind": certificate.kind.as_str(),
        "region": certificate.region.get(),
        "holder": certificate.holder.to_hex(),
        "rights": certificate.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>(),
        "origin": certificate.origin.as_str(),
        "class": certificate.class.as_str(),
        "sensitivity": certificate.sensitivity.as_str(),
        "schema": certificate.schema,
        "records": certificate.records,
        "bytes": certificate.bytes,
        "first_day": certificate.first_day,
        "last_day": certificate.last_day,
        "content_root": certificate.content_root.to_hex(),
        "content_hash": certificate.content_hash.as_str(),
        "quality_report": certificate.quality_report.map(|hash| hash.to_hex()),
        "compliance_opinion": certificate.compliance_opinion.map(|hash| hash.to_hex()),
        "valid_until_day": certificate.valid_until_day,
        "ended": record.ended.as_ref().map(|end| json!({
            "reason": end.reason.as_str(), "index": end.index.0, "time_ms": end.time_ms,
        })),
    })
}

fn mandate(record: &MandateRecord) -> Value {
    let word = |number: &u8| Family::from_number(*number).map_or("unassigned", Family::as_str);
    json!({
        "grantor": record.grantor.to_hex(),
        "grantee": record.grantee.to_hex(),
        "families": record.families.iter().map(word).collect::<Vec<_>>(),
        "valid_from_ms": record.valid_from_ms,
        "valid_until_ms": record.valid_until_ms,
        "withdrawn_ms": record.withdrawn_ms,
    })
}

fn proposal(record: &ProposalRecord) -> Value {
    json!({
        "proposer": record.proposer.to_hex(),
        "command": stele_types::Command::SCHEMA.iter().find(|(number, _, _)| *number == record.command_number)
            .map(|(_, word, _)| *word),
        "command_hash": record.command_hash.to_hex(),
        "expires_ms": record.expires_ms,
        "decision": record.decision.as_ref().map(|decision| json!({
            "kind": decision.kind.as_str(), "party": decision.party.to_hex(), "time_ms": decision.time_ms,
        })),
    })
}

fn standing(record: &StandingRecord) -> Value {
    json!({
        "admitted_ms": record.admitted_ms,
        "passed_ms": record.passed_ms,
        "newest": record.newest.as_ref().map(|newest| json!({
            "verdict": newest.verdict.as_str(), "time_ms": newest.time_ms, "reporter": newest.reporter.to_hex(),
            "evidence": newest.evidence.to_hex(), "policy": newest.policy.to_hex(),
        })),
    })
}
