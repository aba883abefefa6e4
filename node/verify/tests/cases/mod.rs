//! Signatures at the edges of the acceptance rules, with the verdict that every implementation must give.

#![allow(dead_code, unreachable_pub, reason = "a module of several test binaries")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use sm2::dsa::signature::Signer as _;
use stele_types::Suite;
use stele_verify::signature::SM2_IDENTITY;

use crate::fixture::signing_key;

pub struct Case {
    pub suite: Suite,
    pub name: String,
    pub public_key: Vec<u8>,
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
    pub accepted: bool,
}

const MESSAGE: &[u8] = b"a message";

/// Orders of the groups, big-endian.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const SM2_ORDER: &str = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123";
/// Order of the prime subgroup of Ed25519, little-endian.
const ED25519_ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// Encodings of the eight points of small order, and the six other encodings of them that decompress.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap();
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub fn all() -> Vec<Case> {
    [es256(), eddsa(), sm2_sm3()].into_iter().flatten().collect()
}

fn case(suite: Suite, name: &str, key: &[u8], signature: &[u8], accepted: bool) -> Case {
    let (name, public_key, signature) = (name.to_owned(), key.to_vec(), signature.to_vec());
    Case { suite, name, public_key, message: MESSAGE.to_vec(), signature, accepted }
}

/// r and s of a curve signature replaced by edge values.
fn edges(suite: Suite, key: &[u8], signature: &[u8], order: &[u8]) -> Vec<Case> {
    let (r, s) = signature.split_at(32);
    let zero = [0; 32];
    let mut past = order.to_vec();
    past[31] += 1;
    let mut cases = Vec::new();
    for (name, value) in
        [("zero", &zero[..]), ("the order", order), ("above the order", &past), ("all ones", &[0xff; 32])]
    {
        cases.push(case(suite, &format!("r is {name}"), key, &[value, s].concat(), false));
        cases.push(case(suite, &format!("s is {name}"), key, &[r, value].concat(), false));
    }
    cases.push(case(suite, "r and s swapped", key, &[s, r].concat(), false));
    cases.push(case(suite, "a byte short", key, &signature[..63], false));
    cases.push(case(suite, "a byte long", key, &[signature, &[0]].concat(), false));
    cases.push(case(suite, "empty", key, &[], false));
    cases
}

/// The forms of a public key; `other` is a key of another curve.
fn key_forms(suite: Suite, compressed: &[u8], uncompressed: &[u8], other: &[u8], signature: &[u8]) -> Vec<Case> {
    let mut hybrid = uncompressed.to_vec();
    hybrid[0] = 6 | uncompressed[64] & 1;
    let mut off_curve = uncompressed.to_vec();
    off_curve[64] ^= 1;
    let compact = [&[5], &compressed[1..]].concat();
    let mut negated = compressed.to_vec();
    negated[0] ^= 1;
    let mut unreduced = vec![0xff; 33];
    unreduced[0] = 2;
    vec![
        case(suite, "uncompressed key", uncompressed, signature, true),
        case(suite, "hybrid key", &hybrid, signature, false),
        case(suite, "compact key", &compact, signature, false),
        case(suite, "key off the curve", &off_curve, signature, false),
        case(suite, "negated key", &negated, signature, false),
        case(suite, "key with x above the field", &unreduced, signature, false),
        case(suite, "key of another curve", other, signature, false),
        case(suite, "point at infinity", &[0], signature, false),
        case(suite, "empty key", &[], signature, false),
        case(suite, "x alone", &compressed[1..], signature, false),
    ]
}

fn sm2_key() -> (sm2::dsa::SigningKey, Vec<u8>, Vec<u8>) {
    let secret = sm2::SecretKey::from_slice(&[7; 32]).unwrap();
    let public = secret.public_key();
    let (compressed, uncompressed) = (public.to_encoded_point(true), public.to_encoded_point(false));
    let key = sm2::dsa::SigningKey::new(SM2_IDENTITY, &secret).unwrap();
    (key, compressed.as_bytes().to_vec(), uncompressed.as_bytes().to_vec())
}

