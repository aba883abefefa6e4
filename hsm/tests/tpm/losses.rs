//! A TPM that is lost, reset, frozen, locked or never there.

use std::{
    thread,
    time::{Duration, Instant},
};

use futures::{executor::block_on, future::join_all};
use stele_hsm::{
    CustodyReceiptRequest, Signer,
    tpm::{TpmDevice, TpmKeyFile, TpmSigner},
};
use tempfile::tempdir;

use crate::{
    keys::open_guarded,
    requests::{create_guards, receipt_bytes, sign_receipt, sign_vote},
    swtpm::Swtpm,
};

/// How long a request may take that cannot be served.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_tpm_that_loses_power_is_missed_at_once_and_found_again() {
    let mut tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmSigner::generate(&device, &directory.path().join("key.pem")).unwrap();
    create_guards(directory.path());
    let signer = open_guarded(&device, directory.path());
    let vote = sign_vote(&signer, 5, 9).unwrap();
    for round in 1..=3 {
        tpm.power_off();
        let started = Instant::now();
        let error = sign_vote(&signer, 6, 9).unwrap_err();
        assert_eq!(error.code(), "tpm_lost");
        assert!(error.is_retryable());
        assert!(started.elapsed() < REFUSAL_TIME_MAX);
        // What is stored needs no TPM.
        assert_eq!(sign_vote(&signer, 5, 9).unwrap(), vote);
        tpm.power_on();
        let started = Instant::now();
        while let Err(error) = sign_receipt(&signer, round) {
            assert_eq!(error.code(), "tpm_lost");
            assert!(started.elapsed() < REFUSAL_TIME_MAX, "the TPM is not found again");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(device.figures().connections, 1 + u64::from(round));
    }
    // The vote that was refused was not taken for signed.
    sign_vote(&signer, 6, 8).unwrap();
    assert_eq!(device.figures().losses, 3);
}

#[test]
fn a_tpm_that_is_switched_off_and_on_between_requests_costs_nothing() {
    let mut tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = TpmSigner::generate(&device, &directory.path().join("key.pem")).unwrap();
    for round in 0..3 {
        sign_receipt(&signer, round).unwrap();
        tpm.power_off();
        tpm.power_on();
    }
    sign_receipt(&signer, 3).unwrap();
    assert_eq!(signer.figures().failures, 0);
}

#[test]
fn a_tpm_that_is_reset_under_an_open_connection_signs_on() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = TpmSigner::generate(&device, &directory.path().join("key.pem")).unwrap();
    for round in 0..3 {
        sign_receipt(&signer, round).unwrap();
        tpm.reset();
    }
    sign_receipt(&signer, 3).unwrap();
    assert_eq!(signer.figures().failures, 0);
    assert_eq!(device.figures().losses, 3);
}

#[test]
fn a_tpm_that_does_not_answer_holds_a_bounded_queue_and_nothing_is_lost() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = TpmSigner::generate(&device, &directory.path().join("key.pem")).unwrap();
    tpm.freeze(true);
    let bytes = receipt_bytes(1);
    let request = CustodyReceiptRequest { root: [1; 32], length: 23, bytes: &bytes };
    let outcomes = thread::scope(|scope| {
        let asked = scope.spawn(|| block_on(join_all((0..200).map(|_| signer.sign_custody_receipt(&request)))));
        let started = Instant::now();
        while device.figures().overflows < 200 - 65 {
            assert!(started.elapsed() < REFUSAL_TIME_MAX, "the queue is not bounded");
            thread::sleep(Duration::from_millis(5));
        }
        tpm.freeze(false);
        asked.join().unwrap()
    });
    let busy = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).inspect(|error| {
        assert_eq!(error.code(), "tpm_busy");
        assert!(error.is_retryable());
    });
    let busy = busy.count();
    assert!((200 - 65..=200 - 64).contains(&busy), "{busy} of 200 were refused");
    assert_eq!(u64::try_from(200 - busy).unwrap(), signer.figures().custody_receipts_signed);
}

#[test]
fn a_locked_tpm_says_so_and_keys_without_passwords_sign_on() {
    let tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
    let parent = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tpm.tool(&["tpm2_createprimary", "-C", "o", "-G", "ecc:null:aes128cfb", "-a", parent, "-c", "parent.ctx"]).unwrap();
    let words = ["tpm2_create", "-C", "parent.ctx", "-G", "ecc256:ecdsa-sha256", "-p", "password", "-a", attributes];
    tpm.tool(&[&words[..], &["-u", "key.pub", "-r", "key.priv"]].concat()).unwrap();
    tpm.tool(&["tpm2_dictionarylockout", "--setup-parameters", "--max-tries", "3", "-l", "60", "-t", "60"]).unwrap();
    tpm.flush();
    let guessed = TpmKeyFile::from_parts(&tpm.read("key.pub")[2..], tpm.read("key.priv")[2..].to_vec()).unwrap();
    guessed.write_new(&directory.path().join("guessed.pem")).unwrap();
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    let signer = TpmSigner::generate(&device, &directory.path().join("key.pem")).unwrap();
    let guessed = TpmSigner::open(&device, &directory.path().join("guessed.pem")).unwrap();
    let refusals: Vec<&str> = (0..4).map(|_| sign_receipt(&guessed, 1).unwrap_err().code()).collect();
    assert_eq!(refusals, ["tpm_refused", "tpm_refused", "tpm_refused", "tpm_lockout"]);
    assert!(sign_receipt(&guessed, 1).unwrap_err().is_retryable());
    sign_receipt(&signer, 1).unwrap();
    assert_eq!(device.figures().losses, 0);
}

#[test]
fn a_tpm_that_is_not_there_and_a_name_that_is_none_are_told_apart() {
    for address in ["", "tpm", "tabrmd", "device", "device:tpm0", "mssim:port=2321", "swtpm:port=x"] {
        assert_eq!(TpmDevice::open(address).unwrap_err().code(), "tpm_address", "{address}");
    }
    let mut tpm = Swtpm::start();
    tpm.power_off();
    for address in [&tpm.tcti(), "device:/dev/no-such-tpm"] {
        assert_eq!(TpmDevice::open(address).unwrap_err().code(), "tpm_lost", "{address}");
    }
}
