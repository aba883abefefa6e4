//! Whether a protocol holds: offline, by anybody.

use stele_evidence::exchange::Identity;
use stele_evidence::package::{KeyEvidence, KeyProof};
use stele_evidence::{Attestation, Public, TpmSignature, key_qualifying_data, verify_certification};
use stele_types::Suite;
use stele_verify::signature;

use crate::ceremony::protocol::{Evidence, MadeKey, Protocol, Step, VERSION};
use crate::failure::Failure;

/// What a protocol shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The keys, and what is shown of each.
    pub keys: Vec<(MadeKey, Evidence)>,
    /// By what the TPM is pinned; none if no key is in one.
    pub endorsement_key_sha256: Option<String>,
    /// Who keeps a share.
    pub holders: Vec<String>,
}

/// Examines a protocol.
///
/// # Errors
/// `ceremony_unsigned` and `ceremony_signature` for its signatures, `ceremony_steps` for what was done, `ceremony_evidence`
/// for what the TPM says.
pub fn examine(protocol: &Protocol) -> Result<Examined, Failure> {
    signatures(protocol)?;
    let steps = |what: &str| Failure::new("ceremony_steps", what.to_owned());
    if !protocol.steps.is_sorted_by_key(Step::time_ms) {
        return Err(steps("a step was done before the one that precedes it"));
    }
    let names: Vec<&str> = protocol.steps.iter().map(Step::name).collect();
    let (keys, identity, shares) = match protocol.steps.as_slice() {
        [Step::Configuration { .. }, Step::Keys { keys, .. }, rest @ ..] => match rest {
            [] => (keys, None, None),
            [Step::Identity { endorsement_key_sha256, identity, .. }] => {
                (keys, Some((endorsement_key_sha256, identity)), None)
            }
            [Step::Shares { shares, .. }] => (keys, None, Some(shares)),
            [Step::Identity { endorsement_key_sha256, identity, .. }, Step::Shares { shares, .. }] => {
                (keys, Some((endorsement_key_sha256, identity)), Some(shares))
            }
            _ => return Err(steps(&format!("these are not the steps of a ceremony: {}", names.join(", ")))),
        },
        _ => return Err(steps(&format!("these are not the steps of a ceremony: {}", names.join(", ")))),
    };
    let custody = keys.iter().find(|key| key.role == "custody");
    let shares = shares.map(Vec::as_slice).unwrap_or_default();
    if shares.iter().any(|share| custody.is_none_or(|custody| custody.fingerprint != share.fingerprint)) {
        return Err(steps("a share is of another key than the custody key"));
    }
    let shown = match identity {
        Some((fingerprint, identity)) => {
            let key = Public::parse_sized(&identity.endorsement_key).map_err(|error| evidence(&error.to_string()))?;
            if hex::encode(key.key.fingerprint().as_bytes()) != *fingerprint {
                return Err(evidence("the endorsement key has another fingerprint"));
            }
            keys.iter().map(|key| Ok((key.clone(), shown(key, identity)?))).collect::<Result<_, Failure>>()?
        }
        None if keys.iter().any(|key| key.signer == "tpm") => {
            return Err(steps("keys are in a TPM, and it did not say so"));
        }
        None => keys.iter().map(|key| (key.clone(), Evidence::None)).collect(),
    };
    Ok(Examined {
        keys: shown,
        endorsement_key_sha256: identity.map(|(fingerprint, _)| fingerprint.clone()),
        holders: shares.iter().map(|share| share.holder.clone()).collect(),
    })
}

/// Everybody who was present signed, and nobody else.
fn signatures(protocol: &Protocol) -> Result<(), Failure> {
    let unsigned = |what: &str| Failure::new("ceremony_unsigned", what.to_owned());
    if protocol.version != VERSION {
        return Err(Failure::new("ceremony_malformed", "the version of the protocol is unknown"));
    }
    if protocol.present.is_empty() {
        return Err(unsigned("nobody was present"));
    }
    let named = protocol.present.iter().map(|present| &present.name);
    if !named.eq(protocol.signatures.iter().map(|signed| &signed.name)) {
        return Err(unsigned("those who signed are not those who were present"));
    }
    let bytes = protocol.signing_bytes().map_err(|error| Failure::new("ceremony_malformed", format!("{error:#}")))?;
    for (present, signed) in protocol.present.iter().zip(&protocol.signatures) {
        let refused = || Failure::new("ceremony_signature", format!("this is not what {} signed", present.name));
        let suite = Suite::from_word(&present.suite).ok_or_else(refused)?;
        let key = hex::decode(&present.public_key).map_err(|_| refused())?;
        let signature = hex::decode(&signed.signature).map_err(|_| refused())?;
        signature::verify(suite, &key, &bytes, &signature).map_err(|_| refused())?;
    }
    Ok(())
}

/// What the TPM says of a key. A key that is said to be in the TPM has to be shown to be.
fn shown(key: &MadeKey, identity: &Identity) -> Result<Evidence, Failure> {
    // The TPM seals these and says nothing of them.
    if key.role == "custody" || key.role == "epoch" {
        return Ok(Evidence::None);
    }
    let found = identity.keys.iter().find(|evidence| evidence.name == key.role);
    let found = found.ok_or_else(|| evidence(&format!("the TPM says nothing of the {} key", key.role)))?;
    if spki_of(key).as_deref() != Some(found.spki.as_slice()) {
        return Err(evidence(&format!("the TPM speaks of another {} key", key.role)));
    }
    let attestation_key =
        Public::parse_sized(&identity.attestation_key).map_err(|error| evidence(&error.to_string()))?;
    if attestation_key.name() != identity.attestation_key_name {
        return Err(evidence("the attestation key has another name"));
    }
    let proven = proven(found, &attestation_key)?;
    if key.signer == "tpm" && proven != Evidence::Certified {
        return Err(evidence(&format!("the {} key is not certified by the TPM", key.role)));
    }
    Ok(proven)
}

fn proven(key: &KeyEvidence, attestation_key: &Public) -> Result<Evidence, Failure> {
    let refused = |what: &str| evidence(&format!("{}: {what}", key.name));
    let data = key_qualifying_data(&key.spki);
    match &key.proof {
        None => Ok(Evidence::None),
        Some(KeyProof::Certification { message, signature, public }) => {
            let certified = Public::parse(public).map_err(|error| refused(&error.to_string()))?;
            if certified.key.spki_der() != key.spki {
                return Err(refused("another key was certified"));
            }
            verify_certification(attestation_key, &certified, message, signature, data.as_bytes())
                .map_err(|reason| refused(&reason.to_string()))?;
            Ok(Evidence::Certified)
        }
        Some(KeyProof::Quote { message, signature, .. }) => {
            let signed = TpmSignature::parse(signature).map_err(|error| refused(&error.to_string()))?;
            let quote = Attestation::parse(message).map_err(|error| refused(&error.to_string()))?;
            if !signed.verifies(&attestation_key.key, message) || quote.extra_data != data.as_bytes() {
                return Err(refused("the quote is not of this key"));
            }
            Ok(Evidence::Quoted)
        }
    }
}

fn spki_of(key: &MadeKey) -> Option<Vec<u8>> {
    let point = hex::decode(&key.public_key).ok()?;
    let point = p256::PublicKey::from_sec1_bytes(&point).ok()?;
    Some(stele_evidence::PublicKey::P256(point).spki_der())
}

fn evidence(what: &str) -> Failure {
    Failure::new("ceremony_evidence", what.to_owned())
}
