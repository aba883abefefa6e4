//! Old blocks that the store of this node has lost: made again from those of other nodes.
//!
//! Which block each height must have was kept when its segment was archived, so no node is believed: only its certificate
//! of the block is its own, and that is verified.

use futures::{StreamExt as _, stream};
use stele_types::{BlockId, Hash, Height};
use tracing::{info, warn};

use super::{Custody, CustodyError, foreign};
use crate::chain::Chain;
use crate::payload::PayloadError;
use crate::store::blocks::{ArchivedSegment, BlockStoreError};

/// Blocks that are fetched at a time.
const BLOCKS_AT_A_TIME: usize = 8;

impl Custody {
    /// Makes segments again, in the directory of the chain, that are archived and not in the store any more; how many blocks
    /// came back.
    ///
    /// # Errors
    /// When no node gives a block that is needed: its segment is as before then.
    pub async fn rebuild_blocks(&self) -> Result<u64, CustodyError> {
        let mut rebuilt = 0;
        for segment in self.chain.archived() {
            if !self.payload.store().has(&segment.root)? {
                rebuilt += self.rebuild_segment(&segment).await?;
            }
        }
        Ok(rebuilt)
    }

    /// Makes the segment again that is archived under a root, if there is one and it cannot be read; whether there is one.
    ///
    /// # Errors
    /// As [`Custody::rebuild_blocks`].
    pub(super) async fn mend_blocks(&self, root: &Hash) -> Result<bool, CustodyError> {
        let found = self.chain.archived().into_iter().find(|segment| segment.root == root.0);
        let Some(segment) = found else { return Ok(false) };
        if !self.payload.segment_is_whole(root).await? {
            self.rebuild_segment(&segment).await?;
        }
        Ok(true)
    }

    async fn rebuild_segment(&self, segment: &ArchivedSegment) -> Result<u64, CustodyError> {
        let ArchivedSegment { first_height, blocks, .. } = *segment;
        warn!(first_height, blocks, "archived blocks are lost: other nodes are asked for them");
        let failed = |error: BlockStoreError| PayloadError::blocks(format!("{}: {error}", error.code()));
        let mut rebuild = self.chain.block_store().rebuild(first_height).map_err(failed)?;
        let wanted: Vec<_> = rebuild.wanted().collect();
        let fetched = stream::iter(wanted).map(|(height, id)| self.fetch_block(height, BlockId(id)));
        let mut fetched = std::pin::pin!(fetched.buffered(BLOCKS_AT_A_TIME));
        while let Some(block) = fetched.next().await {
            let (block, certificate) = block?;
            rebuild.add(&block, &certificate).map_err(failed)?;
        }
        rebuild.finish().map_err(failed)?;
        info!(first_height, blocks, "archived blocks were made again");
        Ok(blocks)
    }

    /// A block and a certificate for it, as they are stored, from any node that has it.
    async fn fetch_block(&self, height: u64, id: BlockId) -> Result<(Vec<u8>, Vec<u8>), CustodyError> {
        let mut failure = CustodyError::Nobody;
        for keeper in self.keepers.all() {
            let given = match keeper.heard(keeper.client.block(Height(height)).await) {
                Ok(given) => given,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            match self.chain.check_block(height, &id, &given.block, &given.certificate) {
                Ok(()) => return Ok(Chain::stored_bytes(&given.block, &given.certificate)),
                Err(part) => {
                    warn!(height, keeper = keeper.name, part, "a node gave another block");
                    failure = foreign(keeper, "another block than the one of that height");
                }
            }
        }
        Err(failure)
    }
}
