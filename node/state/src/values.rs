//! Values: in files, and the newest of them in memory too.
//!
//! A value is written once, with its commit, and stays where it is until a snapshot has copied it. A leaf knows the
//! place, twelve bytes. Up to a budget values stay in memory as well, the ones written last; a map without files keeps
//! all of them there.
//!
//! In memory they lie in slots of few sizes. Values come and go by the thousand with every block, from whatever thread
//! executes it. Slots of our own keep them together: what the map reports of itself is what it holds, and values that end
//! leave no holes between the short-lived allocations of a block.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{StateError, VALUE_BYTES_MAX};

/// Slots are multiples of this many bytes.
const STEP_BYTES: usize = 16;

/// Bytes of one chunk, about. Chunks are never moved.
const CHUNK_BYTES: usize = 1 << 16;

/// Files that can be open at once: the snapshot, logs since then, and what older versions still need.
const FILES_MAX: usize = 255;

/// Where a value lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    /// Below 2^40.
    pub(crate) offset: u64,
}

/// One of the open files; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u8);

/// Where a value is, in twelve bytes, because every leaf has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueRef {
    offset_low: u32,
    offset_high: u8,
    /// Zero: it is in no file.
    file: u8,
    length: u16,
    /// Its slot in memory plus one; zero: it is not there.
    slot: u32,
}

impl ValueRef {
    /// Bytes of the value.
    pub(crate) const fn length(self) -> usize {
        self.length as usize
    }

    /// Bytes of memory that it holds now.
    pub(crate) const fn bytes(self) -> usize {
        if self.slot == 0 { 0 } else { (self.length as usize).next_multiple_of(STEP_BYTES) }
    }

    /// Its place as a number that sorts by file and offset.
    pub(crate) const fn order(self) -> u64 {
        (self.file as u64) << 40 | (self.offset_high as u64) << 32 | self.offset_low as u64
    }

    /// Its slot in memory, with the size of the slot: what tells two values apart.
    pub(crate) const fn slot_of(self) -> (u32, usize) {
        (self.slot, self.class())
    }

    const fn class(self) -> usize {
        (self.length as usize).div_ceil(STEP_BYTES)
    }

    const fn place(self) -> Option<Place> {
        if self.file == 0 {
            return None;
        }
        let offset = (self.offset_high as u64) << 32 | self.offset_low as u64;
        Some(Place { file: FileId(self.file), offset })
    }

    /// Moves it to another place with the same bytes.
    #[expect(clippy::cast_possible_truncation, reason = "a file is far smaller than a TiB")]
    fn set_place(&mut self, place: Place) {
        debug_assert!(place.offset >> 40 == 0);
        (self.offset_low, self.offset_high) = (place.offset as u32, (place.offset >> 32) as u8);
        self.file = place.file.0;
    }
}

/// A file that values are read from; it can be read as long as somebody holds it, deleted or not.
#[derive(Debug)]
pub(crate) struct ValueFile {
    file: File,
    path: PathBuf,
}

impl ValueFile {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StateError> {
        self.file.read_exact_at(bytes, offset).map_err(StateError::io("read", &self.path))
    }
}

/// The open files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    open: Vec<Option<Arc<ValueFile>>>,
}

impl Files {
    /// Opens a file to read values from.
    pub(crate) fn add(&mut self, path: &Path) -> Result<FileId, StateError> {
        let file = File::open(path).map_err(StateError::io("open", path))?;
        let free = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if free >= FILES_MAX {
            return Err(StateError::TooManyFiles { open: FILES_MAX });
        }
        if free == self.open.len() {
            self.open.push(None);
        }
        self.open[free] = Some(Arc::new(ValueFile { file, path: path.to_owned() }));
        Ok(FileId(u8::try_from(free + 1).expect("at most 255 files")))
    }

