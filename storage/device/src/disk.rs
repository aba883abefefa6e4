//! A device of the kernel: a block device, a preallocated file, or a namespace of an NVMe drive.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::device::{Access, Backend, BlockDevice, Geometry};
use crate::medium::Medium;
use crate::nvme::{Passthrough, Zone};
use crate::protocol::FileProtocol;
use crate::queue::Queue;
use crate::request::{Completion, Request};
use crate::traffic::Traffic;
use crate::{BufferPool, DeviceError, spdk, threads, uring};

/// Most requests that are in flight at once. More than any drive serves at a time, and a ring's memory stays small.
pub const DEPTH_MAX: u32 = 4096;

/// Most requests that wait behind those: their queue is allocated at once.
pub const WAITING_MAX: usize = 1 << 16;

/// Why pools are not registered with passthrough. Linux 6.1 counts all pages from a buffer to the end of its registered
/// pool as pieces of the transfer (`blk_rq_map_user_bvec`), and refuses more of them than a drive takes at once, 127.
const UNREGISTERED: &str = "buffers are pinned one by one, because Linux refuses commands from large registered pools";

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
    /// Whether a namespace may be zoned. It takes appends then, and no writes ([`Disk::zones`]).
    pub zoned: bool,
    /// The backend to use; `None` for the drive's own commands where the path is a character device of NVMe, else for
    /// io_uring, and threads where the kernel forbids it.
    pub backend: Option<Backend>,
    /// Pools whose memory is registered with the kernel, as far as `RLIMIT_MEMLOCK` and the backend allow. Buffers of other
    /// pools work as well.
    pub pools: Vec<BufferPool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { depth: 128, waiting_max: 1024, direct: true, zoned: false, backend: None, pools: Vec::new() }
    }
}

impl Options {
    /// The same, within bounds.
    fn bounded(&self) -> Self {
        let depth = self.depth.clamp(1, DEPTH_MAX);
        Self { depth, waiting_max: self.waiting_max.clamp(1, WAITING_MAX), ..self.clone() }
    }
}

/// A block device, a preallocated file or a namespace of an NVMe drive.
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
        if Self::is_of_driver(path) {
            return Err(DeviceError::Unsuitable { path: path.to_owned(), what: "a drive is not made by its name" });
        }
        Medium::create(path, blocks)?;
        Self::open(path, options)
    }

    /// Whether a path is the name of a drive that a driver in this process has, and nothing that the kernel knows:
    /// `spdk:trtype:PCIe traddr:0000:01:00.0 ns:1`. Such a driver sees to it that nobody else has the drive.
    #[must_use]
    pub fn is_of_driver(path: &Path) -> bool {
        spdk::name(path).is_some()
    }

    /// Opens a block device, a file as it was created or grown, the character device of an NVMe namespace
    /// (`/dev/ngXnY`), or a drive of SPDK's driver by its name ([`Disk::is_of_driver`]). What is behind the last whole block is not used. Who opens it sees to it that nobody else does.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Open`] if the system refuses, [`DeviceError::Unsuitable`] if something else is there: also a
    /// namespace that is zoned where that is not wanted, or has metadata other than protection information of type 1, and what the backend that
    /// is asked for cannot serve; [`DeviceError::Missing`] if the drive is one of a driver that this program was built
    /// without.
    pub fn open(path: &Path, options: &Options) -> Result<Self, DeviceError> {
        if let Some(name) = spdk::name(path) {
            return Self::open_spdk(name, path, options);
        }
        let (medium, cached) = Medium::open(path, options.direct, options.zoned)?;
        let (medium, mut fallbacks) = (Arc::new(medium), Vec::from_iter(cached));
        let options = options.bounded();
        let unavailable = DeviceError::open("serve", path);
        let unsuitable = |what| Err(DeviceError::Unsuitable { path: path.to_owned(), what });
        let running = match options.backend {
            None | Some(Backend::NvmePassthrough) if let Some(namespace) = medium.namespace() => {
                fallbacks.extend((!options.pools.is_empty()).then(|| UNREGISTERED.into()));
                let options = Options { pools: Vec::new(), ..options };
                uring::start(Passthrough(*namespace), &medium, &options, &mut fallbacks)
            }
            Some(_) if medium.namespace().is_some() => {
                return unsuitable("the character device of an NVMe namespace is served by passthrough alone");
            }
            Some(Backend::NvmePassthrough) => {
                return unsuitable("passthrough is for the character device of an NVMe namespace");
            }
            Some(Backend::Spdk) => {
                return unsuitable("SPDK's driver is for drives that are named by a transport id");
            }
            Some(Backend::Threads) => threads::start(&medium, &options),
            Some(Backend::Uring) if medium.forgets_durability() => {
                return unsuitable("FUSE forgets the durability of writes through io_uring");
            }
            None if medium.forgets_durability() => {
                fallbacks
                    .push("threads are used, because FUSE forgets the durability of writes through io_uring".into());
                threads::start(&medium, &options)
            }
            Some(Backend::Uring) => uring::start(FileProtocol, &medium, &options, &mut fallbacks),
            None => uring::start(FileProtocol, &medium, &options, &mut fallbacks).or_else(|error| {
                fallbacks.push(format!("threads are used, because the kernel refuses io_uring: {error}"));
                threads::start(&medium, &options)
            }),
        };
        let Running { queue, threads, backend, registered } = running.map_err(unavailable)?;
        let access = Access { backend, direct: medium.is_direct(), registered, fallbacks };
        Ok(Self { medium, queue, access, threads })
    }

    #[cfg(spdk)]
    fn open_spdk(name: &str, path: &Path, options: &Options) -> Result<Self, DeviceError> {
        if !matches!(options.backend, None | Some(Backend::Spdk)) {
            return Err(DeviceError::Unsuitable { path: path.to_owned(), what: "only SPDK's driver has it" });
        }
        let (medium, running) = spdk::open(name, path, &options.bounded())?;
        let Running { queue, threads, backend, registered } = running;
        let fallbacks =
            (!options.pools.is_empty()).then(|| "buffers are copied, because the driver has its own".into());
        let access = Access { backend, direct: true, registered, fallbacks: Vec::from_iter(fallbacks) };
        Ok(Self { medium, queue, access, threads })
    }

    #[cfg(not(spdk))]
    fn open_spdk(_name: &str, path: &Path, _options: &Options) -> Result<Self, DeviceError> {
        Err(DeviceError::Missing { path: path.to_owned(), what: spdk::MISSING })
    }

    /// The zones of a namespace that was opened as a zoned one, in their order, as the drive reports them at this moment.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsuitable`] if it has none; [`DeviceError::Open`] if the drive does not report them.
    pub fn zones(&self) -> Result<Vec<Zone>, DeviceError> {
        self.medium.zones()
    }

    /// The most bytes of an append to a zone, if there are zones.
    #[must_use]
    pub fn append_bytes_max(&self) -> Option<usize> {
        let zoning = self.medium.namespace().and_then(|namespace| namespace.zoning);
        zoning.map(|zoning| zoning.append_bytes_max as usize)
    }

    /// Whether the drive has a cache that a power cut empties, so that durable writes and flushes cost time; `None` where
    /// only the kernel knows.
    #[must_use]
    pub fn has_volatile_cache(&self) -> Option<bool> {
        self.medium.namespace().map(|namespace| namespace.volatile_cache)
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

    fn traffic(&self) -> Traffic {
        self.queue.traffic()
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
