//! Drives of SPDK's NVMe driver: in this process, past the kernel, by polling.
//!
//! A drive is named by `spdk:` and a transport id as SPDK writes it, with the number of the namespace behind it (1 unless it
//! says another): `spdk:trtype:PCIe traddr:0000:01:00.0 ns:1`. Whoever lists such a name among the drives chooses this
//! backend for it; nothing else does.
//!
//! It is the actor of the ring backends with another way to submit and to wait: one thread for each drive, the same queue,
//! verdicts and poison. SPDK's own reactors and threads are not used, nor is its block layer. Transfers are copied through
//! memory of the driver's, since it moves bytes only to pages that it has pinned.
//!
//! SPDK comes with no distribution. The cargo feature `spdk` compiles this, against an installation that pkg-config knows;
//! otherwise each of these names is refused with [`DeviceError::Missing`].

use std::path::Path;

#[cfg(feature = "spdk")]
#[cfg_attr(not(spdk), expect(dead_code, reason = "without the libraries it is checked, and not called"))]
mod engine;
#[cfg(feature = "spdk")]
mod environment;
#[cfg(feature = "spdk")]
#[allow(unsafe_code, reason = "a library of C")]
mod ffi;
#[cfg(feature = "spdk")]
#[allow(unsafe_code, reason = "a library of C")]
mod namespace;
#[cfg(any(feature = "spdk", test))]
mod target;

#[cfg(spdk)]
pub(crate) use engine::open;

const PREFIX: &str = "spdk:";

/// What stands behind the prefix of a name of one of its drives.
pub(crate) fn name(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(PREFIX)
}

/// Why there are no such drives in this program.
#[cfg(not(spdk))]
pub(crate) const MISSING: &str = if cfg!(feature = "spdk") {
    "SPDK's NVMe driver was not installed where this program was built"
} else {
    "this program was built without SPDK's NVMe driver, the cargo feature `spdk`"
};
