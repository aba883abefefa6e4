//! SPDK's environment, which a process has once: memory that drives can reach, and the bus.

use std::io;
use std::mem::offset_of;
use std::sync::OnceLock;
use std::thread;

use super::ffi;

/// Memory of a process that reaches no device of this machine, in MiB: the driver's own requests and the copies of ours.
const SMALL_MEBIBYTES: i32 = 256;

/// Begins it, for drives of this machine or for those behind a network alone.
///
/// Whichever drive is opened first decides whether the bus is looked at. With a network alone it is not, since DPDK would take
/// devices of the machine that it has drivers for, and no huge pages are needed.
pub(super) fn begin(local: bool) -> io::Result<()> {
    static BEGUN: OnceLock<Result<bool, i32>> = OnceLock::new();
    match BEGUN.get_or_init(|| begin_apart(local)) {
        Ok(bus) if *bus || !local => Ok(()),
        Ok(_) => Err(io::Error::other("SPDK was begun without the bus of this machine: list a drive of it first")),
        Err(code) => Err(io::Error::other(format!("SPDK's environment does not begin ({code})"))),
    }
}

/// DPDK binds whoever begins it to a core: a thread of its own, which ends.
fn begin_apart(local: bool) -> Result<bool, i32> {
    let begun = thread::Builder::new().name("spdk-begin".into()).spawn(move || begin_here(local));
    begun.map_err(|_| -libc::EAGAIN)?.join().unwrap_or(Err(-libc::EFAULT))
}

#[allow(unsafe_code, reason = "a library of C")]
fn begin_here(local: bool) -> Result<bool, i32> {
    // SAFETY: integers, booleans and pointers, of all of which zero is one.
    let mut opts: ffi::EnvOpts = unsafe { std::mem::zeroed() };
    opts.opts_size = offset_of!(ffi::EnvOpts, room);
    // SAFETY: the library knows the fields up to that size, and there is room for what else it has.
    unsafe { ffi::spdk_env_opts_init(&raw mut opts) };
    opts.name = c"stele".as_ptr();
    if !local {
        (opts.no_pci, opts.no_huge, opts.mem_size) = (true, true, SMALL_MEBIBYTES);
    }
    // SAFETY: the options were filled in by the library itself, and their strings live for ever.
    match unsafe { ffi::spdk_env_init(&raw const opts) } {
        0 => Ok(local),
        code => Err(code),
    }
}
