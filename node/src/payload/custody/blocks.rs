//! Old blocks that the store of this node has lost: made again from those of other nodes.
//!
//! Which block each height must have was kept when its segment was archived, so no node is believed: only its certificate
//! of the block is its own, and that is verified.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt as _, stream};
use stele_types::{BlockId, Hash, Height};
use tracing::{info, warn};

use super::{Custody, CustodyError, foreign};
use crate::chain::Chain;
use crate::payload::PayloadError;
use crate::store::blocks::{ArchivedSegment, BlockStoreError, SegmentRebuild};

/// Blocks that are fetched at a time.
const BLOCKS_AT_A_TIME: usize = 8;

impl Custody {
    /// Makes segments again, in the directory of the chain, that are archived and cannot be opened in the store any more;
    /// `progress` is told how many blocks came back.
    ///
    /// # Errors
    /// When no node gives a block that is needed: its segment is as before then, and the others are made all the same.
    pub async fn rebuild_blocks(&self, mut progress: impl FnMut(u64)) -> Result<(), CustodyError> {
        if self.payload.takes_back() {
            return Err(PayloadError::blocks("what the cold tier has of a lost store is still being taken back").into());
        }
        let (mut rebuilt, mut failure) = (0, None);
        for segment in self.chain.archived() {
            let made = async {
                match self.payload.segment_opens(&Hash(segment.root)).await? {
                    true => Ok(0),
                    false => self.rebuild_segment(&segment).await,
                }
            };
            match made.await {
                Ok(blocks) => rebuilt += blocks,
                Err(error) => {
                    warn!(code = error.code(), %error, first_height = segment.first_height, "lost blocks are not made again");
                    failure = Some(error);
                }
            }
            progress(rebuilt);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Makes the segment again that is archived under a root, if there is one and it cannot be read; whether there is one.
    ///
    /// # Errors
    /// As [`Custody::rebuild_blocks`].
    pub(super) async fn mend_blocks(&self, root: &Hash) -> Result<bool, CustodyError> {
        let found = self.chain.archived().into_iter().find(|segment| segment.root == root.0);
        let Some(segment) = found else { return Ok(false) };
        if !self.payload.takes_back() && !self.payload.segment_is_whole(root).await? {
            self.rebuild_segment(&segment).await?;
        }
        Ok(true)
    }

    async fn rebuild_segment(&self, segment: &ArchivedSegment) -> Result<u64, CustodyError> {
        let ArchivedSegment { first_height, blocks, root } = *segment;
        // A scrub and an operator's job may find the same.
        let _under_way = self.begin(Hash(root))?;
        if !self.chain.archived().contains(segment) {
            return Ok(0);
        }
        warn!(first_height, blocks, "archived blocks are lost: other nodes are asked for them");
        let mut rebuild = self.chain.block_store().rebuild(first_height).map_err(failed)?;
        let (wanted, first_asked) = (rebuild.wanted().collect::<Vec<_>>(), AtomicUsize::new(0));
        let fetched = stream::iter(wanted).map(|(height, id)| self.fetch_block(height, BlockId(id), &first_asked));
        let mut fetched = std::pin::pin!(fetched.buffered(BLOCKS_AT_A_TIME));
        while let Some(block) = fetched.next().await {
            let (block, certificate) = block?;
            tokio::task::block_in_place(|| rebuild.add(&block, &certificate)).map_err(failed)?;
        }
        tokio::task::block_in_place(|| SegmentRebuild::finish(rebuild)).map_err(failed)?;
        // What is left of it in the store is of no use, and would be found damaged again.
        if self.payload.store().has(&root)? {
            self.payload.store().remove(&root, self.payload.now_ms()).await?;
        }
        info!(first_height, blocks, "archived blocks were made again");
        Ok(blocks)
    }

    /// A block and a certificate for it, as they are stored, from any node that has it. Who gave one is asked first for the
    /// next, and who does not answer is left alone for a while.
    async fn fetch_block(
        &self,
        height: u64,
        id: BlockId,
        first_asked: &AtomicUsize,
    ) -> Result<(Vec<u8>, Vec<u8>), CustodyError> {
        let mut failure = CustodyError::Nobody;
        let keepers = self.keepers.all();
        let begin = first_asked.load(Ordering::Relaxed);
        let (awake, resting): (Vec<usize>, Vec<usize>) =
            (0..keepers.len()).map(|turn| (begin + turn) % keepers.len()).partition(|keeper| !keepers[*keeper].rests());
        for number in awake.into_iter().chain(resting) {
            let keeper = &keepers[number];
            let given = match keeper.heard(keeper.client.block(Height(height)).await) {
                Ok(given) => given,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let check = || self.chain.check_block(height, &id, &given.block, &given.certificate);
            match tokio::task::block_in_place(check) {
                Ok(()) => {
                    first_asked.store(number, Ordering::Relaxed);
                    return Ok(Chain::stored_bytes(&given.block, &given.certificate));
                }
                Err(part) => {
                    warn!(height, keeper = keeper.name, part, "a node gave another block");
                    failure = foreign(keeper, "another block than the one of that height");
                }
            }
        }
        Err(failure)
    }
}

fn failed(error: BlockStoreError) -> PayloadError {
    PayloadError::blocks(format!("{}: {error}", error.code()))
}
