//! What the node has committed: one writer, many readers.
//!
//! ```text
//!  decided block ──► blocks (durable) ──► ledger::apply ──► state ──► log ──► outcomes ──► index ──► Head
//!                                                                                                    │ watch
//!                                               readers: receipts, bundles, proofs, queries ◄────────┘
//! ```
//!
//! Blocks are the truth; everything behind them is derived, written without waiting for the disk and flushed every few
//! seconds in the order outcomes, log, state. Opening redoes the blocks that the derived stores lack and, when one of
//! them is damaged, throws all of them away and replays from the first block: losing them costs time, never a fact.

mod adopt;
mod archive;
mod bundles;
mod copy;
mod error;
mod exports;
mod open;
mod outcomes;
mod records;
mod restore;
mod seals;
mod state;
pub(crate) mod tree;
mod trust_path;
mod writer;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use stele_ledger::Frame;
use stele_merkle::tile::{Tile, TileKind};
use stele_state::{StateError, TreeMap};
use stele_types::{
    Block, BlockId, CommitCertificate, EpochCertificate, Genesis, Hash, Header, Height, LogIndex, NetworkId, Outcome,
    StatementId, Validator, ValidatorSet, cbor,
};
use tokio::sync::{SetOnce, watch};

pub(crate) use adopt::state_hash;
pub use adopt::{Adoption, JoinPoint, Unfit};
pub(crate) use copy::{ChainFiles, CopiedBlock};
pub use error::ChainError;
pub use exports::{Snapshot, Standpoint};
pub(crate) use restore::{Restoration, RestoredBlock};
pub use seals::SignedCheckpoint;
pub use state::{ProvenState, StateReader};
pub(crate) use trust_path::named_epochs;
pub(crate) use writer::check_results;
pub use writer::{Prepared, Writer};

use crate::store::blocks::{BlockStore, BlockStoreError, StoredBlock};
use crate::store::index::StatementIndex;
use crate::store::log::LogStore;
use exports::Exports;
use outcomes::OutcomeStore;
use records::{EpochRecords, LinkRecords};
use seals::Seals;

pub use crate::store::Location;

/// File in the chain's directory that asks the next start to build the derived stores again.
const REBUILD_MARK: &str = "rebuild";

/// Blocks kept decoded: at most a few tens of megabytes.
const RECENT_BLOCKS_MAX: usize = 16;

/// How a chain keeps its state.
#[derive(Clone, Copy, Debug)]
pub struct ChainOptions {
    /// A snapshot for nodes that join is written at every multiple of so many heights; 0: none.
    pub snapshot_interval: u64,
    /// Bytes of values of the state that stay in memory.
    pub values_memory_bytes: usize,
    /// Where the leaves of the state are.
    pub layout: stele_state::Layout,
    /// Bytes of its pages that stay in memory.
    pub page_cache_bytes: usize,
    /// Threads that may work on the writes of one block.
    pub threads: usize,
}

impl Default for ChainOptions {
    fn default() -> Self {
        Self {
            snapshot_interval: 0,
            values_memory_bytes: stele_state::Options::VALUES_MEMORY_BYTES,
            layout: stele_state::Layout::Auto { keys: stele_state::Options::PAGED_FROM_KEYS },
            page_cache_bytes: stele_state::Options::PAGE_CACHE_BYTES,
            threads: 1,
        }
    }
}

/// A block with this node's certificate for it.
#[derive(Clone, Debug)]
pub struct CertifiedBlock {
    /// The block.
    pub block: Block,
    /// A quorum for it.
    pub certificate: CommitCertificate,
}

/// Results after the newest committed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Height of the block; 0 is genesis.
    pub height: Height,
    /// Its id; the network id's bytes for genesis.
    pub block: BlockId,
    /// Its time, milliseconds.
    pub time_ms: u64,
    /// Leaves of the log.
    pub log_size: u64,
    /// Root of the log.
    pub log_root: Hash,
    /// Root of the state.
    pub state_root: Hash,
    /// Root over the outcomes of the block.
    pub outcomes_root: Hash,
    /// Statements in the block: while there are some, their results want a certificate.
    pub statements: usize,
}

