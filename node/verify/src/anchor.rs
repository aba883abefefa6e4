//! What a verifier trusts before it reads any proof.

use alloc::vec::Vec;

use stele_merkle::state::StateHash;
use stele_types::record::ContentHash;
use stele_types::{EpochCertificate, Genesis, Hash, Height, NetworkId, ValidatorSet};

use crate::error::VerifyError;

/// Where trust begins: the genesis file, or a height with the hash of the validator set that decides it.
///
/// A genesis file may be held together with a newer pin ([`TrustAnchor::pinned_at`]); then the pin decides which
/// validators are believed, and the file still brings the first epoch certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    network: NetworkId,
    state_hash: StateHash,
    height: Height,
    validators: Hash,
    set: Option<ValidatorSet>,
    epoch_certificates: Vec<EpochCertificate>,
}

impl TrustAnchor {
    /// Trusts a genesis file: its hash is the network, its validators decide from height 1.
    ///
    /// # Errors
    /// `genesis_invalid`.
    pub fn genesis(bytes: &[u8]) -> Result<Self, VerifyError> {
        let genesis = Genesis::from_bytes(bytes).map_err(VerifyError::GenesisInvalid)?;
        Ok(Self {
            network: genesis.network(),
            state_hash: state_hash(genesis.parameters.state_hash),
            height: Height(1),
            validators: genesis.validators.hash(),
            set: Some(genesis.validators),
            epoch_certificates: genesis.epoch_certificates.into_vec(),
        })
    }
    /// Trusts that the validator set with hash `validators` decides `height` of `network`. The set itself comes with
    /// [`TrustAnchor::with_set`] or from the chain of a proof. Epoch certificates of genesis are not believed, because
    /// they do not name the network.
    pub const fn pinned(network: NetworkId, state_hash: StateHash, height: Height, validators: Hash) -> Self {
        Self { network, state_hash, height, validators, set: None, epoch_certificates: Vec::new() }
    }
    /// Moves the anchor up: from now on the set with hash `validators` is believed from `height`.
    #[must_use]
    pub fn pinned_at(self, height: Height, validators: Hash) -> Self {
        let set = self.set.filter(|set| set.hash() == validators);
        Self { height, validators, set, ..self }
    }
    /// Brings the pinned set.
    ///
    /// # Errors
    /// `anchor_set_mismatch`.
    pub fn with_set(self, set: ValidatorSet) -> Result<Self, VerifyError> {
        if set.hash() == self.validators {
            Ok(Self { set: Some(set), ..self })
        } else {
            Err(VerifyError::AnchorSetMismatch { validators: self.validators })
        }
    }
    /// The network.
    pub const fn network(&self) -> NetworkId {
        self.network
    }
    /// Hash function of the network's state tree.
    pub const fn state_hash(&self) -> StateHash {
        self.state_hash
    }
    /// First height that the anchor's validator set decides.
    pub const fn height(&self) -> Height {
        self.height
    }
    /// Hash of the anchor's validator set.
    pub const fn validators(&self) -> Hash {
        self.validators
    }
    pub(crate) const fn set(&self) -> Option<&ValidatorSet> {
        self.set.as_ref()
    }
    /// Hash over all that is trusted: anchors with one fingerprint give the same verdicts.
    pub(crate) fn fingerprint(&self) -> Hash {
        let epochs: Vec<u8> = self.epoch_certificates.iter().flat_map(|certificate| certificate.hash().0).collect();
        let height = self.height.0.to_be_bytes();
        let brings = [self.state_hash.id(), u8::from(self.set.is_some())];
        Hash::tagged("stele/anchor/v1", &[&self.network.0, &height, &self.validators.0, &brings, &epochs])
    }
    pub(crate) fn epoch_certificates(&self) -> &[EpochCertificate] {
        &self.epoch_certificates
    }
}

const fn state_hash(hash: ContentHash) -> StateHash {
    match hash {
        ContentHash::Sha256 => StateHash::Sha256,
        ContentHash::Sm3 => StateHash::Sm3,
    }
}
