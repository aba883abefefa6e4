//! What keeps the memory of the process its own.

use std::io;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
};
use tracing::warn;

use crate::config::ProcessSection;

/// Closes the process to debuggers, keeps it out of core dumps and of the swap, and its files from others. To be called
/// before anything secret is read.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn protect(section: &ProcessSection) -> anyhow::Result<()> {
    let failed =
        |what: &'static str| move |error: rustix::io::Errno| anyhow::anyhow!("{what}: {}", io::Error::from(error));
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("core dumps stay on"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed("core dumps stay on"))?;
    if !section.lock_memory {
        warn!("memory is not locked: keys may reach the swap");
        return Ok(());
    }
    // Pages are locked when they are first used: stacks are far larger than what is used of them.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(failed(
        "memory cannot be locked; give the unit LimitMEMLOCK=infinity, or, where no real key is, set process.lock_memory = \
         false",
    ))
}
