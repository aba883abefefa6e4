//! Beginning a chain at a snapshot instead of at genesis.

use std::path::{Path, PathBuf};

use stele_merkle::log::Frontier;
use stele_merkle::state::StateHash;
use stele_state::SnapshotBuilder;
use stele_types::exchange::CertifiedHeader;
use stele_types::record::ContentHash;
use stele_types::{Block, CommitCertificate, Genesis, Height, Outcome, cbor};

use super::open::mark_network;
use super::outcomes::OutcomeStore;
use super::records::{EpochRecords, LinkRecords};
use super::{ChainError, tree};
use crate::store::blocks::{BlockStore, BlockStoreOptions};
use crate::store::durable;
use crate::store::log::LogStore;

/// What a chain begins with that stands at a height without having executed what lies below.
///
/// Whoever makes one has verified `certifying`; everything else is checked against its header here.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The header after the snapshot's height, which certifies the results there, with the way to it from genesis.
    pub certifying: CertifiedHeader,
    /// The block at the snapshot's height.
    pub block: Block,
    /// The block of `certifying`.
    pub next: Block,
    /// The log's right edge after the snapshot's height.
    pub log_frontier: Frontier,
    /// Outcomes of `block`.
    pub outcomes: Vec<Outcome>,
}

/// Why a standing is refused: which part does not fit the certified header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} does not fit the certified header")]
pub struct Unfit(pub &'static str);

impl Standing {
    /// Height of the snapshot.
    pub fn height(&self) -> Height {
        self.block.header.height
    }

    /// Compares every part with the certified header.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn check(&self) -> Result<(), Unfit> {
        let header = &self.certifying.header;
        let outcomes: Vec<Vec<u8>> = self.outcomes.iter().map(Outcome::to_bytes).collect();
        let outcomes_root = tree::root_of(&tree::leaf_hashes(outcomes.iter().map(Vec::as_slice)));
        let entries = tree::leaf_hashes(self.block.entries.iter().map(|entry| &**entry));
        let parent = self.parent_certificate();
        let parts = [
            ("next block", self.next.header == *header),
            ("block", self.block.header.id() == header.parent && self.height().next() == header.height),
            ("entries of the block", tree::root_of(&entries) == self.block.header.statements_root.0),
            ("block's certificate", parent.is_some_and(|parent| parent.hash() == header.parent_certificate)),
            ("log's frontier", self.log_frontier.root() == header.log_root.0),
            ("log's size", self.log_frontier.size() == header.log_size),
            ("outcomes", outcomes_root == header.outcomes_root.0 && outcomes.len() == self.block.entries.len()),
        ];
        parts.iter().find(|(_, fits)| !fits).map_or(Ok(()), |(part, _)| Err(Unfit(part)))
    }

    fn parent_certificate(&self) -> Option<&CommitCertificate> {
        self.next.parent_certificate.as_ref()
    }
}

/// A chain directory in the making. It becomes one by [`Adoption::finish`] or not at all.
pub struct Adoption {
    directory: PathBuf,
    making: PathBuf,
}

impl Adoption {
    /// Begins beside a chain directory that does not exist yet; what an interrupted one left is removed.
    ///
    /// # Errors
    /// [`ChainError::NotEmpty`], [`ChainError::Io`].
    pub fn begin(directory: &Path) -> Result<Self, ChainError> {
        if directory.exists() {
            return Err(ChainError::NotEmpty { path: directory.to_owned() });
        }
        let making = directory.with_extension("joining");
        match std::fs::remove_dir_all(&making) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ChainError::io("remove what an interrupted join left")(error));
            }
            _ => {}
        }
        durable::create_directory(&making).map_err(ChainError::io("create the directory of a chain"))?;
        Ok(Self { directory: directory.to_owned(), making })
    }

    /// The state, to be filled with the chunks of a snapshot.
    ///
    /// # Errors
    /// Those of [`SnapshotBuilder::create`].
    pub fn state(&self, genesis: &Genesis, standing: &Standing, depth: u8) -> Result<SnapshotBuilder, ChainError> {
        let root = standing.certifying.header.state_root.0;
        let height = standing.height().0;
        Ok(SnapshotBuilder::create(&self.making.join("state"), state_hash(genesis), height, root, depth)?)
    }

    /// Writes everything but the state, which is complete, and gives the directory its name.
    ///
    /// # Errors
    /// Failure of a store.
    pub fn finish(self, genesis: &Genesis, standing: &Standing) -> Result<(), ChainError> {
        let Self { directory, making } = self;
        let height = standing.height().0;
        let header = &standing.certifying.header;
        mark_network(&making, genesis.network())?;
        let missing = ChainError::Damaged { store: "certificates", height };
        let parent = standing.parent_certificate().ok_or(missing)?;
        {
            let blocks = BlockStore::open(&making.join("blocks"), BlockStoreOptions::default())?;
            let id = standing.block.header.id();
            blocks.append(height, &id.0, &standing.block.to_bytes(), &cbor::to_vec(parent))?;
            let certificate = cbor::to_vec(&standing.certifying.certificate);
            blocks.append(height + 1, &header.id().0, &standing.next.to_bytes(), &certificate)?;
        }
        OutcomeStore::adopt(&making.join("outcomes"), height, &standing.outcomes, header.log_size)?;
        LogStore::adopt(&making.join("log"), &standing.log_frontier)?;
        let links = LinkRecords::open(&making.join("links"))?;
        for link in standing.certifying.chain.iter() {
            links.add(link.clone())?;
        }
        let epochs = EpochRecords::open(&making.join("epochs"))?;
        for certificate in standing.certifying.epoch_certificates.iter() {
            epochs.add(certificate)?;
        }
        std::fs::rename(&making, &directory).map_err(ChainError::io("name the directory of the chain"))?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        durable::sync_directory(parent.unwrap_or(Path::new("."))).map_err(ChainError::io("flush the data directory"))
    }
}

/// The hash function of a network's state.
pub(super) const fn state_hash(genesis: &Genesis) -> StateHash {
    match genesis.parameters.state_hash {
        ContentHash::Sha256 => StateHash::Sha256,
        ContentHash::Sm3 => StateHash::Sm3,
    }
}
