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

/// The holder of a key can make an SM2 signature whose last step is the point at infinity: r = e, s = −r·d / (1 + d). The
/// point has no x-coordinate, so the standard accepts nothing there; a library that takes x = 0 would split a network.
#[test]
fn an_sm2_signature_through_the_point_at_infinity_has_one_verdict() {
    use sm2::elliptic_curve::ops::Reduce as _;
    use sm2::elliptic_curve::sec1::ToEncodedPoint as _;
    use sm3::{Digest as _, Sm3};

    /// a, b, and the coordinates of G (GB/T 32918.5).
    const CURVE: &str = "fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc\
                         28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93\
                         32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7\
                         bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0";
    let curve: Vec<u8> =
        (0..CURVE.len()).step_by(2).map(|at| u8::from_str_radix(&CURVE[at..at + 2], 16).unwrap()).collect();
    let secret = sm2::SecretKey::from_slice(&[9; 32]).unwrap();
    let point = secret.public_key().to_encoded_point(false);
    let message = b"infinity";
    let z = Sm3::new()
        .chain_update([0x00, 0x80])
        .chain_update(stele_verify::signature::SM2_IDENTITY)
        .chain_update(&curve)
        .chain_update(&point.as_bytes()[1..])
        .finalize();
    let e = Sm3::new().chain_update(z).chain_update(message).finalize();
    let r = sm2::Scalar::reduce_bytes(&e);
    let d = *secret.to_nonzero_scalar();
    let s = -(r * d) * (sm2::Scalar::ONE + d).invert().unwrap();
    let signature = [r.to_bytes(), s.to_bytes()].concat();
    assert!(!agree(Suite::Sm2Sm3, point.as_bytes(), message, &signature, "infinity"));
}
