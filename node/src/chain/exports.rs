//! Snapshots of the state for nodes that join.
//!
//! At every height that is a multiple of the interval the state is written beside the commits, in ranges that each prove
//! themselves; the two newest are kept. What a joiner needs besides is small: where the log stands, and the outcomes of
//! the block. All of it is certified by the header of the next height, so a joiner trusts no sender.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use stele_merkle::log::Frontier;
use stele_state::{KeyRange, SnapshotReader, StateMap, TreeMap};
use stele_types::{Hash, Height, Outcome};
use tracing::{info, warn};

use super::{Chain, ChainError};
use crate::store::durable;

/// The snapshots of one chain.
pub(super) struct Exports {
    directory: PathBuf,
    /// Heights between snapshots; 0: none are written.
    interval: u64,
    open: Mutex<BTreeMap<u64, Arc<SnapshotReader>>>,
}

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state is the one after this height.
    pub height: Height,
    /// Its root.
    pub state_root: Hash,
    /// Its chunks are the 2^depth ranges of keys of that depth.
    pub depth: u8,
    /// Pairs in all.
    pub pairs: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What a joiner needs beside the state and the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standpoint {
    /// The log's right edge after the snapshot's height.
    pub log_frontier: Frontier,
    /// Outcomes of the block at that height.
    pub outcomes: Vec<Outcome>,
}

impl Exports {
    pub(super) fn open(directory: &Path, interval: u64) -> Result<Self, ChainError> {
        durable::create_directory(directory).map_err(ChainError::io("create the directory of snapshots"))?;
        for entry in std::fs::read_dir(directory).map_err(ChainError::io("list the snapshots"))? {
            let path = entry.map_err(ChainError::io("list the snapshots"))?.path();
            // What a crash left unfinished is as large as the state and has no use.
            if path.extension().is_some_and(|kind| kind == "tmp") {
                std::fs::remove_file(&path).map_err(ChainError::io("remove an unfinished snapshot"))?;
            }
        }
        Ok(Self { directory: directory.to_owned(), interval, open: Mutex::default() })
    }

    /// Begins a snapshot when it is time for one. What fails here is logged; the commit is unaffected.
    pub(super) fn begin(&self, state: &mut TreeMap, height: Height) {
        if self.interval == 0 || !height.0.is_multiple_of(self.interval) {
            return;
        }
        match state.export(&self.directory) {
            Ok(true) => info!(%height, "writing a snapshot for nodes that join"),
            Ok(false) => warn!(%height, "no snapshot: the one before is still being written"),
            Err(error) => warn!(%height, code = error.code(), %error, "no snapshot could be begun"),
        }
    }

    /// The sound snapshots by height.
    fn readers(&self) -> Result<BTreeMap<u64, Arc<SnapshotReader>>, ChainError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let files = SnapshotReader::files(&self.directory)?;
        open.retain(|height, _| files.iter().any(|(found, _)| found == height));
        for (height, path) in files {
            if open.contains_key(&height) {
                continue;
            }
            match SnapshotReader::open(&path) {
                Ok(reader) => {
                    open.insert(height, Arc::new(reader));
                }
                Err(error) => warn!(height, code = error.code(), %error, "a snapshot is damaged and not served"),
            }
        }
        Ok(open.clone())
    }
}

impl Chain {
    /// The snapshots that a joiner can have, newest first: those whose results a committed header certifies.
    ///
    /// # Errors
    /// Failure of a store.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, ChainError> {
        let (certified, oldest) = (self.certified(), self.history_min()?);
        let readers = self.exports.readers()?;
        let usable = readers.values().rev().map(|reader| Snapshot {
            height: Height(reader.height()),
            state_root: Hash(reader.root()),
            depth: reader.depth(),
            pairs: reader.pairs(),
            bytes: reader.size(),
        });
        Ok(usable.filter(|snapshot| snapshot.height <= certified && snapshot.height >= oldest).collect())
    }

    /// What goes with the snapshot of a height; none when there is no such snapshot.
    ///
    /// # Errors
    /// Failure of a store.
    pub fn standpoint(&self, height: Height) -> Result<Option<Standpoint>, ChainError> {
        if !self.snapshots()?.iter().any(|snapshot| snapshot.height == height) {
            return Ok(None);
        }
        let (Some(certified), Some(next)) = (self.block(height)?, self.block(height.next())?) else { return Ok(None) };
        let log_frontier = self.noticed(self.log.frontier(next.block.header.log_size).map_err(ChainError::from))?;
        let results = self.noticed(self.outcomes.block(height.0))?;
        let statements =
            certified.block.entries.iter().map(|entry| {
                stele_types::Statement::parse(entry.clone()).map_err(|code| ChainError::Statement { code })
            });
        let outcomes = statements
            .zip(results)
            .map(|(statement, (code, index))| Ok(Outcome { statement: statement?.id(), code, index }));
        Ok(Some(Standpoint { log_frontier, outcomes: outcomes.collect::<Result<_, ChainError>>()? }))
    }

    /// A chunk of the snapshot of a height, encoded; none when there is no such chunk.
    ///
    /// # Errors
    /// Damage of the snapshot.
    pub fn snapshot_chunk(&self, height: Height, index: u64) -> Result<Option<Vec<u8>>, ChainError> {
        let Some(reader) = self.exports.readers()?.remove(&height.0) else { return Ok(None) };
        let Some(range) = KeyRange::new(reader.depth(), index) else { return Ok(None) };
        Ok(reader.chunk(range)?.map(|chunk| chunk.encode()))
    }
}
