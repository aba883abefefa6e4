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
                // A certificate of somebody who left the set is of no use, even if it was checked before.
                validators.public_key(&certificate.validator)?;
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
    // Certificates in the genesis file name no network, because the network id hashes that file; the ledger takes them
    // in from there only.
    let named = certificate.network == network || certificate.network == NetworkId::default();
    (named
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use stele_types::{PartyId, ProposerSchedule, Validator, ValidatorSet, VoteKind, VoteSignature};

    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    struct Key(EcdsaKeyPair, [u8; 33]);

    impl Key {
        fn new() -> Self {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let point = pair.public_key().as_ref();
            let mut public = [0; 33];
            public[0] = 2 + (point[64] & 1);
            public[1..].copy_from_slice(&point[1..33]);
            Self(pair, public)
        }

        fn sign(&self, message: &[u8]) -> [u8; 64] {
            self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap()
        }

        fn vote(&self, ballot: &Ballot, key: VoteKey) -> Seal {
            Seal::Signed(VoteSignature { key, signature: self.sign(&ballot.signing_bytes(&key)) })
        }

        fn certify(&self, epoch: &Self, from: u64, until: u64) -> EpochCertificate {
            let mut certificate = EpochCertificate {
                network: NETWORK,
                validator: ValidatorId::of(&self.1),
                public_key: epoch.1,
                from_height: Height(from),
                until_height: Height(until),
                pcr_policy: Hash([0; 32]),
                signature: [0; 64],
            };
            certificate.signature = self.sign(&certificate.signing_bytes());
            certificate
        }
    }

    fn ballot(height: u64) -> Ballot {
        let kind = VoteKind::Prevote;
        Ballot { network: NETWORK, kind, height: Height(height), round: 0, block: None, valid_round: None }
    }

    fn validators(keys: &[&Key]) -> EngineValidators {
        let records = keys.iter().zip(0u8..).map(|(key, index)| Validator {
            public_key: key.1,
            peer_key: [index; 32],
            party: PartyId([0; 16]),
        });
        let set = ValidatorSet::new(records.collect()).unwrap();
        EngineValidators::new(Arc::new(set), Arc::new(ProposerSchedule::new(keys.len())))
    }

    fn verifier(validators: &EngineValidators, certificates: &[EpochCertificate]) -> EngineVerifier {
        let epoch_keys = Arc::new(EpochKeys::default());
        epoch_keys.replace(NETWORK, validators, certificates);
        EngineVerifier { network: NETWORK, epoch_keys }
    }

    #[test]
    fn long_term_keys_always_count_and_name_themselves() {
        let (key, other) = (Key::new(), Key::new());
        let verifier = verifier(&validators(&[&key, &other]), &[]);
        let seal = key.vote(&ballot(5), VoteKey::Direct);
        assert!(verifier.verifies(&ballot(5), &seal, &PublicKey::new(key.1)));
        assert!(!verifier.verifies(&ballot(6), &seal, &PublicKey::new(key.1)), "another height");
        assert!(!verifier.verifies(&ballot(5), &seal, &PublicKey::new(other.1)), "another validator");
        assert!(!verifier.verifies(&ballot(5), &Seal::Withheld, &PublicKey::new(key.1)));
        assert!(!verifier.verifies(&ballot(5), &seal, &PublicKey::new([9; 33])), "no point of the curve");
    }

    #[test]
    fn epoch_keys_count_for_their_validator_within_their_heights() {
        let (key, other, epoch) = (Key::new(), Key::new(), Key::new());
        let validators = validators(&[&key, &other]);
        let certificate = key.certify(&epoch, 10, 20);
        let name = VoteKey::Delegated(certificate.hash());
        let verifier = verifier(&validators, std::slice::from_ref(&certificate));
        let public = PublicKey::new(key.1);
        for (height, counts) in [(9, false), (10, true), (20, true), (21, false)] {
            let seal = epoch.vote(&ballot(height), name);
            assert_eq!(verifier.verifies(&ballot(height), &seal, &public), counts, "height {height}");
        }
        let seal = epoch.vote(&ballot(15), name);
        assert!(!verifier.verifies(&ballot(15), &seal, &PublicKey::new(other.1)), "lent by another validator");
        let direct = epoch.vote(&ballot(15), VoteKey::Direct);
        assert!(!verifier.verifies(&ballot(15), &direct, &public), "an epoch key is no long-term key");

        verifier.epoch_keys.replace(NETWORK, &validators, &[]);
        assert!(!verifier.verifies(&ballot(15), &seal, &public), "the ledger no longer lists it");
    }

    #[test]
    fn forged_foreign_and_overlong_certificates_are_left_out() {
        let (key, other, epoch) = (Key::new(), Key::new(), Key::new());
        let validators = validators(&[&key]);
        let mut forged = other.certify(&epoch, 1, 100);
        forged.validator = ValidatorId::of(&key.1);
        let mut foreign = key.certify(&epoch, 1, 100);
        foreign.network = NetworkId([5; 32]);
        foreign.signature = key.sign(&foreign.signing_bytes());
        let overlong = key.certify(&epoch, 1, EpochCertificate::HEIGHTS_MAX + 1);
        let stranger = other.certify(&epoch, 1, 100);
        let certificates = [forged, foreign, overlong, stranger];
        let verifier = verifier(&validators, &certificates);
        for certificate in &certificates {
            assert!(verifier.epoch_keys.get(&certificate.hash()).is_none(), "{certificate:?}");
        }
    }
}
