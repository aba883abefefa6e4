//! Which code hashes a batch.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod sha256;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(target_arch = "x86_64")]
mod sm3;

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
    /// Two messages at a time by the SHA instructions; SHA-256 only.
    ShaNi,
    /// Eight messages at a time in AVX2 registers.
    Avx2,
    /// Sixteen messages at a time in AVX-512 registers.
    Avx512,
}

impl Kernel {
    /// All kernels.
    pub const ALL: [Self; 4] = [Self::Portable, Self::ShaNi, Self::Avx2, Self::Avx512];

    /// Stable lower-case name, used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::ShaNi => "sha_ni",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this CPU and its operating system can run the kernel for `algorithm`. The answers of the CPU are
    /// remembered by the standard library.
    #[must_use]
    pub fn is_available(self, algorithm: HashAlgorithm) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Portable => true,
            Self::ShaNi => {
                algorithm == HashAlgorithm::Sha256
                    && is_x86_feature_detected!("sha")
                    && is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
            }
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Portable;
    }

    /// Below this many messages a batch leaves too many lanes idle to gain anything.
    const fn batch_min(self) -> usize {
        match self {
            Self::Portable => 1,
            Self::ShaNi => 2,
            Self::Avx2 => 4,
            Self::Avx512 => 8,
        }
    }
}

/// The kernel that batches of `algorithm` use on this CPU.
///
/// Which is fastest depends on the CPU: SHA-NI is fast, and some cores take two cycles for a 512-bit operation. The
/// available ones are therefore timed once, for about a millisecond.
#[must_use]
pub fn active_kernel(algorithm: HashAlgorithm) -> Kernel {
    static SHA256: LazyLock<Kernel> = LazyLock::new(|| fastest(HashAlgorithm::Sha256));
    static SM3: LazyLock<Kernel> = LazyLock::new(|| fastest(HashAlgorithm::Sm3));
    match algorithm {
        HashAlgorithm::Sha256 => *SHA256,
        HashAlgorithm::Sm3 => *SM3,
    }
}

/// Hashes `prefix ‖ message(index)` into `digests[index]` for each index.
pub(crate) fn digest_into<'a>(
    algorithm: HashAlgorithm,
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    // A single message does not even ask which kernel is fastest.
    let kernel = if digests.len() < 2 { Kernel::Portable } else { active_kernel(algorithm) };
    let kernel = match (kernel, digests.len()) {
        (kernel, count) if count >= kernel.batch_min() => kernel,
        (_, count) if count >= 2 && Kernel::ShaNi.is_available(algorithm) => Kernel::ShaNi,
        _ => Kernel::Portable,
    };
    digest_with(kernel, algorithm, prefix, message, digests);
}

/// Hashes `prefix ‖ left ‖ right` into `digests[index]` for the pair of each index.
pub(crate) fn pairs_into(algorithm: HashAlgorithm, prefix: &[u8], pairs: &[[Digest; 2]], digests: &mut [Digest]) {
    let kernel = if digests.len() < 2 { Kernel::Portable } else { active_kernel(algorithm) };
    let done = pairs_with(kernel, algorithm, prefix, pairs, digests);
    digest_into(algorithm, prefix, &|index| pairs[done + index].as_flattened(), &mut digests[done..]);
}

/// Hashes those of the first pairs for which a named kernel has code of its own; returns how many.
fn pairs_with(
    kernel: Kernel,
    algorithm: HashAlgorithm,
    prefix: &[u8],
    pairs: &[[Digest; 2]],
    digests: &mut [Digest],
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let (Kernel::Avx512, [prefix]) = (kernel, prefix)
        && kernel.is_available(algorithm)
    {
        // SAFETY: the CPU was asked just now for what the kernel uses.
        return unsafe {
            match algorithm {
                HashAlgorithm::Sha256 => avx512::sha256::node_pairs(*prefix, pairs, digests),
                HashAlgorithm::Sm3 => avx512::sm3::node_pairs(*prefix, pairs, digests),
            }
        };
    }
    let _ = (kernel, algorithm, prefix, pairs, digests);
    0
}

