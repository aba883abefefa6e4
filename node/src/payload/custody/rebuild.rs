//! Making the store of a node again from the copies that others keep.

use stele_hsm::custody::{CustodyPublicKey, SealedClassKey};
use stele_types::{Hash, Height};
use tracing::{info, warn};

use super::keepers::Keeper;
use super::{BLOCKS_MAX, Custody, CustodyError, foreign};
use crate::payload::unreferenced::Holder;

/// Passes over the lists of the other nodes: what could not be read in one, or was moved meanwhile, comes in the next.
const PASSES_MAX: usize = 3;

/// What was brought back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Bodies.
    pub bodies: u64,
    /// Bodies that a node listed and that could not be had, in the last pass.
    pub failed: u64,
}

impl Custody {
    /// Brings back what this node should have: the bodies that came to it, and the copies that others first ask it for.
    /// What is here already stays.
    ///
    /// # Errors
    /// When a node does not answer, or what it says is wrong: what it alone has is missing then.
    pub async fn rebuild(&self, mut progress: impl FnMut(Rebuilt)) -> Result<Rebuilt, CustodyError> {
        let mut rebuilt = Rebuilt::default();
        let mut failure = None;
        for _ in 0..PASSES_MAX {
            (rebuilt.failed, failure) = (0, None);
            for keeper in self.keepers.all() {
                if let Err(error) = self.rebuild_from(keeper, &mut rebuilt, &mut progress).await {
                    warn!(code = error.code(), %error, keeper = keeper.name, "not all could be brought back from a node");
                    failure = Some(error);
                }
            }
            if rebuilt.failed == 0 {
                break;
            }
        }
        info!(bodies = rebuilt.bodies, failed = rebuilt.failed, "the store was made again from copies");
        failure.map_or(Ok(rebuilt), Err)
    }

    async fn rebuild_from(
        &self,
        keeper: &Keeper,
        rebuilt: &mut Rebuilt,
        progress: &mut impl FnMut(Rebuilt),
    ) -> Result<(), CustodyError> {
        let keys = self.class_keys_of(keeper).await?;
        for origin in [*self.own(), keeper.custody_key] {
            let mut from = Some((0, 0));
            while let Some((segment, skip)) = from {
                let page = keeper.heard(keeper.client.kept_bodies(&hex::encode(origin), segment, skip).await)?;
                if page.unreadable > 0 {
                    warn!(
                        unreadable = page.unreadable,
                        keeper = keeper.name,
                        "a node cannot read some of what it keeps"
                    );
                }
                rebuilt.failed += page.unreadable;
                for body in page.bodies {
                    let root = Hash::from_hex(&body.root).ok_or_else(|| foreign(keeper, "a malformed root"))?;
                    if !self.belongs_here(&origin, &root) || self.payload.store().has(&root.0)? {
                        continue;
                    }
                    let waits = body.unreferenced.then_some(Height(page.height));
                    match self.bring_back(keeper, root, body.retention_year, waits, &keys).await {
                        Ok(()) => rebuilt.bodies += 1,
                        Err(error) => {
                            warn!(code = error.code(), %error, %root, keeper = keeper.name, "a body is not brought back");
                            rebuilt.failed += 1;
                        }
                    }
                    progress(*rebuilt);
                }
                // A list that does not go on would never end.
                let next = page.next.map(|next| (next, page.skip));
                from = next.filter(|next| *next > (segment, skip));
            }
        }
        Ok(())
    }

    fn belongs_here(&self, origin: &CustodyPublicKey, root: &Hash) -> bool {
        origin == self.own() || self.keepers.is_first_for(origin, root)
    }

    async fn bring_back(
        &self,
        keeper: &Keeper,
        root: Hash,
        year: u16,
        waits: Option<Height>,
        keys: &[(SealedClassKey, CustodyPublicKey)],
    ) -> Result<(), CustodyError> {
        let _under_way = self.begin(root)?;
        let looked_at = self.payload.unreferenced.height();
        let waits = waits.filter(|height| looked_at.0.saturating_sub(height.0) <= BLOCKS_MAX);
        if let Some(height) = waits {
            let holder = Holder::node(&keeper.custody_key);
            self.payload.unreferenced.put(root, holder, self.payload.now_ms(), false).await?;
            // What this node has looked at beyond that may refer to it.
            self.payload.unreferenced.look_again(height);
        }
        let pulled = self.pull(keeper, root, None, year).await;
        if waits.is_some() && pulled.is_err() {
            self.payload.unreferenced.settle(root);
        }
        // A body whose key this node does not bring stays all the same: another may have it.
        self.learn(keeper, root, &pulled?, keys).await
    }
}
