//! Which code multiplies shards.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use crate::erasure::ErasureCode;

/// Code that multiplies shards by a matrix. All backends give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErasureBackend {
    /// Safe Rust, on any CPU.
    Portable,
    /// Products of nibbles looked up by the shuffles of AVX2, 32 bytes at a time.
    Avx2,
    /// The affine instruction of GFNI in AVX registers, 32 bytes at a time.
    Gfni256,
    /// The affine instruction of GFNI in AVX-512 registers, 64 bytes at a time.
    Gfni512,
    /// The system's ISA-L, if it was there when this crate was built.
    IsaL,
}

impl ErasureBackend {
    /// All backends.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Gfni256, Self::Gfni512, Self::IsaL];

    /// Stable lower-case name, used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Gfni256 => "gfni256",
            Self::Gfni512 => "gfni512",
            Self::IsaL => "isal",
        }
    }

    /// Whether this CPU, its operating system and this build have what the backend needs. The answers of the CPU are
    /// remembered by the standard library.
    #[must_use]
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Portable => true,
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Gfni256 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni"),
            Self::Gfni512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("gfni"),
            Self::IsaL => cfg!(isal),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Portable || (self == Self::IsaL && cfg!(isal));
    }

    /// The backend that codes use unless told otherwise.
    ///
    /// Which is fastest depends on the CPU, and on the release of ISA-L: 2.30 uses no GFNI, and was measured at half the
    /// rate of [`Self::Avx2`] on an EPYC of family 23. The available ones are therefore timed once, for about a
    /// millisecond.
    #[must_use]
    pub fn active() -> Self {
        static ACTIVE: LazyLock<ErasureBackend> = LazyLock::new(fastest);
        *ACTIVE
    }
}

/// Times the backends on a small stripe of the usual shape.
fn fastest() -> ErasureBackend {
    /// Runs of each backend; the best counts, so that an interruption decides nothing.
    const RUNS: usize = 8;
    /// Bytes of a shard; the stripe fits the caches, so that memory decides nothing either.
    const SHARD: usize = 8192;
    let shard = vec![0x5a; SHARD];
    let data = [shard.as_slice(); 8];
    let mut parity = vec![0; 3 * SHARD];
    let mut time = |code: &ErasureCode| {
        let mut rows = parity.chunks_exact_mut(SHARD);
        let mut rows: [&mut [u8]; 3] = std::array::from_fn(|_| rows.next().unwrap_or_default());
        let started = Instant::now();
        code.encode(&data, &mut rows);
        started.elapsed()
    };
    let codes = ErasureBackend::ALL.into_iter().filter_map(|backend| ErasureCode::with_backend(8, 3, backend).ok());
    let timed = codes.map(|code| ((0..RUNS).map(|_| time(&code)).min().unwrap_or(Duration::MAX), code.backend()));
    timed.min_by_key(|(elapsed, _)| *elapsed).map_or(ErasureBackend::Portable, |(_, backend)| backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_backend_is_available_and_stays_the_same() {
        assert!(ErasureBackend::active().is_available());
        assert_eq!(ErasureBackend::active(), ErasureBackend::active());
    }
}
