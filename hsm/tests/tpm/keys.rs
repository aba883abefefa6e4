//! Keys from making to signing, guards included.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use stele_hsm::{
    Signer, SignerKind,
    tpm::{TpmDevice, TpmSigner},
};
use tempfile::tempdir;

use crate::{
    requests::{
        create_guards, open_guards, sign_checkpoint, sign_epoch_certificate, sign_peer_binding, sign_receipt, sign_vote,
    },
    swtpm::{Swtpm, run},
};

/// Opens a key with the guards of its directory.
pub(crate) fn open_guarded(device: &TpmDevice, directory: &Path) -> TpmSigner {
    let (votes, checkpoints) = open_guards(directory);
    let signer = TpmSigner::open(device, &directory.join("key.pem")).unwrap();
    signer.with_vote_guard(votes).with_checkpoint_guard(checkpoints)
}

#[test]
fn a_key_signs_every_kind_and_survives_its_process_and_a_power_cycle() {
    let mut tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = TpmSigner::generate(&device, &path).unwrap();
    create_guards(directory.path());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(TpmSigner::generate(&device, &path).unwrap_err().code(), "key_file_exists");
    let public_key = signer.public_key().clone();
    drop((signer, device));
    tpm.power_off();
    tpm.power_on();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = open_guarded(&device, directory.path());
    assert_eq!(*signer.public_key(), public_key);
    sign_vote(&signer, 5, 9).unwrap();
    sign_checkpoint(&signer, 100, 1).unwrap();
    sign_epoch_certificate(&signer).unwrap();
    sign_receipt(&signer, 1).unwrap();
    sign_peer_binding(&signer, &public_key.sec1_compressed).unwrap();
    assert_eq!(sign_peer_binding(&signer, &[2; 33]).unwrap_err().code(), "malformed_request");
    let figures = signer.figures();
    assert_eq!((figures.votes_signed, figures.checkpoints_signed, figures.epoch_certificates_signed), (1, 1, 1));
    assert_eq!((figures.custody_receipts_signed, figures.peer_bindings_signed, figures.failures), (1, 1, 1));
    assert!(figures.signing_nanoseconds > 0);
    SignerKind::Tpm.require_built().unwrap();
}

#[test]
fn guards_refuse_what_contradicts_and_repeat_what_was_signed() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmSigner::generate(&device, &directory.path().join("key.pem")).unwrap();
    create_guards(directory.path());
    let signer = open_guarded(&device, directory.path());
    // The TPM's signatures differ each time, so the same one is the stored one.
    let vote = sign_vote(&signer, 5, 9).unwrap();
    let checkpoint = sign_checkpoint(&signer, 100, 1).unwrap();
    drop(signer);
    let signer = open_guarded(&device, directory.path());
    assert_eq!(sign_vote(&signer, 5, 9).unwrap(), vote);
    assert_eq!(sign_checkpoint(&signer, 100, 1).unwrap(), checkpoint);
    assert_eq!(sign_vote(&signer, 5, 8).unwrap_err().code(), "double_sign");
    assert_eq!(sign_vote(&signer, 4, 8).unwrap_err().code(), "regression");
    assert_eq!(sign_checkpoint(&signer, 100, 2).unwrap_err().code(), "checkpoint_fork");
    assert_eq!(sign_checkpoint(&signer, 99, 1).unwrap_err().code(), "checkpoint_regression");
    assert_eq!(signer.figures().guard_refusals, 4);
    let unguarded = TpmSigner::open(&device, &directory.path().join("key.pem")).unwrap();
    assert_eq!(sign_vote(&unguarded, 6, 9).unwrap_err().code(), "guard_missing");
    assert_eq!(sign_checkpoint(&unguarded, 101, 1).unwrap_err().code(), "guard_missing");
}

#[test]
fn more_keys_than_the_tpm_has_places_sign_in_turn() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signers: Vec<TpmSigner> = (0..5)
        .map(|number| TpmSigner::generate(&device, &directory.path().join(format!("{number}.pem"))).unwrap())
        .collect();
    for round in 0..3 {
        for signer in &signers {
            sign_receipt(signer, round).unwrap();
        }
    }
    assert_eq!(device.figures().connections, 1);
}

#[test]
fn the_key_of_another_tpm_or_of_a_cleared_one_is_refused() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmSigner::generate(&device, &path).unwrap();
    let other = Swtpm::start();
    let stranger = TpmDevice::open(&other.tcti()).unwrap();
    assert_eq!(TpmSigner::open(&stranger, &path).unwrap_err().code(), "tpm_key_foreign");
    device.release().unwrap();
    tpm.tool(&["tpm2_clear", "-c", "p"]).unwrap();
    assert_eq!(TpmSigner::open(&device, &path).unwrap_err().code(), "tpm_key_foreign");
}

#[test]
fn a_damaged_key_file_and_one_that_others_may_touch_are_refused() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmSigner::generate(&device, &path).unwrap();
    let pem = fs::read_to_string(&path).unwrap();
    assert!(pem.starts_with("-----BEGIN TSS2 PRIVATE KEY-----"));
    for content in [String::new(), pem[..100].to_owned(), pem.replacen('M', "!", 1), "x".repeat(5000)] {
        fs::write(&path, content).unwrap();
        assert_eq!(TpmSigner::open(&device, &path).unwrap_err().code(), "tpm_key_file_malformed");
    }
    fs::write(&path, pem).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(TpmSigner::open(&device, &path).unwrap_err().code(), "key_file_permissions");
}

/// The file is of a format that others read, and its parent is the key that they derive: OpenSSL takes it apart, and
/// tpm2-tools sign with it. (Given the file whole, the tools open two connections, of which an emulator takes one.)
#[test]
fn tools_sign_with_the_same_key() {
    let tpm = Swtpm::start();
    let path = tpm.path("key.pem");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = TpmSigner::generate(&device, &path).unwrap();
    let public_key = signer.public_key().spki_der.clone();
    device.release().unwrap();
    let asn1parse = |words: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["asn1parse", "-in", "key.pem"]).args(words).current_dir(tpm.path("."));
        run(&mut command, "openssl", "openssl").unwrap()
    };
    let structure = asn1parse(&[]);
    assert!(structure.contains("2.23.133.10.1.3") && structure.contains(":40000001"), "{structure}");
    let octets = structure.lines().filter(|line| line.contains("OCTET STRING"));
    let offsets: Vec<&str> = octets.map(|line| line.split(':').next().unwrap().trim()).collect();
    let [public, private] = offsets[..] else { panic!("two halves: {structure}") };
    asn1parse(&["-strparse", public, "-out", "key.pub", "-noout"]);
    asn1parse(&["-strparse", private, "-out", "key.priv", "-noout"]);
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let words = ["tpm2_createprimary", "-C", "o", "-G", "ecc:null:aes128cfb", "-a", attributes, "-c", "parent.ctx"];
    tpm.tool(&words).unwrap();
    tpm.flush();
    tpm.tool(&["tpm2_load", "-C", "parent.ctx", "-u", "key.pub", "-r", "key.priv", "-c", "key.ctx"]).unwrap();
    tpm.flush();
    tpm.write("message", b"signed by the tools");
    tpm.tool(&["tpm2_sign", "-c", "key.ctx", "-g", "sha256", "-f", "plain", "-o", "signature", "message"]).unwrap();
    let signature = Signature::from_der(&tpm.read("signature")).unwrap();
    VerifyingKey::from_public_key_der(&public_key).unwrap().verify(b"signed by the tools", &signature).unwrap();
}
