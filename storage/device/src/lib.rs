//! Blocks of one device: read and written by many requests at once, past the page cache, each answered once.
//!
//! ```text
//!  Request (operation, offset, Buffer) ──► submit ──► bounded queue ──► ring thread ──► io_uring ──► disk
//!     ▲                                                (or threads)        │
//!     │ a Batch waits for them, in order of arrival                        │
//!     └──────────── Completed (Buffer, result) ◄── Completion ◄────────────┘
//! ```
//!
//! * [`BlockDevice`] is the interface: geometry, requests, growth.
//! * [`Disk`] is a block device or a preallocated file with `O_DIRECT`, through one io_uring and one thread that sleeps
//!   when nothing is to be done. Where the kernel forbids io_uring a few threads with pread(2) take its place. Opened by
//!   the character device of an NVMe namespace (`/dev/ngXnY`), the same ring carries the drive's own commands, past file
//!   system and block layer. Named `spdk:` and a transport id it is a drive of SPDK's driver, which polls, in programs that
//!   were built with it (cargo feature `spdk`). How a device is really reached, and why, is said by [`Access`].
//! * A zoned namespace, where one is wanted, takes [`Request::append`] and [`Request::reset_zone`] in the place of writes, and
//!   reports its zones ([`Disk::zones`]).
//! * [`Buffer`]s are page-aligned and come from a [`BufferPool`], whose memory is allocated once and registered with the
//!   kernel. A request owns its buffer until it is answered, so nothing is copied, and nothing can touch it meanwhile.
//! * [`Completion`] takes the answers, on the device's thread. For code without a runtime, [`Batch`] and [`read_each`]
//!   wait for them on the caller's.
//!
//! A device counts what it is asked for and how long its answers take ([`BlockDevice::traffic`]).
//!
//! Everything is bounded: what is in flight, what waits behind it, the buffers. Who submits more waits, or is told.
//!
//! What is written is durable when an [`Operation::WriteDurable`] has succeeded, or an [`Operation::Flush`] that was
//! submitted after the write was answered. A failure of either poisons the device. There is no order among requests in
//! flight together, no checksum, no cache: the owner of the blocks has its reasons for those. It uses no runtime; the
//! bridge to tokio is a [`Completion`], and comes with the storage engine.

#![deny(unsafe_code)]

mod batch;
#[allow(unsafe_code, reason = "memory that the kernel writes to is no Rust object")]
mod buffer;
mod device;
mod disk;
mod error;
mod medium;
mod nvme;
mod protocol;
mod queue;
mod request;
mod spdk;
mod threads;
mod traffic;
mod uring;

pub use batch::{Batch, read_each};
pub use buffer::{BUFFER_ALIGNMENT, Buffer, BufferPool, POOL_BYTES_MAX};
pub use device::{Access, Backend, BlockDevice, Geometry};
pub use disk::{DEPTH_MAX, Disk, Options, WAITING_MAX};
pub use error::DeviceError;
pub use nvme::{Zone, ZoneState};
pub use request::{Completed, Completion, Operation, Request};
pub use traffic::{LATENCY_BOUNDS_NS, Tally, Traffic};
