//! A device of the kernel: a block device or a preallocated file.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::device::{Access, Backend, BlockDevice, Geometry};
use crate::medium::Medium;
use crate::queue::Queue;
use crate::request::{Completion, Request};
use crate::{BufferPool, DeviceError, threads, uring};

/// Most requests that are in flight at once. More than any drive serves at a time, and a ring's memory stays small.
pub const DEPTH_MAX: u32 = 4096;

/// Most requests that wait behind those: their queue is allocated at once.
pub const WAITING_MAX: usize = 1 << 16;

/// How a disk is opened. What is out of its bounds is brought into them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests that the kernel has at once, 1 to [`DEPTH_MAX`]. Past the drive's own queues, more
    /// of them only wait.
    pub depth: u32,
    /// Requests that may wait for their turn behind those, 1 to [`WAITING_MAX`].
    pub waiting_max: usize,
    /// Whether to pass by the page cache (`O_DIRECT`) where the file system can.
    pub direct: bool,
    /// The backend to use; `None` for io_uring, and threads where the kernel forbids it.
    pub backend: Option<Backend>,
    /// Pools whose memory is registered with the kernel, as far as `RLIMIT_MEMLOCK` allows. Buffers of other pools work
    /// as well.
    pub pools: Vec<BufferPool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { depth: 128, waiting_max: 1024, direct: true, backend: None, pools: Vec::new() }
    }
}

/// A block device or a preallocated file.
///
/// Dropping it waits until everything that was submitted is answered.
pub struct Disk {
    medium: Arc<Medium>,
    queue: Arc<Queue>,
    access: Access,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Makes a file of `blocks` blocks of 4,096 bytes, all allocated, and opens it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Full`] if there is no room for it, and those of [`Disk::open`]. If something has that name already,
    /// it is left alone.
    pub fn create(path: &Path, blocks: u64, options: &Options) -> Result<Self, DeviceError> {
        Medium::create(path, blocks)?;
        Self::open(path, options)
    }

    /// Opens a block device, or a file as it was created or grown. What the file has behind its last whole block is not
    /// used. Who opens it sees to it that nobody else does.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Open`] if the system refuses, [`DeviceError::Unsuitable`] if something else is there.
    pub fn open(path: &Path, options: &Options) -> Result<Self, DeviceError> {
        let (medium, cached) = Medium::open(path, options.direct)?;
        let (medium, mut fallbacks) = (Arc::new(medium), Vec::from_iter(cached));
        let options = Options {
            depth: options.depth.clamp(1, DEPTH_MAX),
            waiting_max: options.waiting_max.clamp(1, WAITING_MAX),
            ..options.clone()
        };
        let unavailable = DeviceError::open("serve", path);
        let running = match options.backend {
            Some(Backend::Threads) => threads::start(&medium, &options),
            Some(Backend::Uring) => uring::start(&medium, &options, &mut fallbacks),
            None => uring::start(&medium, &options, &mut fallbacks).or_else(|error| {
                fallbacks.push(format!("threads are used, because the kernel refuses io_uring: {error}"));
                threads::start(&medium, &options)
            }),
        };
        let Running { queue, threads, backend, registered } = running.map_err(unavailable)?;
        let access = Access { backend, direct: medium.is_direct(), registered, fallbacks };
        Ok(Self { medium, queue, access, threads })
    }
}

/// A backend at work.
pub(crate) struct Running {
    pub(crate) queue: Arc<Queue>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) backend: Backend,
    pub(crate) registered: bool,
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        self.medium.geometry()
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.queue.submit(requests, completion, true);
    }

    fn try_submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.queue.submit(requests, completion, false);
    }

    fn grow(&self, blocks: u64) -> Result<(), DeviceError> {
        self.medium.grow(blocks)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A completion that holds the last reference drops the device on the device's own thread.
            if thread.thread().id() != std::thread::current().id() {
                // A panic of the thread was printed, and its requests were answered.
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("geometry", &self.geometry())
            .field("access", &self.access)
            .field("poisoned", &self.medium.is_poisoned())
            .finish_non_exhaustive()
    }
}
