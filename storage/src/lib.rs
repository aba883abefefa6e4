//! The payload tier: objects on many drives, kept through the loss of some.
//!
//! ```text
//!  put ──► records ──► batch of a group ──► k columns + m of parity ──► one durable write to each drive
//!                                                                              │
//!  get ◄── record ◄── one drive, or else any k of the others                   ▼
//!           ▲                                                  segments: append-only, self-describing
//!           └── index: content root ─► segment, place, checksum        │         │
//!                   ▲ made again from the segments                   scrub    collect
//! ```
//!
//! * A [`Store`] keeps objects under the root of their content ([`content_root`]): a tree over chunks of 4 KiB, so that
//!   all lanes of a processor hash one object, and a range verifies alone. What it is given is ciphertext; it knows no key.
//! * Objects become *records* of up to 1 MiB, records of one [`Group`] share batches and segments, and a segment lies on
//!   k + m drives under a Reed-Solomon code ([`ErasureCode`]). What is acknowledged survives the loss of any m of them.
//! * Nothing is overwritten but what is damaged. Every cell says what it is and where it belongs, and its checksums are
//!   compared with those of the index, which lie elsewhere: rot, lost and misdirected writes are found and mended, when
//!   they are read or by [`Store::scrub`].
//! * [`Store::collect`] frees what was removed; [`Store::replace`] fills a new drive while the store serves.
//!
//! The core is a state machine without I/O, clock or thread. One thread feeds it with the completions of the devices
//! ([`stele_device`]), and a simulation with the completions of drives that lose, tear and mistake what they are given.
//!
//! It is not a file system and not a cache: no names, no changes, no data that nobody hashes.

#![deny(unsafe_code)]

mod cold;
mod content;
mod core;
mod engine;
mod erasure;
mod error;
mod format;
pub mod fsck;
pub mod index;
mod location;
mod loss;
mod object;
mod store;

pub use cold::{COLD_HEADER_BYTES_MAX, ColdImage, ColdReader, cold_prefix};
pub use content::{CHUNK_BYTES, PIECE_BYTES, content_root, piece_roots, root_of_pieces};
pub use core::{ColdPlace, ColdStatus, CollectReport, Counters, DriveStatus, Listing, ScrubReport, Status};
pub use erasure::{DATA_SHARDS_MAX, Decoder, ErasureBackend, ErasureCode, ErasureError, PARITY_SHARDS_MAX};
pub use error::StorageError;
pub use format::DriveState;
pub use loss::Losses;
pub use object::{OBJECT_BYTES_MAX, Object, Stored, Upload};
pub use stele_device::{LATENCY_BOUNDS_NS, Tally, Traffic};
pub use store::{Layout, LostStore, Options, Store};

/// Records that are kept, and in the end deleted, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Class of records.
    pub class: u8,
    /// The year in which their retention ends; 0 if it does not.
    pub year: u16,
}
