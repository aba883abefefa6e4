//! What the API needs of the node behind it.
//!
//! The listeners do not know the chain, the stores or consensus; they know these questions. Reads may touch the disk and
//! are called on threads that may block.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stele_hsm::SignerKind;
use stele_ledger::StateKey;
use stele_merkle::tile::Tile;
use stele_types::exchange::{CertifiedHeader, StateProof};
use stele_types::party::RoleSet;
use stele_types::{
    Block, Bundle, Checkpoint, Code, CommitCertificate, Genesis, Hash, Height, LogIndex, Parameters, PartyId, Receipt,
    StatementId, Validator, ValidatorSet,
};

use crate::attestor::Attestor;
pub use crate::chain::{Snapshot, Standpoint};
use crate::control::ControlToken;
use crate::payload::{Cold, Custody, Payload, Upkeep};
pub use crate::store::Location;
use crate::store::blocks::SegmentArchive;

/// Where the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Height of the newest committed block; 0 is genesis.
    pub height: Height,
    /// Results up to this height are certified by a header.
    pub certified: Height,
    /// Leaves of the log after the newest block.
    pub log_size: u64,
}

/// What is in force at the next height.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Parameters.
    pub parameters: Parameters,
    /// Validators.
    pub validators: ValidatorSet,
    /// Validators that are suspended.
    pub suspended: Vec<Validator>,
}

/// A statement that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Where it lies.
    pub location: Location,
    /// Its outcome.
    pub code: Code,
    /// Its leaf, when it applied.
    pub index: Option<LogIndex>,
}

/// A tree head with the signature of this node's checkpoint key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedHead {
    /// The claims.
    pub checkpoint: Checkpoint,
    /// Root of the log.
    pub log_root: Hash,
    /// Signature over `checkpoint.signing_bytes(&log_root)`.
    pub signature: [u8; 64],
    /// The checkpoint key, P-256 SEC1 compressed.
    pub public_key: [u8; 33],
}

/// The party that a client certificate speaks for, by the newest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The party.
    pub party: PartyId,
    /// Its roles.
    pub roles: RoleSet,
    /// Whether it may act at all.
    pub suspended: bool,
}

/// Why admission did not take a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// When to try again, for refusals that pass.
    pub retry_after_ms: Option<u32>,
}

