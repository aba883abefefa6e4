//! The process that holds a node's keys: TPM, token and epoch keys are in its hands alone.
//!
//! ```text
//!  steled ──► Unix socket ──► who asks? ──► one task a request ──► keys ──► guards ──► hardware
//!             stele_hsm::remote             (bounded)               by role
//! ```
//!
//! - **It signs what `stele_hsm::request` types, and each only with the key that is for it.** Whoever takes the node over can
//!   ask for signatures that a guard does not refuse, and cannot take a key away.
//! - **It has no network.** It listens on one Unix socket, asks the kernel who is at the other end, and answers the users that
//!   its configuration names.
//! - **Its memory stays its own**: locked against the swap, left out of core dumps, closed to debuggers.
//! - **It starts only where it stopped.** Guards are opened, never made, by a start, and a counter in the TPM tells an old or
//!   second copy of the disk.
//!
//! What it is not: it keeps no policy of the network, reads no ledger, and decides nothing but what its guards decide.

mod config;
mod custody;
mod daemon;
mod epochs;
mod hardware;
mod identity;
mod keys;
mod logs;
mod process;
mod provision;
mod recovery;
mod server;

pub use crate::{
    config::{Config, ConfigError},
    daemon::main,
};
