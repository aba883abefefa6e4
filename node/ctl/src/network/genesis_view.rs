//! `genesis.json`: what a genesis file says, for people. Nothing reads it back.

use serde_json::{Value, json};
use stele_types::party::Role;
use stele_types::{Genesis, Hash};

/// The genesis as JSON: ids and keys in hexadecimal, roles and suites as words.
pub fn genesis_view(genesis: &Genesis) -> Value {
    let parameters = &genesis.parameters;
    json!({
        "network": genesis.network().to_hex(),
        "name": &*genesis.name,
        "region": genesis.region.get(),
        "time_ms": genesis.time_ms,
        "parameters": {
            "protocol_version": parameters.protocol_version,
            "suites": parameters.suites.iter().map(|rule| json!({"suite": rule.suite.as_str(), "version": rule.version})).collect::<Vec<_>>(),
            "state_hash": parameters.state_hash.as_str(),
            "block_bytes_max": parameters.block_bytes_max,
            "block_statements_max": parameters.block_statements_max,
            "statement_bytes_max": parameters.statement_bytes_max,
            "replay_past_ms": parameters.replay_past_ms,
            "replay_future_ms": parameters.replay_future_ms,
            "clock_ahead_ms": parameters.clock_ahead_ms,
            "clock_behind_ms": parameters.clock_behind_ms,
            "heartbeat_ms": parameters.heartbeat_ms,
            "proposal_life_ms": parameters.proposal_life_ms,
            "attestation": parameters.attestation.as_ref().map(|rule| json!({"verdict_life_ms": rule.verdict_life_ms})),
        },
        "validators": genesis.validators.iter().map(|validator| json!({
            "validator": validator.id().to_hex(),
            "public_key": hex::encode(validator.public_key),
            "peer_id": hex::encode(validator.peer_id()),
            "party": validator.party.to_hex(),
        })).collect::<Vec<_>>(),
        "epoch_certificates": genesis.epoch_certificates.iter().map(|certificate| json!({
            "validator": certificate.validator.to_hex(),
            "public_key": hex::encode(certificate.public_key),
            "from_height": certificate.from_height.0,
            "until_height": certificate.until_height.0,
        })).collect::<Vec<_>>(),
        "founders": genesis.founders.iter().map(|founder| json!({
            "party": founder.party.to_hex(),
            "roles": founder.roles.iter().map(Role::as_str).collect::<Vec<_>>(),
            "suite": founder.key.suite.as_str(),
            "key": founder.key.id().to_hex(),
            "public_key": hex::encode(&*founder.key.public_key),
            "tls_pins": founder.tls_pins.iter().map(Hash::to_hex).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}
