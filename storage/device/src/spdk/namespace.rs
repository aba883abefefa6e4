//! A namespace that is attached, with a pair of queues and memory for so many transfers.

use std::ffi::{CString, c_void};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use super::target::Target;
use super::{environment, ffi};
use crate::nvme::Status;
use crate::request::Operation;

/// Bytes of a transfer: what the passthrough asks of a drive at once, too.
pub(super) const TRANSFER_BYTES_MAX: usize = 128 << 10;

/// What a place holds while the drive is at work on it. A completion's status has sixteen bits.
const AT_WORK: u32 = u32::MAX;
const IDLE: u32 = u32::MAX - 1;

/// A part of a request, for one command.
pub(super) struct Part {
    pub(super) operation: Operation,
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

/// What became of handing a command over.
pub(super) enum Handed {
    Over,
    /// The driver has no room for it just now.
    NoRoom,
    Refused(io::Error),
}

/// Of one thread, the one that opened it.
pub(super) struct Namespace {
    controller: NonNull<ffi::Controller>,
    namespace: NonNull<ffi::Namespace>,
    pair: NonNull<ffi::QueuePair>,
    memory: NonNull<u8>,
    /// By place: [`IDLE`], [`AT_WORK`] or the status of its completion.
    outcomes: Box<[AtomicU32]>,
    sector_bytes: u32,
    sectors: u64,
}

impl Namespace {
    /// Attaches a drive; what it is refused for is among the errors.
    pub(super) fn open(target: &Target, places: usize) -> io::Result<Result<Self, &'static str>> {
        environment::begin(target.local)?;
        let text = CString::new(target.transport.clone()).map_err(io::Error::other)?;
        let mut id = Box::new(ffi::TransportId([0; 4096]));
        // SAFETY: the id is zero, as the library asks for, and longer than what it fills in; the text ends with a zero.
        if unsafe { ffi::spdk_nvme_transport_id_parse(&raw mut *id, text.as_ptr()) } != 0 {
            return Ok(Err("SPDK does not understand the transport id"));
        }
        // SAFETY: the id was filled in by the library; without options it takes its own.
        let controller = NonNull::new(unsafe { ffi::spdk_nvme_connect(&raw const *id, ptr::null(), 0) });
        let controller = controller.ok_or_else(|| io::Error::other("SPDK reaches no such drive"))?;
        let attached = Attached(controller);
        // SAFETY: the controller is attached, and so is it in the calls below, which take a namespace of it.
        let namespace = NonNull::new(unsafe { ffi::spdk_nvme_ctrlr_get_ns(controller.as_ptr(), target.namespace) });
        let Some(namespace) = namespace else { return Ok(Err("the drive has no such namespace")) };
        let shape = namespace.as_ptr();
        // SAFETY: as above.
        let (active, set, metadata, sector_bytes, sectors) = unsafe {
            (
                ffi::spdk_nvme_ns_is_active(shape),
                ffi::spdk_nvme_ns_get_csi(shape),
                ffi::spdk_nvme_ns_get_md_size(shape),
                ffi::spdk_nvme_ns_get_sector_size(shape),
                ffi::spdk_nvme_ns_get_num_sectors(shape),
            )
        };
        let block = sector_bytes.is_power_of_two() && (512..=TRANSFER_BYTES_MAX).contains(&(sector_bytes as usize));
        let unsuitable = match () {
            () if !active => Some("the namespace is not active"),
            () if set != ffi::COMMAND_SET_NVM => Some("the namespace is zoned, or has no blocks"),
            () if metadata > 0 => Some("logical blocks have metadata, which is not served through SPDK"),
            () if !block => Some("logical blocks are smaller than 512 bytes or larger than 128 KiB"),
            () => None,
        };
        if let Some(what) = unsuitable {
            return Ok(Err(what));
        }
        // SAFETY: the library gives memory, or none.
        let memory = unsafe {
            ffi::spdk_zmalloc(places * TRANSFER_BYTES_MAX, 4096, ptr::null_mut(), ffi::NUMA_ANY, ffi::MALLOC_DMA)
        };
        let memory = NonNull::new(memory.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the controller is attached; without options it takes its own.
        let pair = unsafe { ffi::spdk_nvme_ctrlr_alloc_io_qpair(controller.as_ptr(), ptr::null(), 0) };
        let Some(pair) = NonNull::new(pair) else {
            // SAFETY: it came from there, and nobody has it.
            unsafe { ffi::spdk_free(memory.as_ptr().cast()) };
            return Err(io::Error::other("the drive gives no pair of queues"));
        };
        std::mem::forget(attached);
        let outcomes = (0..places).map(|_| AtomicU32::new(IDLE)).collect();
        Ok(Ok(Self { controller, namespace, pair, memory, outcomes, sector_bytes, sectors }))
    }

    pub(super) fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(u64::from(self.sector_bytes))
    }

