//! Opening: recover what is durable, redo what is derived.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use stele_ledger::Frame;
use stele_state::{Durability, StateError, StateMap, TreeMap};
use stele_types::{Block, Genesis, Hash, Height, NetworkId, cbor};
use tokio::sync::{SetOnce, watch};
use tracing::{info, warn};

use super::adopt::state_hash;
use super::exports::Exports;
use super::outcomes::OutcomeStore;
use super::records::{EpochRecords, LinkRecords};
use super::seals::Seals;
use super::state::read_whole;
use super::writer::{GENESIS_HEIGHT, Prepared, Writer, check_results};
use super::{Chain, ChainError, ChainOptions, Head, REBUILD_MARK, Tip, tree};
use crate::store::blocks::{BlockStore, BlockStoreOptions};
use crate::store::durable;
use crate::store::index::{IndexOptions, StatementIndex};
use crate::store::log::{LogStore, LogWriter};

/// Directory of the blocks below that of the chain.
pub(super) const BLOCKS: &str = "blocks";
/// Names the network, so that no node takes up the directory of another one.
const NETWORK_FILE: &str = "network";
/// Directories below the data directory that can be rebuilt from blocks.
const DERIVED: [&str; 6] = ["state", "log", "outcomes", "index", "links", "epochs"];

impl Chain {
    /// Opens or creates the chain of `genesis` in `directory` and redoes what is missing. Blocks the calling thread, for
    /// long if the derived stores have to be rebuilt.
    ///
    /// # Errors
    /// `foreign_data` for another network's directory, `history_missing`, damage of the block store.
    pub fn open(
        directory: &Path,
        genesis_bytes: &[u8],
        genesis: Genesis,
        options: ChainOptions,
    ) -> Result<(Arc<Self>, Writer), ChainError> {
        let blocks = Self::open_blocks(directory, genesis.network())?;
        Self::open_on(Arc::new(blocks), directory, genesis_bytes, genesis, options)
    }

    /// Opens or creates the blocks of the chain in `directory`: the first step of [`Chain::open`].
    ///
    /// # Errors
    /// `foreign_data` for another network's directory, damage of the block store.
    pub fn open_blocks(directory: &Path, network: NetworkId) -> Result<BlockStore, ChainError> {
        durable::create_directory(directory).map_err(ChainError::io("create the data directory"))?;
        mark_network(directory, network)?;
        Ok(BlockStore::open(&directory.join(BLOCKS), BlockStoreOptions::default())?)
    }

    /// Opens the chain on its blocks and redoes what is missing: the second step of [`Chain::open`].
    ///
    /// # Errors
    /// `history_missing`; failure of the block store.
    pub fn open_on(
        blocks: Arc<BlockStore>,
        directory: &Path,
        genesis_bytes: &[u8],
        genesis: Genesis,
        options: ChainOptions,
    ) -> Result<(Arc<Self>, Writer), ChainError> {
        if directory.join(REBUILD_MARK).exists() {
            warn!("a derived store was damaged when it was read: rebuilding all of them from the blocks");
            clear_derived(directory, &blocks)?;
        }
        match Self::recover(Arc::clone(&blocks), directory, genesis_bytes, &genesis, options) {
            Ok(opened) => Ok(opened),
            // A value that could not be read says so by the mark.
            Err(error) if is_derived(&error) || directory.join(REBUILD_MARK).exists() => {
                warn!(code = error.code(), %error, "derived stores are damaged: rebuilding them from the blocks");
                clear_derived(directory, &blocks)?;
                Self::recover(blocks, directory, genesis_bytes, &genesis, options)
            }
            Err(error) => Err(error),
        }
    }