/// The tip with what is in force at the next height.
#[derive(Clone, Debug)]
pub struct Head {
    /// The tip.
    pub tip: Tip,
    /// This node's certificate of the tip; none for genesis.
    pub certificate: Option<Arc<CommitCertificate>>,
    /// Results that the header of the tip certifies: those of the block before it.
    pub certified: Option<Arc<Tip>>,
    /// Parameters, validators and rotation of the next height.
    pub frame: Arc<Frame>,
}

/// The committed chain, shared by all readers.
pub struct Chain {
    directory: PathBuf,
    network: NetworkId,
    genesis: Genesis,
    genesis_bytes: Vec<u8>,
    blocks: Arc<BlockStore>,
    log: Arc<LogStore>,
    outcomes: OutcomeStore,
    index: StatementIndex,
    state: RwLock<TreeMap>,
    exports: Exports,
    links: LinkRecords,
    epochs: EpochRecords,
    seals: Seals,
    /// Blocks read last: bundles and receipts are asked for block by block.
    recent: Mutex<VecDeque<Arc<CertifiedBlock>>>,
    head: watch::Sender<Arc<Head>>,
    /// Why a value of the state could not be read, once that happened.
    unreadable: SetOnce<String>,
    /// Whether the next start has been asked to build the derived stores again.
    rebuild_marked: AtomicBool,
}

