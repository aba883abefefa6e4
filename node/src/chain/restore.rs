//! Making a chain's directory of blocks that are elsewhere.
//!
//! Whoever does it has verified the blocks, from genesis or from a base that a certified header vouches for. What the
//! directory lacks then is derived at its first opening, as after any restart: that compares every root.

use std::path::{Path, PathBuf};

use stele_merkle::log::Frontier;
use stele_state::SnapshotBuilder;
use stele_types::{ChainLink, EpochCertificate, Genesis, NetworkId, Outcome};

use super::adopt::state_hash;
use super::open::{BLOCKS, mark_network};
use super::outcomes::OutcomeStore;
use super::records::{EpochRecords, LinkRecords};
use super::{Chain, ChainError, ChainOptions, Tip, Writer};
use crate::store::blocks::{BlockStore, BlockStoreOptions};
use crate::store::durable;
use crate::store::log::LogStore;

/// A chain's directory in the making; it gets its name by [`Restoration::finish`] or not at all.
pub(crate) struct Restoration {
    directory: PathBuf,
    making: PathBuf,
    blocks: BlockStore,
    outcomes: Option<OutcomeStore>,
    /// Height of the snapshot of the state; 0: all blocks are executed.
    state_height: u64,
}

/// A block, as it goes into a chain.
pub(crate) struct RestoredBlock<'b> {
    pub(crate) height: u64,
    pub(crate) id: [u8; 32],
    pub(crate) block: &'b [u8],
    pub(crate) certificate: &'b [u8],
    pub(crate) outcomes: &'b [Outcome],
    /// Leaves of the log after it.
    pub(crate) log_size: u64,
}

impl Restoration {
    /// Begins beside a chain directory that does not exist; what an interrupted one left is removed. The state will come at
    /// `state_height`; if that is 0, the blocks are executed from genesis on. `base` is the log after the first block, if that is
    /// not the first of the network.
    ///
    /// # Errors
    /// [`ChainError::NotEmpty`]; failure of a store.
    pub(crate) fn begin(
        directory: &Path,
        network: NetworkId,
        state_height: u64,
        base: Option<&Frontier>,
    ) -> Result<Self, ChainError> {
        if directory.exists() {
            return Err(ChainError::NotEmpty { path: directory.to_owned() });
        }
        let making = directory.with_extension("restoring");
        match std::fs::remove_dir_all(&making) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ChainError::io("remove what an interrupted restore left")(error));
            }
            _ => {}
        }
        durable::create_directory(&making).map_err(ChainError::io("create the directory of a chain"))?;
        mark_network(&making, network)?;
        let options = BlockStoreOptions { durable: false, ..BlockStoreOptions::default() };
        let blocks = BlockStore::open(&making.join(BLOCKS), options)?;
        if let Some(base) = base {
            LogStore::adopt(&making.join("log"), base)?;
        }
        let outcomes = (state_height > 0 && base.is_none()).then(|| OutcomeStore::open(&making.join("outcomes"), 0));
        Ok(Self { directory: directory.to_owned(), making, blocks, outcomes: outcomes.transpose()?, state_height })
    }

    /// The state, to be filled with the chunks of a snapshot that has this root.
    ///
    /// # Errors
    /// Those of [`SnapshotBuilder::create`].
    pub(crate) fn state(&self, genesis: &Genesis, root: [u8; 32], depth: u8) -> Result<SnapshotBuilder, ChainError> {
        let directory = self.making.join("state");
        Ok(SnapshotBuilder::create(&directory, state_hash(genesis), self.state_height, root, depth)?)
    }

    /// Takes the next block.
    ///
    /// # Errors
    /// Failure of a store.
    pub(crate) fn block(&mut self, block: &RestoredBlock<'_>) -> Result<(), ChainError> {
        let RestoredBlock { height, outcomes, log_size, .. } = *block;
        self.blocks.append(height, &block.id, block.block, block.certificate)?;
        match &self.outcomes {
            Some(store) if height <= self.state_height => store.append(height, outcomes, log_size)?,
            // The first block of a chain that begins at a snapshot brings the base of the outcomes.
            None if self.state_height > 0 => {
                let directory = self.making.join("outcomes");
                OutcomeStore::adopt(&directory, height, outcomes, log_size)?;
                self.outcomes = Some(OutcomeStore::open(&directory, height)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes what proofs of old headers need, opens the chain, which executes what the state lacks and compares every root,
    /// and gives the directory its name. Returns where it stands.
    ///
    /// # Errors
    /// Failure of a store; `Diverged` when a header certifies other results.
    pub(crate) fn finish(
        self,
        genesis_bytes: &[u8],
        genesis: &Genesis,
        links: &[ChainLink],
        epochs: &[EpochCertificate],
        options: ChainOptions,
    ) -> Result<Tip, ChainError> {
        let Self { directory, making, blocks, outcomes, .. } = self;
        blocks.sync()?;
        drop(blocks);
        outcomes.map_or(Ok(()), |outcomes| outcomes.sync())?;
        let link_records = LinkRecords::open(&making.join("links"))?;
        links.iter().try_for_each(|link| link_records.add(link.clone()))?;
        let epoch_records = EpochRecords::open(&making.join("epochs"))?;
        epochs.iter().try_for_each(|epoch| epoch_records.add(epoch))?;
        let tip = {
            let (chain, writer) = Chain::open(&making, genesis_bytes, genesis.clone(), options)?;
            drop(writer);
            Writer::flush(&chain)?;
            chain.tip()
        };
        std::fs::rename(&making, &directory).map_err(ChainError::io("name the directory of the chain"))?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        durable::sync_directory(parent.unwrap_or(Path::new(".")))
            .map_err(ChainError::io("flush the data directory"))?;
        Ok(tip)
    }
}
