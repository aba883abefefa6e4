//! What every custodian keeps, wherever its key is. Run against a file in `stele-hsm`, and against `stele-signer` in its tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use stele_hsm::SignerError;
use stele_hsm::custody::{Custodian, SealedClassKey};
use tokio::runtime::Runtime;

/// Waits, with a clock for whoever asks another process.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    RUNTIME.block_on(future)
}

/// A key that is made of a blob's.
pub(crate) fn derived(custodian: &dyn Custodian, key: &SealedClassKey, salt: u8) -> [u8; 32] {
    *block_on(custodian.blob_key(key, &[salt; 32])).unwrap().derive(b"test")
}

/// Refused, and not for want of a signer.
pub(crate) fn is_refused<T>(result: Result<T, SignerError>) -> bool {
    result.is_err_and(|error| ["custody_key", "malformed_request"].contains(&error.code()))
}

/// `again` has the same key as `first`, and remembers nothing.
pub(crate) fn a_blob_key_follows_from_class_key_and_salt(
    network: &[u8; 32],
    first: &dyn Custodian,
    again: &dyn Custodian,
) {
    let class_key = block_on(first.make_class_key(network, 7)).unwrap();
    assert_eq!(again.public_key(), first.public_key());
    assert_eq!(derived(first, &class_key, 1), derived(again, &class_key, 1));
    assert_ne!(derived(first, &class_key, 1), derived(first, &class_key, 2));
    let other = block_on(first.make_class_key(network, 7)).unwrap();
    assert_ne!(other.name.id, class_key.name.id);
    assert_ne!(derived(first, &class_key, 1), derived(first, &other, 1));
    let key = block_on(first.blob_key(&class_key, &[1; 32])).unwrap();
    assert_ne!(key.derive(b"cipher"), key.derive(b"commitment"));
    assert_eq!(format!("{key:?}"), "BlobKey(secret)");
    let open = block_on(first.class_key(&class_key)).unwrap();
    assert_eq!(format!("{open:?}"), "ClassKey(secret)");
}

/// `second` has another key.
pub(crate) fn another_opens_what_was_sealed_for_it_and_nothing_else(
    network: &[u8; 32],
    first: &dyn Custodian,
    second: &dyn Custodian,
) {
    let class_key = block_on(first.make_class_key(network, 7)).unwrap();
    assert!(is_refused(block_on(second.blob_key(&class_key, &[1; 32]))));
    let resealed = block_on(first.reseal(&class_key, second.public_key())).unwrap();
    assert_ne!(resealed.sealed, class_key.sealed);
    assert_eq!(derived(second, &resealed, 1), derived(first, &class_key, 1));
    assert!(is_refused(block_on(first.reseal(&class_key, &[4; 65]))), "no point of the curve");
}

/// `fresh` gives a custodian of one key that remembers nothing: an open key is found by its name.
pub(crate) fn a_class_key_opens_under_its_own_name_alone(network: &[u8; 32], fresh: impl Fn() -> Box<dyn Custodian>) {
    let class_key = block_on(fresh().make_class_key(network, 7)).unwrap();
    let changes: [fn(&mut SealedClassKey); 5] = [
        |key| key.name.class = 8,
        |key| key.name.network[0] ^= 1,
        |key| key.name.id[0] ^= 1,
        |key| key.sealed[70] ^= 1,
        |key| key.sealed[0] = 2,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = class_key.clone();
        change(&mut changed);
        assert!(is_refused(block_on(fresh().blob_key(&changed, &[1; 32]))), "{number}");
    }
    derived(&*fresh(), &class_key, 1);
}
