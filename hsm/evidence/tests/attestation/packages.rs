//! Evidence packages: three encodings of the same, each of which gives back what it was given and nothing else.

use proptest::prelude::*;
use stele_evidence::{
    EvidencePackage, HashAlgorithm, Name, PackageError,
    exchange::{Activated, Activation, Challenge, EnrolledKey, Enrolment, Identity},
    package::{KEYS_MAX, KeyEvidence, KeyProof, KeyProvider, PACKAGE_LENGTH_MAX, PackageEncoding},
};

use crate::vectors::recorded;

/// A package of recorded evidence. Its keys' proofs are only bytes: encodings judge nothing.
pub(crate) fn sample() -> EvidencePackage {
    let (files, _) = recorded();
    let (message, signature) = (files.quote.clone(), files.signature.clone());
    let certification = KeyProof::Certification { message, signature, public: files.attestation_key[2..].to_vec() };
    let (message, signature, pcrs) = (files.quote.clone(), files.signature.clone(), files.pcrs.clone());
    let key =
        |name: &str, provider, byte, proof| KeyEvidence { name: name.into(), provider, spki: vec![byte; 91], proof };
    EvidencePackage {
        nonce: [0x0a; 32],
        sig_structure: b"\x84\x6aSignature1".to_vec(),
        quote_message: files.quote,
        quote_signature: files.signature,
        pcrs: files.pcrs,
        attestation_key: files.attestation_key,
        event_log: files.event_log,
        ima_log: Some(b"10 log\n".to_vec()),
        manifest: Some(b"{}".to_vec()),
        keys: vec![
            key("custody", KeyProvider::Software, 1, None),
            key("seal", KeyProvider::Pkcs11, 2, Some(KeyProof::Quote { message, signature, pcrs })),
            key("validator", KeyProvider::Tpm, 3, Some(certification)),
        ],
    }
}

fn code<T>(result: Result<T, PackageError>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(error) => error.code(),
    }
}

#[test]
fn every_encoding_gives_back_what_it_was_given() {
    let whole = sample();
    let bare = EvidencePackage { event_log: None, ima_log: None, manifest: None, keys: Vec::new(), ..whole.clone() };
    let mut turned = whole.clone();
    turned.keys.reverse();
    for encoding in PackageEncoding::ALL {
        for package in [&whole, &bare] {
            let bytes = package.encode(encoding).unwrap();
            let read = EvidencePackage::decode(&bytes).unwrap();
            assert_eq!(&read, package, "{encoding:?}");
            assert_eq!(read.encode(encoding).unwrap(), bytes, "{encoding:?}");
        }
        assert_eq!(turned.encode(encoding), whole.encode(encoding), "{encoding:?}: the order of keys says nothing");
    }
}

/// What was handed out once must be the same bytes for ever: verdicts on the ledger name their digest.
#[test]
fn the_bytes_of_a_package_do_not_change() {
    let digests = PackageEncoding::ALL.map(|encoding| {
        let bytes = sample().encode(encoding).unwrap();
        HashAlgorithm::Sha256.digest(&[&bytes]).to_string()
    });
    assert_eq!(
        digests,
        [
            "sha256:4831c12c98a6955042cb038ada47130120dc6a6a9d28ac05bec5a3786a3a01f5",
            "sha256:be7ff40530d40e411c8efe820b32f33848c5ce52775ecf53913a152dae70ceba",
            "sha256:8d68508309a8e770766fb9aeb4f1ddd52e06e73152ff1da5fb7967a9a6f90af4",
        ]
    );
}

