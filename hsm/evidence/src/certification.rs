//! `TPM2_Certify`: the attestation key says that a key is loaded in its TPM.

use alloc::boxed::Box;

use crate::{
    attest::{Attestation, Attested, ClockInfo},
    public::{Name, ObjectAttributes, Public},
    signature::TpmSignature,
    verdict::{Part, Reason},
};

/// A key that an attestation key vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedKey {
    /// Its name, by which the TPM knows public area and attributes.
    pub name: Name,
    /// Clock and counters when it was certified.
    pub clock: ClockInfo,
}

/// Checks that `attestation_key`, itself one, certified `key`: its name, and that the TPM made it, never gives it away, and
/// lets it sign. Both public areas are those that the platform gave; the statement binds them.
///
/// # Errors
/// The first [`Reason`] against it.
pub fn verify_certification(
    attestation_key: &Public,
    key: &Public,
    attestation: &[u8],
    signature: &[u8],
    qualifying_data: &[u8],
) -> Result<CertifiedKey, Box<Reason>> {
    let refused = |reason| Err(Box::new(reason));
    if let Some(attribute) = attestation_key_fault(attestation_key) {
        return refused(Reason::KeyAttributes { attribute });
    }
    let unreadable = |part| move |error| Box::new(Reason::Unreadable { part, error });
    let signed = TpmSignature::parse(signature).map_err(unreadable(Part::Signature))?;
    if !signed.verifies(&attestation_key.key, attestation) {
        return refused(Reason::Signature);
    }
    let attestation = Attestation::parse(attestation).map_err(unreadable(Part::Certification))?;
    if attestation.extra_data != qualifying_data {
        return refused(Reason::QualifyingData);
    }
    let Attested::Certify { name, .. } = attestation.attested else { return refused(Reason::NotACertification) };
    let found = key.name();
    if name != found {
        return refused(Reason::OtherObject { expected: found.to_hex(), found: name.to_hex() });
    }
    if let Some(attribute) = held_key_fault(key.attributes) {
        return refused(Reason::ObjectAttributes { attribute });
    }
    Ok(CertifiedKey { name, clock: attestation.clock })
}

/// What keeps a key from being an attestation key.
pub(crate) fn attestation_key_fault(key: &Public) -> Option<&'static str> {
    let attributes = key.attributes;
    if !attributes.restricted() {
        return Some("signs what the TPM did not make");
    }
    if attributes.decrypt() {
        return Some("decrypts as well");
    }
    held_key_fault(attributes)
}

/// What keeps a key from being one that only its TPM signs with.
const fn held_key_fault(attributes: ObjectAttributes) -> Option<&'static str> {
    if !attributes.fixed_tpm() {
        Some("may leave its TPM")
    } else if !attributes.fixed_parent() {
        Some("may get another parent")
    } else if !attributes.sensitive_data_origin() {
        Some("was not made by its TPM")
    } else if !attributes.sign() {
        Some("does not sign")
    } else {
        None
    }
}