    fn recover(
        blocks: Arc<BlockStore>,
        directory: &Path,
        genesis_bytes: &[u8],
        genesis: &Genesis,
        options: ChainOptions,
    ) -> Result<(Arc<Self>, Writer), ChainError> {
        let hash = state_hash(genesis);
        // No header certifies the results of the tip yet. So the state is opened below it, where the header of the tip
        // says what it must be, and the tip is executed again.
        let height_max = blocks.tip()?.map(|tip| tip.saturating_sub(1));
        let state_options = stele_state::Options {
            durability: Durability::None,
            height_max,
            values_memory_bytes: options.values_memory_bytes,
            layout: options.layout,
            page_cache_bytes: options.page_cache_bytes,
            threads: options.threads,
            ..stele_state::Options::new(hash)
        };
        let opened = TreeMap::open(&directory.join("state"), state_options)?;
        let mut state = opened.map;
        if opened.height.is_none() {
            let staged = state.stage(&state.root(), stele_ledger::genesis_writes(genesis))?;
            state.commit(staged, GENESIS_HEIGHT.0)?;
        }
        let height = Height(state.height().unwrap_or_default());
        let stored_tip = blocks.tip()?.unwrap_or_default();
        if height.0 > stored_tip {
            return Err(ChainError::Damaged { store: "state", height: height.0 });
        }
        if let Some(oldest) = blocks.min()?.filter(|oldest| height.0 + 1 < *oldest) {
            return Err(ChainError::HistoryMissing { oldest });
        }
        let frame: Arc<Frame> = Arc::new(read_whole(&state, |view| stele_ledger::frame(view, height.next()))?);
        let outcomes = OutcomeStore::open(&directory.join("outcomes"), height.0)?;
        let (log, mut log_writer) = LogStore::open(&directory.join("log"), frame.log_size, None)?;
        feed_log(&blocks, &outcomes, &log, &mut log_writer, frame.log_size)?;
        let index = StatementIndex::open(&directory.join("index"), IndexOptions::default())?;
        let head = recovered_head(genesis, &blocks, &outcomes, &state, &log_writer, height, frame)?;
        let chain = Arc::new(Self {
            directory: directory.to_owned(),
            network: genesis.network(),
            genesis: genesis.clone(),
            genesis_bytes: genesis_bytes.to_vec(),
            blocks,
            log,
            outcomes,
            index,
            state: RwLock::new(state),
            exports: Exports::open(&directory.join("snapshots"), options.snapshot_interval)?,
            links: LinkRecords::open(&directory.join("links"))?,
            epochs: EpochRecords::open(&directory.join("epochs"))?,
            seals: Seals::open(&directory.join("checkpoint.cbor"))?,
            recent: Mutex::default(),
            head: watch::Sender::new(Arc::new(head)),
            unreadable: SetOnce::new(),
            rebuild_marked: AtomicBool::new(false),
        });
        for certificate in &chain.head().frame.epoch_certificates {
            chain.epochs.add(certificate)?;
        }
        chain.feed_index(height.0)?;
        let mut writer = Writer::new(Arc::clone(&chain), log_writer);
        for height in height.0 + 1..=stored_tip {
            let stored = chain.blocks.read(height)?;
            let prepared = prepared(stored.block())?;
            let head = chain.head();
            check_results(&head, &prepared.header)?;
            writer.execute(&prepared, &cbor::from_slice(stored.certificate())?, &head)?;
        }
        info!(height = chain.tip().height.0, redone = stored_tip - height.0, "chain open");
        Ok((chain, writer))
    }

    /// Gives the index the blocks that it lacks up to `height`.
    fn feed_index(&self, height: u64) -> Result<(), ChainError> {
        let first = self.index.complete_through().map_or(1, |complete| complete + 1);
        for height in first.max(self.blocks.min()?.unwrap_or(1))..=height {
            let prepared = prepared(self.blocks.read(height)?.block())?;
            let ids: Vec<[u8; 32]> = prepared.statements.iter().map(|statement| statement.id().0).collect();
            self.index.put_block(height, &ids)?;
        }
        Ok(())
    }
}

fn prepared(bytes: &[u8]) -> Result<Prepared, ChainError> {
    let block = Block::from_bytes(bytes)?;
    Prepared::new(block, bytes::Bytes::copy_from_slice(bytes)).map_err(|code| ChainError::Statement { code })
}

