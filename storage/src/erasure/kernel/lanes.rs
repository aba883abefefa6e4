//! The loop that the vector kernels share.
//!
//! Output shards are made in groups, so that an input is loaded once for the whole group and every sum stays in a register
//! until it is complete. Shards are walked in strips that stay in the caches while one group follows the other.

use crate::erasure::matrix::Matrix;

/// Output shards of a group: with two vectors of each, half of the sixteen registers of AVX.
const GROUP: usize = 4;

/// Bytes of each shard that all groups are done with before the next: 36 such strips fit a second cache of 256 KiB.
const STRIP: usize = 4096;

/// Bytes of the widest vector; shorter shards are not for these kernels.
pub(super) const BYTES_MAX: usize = 64;

/// Registers of bytes and what is done with them.
///
/// # Safety
///
/// `BYTES` is the size of a vector and at most `BYTES_MAX`. Callers answer for the CPU's having the instructions that the
/// implementation names, and for the `BYTES` bytes at an address.
pub(super) unsafe trait Lanes {
    /// A register.
    type Vector: Copy;
    /// What of an input is multiplied by all factors.
    type Operand: Copy;
    /// An element of the matrix.
    type Factor;
    /// Bytes of a vector.
    const BYTES: usize;

    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const u8) -> Self::Operand;
    unsafe fn store(to: *mut u8, vector: Self::Vector);
    /// `sum` plus `factor` times `operand`.
    unsafe fn add_product(sum: Self::Vector, factor: &Self::Factor, operand: Self::Operand) -> Self::Vector;
}

/// The elements of a matrix in the order in which they are used: group by group, in a group column by column.
pub(super) fn factors<F>(matrix: &Matrix, factor: fn(u8) -> F) -> Vec<F> {
    let rows: Vec<&[u8]> = matrix.rows().collect();
    let columns = rows.first().map_or(0, |row| row.len());
    let of_group = |group: &[&[u8]]| {
        let elements = (0..columns).flat_map(|column| group.iter().map(move |row| row[column]));
        elements.map(factor).collect::<Vec<F>>()
    };
    rows.chunks(GROUP).flat_map(of_group).collect()
}

/// Overwrites each output with the sum of all inputs times their factors, `VECTORS` vectors of each shard at a time.
///
/// # Safety
///
/// The CPU has the instructions of `L`; the factors are [`factors`] of as many rows and columns as there are outputs and
/// inputs; all shards are of one length, of at least [`BYTES_MAX`].
#[inline(always)]
pub(super) unsafe fn apply<L: Lanes, const VECTORS: usize>(
    factors: &[L::Factor],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
) {
    let length = inputs[0].len();
    for start in (0..length).step_by(STRIP) {
        let end = length.min(start + STRIP);
        let groups = factors.chunks(GROUP * inputs.len()).zip(outputs.chunks_mut(GROUP));
        for (factors, outputs) in groups {
            // SAFETY: the caller's; a strip lies in the shards, and a group's factors are those of its outputs.
            unsafe {
                match outputs.len() {
                    1 => apply_strip::<L, VECTORS, 1>(factors, inputs, outputs, start, end),
                    2 => apply_strip::<L, VECTORS, 2>(factors, inputs, outputs, start, end),
                    3 => apply_strip::<L, VECTORS, 3>(factors, inputs, outputs, start, end),
                    _ => apply_strip::<L, VECTORS, GROUP>(factors, inputs, outputs, start, end),
                }
            }
        }
    }
}

/// # Safety
///
/// As [`apply`], for `OUTPUTS` outputs and their factors, and the bytes from `start` to `end` that lie in every shard.
#[inline(always)]
unsafe fn apply_strip<L: Lanes, const VECTORS: usize, const OUTPUTS: usize>(
    factors: &[L::Factor],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    start: usize,
    end: usize,
) {
    let (factors, _) = factors.as_chunks::<OUTPUTS>();
    let mut at = start;
    // SAFETY: the caller's; each call is given a place after which as many bytes as it touches lie in every shard. The last
    // begins before `at` if the rest is less than a vector: shards have room for that, and what is made twice is the same.
    unsafe {
        while end - at >= VECTORS * L::BYTES {
            apply_vectors::<L, VECTORS, OUTPUTS>(factors, inputs, outputs, at);
            at += VECTORS * L::BYTES;
        }
        while end - at >= L::BYTES {
            apply_vectors::<L, 1, OUTPUTS>(factors, inputs, outputs, at);
            at += L::BYTES;
        }
        if at < end {
            apply_vectors::<L, 1, OUTPUTS>(factors, inputs, outputs, end - L::BYTES);
        }
    }
}

/// # Safety
///
/// As [`apply`], for `OUTPUTS` outputs and their factors, input by input, and the `VECTORS` vectors at `at` that lie in
/// every shard.
#[inline(always)]
unsafe fn apply_vectors<L: Lanes, const VECTORS: usize, const OUTPUTS: usize>(
    factors: &[[L::Factor; OUTPUTS]],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    at: usize,
) {
    // SAFETY: the caller's; an offset below `VECTORS * BYTES` stays in what it answers for.
    unsafe {
        let mut sums = [[L::zero(); VECTORS]; OUTPUTS];
        for (input, factors) in inputs.iter().zip(factors) {
            for vector in 0..VECTORS {
                let operand = L::load(input.as_ptr().add(at + vector * L::BYTES));
                for (sums, factor) in sums.iter_mut().zip(factors) {
                    sums[vector] = L::add_product(sums[vector], factor, operand);
                }
            }
        }
        for (output, sums) in outputs.iter_mut().zip(sums) {
            for (vector, sum) in sums.into_iter().enumerate() {
                L::store(output.as_mut_ptr().add(at + vector * L::BYTES), sum);
            }
        }
    }
}
