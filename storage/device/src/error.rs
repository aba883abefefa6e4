//! What can go wrong with a device.

use std::io;
use std::path::{Path, PathBuf};

use crate::buffer::POOL_BYTES_MAX;

/// Why a device, or a request to it, failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot be opened, created, grown or served.
    #[error("cannot {action} {}", path.display())]
    Open {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What is at the path cannot serve as a device.
    #[error("{} is no device: {what}", path.display())]
    Unsuitable {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The device is one of a driver that this program does not have.
    #[error("{} cannot be reached: {what}", path.display())]
    Missing {
        /// Its name.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// Buffers of this shape, or so many of them, are not to be had.
    #[error(
        "a pool of {buffers} buffers of {capacity_bytes} bytes: whole pages, at most {POOL_BYTES_MAX} bytes together"
    )]
    Pool {
        /// How many.
        buffers: usize,
        /// How large each.
        capacity_bytes: usize,
    },
    /// The operating system failed a request.
    #[error("cannot {action} at byte {offset}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where it began, in bytes.
        offset: u64,
        /// Why it failed.
        source: io::Error,
    },
    /// File system, quota or limit leave no room.
    #[error("no room to {action} at byte {offset}")]
    Full {
        /// What was tried.
        action: &'static str,
        /// Where it began, in bytes.
        offset: u64,
        /// Why there is none.
        source: io::Error,
    },
    /// A request goes beyond the last block.
    #[error("{bytes} bytes at byte {offset} end beyond the device's {capacity_bytes}")]
    OutOfRange {
        /// Where it began, in bytes.
        offset: u64,
        /// How long it was.
        bytes: usize,
        /// Bytes of the device.
        capacity_bytes: u64,
    },
    /// A request is not made of whole blocks, at least one.
    #[error("{bytes} bytes at byte {offset} are not whole blocks of {block_bytes}")]
    Misaligned {
        /// Where it began, in bytes.
        offset: u64,
        /// How long it was.
        bytes: usize,
        /// Bytes of a block.
        block_bytes: u32,
    },
    /// A request that zones cannot take, or only zones.
    #[error("cannot {action} at byte {offset}: {what}")]
    Zone {
        /// What was asked.
        action: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong with that.
        what: &'static str,
    },
    /// A flush or a durable write failed earlier, so what the device holds is unknown until it is opened again.
    #[error("the device is poisoned by an earlier failure: restart to recover")]
    Poisoned,
    /// The device's thread is gone; a request was not carried out, or nobody knows whether it was.
    #[error("the device has stopped")]
    Stopped,
}

impl DeviceError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "device_open",
            Self::Unsuitable { .. } => "device_unsuitable",
            Self::Missing { .. } => "device_driver_missing",
            Self::Pool { .. } => "device_pool",
            Self::Io { .. } => "device_io",
            Self::Full { .. } => "device_full",
            Self::OutOfRange { .. } => "device_out_of_range",
            Self::Misaligned { .. } => "device_misaligned",
            Self::Zone { .. } => "device_zone",
            Self::Poisoned => "device_poisoned",
            Self::Stopped => "device_stopped",
        }
    }

    /// Whether only opening the device again helps.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Poisoned | Self::Stopped)
    }

    pub(crate) fn open(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Open { action, path, source }
    }

    /// What the operating system's refusal means.
    pub(crate) fn refused(action: &'static str, offset: u64, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full { action, offset, source },
            _ => Self::Io { action, offset, source },
        }
    }
}
