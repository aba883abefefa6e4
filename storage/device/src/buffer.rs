//! Page-aligned buffers from pools that never grow.
//!
//! Direct I/O wants memory that begins on a block's border, and the kernel saves the pinning of pages for memory that it
//! was told of once. A pool is one such piece of memory, cut into buffers of one size.

use std::alloc::{self, Layout};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::DeviceError;

/// What a buffer's address and capacity are multiples of, in bytes: the page.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// Most bytes of a pool: the kernel takes one registration of that size (io_uring_register(2)).
pub const POOL_BYTES_MAX: usize = 1 << 30;

/// Larger pools lie in pages of this size where the system has them: a large transfer is then a few pieces of memory to the
/// kernel and the drive instead of hundreds.
const HUGE_PAGE: usize = 2 << 20;

/// Buffers of one capacity, as many as were asked for and never more. Clones share the buffers.
#[derive(Clone)]
pub struct BufferPool {
    pool: Arc<Pool>,
}

struct Pool {
    arena: Arena,
    buffers: usize,
    capacity: usize,
    free: Mutex<Free>,
    returned: Condvar,
}

struct Free {
    /// Buffers by number; the one returned last is taken first, because it is in the caches.
    indices: Vec<usize>,
    /// Threads that wait for one. A condition variable enters the kernel to wake nobody.
    waiting: usize,
}

impl BufferPool {
    /// Makes a pool of `buffers` buffers of `capacity_bytes` bytes each.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Pool`] if there would be none, their capacity is not a multiple of [`BUFFER_ALIGNMENT`], they would
    /// be more than [`POOL_BYTES_MAX`] together, or there is no memory for them.
    pub fn new(buffers: usize, capacity_bytes: usize) -> Result<Self, DeviceError> {
        let refused = || DeviceError::Pool { buffers, capacity_bytes };
        let bytes = buffers.checked_mul(capacity_bytes).ok_or_else(refused)?;
        if bytes == 0 || bytes > POOL_BYTES_MAX || !capacity_bytes.is_multiple_of(BUFFER_ALIGNMENT) {
            return Err(refused());
        }
        let free = Mutex::new(Free { indices: (0..buffers).rev().collect(), waiting: 0 });
        let arena = Arena::new(bytes).ok_or_else(refused)?;
        let pool = Pool { arena, buffers, capacity: capacity_bytes, free, returned: Condvar::new() };
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Takes a buffer, waiting for one to be returned. Its length is its capacity, and its content whatever was in it.
    ///
    /// A thread that holds all buffers itself waits for ever.
    #[must_use]
    pub fn take(&self) -> Buffer {
        let mut free = self.pool.free();
        loop {
            if let Some(index) = free.indices.pop() {
                return self.buffer(index);
            }
            free.waiting += 1;
            free = self.pool.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
            free.waiting -= 1;
        }
    }

    /// Takes a buffer if there is one.
    #[must_use]
    pub fn try_take(&self) -> Option<Buffer> {
        let index = self.pool.free().indices.pop()?;
        Some(self.buffer(index))
    }

    /// Buffers of the pool, taken or not.
    #[must_use]
    pub fn buffers(&self) -> usize {
        self.pool.buffers
    }

    /// Bytes that a buffer can hold.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.pool.capacity
    }

    /// Whether a buffer is of this pool.
    pub(crate) fn owns(&self, buffer: &Buffer) -> bool {
        Arc::ptr_eq(&self.pool, &buffer.pool)
    }

    /// The pool's memory: its begin and its length in bytes. It lives as long as the pool or any of its buffers.
    pub(crate) fn memory(&self) -> (*mut u8, usize) {
        (self.pool.arena.start.as_ptr(), self.pool.arena.layout.size())
    }

    fn buffer(&self, index: usize) -> Buffer {
        // SAFETY: `index` is below `buffers`, so the sum stays inside the arena of `buffers` times `capacity` bytes.
        let start = unsafe { self.pool.arena.start.add(index * self.pool.capacity) };
        Buffer { pool: Arc::clone(&self.pool), index, start, length: self.pool.capacity }
    }
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.pool.free().indices.len();
        f.debug_struct("BufferPool")
            .field("buffers", &self.buffers())
            .field("free", &free)
            .field("capacity_bytes", &self.capacity_bytes())
            .finish_non_exhaustive()
    }
}

