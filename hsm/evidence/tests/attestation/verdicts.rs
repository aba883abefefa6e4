//! Packages of a real TPM, judged whole, and straight from the unpacked tar by the tools of others.

use std::process::Command;

use stele_evidence::{
    EvidencePackage, HashAlgorithm, Name, Policy, appraise_package,
    exchange::EnrolledKey,
    key_qualifying_data,
    package::{KeyEvidence, KeyProof, KeyProvider, KeyTrust, PackageExpectation, PackageReason, PackageVerdict},
    quote_qualifying_data,
};

use crate::{
    boot,
    platform::{Platform, SELECTION},
    swtpm::run,
};

pub(crate) const NONCE: [u8; 32] = [0x5a; 32];
const CHECKPOINT: &[u8] = b"\x84\x6aSignature1\x40\x40\x40";
const PREDICTED: [u8; 4] = [4, 7, 9, 11];

/// Some key outside the TPM.
fn spki() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let words = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem";
    let openssl = |words: &str| {
        run(Command::new("openssl").args(words.split(' ')).current_dir(directory.path()), "openssl", "openssl").unwrap()
    };
    openssl(words);
    openssl("pkey -in key.pem -pubout -outform DER -out key.spki");
    std::fs::read(directory.path().join("key.spki")).unwrap()
}

/// A booted platform, its package with a quoted key and one in software, and the policy of its release.
pub(crate) fn booted() -> (Platform, EvidencePackage, Policy) {
    let events = boot::boot();
    let platform = Platform::new("ecc", "ecdsa");
    boot::extend(&platform.tpm, &events);
    let outside = spki();
    let bound = platform.quote(SELECTION, key_qualifying_data(&outside).as_bytes());
    let files = platform.quote(SELECTION, quote_qualifying_data(&NONCE, CHECKPOINT).as_bytes());
    let proof = KeyProof::Quote { message: bound.quote, signature: bound.signature, pcrs: bound.pcrs };
    let package = EvidencePackage {
        nonce: NONCE,
        sig_structure: CHECKPOINT.to_vec(),
        quote_message: files.quote,
        quote_signature: files.signature,
        pcrs: files.pcrs,
        attestation_key: files.attestation_key,
        event_log: Some(boot::log(&events)),
        ima_log: None,
        manifest: None,
        keys: vec![
            KeyEvidence { name: "seal".into(), provider: KeyProvider::Pkcs11, spki: outside, proof: Some(proof) },
            KeyEvidence { name: "validator".into(), provider: KeyProvider::Software, spki: spki(), proof: None },
        ],
    };
    let policy = boot::policy(&events, &PREDICTED);
    (platform, package, policy)
}

fn expectation<'a>(name: &'a Name, policy: &'a Policy) -> PackageExpectation<'a> {
    PackageExpectation {
        nonce: &NONCE,
        attestation_key_name: name,
        policy,
        previous: None,
        keys: None,
        keys_proven: false,
        endorsement: None,
    }
}

fn codes(verdict: &PackageVerdict) -> Vec<&'static str> {
    assert_eq!(verdict.passed, verdict.reasons.is_empty());
    verdict.reasons.iter().map(PackageReason::code).collect()
}

#[test]
fn a_package_passes_in_every_encoding_and_says_what_is_shown_of_its_keys() {
    let (platform, package, policy) = booted();
    let name = platform.attestation_key().name();
    for encoding in stele_evidence::package::PackageEncoding::ALL {
        let read = EvidencePackage::decode(&package.encode(encoding).unwrap()).unwrap();
        let verdict = appraise_package(&read, &expectation(&name, &policy));
        assert!(verdict.passed, "{verdict}");
        assert_eq!(verdict.checkpoint, HashAlgorithm::Sha256.digest(&[CHECKPOINT]));
        let trust: Vec<KeyTrust> = verdict.keys.iter().map(|key| key.trust).collect();
        assert_eq!(trust, [KeyTrust::Quoted, KeyTrust::Unproven]);
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!((&json["passed"], &json["keys"][0]["trust"]), (&true.into(), &"quoted".into()));
    }
}

#[test]
fn another_nonce_another_checkpoint_and_another_key_are_named() {
    let (platform, package, policy) = booted();
    let name = platform.attestation_key().name();
    let asked = expectation(&name, &policy);
    let other = PackageExpectation { nonce: &[1; 32], ..asked };
    assert_eq!(codes(&appraise_package(&package, &other)), ["qualifying_data_differs", "nonce_differs"]);
    // The package's own word about the nonce helps nobody.
    let mut replayed = package.clone();
    replayed.nonce = [1; 32];
    assert_eq!(codes(&appraise_package(&replayed, &other)), ["qualifying_data_differs"]);
    let mut changed = package.clone();
    changed.sig_structure.push(0);
    assert_eq!(codes(&appraise_package(&changed, &asked)), ["qualifying_data_differs"]);
    let stranger = Platform::new("ecc", "ecdsa").attestation_key().name();
    let found = codes(&appraise_package(&package, &expectation(&stranger, &policy)));
    assert_eq!(found, ["attestation_key_other", "attestation_key_other"], "for the platform, and for the quoted key");
    let mut tampered = package;
    let log = tampered.event_log.as_mut().unwrap();
    let at = log.len() - 1;
    log.truncate(at);
    assert_eq!(codes(&appraise_package(&tampered, &asked)), ["evidence_truncated"]);
}

