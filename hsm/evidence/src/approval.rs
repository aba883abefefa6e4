//! Approvals of platform states: by what a secret opens that is sealed under a release's *policy key*.
//!
//! Such a secret names the key and no value of a PCR (`TPM2_PolicyAuthorize`, TPM 2.0 Part 3 section 23.16). Whoever holds the
//! private half, offline, signs the values that a release predicts; so an update needs a signature, and no secret is sealed
//! anew. All of it is SHA-256: approving needs no TPM, and a shell can do it.
//!
//! ```text
//! approved  = SHA-256(32 zeros ‖ 0000017f ‖ TPML_PCR_SELECTION ‖ SHA-256(values, ascending))      TPM2_PolicyPCR
//! message   = approved ‖ "stele/approval/v1"                                                       what is signed
//! policy    = SHA-256(SHA-256(32 zeros ‖ 0000016a ‖ name of the key) ‖ "stele/approval/v1")        what a secret names
//! ```

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt;

use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier as _},
    elliptic_curve::sec1::ToEncodedPoint as _,
};
use serde::{Deserialize, Serialize};

use crate::{
    algorithm::{Digest, HashAlgorithm, from_hex, to_hex},
    pcr::{PCR_COUNT, PcrSelection, PcrValues},
};

/// What every approval's message ends with: the `policyRef` of the TPM.
pub const APPROVAL_DOMAIN: &[u8] = b"stele/approval/v1";

/// Longest file of an approval in bytes: 24 PCRs take some 2 KiB.
pub const APPROVAL_LENGTH_MAX: usize = 16 << 10;

/// Longest name of a release in bytes.
const RELEASE_LENGTH_MAX: usize = 128;

/// Longest ECDSA signature over P-256 in DER.
const SIGNATURE_LENGTH_MAX: usize = 72;

/// Command codes, TPM 2.0 Part 2 section 6.5.2.
const CC_POLICY_AUTHORIZE: u32 = 0x0000_016a;
const CC_POLICY_PCR: u32 = 0x0000_017f;

/// Why an approval approves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalError {
    /// It is no approval.
    Malformed,
    /// It names no PCR, one above 23, or a value that is not of the SHA-256 bank.
    Pcrs,
    /// It is not signed by the policy key.
    Signature,
    /// The policy key is no point of P-256.
    Key,
}

impl ApprovalError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "approval_malformed",
            Self::Pcrs => "approval_pcrs",
            Self::Signature => "approval_foreign",
            Self::Key => "policy_key_malformed",
        }
    }
}

impl fmt::Display for ApprovalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "this is no approval",
            Self::Pcrs => "an approval names PCRs from 0 to 23 with values of the SHA-256 bank, and at least one",
            Self::Signature => "the approval is not signed by the policy key",
            Self::Key => "the policy key is no point of P-256",
        })
    }
}

impl core::error::Error for ApprovalError {}

/// The state of a platform: values of PCRs of the SHA-256 bank. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformState {
    values: PcrValues,
    selection: PcrSelection,
}

impl PlatformState {
    /// A state of these values.
    ///
    /// # Errors
    /// [`ApprovalError::Pcrs`].
    pub fn new(pcrs: &BTreeMap<u8, Digest>) -> Result<Self, ApprovalError> {
        let sound = |(pcr, value): (&u8, &Digest)| *pcr < PCR_COUNT && value.algorithm() == HashAlgorithm::Sha256;
        if pcrs.is_empty() || !pcrs.iter().all(sound) {
            return Err(ApprovalError::Pcrs);
        }
        let mut values = PcrValues::default();
        pcrs.iter().for_each(|(pcr, value)| values.insert(*pcr, *value));
        let indices: Vec<u8> = pcrs.keys().copied().collect();
        let selection = PcrSelection::new(HashAlgorithm::Sha256, &indices).ok_or(ApprovalError::Pcrs)?;
        Ok(Self { values, selection })
    }

    /// The values.
    #[must_use]
    pub const fn values(&self) -> &PcrValues {
        &self.values
    }

    /// Indices of the PCRs, ascending.
    pub fn indices(&self) -> impl Iterator<Item = u8> {
        self.selection.iter().map(|(_, pcr)| pcr)
    }

