//! The ceremony of `stele key ceremony`, with the real program and a real TPM.

use std::{fs, path::PathBuf};

use stele_ctl::{
    ceremony::{Evidence, Pace, Protocol, Script, Step, conduct, examine},
    failure::Failure,
    keys::SigningKey,
};
use stele_hsm::custody::CustodyKey;
use stele_types::Suite;

use crate::host::{Backing, Host};

/// A host with two people, one of whom keeps a share, as does a third who is away.
fn hall() -> (Host, PathBuf) {
    let holder = |name: &str| {
        let key = CustodyKey::generate().unwrap();
        let digits: String = key.public_key().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{{ name = \"{name}\", public_key = \"{digits}\" }}")
    };
    let holders = [holder("anna"), holder("chen")].join(", ");
    let custody = format!("[custody]\nsigner = \"tpm\"\n[custody.shares]\nrequired = 2\nholders = [{holders}]\n");
    let host = Host::configured_with(Backing::TpmAndToken, &custody);
    SigningKey::generate(Suite::Es256).unwrap().save_new(&host.path("anna.key")).unwrap();
    SigningKey::generate(Suite::EdDsa).unwrap().save_new(&host.path("boris.key")).unwrap();
    let script = serde_json::json!({
        "node": "node-1",
        "place": "Room 1",
        "present": [
            { "name": "Anna", "role": "operator", "key": "anna.key" },
            { "name": "Boris", "role": "witness", "key": "boris.key" },
        ],
        "program": env!("CARGO_BIN_EXE_stele-signer"),
        "config": "signer.toml",
        "node_keys": "node-keys.json",
        "shares": "shares",
    });
    let path = host.path("script.json");
    fs::write(&path, script.to_string()).unwrap();
    (host, path)
}

fn code(error: &anyhow::Error) -> String {
    error.downcast_ref::<Failure>().unwrap().code().to_owned()
}

#[test]
fn a_ceremony_leaves_a_protocol_that_all_signed_and_no_change_of_which_holds() {
    let (host, script) = hall();
    // The program finds its token as the host's own runs do.
    let script = Script::load(&script).unwrap();
    let wrapped = host.path("signer.sh");
    let program = env!("CARGO_BIN_EXE_stele-signer");
    let text = format!("#!/bin/sh\nexport SOFTHSM2_CONF='{}'\nexec '{program}' \"$@\"\n", host.shown("softhsm2.conf"));
    fs::write(&wrapped, text).unwrap();
    fs::set_permissions(&wrapped, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = Script { program: wrapped, ..script };
    let protocol = conduct(&script, Pace::Script).unwrap();
    let bytes = protocol.to_bytes().unwrap();
    assert_eq!(Protocol::parse(&bytes).unwrap(), protocol);
    let examined = examine(&protocol).unwrap();
    let shown: Vec<(&str, &str, Evidence)> =
        examined.keys.iter().map(|(key, evidence)| (key.role.as_str(), key.signer.as_str(), *evidence)).collect();
    assert_eq!(
        shown,
        [
            ("validator", "tpm", Evidence::Certified),
            ("seal", "pkcs11", Evidence::Quoted),
            ("custody", "tpm", Evidence::None),
            ("epoch", "software", Evidence::None),
        ]
    );
    assert_eq!(examined.holders, ["anna", "chen"]);
    assert_eq!(examined.endorsement_key_sha256.unwrap().len(), 64);
    let published = fs::read_to_string(host.path("node-keys.json")).unwrap();
    assert!(examined.keys.iter().all(|(key, _)| published.contains(&key.public_key)), "{published}");
    // Nothing in it is secret, and nothing was made twice.
    assert!(!String::from_utf8(bytes.clone()).unwrap().contains("sealed\":"));
    assert_eq!(code(&conduct(&script, Pace::Script).unwrap_err()), "ceremony_step");

    let refused = |change: &dyn Fn(&mut Protocol)| {
        let mut changed = protocol.clone();
        change(&mut changed);
        examine(&changed).unwrap_err().code().to_owned()
    };
    assert_eq!(refused(&|protocol| protocol.place = "Room 2".into()), "ceremony_signature");
    assert_eq!(refused(&|protocol| protocol.present[1].role = "operator".into()), "ceremony_signature");
    assert_eq!(refused(&|protocol| drop(protocol.steps.pop())), "ceremony_signature");
    assert_eq!(refused(&|protocol| protocol.signatures.swap(0, 1)), "ceremony_unsigned");
    assert_eq!(refused(&|protocol| drop(protocol.signatures.pop())), "ceremony_unsigned");
    assert_eq!(refused(&|protocol| protocol.version = "stele/ceremony/v2".into()), "ceremony_malformed");
    assert_eq!(
        refused(&|protocol| {
            protocol.present.clear();
            protocol.signatures.clear();
        }),
        "ceremony_unsigned"
    );
    let text = String::from_utf8(bytes).unwrap();
    for other in
        [text.trim_end().to_owned(), text.replace("{\"node\"", "{ \"node\""), text.replacen("{", "{\"a\":1,", 1)]
    {
        assert_eq!(code(&Protocol::parse(other.as_bytes()).unwrap_err()), "ceremony_not_canonical");
    }
    assert_eq!(code(&Protocol::parse(b"{}").unwrap_err()), "ceremony_malformed");
}

/// Those who were present may sign anything; what the TPM says of the keys has to hold, too.
#[test]
fn what_all_signed_and_the_tpm_did_not_say_does_not_hold() {
    let host = Host::configured_with(Backing::Tpm, "");
    SigningKey::generate(Suite::Es256).unwrap().save_new(&host.path("anna.key")).unwrap();
    let script = Script {
        node: "node-1".into(),
        place: "Room 1".into(),
        present: vec![stele_ctl::ceremony::Participant {
            name: "Anna".into(),
            role: "operator".into(),
            key: host.path("anna.key"),
        }],
        program: env!("CARGO_BIN_EXE_stele-signer").into(),
        config: host.path("signer.toml"),
        node_keys: host.path("node-keys.json"),
        shares: None,
    };
    let protocol = conduct(&script, Pace::Script).unwrap();
    examine(&protocol).unwrap();
    let key = SigningKey::load(&host.path("anna.key")).unwrap();
    let refused = |change: &dyn Fn(&mut Protocol)| {
        let mut changed = protocol.clone();
        change(&mut changed);
        let signature = key.sign(&changed.signing_bytes().unwrap()).unwrap();
        changed.signatures[0].signature = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        examine(&changed).unwrap_err().code().to_owned()
    };
    fn keys(protocol: &mut Protocol) -> &mut Vec<stele_ctl::ceremony::MadeKey> {
        let [_, Step::Keys { keys, .. }, ..] = protocol.steps.as_mut_slice() else { panic!("keys") };
        keys
    }
    assert_eq!(
        refused(&|protocol| {
            let keys = keys(protocol);
            let other = keys[1].public_key.clone();
            keys[0].public_key = other;
        }),
        "ceremony_evidence",
        "the TPM speaks of another key"
    );
    assert_eq!(refused(&|protocol| drop(protocol.steps.pop())), "ceremony_steps", "the TPM said nothing");
    assert_eq!(refused(&|protocol| protocol.steps.swap(0, 1)), "ceremony_steps");
    assert_eq!(
        refused(&|protocol| {
            let Some(Step::Identity { identity, .. }) = protocol.steps.last_mut() else { panic!("identity") };
            identity.keys[0].proof = None;
        }),
        "ceremony_evidence",
        "a key that is said to be in the TPM and is not certified"
    );
    assert_eq!(
        refused(&|protocol| {
            let Some(Step::Identity { endorsement_key_sha256, .. }) = protocol.steps.last_mut() else {
                panic!("identity")
            };
            *endorsement_key_sha256 = "00".repeat(32);
        }),
        "ceremony_evidence"
    );
}
