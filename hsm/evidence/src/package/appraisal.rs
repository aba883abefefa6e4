//! A package against expectation: the quote with its logs, then each key.

use alloc::{boxed::Box, collections::BTreeSet, vec::Vec};

use crate::{
    algorithm::HashAlgorithm,
    appraisal::{Evidence, Expectation, appraise},
    attest::ClockInfo,
    certificate::Endorsement,
    certification::verify_certification,
    exchange::EnrolledKey,
    nonce::{NONCE_LENGTH, key_qualifying_data, quote_qualifying_data},
    package::{
        content::{EvidencePackage, KeyEvidence, KeyProof},
        verdict::{KeyFact, KeyReason, KeyTrust, PackageReason, PackageVerdict},
    },
    policy::Policy,
    public::{Name, Public},
    verdict::{Part, Reason, Verdict},
};

/// What the verifier asked and believes.
#[derive(Clone, Copy, Debug)]
pub struct PackageExpectation<'a> {
    /// The nonce that the verifier asked with; the package's own is only compared with it.
    pub nonce: &'a [u8; NONCE_LENGTH],
    /// Name of the attestation key that was enrolled with the platform's endorsement key.
    pub attestation_key_name: &'a Name,
    /// What the platform must be.
    pub policy: &'a Policy,
    /// The clock of the previous verdict on this platform.
    pub previous: Option<&'a ClockInfo>,
    /// Keys that were enrolled with the platform. A key that is not among them needs a proof; `None` compares nothing.
    pub keys: Option<&'a [EnrolledKey]>,
    /// Whether a key without a proof is refused even if it was enrolled.
    pub keys_proven: bool,
    /// The caller's word that [`crate::verify_endorsement`] gave this for the endorsement key, and that the TPM which holds
    /// it gave back a credential for the attestation key. It is passed on into the verdict.
    pub endorsement: Option<&'a Endorsement>,
}

/// Judges a package whole: every reason is collected, and nothing in it makes this panic.
///
/// A key is *certified* if the attestation key says that the TPM holds it, and *quoted* if a quote over it passes under the
/// policy's PCRs (logs aside: the key was bound earlier, perhaps). A key without either is reported as unproven.
#[must_use]
pub fn appraise_package(package: &EvidencePackage, expectation: &PackageExpectation<'_>) -> PackageVerdict {
    let data = quote_qualifying_data(expectation.nonce, &package.sig_structure);
    let asked = Expectation {
        attestation_key_name: expectation.attestation_key_name,
        qualifying_data: data.as_bytes(),
        policy: expectation.policy,
        previous: expectation.previous,
    };
    let Verdict { reasons, reasons_left_out, facts, .. } = appraise(&package.evidence(), &asked);
    let mut reasons: Vec<PackageReason> =
        reasons.into_iter().map(|reason| PackageReason::Platform(Box::new(reason))).collect();
    if package.nonce != *expectation.nonce {
        reasons.push(PackageReason::Nonce);
    }
    let mut keys = Vec::with_capacity(package.keys.len());
    for key in &package.keys {
        let (fact, against) = appraise_key(key, package, expectation);
        keys.push(fact);
        reasons.extend(against.into_iter().map(|reason| PackageReason::Key { name: key.name.clone(), reason }));
    }
    PackageVerdict {
        passed: reasons.is_empty(),
        reasons,
        reasons_left_out,
        facts,
        checkpoint: HashAlgorithm::Sha256.digest(&[&package.sig_structure]),
        keys,
        endorsement: expectation.endorsement.cloned(),
    }
}

fn appraise_key(
    key: &KeyEvidence,
    package: &EvidencePackage,
    expectation: &PackageExpectation<'_>,
) -> (KeyFact, Vec<KeyReason>) {
    let enrolled = expectation.keys.map(|keys| keys.iter().any(|one| one.name == key.name && one.spki == key.spki));
    let (trust, against) = match &key.proof {
        None => {
            let unproven = match enrolled {
                _ if expectation.keys_proven => Some(KeyReason::Unproven),
                Some(false) => Some(KeyReason::NotEnrolled),
                _ => None,
            };
            (KeyTrust::Unproven, Vec::from_iter(unproven))
        }
        Some(KeyProof::Certification { message, signature, public }) => {
            let name = expectation.attestation_key_name;
            let against = certification(key, public, (message, signature), &package.attestation_key, name);
            (if against.is_none() { KeyTrust::Certified } else { KeyTrust::Refused }, Vec::from_iter(against))
        }
        Some(KeyProof::Quote { message, signature, pcrs }) => {
            let evidence = Evidence {
                quote: message,
                signature,
                pcrs,
                attestation_key: &package.attestation_key,
                event_log: None,
                ima_log: None,
            };
            let against = key_quote(key, &evidence, expectation.attestation_key_name, expectation.policy);
            (if against.is_empty() { KeyTrust::Quoted } else { KeyTrust::Refused }, against)
        }
    };
    let fingerprint = HashAlgorithm::Sha256.digest(&[&key.spki]);
    (KeyFact { name: key.name.clone(), provider: key.provider, fingerprint, trust, enrolled }, against)
}

/// What speaks against a key's certification (message and signature) by the attestation key that was enrolled by this name.
pub(crate) fn certification(
    key: &KeyEvidence,
    public: &[u8],
    (message, signature): (&[u8], &[u8]),
    attestation_key: &[u8],
    enrolled: &Name,
) -> Option<KeyReason> {
    let unreadable = |part, error| Some(KeyReason::Proof(Box::new(Reason::Unreadable { part, error })));
    let attestation_key = match Public::parse_sized(attestation_key) {
        Ok(attestation_key) => attestation_key,
        Err(error) => return unreadable(Part::AttestationKey, error),
    };
    let name = attestation_key.name();
    if name != *enrolled {
        let (expected, found) = (enrolled.to_hex(), name.to_hex());
        return Some(KeyReason::Proof(Box::new(Reason::OtherKey { expected, found })));
    }
    let certified = match Public::parse(public) {
        Ok(certified) => certified,
        Err(error) => return unreadable(Part::Certification, error),
    };
    if certified.key.spki_der() != key.spki {
        return Some(KeyReason::OtherKey);
    }
    let data = key_qualifying_data(&key.spki);
    let verified = verify_certification(&attestation_key, &certified, message, signature, data.as_bytes());
    verified.err().map(KeyReason::Proof)
}

/// What speaks against a quote over a key. Anything that runs on the machine may ask for one, so it is worth what ran: the
/// PCRs that the policy names must have had values that it allows.
pub(crate) fn key_quote(
    key: &KeyEvidence,
    evidence: &Evidence<'_>,
    enrolled: &Name,
    policy: &Policy,
) -> Vec<KeyReason> {
    let policy =
        Policy { event_log_required: false, extended_after_boot: BTreeSet::new(), ima: None, ..policy.clone() };
    let data = key_qualifying_data(&key.spki);
    let asked = Expectation {
        attestation_key_name: enrolled,
        qualifying_data: data.as_bytes(),
        policy: &policy,
        previous: None,
    };
    appraise(evidence, &asked).reasons.into_iter().map(|reason| KeyReason::Proof(Box::new(reason))).collect()
}
