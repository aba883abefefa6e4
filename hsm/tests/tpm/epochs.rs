//! The counter that finds restored and copied disks.

use std::{fs, path::Path};

use stele_hsm::tpm::{TpmDevice, TpmEpoch};
use tempfile::tempdir;

use crate::swtpm::Swtpm;

const INDEX: u32 = TpmEpoch::INDEX_DEFAULT;

#[test]
fn every_start_is_a_new_epoch_and_an_old_disk_is_refused() {
    let mut tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("epoch");
    let old = directory.path().join("old");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmEpoch::create(&device, INDEX, &path).unwrap();
    assert_eq!(TpmEpoch::create(&device, INDEX, &path).unwrap_err().code(), "tpm_epoch_file");
    let first = TpmEpoch::begin(&device, INDEX, &path).unwrap().number();
    fs::copy(&path, &old).unwrap();
    tpm.power_off();
    tpm.power_on();
    assert_eq!(TpmEpoch::begin(&device, INDEX, &path).unwrap().number(), first + 1);
    fs::copy(&old, &path).unwrap();
    for _ in 0..2 {
        let error = TpmEpoch::begin(&device, INDEX, &path).unwrap_err();
        assert_eq!(error.code(), "tpm_epoch_mismatch");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("old copy"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(TpmEpoch::begin(&device, INDEX, &path).unwrap_err().code(), "tpm_epoch_file");
    let damaged = fs::read(&old).unwrap();
    for at in 0..damaged.len() {
        let mut damaged = damaged.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert_eq!(TpmEpoch::begin(&device, INDEX, &path).unwrap_err().code(), "tpm_epoch_file", "at {at}");
    }
}

#[test]
fn another_tpm_is_refused() {
    let (tpm, other) = (Swtpm::start(), Swtpm::start());
    let directory = tempdir().unwrap();
    let path = directory.path().join("epoch");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmEpoch::create(&device, INDEX, &path).unwrap();
    for _ in 0..3 {
        TpmEpoch::begin(&device, INDEX, &path).unwrap();
    }
    let stranger = TpmDevice::open(&other.tcti()).unwrap();
    assert_eq!(TpmEpoch::begin(&stranger, INDEX, &path).unwrap_err().code(), "tpm_epoch_mismatch");
    // Nor one that has a counter of its own.
    TpmEpoch::create(&stranger, INDEX, &directory.path().join("strangers")).unwrap();
    assert_eq!(TpmEpoch::begin(&stranger, INDEX, &path).unwrap_err().code(), "tpm_epoch_mismatch");
    TpmEpoch::begin(&device, INDEX, &path).unwrap();
}

/// A process that ends after the file was written and before the counter was raised.
#[test]
fn a_crash_between_file_and_counter_is_no_copy() {
    let mut tpm = Swtpm::start();
    let directory = tempdir().unwrap();
    let path = directory.path().join("epoch");
    let device = TpmDevice::open(&tpm.tcti()).unwrap();
    TpmEpoch::create(&device, INDEX, &path).unwrap();
    let saved = tpm.path("saved");
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    tpm.power_off();
    copy(&tpm.state(), &saved);
    tpm.power_on();
    let first = TpmEpoch::begin(&device, INDEX, &path).unwrap().number();
    // The counter as it was before, the file as it is after.
    tpm.power_off();
    copy(&saved, &tpm.state());
    tpm.power_on();
    assert_eq!(TpmEpoch::begin(&device, INDEX, &path).unwrap().number(), first);
    assert_eq!(TpmEpoch::begin(&device, INDEX, &path).unwrap().number(), first + 1);
}