    /// The files that are open.
    pub(crate) fn ids(&self) -> FileSet {
        let mut ids = FileSet::default();
        for (at, _) in self.open.iter().enumerate().filter(|(_, file)| file.is_some()) {
            ids.0[at / 64] |= 1 << (at % 64);
        }
        ids
    }

    /// Closes files that no value lies in.
    pub(crate) fn close(&mut self, ids: &FileSet) {
        for (at, file) in self.open.iter_mut().enumerate() {
            if ids.has(at) {
                *file = None;
            }
        }
    }

    /// Reads a value.
    pub(crate) fn read(&self, value: ValueRef, bytes: &mut [u8]) -> Result<(), StateError> {
        // Files are closed once nothing refers to them; whoever asks for one that is closed holds a damaged reference.
        let open = self.file_of(value).ok_or_else(|| self.corrupt(value))?;
        open.read(value.place().map_or(0, |place| place.offset), bytes)
    }

    fn file_of(&self, value: ValueRef) -> Option<&Arc<ValueFile>> {
        let file = value.place()?.file;
        self.open.get(usize::from(file.0) - 1)?.as_ref()
    }

    /// Names the place of a value that is not what it should be.
    pub(crate) fn corrupt(&self, value: ValueRef) -> StateError {
        StateError::Corrupt {
            path: self.file_of(value).map(|file| file.path.clone()).unwrap_or_default(),
            offset: value.place().map_or(0, |place| place.offset),
            what: "a value is not the one that was committed",
        }
    }
}

/// Some of the open files.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileSet([u64; 4]);

impl FileSet {
    pub(crate) fn remove(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(word, others)| *word &= !others);
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
}

/// All values.
#[derive(Debug)]
pub(crate) struct Values {
    /// Class `i` has slots of `i` steps; the empty value needs no memory.
    classes: Vec<Class>,
    pub(crate) files: Files,
    /// Bytes of values in memory that lie in a file as well, and how many there may be.
    spare_bytes: usize,
    spare: usize,
    budget: usize,
    /// Leaves whose values are in memory and in a file, the one written first in front; some have other values by now.
    queue: VecDeque<(u32, ValueRef)>,
}

impl Values {
    pub(crate) fn new(budget: usize) -> Self {
        let classes = (0..=VALUE_BYTES_MAX / STEP_BYTES).map(|steps| Class::new(steps * STEP_BYTES)).collect();
        Self { classes, files: Files::default(), spare_bytes: 0, spare: 0, budget, queue: VecDeque::new() }
    }

    /// Bytes held, free slots included.
    pub(crate) fn bytes(&self) -> usize {
        self.classes.iter().map(Class::bytes).sum::<usize>() + self.queue.capacity() * size_of::<(u32, ValueRef)>()
    }

    /// The bytes of a value in memory.
    pub(crate) fn at(&self, value: ValueRef) -> Option<&[u8]> {
        match value.slot.checked_sub(1) {
            _ if value.length == 0 => Some(&[]),
            Some(slot) => Some(&self.classes[value.class()].at(slot)[..value.length.into()]),
            None => None,
        }
    }

    /// The bytes of a value, wherever it is, and whether they came from a file.
    pub(crate) fn read(&self, value: ValueRef) -> Result<(Cow<'_, [u8]>, bool), StateError> {
        if let Some(bytes) = self.at(value) {
            return Ok((Cow::Borrowed(bytes), false));
        }
        let mut bytes = vec![0; value.length()];
        self.files.read(value, &mut bytes)?;
        Ok((Cow::Owned(bytes), true))
    }

    /// Keeps a value of at most [`VALUE_BYTES_MAX`] bytes in memory; it lies at `place` as well, if it is in a file.
    pub(crate) fn insert(&mut self, bytes: &[u8], place: Option<Place>) -> ValueRef {
        let length = u16::try_from(bytes.len()).expect("a batch holds no longer values than the longest");
        let mut value = ValueRef { length, ..ValueRef::default() };
        if let Some(place) = place {
            value.set_place(place);
        }
        if length > 0 {
            value.slot = self.classes[value.class()].insert(bytes) + 1;
            if value.file != 0 {
                (self.spare_bytes, self.spare) = (self.spare_bytes + value.bytes(), self.spare + 1);
            }
        }
        value
    }

