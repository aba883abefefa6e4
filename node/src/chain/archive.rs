//! Old blocks leave the directory of the chain, whole segments at a time, and come back from other nodes if the archive
//! loses them.

use std::sync::Arc;

use stele_types::{Block, BlockId, CommitCertificate, Hash, Height, cbor};
use stele_verify::certificate::{self, EpochCertificates};

use super::trust_path::named_epochs;
use super::{Chain, ChainError, Writer, tree};
use crate::store::blocks::{ArchivedSegment, BlockStore, SealedSegment};

/// Newest blocks that stay: what a start reads, whose derived stores are as they were flushed.
const NEWEST_KEPT: u64 = 4;

impl Chain {
    /// The oldest segment in the directory all blocks of which are from before `before_ms`, read and checked. The segment
    /// that takes appends is ended first, if it began before `ended_before_ms`, so that it gets old as a whole.
    ///
    /// # Errors
    /// Damage or failure of the block store.
    pub(crate) fn old_segment(
        &self,
        before_ms: u64,
        ended_before_ms: u64,
    ) -> Result<Option<SealedSegment>, ChainError> {
        // A segment that was just begun may have no block yet.
        if let Some(first) = self.blocks.newest_begins_at().filter(|first| *first <= self.tip().height.0)
            && self.time_of(first)? < ended_before_ms
        {
            self.blocks.roll()?;
        }
        let Some((first_height, last_height)) = self.blocks.oldest_sealed() else { return Ok(None) };
        if last_height + NEWEST_KEPT > self.tip().height.0 || self.time_of(last_height)? >= before_ms {
            return Ok(None);
        }
        Ok(Some(self.blocks.sealed(first_height)?))
    }

    /// Takes a segment out of the directory that is kept under `root` from now on. What is derived from its blocks is made
    /// durable first, so that no start needs them whose stores are sound: the archive may be lost then, and the node starts
    /// to fetch it from others.
    ///
    /// # Errors
    /// Failure of a store; the segment stays.
    pub(crate) fn archive(&self, segment: &SealedSegment, root: Hash) -> Result<(), ChainError> {
        Writer::flush(self)?;
        self.index.flush()?;
        Ok(self.blocks.archive(segment, root.0)?)
    }

    fn time_of(&self, height: u64) -> Result<u64, ChainError> {
        Ok(Block::header_from_bytes(self.blocks.read(height)?.block())?.time_ms)
    }

    /// The blocks, for who puts segments back into the directory.
    pub(crate) const fn block_store(&self) -> &Arc<BlockStore> {
        &self.blocks
    }

    /// The segments that have left the directory.
    pub(crate) fn archived(&self) -> Vec<ArchivedSegment> {
        self.blocks.archived()
    }

    /// Whether what another node gives is the block with this id, and a quorum for it; else what is wrong.
    ///
    /// # Errors
    /// Which part does not fit.
    pub(crate) fn check_block(
        &self,
        height: u64,
        id: &BlockId,
        block: &Block,
        certificate: &CommitCertificate,
    ) -> Result<(), &'static str> {
        let header = &block.header;
        let leaves = tree::leaf_hashes(block.entries.iter().map(|entry| &**entry));
        let parent_certificate = block.parent_certificate.as_ref().map(CommitCertificate::hash).unwrap_or_default();
        let parts = [
            ("the block", header.id() == *id && header.height.0 == height),
            ("its entries", Hash(tree::root_of(&leaves)) == header.statements_root),
            ("the certificate in it", parent_certificate == header.parent_certificate),
        ];
        if let Some((part, _)) = parts.iter().find(|(_, fits)| !fits) {
            return Err(part);
        }
        let named: Vec<_> =
            named_epochs(certificate, &[]).iter().filter_map(|hash| self.epoch_certificate(hash)).collect();
        let mut epochs = EpochCertificates::new(self.network, &named, &self.genesis.epoch_certificates);
        let validators = self.validators_at(Height(height));
        certificate::verify(self.network, header, certificate, &validators, &mut epochs).map_err(|_| "its certificate")
    }

    /// The bytes that a block and its certificate are stored as.
    pub(crate) fn stored_bytes(block: &Block, certificate: &CommitCertificate) -> (Vec<u8>, Vec<u8>) {
        (block.to_bytes(), cbor::to_vec(certificate))
    }
}
