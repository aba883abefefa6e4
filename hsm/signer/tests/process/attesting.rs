//! What its TPM says.

use std::fs;

use stele_evidence::{
    EvidencePackage, HashAlgorithm, NONCE_LENGTH, Policy, Public, appraise_package,
    package::{KeyEvidence, KeyProof, KeyProvider, PackageExpectation},
    policy::{PcrRule, Prediction},
};
use stele_hsm::{
    CheckpointRequest,
    remote::wire::{self, Log, Role},
};

use crate::{
    host::{Backing, Host, genesis},
    ledger::checkpoint,
};

#[test]
fn quotes_name_nonce_and_head_and_the_identity_answers_for_every_key() {
    let host = Host::running(Backing::TpmAndToken);
    let attestor = host.socket().attestor();
    let identity = host.runtime.block_on(attestor.identity()).unwrap();
    let [seal, validator] = &identity.keys[..] else { panic!("two keys") };
    assert_eq!((seal.key.role, seal.key.provider.as_str()), (Role::Seal, "pkcs11"));
    assert_eq!((validator.key.role, validator.key.provider.as_str()), (Role::Validator, "tpm"));
    assert_eq!(host.runtime.block_on(attestor.identity()).unwrap(), identity, "certified once");

    let (nonce, bytes) = ([7; NONCE_LENGTH], checkpoint(genesis().network(), 7, 1));
    let head = CheckpointRequest { tree_size: 7, root: [1; 32], sig_structure: &bytes };
    let quote = host.runtime.block_on(attestor.quote(nonce, &head, &[0, 4, 7, 11])).unwrap();
    let name = Public::parse_sized(&identity.attestation_key).unwrap().name();
    let mut package = EvidencePackage {
        nonce,
        sig_structure: bytes.clone(),
        quote_message: quote.message,
        quote_signature: quote.signature,
        pcrs: quote.pcrs,
        attestation_key: identity.attestation_key.clone(),
        event_log: None,
        ima_log: None,
        manifest: None,
        keys: identity.keys.iter().cloned().map(evidence).collect(),
    };
    // No firmware has measured anything.
    let untouched = Prediction::from_events(HashAlgorithm::Sha256, Vec::new());
    let policy = Policy {
        bank: HashAlgorithm::Sha256,
        pcrs: [4, 11].map(|pcr| PcrRule { pcr, allowed: vec![untouched.clone()] }).into(),
        event_log_required: false,
        extended_after_boot: [].into(),
        ima: None,
        firmware_versions: [].into(),
    };
    let judge = |package: &EvidencePackage, nonce: &[u8; NONCE_LENGTH]| {
        let expectation = PackageExpectation {
            nonce,
            attestation_key_name: &name,
            policy: &policy,
            previous: None,
            keys: None,
            keys_proven: true,
            endorsement: None,
        };
        appraise_package(package, &expectation)
    };
    let verdict = judge(&package, &nonce);
    assert!(verdict.passed, "{:?}", verdict.reasons);
    assert!(!judge(&package, &[8; NONCE_LENGTH]).passed, "another nonce");
    package.sig_structure = checkpoint(genesis().network(), 8, 1);
    assert!(!judge(&package, &nonce).passed, "another head");
    // Another root than the bytes say is not quoted at all.
    let lie = CheckpointRequest { root: [2; 32], ..head };
    let error = host.runtime.block_on(attestor.quote(nonce, &lie, &[])).unwrap_err();
    assert_eq!(error.code(), "malformed_request");
}

fn evidence(key: wire::KeyEvidence) -> KeyEvidence {
    let (provider, proof) = match (key.certification, key.quote) {
        (Some(certification), None) => (KeyProvider::Tpm, KeyProof::from(certification)),
        (None, Some(quote)) => (KeyProvider::Pkcs11, KeyProof::from(quote)),
        other => panic!("one proof: {other:?}"),
    };
    KeyEvidence { name: key.key.role.name().into(), provider, spki: key.spki, proof: Some(proof) }
}

#[test]
fn logs_are_given_as_they_are_and_missing_ones_are_missing() {
    let host = Host::running(Backing::Tpm);
    let attestor = host.socket().attestor();
    let read = |log| host.runtime.block_on(attestor.log(log));
    assert_eq!(read(Log::Boot).unwrap(), None);
    fs::write(host.path("boot.log"), vec![9; 200_000]).unwrap();
    assert_eq!(read(Log::Boot).unwrap().unwrap(), vec![9; 200_000]);
    fs::write(host.path("ima.log"), "").unwrap();
    assert_eq!(read(Log::Ima).unwrap().unwrap(), b"");
    // Longer than an answer may be.
    let long = fs::File::create(host.path("manifest.json")).unwrap();
    long.set_len(64 << 20).unwrap();
    assert_eq!(read(Log::Manifest).unwrap_err().code(), "attestation_log");
}

#[test]
fn a_signer_without_a_tpm_says_that_it_cannot_attest() {
    let host = Host::running(Backing::Files);
    let error = host.runtime.block_on(host.socket().attestor().identity()).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("attestation_missing", false));
}
