//! Nodes in memory, addressed by 29-bit numbers.

use stele_accel_hash::{prefer_huge_pages, prefetch};

/// Bytes of one chunk: a size that allocators have, so that no chunk drags a tail of other memory along, and that of a
/// huge page. Chunks are never moved, so a growing arena neither copies nor doubles.
const CHUNK_BYTES: usize = 2 << 20;

/// Chunks from which on an arena is worth huge pages: before, caches hold the translations of small ones.
const HUGE_FROM_CHUNKS: usize = 8;

/// Slots an arena can address: three of the 32 bits of a reference say what it refers to.
pub(crate) const SLOTS_MAX: usize = (1 << 29) - 1;

/// A growing array of slots with a list of free ones.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    length: usize,
    free: Vec<u32>,
}

impl<T: Copy> Arena<T> {
    const CHUNK_SLOTS: usize = CHUNK_BYTES / size_of::<T>();

    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), length: 0, free: Vec::new() }
    }

    /// Slots in use.
    pub(crate) fn used(&self) -> usize {
        self.length - self.free.len()
    }

    /// Bytes held, free slots included.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES + self.free.capacity() * size_of::<u32>()
    }

    pub(crate) fn at(&self, slot: u32) -> &T {
        let slot = slot as usize;
        &self.chunks[slot / Self::CHUNK_SLOTS][slot % Self::CHUNK_SLOTS]
    }

    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut T {
        let slot = slot as usize;
        &mut self.chunks[slot / Self::CHUNK_SLOTS][slot % Self::CHUNK_SLOTS]
    }

    /// Asks the processor to load a slot that is read soon.
    pub(crate) fn prefetch(&self, slot: u32) {
        prefetch(self.at(slot));
    }

    /// Fills a free slot. The caller has checked that [`SLOTS_MAX`] is not exceeded.
    pub(crate) fn insert(&mut self, node: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            *self.at_mut(slot) = node;
            return slot;
        }
        if self.length.is_multiple_of(Self::CHUNK_SLOTS) {
            let mut chunk = Vec::with_capacity(Self::CHUNK_SLOTS);
            if self.chunks.len() >= HUGE_FROM_CHUNKS {
                // A walk visits nodes all over the arena: with small pages each step waits for a translation too.
                prefer_huge_pages(chunk.spare_capacity_mut());
            }
            self.chunks.push(chunk);
        }
        let slot = u32::try_from(self.length).expect("stage refuses to exceed the slots of an arena");
        self.chunks[self.length / Self::CHUNK_SLOTS].push(node);
        self.length += 1;
        slot
    }

    /// Frees a slot.
    pub(crate) fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }
}
