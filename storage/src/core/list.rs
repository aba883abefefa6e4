//! What is stored: the roots of objects, segment by segment.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::Inner;
use super::recover::FoundBatch;
use super::segment::Segment;
use crate::format::{DIRECTORY_ENTRY_BYTES, Entry, Kind, Stage};
use crate::index::Key;
use crate::object::upload_of;
use crate::{Group, StorageError};

/// Segments that are looked at before others have their turn.
const SEGMENTS_AT_ONCE: usize = 4096;

/// The objects of some segments.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Roots of objects whose record, or manifest, lies in them and is the one that the index leads to; and their groups.
    pub roots: Vec<(Key, Group)>,
    /// Directories that could not be read, and segments that could not be followed to their end: what they list is missing
    /// here.
    pub unreadable: u64,
    /// Uploads of which parts lie in them.
    pub(crate) uploads: BTreeSet<[u8; 16]>,
    /// The first segment that was looked at, if there is one.
    pub segment: Option<u32>,
    /// The segment to go on with, if there is one.
    pub next: Option<u32>,
}

impl Inner {
    /// The group of an object, wherever it is.
    pub(super) fn group(&self, key: &Key) -> Result<Group, StorageError> {
        let location = self.find(key)?.ok_or(StorageError::NotFound)?;
        self.group_of(location.segment).ok_or(StorageError::NotFound)
    }

    /// The group of a segment, on the drives or in the cold tier.
    pub(super) fn group_of(&self, segment: u32) -> Option<Group> {
        let local = self.segments.borrow().all.get(&segment).map(|segment| segment.group);
        local.or_else(|| self.cold.borrow().get(&segment).map(|segment| segment.group))
    }

    /// The first segments from `from` on of groups of some years, `segments_max` at most.
    async fn segments_of(&self, mut from: u32, segments_max: usize, years: &RangeInclusive<u16>) -> Vec<u32> {
        let mut found = Vec::new();
        loop {
            let mut last = None;
            for (at, (id, segment)) in self.segments.borrow().all.range(from..).take(SEGMENTS_AT_ONCE).enumerate() {
                if years.contains(&segment.group.year) {
                    found.push(*id);
                }
                if found.len() == segments_max {
                    return found;
                }
                last = (at + 1 == SEGMENTS_AT_ONCE).then_some(*id);
            }
            let Some(next) = last.and_then(|last| last.checked_add(1)) else { return found };
            from = next;
            self.tasks.pause().await;
        }
    }

    /// Lists the objects of `segments_max` segments from `from` on, of groups of some years; of a segment that is written to,
    /// what is durable by now.
    pub(super) async fn list(&self, from: u32, segments_max: usize, years: RangeInclusive<u16>) -> Listing {
        let mut listing = Listing::default();
        let mut ids = self.segments_of(from, segments_max.saturating_add(1), &years).await;
        listing.segment = ids.first().copied();
        listing.next = (ids.len() > segments_max).then(|| ids.pop()).flatten();
        for id in ids {
            let found: Option<Segment> = self.segments.borrow().all.get(&id).cloned();
            let Some(segment) = found else { continue };
            let stage = Stage::Sealed { blocks: segment.used, sequence: segment.sequence };
            // Of a batch on its way nothing is in the index.
            let durable = |batch: &FoundBatch| batch.header.batch < segment.durable;
            let batches = self.walk(id, stage).await;
            // Behind a batch whose headers are all damaged nothing is found.
            let end = batches.last().map_or(1, FoundBatch::end);
            // One that was given up, or moved to another drive, meanwhile says nothing.
            let is_as_before = |now: &Segment| !now.leaving && now.columns == segment.columns;
            let stayed = self.segments.borrow().all.get(&id).is_some_and(is_as_before);
            listing.unreadable += u64::from(segment.is_settled() && end < segment.used && stayed);
            for batch in batches.into_iter().filter(durable) {
                for (column, directory) in batch.header.directories.iter().enumerate() {
                    if directory.entries == 0 {
                        continue;
                    }
                    let Ok(bytes) = self.directory(id, &batch, column, directory).await else {
                        listing.unreadable += 1;
                        continue;
                    };
                    for entry in bytes.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode) {
                        if matches!(entry.kind, Kind::Part | Kind::Upload) {
                            listing.uploads.insert(*upload_of(&entry.key));
                        }
                        let is_object = matches!(entry.kind, Kind::Whole | Kind::Manifest);
                        let location = entry.location(id, batch.start, column);
                        if is_object && self.find(&entry.key).is_ok_and(|known| known == Some(location)) {
                            listing.roots.push((entry.key, segment.group));
                        }
                    }
                }
            }
        }
        listing
    }
}