fn es256() -> Vec<Case> {
    let key = signing_key("cases");
    let [compressed, uncompressed] =
        [true, false].map(|form| key.verifying_key().to_encoded_point(form).as_bytes().to_vec());
    let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&key, MESSAGE);
    let low = signature.normalize_s().unwrap_or(signature);
    let (r, s) = low.split_scalars();
    let high = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    let [low, high] = [low, high].map(|signature| signature.to_bytes().to_vec());
    let mut cases = vec![
        case(Suite::Es256, "low s", &compressed, &low, true),
        case(Suite::Es256, "high s", &compressed, &high, true),
        Case { message: b"another".to_vec(), ..case(Suite::Es256, "another message", &compressed, &low, false) },
    ];
    cases.extend(edges(Suite::Es256, &compressed, &low, &unhex(P256_ORDER)));
    cases.extend(key_forms(Suite::Es256, &compressed, &uncompressed, &sm2_key().1, &low));
    cases
}

fn sm2_sm3() -> Vec<Case> {
    let (key, compressed, uncompressed) = sm2_key();
    let signature: sm2::dsa::Signature = key.sign(MESSAGE);
    let signature = signature.to_bytes().to_vec();
    let other = sm2::dsa::SigningKey::new("another identity", &sm2::SecretKey::from_slice(&[7; 32]).unwrap()).unwrap();
    let named: sm2::dsa::Signature = other.sign(MESSAGE);
    let order = unhex(SM2_ORDER);
    // With s = n − r the sum r + s is zero modulo n.
    let mut borrow = 0_i16;
    let mut opposite = [0; 32];
    for index in (0..32).rev() {
        let difference = i16::from(order[index]) - i16::from(signature[index]) - borrow;
        borrow = i16::from(difference < 0);
        opposite[index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let suite = Suite::Sm2Sm3;
    let mut cases = vec![
        case(suite, "default identity", &compressed, &signature, true),
        case(suite, "another identity", &compressed, &named.to_bytes(), false),
        case(suite, "r and s add to the order", &compressed, &[&signature[..32], &opposite].concat(), false),
        Case { message: b"another".to_vec(), ..case(suite, "another message", &compressed, &signature, false) },
    ];
    cases.extend(edges(suite, &compressed, &signature, &order));
    let p256 = signing_key("cases").verifying_key().to_encoded_point(true);
    cases.extend(key_forms(suite, &compressed, &uncompressed, p256.as_bytes(), &signature));
    cases
}

fn eddsa() -> Vec<Case> {
    let key = ed25519_zebra::SigningKey::from([7; 32]);
    let public: [u8; 32] = ed25519_zebra::VerificationKey::from(&key).into();
    let signature: [u8; 64] = key.sign(MESSAGE).into();
    let order = unhex(ED25519_ORDER);
    // s + ℓ is the same scalar in a second form.
    let mut carry = 0_u16;
    let mut unreduced = signature;
    for index in 0..32 {
        let sum = u16::from(signature[32 + index]) + u16::from(order[index]) + carry;
        unreduced[32 + index] = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    let suite = Suite::EdDsa;
    let off_curve = {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        bytes
    };
    let mut cases = vec![
        case(suite, "honest", &public, &signature, true),
        case(suite, "s + order", &public, &unreduced, false),
        case(suite, "s is the order", &public, &[&signature[..32], &order].concat(), false),
        case(suite, "R off the curve", &public, &[&off_curve, &signature[32..]].concat(), false),
        case(suite, "key off the curve", &off_curve, &signature, false),
        case(suite, "a byte short", &public, &signature[..63], false),
        case(suite, "a byte long", &public, &[&signature[..], &[0]].concat(), false),
        case(suite, "key a byte short", &public[..31], &signature, false),
        Case { message: b"another".to_vec(), ..case(suite, "another message", &public, &signature, false) },
    ];
    // ZIP-215 accepts s = 0 under every key of small order with every R of small order, for every message.
    for (number, key) in SMALL_ORDER.iter().enumerate() {
        for (other, r) in SMALL_ORDER.iter().enumerate() {
            let name = format!("small order, key {number}, R {other}");
            cases.push(case(suite, &name, &unhex(key), &[&unhex(r)[..], &[0; 32]].concat(), true));
        }
        let unreduced = [&unhex(key)[..], &order].concat();
        cases.push(case(suite, &format!("small order {number} with s the order"), &unhex(key), &unreduced, false));
    }
    cases
}
