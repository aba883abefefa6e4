//! Keylime as it judges evidence without an agent, with the policy module and configuration that we ship.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use stele_evidence::{Digest, EvidencePackage, HashAlgorithm, Policy};
use tempfile::TempDir;

use crate::{
    swtpm::run,
    verdicts::{NONCE, booted},
};

/// Python with Keylime, where `cargo xtask setup` put it. `None`, and says so, if it is missing; on CI that is a failure.
#[expect(clippy::print_stdout, reason = "a test that is not run says why")]
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let python = cache.unwrap_or_default().join("stele/keylime/bin/python");
    if python.exists() {
        return Some(python);
    }
    println!("not run: there is no {}; `cargo xtask setup` gets it", python.display());
    assert!(std::env::var_os("CI").is_none(), "CI runs every test: keylime is missing");
    None
}

/// Keylime's verdict on a package: whether it is valid, and the types of its failures.
fn judge(python: &Path, package: &EvidencePackage, nonce: &[u8; 32], policy: &Policy) -> (bool, Vec<String>) {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("package.tar"), package.to_tar().unwrap()).unwrap();
    std::fs::write(path("policy.json"), serde_json::to_vec(policy).unwrap()).unwrap();
    std::fs::create_dir(path("files")).unwrap();
    run(Command::new("tar").args(["-xf", "package.tar", "-C", "files"]).current_dir(directory.path()), "tar", "tar")
        .unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/attestation/keylime");
    let mut command = Command::new(python);
    command.arg(shipped.join("verify.py")).args(["files", &hex::encode(nonce), "policy.json"]);
    command.env("PYTHONPATH", &shipped).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("KEYLIME_VERIFIER_CONFIG", shipped.join("verifier.conf")).current_dir(directory.path());
    let output = command.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no verdict: {}", String::from_utf8_lossy(&output.stderr)));
    let valid = said["valid"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if valid { 0 } else { 4 }));
    let failures = said["failures"].as_array().unwrap().iter();
    (valid, failures.map(|failure| failure["type"].as_str().unwrap().to_owned()).collect())
}

fn has(failures: &[String], what: &str) -> bool {
    failures.iter().any(|failure| failure.ends_with(what))
}

#[test]
fn keylime_passes_our_evidence_and_finds_a_wrong_pcr_and_a_tampered_log() {
    let Some(python) = python() else { return };
    let (_, package, policy) = booted();
    assert_eq!(judge(&python, &package, &NONCE, &policy), (true, vec![]));
    // Another release: a PCR has another value than it predicts. Allow-list and log's policy both say so.
    let mut other = policy.clone();
    let rule = other.pcrs.iter_mut().find(|rule| rule.pcr == 11).unwrap();
    rule.allowed[0].value = Digest::filled(HashAlgorithm::Sha256, 7);
    let (valid, failures) = judge(&python, &package, &NONCE, &other);
    assert!(!valid && has(&failures, "invalid_pcr_11") && has(&failures, "policy_stele-uki"), "{failures:?}");
    // A log that says that another image ran, and one with an event more: the default policy of Keylime passes both.
    let mut tampered = package.clone();
    let log = tampered.event_log.as_mut().unwrap();
    let image = HashAlgorithm::Sha256.digest(&[b"node.efi"]);
    let at = log.windows(32).position(|window| window == image.as_bytes()).unwrap();
    log[at] ^= 1;
    let (valid, failures) = judge(&python, &tampered, &NONCE, &policy);
    assert!(!valid && has(&failures, "invalid_pcr_4") && has(&failures, "policy_stele-uki"), "{failures:?}");
    let mut longer = package.clone();
    let events = crate::boot::boot();
    crate::boot::append(longer.event_log.as_mut().unwrap(), &events[2]);
    let (valid, failures) = judge(&python, &longer, &NONCE, &policy);
    assert!(!valid && has(&failures, "invalid_pcr_7"), "{failures:?}");
    let (valid, failures) = judge(&python, &package, &[1; 32], &policy);
    assert!(!valid && has(&failures, "quote_validation"), "{failures:?}");
}
