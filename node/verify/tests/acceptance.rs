//! This crate accepts exactly the signatures that the node's verifier accepts: one rule, two implementations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod fixture;

use stele_types::Suite;
use stele_verify::signature::{Refusal, verify};

fn accel(suite: Suite) -> stele_accel::Suite {
    match suite {
        Suite::EdDsa => stele_accel::Suite::Ed25519,
        Suite::Es256 => stele_accel::Suite::P256,
        _ => stele_accel::Suite::Sm2,
    }
}

fn agree(suite: Suite, key: &[u8], message: &[u8], signature: &[u8], name: &str) -> bool {
    let ours = verify(suite, key, message, signature).is_ok();
    let theirs = stele_accel::verify_one(accel(suite), key, signature, message).is_valid();
    assert_eq!(ours, theirs, "{suite} {name}: key {key:02x?}, signature {signature:02x?}");
    ours
}

#[test]
fn edges_of_the_rules_have_one_verdict() {
    let cases = cases::all();
    for case in &cases {
        let accepted = agree(case.suite, &case.public_key, &case.message, &case.signature, &case.name);
        assert_eq!(accepted, case.accepted, "{} {}", case.suite, case.name);
    }
    for suite in [Suite::Es256, Suite::EdDsa, Suite::Sm2Sm3] {
        let of = |accepted| cases.iter().filter(|case| case.suite == suite && case.accepted == accepted).count();
        assert!(of(true) >= 1 && of(false) >= 8, "{suite}");
    }
}

#[test]
fn flipped_bits_have_one_verdict() {
    for case in cases::all().iter().filter(|case| case.accepted && !case.name.starts_with("small")) {
        for bit in 0..case.signature.len() * 8 {
            let mut signature = case.signature.clone();
            signature[bit / 8] ^= 1 << (bit % 8);
            let accepted = agree(case.suite, &case.public_key, &case.message, &signature, &case.name);
            assert!(!accepted, "{} {}: bit {bit} of the signature", case.suite, case.name);
        }
        for bit in 0..case.public_key.len() * 8 {
            let mut key = case.public_key.clone();
            key[bit / 8] ^= 1 << (bit % 8);
            let accepted = agree(case.suite, &key, &case.message, &case.signature, &case.name);
            assert!(!accepted, "{} {}: bit {bit} of the key", case.suite, case.name);
        }
    }
}

#[test]
fn reserved_suites_accept_nothing() {
    for suite in [Suite::MlDsa44, Suite::MlDsa65, Suite::MlDsa87] {
        let (key, signature) = (vec![1; suite.public_key_len()], vec![1; suite.signature_len()]);
        assert_eq!(verify(suite, &key, b"", &signature), Err(Refusal::Suite));
    }
}