/// Appends the leaves that the log lost since its last flush.
fn feed_log(
    blocks: &BlockStore,
    outcomes: &OutcomeStore,
    log: &LogStore,
    writer: &mut LogWriter,
    size: u64,
) -> Result<(), ChainError> {
    let mut height = outcomes.height_beyond(log.size(), blocks.min()?.unwrap_or(1))?;
    while log.size() < size {
        let damaged = ChainError::Damaged { store: "log", height };
        let prepared = prepared(blocks.read(height)?.block())?;
        let results = outcomes.block(height)?;
        let (mut leaves, mut locations) = (Vec::new(), Vec::new());
        for (position, (_, index)) in results.iter().enumerate() {
            // A repeated statement has the index of its first leaf, which lies below.
            if index.is_some_and(|index| index.0 == log.size() + leaves.len() as u64) {
                let (Some(leaf), Ok(position)) = (prepared.leaf_hashes.get(position), u32::try_from(position)) else {
                    return Err(damaged);
                };
                leaves.push(*leaf);
                locations.extend(super::Location::new(height, position));
            }
        }
        writer.append(&leaves, &locations)?;
        height += 1;
    }
    Ok(())
}

fn recovered_head(
    genesis: &Genesis,
    blocks: &BlockStore,
    outcomes: &OutcomeStore,
    state: &TreeMap,
    log: &LogWriter,
    height: Height,
    frame: Arc<Frame>,
) -> Result<Head, ChainError> {
    let network = genesis.network();
    let mut tip = Tip {
        height,
        block: stele_types::BlockId(network.0),
        time_ms: genesis.time_ms,
        log_size: frame.log_size,
        log_root: Hash(log.root()),
        state_root: Hash(state.root()),
        outcomes_root: Hash(stele_merkle::log::EMPTY_ROOT),
        statements: 0,
    };
    if height == GENESIS_HEIGHT {
        return Ok(Head { tip, certificate: None, certified: None, frame });
    }
    let stored = blocks.read(height.0)?;
    let prepared = prepared(stored.block())?;
    let results = outcomes.block(height.0)?;
    if results.len() != prepared.statements.len() {
        return Err(ChainError::Damaged { store: "outcomes", height: height.0 });
    }
    let outcomes: Vec<_> = prepared
        .statements
        .iter()
        .zip(results)
        .map(|(statement, (code, index))| stele_types::Outcome { statement: statement.id(), code, index }.to_bytes())
        .collect();
    let leaves = tree::leaf_hashes(outcomes.iter().map(Vec::as_slice));
    tip.block = prepared.id;
    tip.time_ms = prepared.header.time_ms;
    tip.outcomes_root = Hash(tree::root_of(&leaves));
    tip.statements = prepared.statements.len();
    let header = &prepared.header;
    let parent_time_ms = match height.0 - 1 {
        0 => genesis.time_ms,
        // Pruned away: the next commit brings the time of a head that can be sealed.
        parent if blocks.min()?.is_none_or(|oldest| parent < oldest) => 0,
        parent => Block::header_from_bytes(blocks.read(parent)?.block())?.time_ms,
    };
    let certified = (parent_time_ms > 0).then(|| {
        Arc::new(Tip {
            height: Height(height.0 - 1),
            block: header.parent,
            time_ms: parent_time_ms,
            log_size: header.log_size,
            log_root: header.log_root,
            state_root: header.state_root,
            outcomes_root: header.outcomes_root,
            statements: 0,
        })
    });
    Ok(Head { tip, certificate: Some(Arc::new(cbor::from_slice(stored.certificate())?)), certified, frame })
}

/// Removes the derived stores if they can be built again. Those of a node that joined by a snapshot cannot: its blocks do
/// not reach down to genesis, and what is left of them is all that there is.
fn clear_derived(directory: &Path, blocks: &BlockStore) -> Result<(), ChainError> {
    match blocks.min()?.filter(|oldest| *oldest > GENESIS_HEIGHT.0 + 1) {
        Some(oldest) => Err(ChainError::HistoryMissing { oldest }),
        None => {
            // What cannot be executed again must not be removed: all blocks are needed, those in the archive, too.
            for segment in blocks.archived() {
                blocks.read(segment.first_height)?;
            }
            remove_derived(directory)
        }
    }
}

