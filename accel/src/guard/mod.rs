//! Never wrong: what a device says is believed only as far as it is checked.
//!
//! - Each result carries a tag that depends on a nonce of its batch, so what was never written, or was written for
//!   another batch, is no result ([`tag`]).
//! - Each piece of a batch of signatures carries canaries of known verdict at random places ([`canary`]).
//! - A random share of results is computed again on the CPU. A signature that the device calls invalid always is: that
//!   verdict of a device is never used.
//! - One mismatch quarantines the device for as long as the engine lives, and what it accepted last is verified again
//!   ([`window`]).
//!
//! Checking one in 256 finds a device that errs in 1 % of 65,536 results with a probability above 92 %, and one that
//! errs once almost never; so quorum signatures, which are few, are the CPU's.

pub(crate) mod canary;
pub(crate) mod tag;
pub(crate) mod window;

use std::sync::atomic::{AtomicU64, Ordering};

use rand_core::{OsRng, RngCore};

use crate::figures::GpuFigures;

/// How a device was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A result without its tag.
    Tag,
    /// A digest that the CPU computes differently.
    Digest,
    /// A canary with the wrong verdict.
    Canary,
    /// A signature called valid that is not.
    Valid,
    /// A signature called invalid that is valid.
    Invalid,
}

/// What the checks did.
#[derive(Debug, Default)]
pub(crate) struct GuardCounters {
    faults: [AtomicU64; Fault::COUNT],
    rechecked: AtomicU64,
    retained_wrong: AtomicU64,
}

impl Fault {
    pub(crate) const COUNT: usize = 5;

    /// Names for figures.
    pub(crate) const LABELS: [&str; Self::COUNT] = ["tag", "digest", "canary", "valid", "invalid"];

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Tag => "a result without its tag",
            Self::Digest => "a wrong digest",
            Self::Canary => "a wrong verdict on a canary",
            Self::Valid => "a signature called valid that is not",
            Self::Invalid => "a signature called invalid that is valid",
        }
    }
}

impl GuardCounters {
    pub(crate) fn fault(&self, fault: Fault) {
        self.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rechecked(&self, results: usize) {
        self.rechecked.fetch_add(results as u64, Ordering::Relaxed);
    }

    /// Signatures that the device had accepted wrongly, found when it was found out.
    pub(crate) fn retained_wrong(&self, items: usize) {
        self.retained_wrong.fetch_add(items as u64, Ordering::Relaxed);
    }

    pub(crate) fn fill(&self, figures: &mut GpuFigures) {
        figures.rechecked = self.rechecked.load(Ordering::Relaxed);
        figures.retained_wrong = self.retained_wrong.load(Ordering::Relaxed);
        figures.faults = self.faults.each_ref().map(|count| count.load(Ordering::Relaxed));
    }
}

/// Random places in a batch. A device does not choose its faults, so an even spread from a fresh seed is enough.
#[derive(Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new() -> Self {
        Self(OsRng.next_u64())
    }

    /// A nonce for a batch.
    pub(crate) fn nonce(&mut self) -> [u32; 2] {
        [OsRng.next_u32(), OsRng.next_u32()]
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// About one in `one_in` of `0..count`, at least one, in ascending order.
    pub(crate) fn sample(&mut self, count: usize, one_in: u32) -> Vec<usize> {
        let step = usize::try_from(one_in.max(1)).unwrap_or(usize::MAX);
        (0..count).step_by(step).map(|start| start + self.below(step.min(count - start))).collect()
    }

    /// SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_takes_one_of_each_stretch() {
        let mut draw = Draw::new();
        for count in [1usize, 2, 255, 256, 257, 5000] {
            for one_in in [1u32, 2, 256] {
                let sample = draw.sample(count, one_in);
                let step = usize::try_from(one_in).expect("small");
                assert_eq!(sample.len(), count.div_ceil(step));
                assert!(sample.iter().enumerate().all(|(place, index)| index / step == place && *index < count));
            }
        }
        let seen: std::collections::HashSet<usize> = (0..200).map(|_| draw.sample(16, 16)[0]).collect();
        assert!(seen.len() > 8, "places are random");
    }
}
