//! Values in memory, in slots of few sizes.
//!
//! Values come and go by the thousand with every block, from whatever thread executes it. Slots of our own keep them
//! together: what the map reports of itself is what it holds, and values that end leave no holes between the short-lived
//! allocations of a block.

use crate::VALUE_BYTES_MAX;

/// Slots are multiples of this many bytes.
const STEP_BYTES: usize = 16;

/// Bytes of one chunk, about. Chunks are never moved.
const CHUNK_BYTES: usize = 1 << 16;

/// Where a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueRef {
    slot: u32,
    length: u16,
}

impl ValueRef {
    /// Bytes of memory of the value.
    pub(crate) const fn bytes(self) -> usize {
        (self.length as usize).next_multiple_of(STEP_BYTES)
    }

    /// Bytes of the value.
    pub(crate) const fn length(self) -> usize {
        self.length as usize
    }

    const fn class(self) -> usize {
        (self.length as usize).div_ceil(STEP_BYTES)
    }
}

/// All values, by the sizes of their slots.
#[derive(Debug)]
pub(crate) struct Values {
    /// Class `i` has slots of `i` steps; the empty value needs no memory.
    classes: Vec<Class>,
}

impl Values {
    pub(crate) fn new() -> Self {
        Self { classes: (0..=VALUE_BYTES_MAX / STEP_BYTES).map(|steps| Class::new(steps * STEP_BYTES)).collect() }
    }

    /// Bytes held, free slots included.
    pub(crate) fn bytes(&self) -> usize {
        self.classes.iter().map(Class::bytes).sum()
    }

    pub(crate) fn at(&self, value: ValueRef) -> &[u8] {
        if value.length == 0 { &[] } else { &self.classes[value.class()].at(value.slot)[..value.length.into()] }
    }

    /// Stores a value of at most [`VALUE_BYTES_MAX`] bytes.
    pub(crate) fn insert(&mut self, bytes: &[u8]) -> ValueRef {
        let length = u16::try_from(bytes.len()).expect("a batch holds no longer values than the longest");
        let mut value = ValueRef { slot: 0, length };
        if length > 0 {
            value.slot = self.classes[value.class()].insert(bytes);
        }
        value
    }

    pub(crate) fn release(&mut self, value: ValueRef) {
        if value.length > 0 {
            self.classes[value.class()].free.push(value.slot);
        }
    }
}

/// Slots of one size.
#[derive(Debug)]
struct Class {
    slot_bytes: usize,
    chunk_slots: usize,
    chunks: Vec<Box<[u8]>>,
    length: usize,
    free: Vec<u32>,
}

impl Class {
    fn new(slot_bytes: usize) -> Self {
        let chunk_slots = CHUNK_BYTES / slot_bytes.max(STEP_BYTES);
        Self { slot_bytes, chunk_slots, chunks: Vec::new(), length: 0, free: Vec::new() }
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * self.chunk_slots * self.slot_bytes + self.free.capacity() * size_of::<u32>()
    }

    fn place(&self, slot: u32) -> (usize, usize) {
        let slot = slot as usize;
        (slot / self.chunk_slots, slot % self.chunk_slots * self.slot_bytes)
    }

    fn at(&self, slot: u32) -> &[u8] {
        let (chunk, offset) = self.place(slot);
        &self.chunks[chunk][offset..offset + self.slot_bytes]
    }

    fn insert(&mut self, bytes: &[u8]) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            if self.length.is_multiple_of(self.chunk_slots) {
                self.chunks.push(vec![0; self.chunk_slots * self.slot_bytes].into_boxed_slice());
            }
            let slot = u32::try_from(self.length).expect("there are no more values than leaves");
            self.length += 1;
            slot
        });
        let (chunk, offset) = self.place(slot);
        self.chunks[chunk][offset..offset + bytes.len()].copy_from_slice(bytes);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_length_come_back_and_their_slots_are_used_again() {
        let value = |length: usize| -> Vec<u8> { (0..length).map(|at| (at * 31 + length).to_le_bytes()[0]).collect() };
        let mut values = Values::new();
        let places: Vec<ValueRef> = (0..=VALUE_BYTES_MAX).map(|length| values.insert(&value(length))).collect();
        for (length, place) in places.iter().enumerate() {
            assert_eq!(values.at(*place), value(length));
        }
        for place in &places {
            values.release(*place);
        }
        let held = values.bytes();
        let places: Vec<ValueRef> = (0..=VALUE_BYTES_MAX).map(|length| values.insert(&value(length))).collect();
        assert_eq!(values.bytes(), held, "freed slots are filled first");
        for (length, place) in places.iter().enumerate() {
            assert_eq!(values.at(*place), value(length));
        }
    }
}
