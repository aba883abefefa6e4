//! Bodies for what a platform gives as evidence.

#![expect(clippy::unwrap_used, reason = "what a body unwraps is a promise of the code under test")]

use std::sync::OnceLock;

use stele_evidence::{
    Attestation, EndorsementAnchors, EventLog, Evidence, EvidencePackage, Expectation, HashAlgorithm, ImaLog,
    PcrSelection, PcrValues, Policy, Public, TpmSignature, appraise,
    package::{KeyEvidence, KeyProof, KeyProvider, PackageEncoding},
    verify_endorsement,
};

/// Evidence that the tests of `stele-evidence` recorded from a TPM in software.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../hsm/evidence/tests/vectors/", $name)).as_slice()
    };
}

/// What was recorded is qualified by this.
const QUALIFYING_DATA: [u8; 32] = [0x0a; 32];

/// Parts of evidence in the order in which an input has them, each behind two bytes of length.
const PARTS: [&[u8]; 5] = [
    recorded!("quote.msg"),
    recorded!("quote.sig"),
    recorded!("quote.pcrs"),
    recorded!("ak.pub"),
    recorded!("event_log"),
];

/// The first byte chooses the structure.
pub(crate) fn tpm_structure(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    match first % 4 {
        0 => drop(Attestation::parse(rest)),
        1 => {
            if let Ok(signature) = TpmSignature::parse(rest) {
                let key = Public::parse_sized(PARTS[3]).unwrap();
                assert!(!signature.verifies(&key.key, PARTS[0]) || rest == PARTS[1]);
            }
        }
        2 => {
            if let Ok(public) = Public::parse_sized(rest) {
                assert_eq!(public.as_bytes(), &rest[2..]);
                assert_eq!(Public::parse(public.as_bytes()).unwrap().name(), public.name());
            }
        }
        _ => {
            if let Ok(values) = PcrValues::parse_tools(rest) {
                let indices: Vec<u8> = values.iter().map(|(index, _)| index).collect();
                let one_bank = values.iter().all(|(_, value)| value.algorithm() == HashAlgorithm::Sha256);
                if one_bank {
                    let selection = PcrSelection::new(HashAlgorithm::Sha256, &indices).unwrap();
                    assert_eq!(PcrValues::parse_tools(&values.to_tools(&selection).unwrap()).unwrap(), values);
                }
            }
        }
    }
}

pub(crate) fn tpm_structures() -> Vec<Vec<u8>> {
    (0_u8..)
        .zip([PARTS[0], PARTS[1], PARTS[3], PARTS[2]])
        .map(|(number, part)| [&[number][..], part].concat())
        .collect()
}

pub(crate) fn event_log(bytes: &[u8]) {
    let Ok(log) = EventLog::parse(bytes) else { return };
    assert!(log.events().len() <= bytes.len() / 12);
    for event in log.events() {
        assert!(event.label().len() < 256);
    }
    for bank in [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384] {
        assert_eq!(log.replay(bank).is_some(), log.has_bank(bank));
    }
}

pub(crate) fn event_logs() -> Vec<Vec<u8>> {
    vec![PARTS[4].to_vec()]
}

pub(crate) fn ima_log(bytes: &[u8]) {
    if let Ok(log) = ImaLog::parse(bytes) {
        let zero = stele_evidence::Digest::filled(HashAlgorithm::Sha256, 0);
        assert_eq!(log.entries_until(HashAlgorithm::Sha256, &zero), Some(0));
    }
}

pub(crate) fn ima_logs() -> Vec<Vec<u8>> {
    vec![recorded!("ima_log").to_vec(), recorded!("ima_log.txt").to_vec()]
}

/// Only the recorded certificate leads to the recorded authority.
pub(crate) fn certificate_verify(bytes: &[u8]) {
    let key = Public::parse_sized(recorded!("rsa_ek.pub")).unwrap();
    let anchors = EndorsementAnchors { authorities: vec![recorded!("root.crt").to_vec()], fingerprints: Vec::new() };
    let issuer = recorded!("issuer.crt");
    if verify_endorsement(&key, Some(bytes), &[issuer], &anchors, 1_893_456_000).is_ok() {
        assert!(bytes.starts_with(recorded!("rsa_ek.crt")));
    }
    let hostile = EndorsementAnchors { authorities: vec![bytes.to_vec()], fingerprints: Vec::new() };
    drop(verify_endorsement(&key, Some(recorded!("rsa_ek.crt")), &[bytes, issuer], &hostile, 1_893_456_000));
}

