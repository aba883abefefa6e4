//! Random moments and choices, with the seed on record so that a failing run can be repeated.

use std::time::Duration;

use anyhow::{Context as _, Result};
use stele_ctl::author::random;

/// A small generator (xorshift64*, Vigna 2016): its seed is printed, so that `STELE_SEED` repeats the choices.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// A generator from `STELE_SEED`, or from a fresh seed, which it prints.
    ///
    /// # Errors
    /// When `STELE_SEED` is no number or the system gives no random bytes.
    pub fn seeded() -> Result<Self> {
        let seed = match std::env::var("STELE_SEED") {
            Ok(text) => text.parse().context("STELE_SEED is no whole number")?,
            Err(_) => u64::from_le_bytes(random()?),
        };
        #[expect(clippy::print_stderr, reason = "the seed is needed to repeat a failing test")]
        {
            eprintln!("STELE_SEED={seed}");
        }
        Ok(Self { state: seed | 1 })
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from((self.next() >> 11) % bound).unwrap_or_default()
    }

    /// A moment up to `longest`.
    pub fn moment(&mut self, longest: Duration) -> Duration {
        let millis = usize::try_from(longest.as_millis()).unwrap_or(usize::MAX);
        Duration::from_millis(u64::try_from(self.below(millis)).unwrap_or_default())
    }
}
