//! Which objects have lost something that parity cannot make again.
//!
//! A scrub tells how many batches of a segment are beyond repair, and not what that costs: much of such a batch can still be
//! read, and a part of an object says of its object only which upload it is of. From there the record at the upload's end
//! leads to the object, and the object's manifest to all its parts, of which those are read that lie in the segment.

use std::collections::BTreeSet;

use stele_accel_hash::Digest;

use crate::format::Kind;
use crate::index::Key;
use crate::object::upload_key;
use crate::{StorageError, Store};

/// What a segment has lost.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The segment that was looked at, if there is one.
    pub segment: Option<u32>,
    /// Roots of objects of which something lies in it that cannot be read.
    pub roots: Vec<Digest>,
    /// Directories and ends of uploads that cannot be read, either: what they lead to is missing here.
    pub unknown: u64,
    /// The segment to go on with, if there is one.
    pub next: Option<u32>,
}

impl Store {
    /// Looks for objects that have lost something in the first segment from `from` on. Everything is read that lies there, so
    /// this is for segments of which a scrub says that something is lost.
    ///
    /// # Errors
    /// `Index`, `Busy`, `Stopped`.
    pub async fn losses(&self, from: u32) -> Result<Losses, StorageError> {
        let listing = self.list(from, 1).await?;
        let mut losses =
            Losses { segment: listing.segment, unknown: listing.unreadable, next: listing.next, ..Losses::default() };
        let Some(segment) = listing.segment else { return Ok(losses) };
        let mut roots: BTreeSet<Key> = listing.roots.into_iter().map(|(root, _)| root).collect();
        for upload in listing.uploads {
            match self.record(&upload_key(&upload)).await {
                Ok((Kind::Upload, end)) => roots.extend(end.first_chunk::<32>()),
                // It is still going on, or has come to nothing.
                Ok(_) | Err(StorageError::NotFound) => {}
                Err(error) if is_loss(&error) => losses.unknown += 1,
                Err(error) => return Err(error),
            }
        }
        for root in roots {
            if self.has_lost(&root, segment).await? {
                losses.roots.push(root);
            }
        }
        Ok(losses)
    }

    /// Whether an object's own record, or one of its parts that lie in a segment, cannot be read.
    async fn has_lost(&self, root: &Digest, segment: u32) -> Result<bool, StorageError> {
        let keys = match self.part_keys(root).await {
            Ok(Some(keys)) => keys,
            Ok(None) => return lost(self.record(root).await.map(drop)),
            // It was removed meanwhile.
            Err(StorageError::NotFound) => return Ok(false),
            Err(error) => return lost(Err(error)),
        };
        for key in keys {
            let here = self.locate(&key).map(|location| location.segment == segment);
            let read = match here {
                Ok(true) => self.record(&key).await.map(drop),
                Ok(false) => Ok(()),
                // So it is gone, unless the whole object is: then nobody needs it.
                Err(StorageError::NotFound) => return self.has(root),
                Err(error) => Err(error),
            };
            if lost(read)? {
                return self.has(root);
            }
        }
        Ok(false)
    }
}

/// Whether something was read, or is lost. What the cold tier alone has and does not give now is not lost.
fn lost(read: Result<(), StorageError>) -> Result<bool, StorageError> {
    match read {
        Ok(()) | Err(StorageError::NotFound | StorageError::Cold { .. }) => Ok(false),
        Err(error) if is_loss(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

const fn is_loss(error: &StorageError) -> bool {
    matches!(error, StorageError::Damaged { .. } | StorageError::WrongContent)
}
