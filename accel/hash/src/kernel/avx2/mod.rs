//! Eight messages at a time in AVX2 registers, for CPUs without AVX-512.

pub(super) mod sha256;
pub(super) mod sm3;
mod words;

/// 32-bit words of a register.
pub(super) const LANES: usize = 8;
