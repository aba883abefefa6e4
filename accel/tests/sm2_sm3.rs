//! SM2 with SM3 accepts what GB/T 32918.2 accepts, as OpenSSL does.

mod material;

use std::{fs, path::Path, process::Command};

use material::{Material, engine, verify};
use sm2::{
    FieldBytes, Scalar, SecretKey,
    dsa::signature::Verifier,
    elliptic_curve::{
        ops::Reduce,
        pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
        sec1::ToEncodedPoint,
    },
};
use sm3::{Digest, Sm3};
use stele_accel::{SM2_DEFAULT_IDENTITY, Suite, Verdict, check_public_key};
use tempfile::tempdir;

/// n, the order of the group, GB/T 32918.5-2017.
const ORDER: &str = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123";

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hex")
}

fn verdict(item: &Material) -> Verdict {
    let engine = engine(1);
    let alone = item.verify_one();
    // Enough repetitions that the key gets its table.
    assert_eq!(verify(&engine, &vec![item.clone(); 24]), [alone; 24]);
    alone
}

#[test]
fn gb_t_32918_5_example_is_valid() {
    let item = Material {
        suite: Suite::Sm2,
        public_key: bytes(
            "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13",
        ),
        signature: bytes(
            "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa",
        ),
        message: b"message digest".to_vec(),
    };
    assert_eq!(verdict(&item), Verdict::Valid);
    for way in 0..8 {
        assert_eq!(verdict(&item.clone().spoilt(way)), Verdict::Invalid);
    }
}

#[test]
fn a_signature_that_openssl_made_is_valid() {
    let item = Material {
        suite: Suite::Sm2,
        public_key: bytes(
            "048223c176ef81289c34b02d8049e249a12ad158e3bf546cb61062503c806355fb4811ba4efcb6e212a5746951a778b30210e915e6de5b2bea4bdc407da41d1f77",
        ),
        signature: bytes(
            "21607f1368714cc158feb9a6482df7719067b78eada0e89e446ba03412bf558675cd7e7ad348fd50077a2eaae1331f1f8784627a2e02a7f455427953b4d0540e",
        ),
        message: b"a message".to_vec(),
    };
    assert_eq!(verdict(&item), Verdict::Valid);
}

#[test]
fn spoilt_items_agree_with_the_sm2_crate() {
    for key in 1..12u8 {
        let item = Material::valid(Suite::Sm2, key, &[key; 77]);
        assert_eq!(verdict(&item), Verdict::Valid);
        for way in 0..8 {
            let item = item.clone().spoilt(way);
            let portable = || {
                let key = sm2::dsa::VerifyingKey::from_sec1_bytes("1234567812345678", &item.public_key);
                let signature = sm2::dsa::Signature::from_slice(&item.signature).ok()?;
                key.ok()?.verify(&item.message, &signature).ok()
            };
            assert_eq!(verdict(&item), Verdict::from(portable().is_some()), "{item:?}");
        }
    }
}

#[test]
fn r_and_s_outside_the_range_are_refused() {
    let item = Material::valid(Suite::Sm2, 1, b"message");
    let (zero, order, all) = (vec![0; 32], bytes(ORDER), vec![0xff; 32]);
    for bad in [&zero, &order, &all] {
        let r = Material { signature: [bad, &item.signature[32..]].concat(), ..item.clone() };
        let s = Material { signature: [&item.signature[..32], bad].concat(), ..item.clone() };
        for item in [r, s] {
            assert_eq!(verdict(&item), Verdict::Invalid);
        }
    }
}

#[test]
fn r_plus_s_of_zero_is_refused() {
    let item = Material::valid(Suite::Sm2, 1, b"message");
    let signature = sm2::dsa::Signature::from_slice(&item.signature).expect("signature");
    let s = -*signature.r();
    let signature = [&item.signature[..32], &s.to_bytes()].concat();
    assert_eq!(verdict(&Material { signature, ..item }), Verdict::Invalid);
}

