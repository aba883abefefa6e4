//! Evidence that was recorded once must be judged the same for ever. `STELE_UPDATE_VECTORS=1` records it anew.

use std::{fs, path::PathBuf};

use stele_evidence::{Endorsement, EndorsementAnchors, ImaLog, Policy, Public, verify_endorsement};

use crate::{
    boot, certificates, kernel,
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

#[test]
fn recorded_certificates_still_lead_to_their_authority() {
    let key = Public::parse_sized(&read("rsa_ek.pub")).unwrap();
    let anchors = EndorsementAnchors { authorities: vec![read("root.crt")], fingerprints: Vec::new() };
    let (certificate, issuer) = (read("rsa_ek.crt"), read("issuer.crt"));
    // 2030.
    let verified = verify_endorsement(&key, Some(&certificate), &[&issuer], &anchors, 1_893_456_000);
    assert!(matches!(verified, Ok(Endorsement::Authority { intermediates: 1, .. })), "{verified:?}");
}

#[test]
fn recorded_logs_of_the_kernel_say_the_same_in_both_forms() {
    assert_eq!(ImaLog::parse(&read("ima_log")), ImaLog::parse(&read("ima_log.txt")));
    assert_eq!(ImaLog::parse(&read("ima_log")).unwrap().entries.len(), 2);
}

fn record() {
    let platform = Platform::new("ecc", "ecdsa");
    let events = boot::boot();
    boot::extend(&platform.tpm, &events);
    let files = platform.quote(SELECTION, &[0x0a; 32]);
    let policy = serde_json::to_vec_pretty(&boot::policy(&events, &[4, 7, 11])).unwrap();
    let log = boot::log(&events);
    let (certified, certificate, authorities) = certificates::certified();
    let (ima_log, ima_text) = kernel::sample_logs();
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
        ("rsa_ek.pub", &certified.tpm.read("ek.pub")),
        ("rsa_ek.crt", &certificate),
        ("root.crt", &authorities[0]),
        ("issuer.crt", &authorities[1]),
        ("ima_log", &ima_log),
        ("ima_log.txt", &ima_text),
    ] {
        fs::write(directory().join(name), bytes).unwrap();
    }
}