    /// The policy digest that `TPM2_PolicyPCR` gives while the PCRs have these values.
    #[must_use]
    pub fn policy(&self) -> Digest {
        // Every selected PCR has a value.
        let values = self.values.quote_digest(&self.selection, HashAlgorithm::Sha256);
        let values = values.unwrap_or(Digest::filled(HashAlgorithm::Sha256, 0));
        let command = CC_POLICY_PCR.to_be_bytes();
        HashAlgorithm::Sha256.digest(&[&[0; 32], &command, &self.selection.to_bytes(), values.as_bytes()])
    }

    /// What the policy key signs, with ECDSA over its SHA-256.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        [self.policy().as_bytes(), APPROVAL_DOMAIN].concat()
    }
}

/// A platform state that a policy key approves. A file of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Which release, for people; it is not signed.
    pub release: String,
    /// Values of PCRs of the SHA-256 bank.
    pub pcrs: BTreeMap<u8, Digest>,
    /// ECDSA over [`PlatformState::message`] in DER, hexadecimal: what `openssl dgst -sha256 -sign` writes.
    pub signature: String,
}

impl Approval {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ApprovalError::Malformed`], [`ApprovalError::Pcrs`]. The signature is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApprovalError> {
        if bytes.len() > APPROVAL_LENGTH_MAX {
            return Err(ApprovalError::Malformed);
        }
        let approval: Self = serde_json::from_slice(bytes).map_err(|_| ApprovalError::Malformed)?;
        if approval.release.len() > RELEASE_LENGTH_MAX {
            return Err(ApprovalError::Malformed);
        }
        approval.state()?;
        Ok(approval)
    }

    /// The state that it approves.
    ///
    /// # Errors
    /// [`ApprovalError::Pcrs`].
    pub fn state(&self) -> Result<PlatformState, ApprovalError> {
        PlatformState::new(&self.pcrs)
    }

    /// Checks that `key` signed it.
    ///
    /// # Errors
    /// [`ApprovalError::Signature`], [`ApprovalError::Pcrs`].
    pub fn verify(&self, key: &PolicyKey) -> Result<(), ApprovalError> {
        let signature = self.read_signature().ok_or(ApprovalError::Signature)?;
        let message = self.state()?.message();
        VerifyingKey::from(&key.0).verify(&message, &signature).map_err(|_| ApprovalError::Signature)
    }

    /// `r ‖ s` of its signature, 32 bytes each; none if it is no signature.
    #[must_use]
    pub fn signature_fixed(&self) -> Option<[u8; 64]> {
        Some(self.read_signature()?.to_bytes().into())
    }

    fn read_signature(&self) -> Option<Signature> {
        Signature::from_der(&from_hex(&self.signature, SIGNATURE_LENGTH_MAX)?).ok()
    }

    /// An approval with a signature in DER.
    #[must_use]
    pub fn new(release: String, pcrs: BTreeMap<u8, Digest>, signature: &[u8]) -> Self {
        Self { release, pcrs, signature: to_hex(signature) }
    }
}

/// The key whose approvals open a secret: P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyKey(p256::PublicKey);

impl PolicyKey {
    /// A key from its SEC 1 encoding, compressed or not.
    ///
    /// # Errors
    /// [`ApprovalError::Key`].
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, ApprovalError> {
        /// Tags of the two forms; the library reads others, too.
        const TAGS: [u8; 3] = [2, 3, 4];
        if !bytes.first().is_some_and(|tag| TAGS.contains(tag)) {
            return Err(ApprovalError::Key);
        }
        p256::PublicKey::from_sec1_bytes(bytes).map(Self).map_err(|_| ApprovalError::Key)
    }

    /// A key from the hexadecimal text of its SEC 1 encoding.
    ///
    /// # Errors
    /// [`ApprovalError::Key`].
    pub fn from_hex(text: &str) -> Result<Self, ApprovalError> {
        const LENGTH_MAX: usize = 65;
        Self::from_sec1(&from_hex(text, LENGTH_MAX).ok_or(ApprovalError::Key)?)
    }

    /// The public area under which a TPM loads it: what `tpm2_loadexternal -G ecc -u PEM` makes of its PEM file. The name
    /// hashes every attribute, so that these are a part of what secrets are sealed under.
    #[must_use]
    pub fn public_area(&self) -> Vec<u8> {
        /// `TPM_ALG_ECC`, SHA-256, userWithAuth, decrypt and sign, no policy, no cipher, any scheme, P-256, no derivation.
        const HEAD: &[u8] = b"\x00\x23\x00\x0b\x00\x06\x00\x40\x00\x00\x00\x10\x00\x10\x00\x03\x00\x10";
        let point = self.0.to_encoded_point(false);
        let mut area = HEAD.to_vec();
        for coordinate in point.as_bytes()[1..].chunks_exact(32) {
            area.extend([0, 32]);
            area.extend(coordinate);
        }
        area
    }

    /// The name by which a TPM speaks of it: `TPM2B_NAME`'s buffer.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let digest = HashAlgorithm::Sha256.digest(&[&self.public_area()]);
        [&HashAlgorithm::Sha256.id().to_be_bytes(), digest.as_bytes()].concat()
    }

    /// The policy digest of secrets that its approvals open.
    #[must_use]
    pub fn sealing_policy(&self) -> Digest {
        let command = CC_POLICY_AUTHORIZE.to_be_bytes();
        let named = HashAlgorithm::Sha256.digest(&[&[0; 32], &command, &self.name()]);
        HashAlgorithm::Sha256.digest(&[named.as_bytes(), APPROVAL_DOMAIN])
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use p256::ecdsa::{SigningKey, signature::Signer as _};

    use super::*;

    fn approval(key: &SigningKey, pcr: u8) -> Approval {
        let pcrs: BTreeMap<u8, Digest> = [(pcr, Digest::filled(HashAlgorithm::Sha256, 7))].into();
        let message = PlatformState::new(&pcrs).expect("state").message();
        let signature: Signature = key.sign(&message);
        Approval::new("1.2".into(), pcrs, signature.to_der().as_bytes())
    }

    #[test]
    fn an_approval_holds_for_its_key_and_its_values_alone() {
        let key = SigningKey::from_slice(&[5; 32]).expect("scalar");
        let public = PolicyKey::from_sec1(key.verifying_key().to_encoded_point(true).as_bytes()).expect("point");
        let other = SigningKey::from_slice(&[6; 32]).expect("scalar");
        let other = PolicyKey::from_sec1(other.verifying_key().to_encoded_point(false).as_bytes()).expect("point");
        let approval = approval(&key, 11);
        approval.verify(&public).expect("its own");
        assert_eq!(approval.verify(&other), Err(ApprovalError::Signature));
        let text = serde_json::to_vec(&approval).expect("JSON");
        assert_eq!(Approval::parse(&text).expect("own file"), approval);
        let mut changed = approval.clone();
        changed.pcrs.insert(11, Digest::filled(HashAlgorithm::Sha256, 8));
        assert_eq!(changed.verify(&public), Err(ApprovalError::Signature));
        let mut more = approval.clone();
        more.pcrs.insert(12, Digest::filled(HashAlgorithm::Sha256, 7));
        assert_eq!(more.verify(&public), Err(ApprovalError::Signature));
        assert_ne!(public.sealing_policy(), other.sealing_policy());
        let compact = [&[5], &key.verifying_key().to_encoded_point(true).as_bytes()[1..]].concat();
        assert_eq!(PolicyKey::from_sec1(&compact), Err(ApprovalError::Key));
        let area = crate::public::Public::parse(&public.public_area()).expect("its area is one");
        assert_eq!(area.name().to_hex(), to_hex(&public.name()));
    }

    #[test]
    fn what_is_no_approval_has_its_code() {
        let key = SigningKey::from_slice(&[5; 32]).expect("scalar");
        let good = serde_json::to_string(&approval(&key, 4)).expect("JSON");
        for (text, error) in [
            (good.replace("\"4\"", "\"24\""), ApprovalError::Pcrs),
            (good.replace("\"4\"", "\"four\""), ApprovalError::Malformed),
            (good.replace("sha256", "sha512"), ApprovalError::Malformed),
            (good.replace("release", "version"), ApprovalError::Malformed),
            (r#"{"release":"","pcrs":{},"signature":""}"#.to_string(), ApprovalError::Pcrs),
            (alloc::format!("{good}{}", " ".repeat(APPROVAL_LENGTH_MAX)), ApprovalError::Malformed),
        ] {
            assert_eq!(Approval::parse(text.as_bytes()), Err(error), "{text:.80}");
        }
        let sha1: BTreeMap<u8, Digest> = [(4, Digest::filled(HashAlgorithm::Sha1, 0))].into();
        assert_eq!(PlatformState::new(&sha1), Err(ApprovalError::Pcrs));
    }
}