fn remove_derived(directory: &Path) -> Result<(), ChainError> {
    for name in DERIVED {
        match std::fs::remove_dir_all(directory.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ChainError::io("remove a damaged store")(error));
            }
            _ => {}
        }
    }
    match std::fs::remove_file(directory.join(REBUILD_MARK)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ChainError::io("remove the mark of a damaged store")(error))
        }
        _ => Ok(()),
    }
}

/// Whether throwing the derived stores away can help.
fn is_derived(error: &ChainError) -> bool {
    matches!(
        error,
        ChainError::Log(_)
            // A disk that is full or fails now says nothing about what it holds.
            | ChainError::State(StateError::Corrupt { .. } | StateError::NoBase { .. })
            | ChainError::Index(_)
            | ChainError::Damaged { .. }
            | ChainError::Diverged { .. }
            | ChainError::Encoding(_)
    )
}

/// Compares the network of a chain's directory, which there has to be, with the one that is expected.
pub(super) fn check_network(directory: &Path, network: NetworkId) -> Result<(), ChainError> {
    std::fs::metadata(directory.join(NETWORK_FILE)).map_err(ChainError::io("find a chain in the data directory"))?;
    mark_network(directory, network)
}

/// Writes the network's id into a new directory, or compares it with the one that is there.
pub(super) fn mark_network(directory: &Path, network: NetworkId) -> Result<(), ChainError> {
    let path = directory.join(NETWORK_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim_end() == network.to_hex() => Ok(()),
        Ok(text) => {
            Err(ChainError::ForeignData { expected: network, found: text.trim_end().chars().take(64).collect() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            durable::replace_file(directory, NETWORK_FILE, network.to_hex().as_bytes())
                .map_err(ChainError::io("mark the data directory"))
        }
        Err(error) => Err(ChainError::io("read the data directory's mark")(error)),
    }
}

#[cfg(test)]
mod tests {
    use stele_types::cbor::{List, Text};
    use stele_types::record::PlaceCode;
    use stele_types::{Parameters, PartyId, Validator, ValidatorSet};

    use super::*;

    /// A node that joined by a snapshot once deleted a damaged state and only then found that it has no blocks to build it
    /// from.
    #[test]
    fn derived_stores_that_cannot_be_built_again_are_left_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let chain = directory.path().join("chain");
        let blocks = BlockStore::open(&chain.join(BLOCKS), BlockStoreOptions::default()).unwrap();
        blocks.append(7, &[7; 32], b"block", b"certificate").unwrap();
        drop(blocks);
        let log = chain.join("state").join("writes-00000000000000000000.log");
        durable::create_directory(&chain.join("state")).unwrap();
        std::fs::write(&log, b"damaged").unwrap();
        let validator = Validator { public_key: [2; 33], peer_key: [9; 32], party: PartyId([1; 16]) };
        let genesis = Genesis {
            name: Text::new("test").unwrap(),
            region: PlaceCode::new(110_000).unwrap(),
            time_ms: 1,
            parameters: Parameters::default(),
            validators: ValidatorSet::new(vec![validator]).unwrap(),
            epoch_certificates: List::default(),
            founders: List::default(),
        };
        for is_marked in [false, true] {
            if is_marked {
                std::fs::write(chain.join(REBUILD_MARK), "state_corrupt").unwrap();
            }
            let opened = Chain::open(&chain, &genesis.to_bytes(), genesis.clone(), ChainOptions::default());
            let error = opened.err().unwrap();
            assert!(matches!(error, ChainError::HistoryMissing { oldest: 7 }), "{error}");
            assert!(error.to_string().contains("stele network join"), "{error}");
            assert_eq!(std::fs::read(&log).unwrap(), b"damaged");
        }
    }
}
