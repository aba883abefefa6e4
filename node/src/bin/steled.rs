//! `steled`: the daemon of a Stele node.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Values of the state are allocated and freed by whichever thread runs; the C library's arenas, one set of free chunks
/// for each thread, then keep memory that no value uses (docs/architecture.md, section 22).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    stele_node::daemon::main()
}
