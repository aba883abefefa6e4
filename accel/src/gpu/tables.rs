//! Tables of multiples that stay on the device: that of a suite's generator, then those of keys that have one here.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use wgpu::{BindGroup, Buffer, BufferDescriptor, BufferUsages, ErrorFilter};

use crate::gpu::{
    device::{GpuError, Opened, block_on},
    kernel::{GENERATOR_ENTRIES, KEY_ENTRIES, SCRATCH_WORDS},
    layout::Layouts,
};

/// A key's table on the CPU, of any suite.
pub(crate) type AnyTable = Arc<dyn Any + Send + Sync>;

/// The tables of one suite.
#[derive(Debug)]
pub(super) struct Tables {
    buffer: Buffer,
    pub(super) bindings: BindGroup,
    entry_bytes: usize,
    residents: Mutex<Residents>,
}

#[derive(Debug)]
struct Residents {
    generator: bool,
    /// By the address of the table on the CPU, which a weak pointer keeps from being used again.
    places: HashMap<usize, (u32, Weak<dyn Any + Send + Sync>)>,
    free: Vec<u32>,
}

/// The memory that all suites' kernels share: one batch is computed at a time.
pub(super) fn scratch(opened: &Opened, items: usize) -> Result<Buffer, GpuError> {
    buffer(opened, items * SCRATCH_WORDS * 4, BufferUsages::STORAGE)
}

impl Tables {
    /// Room for tables of at most so many bytes.
    pub(super) fn new(
        opened: &Opened,
        layouts: &Layouts,
        scratch: &Buffer,
        entry_bytes: usize,
        bytes: usize,
    ) -> Result<Self, GpuError> {
        let limit = opened.limits.max_storage_buffer_binding_size.min(opened.limits.max_buffer_size);
        let generator = GENERATOR_ENTRIES * entry_bytes;
        let room = bytes.min(usize::try_from(limit).unwrap_or(usize::MAX)).saturating_sub(generator);
        let keys = room / (KEY_ENTRIES * entry_bytes);
        let buffer = buffer(
            opened,
            generator + keys.max(1) * KEY_ENTRIES * entry_bytes,
            BufferUsages::STORAGE | BufferUsages::COPY_DST,
        )?;
        let bindings = layouts.suite(&opened.device, scratch, &buffer);
        let free = (0..u32::try_from(keys).unwrap_or(u32::MAX)).rev().collect();
        let residents = Mutex::new(Residents { generator: false, places: HashMap::new(), free });
        Ok(Self { buffer, bindings, entry_bytes, residents })
    }

    /// Uploads the generator's table, once; false if it has another size.
    pub(super) fn set_generator(&self, opened: &Opened, content: &[u8]) -> bool {
        let mut residents = self.residents.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = content.len() == GENERATOR_ENTRIES * self.entry_bytes;
        if fits && !residents.generator {
            opened.queue.write_buffer(&self.buffer, 0, content);
            residents.generator = true;
        }
        fits
    }

    /// The numbers of keys' tables on the device, which are uploaded if they are not there; `None` where there is no room.
    /// They stay for as long as the tables live on the CPU, so whoever sends a batch keeps those until the answer.
    pub(super) fn places<T: Send + Sync + 'static>(
        &self,
        opened: &Opened,
        tables: &[Arc<T>],
        content: impl Fn(&T) -> Vec<u8>,
    ) -> Vec<Option<u32>> {
        let mut residents = self.residents.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().map(|table| self.place(&mut residents, opened, table, &content)).collect()
    }

    fn place<T: Send + Sync + 'static>(
        &self,
        residents: &mut Residents,
        opened: &Opened,
        table: &Arc<T>,
        content: impl Fn(&T) -> Vec<u8>,
    ) -> Option<u32> {
        let address = Arc::as_ptr(table).addr();
        if let Some((place, _)) = residents.places.get(&address) {
            return Some(*place);
        }
        if residents.free.is_empty() {
            residents.collect();
        }
        let place = residents.free.pop()?;
        let content = content(table);
        let bytes = KEY_ENTRIES * self.entry_bytes;
        if content.len() != bytes {
            residents.free.push(place);
            return None;
        }
        let offset = GENERATOR_ENTRIES * self.entry_bytes + usize::try_from(place).ok()? * bytes;
        // Before any batch that is submitted from now on.
        opened.queue.write_buffer(&self.buffer, offset as u64, &content);
        let table: Weak<T> = Arc::downgrade(table);
        residents.places.insert(address, (place, table));
        Some(place)
    }

    /// Memory of the device that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.buffer.size()
    }

    /// Tables on the device.
    pub(super) fn count(&self) -> usize {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner).places.len()
    }
}

impl Residents {
    /// Frees the places of tables that are gone from the CPU.
    fn collect(&mut self) {
        let gone = self.places.extract_if(|_, (_, table)| table.strong_count() == 0);
        self.free.extend(gone.map(|(_, (place, _))| place));
    }
}

fn buffer(opened: &Opened, bytes: usize, usage: BufferUsages) -> Result<Buffer, GpuError> {
    let limit = opened.limits.max_storage_buffer_binding_size.min(opened.limits.max_buffer_size);
    let size = bytes as u64;
    if size > limit {
        let reason = format!("{size} bytes, and the device has buffers of at most {limit}");
        return Err(GpuError::Memory { reason });
    }
    let memory = opened.device.push_error_scope(ErrorFilter::OutOfMemory);
    let buffer = opened.device.create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
    match block_on(memory.pop()) {
        Some(error) => Err(GpuError::Memory { reason: error.to_string() }),
        None => Ok(buffer),
    }
}
