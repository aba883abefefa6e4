//! Evidence that was made to hurt: nothing panics, and nothing that was changed passes.

use proptest::prelude::*;
use stele_evidence::{
    Attestation, CertificateError, EndorsementAnchors, EventLog, ImaLog, PcrValues, Policy, Public, TpmSignature,
    certificate::CERTIFICATE_LENGTH_MAX, verify_endorsement,
};

use crate::{
    platform::{Files, codes},
    vectors::recorded,
};

/// The parts of the evidence, to be changed one at a time.
const PARTS: [fn(&mut Files) -> &mut Vec<u8>; 5] = [
    |files| &mut files.quote,
    |files| &mut files.signature,
    |files| &mut files.pcrs,
    |files| &mut files.attestation_key,
    |files| files.event_log.as_mut().unwrap(),
];

fn verdict(files: &Files, name: &stele_evidence::Name, policy: &Policy) -> stele_evidence::Verdict {
    let expectation = stele_evidence::Expectation {
        attestation_key_name: name,
        qualifying_data: &[0x0a; 32],
        policy,
        previous: None,
    };
    stele_evidence::appraise(&files.evidence(), &expectation)
}

#[test]
fn every_cut_of_every_part_is_refused_with_its_code() {
    let (files, policy) = recorded();
    let name = Public::parse_sized(&files.attestation_key).unwrap().name();
    for (number, part) in PARTS.into_iter().enumerate() {
        let mut changed = files.clone();
        while part(&mut changed).pop().is_some() {
            let verdict = verdict(&changed, &name, &policy);
            assert!(!verdict.passed, "part {number} cut to {}", part(&mut changed).len());
        }
        assert!(codes(&verdict(&changed, &name, &policy)).contains(&"evidence_truncated"));
    }
}

#[test]
fn no_flipped_bit_of_what_is_signed_passes() {
    let (files, policy) = recorded();
    let name = Public::parse_sized(&files.attestation_key).unwrap().name();
    for (number, part) in PARTS.into_iter().enumerate() {
        let length = part(&mut files.clone()).len();
        // Unused places of the PCR file, other banks of the log and text of events say nothing that is believed.
        let free = number == 2 || number == 4;
        for bit in (0..length * 8).step_by(if free { 7 } else { 1 }) {
            let mut changed = files.clone();
            part(&mut changed)[bit / 8] ^= 1 << (bit % 8);
            let verdict = verdict(&changed, &name, &policy);
            assert!(!verdict.passed || free, "bit {bit} of part {number}: {verdict}");
        }
    }
}

/// A bit of an event log that may flip: other banks' digests and data that no digest covers. Everything else is found.
#[test]
fn a_flipped_digest_of_the_policys_bank_is_always_found() {
    let (files, policy) = recorded();
    let name = Public::parse_sized(&files.attestation_key).unwrap().name();
    let bytes = files.event_log.clone().unwrap();
    let log = EventLog::parse(&bytes).unwrap();
    for event in log.events() {
        let digest = log.digest(event, policy.bank).unwrap();
        let places = bytes.windows(32).enumerate().filter(|(_, window)| *window == digest.as_bytes());
        for (at, _) in places {
            let mut changed = files.clone();
            changed.event_log.as_mut().unwrap()[at + 31] ^= 0x80;
            let found = codes(&verdict(&changed, &name, &policy));
            assert!(found.contains(&"event_log_differs"), "event {}: {found:?}", event.number);
        }
    }
}

#[test]
fn lengths_that_lie_cost_nothing() {
    let (files, _) = recorded();
    let log = files.event_log.unwrap();
    // Length of the header's data, number of algorithms, number of digests, length of an event.
    for (at, code) in [(28, "evidence_too_large"), (56, "evidence_too_large"), (81, "evidence_malformed")] {
        let mut changed = log.clone();
        changed[at..at + 4].copy_from_slice(&[0xff; 4]);
        assert_eq!(EventLog::parse(&changed).map(|_| ()).map_err(|error| error.code()), Err(code), "at {at}");
    }
    let key = Public::parse_sized(&files.attestation_key).unwrap();
    let long = vec![0x30; CERTIFICATE_LENGTH_MAX + 1];
    let refused = verify_endorsement(&key, Some(&long), &[], &EndorsementAnchors::default(), 0);
    assert_eq!(refused, Err(CertificateError::KeyAttributes));
    let endorsement_key = include_bytes!("../vectors/ek.pub");
    let key = Public::parse_sized(endorsement_key).unwrap();
    let refused = verify_endorsement(&key, Some(&long), &[], &EndorsementAnchors::default(), 0);
    assert_eq!(refused, Err(CertificateError::TooLarge));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), time in any::<u64>()) {
        drop(Attestation::parse(&bytes));
        let _signature = TpmSignature::parse(&bytes);
        drop(Public::parse_sized(&bytes));
        drop(Public::parse(&bytes));
        drop(PcrValues::parse_tools(&bytes));
        drop(EventLog::parse(&bytes));
        drop(ImaLog::parse(&bytes));
        let key = Public::parse_sized(include_bytes!("../vectors/ek.pub")).unwrap();
        let anchors = EndorsementAnchors { authorities: vec![bytes.clone()], fingerprints: Vec::new() };
        prop_assert!(verify_endorsement(&key, Some(&bytes), &[&bytes], &anchors, time).is_err());
    }

    #[test]
    fn mutated_evidence_never_passes_on_what_the_quote_covers(
        part in 0..PARTS.len(),
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        keep in any::<bool>(),
    ) {
        let (files, policy) = recorded();
        let name = Public::parse_sized(&files.attestation_key).unwrap().name();
        let mut changed = files.clone();
        let target = PARTS[part](&mut changed);
        let at = at.index(target.len());
        let end = if keep { at } else { (at + bytes.len()).min(target.len()) };
        target.splice(at..end, bytes);
        let verdict = verdict(&changed, &name, &policy);
        let same = changed.quote == files.quote && changed.attestation_key == files.attestation_key;
        prop_assert!(!verdict.passed || same);
    }
}
