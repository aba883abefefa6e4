//! Who holds this node's keys: files of its own, or `stele-signer`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stele_hsm::custody::{Custodian, SoftwareCustodian};
use stele_hsm::remote::wire::Role;
use stele_hsm::remote::{RemoteSigner, SignerSocket};
use stele_hsm::{CheckpointGuard, GuardDurability, Signer, SignerError, SignerKind, SoftwareSigner, VoteGuard};
use stele_types::{NetworkId, ValidatorId};
use tracing::{info, warn};

use crate::config::{Config, PayloadSection, SignerName, ValidatorSection, VoteMode};
use crate::node::NodeError;

/// Pause before a signer that is not there yet is looked for again.
const WAIT: Duration = Duration::from_secs(1);

/// The way to the keys that the configuration names.
pub(crate) struct NodeKeys {
    socket: Option<SignerSocket>,
}

/// The keys of a validator.
pub(crate) struct ValidatorKeys {
    pub(crate) validator: ValidatorId,
    pub(crate) public_key: [u8; 33],
    pub(crate) long_term: Arc<dyn Signer>,
    /// Epoch keys, whether the ledger certifies them or not.
    pub(crate) epochs: Vec<Arc<dyn Signer>>,
    /// Where epoch keys come from that are made while the node runs.
    pub(crate) socket: Option<SignerSocket>,
}

impl NodeKeys {
    /// The keys of a configuration. Nothing is opened yet.
    pub(crate) fn new(config: &Config) -> Self {
        Self { socket: config.signer.as_ref().map(|section| SignerSocket::new(&section.socket)) }
    }

    /// The process that holds keys, if there is one.
    pub(crate) const fn socket(&self) -> Option<&SignerSocket> {
        self.socket.as_ref()
    }

    /// The checkpoint key. Waits for `stele-signer`.
    ///
    /// # Errors
    /// `CheckpointGuardMissing`, `Signer`.
    pub(crate) async fn checkpoint_signer(
        &self,
        config: &Config,
        network: NetworkId,
    ) -> Result<Arc<dyn Signer>, NodeError> {
        let Some(key) = &config.seal.key else {
            return Ok(Arc::new(self.remote(Role::Seal, config.seal.signer).await?));
        };
        // The guard lies beside the key and is made with it, as that of votes: an empty one would let this node sign another
        // root for a size that it has signed.
        let path = key.with_extension("checkpoints");
        if !path.exists() {
            let (key, genesis) = (key.clone(), config.node.genesis.clone());
            return Err(NodeError::CheckpointGuardMissing { path, key, genesis });
        }
        let guard = Arc::new(CheckpointGuard::open(&path, network.0, GuardDurability::Sync)?);
        Ok(Arc::new(SoftwareSigner::open(key)?.with_checkpoint_guard(guard)))
    }

    /// The custody key. Waits for `stele-signer`.
    ///
    /// # Errors
    /// Those of the key's file, or of the signer.
    pub(crate) async fn custodian(&self, section: &PayloadSection) -> Result<Arc<dyn Custodian>, SignerError> {
        if let Some(path) = &section.custody_key {
            return Ok(Arc::new(SoftwareCustodian::open(path)?));
        }
        let kind = SignerKind::from(section.signer);
        let socket = self.socket.as_ref().ok_or(SignerError::BackendNotBuilt { name: kind.name() })?;
        let custodian = patiently(socket, || socket.custodian(kind)).await?;
        info!(provider = kind.name(), key = hex::encode(custodian.public_key()), "stele-signer holds the custody key");
        Ok(Arc::new(custodian))
    }

    /// The keys that vote. Waits for `stele-signer`.
    ///
    /// # Errors
    /// `VoteGuardMissing` for a validator without a guard, `Signer`.
    pub(crate) async fn validator_keys(&self, section: &ValidatorSection) -> Result<ValidatorKeys, NodeError> {
        let delegated = section.mode == VoteMode::Delegated;
        let Some(path) = &section.long_term_key else {
            let long_term = self.remote(Role::Validator, section.signer).await?;
            let mut epochs: Vec<Arc<dyn Signer>> = Vec::new();
            if delegated {
                epochs.extend(self.epoch_signers().await?.into_iter().map(|key| Arc::new(key) as Arc<dyn Signer>));
            }
            return ValidatorKeys::of(Arc::new(long_term), epochs, self.socket.clone().filter(|_| delegated));
        };
        let long_term = SoftwareSigner::open(path)?;
        let validator = ValidatorId::of(&p256_key(&long_term)?);
        let guard = open_guard(path, validator)?;
        let mut epochs: Vec<Arc<dyn Signer>> = Vec::new();
        if delegated {
            for path in &section.epoch_keys {
                epochs.push(Arc::new(SoftwareSigner::open(path)?.with_vote_guard(Arc::clone(&guard))));
            }
        }
        ValidatorKeys::of(Arc::new(long_term.with_vote_guard(guard)), epochs, None)
    }

    async fn remote(&self, role: Role, name: SignerName) -> Result<RemoteSigner, NodeError> {
        let kind = SignerKind::from(name);
        let socket = self.socket.as_ref().ok_or(SignerError::BackendNotBuilt { name: kind.name() })?;
        let signer = patiently(socket, || socket.signer(role, kind)).await?;
        info!(role = role.name(), provider = kind.name(), key = hex::encode(p256_key(&signer)?), "stele-signer holds");
        Ok(signer)
    }

    async fn epoch_signers(&self) -> Result<Vec<RemoteSigner>, NodeError> {
        let Some(socket) = &self.socket else { return Ok(Vec::new()) };
        Ok(patiently(socket, || socket.epoch_signers()).await?)
    }
}

impl ValidatorKeys {
    fn of(
        long_term: Arc<dyn Signer>,
        epochs: Vec<Arc<dyn Signer>>,
        socket: Option<SignerSocket>,
    ) -> Result<Self, NodeError> {
        let public_key = p256_key(&*long_term)?;
        Ok(Self { validator: ValidatorId::of(&public_key), public_key, long_term, epochs, socket })
    }
}

/// Asks until the signer is there: it may start at the same time as the node.
async fn patiently<T, F: Future<Output = Result<T, SignerError>>>(
    socket: &SignerSocket,
    mut ask: impl FnMut() -> F,
) -> Result<T, SignerError> {
    let mut told = false;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() => {
                if !told {
                    warn!(code = error.code(), socket = %socket.path().display(), "stele-signer is waited for");
                    told = true;
                }
                tokio::time::sleep(WAIT).await;
            }
            answered => return answered,
        }
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

/// The point of a signer's key, SEC 1 compressed.
pub(crate) fn p256_key(signer: &dyn Signer) -> Result<[u8; 33], NodeError> {
    let key = &signer.public_key().sec1_compressed;
    Ok(key.as_slice().try_into().map_err(|_| SignerError::SigningFailed)?)
}
