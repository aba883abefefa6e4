//! The one writer: executes decided blocks and moves the head.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use stele_ledger::{Applied, EventKind, Frame};
use stele_state::StateMap;
use stele_types::{Block, BlockId, ChainLink, CommitCertificate, Hash, Header, Height, Statement, cbor};

use super::{Chain, ChainError, Head, Location, Tip, tree};
use crate::store::log::LogWriter;

/// A block whose statements are parsed and hashed, and perhaps executed ahead of its decision.
pub struct Prepared {
    /// Its id.
    pub id: BlockId,
    /// Its encoding.
    pub bytes: bytes::Bytes,
    /// Its header.
    pub header: Header,
    /// The parent's certificate in its body.
    pub parent_certificate: Option<CommitCertificate>,
    /// Its statements.
    pub statements: Vec<Statement>,
    /// Leaf hash of each entry: leaves of the statements tree, and of the log for those that apply.
    pub leaf_hashes: Vec<[u8; 32]>,
    applied: OnceLock<(Applied, Duration)>,
    /// Held while it is executed.
    turn: Mutex<()>,
}

impl Prepared {
    /// Parses the statements of a decoded block.
    ///
    /// # Errors
    /// The code of the first statement that does not parse.
    pub fn new(block: Block, bytes: bytes::Bytes) -> Result<Self, stele_types::Code> {
        let mut statements = Vec::with_capacity(block.entries.len());
        for entry in block.entries {
            statements.push(Statement::parse(entry)?);
        }
        let leaf_hashes = tree::leaf_hashes(statements.iter().map(|statement| &**statement.entry()));
        Ok(Self::with_leaves(bytes, block.header, block.parent_certificate, statements, leaf_hashes))
    }
    /// A block of statements that were parsed and hashed before.
    pub fn with_leaves(
        bytes: bytes::Bytes,
        header: Header,
        parent_certificate: Option<CommitCertificate>,
        statements: Vec<Statement>,
        leaf_hashes: Vec<[u8; 32]>,
    ) -> Self {
        let id = header.id();
        Self {
            id,
            bytes,
            header,
            parent_certificate,
            statements,
            leaf_hashes,
            applied: OnceLock::new(),
            turn: Mutex::default(),
        }
    }
    /// What executing it gave, and how long that took, once it was executed.
    pub fn executed(&self) -> Option<(&Applied, Duration)> {
        self.applied.get().map(|(applied, duration)| (applied, *duration))
    }
    /// RFC 9162 root over the entries.
    pub fn statements_root(&self) -> Hash {
        Hash(tree::root_of(&self.leaf_hashes))
    }
}

/// Executes blocks; there is one per chain.
pub struct Writer {
    chain: Arc<Chain>,
    log: LogWriter,
}

impl Writer {
    pub(super) fn new(chain: Arc<Chain>, log: LogWriter) -> Self {
        Self { chain, log }
    }

    /// Makes a decided block durable, executes it and moves the head.
    ///
    /// # Errors
    /// `Diverged` when the header certifies other results than this node has; failure of a store, after which the node
    /// must stop and recover by restart.
    pub fn commit(&mut self, block: &Prepared, certificate: &CommitCertificate) -> Result<Arc<Head>, ChainError> {
        let head = self.chain.head();
        check_results(&head, &block.header)?;
        self.chain.blocks.append(block.header.height.0, &block.id.0, &block.bytes, &cbor::to_vec(certificate))?;
        let executed = self.execute(block, certificate, &head);
        // The next start need not meet the same damage: what it redoes may lie beside it.
        self.chain.noticed(executed)
    }

