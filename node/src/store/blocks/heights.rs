//! Height → segment, offset and lengths, flat in RAM.

use std::collections::VecDeque;
use std::sync::Arc;

use super::segment::{Extent, Segment};

/// 16 bytes a height.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Segments ever added before this one; survives pruning.
    ordinal: u32,
    extent: Extent,
}

/// The index of a store: gap-free heights from `first_height`.
#[derive(Debug, Default)]
pub(super) struct Heights {
    first_height: u64,
    slots: VecDeque<Slot>,
    first_ordinal: u32,
    segments: VecDeque<Arc<Segment>>,
}

impl Heights {
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        if self.slots.is_empty() {
            self.first_height = segment.first_height;
        }
        self.segments.push_back(segment);
    }

    /// Adds the next height, which lies in the newest segment.
    pub(super) fn push(&mut self, extent: Extent) {
        let newest = u32::try_from(self.segments.len()).expect("fewer segments than 2^32") - 1;
        self.slots.push_back(Slot { ordinal: self.first_ordinal + newest, extent });
    }

    pub(super) fn min(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first_height)
    }

    pub(super) fn tip(&self) -> Option<u64> {
        Some(self.min()? + self.slots.len() as u64 - 1)
    }

    pub(super) fn find(&self, height: u64) -> Option<(Arc<Segment>, Extent)> {
        let slot = self.slots.get(usize::try_from(height.checked_sub(self.first_height)?).ok()?)?;
        let segment = &self.segments[(slot.ordinal - self.first_ordinal) as usize];
        Some((Arc::clone(segment), slot.extent))
    }

    /// Extents of the newest segment, in order of height.
    pub(super) fn newest_extents(&self) -> Vec<Extent> {
        let Some(newest) = self.segments.back() else { return Vec::new() };
        let skipped = usize::try_from(newest.first_height - self.first_height).expect("slots fit in memory");
        self.slots.range(skipped..).map(|slot| slot.extent).collect()
    }

    /// Removes the oldest segment if another follows it and all its heights are below `height`.
    pub(super) fn pop_segment_before(&mut self, height: u64) -> Option<Arc<Segment>> {
        let next = self.segments.get(1)?;
        if next.first_height > height {
            return None;
        }
        let dropped = usize::try_from(next.first_height - self.first_height).expect("slots fit in memory");
        self.slots.drain(..dropped);
        self.first_height = next.first_height;
        self.first_ordinal += 1;
        self.segments.pop_front()
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }
}