    /// The memory of a place that no command is at work on.
    pub(super) fn memory(&mut self, place: usize) -> &mut [u8] {
        assert_ne!(self.outcomes[place].load(Ordering::Relaxed), AT_WORK, "the drive is at work on it");
        // SAFETY: places lie one behind the other in the memory, which is zeroed at first and lives as long as this; the
        // drive touches one only while it is at work on it.
        unsafe { std::slice::from_raw_parts_mut(self.place(place), TRANSFER_BYTES_MAX) }
    }

    fn place(&self, place: usize) -> *mut u8 {
        assert!(place < self.outcomes.len(), "one of the places");
        // SAFETY: inside the memory.
        unsafe { self.memory.add(place * TRANSFER_BYTES_MAX) }.as_ptr()
    }

    /// Hands a command for a place over.
    pub(super) fn begin(&self, place: usize, part: &Part) -> Handed {
        let (memory, outcome) = (self.place(place).cast::<c_void>(), &self.outcomes[place]);
        assert!(part.bytes <= TRANSFER_BYTES_MAX, "a part fits into its place");
        outcome.store(AT_WORK, Ordering::Relaxed);
        let context = ptr::from_ref(outcome).cast_mut().cast::<c_void>();
        let (namespace, pair) = (self.namespace.as_ptr(), self.pair.as_ptr());
        let start = part.offset / u64::from(self.sector_bytes);
        let count = u32::try_from(part.bytes).expect("a part is small") / self.sector_bytes;
        let flags = if part.operation == Operation::WriteDurable { ffi::FORCE_UNIT_ACCESS } else { 0 };
        // SAFETY: the pair is of this thread, since this is not `Send`. Memory and context live until the completion, or
        // until the pair is freed, which completes what is left.
        let code = unsafe {
            match part.operation {
                Operation::Read => {
                    ffi::spdk_nvme_ns_cmd_read(namespace, pair, memory, start, count, complete, context, 0)
                }
                Operation::Write | Operation::WriteDurable => {
                    ffi::spdk_nvme_ns_cmd_write(namespace, pair, memory, start, count, complete, context, flags)
                }
                Operation::Append | Operation::ResetZone => unreachable!("zoned namespaces are refused"),
                Operation::Flush => ffi::spdk_nvme_ns_cmd_flush(namespace, pair, complete, context),
            }
        };
        if code == 0 {
            return Handed::Over;
        }
        outcome.store(IDLE, Ordering::Relaxed);
        if code == -libc::ENOMEM { Handed::NoRoom } else { Handed::Refused(io::Error::from_raw_os_error(-code)) }
    }

    /// Takes note of what the drive has done; how many commands that were.
    pub(super) fn poll(&mut self) -> io::Result<u32> {
        // SAFETY: the pair is of this thread.
        let done = unsafe { ffi::spdk_nvme_qpair_process_completions(self.pair.as_ptr(), 0) };
        u32::try_from(done).map_err(|_| io::Error::from_raw_os_error(-done))
    }

    /// Does what keeps the connection to the drive.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        // SAFETY: the controller is attached.
        let done = unsafe { ffi::spdk_nvme_ctrlr_process_admin_completions(self.controller.as_ptr()) };
        if done < 0 { Err(io::Error::from_raw_os_error(-done)) } else { Ok(()) }
    }

    /// What became of the command of a place, once, when it is done.
    pub(super) fn outcome(&self, place: usize) -> Option<io::Result<()>> {
        let outcome = self.outcomes[place].load(Ordering::Acquire);
        let status = u16::try_from(outcome).ok()?;
        self.outcomes[place].store(IDLE, Ordering::Relaxed);
        // Its lowest bit is the phase.
        Some(Status::new(status >> 1).map_or(Ok(()), |status| Err(status.into())))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // SAFETY: the pair and the memory came from the library and are given back once, on the thread that they were taken
        // by. What the drive is at work on ends with the pair, before the memory.
        unsafe {
            ffi::spdk_nvme_ctrlr_free_io_qpair(self.pair.as_ptr());
            ffi::spdk_free(self.memory.as_ptr().cast());
        }
        drop(Attached(self.controller));
    }
}

/// A controller, detached when this is dropped.
struct Attached(NonNull<ffi::Controller>);

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it was attached, and nothing of it is used any more.
        unsafe { ffi::spdk_nvme_detach(self.0.as_ptr()) };
    }
}

/// The library calls this while it is polled, on the thread that polls.
extern "C" fn complete(context: *mut c_void, completion: *const ffi::Completion) {
    // SAFETY: the context is the outcome of a place, which lives as long as the pair of queues; the completion lives as long
    // as this call.
    let (outcome, completion) = unsafe { (&*context.cast::<AtomicU32>(), &*completion) };
    outcome.store(u32::from(completion.status), Ordering::Release);
}
