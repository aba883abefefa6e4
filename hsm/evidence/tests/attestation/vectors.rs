//! Evidence that was recorded once must be judged the same for ever. `STELE_UPDATE_VECTORS=1` records it anew.

use std::{fs, path::PathBuf};

use stele_evidence::{Policy, Public};

use crate::{
    boot,
    platform::{Files, Platform, SELECTION, codes},
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap()
}

/// The recorded evidence and its policy; qualified by `0a…`.
pub(crate) fn recorded() -> (Files, Policy) {
    let files = Files {
        quote: read("quote.msg"),
        signature: read("quote.sig"),
        pcrs: read("quote.pcrs"),
        attestation_key: read("ak.pub"),
        event_log: Some(read("event_log")),
        ima_log: None,
    };
    (files, serde_json::from_slice(&read("policy.json")).unwrap())
}

#[test]
fn recorded_evidence_still_passes() {
    if std::env::var_os("STELE_UPDATE_VECTORS").is_some() {
        record();
    }
    let (files, policy) = recorded();
    let verdict = files.verdict(&[0x0a; 32], &policy, None);
    assert!(verdict.passed, "{verdict}");
    assert_eq!(codes(&files.verdict(&[0x0b; 32], &policy, None)), ["qualifying_data_differs"]);
    assert_eq!(Public::parse_sized(&files.attestation_key).unwrap().name().as_bytes(), read("ak.name"));
}

fn record() {
    let platform = Platform::new("ecc", "ecdsa");
    let events = boot::boot();
    boot::extend(&platform.tpm, &events);
    let files = platform.quote(SELECTION, &[0x0a; 32]);
    let policy = serde_json::to_vec_pretty(&boot::policy(&events, &[4, 7, 11])).unwrap();
    let log = boot::log(&events);
    fs::create_dir_all(directory()).unwrap();
    for (name, bytes) in [
        ("quote.msg", &files.quote),
        ("quote.sig", &files.signature),
        ("quote.pcrs", &files.pcrs),
        ("ak.pub", &files.attestation_key),
        ("ak.name", &platform.tpm.read("ak.name")),
        ("ek.pub", &platform.tpm.read("ek.pub")),
        ("event_log", &log),
        ("policy.json", &policy),
    ] {
        fs::write(directory().join(name), bytes).unwrap();
    }
}