impl Chain {
    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }
    /// The genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }
    /// The genesis file.
    pub fn genesis_bytes(&self) -> &[u8] {
        &self.genesis_bytes
    }
    /// The newest block's results and what follows from them.
    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.head.borrow())
    }
    /// Results after the newest committed block.
    pub fn tip(&self) -> Tip {
        self.head.borrow().tip.clone()
    }
    /// Results of every height up to this one are certified by a committed header.
    pub fn certified(&self) -> Height {
        Height(self.head.borrow().tip.height.0.saturating_sub(1))
    }
    /// Wakes at every commit.
    pub fn watch(&self) -> watch::Receiver<Arc<Head>> {
        self.head.subscribe()
    }

    /// First height whose block is held.
    ///
    /// # Errors
    /// `store_poisoned`.
    pub fn history_min(&self) -> Result<Height, ChainError> {
        Ok(Height(self.blocks.min()?.unwrap_or(1)))
    }

    /// A block with this node's certificate for it; none beyond the tip or below the history.
    ///
    /// # Errors
    /// Damage or failure of the block store.
    pub fn block(&self, height: Height) -> Result<Option<Arc<CertifiedBlock>>, ChainError> {
        let found = |recent: &VecDeque<Arc<CertifiedBlock>>| {
            recent.iter().find(|certified| certified.block.header.height == height).map(Arc::clone)
        };
        if let Some(certified) = found(&self.recent.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Some(certified));
        }
        let Some(stored) = self.stored(height)? else { return Ok(None) };
        let certified = Arc::new(CertifiedBlock {
            block: Block::from_bytes(stored.block())?,
            certificate: cbor::from_slice(stored.certificate())?,
        });
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT_BLOCKS_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&certified));
        Ok(Some(certified))
    }

    /// A header with this node's certificate for it.
    ///
    /// # Errors
    /// As [`Chain::block`].
    pub fn header(&self, height: Height) -> Result<Option<(Header, CommitCertificate)>, ChainError> {
        let Some(certified) = self.block(height)? else { return Ok(None) };
        Ok(Some((certified.block.header.clone(), certified.certificate.clone())))
    }

    /// The stored bytes of a block and its certificate.
    ///
    /// # Errors
    /// As [`Chain::block`].
    pub fn stored(&self, height: Height) -> Result<Option<StoredBlock>, ChainError> {
        // The store may be one block ahead of the results; readers see a block with its results or not at all.
        if height > self.tip().height {
            return Ok(None);
        }
        match self.blocks.read(height.0) {
            Ok(stored) => Ok(Some(stored)),
            Err(BlockStoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a statement lies, whether it applied or was rejected. A statement that was ordered again has the outcome of
    /// its first time and perhaps another signature; one that applied is found where its leaf is.
    ///
    /// # Errors
    /// Failure of the index or of the outcomes.
    pub fn locate(&self, id: &StatementId) -> Result<Option<Location>, ChainError> {
        let found = self.noticed(self.index.lookup(&id.0).map_err(ChainError::from))?;
        let Some(location) = found else { return Ok(None) };
        if location.height() > self.tip().height.0 {
            return Ok(None);
        }
        let Some((_, Some(index))) = self.result(location)? else { return Ok(Some(location)) };
        let first = self.location_of_leaf(index)?;
        // Where it was ordered again it is another statement of its own block; anything else is damage.
        if let Some(other) = first.filter(|first| *first != location)
            && self.statement_id(other)? != Some(*id)
        {
            return Err(self.damaged("outcomes", location.height()));
        }
        Ok(first)
    }

    /// Outcome of the statement at a location.
    ///
    /// # Errors
    /// Damage or failure of a store.
    pub fn outcome(&self, location: Location) -> Result<Option<Outcome>, ChainError> {
        let Some((code, index)) = self.result(location)? else { return Ok(None) };
        let Some(statement) = self.statement_id(location)? else { return Ok(None) };
        Ok(Some(Outcome { statement, code, index }))
    }

    /// Code and leaf of the statement at a location, without reading its block.
    ///
    /// # Errors
    /// Damage or failure of a store.
    pub fn result(&self, location: Location) -> Result<Option<(stele_types::Code, Option<LogIndex>)>, ChainError> {
        self.noticed(self.outcomes.one(location.height(), location.position()))
    }

    /// Outcomes of a block in order.
    ///
    /// # Errors
    /// Damage or failure of a store.
    pub fn outcomes(&self, height: Height) -> Result<Option<Vec<Outcome>>, ChainError> {
        let Some(certified) = self.block(height)? else { return Ok(None) };
        let results = self.noticed(self.outcomes.block(height.0))?;
        if results.len() != certified.block.entries.len() {
            return Err(self.damaged("outcomes", height.0));
        }
        let mut outcomes = Vec::with_capacity(results.len());
        for (entry, (code, index)) in certified.block.entries.iter().zip(results) {
            let statement =
                stele_types::Statement::parse(Arc::clone(entry)).map_err(|code| ChainError::Statement { code })?.id();
            outcomes.push(Outcome { statement, code, index });
        }
        Ok(Some(outcomes))
    }

    /// Where the statement of a leaf lies.
    ///
    /// # Errors
    /// Failure of the log.
    pub fn location_of_leaf(&self, index: LogIndex) -> Result<Option<Location>, ChainError> {
        if index.0 >= self.tip().log_size {
            return Ok(None);
        }
        let location = self.noticed(self.log.location(index.0).map_err(ChainError::from))?;
        // The log says where the leaf's statement lies, and no checksum covers that: the outcomes, which have one, must
        // name this leaf there.
        match self.result(location)? {
            Some((_, Some(leaf))) if leaf == index => Ok(Some(location)),
            _ => Err(self.damaged("log and outcomes", location.height())),
        }
    }

    /// What a read of a derived store gave. All reads go through here: none may find damage and let the next start serve
    /// from it again.
    fn noticed<T>(&self, read: Result<T, ChainError>) -> Result<T, ChainError> {
        if let Err(error) = &read
            && is_damage(error)
        {
            self.mark_rebuild(error);
        }
        read
    }

    /// Whether a read found a derived store damaged: what lies there is refused until the next start, which builds all of
    /// them again.
    pub fn rebuild_pending(&self) -> bool {
        self.rebuild_marked.load(Ordering::Relaxed)
    }

    /// Derived stores that do not agree with each other or with the blocks.
    fn damaged(&self, store: &'static str, height: u64) -> ChainError {
        let error = ChainError::Damaged { store, height };
        self.mark_rebuild(&error);
        error
    }

    /// Asks the next start to build the derived stores again.
    fn mark_rebuild(&self, error: &ChainError) {
        // Once is enough for the next start, and a reader that asks again must not fill the node's own log.
        if self.rebuild_marked.swap(true, Ordering::Relaxed) {
            return;
        }
        let code = error.code();
        tracing::error!(code, %error, "a derived store is damaged; the next start builds it again from the blocks");
        if let Err(error) = std::fs::write(self.directory.join(REBUILD_MARK), code) {
            tracing::error!(%error, "the next start was not told; remove the derived stores by hand");
        }
    }

    /// The exact bytes of the statement at a location.
    ///
    /// # Errors
    /// Damage or failure of the block store.
    pub fn entry(&self, location: Location) -> Result<Option<Arc<[u8]>>, ChainError> {
        let Some(certified) = self.block(Height(location.height()))? else { return Ok(None) };
        let entries = &certified.block.entries;
        Ok(usize::try_from(location.position()).ok().and_then(|position| entries.get(position).cloned()))
    }

    /// The validators that decide a height.
    pub fn validators_at(&self, height: Height) -> ValidatorSet {
        self.links.below(height).pop().map_or_else(|| self.genesis.validators.clone(), |link| link.validators)
    }

    /// Every validator set so far, genesis first.
    pub fn validator_history(&self) -> Vec<ValidatorSet> {
        let changes = self.links.below(Height(u64::MAX)).into_iter().map(|link| link.validators);
        std::iter::once(self.genesis.validators.clone()).chain(changes).collect()
    }

    /// Validators that are suspended after the tip; none while the state cannot be read.
    pub fn suspended(&self) -> Vec<Validator> {
        let record = self.reading(|view| stele_ledger::query::attestation(view)).ok().flatten();
        record.unwrap_or_default().suspended.into_vec()
    }

    /// How many validators are suspended, and how many in force have lapsed and stay.
    pub fn out_of_attestation(&self) -> (usize, usize) {
        let time_ms = self.tip().time_ms;
        let lapsed = self.reading(|view| stele_ledger::lapsed_validators(view, time_ms)).unwrap_or_default();
        (self.suspended().len(), lapsed.len())
    }

    /// First heights of the set that is in force after the tip and of the one that waits, and how many are suspended: they
    /// change when who validates, or is about to, changes.
    pub fn validator_change(&self) -> Option<(Height, Option<Height>, usize)> {
        let record = self.reading(|view| stele_ledger::query::validators(view)).ok()??;
        Some((record.current.since, record.pending.map(|pending| pending.since), self.suspended().len()))
    }

    /// An epoch certificate that the ledger took in, by its hash.
    pub fn epoch_certificate(&self, hash: &Hash) -> Option<EpochCertificate> {
        self.epochs.find(hash)
    }

    /// A tile of the log tree.
    ///
    /// # Errors
    /// Failure of the log.
    pub fn tile(&self, tile: &Tile) -> Result<Vec<u8>, ChainError> {
        let bytes = self.noticed(self.log.tile(tile).map_err(ChainError::from))?;
        let last = tile.first() + u64::from(tile.width()) - 1;
        if matches!(tile.kind(), TileKind::Hashes { level: 0 })
            && tile.width() % 2 == 1
            && let Some(location) = self.location_of_leaf(LogIndex(last))?
            && let Some(entry) = self.entry(location)?
            && !bytes.ends_with(&stele_merkle::log::leaf_hash(&entry))
        {
            return Err(self.damaged("log and blocks", location.height()));
        }
        Ok(bytes)
    }

    /// The proof that the log of `new` leaves continues the one of `old` leaves (RFC 9162, section 2.1.4).
    ///
    /// # Errors
    /// Failure of the log.
    pub fn log_consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, ChainError> {
        self.noticed(self.log.consistency_proof(old, new).map_err(ChainError::from))
    }

    fn statement_id(&self, location: Location) -> Result<Option<StatementId>, ChainError> {
        let Some(entry) = self.entry(location)? else { return Ok(None) };
        let statement = stele_types::Statement::parse(entry).map_err(|code| ChainError::Statement { code })?;
        Ok(Some(statement.id()))
    }

    /// Sizes of the stores, for metrics.
    pub fn figures(&self) -> ChainFigures {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        ChainFigures {
            state: stele_state::StateMap::figures(&*state),
            blocks: self.blocks.figures(),
            index: self.index.figures(),
        }
    }
}

/// Whether a derived store is damaged, so that building all of them again from the blocks is the remedy.
fn is_damage(error: &ChainError) -> bool {
    match error {
        ChainError::Log(error) => error.needs_rebuild(),
        ChainError::Index(error) => error.needs_rebuild(),
        ChainError::State(error) => matches!(error, StateError::Corrupt { .. } | StateError::NoBase { .. }),
        ChainError::Damaged { .. } => true,
        _ => false,
    }
}

/// Sizes of the stores.
#[derive(Clone, Debug)]
pub struct ChainFigures {
    /// The state map.
    pub state: stele_state::Figures,
    /// The block store.
    pub blocks: crate::store::blocks::BlockFigures,
    /// The statement index.
    pub index: crate::store::index::IndexFigures,
}
