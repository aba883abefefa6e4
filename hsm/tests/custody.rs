//! Keys of custody: what they derive, for whom they open, and what they refuse.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;

use futures::executor::block_on;
use stele_hsm::custody::{Custodian, SoftwareCustodian};
use stele_hsm::{SignerError, custody::SealedClassKey};

const NETWORK: [u8; 32] = [3; 32];

fn custodian(directory: &tempfile::TempDir, name: &str) -> SoftwareCustodian {
    SoftwareCustodian::generate(&directory.path().join(name)).unwrap()
}

fn derived(custodian: &SoftwareCustodian, key: &SealedClassKey, salt: u8) -> [u8; 32] {
    *block_on(custodian.blob_key(key, &[salt; 32])).unwrap().derive(b"test")
}

fn is_refused<T>(result: Result<T, SignerError>) -> bool {
    matches!(result, Err(SignerError::Custody { .. }))
}

#[test]
fn a_blob_key_follows_from_class_key_and_salt_and_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let first = custodian(&directory, "custody.key");
    let class_key = block_on(first.make_class_key(&NETWORK, 7)).unwrap();
    let again = SoftwareCustodian::open(&directory.path().join("custody.key")).unwrap();
    assert_eq!(again.public_key(), first.public_key());
    assert_eq!(derived(&first, &class_key, 1), derived(&again, &class_key, 1));
    assert_ne!(derived(&first, &class_key, 1), derived(&first, &class_key, 2));
    let other = block_on(first.make_class_key(&NETWORK, 7)).unwrap();
    assert_ne!(other.name.id, class_key.name.id);
    assert_ne!(derived(&first, &class_key, 1), derived(&first, &other, 1));
    let key = block_on(first.blob_key(&class_key, &[1; 32])).unwrap();
    assert_ne!(key.derive(b"cipher"), key.derive(b"commitment"));
    assert_eq!(format!("{key:?}"), "BlobKey(secret)");
}

#[test]
fn another_custodian_opens_what_was_sealed_for_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (custodian(&directory, "1.key"), custodian(&directory, "2.key"));
    let class_key = block_on(first.make_class_key(&NETWORK, 7)).unwrap();
    assert!(is_refused(block_on(second.blob_key(&class_key, &[1; 32]))));
    let resealed = block_on(first.reseal(&class_key, second.public_key())).unwrap();
    assert_ne!(resealed.sealed, class_key.sealed);
    assert_eq!(derived(&second, &resealed, 1), derived(&first, &class_key, 1));
    assert!(is_refused(block_on(first.reseal(&class_key, &[4; 65]))), "no point of the curve");
}

#[test]
fn a_class_key_opens_under_its_own_name_alone() {
    let directory = tempfile::tempdir().unwrap();
    let first = custodian(&directory, "custody.key");
    let class_key = block_on(first.make_class_key(&NETWORK, 7)).unwrap();
    let changes: [fn(&mut SealedClassKey); 5] = [
        |key| key.name.class = 8,
        |key| key.name.network = [4; 32],
        |key| key.name.id[0] ^= 1,
        |key| key.sealed[70] ^= 1,
        |key| key.sealed[0] = 2,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        // A fresh one: an open key is found by its name.
        let fresh = SoftwareCustodian::open(&directory.path().join("custody.key")).unwrap();
        let mut changed = class_key.clone();
        change(&mut changed);
        assert!(is_refused(block_on(fresh.blob_key(&changed, &[1; 32]))), "{number}");
    }
}

#[test]
fn the_key_file_is_for_its_owner_and_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("custody.key");
    SoftwareCustodian::generate(&path).unwrap();
    assert!(matches!(SoftwareCustodian::generate(&path), Err(SignerError::KeyFileExists { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(SoftwareCustodian::open(&path), Err(SignerError::KeyFilePermissions { .. })));
}