#[test]
fn keys_in_other_forms_or_off_the_curve_are_refused() {
    let key = SecretKey::from_slice(&[7; 32]).expect("key").public_key();
    let compressed = key.to_encoded_point(true).as_bytes().to_vec();
    let uncompressed = key.to_encoded_point(false).as_bytes().to_vec();
    assert_eq!(check_public_key(Suite::Sm2, &compressed), Ok(()));
    assert_eq!(check_public_key(Suite::Sm2, &uncompressed), Ok(()));
    let mut hybrid = uncompressed.clone();
    hybrid[0] = 0x06 | (uncompressed[64] & 1);
    let mut compact = compressed.clone();
    compact[0] = 0x05;
    let mut off = uncompressed.clone();
    off[64] ^= 1;
    let p256 = Material::valid(Suite::P256, 1, b"").public_key;
    for form in [hybrid, compact, off, p256, vec![], vec![0], vec![0; 33], vec![4; 64]] {
        assert!(check_public_key(Suite::Sm2, &form).is_err(), "{form:02x?}");
    }
}

/// `Z_A ‖ M` hashed, as the standard's step B4 has it, for the tests' own signers.
fn hash_of(public_key: &sm2::PublicKey, message: &[u8]) -> Scalar {
    let point = public_key.to_encoded_point(false);
    let parameters = "fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc\
         28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93\
         32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7\
         bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0";
    let z = Sm3::new()
        .chain_update([0x00, 0x80])
        .chain_update(SM2_DEFAULT_IDENTITY)
        .chain_update(bytes(parameters))
        .chain_update(&point.as_bytes()[1..])
        .finalize();
    let e = Sm3::new().chain_update(z).chain_update(message).finalize();
    <Scalar as Reduce<_>>::reduce_bytes(FieldBytes::from_slice(&e))
}

/// A signature that its key's owner constructs so that step B6 ends at the point at infinity:
/// `r = e`, `s = -r·d / (1 + d)`.
fn infinity_item() -> (SecretKey, Material) {
    let secret = SecretKey::from_slice(&[9; 32]).expect("key");
    let public_key = secret.public_key();
    let d = *secret.to_nonzero_scalar();
    let r = hash_of(&public_key, b"infinity");
    let s = -(r * d) * (Scalar::ONE + d).invert().expect("not minus one");
    let item = Material {
        suite: Suite::Sm2,
        public_key: public_key.to_encoded_point(false).as_bytes().to_vec(),
        signature: [r.to_bytes(), s.to_bytes()].concat(),
        message: b"infinity".to_vec(),
    };
    (secret, item)
}

#[test]
fn a_signature_through_the_point_at_infinity_is_refused() {
    let (_, item) = infinity_item();
    assert_eq!(verdict(&item), Verdict::Invalid);
    // The rule is ours to state, because libraries differ: this one takes x = 0 there.
    let key = sm2::dsa::VerifyingKey::from_sec1_bytes("1234567812345678", &item.public_key).expect("key");
    let signature = sm2::dsa::Signature::from_slice(&item.signature).expect("signature");
    assert!(key.verify(&item.message, &signature).is_ok());
}

fn openssl(arguments: &[&str], directory: &Path) -> bool {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("this test needs the openssl program, version 3 (Debian package openssl)");
    output.status.success()
}

/// One INTEGER of a DER signature, as 32 bytes.
fn read_integer<'a>(der: &mut &'a [u8]) -> Vec<u8> {
    let (head, rest): (&'a [u8], &'a [u8]) = der.split_at(2);
    assert_eq!(head[0], 0x02);
    let (value, rest) = rest.split_at(head[1].into());
    *der = rest;
    let value = value.strip_prefix(&[0]).unwrap_or(value);
    [vec![0; 32 - value.len()], value.to_vec()].concat()
}

fn write_integer(value: &[u8]) -> Vec<u8> {
    let start = value.iter().position(|byte| *byte != 0).expect("not zero");
    let sign = if value[start] >= 0x80 { &[0][..] } else { &[] };
    let body = [sign, &value[start..]].concat();
    [vec![0x02, u8::try_from(body.len()).expect("short")], body].concat()
}

fn to_der(signature: &[u8]) -> Vec<u8> {
    let body = [write_integer(&signature[..32]), write_integer(&signature[32..])].concat();
    [vec![0x30, u8::try_from(body.len()).expect("short")], body].concat()
}

