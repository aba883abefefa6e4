//! Secrets that a TPM gives back in states that a policy key approved.

use std::{collections::BTreeMap, fs, path::Path};

use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use stele_evidence::{Approval, Digest, HashAlgorithm, PlatformState, PolicyKey, approval::APPROVAL_DOMAIN};
use stele_hsm::tpm::{TpmDevice, TpmSealed};
use tempfile::tempdir;

use crate::swtpm::{Swtpm, run};

/// What PCRs have before anything is measured.
fn untouched() -> Digest {
    Digest::filled(HashAlgorithm::Sha256, 0)
}

fn policy_key(secret: u8) -> (SigningKey, PolicyKey) {
    let key = SigningKey::from_slice(&[secret; 32]).unwrap();
    let public = PolicyKey::from_sec1(key.verifying_key().to_encoded_point(true).as_bytes()).unwrap();
    (key, public)
}

fn approve(key: &SigningKey, pcrs: &[(u8, Digest)]) -> Approval {
    let pcrs: BTreeMap<u8, Digest> = pcrs.iter().copied().collect();
    let signature: Signature = key.sign(&PlatformState::new(&pcrs).unwrap().message());
    Approval::new("test".into(), pcrs, signature.to_der().as_bytes())
}

/// More than a TPM reads at once.
fn measured(pcr_11: Digest) -> Vec<(u8, Digest)> {
    (0..=10).map(|pcr| (pcr, untouched())).chain([(11, pcr_11)]).collect()
}

#[test]
fn a_secret_opens_in_a_state_that_its_key_approved_and_in_no_other() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("secret");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let (key, public) = policy_key(5);
    let (stranger, strangers) = policy_key(6);
    TpmSealed::seal_approved(&device, b"secret", &public, &path).unwrap();
    let open = |approvals: &[Approval]| {
        let opened = TpmSealed::open_approved(&device, &path, &public, approvals, directory.path());
        opened.map(|secret| assert_eq!(secret.as_slice(), b"secret")).map_err(|error| error.code())
    };
    let first = approve(&key, &measured(untouched()));
    let second = approve(&key, &measured(untouched().extended(&[1; 32])));
    open(std::slice::from_ref(&first)).unwrap();
    assert_eq!(open(&[]), Err("approval_missing"));
    assert_eq!(open(&[approve(&stranger, &measured(untouched()))]), Err("approval_foreign"));
    assert_eq!(open(std::slice::from_ref(&second)), Err("approval_stale"));
    open(&[second.clone(), first.clone()]).unwrap();
    // Its signature is not of what it says.
    let lying = Approval { pcrs: second.pcrs.clone(), ..first.clone() };
    assert_eq!(open(&[lying]), Err("approval_foreign"));
    let other = TpmSealed::open_approved(&device, &path, &strangers, std::slice::from_ref(&first), directory.path());
    assert_eq!(other.unwrap_err().code(), "seal_policy");
    // The TPM itself asks for the policy.
    assert_eq!(TpmSealed::open(&device, &path).unwrap_err().code(), "tpm_refused");

    // An update: the state changes, and a signature follows it. Nothing is sealed anew.
    device.release().unwrap();
    tpm.tool(&["tpm2_pcrextend", &format!("11:sha256={}", "01".repeat(32))]).unwrap();
    assert_eq!(open(std::slice::from_ref(&first)), Err("approval_stale"));
    open(&[first, second]).unwrap();
}

#[test]
fn a_secret_without_a_policy_is_not_taken_for_one_with() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("secret");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let (key, public) = policy_key(5);
    TpmSealed::seal(&device, b"secret", &path).unwrap();
    let approval = approve(&key, &[(4, untouched())]);
    let opened = TpmSealed::open_approved(&device, &path, &public, &[approval], directory.path());
    assert_eq!(opened.unwrap_err().code(), "seal_policy");
    TpmSealed::open(&device, &path).unwrap();
}

/// What is computed without a TPM is what a TPM computes, asked by tools that know nothing of us; and an approval that
/// OpenSSL signed opens.
#[test]
fn the_tools_compute_the_same_policy_and_openssl_signs_an_approval() {
    let tpm = Swtpm::start();
    let openssl = |words: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        run(command.args(words).current_dir(tpm.path("")), "openssl", "openssl").unwrap()
    };
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "policy.key"]);
    openssl(&["ec", "-in", "policy.key", "-pubout", "-out", "policy.pem"]);
    openssl(&[
        "ec",
        "-in",
        "policy.key",
        "-pubout",
        "-conv_form",
        "compressed",
        "-outform",
        "DER",
        "-out",
        "policy.der",
    ]);
    let der = tpm.read("policy.der");
    let public = PolicyKey::from_sec1(&der[der.len() - 33..]).unwrap();
    let pcrs: BTreeMap<u8, Digest> = [(4, untouched()), (11, untouched())].into();
    let state = PlatformState::new(&pcrs).unwrap();
    tpm.write("message", &state.message());
    openssl(&["dgst", "-sha256", "-sign", "policy.key", "-out", "message.sig", "message"]);

    let tool = |words: &[&str]| {
        let said = tpm.tool(words).unwrap();
        tpm.tool(&["tpm2_flushcontext", "--transient-object"]).unwrap();
        said
    };
    tool(&["tpm2_loadexternal", "-C", "o", "-G", "ecc", "-u", "policy.pem", "-c", "policy.ctx", "-n", "policy.name"]);
    assert_eq!(tpm.read("policy.name"), public.name());
    tpm.tool(&["tpm2_startauthsession", "-S", "trial"]).unwrap();
    tpm.tool(&["tpm2_policypcr", "-S", "trial", "-l", "sha256:4,11", "-L", "approved"]).unwrap();
    assert_eq!(tpm.read("approved"), state.policy().as_bytes());
    let reference: String = APPROVAL_DOMAIN.iter().map(|byte| format!("{byte:02x}")).collect();
    let words = ["tpm2_policyauthorize", "-S", "trial", "-i", "approved", "-n", "policy.name", "-L", "authorized"];
    tpm.tool(&[&words[..], &["-q", &reference]].concat()).unwrap();
    assert_eq!(tpm.read("authorized"), public.sealing_policy().as_bytes());
    tpm.tool(&["tpm2_flushcontext", "--loaded-session"]).unwrap();

    let approval = Approval::new("by OpenSSL".into(), pcrs, &tpm.read("message.sig"));
    approval.verify(&public).unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let path = tpm.path("secret");
    TpmSealed::seal_approved(&device, &[7; 32], &public, &path).unwrap();
    let opened = TpmSealed::open_approved(&device, &path, &public, &[approval], Path::new("approvals")).unwrap();
    assert_eq!(opened.as_slice(), [7; 32]);
    assert!(!fs::read(&path).unwrap().windows(8).any(|bytes| bytes == [7; 8]));
}
