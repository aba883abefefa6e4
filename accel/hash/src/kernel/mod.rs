//! Which code hashes a batch.

#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod sha256;
#[cfg(target_arch = "x86_64")]
mod sm3;
#[cfg(target_arch = "x86_64")]
mod transpose;

#[cfg(target_arch = "x86_64")]
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use crate::algorithm::{Digest, HashAlgorithm, digest};

/// A way to hash a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// One message at a time through `sha2` and `sm3`; `sha2` uses SHA-NI where the CPU has it.
    Portable,
    /// Sixteen messages at a time in AVX-512 registers.
    Avx512,
}

impl Kernel {
    /// Stable lower-case name, used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx512 => "avx512",
        }
    }
}

/// Below this many messages a batch leaves too many lanes idle to gain anything.
#[cfg(target_arch = "x86_64")]
const BATCH_MIN: usize = 8;

/// The kernel that batches of `algorithm` use on this CPU.
///
/// SM3 always gains from lanes. SHA-256 does not on every CPU, because SHA-NI is fast and some cores take two
/// cycles for a 512-bit operation; so both kernels are timed once, for less than a millisecond.
#[must_use]
pub fn active_kernel(algorithm: HashAlgorithm) -> Kernel {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        static SHA256: LazyLock<Kernel> = LazyLock::new(faster_sha256);
        return match algorithm {
            HashAlgorithm::Sha256 => *SHA256,
            HashAlgorithm::Sm3 => Kernel::Avx512,
        };
    }
    let _ = algorithm;
    Kernel::Portable
}

/// Hashes `prefix ‖ message(index)` into `digests[index]` for each index.
pub(crate) fn digest_into<'a>(
    algorithm: HashAlgorithm,
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    #[cfg(target_arch = "x86_64")]
    let lanes = digests.len() >= BATCH_MIN && prefix.len() <= lanes::PREFIX_MAX;
    #[cfg(not(target_arch = "x86_64"))]
    let lanes = false;
    let kernel = if lanes { active_kernel(algorithm) } else { Kernel::Portable };
    digest_with(kernel, algorithm, prefix, message, digests);
}

/// Hashes with a named kernel, or one at a time if this CPU does not have it.
fn digest_with<'a>(
    kernel: Kernel,
    algorithm: HashAlgorithm,
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    match (kernel, algorithm) {
        // Compares two cached bits: so that no caller can be wrong about the CPU.
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, HashAlgorithm::Sha256) if has_avx512() => {
            // SAFETY: the CPU was asked just now.
            unsafe { lanes::digest_into::<sha256::Sha256Lanes>(prefix, message, digests) }
        }
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, HashAlgorithm::Sm3) if has_avx512() => {
            // SAFETY: the CPU was asked just now.
            unsafe { lanes::digest_into::<sm3::Sm3Lanes>(prefix, message, digests) }
        }
        _ => {
            for (index, slot) in digests.iter_mut().enumerate() {
                *slot = digest(algorithm, prefix, message(index));
            }
        }
    }
}

/// Times both kernels on messages of the size of a statement.
#[cfg(target_arch = "x86_64")]
fn faster_sha256() -> Kernel {
    /// Runs of each kernel; the best counts, so that an interruption decides nothing.
    const RUNS: usize = 4;
    /// Messages of a run.
    const MESSAGES: usize = 64;
    let message = [0x5a; 256];
    let mut digests = [[0; 32]; MESSAGES];
    let mut time = |kernel| {
        let started = Instant::now();
        digest_with(kernel, HashAlgorithm::Sha256, &[0], &|_| &message, &mut digests);
        started.elapsed()
    };
    let (mut portable, mut lanes) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        portable = portable.min(time(Kernel::Portable));
        lanes = lanes.min(time(Kernel::Avx512));
    }
    if lanes < portable { Kernel::Avx512 } else { Kernel::Portable }
}

/// Whether the CPU and the operating system have what the AVX-512 kernels use. The answer is remembered by
/// the standard library.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(algorithm: HashAlgorithm, prefix: &[u8], messages: &[Vec<u8>]) {
        let expected: Vec<Digest> = messages.iter().map(|message| digest(algorithm, prefix, message)).collect();
        let mut digests = vec![[0; 32]; messages.len()];
        digest_into(algorithm, prefix, &|index| &messages[index], &mut digests);
        assert_eq!(digests, expected, "{algorithm:?} through the chosen kernel");
        // Whatever was chosen for this CPU, each kernel that it has must be right.
        #[cfg(target_arch = "x86_64")]
        if has_avx512() && prefix.len() <= lanes::PREFIX_MAX {
            let mut digests = vec![[0; 32]; messages.len()];
            digest_with(Kernel::Avx512, algorithm, prefix, &|index| &messages[index], &mut digests);
            assert_eq!(digests, expected, "{algorithm:?} through AVX-512");
        }
    }

    fn message(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 31 + length).to_le_bytes()[0]).collect()
    }

    #[test]
    fn every_length_over_the_block_edges_equals_one_at_a_time_hashing() {
        let messages: Vec<Vec<u8>> = (0..300).map(message).collect();
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            for prefix in [0, 1, 2, 33, 55, 56, 63, 64, 65, 200] {
                check(algorithm, &message(prefix), &messages);
            }
        }
    }

    #[test]
    fn batches_of_every_size_around_the_lanes_are_right() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            for size in 0..50 {
                let messages: Vec<Vec<u8>> = (0..size).map(|index| message(index * 17)).collect();
                check(algorithm, &[1], &messages);
            }
        }
    }

    #[test]
    fn one_long_message_among_short_ones_is_right() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            for place in [0, 7, 15, 16, 39] {
                let mut messages: Vec<Vec<u8>> = (0..40).map(message).collect();
                messages[place] = message(100_003);
                check(algorithm, &[0], &messages);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_batch_equals_one_at_a_time_hashing(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..80),
            prefix in prop::collection::vec(any::<u8>(), 0..70),
            sm3 in any::<bool>(),
        ) {
            check(if sm3 { HashAlgorithm::Sm3 } else { HashAlgorithm::Sha256 }, &prefix, &messages);
        }
    }
}
