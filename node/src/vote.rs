//! This node's vote: its keys, and the guard beside them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use stele_hsm::{GuardDurability, Signer, SoftwareSigner, VoteGuard};
use stele_types::{Hash, ValidatorId};

use crate::chain::Chain;
use crate::config::{Config, ValidatorSection, VoteMode};
use crate::node::NodeError;
use crate::ordering::{BallotSigner, EpochKey};

/// Keys that may vote, by their public halves.
type VoteKeys = HashMap<[u8; 33], Arc<dyn Signer>>;

/// Who votes for this node.
pub(crate) struct Voter {
    pub(crate) validator: ValidatorId,
    pub(crate) public_key: [u8; 33],
    pub(crate) signer: BallotSigner,
}

impl Voter {
    /// Opens the keys of the configuration and the guard beside them.
    ///
    /// # Errors
    /// `VoteGuardMissing` for a validator without a guard, `Signer`.
    pub(crate) fn open(config: &Config, chain: &Arc<Chain>) -> Result<Self, NodeError> {
        match &config.validator {
            Some(section) => Self::validating(section, chain),
            None => Self::following(),
        }
    }

    /// A follower votes on nothing; the engine wants a key all the same.
    fn following() -> Result<Self, NodeError> {
        let signer = SoftwareSigner::ephemeral()?;
        let public_key = p256_key(&signer)?;
        let validator = ValidatorId::of(&public_key);
        let signer = BallotSigner::new(validator, Arc::new(signer), Arc::new(Vec::new));
        Ok(Self { validator, public_key, signer })
    }

    fn validating(section: &ValidatorSection, chain: &Arc<Chain>) -> Result<Self, NodeError> {
        let long_term = SoftwareSigner::open(&section.long_term_key)?;
        let public_key = p256_key(&long_term)?;
        let validator = ValidatorId::of(&public_key);
        let guard = open_guard(&section.long_term_key, validator)?;
        let long_term: Arc<dyn Signer> = Arc::new(long_term.with_vote_guard(Arc::clone(&guard)));
        let mut keys = VoteKeys::new();
        if section.mode == VoteMode::Delegated {
            for path in &section.epoch_keys {
                let signer = SoftwareSigner::open(path)?.with_vote_guard(Arc::clone(&guard));
                keys.insert(p256_key(&signer)?, Arc::new(signer));
            }
        }
        let signer = BallotSigner::new(validator, long_term, certified_epochs(chain, validator, keys)).guarded(guard);
        Ok(Self { validator, public_key, signer })
    }
}

/// The guard lies beside the key, not in the data directory: a wiped node must still not sign twice. It is made together
/// with the key and never here. An empty one would let this node contradict the votes that it has forgotten.
fn open_guard(long_term_key: &Path, validator: ValidatorId) -> Result<Arc<VoteGuard>, NodeError> {
    let path = long_term_key.with_extension("votes");
    if !path.exists() {
        return Err(NodeError::VoteGuardMissing { path, key: long_term_key.to_owned() });
    }
    Ok(Arc::new(VoteGuard::open(&path, validator.0, GuardDurability::Sync)?))
}

/// The epoch keys that the ledger certifies now, worked out again when the list of certificates changes.
fn certified_epochs(
    chain: &Arc<Chain>,
    validator: ValidatorId,
    keys: VoteKeys,
) -> Arc<dyn Fn() -> Vec<Arc<EpochKey>> + Send + Sync> {
    type Cached = (Vec<Hash>, Vec<Arc<EpochKey>>);
    let chain = Arc::clone(chain);
    let cache: Mutex<Cached> = Mutex::default();
    Arc::new(move || {
        if keys.is_empty() {
            return Vec::new();
        }
        let head = chain.head();
        let own = || head.frame.epoch_certificates.iter().filter(|certificate| certificate.validator == validator);
        let hashes: Vec<Hash> = own().map(stele_types::EpochCertificate::hash).collect();
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.0 != hashes {
            let epochs = own()
                .filter_map(|certificate| {
                    let signer = Arc::clone(keys.get(&certificate.public_key)?);
                    Some(Arc::new(EpochKey { certificate: certificate.clone(), signer }))
                })
                .collect();
            *cache = (hashes, epochs);
        }
        cache.1.clone()
    })
}

fn p256_key(signer: &SoftwareSigner) -> Result<[u8; 33], NodeError> {
    let key = &signer.public_key().sec1_compressed;
    Ok(key.as_slice().try_into().map_err(|_| stele_hsm::SignerError::SigningFailed)?)
}
