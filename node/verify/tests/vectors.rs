//! Test vectors for other implementers: signatures, receipts and bundles with the verdict that they deserve.
//!
//! `docs/vectors/proofs.json` is written when `STELE_UPDATE_VECTORS` is set and compared otherwise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod fixture;

use std::fmt::Write as _;
use std::path::Path;

use fixture::{Network, certify};
use serde_json::{Value, json};
use stele_types::cbor::{self, List};
use stele_types::{Bundle, Hash};
use stele_verify::{Expectation, TrustAnchor, Verdict, VerifyError, bundle, receipt, verdict};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a verification says, as the file writes it.
fn said(result: &Result<Verdict, VerifyError>) -> Value {
    match result {
        Err(_) => json!({ "verdict": "invalid", "exit": verdict::EXIT_INVALID }),
        Ok(verdict) => {
            let mut said = json!({
                "verdict": verdict.as_str(), "exit": verdict.exit_code(), "statement": verdict.statement().to_hex(),
            });
            match verdict {
                Verdict::Registered(registered) => said["index"] = registered.index.0.into(),
                Verdict::Rejected(rejected) => said["code"] = rejected.code.as_str().into(),
                Verdict::VouchedByOneNode(vouched) => said["index"] = vouched.index.0.into(),
            }
            said
        }
    }
}

fn bundles(network: &Network, anchor: &TrustAnchor) -> Vec<Value> {
    let old_members = Network::new("north").members;
    let sound = network.bundle(4);
    let mut foreign = Network::with_history("south").bundle(1);
    foreign.header.time_ms += 1;
    let signed_by = |signers: &[usize]| {
        let bundle = network.bundle(1);
        Bundle { certificate: certify(&bundle.header, &old_members, signers), ..bundle }
    };
    let mut wrong_leaf = network.bundle(1);
    wrong_leaf.entry = network.bundle(2).entry;
    let mut rejected_as_registered = network.bundle(3);
    rejected_as_registered.outcome = None;
    rejected_as_registered.receipt = network.bundle(1).receipt;
    rejected_as_registered.checkpoint_key = network.bundle(1).checkpoint_key;
    let mut flipped = network.bundle(1);
    flipped.receipt.as_mut().unwrap().signature[0] ^= 1;
    let listed = [
        ("registered before the validators change", network.bundle(1)),
        ("registered after the validators change", sound.clone()),
        ("rejected", network.bundle(3)),
        ("four signatures", signed_by(&[0, 1, 2, 3])),
        ("two signatures", signed_by(&[0, 1])),
        ("one signature counted twice", signed_by(&[0, 1, 1])),
        ("link left out", Bundle { chain: List::default(), ..sound.clone() }),
        (
            "signed by the validators that left",
            Bundle { certificate: certify(&sound.header, &old_members, &[0, 1, 2]), ..sound.clone() },
        ),
        ("epoch certificates left out", Bundle { epoch_certificates: List::default(), ..sound }),
        ("another network", foreign),
        ("wrong leaf", wrong_leaf),
        ("rejected statement with a receipt", rejected_as_registered),
        ("flipped bit in the checkpoint's signature", flipped),
    ];
    let mut values = Vec::new();
    for (position, (name, bundle)) in listed.into_iter().enumerate() {
        let bytes = cbor::to_vec(&bundle);
        let result = bundle::verify_bytes(&bytes, anchor, &Expectation::default());
        assert_eq!(result.is_ok(), position < 4, "{name}: {result:?}");
        values.push(json!({ "name": name, "bundle": hex(&bytes), "says": said(&result) }));
    }
    values
}

#[test]
fn proofs_are_published() {
    let network = Network::with_history("north");
    let genesis = network.genesis.to_bytes();
    let anchor = TrustAnchor::genesis(&genesis).unwrap();
    let key = network.public_checkpoint_key();
    let receipts: Vec<Value> = [("good", 2), ("wrong leaf", 1)]
        .into_iter()
        .map(|(name, number)| {
            let (bytes, entry) = (cbor::to_vec(&network.receipt(1, 7)), network.entry(number));
            let result = receipt::verify_bytes(&bytes, &entry, &key);
            assert_eq!(result.is_ok(), name == "good");
            json!({ "name": name, "receipt": hex(&bytes), "entry": hex(&entry), "says": said(&result) })
        })
        .collect();
    let state: Vec<Value> = network
        .state
        .pairs()
        .iter()
        .map(|(key, value)| (*key, Some(value.clone())))
        .chain([([7; 32], None)])
        .map(|(key, value)| {
            let proof = network.state.prove(&key).encode();
            json!({ "key": hex(&key), "value": value.map(|value| hex(&value)), "proof": hex(&proof) })
        })
        .collect();
    let signatures: Vec<Value> = cases::all()
        .into_iter()
        .map(|case| {
            json!({
                "suite": case.suite.as_str(), "name": case.name, "public_key": hex(&case.public_key),
                "message": hex(&case.message), "signature": hex(&case.signature), "accepted": case.accepted,
            })
        })
        .collect();
    let document = json!({
        "about": "Signatures at the edges of the acceptance rules; a small network's genesis file, with receipts, bundles and state proofs and what a verifier must say of them. Bytes are hexadecimal.",
        "signatures": signatures,
        "genesis": hex(&genesis),
        "network": network.id.to_hex(),
        "checkpoint_key": hex(key.as_bytes()),
        "receipts": receipts,
        "bundles": bundles(&network, &anchor),
        "state": { "hash": "sha256", "root": Hash(network.state.root()).to_hex(), "proofs": state },
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors/proofs.json");
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if std::env::var_os("STELE_UPDATE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/vectors/proofs.json differs from the code; set STELE_UPDATE_VECTORS=1 to write it");
}

#[test]
fn exit_codes_are_published() {
    let protocol = include_str!("../../../docs/protocol.md");
    let rows: Vec<&str> = protocol
        .lines()
        .skip_while(|line| !line.starts_with("| exit code |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected = [
        (verdict::EXIT_REGISTERED, "registered"),
        (verdict::EXIT_INVALID, "invalid"),
        (verdict::EXIT_USAGE, "usage"),
        (verdict::EXIT_VOUCHED_BY_ONE_NODE, "vouched by one node"),
        (verdict::EXIT_REJECTED, "rejected"),
        (verdict::EXIT_ABSENT, "a value of the state is absent"),
        (verdict::EXIT_SIGNER_NOT_SHOWN, "registered, but it was asked where the checkpoint key was"),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, (code, meaning)) in rows.iter().zip(expected) {
        assert!(row.starts_with(&format!("| {code} | {meaning}")), "{row}");
    }
}