/// Why a question has no answer now.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No header certifies the result yet.
    #[error("the result is not certified yet")]
    NotCertified,
    /// The bytes were pruned.
    #[error("the bytes were pruned")]
    Pruned,
    /// Too many changes of validators lie between the trusted height and the certifying header.
    #[error("the changes of validators do not fit into one proof")]
    TrustPathTooLong,
    /// What is needed is in the archive, which cannot be read now.
    #[error("the archive cannot be read now")]
    Away {
        /// Why, for the node's own log.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The node failed; the source is for its own log only.
    #[error("the node failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The node behind the API.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The genesis.
    fn genesis(&self) -> &Genesis;
    /// The genesis file.
    fn genesis_bytes(&self) -> Bytes;
    /// Where the node stands.
    fn standing(&self) -> Standing;
    /// Waits until the newest block is above `height`.
    async fn advanced(&self, height: Height);
    /// None when the node takes part; otherwise why it does not, for operators.
    fn not_ready(&self) -> Option<Cow<'static, str>>;
    /// Parameters and validators in force.
    fn in_force(&self) -> InForce;
    /// The party of a client certificate's key, if there is one.
    ///
    /// # Errors
    /// `not_ready` when the node cannot read its state.
    fn client(&self, key: &Hash) -> Result<Option<Client>, Code>;

    /// Takes statements for `party`; answers in the same order once each is verified and queued, or known already.
    async fn submit(&self, party: PartyId, entries: Vec<Bytes>) -> Vec<Result<StatementId, Refusal>>;
    /// Whether a statement is queued or proposed.
    fn is_pending(&self, id: &StatementId) -> bool;

    /// Outcome of an executed statement.
    ///
    /// # Errors
    /// `Failed`.
    fn executed(&self, id: &StatementId) -> Result<Option<Executed>, BackendError>;
    /// Where the statement of a leaf lies.
    ///
    /// # Errors
    /// `Failed`.
    fn location_of_leaf(&self, index: LogIndex) -> Result<Option<Location>, BackendError>;
    /// The exact bytes of a statement.
    ///
    /// # Errors
    /// `Pruned`, `Failed`.
    fn entry(&self, location: Location) -> Result<Option<Arc<[u8]>>, BackendError>;
    /// A receipt under the newest certified checkpoint.
    ///
    /// # Errors
    /// `NotCertified`, `Failed`.
    fn receipt(&self, index: LogIndex) -> Result<Option<Receipt>, BackendError>;
    /// The quorum bundle of an executed statement, for verifiers that trust the validator set of `from`.
    ///
    /// # Errors
    /// `NotCertified`, `TrustPathTooLong`, `Failed`.
    fn bundle(&self, id: &StatementId, with_entry: bool, from: Height) -> Result<Option<Bundle>, BackendError>;
    /// A header with this node's certificate, for verifiers that trust the validator set of `from`.
    ///
    /// # Errors
    /// `TrustPathTooLong`, `Failed`.
    fn header(&self, height: Height, from: Height) -> Result<Option<CertifiedHeader>, BackendError>;
    /// A block with this node's certificate.
    ///
    /// # Errors
    /// `Pruned`, `Failed`.
    fn block(&self, height: Height) -> Result<Option<(Block, CommitCertificate)>, BackendError>;
    /// The newest signed checkpoint.
    fn checkpoint(&self) -> Option<SealedHead>;
    /// The bytes of a hash tile; none when the log does not have all of it.
    ///
    /// # Errors
    /// `Failed`.
    fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, BackendError>;
    /// RFC 9162 consistency proof between two sizes, both at most the log's size.
    ///
    /// # Errors
    /// `Failed`.
    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, BackendError>;
    /// The snapshots that a joiner can have, newest first.
    ///
    /// # Errors
    /// `Failed`.
    fn snapshots(&self) -> Result<Vec<Snapshot>, BackendError>;
    /// What goes with the snapshot of a height.
    ///
    /// # Errors
    /// `Failed`.
    fn standpoint(&self, height: Height) -> Result<Option<Standpoint>, BackendError>;
    /// A chunk of the snapshot of a height, encoded.
    ///
    /// # Errors
    /// `Failed`.
    fn snapshot_chunk(&self, height: Height, index: u64) -> Result<Option<Vec<u8>>, BackendError>;
    /// Bodies of records.
    ///
    /// # Errors
    /// `not_found` where the node keeps none, `not_ready` while they cannot be had.
    fn payload(&self) -> Result<Arc<Payload>, Code> {
        Err(Code::NotFound)
    }
    /// Old blocks that are kept with them; none where there are none.
    fn archive(&self) -> Option<Arc<dyn SegmentArchive>> {
        None
    }
    /// What an operator shows who would change something; none where nothing can be changed.
    fn control_token(&self) -> Option<&ControlToken> {
        None
    }
    /// Copies of them on other nodes, and copies for those.
    fn custody(&self) -> Option<Arc<Custody>> {
        None
    }
    /// The tier that their segments go to.
    fn cold(&self) -> Option<Arc<Cold>> {
        None
    }
    /// What the node's TPM says; none without one.
    fn attestor(&self) -> Option<Arc<Attestor>> {
        None
    }
    /// What holds the checkpoint key.
    fn checkpoint_key_kind(&self) -> SignerKind {
        SignerKind::Software
    }
    /// What keeps them in order.
    fn upkeep(&self) -> Option<Arc<Upkeep>> {
        None
    }
    /// A value of the state, or its absence, with proof, for verifiers that trust the validator set of `from`.
    ///
    /// # Errors
    /// `NotCertified`, `TrustPathTooLong`, `Failed`.
    fn prove_state(&self, key: &StateKey, from: Height) -> Result<StateProof, BackendError>;
}
