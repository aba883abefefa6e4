//! Height → segment, offset and lengths, flat in RAM.

use std::sync::Arc;

use super::segment::{Extent, Place, Segment};

/// 16 bytes a height.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Number of the segment.
    segment: u32,
    extent: Extent,
}

/// The index of a store: gap-free heights from `first_height`.
#[derive(Debug, Default)]
pub(super) struct Heights {
    first_height: u64,
    slots: Vec<Slot>,
    segments: Vec<Arc<Segment>>,
}

impl Heights {
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        if self.slots.is_empty() {
            self.first_height = segment.first_height;
        }
        self.segments.push(segment);
    }

    /// Adds the next height, which lies in the newest segment.
    pub(super) fn push(&mut self, extent: Extent) {
        let newest = u32::try_from(self.segments.len()).expect("fewer segments than 2^32") - 1;
        self.slots.push(Slot { segment: newest, extent });
    }

    pub(super) fn min(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first_height)
    }

    pub(super) fn tip(&self) -> Option<u64> {
        Some(self.min()? + self.slots.len() as u64 - 1)
    }

    pub(super) fn find(&self, height: u64) -> Option<(Arc<Segment>, Extent)> {
        let slot = self.slots.get(usize::try_from(height.checked_sub(self.first_height)?).ok()?)?;
        let segment = &self.segments[slot.segment as usize];
        Some((Arc::clone(segment), slot.extent))
    }

    /// Extents of the newest segment, in order of height.
    pub(super) fn newest_extents(&self) -> Vec<Extent> {
        let newest = self.segments.last().and_then(|newest| self.segment(newest.first_height));
        newest.map(|(_, extents)| extents).unwrap_or_default()
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Segments in order of height.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter()
    }

    pub(super) fn archived_count(&self) -> usize {
        self.segments.iter().filter(|segment| segment.place != Place::File).count()
    }

    /// The segment that begins at a height, and its extents in order of height.
    pub(super) fn segment(&self, first_height: u64) -> Option<(Arc<Segment>, Vec<Extent>)> {
        let at = self.segments.binary_search_by_key(&first_height, |segment| segment.first_height).ok()?;
        let until = self.segments.get(at + 1).map_or(self.tip()? + 1, |next| next.first_height);
        let slot = |height: u64| usize::try_from(height - self.first_height).expect("slots fit in memory");
        let extents = self.slots[slot(first_height)..slot(until)].iter().map(|slot| slot.extent).collect();
        Some((Arc::clone(&self.segments[at]), extents))
    }

    /// Puts a segment with the same heights in the place of one.
    pub(super) fn exchange(&mut self, segment: Arc<Segment>, extents: &[Extent]) {
        let found = self.segments.binary_search_by_key(&segment.first_height, |segment| segment.first_height);
        let at = found.expect("it is in the place of one");
        let from = usize::try_from(segment.first_height - self.first_height).expect("slots fit in memory");
        for (slot, extent) in self.slots[from..from + extents.len()].iter_mut().zip(extents) {
            slot.extent = *extent;
        }
        self.segments[at] = segment;
    }
}