/// Hashes with a named kernel, or one at a time if this CPU does not have it or the prefix leaves no room in a block.
fn digest_with<'a>(
    kernel: Kernel,
    algorithm: HashAlgorithm,
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    #[cfg(target_arch = "x86_64")]
    if kernel.is_available(algorithm) && prefix.len() <= lanes::PREFIX_MAX {
        // SAFETY: the CPU was asked just now for what the kernel uses.
        unsafe {
            match (kernel, algorithm) {
                (Kernel::Portable, _) => one_at_a_time(algorithm, prefix, message, digests),
                (Kernel::ShaNi, _) => lanes::digest_into::<sha_ni::Sha256Lanes, _>(prefix, message, digests),
                (Kernel::Avx2, HashAlgorithm::Sha256) => {
                    lanes::digest_into::<avx2::sha256::Sha256Lanes, _>(prefix, message, digests);
                }
                (Kernel::Avx2, HashAlgorithm::Sm3) => {
                    lanes::digest_into::<avx2::sm3::Sm3Lanes, _>(prefix, message, digests);
                }
                (Kernel::Avx512, HashAlgorithm::Sha256) => {
                    lanes::digest_into::<avx512::sha256::Sha256Lanes, _>(prefix, message, digests);
                }
                (Kernel::Avx512, HashAlgorithm::Sm3) => {
                    lanes::digest_into::<avx512::sm3::Sm3Lanes, _>(prefix, message, digests);
                }
            }
        }
        return;
    }
    let _ = kernel;
    one_at_a_time(algorithm, prefix, message, digests);
}

fn one_at_a_time<'a>(
    algorithm: HashAlgorithm,
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    for (index, slot) in digests.iter_mut().enumerate() {
        *slot = digest(algorithm, prefix, message(index));
    }
}

/// Times the kernels on messages of the size of a statement.
fn fastest(algorithm: HashAlgorithm) -> Kernel {
    /// Runs of each kernel; the best counts, so that an interruption decides nothing.
    const RUNS: usize = 4;
    /// Messages of a run.
    const MESSAGES: usize = 64;
    let message = [0x5a; 256];
    let mut digests = [[0; 32]; MESSAGES];
    let mut time = |kernel| {
        let started = Instant::now();
        digest_with(kernel, algorithm, &[0], &|_| &message, &mut digests);
        started.elapsed()
    };
    let candidates = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available(algorithm));
    let timed = candidates.map(|kernel| ((0..RUNS).map(|_| time(kernel)).min().unwrap_or(Duration::MAX), kernel));
    timed.min_by_key(|(elapsed, _)| *elapsed).map_or(Kernel::Portable, |(_, kernel)| kernel)
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
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available(algorithm)) {
            let mut digests = vec![[0; 32]; messages.len()];
            digest_with(kernel, algorithm, prefix, &|index| &messages[index], &mut digests);
            assert_eq!(digests, expected, "{algorithm:?} through {}", kernel.name());
        }
    }

    #[test]
    fn pairs_have_the_digests_of_their_bytes() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            for count in [0, 1, 2, 15, 16, 17, 31, 32, 100] {
                let half = |index: usize| digest(algorithm, &[], &index.to_be_bytes());
                let pairs: Vec<[Digest; 2]> = (0..count).map(|index| [half(2 * index), half(2 * index + 1)]).collect();
                for prefix in [&[][..], &[0], &[0x01], &[0xff], &[1, 2]] {
                    let expected = pairs.iter().map(|pair| digest(algorithm, prefix, pair.as_flattened()));
                    let expected: Vec<Digest> = expected.collect();
                    let mut digests = vec![[0; 32]; count];
                    pairs_into(algorithm, prefix, &pairs, &mut digests);
                    assert_eq!(digests, expected);
                    for kernel in Kernel::ALL {
                        let mut digests = vec![[0; 32]; count];
                        let done = pairs_with(kernel, algorithm, prefix, &pairs, &mut digests);
                        assert_eq!(digests[..done], expected[..done], "{}", kernel.name());
                    }
                }
            }
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
