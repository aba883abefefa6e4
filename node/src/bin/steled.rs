//! `steled`: the daemon of a Stele node.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// A node allocates on many threads what it frees on others, for months. The C library's arenas keep such memory: after
/// half an hour of load a node held half as much again beyond its stores, and that was still moving (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    stele_node::daemon::main()
}
