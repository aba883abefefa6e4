//! The node as the API sees it.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use stele_hsm::SignerKind;
use stele_ledger::{StateKey, query};
use stele_merkle::tile::Tile;
use stele_types::cbor::Blob;
use stele_types::exchange::{CertifiedHeader, StateProof};
use stele_types::{
    Block, Bundle, Code, CommitCertificate, Genesis, Hash, Height, LogIndex, PartyId, Receipt, StatementId, ValidatorId,
};

use crate::admission::{self, Admission};
use crate::alarm::Alarm;
use crate::api::{Backend, BackendError, Client, Executed, InForce, Location, Refusal, SealedHead, Standing};
use crate::attestor::Attestor;
use crate::chain::{Chain, ChainError, Snapshot, Standpoint};
use crate::control::ControlToken;
use crate::payload::{Cold, Custody, Payload, PayloadSlot, Upkeep};
use crate::store::blocks::{ArchiveError, BlockStoreError, SegmentArchive};
use stele_order::Order;

/// Blocks behind the most advanced peer at which a node still counts as ready.
const READY_LAG_MAX: u64 = 10;

/// See [`Backend`].
pub struct NodeBackend {
    chain: Arc<Chain>,
    admission: Arc<Admission>,
    order: Arc<Order>,
    alarm: Arc<Alarm>,
    validator: ValidatorId,
    storage: Option<Arc<PayloadSlot>>,
    control: ControlToken,
    attestor: Option<Arc<Attestor>>,
    checkpoint_key_kind: SignerKind,
}

impl NodeBackend {
    /// The real node.
    pub fn new(
        chain: Arc<Chain>,
        admission: Arc<Admission>,
        order: Arc<Order>,
        alarm: Arc<Alarm>,
        validator: ValidatorId,
        storage: Option<Arc<PayloadSlot>>,
        control: ControlToken,
    ) -> Self {
        let (attestor, checkpoint_key_kind) = (None, SignerKind::Software);
        Self { chain, admission, order, alarm, validator, storage, control, attestor, checkpoint_key_kind }
    }

    /// The same node, whose checkpoint key is held by this kind of signer, and whose TPM attests if it has one.
    pub fn attesting(self, checkpoint_key_kind: SignerKind, attestor: Option<Arc<Attestor>>) -> Self {
        Self { attestor, checkpoint_key_kind, ..self }
    }
}

impl NodeBackend {
    /// Whether this node's validator is in the set of the next height.
    fn votes(&self) -> bool {
        self.chain.head().frame.validators.index_of(&self.validator).is_some()
    }
}

impl From<admission::Refusal> for Refusal {
    fn from(refusal: admission::Refusal) -> Self {
        Self { code: refusal.code, retry_after_ms: refusal.retry_after_ms }
    }
}

impl From<ChainError> for BackendError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::NotCertified => Self::NotCertified,
            ChainError::TrustPathTooLong { .. } => Self::TrustPathTooLong,
            ChainError::Blocks(BlockStoreError::Archived {
                source: ArchiveError::Away { retry_after, reason },
                ..
            }) => Self::Away { retry_after, reason },
            error => Self::Failed(Box::new(error)),
        }
    }
}

#[async_trait]
impl Backend for NodeBackend {
    fn genesis(&self) -> &Genesis {
        self.chain.genesis()
    }

    fn payload(&self) -> Result<Arc<Payload>, Code> {
        let slot = self.storage.as_ref().ok_or(Code::NotFound)?;
        slot.payload().ok_or(Code::NotReady)
    }

    fn custody(&self) -> Option<Arc<Custody>> {
        self.storage.as_ref()?.custody()
    }

    fn archive(&self) -> Option<Arc<dyn SegmentArchive>> {
        Some(Arc::clone(self.storage.as_ref()?.archive()) as _)
    }

    fn cold(&self) -> Option<Arc<Cold>> {
        self.storage.as_ref()?.cold()
    }

    fn upkeep(&self) -> Option<Arc<Upkeep>> {
        self.storage.as_ref()?.upkeep()
    }

    fn attestor(&self) -> Option<Arc<Attestor>> {
        self.attestor.clone()
    }

    fn checkpoint_key_kind(&self) -> SignerKind {
        self.checkpoint_key_kind
    }

    fn control_token(&self) -> Option<&ControlToken> {
        Some(&self.control)
    }