    /// Executes a block that is already durable.
    pub(super) fn execute(
        &mut self,
        block: &Prepared,
        certificate: &CommitCertificate,
        head: &Head,
    ) -> Result<Arc<Head>, ChainError> {
        let chain = Arc::clone(&self.chain);
        let height = block.header.height;
        let applied = chain.execution(block)?;
        let (staged, state_root) = {
            let state = chain.state.read().unwrap_or_else(PoisonError::into_inner);
            let staged = state.stage(&state.root(), applied.writes.clone())?;
            let root = stele_state::TreeMap::staged_root(&staged);
            (staged, root)
        };

        let mut leaf_hashes = Vec::with_capacity(applied.leaves.len());
        let mut locations = Vec::with_capacity(applied.leaves.len());
        for position in &applied.leaves {
            let at =
                usize::try_from(*position).map_err(|_| ChainError::Damaged { store: "leaves", height: height.0 })?;
            leaf_hashes.push(block.leaf_hashes[at]);
            let location = Location::new(height.0, *position);
            locations.push(location.ok_or(ChainError::Damaged { store: "leaves", height: height.0 })?);
        }
        let first = self.log.append(&leaf_hashes, &locations)?;
        if first != applied.first_index.0 {
            return Err(ChainError::Damaged { store: "log", height: height.0 });
        }
        let log_size = first + leaf_hashes.len() as u64;
        chain.outcomes.append(height.0, &applied.outcomes, log_size)?;
        if block.header.validators != block.header.next_validators {
            chain.links.add(ChainLink {
                header: block.header.clone(),
                certificate: certificate.clone(),
                validators: head.frame.next_validators.clone(),
            })?;
        }
        // The index flushes by itself, so after a crash it may stand above the state and know this block.
        if chain.index.put_through() < Some(height.0) {
            let ids: Vec<[u8; 32]> = block.statements.iter().map(|statement| statement.id().0).collect();
            chain.index.put_block(height.0, &ids)?;
        }
        let outcomes: Vec<Vec<u8>> = applied.outcomes.iter().map(stele_types::Outcome::to_bytes).collect();
        let outcome_leaves = tree::leaf_hashes(outcomes.iter().map(Vec::as_slice));

        let tip = Tip {
            height,
            block: block.id,
            time_ms: block.header.time_ms,
            log_size,
            log_root: Hash(self.log.root()),
            state_root: Hash(state_root),
            outcomes_root: Hash(tree::root_of(&outcome_leaves)),
            statements: block.statements.len(),
        };
        // State and head move under one lock, so that a reader who holds the state sees the head that belongs to it.
        let mut state = chain.state.write().unwrap_or_else(PoisonError::into_inner);
        state.commit(staged, height.0)?;
        chain.exports.begin(&mut state, height);
        let frame = super::state::read_whole(&state, |view| stele_ledger::frame(view, height.next()));
        let frame: Arc<Frame> = Arc::new(frame.map_err(|error| chain.note_unreadable(error))?);
        for event in &applied.events {
            if let EventKind::EpochCertified(certificate) = &event.kind {
                chain.epochs.add(certificate)?;
            }
        }
        let certified = Some(Arc::new(head.tip.clone()));
        let head = Arc::new(Head { tip, certificate: Some(Arc::new(certificate.clone())), certified, frame });
        chain.head.send_replace(Arc::clone(&head));
        Ok(head)
    }

    /// Flushes the derived stores in the order that recovery relies on.
    ///
    /// # Errors
    /// Failure of a store.
    pub fn flush(chain: &Chain) -> Result<(), ChainError> {
        chain.outcomes.sync()?;
        chain.log.sync()?;
        chain.state.write().unwrap_or_else(PoisonError::into_inner).sync()?;
        Ok(())
    }
}

impl Chain {
    /// Executes a block on the newest state, once; the result waits in `block` for its decision.
    ///
    /// # Errors
    /// `StateUnreadable`; nothing waits in `block` then.
    pub fn execution<'b>(&self, block: &'b Prepared) -> Result<&'b Applied, ChainError> {
        // One at a time: whoever comes second finds the result.
        let _turn = block.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((applied, _)) = block.applied.get() {
            return Ok(applied);
        }
        let started = Instant::now();
        let applied = self.reading(|view| stele_ledger::apply(view, &block.header, &block.statements))?;
        let (applied, _) = block.applied.get_or_init(|| (applied, started.elapsed()));
        Ok(applied)
    }
}

/// Compares the results that `header` certifies with this node's own.
///
/// # Errors
/// `Diverged`.
pub(crate) fn check_results(head: &Head, header: &Header) -> Result<(), ChainError> {
    let (tip, frame) = (&head.tip, &head.frame);
    let results = [
        ("log size", header.log_size == tip.log_size),
        ("log root", header.log_root == tip.log_root),
        ("state root", header.state_root == tip.state_root),
        ("outcomes root", header.outcomes_root == tip.outcomes_root),
        ("validator set", header.validators == frame.validators.hash()),
        ("next validator set", header.next_validators == frame.next_validators.hash()),
        ("parameters", header.parameters == frame.parameters.hash()),
    ];
    match results.into_iter().find(|(_, equal)| !equal) {
        Some((what, _)) => Err(ChainError::Diverged { height: header.height.0, what }),
        None => Ok(()),
    }
}

/// The height after which genesis stands.
pub(super) const GENESIS_HEIGHT: Height = Height(0);
