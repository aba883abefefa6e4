//! Valid and mutated signatures of every suite against independent implementations, item by item.
//!
//! The normal tier is a few thousand items a suite; with `STELE_SLOW=1` it is a million. A failure prints its item.

mod material;

use material::{Material, mutate, verify};
use p256::ecdsa::{self, signature::Verifier};
use rand_core::{OsRng, RngCore};
use stele_accel::{Engine, EngineConfig, Suite, Verdict};

/// Items of one batch; enough that most keys have a table after the first.
const BATCH: usize = 512;

/// Signed items that mutations start from.
const ORIGINALS: usize = 256;

fn items_of_tier() -> usize {
    if std::env::var_os("STELE_SLOW").is_some() { 1_000_000 } else { 4 * BATCH }
}

/// What another implementation says. SM2 through the point at infinity, where the crate differs, is not reached by
/// mutation: it takes the secret key.
fn oracle(item: &Material) -> Verdict {
    let valid = match item.suite {
        Suite::Ed25519 => {
            let key = ed25519_consensus::VerificationKey::try_from(item.public_key.as_slice());
            let signature = ed25519_consensus::Signature::try_from(item.signature.as_slice());
            key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(&signature, &item.message).is_ok()))
        }
        Suite::P256 => {
            let key = ecdsa::VerifyingKey::from_sec1_bytes(&item.public_key);
            let signature = ecdsa::Signature::from_slice(&item.signature);
            key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(&item.message, &signature).is_ok()))
        }
        Suite::Sm2 => {
            let key = sm2::dsa::VerifyingKey::from_sec1_bytes("1234567812345678", &item.public_key);
            let signature = sm2::dsa::Signature::from_slice(&item.signature);
            key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(&item.message, &signature).is_ok()))
        }
    };
    Verdict::from(valid)
}

fn check(suite: Suite) {
    let originals: Vec<Material> = (0..ORIGINALS)
        .map(|number| Material::valid(suite, u8::try_from(number % 48).expect("small"), &number.to_be_bytes()))
        .collect();
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() }).expect("engine");
    let (mut valid, mut invalid) = (0usize, 0usize);
    while valid + invalid < items_of_tier() {
        let mut items = Vec::with_capacity(BATCH);
        for index in 0..BATCH {
            let mut item = originals[index % ORIGINALS].clone();
            mutate(&mut item, OsRng.next_u64(), &originals);
            items.push(item);
        }
        for (item, verdict) in items.iter().zip(verify(&engine, &items)) {
            assert_eq!(verdict, oracle(item), "{item:?}");
            *(if verdict.is_valid() { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert!(valid > items_of_tier() / 4 && invalid > items_of_tier() / 4, "{valid} valid, {invalid} invalid");
    assert!(engine.figures().key_caches[suite.index()].tables > 40, "tables were used");
}

#[test]
fn ed25519_agrees_with_ed25519_consensus() {
    check(Suite::Ed25519);
}

#[test]
fn p256_agrees_with_the_p256_crate() {
    check(Suite::P256);
}

#[test]
fn sm2_agrees_with_the_sm2_crate() {
    check(Suite::Sm2);
}
