//! What the TPM backend attests, judged by the verifier's crate and by the tools.

use std::process::Command;

use futures::executor::block_on;
use stele_evidence::{
    CertificateError, Credential, ENTROPY_LENGTH, Endorsement, EndorsementAnchors, Evidence, Expectation,
    HashAlgorithm, Policy, Public, PublicKey, appraise, key_qualifying_data,
    policy::{PcrRule, Prediction},
    quote_qualifying_data, verify_certification, verify_endorsement,
};
use stele_hsm::{
    CheckpointRequest, Signer, SoftwareSigner,
    tpm::{KeyQuoteRequest, Quote, QuoteRequest, TpmAttestor, TpmDevice, TpmSigner},
};
use tempfile::tempdir;

use crate::{
    requests::checkpoint_bytes,
    swtpm::{Swtpm, run},
};

/// More PCRs than a TPM reads at once.
const PCRS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 14];

/// A policy that wants PCRs untouched.
fn untouched() -> Policy {
    let zero = Prediction::from_events(HashAlgorithm::Sha256, Vec::new());
    Policy {
        bank: HashAlgorithm::Sha256,
        pcrs: vec![PcrRule { pcr: 4, allowed: vec![zero] }],
        event_log_required: false,
        extended_after_boot: [].into(),
        ima: None,
        firmware_versions: [].into(),
    }
}

fn accepted_by_tools(tpm: &Swtpm, quote: &Quote, attestation_key: &[u8], data: &[u8]) -> Result<String, String> {
    tpm.write("q.msg", &quote.message);
    tpm.write("q.sig", &quote.signature);
    tpm.write("q.pcrs", &quote.pcrs);
    tpm.write("ak.pub", attestation_key);
    let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    let words = ["tpm2_checkquote", "-u", "ak.pub", "-m", "q.msg", "-s", "q.sig", "-f", "q.pcrs", "-g", "sha256"];
    tpm.tool(&[&words[..], &["-q", &data]].concat())
}

#[test]
fn quotes_name_nonce_and_ledger_head_and_pass_here_and_with_the_tools() {
    let tpm = Swtpm::start();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    let identity = block_on(attestor.identity()).unwrap();
    let head = checkpoint_bytes(100, 1);
    let checkpoint = CheckpointRequest { tree_size: 100, root: [1; 32], sig_structure: &head };
    let request = QuoteRequest { nonce: [5; 32], checkpoint, pcrs: &PCRS };
    let quote = block_on(attestor.quote(&request)).unwrap();
    let data = quote_qualifying_data(&[5; 32], &head);
    let name = Public::parse_sized(&identity.attestation_key).unwrap().name();
    let evidence = Evidence {
        quote: &quote.message,
        signature: &quote.signature,
        pcrs: &quote.pcrs,
        attestation_key: &identity.attestation_key,
        event_log: None,
        ima_log: None,
    };
    let policy = untouched();
    let verdict = |data: &[u8]| {
        let expectation =
            Expectation { attestation_key_name: &name, qualifying_data: data, policy: &policy, previous: None };
        appraise(&evidence, &expectation)
    };
    assert!(verdict(data.as_bytes()).passed, "{}", verdict(data.as_bytes()));
    assert_eq!(verdict(&[5; 32]).reasons[0].code(), "qualifying_data_differs");
    accepted_by_tools(&tpm, &quote, &identity.attestation_key, data.as_bytes()).unwrap();
    accepted_by_tools(&tpm, &quote, &identity.attestation_key, &[5; 32]).unwrap_err();
    // What is no checkpoint is not attested.
    let lying = CheckpointRequest { tree_size: 101, ..checkpoint };
    let refused = block_on(attestor.quote(&QuoteRequest { checkpoint: lying, ..request })).unwrap_err();
    assert_eq!(refused.code(), "malformed_request");
    for pcrs in [&[24][..], &[]] {
        let refused = block_on(attestor.quote(&QuoteRequest { pcrs, ..request })).unwrap_err();
        assert_eq!(refused.code(), "malformed_request");
    }
    // The attestation key is derived: another connection and a reset give the same.
    tpm.reset();
    assert_eq!(block_on(attestor.identity()).unwrap(), identity);
}

#[test]
fn a_key_outside_the_tpm_is_bound_by_a_quote() {
    let tpm = Swtpm::start();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    let outside = SoftwareSigner::ephemeral().unwrap();
    let spki = &outside.public_key().spki_der;
    let quote = block_on(attestor.quote_key(&KeyQuoteRequest { spki, pcrs: &[4, 7] })).unwrap();
    let identity = block_on(attestor.identity()).unwrap();
    let data = key_qualifying_data(spki);
    accepted_by_tools(&tpm, &quote, &identity.attestation_key, data.as_bytes()).unwrap();
    let refused = block_on(attestor.quote_key(&KeyQuoteRequest { spki: &[], pcrs: &[4] })).unwrap_err();
    assert_eq!(refused.code(), "malformed_request");
}

