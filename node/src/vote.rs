//! This node's vote: its keys, and which of them the ledger certifies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use stele_hsm::remote::SignerSocket;
use stele_hsm::{Signer, SoftwareSigner};
use stele_types::{EpochCertificate, Hash, ValidatorId};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chain::Chain;
use crate::config::Config;
use crate::keys::{NodeKeys, p256_key};
use crate::metrics::Metrics;
use crate::node::NodeError;
use crate::ordering::{BallotSigner, EpochKey};

/// Pause before the signer is asked again for a key that the ledger certifies.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Epoch keys, by their public halves.
#[derive(Default)]
struct VoteKeys(RwLock<HashMap<[u8; 33], Arc<dyn Signer>>>);

impl VoteKeys {
    fn add(&self, signer: Arc<dyn Signer>) -> Result<(), NodeError> {
        let key = p256_key(&*signer)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(signer);
        Ok(())
    }

    fn get(&self, key: &[u8; 33]) -> Option<Arc<dyn Signer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Who votes for this node.
pub(crate) struct Voter {
    pub(crate) validator: ValidatorId,
    pub(crate) public_key: [u8; 33],
    pub(crate) signer: BallotSigner,
    pub(crate) epochs: NewEpochs,
}

impl Voter {
    /// Opens the keys of the configuration and the guard beside them. Waits for `stele-signer`.
    ///
    /// # Errors
    /// `VoteGuardMissing` for a validator without a guard, `Signer`.
    pub(crate) async fn open(
        config: &Config,
        keys: &NodeKeys,
        chain: &Arc<Chain>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, NodeError> {
        match &config.validator {
            Some(section) => {
                let held = keys.validator_keys(section).await?;
                let epochs = Arc::<VoteKeys>::default();
                for signer in held.epochs {
                    epochs.add(signer)?;
                }
                let (validator, public_key) = (held.validator, held.public_key);
                let certified = certified_epochs(chain, validator, Arc::clone(&epochs));
                let signer = BallotSigner::new(validator, held.long_term, certified, Arc::clone(metrics));
                let epochs = NewEpochs { validator, keys: epochs, socket: held.socket };
                Ok(Self { validator, public_key, signer, epochs })
            }
            None => Self::following(metrics),
        }
    }

    /// A follower votes on nothing; the engine wants a key all the same.
    fn following(metrics: &Arc<Metrics>) -> Result<Self, NodeError> {
        let signer = SoftwareSigner::ephemeral()?;
        let public_key = p256_key(&signer)?;
        let validator = ValidatorId::of(&public_key);
        let signer = BallotSigner::new(validator, Arc::new(signer), Arc::new(Vec::new), Arc::clone(metrics));
        let epochs = NewEpochs { validator, keys: Arc::default(), socket: None };
        Ok(Self { validator, public_key, signer, epochs })
    }
}

/// The epoch keys that the ledger certifies now, worked out again when certificates or keys change.
fn certified_epochs(
    chain: &Arc<Chain>,
    validator: ValidatorId,
    keys: Arc<VoteKeys>,
) -> Arc<dyn Fn() -> Vec<Arc<EpochKey>> + Send + Sync> {
    type Cached = ((Vec<Hash>, usize), Vec<Arc<EpochKey>>);
    let chain = Arc::clone(chain);
    let cache: Mutex<Cached> = Mutex::default();
    Arc::new(move || {
        let known = keys.len();
        if known == 0 {
            return Vec::new();
        }
        let certificates = certificates(&chain, validator);
        let seen = (certificates.iter().map(EpochCertificate::hash).collect(), known);
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.0 != seen {
            let epochs = certificates
                .into_iter()
                .filter_map(|certificate| {
                    let signer = keys.get(&certificate.public_key)?;
                    Some(Arc::new(EpochKey { certificate, signer }))
                })
                .collect();
            *cache = (seen, epochs);
        }
        cache.1.clone()
    })
}

/// The certificates of a validator that the ledger knows.
fn certificates(chain: &Chain, validator: ValidatorId) -> Vec<EpochCertificate> {
    let head = chain.head();
    head.frame.epoch_certificates.iter().filter(|known| known.validator == validator).cloned().collect()
}

/// Takes epoch keys over that `stele-signer` made while the node runs, once the ledger certifies them.
pub(crate) struct NewEpochs {
    validator: ValidatorId,
    keys: Arc<VoteKeys>,
    socket: Option<SignerSocket>,
}

impl NewEpochs {
    /// Looks at every new head until `stop`.
    pub(crate) async fn run(self, chain: Arc<Chain>, stop: CancellationToken) {
        let Some(socket) = &self.socket else { return };
        let mut heads = chain.watch();
        // Certificates of keys that are elsewhere, or were lost, are not asked for at every head.
        let mut settled = Vec::new();
        loop {
            heads.mark_unchanged();
            let certificates = certificates(&chain, self.validator);
            let hashes: Vec<Hash> = certificates.iter().map(EpochCertificate::hash).collect();
            let unknown = certificates.iter().any(|certificate| self.keys.get(&certificate.public_key).is_none());
            if unknown
                && hashes != settled
                && let Err(error) = self.take_over(socket).await
            {
                warn!(code = error.code(), %error, "new epoch keys are not known yet");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PAUSE) => continue,
                    () = stop.cancelled() => return,
                }
            }
            settled = hashes;
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    async fn take_over(&self, socket: &SignerSocket) -> Result<(), NodeError> {
        let known = self.keys.len();
        for signer in socket.epoch_signers().await? {
            self.keys.add(Arc::new(signer))?;
        }
        info!(new = self.keys.len() - known, "epoch keys of stele-signer");
        Ok(())
    }
}
