//! Networks of validators over real loopback connections, with real journals on disk.

#![expect(clippy::unwrap_used, reason = "all of this is test code, also what is not marked as a test")]

mod agreement;
mod application;
mod crash;
mod faults;
mod idling;
mod network;
mod records;
mod signer;
mod votes;