    /// Takes note of the leaf that a value of [`Values::insert`] belongs to.
    pub(crate) fn belongs(&mut self, leaf: u32, value: ValueRef) {
        if value.file != 0 && value.slot != 0 {
            self.queue.push_back((leaf, value));
        }
    }

    /// The leaf whose value has to leave the memory now, if there is one; it may have another value meanwhile.
    pub(crate) fn next_to_leave(&mut self) -> Option<(u32, ValueRef)> {
        if self.spare_bytes > self.budget { self.queue.pop_front() } else { None }
    }

    /// Whether most of the queue is about values that are gone.
    pub(crate) fn is_queue_stale(&self) -> bool {
        self.queue.len() > 2 * self.spare + 4096
    }

    /// Keeps what is still true in the queue.
    pub(crate) fn clean_queue(&mut self, is_current: impl Fn(u32, ValueRef) -> bool) {
        self.queue.retain(|(leaf, value)| is_current(*leaf, *value));
        self.queue.shrink_to(2 * self.queue.len());
    }

    /// Takes a value out of memory if it lies in a file.
    pub(crate) fn leave(&mut self, value: &mut ValueRef) {
        if value.file != 0 && value.slot != 0 {
            self.release(*value);
            value.slot = 0;
        }
    }

    /// Frees what a value that is not needed any more holds.
    pub(crate) fn release(&mut self, value: ValueRef) {
        let Some(slot) = value.slot.checked_sub(1) else { return };
        self.classes[value.class()].free.push(slot);
        if value.file != 0 {
            (self.spare_bytes, self.spare) = (self.spare_bytes - value.bytes(), self.spare - 1);
        }
    }

    /// Moves a value that lies in one of `old` to a place with the same bytes.
    pub(crate) fn move_from(value: &mut ValueRef, old: &FileSet, place: Place, length: usize) {
        let is_old = value.file.checked_sub(1).is_some_and(|at| old.has(at.into()));
        if is_old && value.length() == length {
            value.set_place(place);
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

    fn value(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + length).to_le_bytes()[0]).collect()
    }

    #[test]
    fn values_of_every_length_come_back_and_their_slots_are_used_again() {
        let mut values = Values::new(0);
        let places: Vec<ValueRef> = (0..=VALUE_BYTES_MAX).map(|length| values.insert(&value(length), None)).collect();
        for (length, place) in places.iter().enumerate() {
            assert_eq!(values.at(*place), Some(&*value(length)));
        }
        for place in &places {
            values.release(*place);
        }
        let held = values.bytes();
        let places: Vec<ValueRef> = (0..=VALUE_BYTES_MAX).map(|length| values.insert(&value(length), None)).collect();
        assert_eq!(values.bytes(), held, "freed slots are filled first");
        for (length, place) in places.iter().enumerate() {
            assert_eq!(values.at(*place), Some(&*value(length)));
        }
    }

    #[test]
    fn a_value_that_left_the_memory_is_read_from_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("values");
        std::fs::write(&path, [&[7; 50][..], &value(100)].concat()).expect("written");
        let mut values = Values::new(0);
        let file = values.files.add(&path).expect("opened");
        let mut placed = values.insert(&value(100), Some(Place { file, offset: 50 }));
        values.belongs(3, placed);
        assert_eq!(values.next_to_leave(), Some((3, placed)));
        values.leave(&mut placed);
        assert!(values.at(placed).is_none() && values.next_to_leave().is_none());
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(values.read(placed).expect("still open"), (Cow::Owned(value(100)), true));
        let old = values.files.ids();
        values.files.close(&old);
        assert!(values.read(placed).is_err());
    }
}
