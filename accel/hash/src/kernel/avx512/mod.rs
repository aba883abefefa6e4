//! Sixteen messages at a time in AVX-512 registers.

mod pairs;
pub(super) mod sha256;
pub(super) mod sm3;
mod transpose;

/// 32-bit words of a register.
pub(super) const LANES: usize = 16;
