//! What is used of SPDK's public interface: `spdk/env.h` and `spdk/nvme.h`, as of version 24.09 and later.
//!
//! Of its structures only those are laid out here that the driver is told the size of, or that the NVMe specification fixes.
//! The others are opaque, and larger here than there.

use std::ffi::{c_char, c_int, c_void};

/// `struct spdk_env_opts` up to and with `opts_size`, by which the library knows what its caller knows of it.
#[repr(C)]
pub(super) struct EnvOpts {
    pub(super) name: *const c_char,
    pub(super) core_mask: *const c_char,
    pub(super) lcore_map: *const c_char,
    pub(super) shm_id: c_int,
    pub(super) mem_channel: c_int,
    pub(super) main_core: c_int,
    pub(super) mem_size: c_int,
    pub(super) no_pci: bool,
    pub(super) hugepage_single_segments: bool,
    pub(super) unlink_hugepage: bool,
    pub(super) no_huge: bool,
    reserved: u32,
    num_pci_addr: usize,
    hugedir: *const c_char,
    pci_blocked: *mut c_void,
    pci_allowed: *mut c_void,
    iova_mode: *const c_char,
    base_virtaddr: u64,
    env_context: *mut c_void,
    vf_token: *const c_char,
    pub(super) opts_size: usize,
    /// The library clears as much as its own structure has, whatever it is told.
    pub(super) room: [u8; 1024],
}

/// `struct spdk_nvme_transport_id`, some 600 bytes, with room for what is added to it.
#[repr(C, align(16))]
pub(super) struct TransportId(pub(super) [u8; 4096]);

/// A controller.
#[repr(C)]
pub(super) struct Controller {
    opaque: [u8; 0],
}

/// A namespace of a controller, valid as long as that is attached.
#[repr(C)]
pub(super) struct Namespace {
    opaque: [u8; 0],
}

/// A pair of queues for reads and writes; of one thread.
#[repr(C)]
pub(super) struct QueuePair {
    opaque: [u8; 0],
}

/// `struct spdk_nvme_cpl`: a completion (NVMe Base Specification 2.0, section 3.3.3.2).
#[repr(C)]
pub(super) struct Completion {
    dwords: [u32; 3],
    cid: u16,
    /// The status, with the phase in its lowest bit.
    pub(super) status: u16,
}

/// `spdk_nvme_cmd_cb`.
pub(super) type Callback = extern "C" fn(context: *mut c_void, completion: *const Completion);

/// `SPDK_NVME_IO_FLAGS_FORCE_UNIT_ACCESS`.
pub(super) const FORCE_UNIT_ACCESS: u32 = 1 << 30;

/// `SPDK_NVME_CSI_NVM`: blocks that are written in any order.
pub(super) const COMMAND_SET_NVM: c_int = 0;

/// `SPDK_MALLOC_DMA`.
pub(super) const MALLOC_DMA: u32 = 1;

/// `SPDK_ENV_NUMA_ID_ANY`.
pub(super) const NUMA_ANY: c_int = -1;

unsafe extern "C" {
    pub(super) fn spdk_env_opts_init(opts: *mut EnvOpts);
    pub(super) fn spdk_env_init(opts: *const EnvOpts) -> c_int;
    pub(super) fn spdk_zmalloc(size: usize, align: usize, unused: *mut u64, numa_id: c_int, flags: u32) -> *mut c_void;
    pub(super) fn spdk_free(memory: *mut c_void);

    pub(super) fn spdk_nvme_transport_id_parse(id: *mut TransportId, text: *const c_char) -> c_int;
    pub(super) fn spdk_nvme_connect(id: *const TransportId, opts: *const c_void, opts_size: usize) -> *mut Controller;
    pub(super) fn spdk_nvme_detach(controller: *mut Controller) -> c_int;
    pub(super) fn spdk_nvme_ctrlr_process_admin_completions(controller: *mut Controller) -> i32;
    pub(super) fn spdk_nvme_ctrlr_get_ns(controller: *mut Controller, number: u32) -> *mut Namespace;
    pub(super) fn spdk_nvme_ctrlr_alloc_io_qpair(
        controller: *mut Controller,
        opts: *const c_void,
        opts_size: usize,
    ) -> *mut QueuePair;
    pub(super) fn spdk_nvme_ctrlr_free_io_qpair(pair: *mut QueuePair) -> c_int;
    pub(super) fn spdk_nvme_qpair_process_completions(pair: *mut QueuePair, completions_max: u32) -> i32;

    pub(super) fn spdk_nvme_ns_is_active(namespace: *mut Namespace) -> bool;
    pub(super) fn spdk_nvme_ns_get_csi(namespace: *const Namespace) -> c_int;
    pub(super) fn spdk_nvme_ns_get_md_size(namespace: *mut Namespace) -> u32;
    pub(super) fn spdk_nvme_ns_get_sector_size(namespace: *mut Namespace) -> u32;
    pub(super) fn spdk_nvme_ns_get_num_sectors(namespace: *mut Namespace) -> u64;
    pub(super) fn spdk_nvme_ns_cmd_read(
        namespace: *mut Namespace,
        pair: *mut QueuePair,
        payload: *mut c_void,
        start: u64,
        count: u32,
        callback: Callback,
        context: *mut c_void,
        flags: u32,
    ) -> c_int;
    pub(super) fn spdk_nvme_ns_cmd_write(
        namespace: *mut Namespace,
        pair: *mut QueuePair,
        payload: *mut c_void,
        start: u64,
        count: u32,
        callback: Callback,
        context: *mut c_void,
        flags: u32,
    ) -> c_int;
    pub(super) fn spdk_nvme_ns_cmd_flush(
        namespace: *mut Namespace,
        pair: *mut QueuePair,
        callback: Callback,
        context: *mut c_void,
    ) -> c_int;
}