#[test]
fn every_cut_is_refused() {
    for encoding in PackageEncoding::ALL {
        let bytes = sample().encode(encoding).unwrap();
        for length in 0..bytes.len() {
            let refused = EvidencePackage::decode(&bytes[..length]).expect_err("cut");
            let code = refused.code();
            assert!(matches!(code, "package_truncated" | "package_malformed"), "{encoding:?} cut to {length}: {code}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(code(EvidencePackage::decode(&longer)), "package_malformed", "{encoding:?}");
    }
}

#[test]
fn parts_and_keys_have_bounds_on_both_sides() {
    let write = |change: &dyn Fn(&mut EvidencePackage)| {
        let mut package = sample();
        change(&mut package);
        PackageEncoding::ALL.map(|encoding| code(package.encode(encoding)))
    };
    let too_large = ["package_too_large"; 3];
    assert_eq!(write(&|package| package.sig_structure = vec![0; 4097]), too_large);
    assert_eq!(write(&|package| package.quote_message = vec![0; 1025]), too_large);
    assert_eq!(write(&|package| package.event_log = Some(vec![0; (4 << 20) + 1])), too_large);
    assert_eq!(write(&|package| package.ima_log = Some(vec![0; (16 << 20) + 1])), too_large);
    let many = |package: &mut EvidencePackage| {
        let key = package.keys[0].clone();
        package.keys =
            (0..=KEYS_MAX).map(|number| KeyEvidence { name: format!("key-{number}"), ..key.clone() }).collect();
    };
    assert_eq!(write(&many), too_large);
    assert_eq!(write(&|package| package.keys[0].name = "../seal".into()), ["package_part_unknown"; 3]);
    assert_eq!(write(&|package| package.keys[0].name = "seal".into()), ["package_part_repeated"; 3]);
    // The longest package fits, and what is longer is not looked at.
    let mut package = sample();
    package.event_log = Some(vec![1; 4 << 20]);
    package.ima_log = Some(vec![2; 16 << 20]);
    package.manifest = Some(vec![3; 1 << 20]);
    for encoding in PackageEncoding::ALL {
        let bytes = package.encode(encoding).unwrap();
        assert_eq!(EvidencePackage::decode(&bytes).as_ref(), Ok(&package));
    }
    for first in [&b"{"[..], b"\xa9", b"quote.msg"] {
        let mut long = first.to_vec();
        long.resize(PACKAGE_LENGTH_MAX / 3 * 4 + 1, 0);
        assert_eq!(code(EvidencePackage::decode(&long)), "package_too_large");
    }
}

#[test]
fn json_that_says_a_thing_twice_or_in_another_form_is_refused() {
    let text = String::from_utf8(sample().to_json().unwrap()).unwrap();
    let read = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        code(EvidencePackage::from_json(text.replacen(from, to, 1).as_bytes()))
    };
    assert_eq!(read("{\"nonce\"", "{\"later\":1,\"nonce\""), "accepted");
    assert_eq!(read("{\"nonce\"", "{\"nonce\":\"00\",\"nonce\""), "package_malformed");
    assert_eq!(read("0a0a", "0a"), "package_malformed");
    assert_eq!(read("0a0a", "0ag0"), "package_malformed");
    assert_eq!(read("\"tpm\"", "\"cloud\""), "package_malformed");
    assert_eq!(read("\"software\"", "\"software\",\"spki\":\"\""), "package_malformed");
    assert_eq!(read("\"spki\":\"", "\"spki\":\"_"), "package_malformed");
    assert_eq!(read("\"keys\":[", "\"keys\":7,\"x\":["), "package_malformed");
    assert_eq!(read("\"attestation_key\"", "\"other_key\""), "package_malformed");
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["keys"][2]["quote"] = value["keys"][1]["quote"].clone();
    assert_eq!(code(EvidencePackage::from_json(value.to_string().as_bytes())), "package_malformed");
}

#[test]
fn a_collection_is_deterministic_cbor_with_its_media_types() {
    let bytes = sample().to_cmw().unwrap();
    // A map of 21: the shortest label first; a record of three: media type, bytes, and bit 2 for evidence.
    assert_eq!(bytes[..8], *b"\xb5\x65nonce\x83");
    assert_eq!(bytes[8..34], *b"\x78\x18application/octet-stream");
    assert_eq!((bytes[34..36].to_vec(), bytes[68]), (vec![0x58, 32], 4));
    let change = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        let changed = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
        code(EvidencePackage::from_cmw(&changed))
    };
    assert_eq!(change(b"\xb5\x65nonce", b"\xb5\x65nonsE"), "package_part_unknown");
    assert_eq!(change(b"\xb5\x65nonce", b"\xb8\x15\x65nonce"), "package_malformed");
    assert_eq!(change(b"\xb5\x65nonce", b"\xbf\x65nonce"), "package_malformed");
    assert_eq!(change(b"\xb5\x65nonce\x83", b"\xb5\x65nonce\x82"), "package_malformed");
    assert_eq!(change(b"octet-stream", b"octet-strear"), "package_malformed");
    assert_eq!(change(b"\x66ak.pub", b"\x65nonce"), "package_malformed");
    // Manifests are reference values: bit 0.
    let manifest = b"\x42{}\x01";
    assert_eq!(change(manifest, b"\x42{}\x04"), "package_malformed");
    assert_eq!(change(manifest, b"\x42{}\x18\x01"), "package_malformed");
    assert_eq!(change(manifest, b"\x58\x02{}\x01"), "package_malformed");
    // Bytes that say that they are longer than a machine's memory.
    assert_eq!(change(manifest, b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"), "package_truncated");
    assert_eq!(code(EvidencePackage::from_cmw(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff")), "package_truncated");
    assert_eq!(code(EvidencePackage::from_cmw(b"\xa0")), "package_part_missing");
}

#[test]
fn files_of_a_folder_are_a_package_and_half_a_proof_is_none() {
    let package = sample();
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("nonce".into(), package.nonce.to_vec()),
        ("checkpoint".into(), package.sig_structure.clone()),
        ("quote.msg".into(), package.quote_message.clone()),
        ("quote.sig".into(), package.quote_signature.clone()),
        ("pcrs.bin".into(), package.pcrs.clone()),
        ("ak.pub".into(), package.attestation_key.clone()),
        ("keys/seal.spki".into(), vec![2; 91]),
        ("keys/seal.provider".into(), b"pkcs11".to_vec()),
    ];
    let read = |files: &[(String, Vec<u8>)]| {
        EvidencePackage::from_files(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
    };
    assert_eq!(read(&files).unwrap().keys[0].proof, None);
    files.push(("keys/seal.msg".into(), vec![1]));
    assert_eq!(code(read(&files)), "package_malformed");
    files.push(("keys/seal.sig".into(), vec![1]));
    assert_eq!(code(read(&files)), "package_malformed");
    files.push(("keys/seal.pcrs".into(), vec![1]));
    assert!(matches!(read(&files).unwrap().keys[0].proof, Some(KeyProof::Quote { .. })));
    files.push(("keys/seal.pub".into(), vec![1]));
    assert_eq!(code(read(&files)), "package_malformed");
    files.truncate(7);
    assert_eq!(code(read(&files)), "package_part_missing");
    files.truncate(5);
    assert_eq!(code(read(&files)), "package_part_missing");
    files.push(("nonce".into(), vec![0; 32]));
    assert_eq!(code(read(&files)), "package_part_repeated");
    files[0].1.pop();
    files.truncate(5);
    files.push(("ak.pub".into(), vec![1]));
    assert_eq!(code(read(&files)), "package_malformed");
}

#[test]
fn what_node_and_verifier_say_is_the_json_that_is_documented() {
    let name = Name::from_hex(&format!("000b{}", "ab".repeat(32))).unwrap();
    let identity = Identity {
        endorsement_key: vec![1],
        endorsement_certificate: None,
        attestation_key: vec![2],
        attestation_key_name: name.clone(),
        keys: vec![KeyEvidence { name: "seal".into(), provider: KeyProvider::Tpm, spki: vec![3], proof: None }],
    };
    let text = serde_json::to_value(&identity).unwrap();
    let key =
        serde_json::json!({ "name": "seal", "provider": "tpm", "spki": "Aw==", "certification": null, "quote": null });
    assert_eq!(
        text,
        serde_json::json!({
            "endorsement_key": "AQ==", "endorsement_certificate": null, "attestation_key": "Ag==",
            "attestation_key_name": name.to_hex(), "keys": [key],
        })
    );
    assert_eq!(serde_json::from_value::<Identity>(text).unwrap(), identity);
    let activation = Activation { id_object: vec![1], encrypted_seed: vec![2] };
    let text = serde_json::to_string(&activation).unwrap();
    assert_eq!(text, r#"{"id_object":"AQ==","encrypted_seed":"Ag=="}"#);
    assert_eq!(serde_json::from_str::<Activation>(&text).unwrap(), activation);
    assert_eq!(serde_json::to_string(&Activated { secret: vec![0] }).unwrap(), r#"{"secret":"AA=="}"#);
    let challenge = format!(r#"{{"nonce":"{}"}}"#, "0a".repeat(32));
    assert_eq!(serde_json::from_str::<Challenge>(&challenge).unwrap(), Challenge { nonce: [0x0a; 32] });
    for short in [r#"{"nonce":"0a"}"#, r#"{"nonce":7}"#, "{}"] {
        serde_json::from_str::<Challenge>(short).unwrap_err();
    }
    let endorsement = stele_evidence::Endorsement::Fingerprint { fingerprint: HashAlgorithm::Sha256.digest(&[b"x"]) };
    let keys = vec![EnrolledKey::from(&identity.keys[0])];
    let enrolment = Enrolment { attestation_key_name: name, endorsement, keys };
    let text = serde_json::to_string(&enrolment).unwrap();
    assert_eq!(serde_json::from_str::<Enrolment>(&text).unwrap(), enrolment);
}

proptest! {
    #[test]
    fn arbitrary_and_mutated_bytes_never_panic_and_mean_one_thing(
        encoding in 0..3_usize,
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        keep in any::<bool>(),
    ) {
        drop(EvidencePackage::decode(&bytes));
        let encoding = PackageEncoding::ALL[encoding];
        let mut changed = sample().encode(encoding).unwrap();
        let at = at.index(changed.len());
        let end = if keep { at } else { (at + bytes.len()).min(changed.len()) };
        changed.splice(at..end, bytes);
        if let Ok(read) = EvidencePackage::decode(&changed) {
            let again = read.encode(encoding).unwrap();
            prop_assert_eq!(EvidencePackage::decode(&again).unwrap(), read);
        }
    }
}
