//! Memory for what looks at all columns of a batch at once: reconstruction, repair, scrub.

use std::cell::Cell;

use stele_device::{Buffer, BufferPool};

use super::Inner;

/// So many may look at a batch at a time.
pub(super) const PLACES: usize = 4;

/// Places with a buffer for each column.
pub(super) struct Workbench {
    free: Cell<usize>,
    pool: BufferPool,
}

impl Workbench {
    pub(super) fn new(pool: BufferPool) -> Self {
        Self { free: Cell::new(PLACES), pool }
    }
}

/// A place; it is free again when this is dropped, by which time its buffers have to be.
pub(super) struct Place<'i> {
    inner: &'i Inner,
}

impl Place<'_> {
    /// A buffer of the longest cell. A place has one for each column.
    pub(super) fn buffer(&self) -> Buffer {
        self.inner.workbench.pool.try_take().expect("a place has a buffer for each column")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let free = &self.inner.workbench.free;
        free.set(free.get() + 1);
        self.inner.tasks.touch();
    }
}

impl Inner {
    /// Waits for a place.
    pub(super) async fn place_at_workbench(&self) -> Place<'_> {
        let free = &self.workbench.free;
        self.tasks.until(|| free.get().checked_sub(1).map(|left| free.set(left))).await;
        Place { inner: self }
    }

    /// Waits for a buffer of a block.
    pub(super) async fn block(&self) -> Buffer {
        self.tasks.until(|| self.pools.blocks.try_take()).await
    }
}