/// Bytes of a pool, returned to it when dropped. It derefs to its bytes.
pub struct Buffer {
    pool: Arc<Pool>,
    index: usize,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a buffer is the only way to its bytes, as a boxed slice is.
unsafe impl Send for Buffer {}
// SAFETY: as above; a shared buffer gives shared bytes only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The same buffer with another length, in bytes: how much a request transfers.
    ///
    /// # Panics
    ///
    /// If the length is above the capacity.
    #[must_use]
    pub fn with_length(mut self, bytes: usize) -> Self {
        assert!(bytes <= self.pool.capacity, "{bytes} bytes of a buffer of {}", self.pool.capacity);
        self.length = bytes;
        self
    }

    /// Bytes that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pool.capacity
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the arena is initialised and outlives `pool`; these bytes of it are this buffer's alone, because its
        // index returns to the pool only when it is dropped, and `length` never exceeds the capacity.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.pool.free();
        free.indices.push(self.index);
        if free.waiting > 0 {
            self.pool.returned.notify_one();
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("length", &self.length)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Memory of a pool.
struct Arena {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the arena itself never touches its bytes; buffers do, each its own.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory; `bytes` is not zero.
    fn new(bytes: usize) -> Option<Self> {
        let alignment = if bytes < HUGE_PAGE { BUFFER_ALIGNMENT } else { HUGE_PAGE };
        let layout = Layout::from_size_align(bytes, alignment).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc::alloc(layout) })?;
        if alignment == HUGE_PAGE {
            // SAFETY: the range is this allocation, to which the advice changes nothing that can be seen. Without huge pages
            // it is refused, and small ones serve.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: as many bytes were just allocated. They are touched after the advice, which is for pages to come.
        unsafe { start.write_bytes(0, bytes) };
        Some(Self { start, layout })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `start` came from the same allocator with the same layout, and every buffer held the pool alive.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_apart_and_as_many_as_asked_for() {
        let pool = BufferPool::new(3, 8192).unwrap();
        let mut taken: Vec<Buffer> = (0..3).map(|_| pool.take()).collect();
        assert!(pool.try_take().is_none());
        for (mark, buffer) in (1..).zip(&mut taken) {
            assert_eq!(buffer.as_ptr().addr() % BUFFER_ALIGNMENT, 0);
            assert_eq!(buffer.len(), 8192);
            buffer.fill(mark);
        }
        for (mark, buffer) in (1..).zip(&taken) {
            assert!(buffer.iter().all(|byte| *byte == mark), "buffer {mark} overlaps another");
        }
        taken.pop();
        assert_eq!(pool.take().with_length(4096).len(), 4096);
        // A length is that of one use.
        assert_eq!(pool.take().len(), 8192);
    }

    #[test]
    fn a_waiting_thread_gets_the_buffer_that_is_returned() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let mut held = pool.take();
        held[0] = 42;
        let waiting = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take()[0]
        });
        while pool.pool.free().waiting == 0 {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(waiting.join().unwrap(), 42);
    }

    #[test]
    fn buffers_outlive_their_pool() {
        let pool = BufferPool::new(2, 4096).unwrap();
        let mut buffer = pool.take();
        drop(pool);
        buffer.fill(7);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn shapes_that_cannot_be_had_are_refused() {
        for (buffers, capacity) in [(0, 4096), (1, 0), (1, 1000), (2, POOL_BYTES_MAX), (usize::MAX, 4096)] {
            assert_eq!(BufferPool::new(buffers, capacity).unwrap_err().code(), "device_pool");
        }
    }

    #[test]
    #[should_panic(expected = "4097 bytes of a buffer of 4096")]
    fn a_buffer_is_never_longer_than_its_capacity() {
        let _ = BufferPool::new(1, 4096).unwrap().take().with_length(4097);
    }
}