#[test]
fn sm3_of_every_length_around_the_blocks_is_that_of_openssl() {
    let directory = tempdir().expect("directory");
    let lengths = [0usize, 1, 55, 56, 63, 64, 65, 119, 120, 128, 300, 4096, 100_003];
    let messages: Vec<Vec<u8>> = lengths.iter().map(|length| (0..=250).cycle().take(*length).collect()).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let digests = stele_accel_hash::digest_batch(stele_accel::HashAlgorithm::Sm3, &[], &slices);
    for (message, digest) in messages.iter().zip(digests) {
        let file = directory.path().join("message");
        fs::write(&file, message).expect("write");
        let output = Command::new("openssl").args(["dgst", "-sm3", "-r"]).arg(&file).output().expect("openssl");
        let answer = String::from_utf8(output.stdout).expect("text");
        assert_eq!(answer.split(' ').next(), Some(hex::encode(digest).as_str()), "{} bytes", message.len());
    }
}

#[test]
fn a_signature_under_another_identity_is_refused() {
    let key = SecretKey::from_slice(&[7; 32]).expect("key");
    let signer = sm2::dsa::SigningKey::new("ALICE123@YAHOO.COM", &key).expect("key");
    let signature: sm2::dsa::Signature = sm2::dsa::signature::Signer::sign(&signer, b"message");
    let item = Material {
        suite: Suite::Sm2,
        public_key: key.public_key().to_encoded_point(false).as_bytes().to_vec(),
        signature: signature.to_vec(),
        message: b"message".to_vec(),
    };
    assert_eq!(verdict(&item), Verdict::Invalid);
}

const SIGN: [&str; 6] = ["pkeyutl", "-rawin", "-digest", "sm3", "-pkeyopt", "distid:1234567812345678"];

fn openssl_verifies(key: &SecretKey, message: &[u8], signature: &[u8], directory: &Path) -> bool {
    let pem = key.public_key().to_public_key_pem(LineEnding::LF).expect("pem");
    fs::write(directory.join("public.pem"), pem).expect("write");
    fs::write(directory.join("message"), message).expect("write");
    fs::write(directory.join("signature"), to_der(signature)).expect("write");
    let verify = ["-verify", "-pubin", "-inkey", "public.pem", "-in", "message", "-sigfile", "signature"];
    openssl(&[&SIGN[..], &verify].concat(), directory)
}

#[test]
fn openssl_and_this_crate_accept_each_others_signatures_and_refuse_the_same() {
    let directory = tempdir().expect("directory");
    let directory = directory.path();
    for number in 1..5u8 {
        let key = SecretKey::from_slice(&[number; 32]).expect("key");
        let pem = key.to_pkcs8_pem(LineEnding::LF).expect("pem");
        fs::write(directory.join("private.pem"), pem.as_bytes()).expect("write");
        let message = vec![number; 50 * usize::from(number)];
        fs::write(directory.join("message"), &message).expect("write");
        let sign = ["-sign", "-inkey", "private.pem", "-in", "message", "-out", "signature"];
        assert!(openssl(&[&SIGN[..], &sign].concat(), directory), "openssl signs");
        let der = fs::read(directory.join("signature")).expect("signature");
        let mut body = &der[2..];
        let signature = [read_integer(&mut body), read_integer(&mut body)].concat();
        let public_key = key.public_key().to_encoded_point(true).as_bytes().to_vec();
        let item = Material { suite: Suite::Sm2, public_key, signature, message };
        assert_eq!(verdict(&item), Verdict::Valid);
        let signer = sm2::dsa::SigningKey::new("1234567812345678", &key).expect("key");
        let own: sm2::dsa::Signature = sm2::dsa::signature::Signer::sign(&signer, &item.message);
        assert!(openssl_verifies(&key, &item.message, &own.to_bytes(), directory));
        let spoilt = item.spoilt(1);
        assert!(!openssl_verifies(&key, &spoilt.message, &spoilt.signature, directory));
    }
    let (key, infinity) = infinity_item();
    assert!(!openssl_verifies(&key, &infinity.message, &infinity.signature, directory));
}
