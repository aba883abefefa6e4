//! Which code hashes a batch.

use crate::algorithm::{Digest, HashAlgorithm, digest};

/// A way to hash a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// One message at a time through `sha2` and `sm3`; `sha2` uses SHA-NI where the CPU has it.
    Portable,
}

impl Kernel {
    /// Stable lower-case name, used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
        }
    }
}

/// The kernel that batches of `algorithm` use on this CPU.
#[must_use]
pub fn active_kernel(_algorithm: HashAlgorithm) -> Kernel {
    Kernel::Portable
}

/// Hashes `prefix ‖ message(index)` into `digests[index]` for each index.
pub(crate) fn digest_into<'a>(
    algorithm: HashAlgorithm,
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    for (index, slot) in digests.iter_mut().enumerate() {
        *slot = digest(algorithm, prefix, message(index));
    }
}
