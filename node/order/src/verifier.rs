//! Verification of peers' votes: long-term keys directly, epoch keys through their certificates.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use malachite::Verifier;
use malachite_core_types::{ValidatorProof, VoteExtensionScope};
use malachite_signing::{Error as EngineSigningError, VerificationResult};
use stele_types::vote::Ballot;
use stele_types::{EpochCertificate, Hash, Height, NetworkId, ValidatorId, VoteKey};
use tracing::warn;

use crate::context::{EngineValidators, Proposal, PublicKey, Seal, Stele, Vote};
use crate::signer::{proposal_ballot, vote_ballot};

/// Epoch certificates per validator that the ledger may hold at once: the running one, the next, and a few that
/// still cover a height by overlap.
const EPOCH_CERTIFICATES_PER_VALIDATOR_MAX: usize = 8;

/// An epoch key whose certificate has been checked.
struct EpochKey {
    validator: ValidatorId,
    from: Height,
    until: Height,
    key: PublicKey,
}

/// The epoch keys that may vote at the current height. Replaced with every height; certificates already checked are
/// carried over, so each costs one verification in its life.
#[derive(Default)]
pub(crate) struct EpochKeys(RwLock<HashMap<Hash, Arc<EpochKey>>>);

impl EpochKeys {
    /// Takes the ledger's certificates for `validators`; forged or foreign ones are left out.
    pub(crate) fn replace(&self, network: NetworkId, validators: &EngineValidators, certificates: &[EpochCertificate]) {
        let count_max = validators.set().len() * EPOCH_CERTIFICATES_PER_VALIDATOR_MAX;
        if certificates.len() > count_max {
            warn!(count = certificates.len(), count_max, "more epoch certificates than are used");
        }
        let known = self.read();
        let keys = certificates
            .iter()
            .take(count_max)
            .filter_map(|certificate| {
                let hash = certificate.hash();
                if validators.public_key(&certificate.validator).is_none() {
                    return None;
                }
                if let Some(key) = known.get(&hash) {
                    return Some((hash, key.clone()));
                }
                let key = checked(network, validators, certificate);
                if key.is_none() {
                    warn!(validator = ?certificate.validator, certificate = ?hash, "epoch certificate does not verify");
                }
                Some((hash, Arc::new(key?)))
            })
            .collect();
        drop(known);
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
    }

    fn get(&self, hash: &Hash) -> Option<Arc<EpochKey>> {
        self.read().get(hash).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Hash, Arc<EpochKey>>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn checked(network: NetworkId, validators: &EngineValidators, certificate: &EpochCertificate) -> Option<EpochKey> {
    let long_term = validators.public_key(&certificate.validator)?;
    let heights = certificate.until_height.0.checked_sub(certificate.from_height.0)?;
    (certificate.network == network
        && heights < EpochCertificate::HEIGHTS_MAX
        && long_term.verifies(&certificate.signing_bytes(), &certificate.signature))
    .then(|| EpochKey {
        validator: certificate.validator,
        from: certificate.from_height,
        until: certificate.until_height,
        key: PublicKey::new(certificate.public_key),
    })
}

/// The engine's verifier. The epoch keys are those of the height the engine is at.
pub(crate) struct EngineVerifier {
    pub(crate) network: NetworkId,
    pub(crate) epoch_keys: Arc<EpochKeys>,
}

impl EngineVerifier {
    /// Whether `seal` is the signature of the validator with the long-term key `key` on `ballot`.
    fn verifies(&self, ballot: &Ballot, seal: &Seal, key: &PublicKey) -> bool {
        let Seal::Signed(signature) = seal else { return false };
        let message = ballot.signing_bytes(&signature.key);
        match signature.key {
            VoteKey::Direct => key.verifies(&message, &signature.signature),
            VoteKey::Delegated(hash) => self.epoch_keys.get(&hash).is_some_and(|epoch| {
                epoch.validator == key.validator
                    && (epoch.from..=epoch.until).contains(&ballot.height)
                    && epoch.key.verifies(&message, &signature.signature)
            }),
        }
    }
}

#[async_trait]
impl Verifier<Stele> for EngineVerifier {
    async fn verify_signed_vote(
        &self,
        vote: &Vote,
        seal: &Seal,
        key: &PublicKey,
    ) -> Result<VerificationResult, EngineSigningError> {
        Ok(VerificationResult::from_bool(self.verifies(&vote_ballot(self.network, vote), seal, key)))
    }

    async fn verify_signed_proposal(
        &self,
        proposal: &Proposal,
        seal: &Seal,
        key: &PublicKey,
    ) -> Result<VerificationResult, EngineSigningError> {
        Ok(VerificationResult::from_bool(self.verifies(&proposal_ballot(self.network, proposal), seal, key)))
    }

    async fn verify_signed_vote_extension(
        &self,
        _scope: &VoteExtensionScope<Stele>,
        _extension: &(),
        _seal: &Seal,
        _key: &PublicKey,
    ) -> Result<VerificationResult, EngineSigningError> {
        // Vote extensions are switched off for every height.
        Ok(VerificationResult::Invalid)
    }

    async fn verify_validator_proof(
        &self,
        proof: &ValidatorProof<Stele>,
    ) -> Result<VerificationResult, EngineSigningError> {
        let Ok(public_key) = proof.public_key.as_slice().try_into() else {
            return Ok(VerificationResult::Invalid);
        };
        let Seal::Signed(signature) = &proof.signature else { return Ok(VerificationResult::Invalid) };
        let valid = signature.key == VoteKey::Direct
            && PublicKey::new(public_key).verifies(&proof.preimage(), &signature.signature);
        Ok(VerificationResult::from_bool(valid))
    }
}
