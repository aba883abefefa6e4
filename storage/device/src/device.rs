//! The interface that every kind of device has.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Completion, DeviceError, Request, Traffic};

/// Blocks that can be read and written in any order, by many requests at once.
///
/// Requests are submitted, carried out in any order and answered one by one, each exactly once, whatever happens; also
/// those that are under way when the device is dropped, which waits for them.
///
/// After the first failed flush or durable write a device is *poisoned*: every later write and flush is answered with
/// [`DeviceError::Poisoned`], reads go on. Only opening it anew, and looking at what it really holds, helps.
pub trait BlockDevice: Send + Sync {
    /// Shape of the device at this moment.
    fn geometry(&self) -> Geometry;

    /// How the device is reached.
    fn access(&self) -> &Access;

    /// Moves requests from the front of `requests` into the queue, and waits while that is full. Nothing is left.
    ///
    /// A completion must not call this: it would wait for itself.
    fn submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>);

    /// Moves requests from the front of `requests` into the queue as long as it has room, without waiting. What is left
    /// was not submitted.
    fn try_submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>);

    /// Makes the device at least `blocks` blocks large. The new blocks are allocated, durable and zero; the call waits
    /// for that.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Full`] if there is no room, and nothing has changed. [`DeviceError::Unsuitable`] if a device of
    /// this kind has a fixed size.
    fn grow(&self, blocks: u64) -> Result<(), DeviceError>;

    /// What the device was asked for since it was opened, and how long its answers took; nothing, where it does not count.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// Shape of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a block: offsets and lengths of requests are multiples of it. A power of two, 4,096 or more.
    pub block_bytes: u32,
    /// Blocks of the device.
    pub blocks: u64,
}

impl Geometry {
    /// Bytes of the device.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks * self.block_bytes as u64
    }
}

/// What carries requests to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One thread with a ring of io_uring(7).
    Uring,
    /// The same, with a drive's own commands (`IORING_OP_URING_CMD`).
    NvmePassthrough,
    /// One thread that polls SPDK's NVMe driver.
    Spdk,
    /// A few threads with pread(2) and pwritev2(2).
    Threads,
}

/// How a device is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// What carries the requests.
    pub backend: Backend,
    /// Whether transfers pass by the page cache. If not, only durable writes and flushes reach the disk in time.
    pub direct: bool,
    /// Whether the kernel knows the memory of the pools, and need not pin it for each request.
    pub registered: bool,
    /// For each of the above that is not as it was asked for: why.
    pub fallbacks: Vec<String>,
}