#[test]
fn keys_are_believed_for_what_is_shown_and_no_more() {
    let (platform, package, policy) = booted();
    let name = platform.attestation_key().name();
    let asked = expectation(&name, &policy);
    let judged = |change: &dyn Fn(&mut EvidencePackage), asked: &PackageExpectation<'_>| {
        let mut changed = package.clone();
        change(&mut changed);
        let verdict = appraise_package(&changed, asked);
        (codes(&verdict), verdict.keys[0].trust)
    };
    // Somebody else's key in the place of the quoted one.
    let swapped = judged(&|package| package.keys[0].spki = package.keys[1].spki.clone(), &asked);
    assert_eq!(swapped, (vec!["qualifying_data_differs"], KeyTrust::Refused));
    // A quote of the machine in another state: nothing booted that the policy knows.
    let bare = Platform::new("ecc", "ecdsa");
    let bound = bare.quote(SELECTION, key_qualifying_data(&package.keys[0].spki).as_bytes());
    let elsewhere = |package: &mut EvidencePackage| {
        let (message, signature, pcrs) = (bound.quote.clone(), bound.signature.clone(), bound.pcrs.clone());
        package.keys[0].proof = Some(KeyProof::Quote { message, signature, pcrs });
    };
    let (found, trust) = judged(&elsewhere, &asked);
    assert_eq!((found[0], trust), ("signature_invalid", KeyTrust::Refused));
    assert_eq!(found.iter().filter(|code| **code == "pcr_differs").count(), PREDICTED.len());
    // The node's quote is not a quote of the key, and a quote is not a certification.
    let borrowed = |package: &mut EvidencePackage| {
        let (message, signature) = (package.quote_message.clone(), package.quote_signature.clone());
        package.keys[0].proof = Some(KeyProof::Quote { message, signature, pcrs: package.pcrs.clone() });
    };
    assert_eq!(judged(&borrowed, &asked), (vec!["qualifying_data_differs"], KeyTrust::Refused));
    let certified = |package: &mut EvidencePackage| {
        let public = package.attestation_key[2..].to_vec();
        let Some(KeyProof::Quote { message, signature, .. }) = package.keys[0].proof.clone() else { panic!() };
        package.keys[0].proof = Some(KeyProof::Certification { message, signature, public });
    };
    assert_eq!(judged(&certified, &asked), (vec!["key_other"], KeyTrust::Refused));
    let spki = platform.attestation_key().key.spki_der();
    let certified_itself = |package: &mut EvidencePackage| {
        certified(package);
        package.keys[0].spki = spki.clone();
    };
    assert_eq!(judged(&certified_itself, &asked), (vec!["qualifying_data_differs"], KeyTrust::Refused));
    // Without a proof: allowed, refused, and by enrolment.
    let proven = PackageExpectation { keys_proven: true, ..asked };
    assert_eq!(judged(&|_| (), &proven).0, ["key_unproven"]);
    assert_eq!(judged(&|package| package.keys.truncate(1), &proven).0, [""; 0]);
    let enrolled: Vec<EnrolledKey> = package.keys.iter().map(EnrolledKey::from).collect();
    let with_keys = PackageExpectation { keys: Some(&enrolled), ..asked };
    assert_eq!(judged(&|_| (), &with_keys).0, [""; 0]);
    let other = |package: &mut EvidencePackage| package.keys[1].spki[40] ^= 1;
    assert_eq!(judged(&other, &with_keys).0, ["key_not_enrolled"]);
    let renamed = |package: &mut EvidencePackage| package.keys[1].name = "custody".into();
    assert_eq!(judged(&renamed, &with_keys).0, ["key_not_enrolled"]);
    // What the attestation key vouches for may be new.
    let only_software = PackageExpectation { keys: Some(&enrolled[1..]), ..asked };
    let verdict = appraise_package(&package, &only_software);
    assert_eq!((verdict.passed, verdict.keys[0].enrolled, verdict.keys[1].enrolled), (true, Some(false), Some(true)));
}

/// `tar`, `openssl` and tpm2-tools alone, as a regulator has them.
#[test]
fn the_tools_check_the_unpacked_tar_in_one_line_and_refuse_a_changed_one() {
    let (_, package, _) = booted();
    let check = |package: &EvidencePackage| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("package.tar"), package.to_tar().unwrap()).unwrap();
        let recipe = "set -e; tar -xf package.tar
            data=$({ printf stele/quote/v1; cat nonce; openssl dgst -sha256 -binary checkpoint; } | openssl dgst -sha256 -r | cut -c1-64)
            tpm2_checkquote -u ak.pub -m quote.msg -s quote.sig -f pcrs.bin -g sha256 -q $data -e bios_measurements
            data=$({ printf stele/key/v1; cat keys/seal.spki; } | openssl dgst -sha256 -r | cut -c1-64)
            tpm2_checkquote -u ak.pub -m keys/seal.msg -s keys/seal.sig -f keys/seal.pcrs -g sha256 -q $data
            tpm2_eventlog bios_measurements > /dev/null";
        run(Command::new("bash").args(["-c", recipe]).current_dir(directory.path()), "bash", "tpm2-tools")
    };
    check(&package).unwrap();
    for change in [
        |package: &mut EvidencePackage| package.nonce[0] ^= 1,
        |package: &mut EvidencePackage| package.sig_structure.push(0),
        |package: &mut EvidencePackage| package.quote_message[60] ^= 1,
        |package: &mut EvidencePackage| *package.quote_signature.last_mut().unwrap() ^= 1,
        |package: &mut EvidencePackage| package.keys[0].spki[30] ^= 1,
        |package: &mut EvidencePackage| {
            let log = package.event_log.as_mut().unwrap();
            let digest = HashAlgorithm::Sha256.digest(&[b"node.efi"]);
            let at = log.windows(32).position(|window| window == digest.as_bytes()).unwrap();
            log[at] ^= 1;
        },
    ] {
        let mut changed = package.clone();
        change(&mut changed);
        check(&changed).unwrap_err();
    }
}