#[test]
fn the_attestation_key_certifies_signing_keys() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    let identity = block_on(attestor.identity()).unwrap();
    let attestation_key = Public::parse_sized(&identity.attestation_key).unwrap();
    for name in ["validator.pem", "checkpoint.pem", "other.pem"] {
        let signer = TpmSigner::generate(&device, &directory.path().join(name)).unwrap();
        let certification = block_on(attestor.certify(&signer)).unwrap();
        let key = Public::parse(&certification.public).unwrap();
        assert_eq!(key.key.spki_der(), signer.public_key().spki_der);
        let data = key_qualifying_data(&signer.public_key().spki_der);
        let (message, signature) = (&certification.message, &certification.signature);
        verify_certification(&attestation_key, &key, message, signature, data.as_bytes()).unwrap();
    }
}

#[test]
fn a_credential_is_opened_by_the_tpm_it_was_made_for() {
    let tpm = Swtpm::start();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    let identity = block_on(attestor.identity()).unwrap();
    let endorsement_key = Public::parse_sized(&identity.endorsement_key).unwrap();
    let name = Public::parse_sized(&identity.attestation_key).unwrap().name();
    for round in 1..=3 {
        let credential = Credential::make(&endorsement_key, &name, &[round; 32], &[round; ENTROPY_LENGTH]).unwrap();
        assert_eq!(block_on(attestor.activate(credential)).unwrap().as_slice(), [round; 32]);
    }
    let other_name = endorsement_key.name();
    let other = Credential::make(&endorsement_key, &other_name, &[1; 32], &[1; ENTROPY_LENGTH]).unwrap();
    assert!(!block_on(attestor.activate(other)).unwrap_err().is_retryable());
    let stranger = Swtpm::start();
    let stranger = TpmAttestor::new(&TpmDevice::open(&stranger.tcti()).unwrap());
    let good = Credential::make(&endorsement_key, &name, &[1; 32], &[1; ENTROPY_LENGTH]).unwrap();
    assert!(!block_on(stranger.activate(good.clone())).unwrap_err().is_retryable());
    assert_eq!(block_on(attestor.activate(good)).unwrap().as_slice(), [1; 32]);
    assert_eq!(device.figures().losses, 0);
}

