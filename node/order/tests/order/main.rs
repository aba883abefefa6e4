//! Networks of validators in one process, over real loopback connections, with real journals on disk.

mod agreement;
mod crash;
mod faults;
mod idling;
mod network;
mod votes;