    fn genesis_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.chain.genesis_bytes())
    }

    fn standing(&self) -> Standing {
        let tip = self.chain.tip();
        Standing { height: tip.height, certified: self.chain.certified(), log_size: tip.log_size }
    }

    async fn advanced(&self, height: Height) {
        let mut heads = self.chain.watch();
        // An error means that the chain is gone with the node; then there is nothing to wait for.
        let _ = heads.wait_for(|head| head.tip.height > height).await;
    }

    fn not_ready(&self) -> Option<Cow<'static, str>> {
        if let Some(reason) = self.alarm.reason() {
            return Some(format!("the node has halted: {reason}").into());
        }
        if let Some(reason) = self.order.stop_reason() {
            return Some(format!("the order has stopped: {}", reason.code()).into());
        }
        let figures = self.order.figures();
        if figures.sync_lag > READY_LAG_MAX {
            return Some("the node is catching up".into());
        }
        // A quorum counts this node when it votes.
        let connected = figures.peers_connected.len() + usize::from(self.votes());
        if figures.quorum > 0 && connected < figures.quorum {
            return Some("too few validators are reachable to decide blocks".into());
        }
        None
    }

    fn in_force(&self) -> InForce {
        let head = self.chain.head();
        let (parameters, validators) = (head.frame.parameters.clone(), head.frame.validators.clone());
        InForce { parameters, validators, suspended: self.chain.suspended() }
    }

    fn client(&self, key: &Hash) -> Result<Option<Client>, Code> {
        let known = self.chain.reading(|view| {
            let party = query::party_of_tls_pin(view, key)?;
            Some((party, query::party(view, &party)?))
        });
        let known = known.map_err(|_| Code::NotReady)?;
        Ok(known.map(|(party, record)| Client { party, roles: record.roles, suspended: record.suspended }))
    }

    async fn submit(&self, party: PartyId, entries: Vec<Bytes>) -> Vec<Result<StatementId, Refusal>> {
        // A node without a vote proposes nothing, and the others take forwarded statements from validators only.
        if !self.votes() {
            return vec![Err(admission::Refusal::from(Code::NotReady).into()); entries.len()];
        }
        let results = self.admission.submit(party, entries).await;
        results.into_iter().map(|result| result.map_err(Refusal::from)).collect()
    }

    fn is_pending(&self, id: &StatementId) -> bool {
        self.admission.is_pending(id)
    }

    fn executed(&self, id: &StatementId) -> Result<Option<Executed>, BackendError> {
        let Some(location) = self.chain.locate(id)? else { return Ok(None) };
        let Some((code, index)) = self.chain.result(location)? else { return Ok(None) };
        Ok(Some(Executed { location, code, index }))
    }

    fn location_of_leaf(&self, index: LogIndex) -> Result<Option<Location>, BackendError> {
        Ok(self.chain.location_of_leaf(index)?)
    }

    fn entry(&self, location: Location) -> Result<Option<Arc<[u8]>>, BackendError> {
        Ok(self.chain.entry(location)?)
    }

    fn receipt(&self, index: LogIndex) -> Result<Option<Receipt>, BackendError> {
        Ok(self.chain.receipt(index)?)
    }

    fn bundle(&self, id: &StatementId, with_entry: bool, from: Height) -> Result<Option<Bundle>, BackendError> {
        Ok(self.chain.bundle(id, with_entry, from)?)
    }

    fn header(&self, height: Height, from: Height) -> Result<Option<CertifiedHeader>, BackendError> {
        Ok(self.chain.certified_header(height, from)?)
    }

    fn block(&self, height: Height) -> Result<Option<(Block, CommitCertificate)>, BackendError> {
        let certified = self.chain.block(height)?;
        Ok(certified.map(|certified| (certified.block.clone(), certified.certificate.clone())))
    }

    fn checkpoint(&self) -> Option<SealedHead> {
        let seal = self.chain.checkpoint()?;
        Some(SealedHead {
            checkpoint: seal.checkpoint,
            log_root: seal.log_root,
            signature: seal.signature,
            public_key: seal.public_key,
        })
    }

    fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, BackendError> {
        if !tile.is_in(self.chain.tip().log_size) {
            return Ok(None);
        }
        Ok(Some(self.chain.tile(tile)?))
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, BackendError> {
        let path = self.chain.log_consistency(old, new)?;
        Ok(path.into_iter().map(Hash).collect())
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, BackendError> {
        Ok(self.chain.snapshots()?)
    }

    fn standpoint(&self, height: Height) -> Result<Option<Standpoint>, BackendError> {
        Ok(self.chain.standpoint(height)?)
    }

    fn snapshot_chunk(&self, height: Height, index: u64) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.chain.snapshot_chunk(height, index)?)
    }

    fn prove_state(&self, key: &StateKey, from: Height) -> Result<StateProof, BackendError> {
        let proven = self.chain.prove_state(key, from)?;
        let too_large = |_| BackendError::Failed("a state proof exceeds its bound".into());
        Ok(StateProof {
            key: Hash(*key),
            value: proven.value.map(Blob::new).transpose().map_err(too_large)?,
            proof: Blob::new(proven.proof).map_err(too_large)?,
            root: proven.root,
            height: proven.height,
            certified_by: proven.certified_by,
        })
    }
}