#[test]
fn the_makers_certificate_is_read_whole() {
    let tpm = Swtpm::start();
    let certificate: Vec<u8> = (0..1500_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    tpm.write("ek.crt", &certificate);
    let attributes = "ownerwrite|ownerread|authread|no_da";
    tpm.tool(&["tpm2_nvdefine", "0x1c0000a", "-C", "o", "-s", "1500", "-a", attributes]).unwrap();
    tpm.tool(&["tpm2_nvwrite", "0x1c0000a", "-C", "o", "-i", "ek.crt"]).unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    for _ in 0..3 {
        let identity = block_on(attestor.identity()).unwrap();
        assert_eq!(identity.endorsement_certificate.as_ref(), Some(&certificate));
    }
    let bare = Swtpm::start();
    let bare = TpmAttestor::new(&TpmDevice::open(&bare.tcti()).unwrap());
    assert_eq!(block_on(bare.identity()).unwrap().endorsement_certificate, None);
}

/// 2030, in seconds since 1970: certificates of the emulator's maker do not end.
const LATER: u64 = 1_893_456_000;

/// A TPM with certificates as its maker left it, and the maker's authorities in DER, root first. They lie as `root.pem` and
/// `issuer.pem` in its directory.
fn certified() -> (Swtpm, [Vec<u8>; 2]) {
    let (tpm, authorities) = Swtpm::start_certified();
    for (name, authority) in ["root", "issuer"].iter().zip(&authorities) {
        tpm.write(&format!("{name}.pem"), authority.as_bytes());
        openssl(&tpm, &format!("x509 -in {name}.pem -outform DER -out {name}.der")).unwrap();
    }
    let ders = [tpm.read("root.der"), tpm.read("issuer.der")];
    (tpm, ders)
}

fn openssl(tpm: &Swtpm, words: &str) -> Result<String, String> {
    let mut command = Command::new("openssl");
    run(command.args(words.split(' ')).current_dir(tpm.path(".")), "openssl", "openssl")
}

#[test]
fn a_tpm_is_known_by_the_p384_key_that_its_maker_certified() {
    let (tpm, [root, issuer]) = certified();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    let identity = block_on(attestor.identity()).unwrap();
    let key = Public::parse_sized(&identity.endorsement_key).unwrap();
    assert!(matches!(key.key, PublicKey::P384(_)) && key.name_algorithm == HashAlgorithm::Sha384, "{key:?}");
    let certificate = identity.endorsement_certificate.unwrap();
    let anchors =
        |authority: &[u8]| EndorsementAnchors { authorities: vec![authority.into()], fingerprints: Vec::new() };
    let verify =
        |authority: &[u8]| verify_endorsement(&key, Some(&certificate), &[&issuer], &anchors(authority), LATER);
    assert!(matches!(verify(&root), Ok(Endorsement::Authority { intermediates: 1, .. })), "{:?}", verify(&root));
    // The TPM that holds both keys gives a secret back, as long a one as there is.
    let name = Public::parse_sized(&identity.attestation_key).unwrap().name();
    for length in [1, 32, 48] {
        let secret = vec![0x5a; length];
        let credential = Credential::make(&key, &name, &secret, &[7; ENTROPY_LENGTH]).unwrap();
        assert_eq!(*block_on(attestor.activate(credential)).unwrap(), secret);
    }
    let other = Credential::make(&key, &key.name(), &[1; 32], &[7; ENTROPY_LENGTH]).unwrap();
    assert!(!block_on(attestor.activate(other)).unwrap_err().is_retryable());
    // Another maker's authority and another maker's TPM.
    let (stranger, [foreign, foreign_issuer]) = certified();
    assert_eq!(verify(&foreign), Err(CertificateError::NoPath));
    let device = TpmDevice::open(&stranger.tcti()).unwrap();
    let theirs = block_on(TpmAttestor::new(&device).identity()).unwrap();
    let their_key = Public::parse_sized(&theirs.endorsement_key).unwrap();
    let their_certificate = theirs.endorsement_certificate.as_deref();
    let refused =
        |key, certificate| verify_endorsement(key, certificate, &[&foreign_issuer], &anchors(&foreign), LATER);
    assert_eq!(refused(&key, their_certificate), Err(CertificateError::OtherKey));
    refused(&their_key, their_certificate).unwrap();
    // OpenSSL finds the same way, no other, and the same key.
    tpm.write("ek.der", &certificate);
    tpm.write("foreign.der", &foreign);
    openssl(&tpm, "x509 -inform DER -in ek.der -out ek.pem").unwrap();
    openssl(&tpm, "x509 -inform DER -in foreign.der -out foreign.pem").unwrap();
    openssl(&tpm, "verify -CAfile root.pem -untrusted issuer.pem ek.pem").unwrap();
    openssl(&tpm, "verify -CAfile foreign.pem -untrusted issuer.pem ek.pem").unwrap_err();
    let shown = openssl(&tpm, "x509 -in ek.pem -noout -pubkey").unwrap();
    tpm.write("spki.der", &key.key.spki_der());
    assert_eq!(openssl(&tpm, "pkey -pubin -inform DER -in spki.der -pubout").unwrap(), shown);
}

#[test]
fn the_first_certified_key_is_taken_and_one_on_p256_comes_before_others() {
    let (tpm, _) = certified();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let attestor = TpmAttestor::new(&device);
    let public = |attestor: &TpmAttestor| {
        let identity = block_on(attestor.identity()).unwrap();
        let name = Public::parse_sized(&identity.attestation_key).unwrap().name();
        let key = Public::parse_sized(&identity.endorsement_key).unwrap();
        let credential = Credential::make(&key, &name, &[3; 32], &[7; ENTROPY_LENGTH]).unwrap();
        assert_eq!(*block_on(attestor.activate(credential)).unwrap(), [3; 32]);
        key.key
    };
    assert!(matches!(public(&attestor), PublicKey::P384(_)));
    device.release().unwrap();
    tpm.tool(&["tpm2_nvundefine", "0x1c00016", "-C", "p"]).unwrap();
    assert!(matches!(public(&attestor), PublicKey::Rsa(_)));
    device.release().unwrap();
    tpm.tool(&["tpm2_nvdefine", "0x1c0000a", "-C", "o", "-s", "4", "-a", "ownerwrite|ownerread|authread|no_da"])
        .unwrap();
    tpm.write("ek.crt", b"none");
    tpm.tool(&["tpm2_nvwrite", "0x1c0000a", "-C", "o", "-i", "ek.crt"]).unwrap();
    assert!(matches!(public(&attestor), PublicKey::P256(_)));
}
