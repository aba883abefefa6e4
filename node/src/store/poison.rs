//! The flag that a failed write or fsync leaves behind.

use std::sync::atomic::{AtomicBool, Ordering};

/// Once set, never cleared while the process lives. After a failed fsync the kernel may drop dirty
/// pages and report success the next time, so nothing that this process reads back can be believed.
#[derive(Debug, Default)]
pub(crate) struct Poison(AtomicBool);

impl Poison {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
