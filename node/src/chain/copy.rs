//! The chain in a node's directory, read by another process while the node may run: nothing is locked or written.
//!
//! Blocks are only ever appended, outcomes of a height never change, snapshots get their names when they are complete. So
//! whatever is read is what the node would read; what comes later is not seen.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stele_merkle::log::Frontier;
use stele_state::SnapshotReader;
use stele_types::{ChainLink, EpochCertificate, NetworkId};

use super::open::{BLOCKS, check_network};
use super::outcomes::{OutcomeStore, Result16};
use super::{ChainError, records};
use crate::store::blocks::{BlockReader, Blocks, SegmentArchive, StoredBlock};
use crate::store::log;

/// Looks for snapshots, which the node removes when newer ones are there.
const LOOKS_MAX: usize = 5;

/// A chain's directory.
pub(crate) struct ChainFiles {
    directory: PathBuf,
    blocks: BlockReader,
    outcomes: OutcomeStore,
}

/// A block with what it led to.
pub(crate) struct CopiedBlock {
    pub(crate) stored: StoredBlock,
    /// Code and leaf of each of its statements.
    pub(crate) outcomes: Vec<Result16>,
}

impl ChainFiles {
    /// What has left the directory is read from `archive`.
    ///
    /// # Errors
    /// `foreign_data`; `store_io` also where there is no chain.
    pub(crate) fn open(
        directory: &Path,
        network: NetworkId,
        archive: Option<Arc<dyn SegmentArchive>>,
    ) -> Result<Self, ChainError> {
        check_network(directory, network)?;
        Ok(Self {
            directory: directory.to_owned(),
            blocks: BlockReader::open(&directory.join(BLOCKS), archive)?,
            outcomes: OutcomeStore::open_to_read(&directory.join("outcomes"))?,
        })
    }

    /// Height of the oldest block.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.blocks.min()
    }

    /// Height of the newest block whose outcomes are there.
    ///
    /// # Errors
    /// Failure of a store.
    pub(crate) fn newest(&self) -> Result<u64, ChainError> {
        self.outcomes.written()
    }

    /// Where the log begins, for a chain that begins at a snapshot.
    ///
    /// # Errors
    /// Failure of the log.
    pub(crate) fn base(&self) -> Result<Option<Frontier>, ChainError> {
        Ok(log::base(&self.directory.join("log"))?)
    }

    /// Blocks from `from` on whose outcomes are there, too.
    ///
    /// # Errors
    /// Failure of a store.
    pub(crate) fn blocks(&self, from: u64) -> Result<CopiedBlocks<'_>, ChainError> {
        let until = self.outcomes.written()?;
        Ok(CopiedBlocks { blocks: self.blocks.blocks(from), outcomes: &self.outcomes, until })
    }

    /// Changes of validators, and epoch certificates.
    ///
    /// # Errors
    /// Failure of a store.
    pub(crate) fn trust(&self) -> Result<(Vec<ChainLink>, Vec<EpochCertificate>), ChainError> {
        Ok((records::links(&self.directory.join("links"))?, records::epochs(&self.directory.join("epochs"))?))
    }

    /// The newest snapshot of the state at a height from `oldest` to `newest` that opens, and its file; an open one stays
    /// readable when the node removes it.
    ///
    /// # Errors
    /// Failure of the state's directories.
    pub(crate) fn snapshot(&self, oldest: u64, newest: u64) -> Result<Option<(SnapshotReader, File)>, ChainError> {
        for _ in 0..LOOKS_MAX {
            let mut files = Vec::new();
            for directory in ["snapshots", "state"].map(|name| self.directory.join(name)) {
                if directory.is_dir() {
                    files.extend(SnapshotReader::files(&directory)?);
                }
            }
            files.retain(|(height, _)| (oldest..=newest).contains(height));
            files.sort_by_key(|(height, _)| std::cmp::Reverse(*height));
            let found = !files.is_empty();
            let open = |(height, path): (u64, PathBuf)| {
                let opened = SnapshotReader::open(&path).map(|reader| Some((reader, File::open(&path).ok()?)));
                let passed = |error: &stele_state::StateError| {
                    tracing::warn!(height, code = error.code(), %error, "a snapshot is passed over");
                };
                opened.inspect_err(passed).ok().flatten()
            };
            let opened = files.into_iter().find_map(open);
            if opened.is_some() || !found {
                return Ok(opened);
            }
        }
        Ok(None)
    }
}

/// See [`ChainFiles::blocks`].
pub(crate) struct CopiedBlocks<'c> {
    blocks: Blocks,
    outcomes: &'c OutcomeStore,
    until: u64,
}

impl Iterator for CopiedBlocks<'_> {
    type Item = Result<CopiedBlock, ChainError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = match self.blocks.next()? {
            Ok(stored) if stored.height() > self.until => return None,
            Ok(stored) => stored,
            Err(error) => return Some(Err(error.into())),
        };
        let outcomes = self.outcomes.block(stored.height());
        Some(outcomes.map(|outcomes| CopiedBlock { stored, outcomes }))
    }
}
