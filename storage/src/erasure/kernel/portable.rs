//! Multiplication in safe Rust, which the compiler turns into whatever vector instructions every CPU of its target has.
//!
//! Without a shuffle, a look-up is one byte at a time. Doubling and adding are not, so a sum of products is taken by
//! Horner's rule over the bits of the factors: the sum of the inputs whose factor has the top bit, doubled, plus those that
//! have the next bit, and so on. That is seven doublings for each output, however many inputs there are.

use crate::erasure::{DATA_SHARDS_MAX, field::CARRY, matrix::Matrix};

/// Bytes of each shard that are worked on together: enough to hide latencies, and all inputs' fit the first cache.
const BLOCK: usize = 256;

type Block = [u8; BLOCK];

/// Overwrites each output with the row's sum of products. All shards are of one length.
pub(super) fn apply(matrix: &Matrix, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let length = inputs.first().map_or(0, |input| input.len());
    // Shards lie a power of two apart, often, and would then contend for the same few lines of the cache.
    let mut blocks = [[0; BLOCK]; DATA_SHARDS_MAX];
    for start in (0..length).step_by(BLOCK) {
        let range = start..length.min(start + BLOCK);
        for (block, input) in blocks.iter_mut().zip(inputs) {
            block[..range.len()].copy_from_slice(&input[range.clone()]);
        }
        for (row, output) in matrix.rows().zip(&mut *outputs) {
            output[range.clone()].copy_from_slice(&sum_of_products(row, &blocks)[..range.len()]);
        }
    }
}

fn sum_of_products(row: &[u8], blocks: &[Block]) -> Block {
    let mut sum = [0; BLOCK];
    for bit in (0..8).rev() {
        for byte in &mut sum {
            *byte = (*byte << 1) ^ (CARRY & 0_u8.wrapping_sub(*byte >> 7));
        }
        for (factor, block) in row.iter().zip(blocks) {
            if factor >> bit & 1 == 1 {
                for (byte, input) in sum.iter_mut().zip(block) {
                    *byte ^= input;
                }
            }
        }
    }
    sum
}