pub(crate) fn certificates() -> Vec<Vec<u8>> {
    vec![recorded!("rsa_ek.crt").to_vec(), recorded!("issuer.crt").to_vec(), recorded!("root.crt").to_vec()]
}

/// Whatever passes is the quote that was recorded, by the key that was recorded.
pub(crate) fn attestation_verify(bytes: &[u8]) {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    // As in policy.json: values of PCRs 4, 7 and 11 that the recorded log gives.
    let policy = POLICY.get_or_init(|| {
        let log = EventLog::parse(PARTS[4]).unwrap();
        let replay = log.replay(HashAlgorithm::Sha256).unwrap();
        let rule = |pcr: u8| stele_evidence::policy::PcrRule {
            pcr,
            allowed: vec![stele_evidence::policy::Prediction {
                value: *replay.value(pcr).unwrap(),
                events: Vec::new(),
            }],
        };
        Policy {
            bank: HashAlgorithm::Sha256,
            pcrs: [4, 7, 11].map(rule).into(),
            event_log_required: true,
            extended_after_boot: [].into(),
            ima: None,
            firmware_versions: [].into(),
        }
    });
    let Some(parts) = split(bytes) else { return };
    let name = Public::parse_sized(PARTS[3]).unwrap().name();
    let evidence = Evidence {
        quote: parts[0],
        signature: parts[1],
        pcrs: parts[2],
        attestation_key: parts[3],
        event_log: Some(parts[4]),
        ima_log: None,
    };
    let expectation =
        Expectation { attestation_key_name: &name, qualifying_data: &QUALIFYING_DATA, policy, previous: None };
    let verdict = appraise(&evidence, &expectation);
    assert_eq!(verdict.passed, verdict.reasons.is_empty());
    assert!(!verdict.passed || (parts[0], parts[3]) == (PARTS[0], PARTS[3]), "{verdict}");
    assert!(verdict.to_string().len() < 100_000);
}

pub(crate) fn attestations() -> Vec<Vec<u8>> {
    let part = |part: &&[u8]| [&u16::try_from(part.len()).unwrap().to_be_bytes(), *part].concat();
    vec![PARTS.iter().flat_map(part).collect()]
}

fn split(mut bytes: &[u8]) -> Option<[&[u8]; 5]> {
    let mut parts = [&[][..]; 5];
    for part in &mut parts {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        (*part, bytes) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    }
    Some(parts)
}

/// What is read is one thing in every encoding; a CMW collection is its only one.
pub(crate) fn evidence_package(bytes: &[u8]) {
    let Ok(package) = EvidencePackage::decode(bytes) else { return };
    for encoding in PackageEncoding::ALL {
        let again = package.encode(encoding).unwrap();
        assert_eq!(EvidencePackage::decode(&again).unwrap(), package);
        if encoding == PackageEncoding::Cmw && matches!(bytes.first(), Some(0xa0..=0xbf)) {
            assert_eq!(again, bytes);
        }
    }
}

pub(crate) fn evidence_packages() -> Vec<Vec<u8>> {
    let [message, signature, pcrs, attestation_key, event_log] = PARTS.map(<[u8]>::to_vec);
    let quote = KeyProof::Quote { message: message.clone(), signature: signature.clone(), pcrs: pcrs.clone() };
    let public = attestation_key[2..].to_vec();
    let certification = KeyProof::Certification { message: message.clone(), signature: signature.clone(), public };
    let key = |name: &str, provider, proof| KeyEvidence { name: name.into(), provider, spki: vec![1; 8], proof };
    let package = EvidencePackage {
        nonce: QUALIFYING_DATA,
        sig_structure: vec![0x84],
        quote_message: message,
        quote_signature: signature,
        pcrs,
        attestation_key,
        event_log: Some(event_log),
        ima_log: Some(recorded!("ima_log").to_vec()),
        manifest: None,
        keys: vec![
            key("seal", KeyProvider::Pkcs11, Some(quote)),
            key("validator", KeyProvider::Tpm, Some(certification)),
            key("custody", KeyProvider::Software, None),
        ],
    };
    PackageEncoding::ALL.map(|encoding| package.encode(encoding).unwrap()).into()
}
