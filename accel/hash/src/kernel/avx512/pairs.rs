//! Nodes of trees: one byte before two digests, which is a block and a byte, so two blocks with the padding.
//!
//! The words of both blocks come from registers: nothing is copied into buffers, and the second block has one byte of the
//! message.

use std::arch::x86_64::{
    __m512i, _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32,
};

use super::{
    LANES,
    transpose::{load_words, store_state},
};
use crate::{
    algorithm::Digest,
    kernel::lanes::{State, take_digest},
};

/// Bits of a message: a byte and two digests.
const MESSAGE_BITS: i32 = 65 * 8;

/// A compression function on sixteen lanes of words.
pub(super) trait Advance {
    const INITIAL: [u32; 8];

    /// # Safety
    /// The CPU has AVX-512 F and BW.
    unsafe fn advance(before: [__m512i; 8], words: [__m512i; LANES]) -> [__m512i; 8];
}

/// Hashes `prefix ‖ left ‖ right` for whole groups of pairs; returns how many pairs.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn pairs_into<A: Advance>(prefix: u8, pairs: &[[Digest; 2]], digests: &mut [Digest]) -> usize {
    let groups = pairs.as_chunks::<LANES>().0.iter().zip(digests.as_chunks_mut::<LANES>().0);
    let mut done = 0;
    for (pairs, digests) in groups {
        let blocks = pairs.each_ref().map(|pair| pair.as_flattened().try_into().expect("two digests are a block"));
        let message = load_words(&blocks);
        let mut first = [_mm512_set1_epi32(i32::from(prefix) << 24); LANES];
        first[0] = _mm512_or_si512(first[0], _mm512_srli_epi32::<8>(message[0]));
        for word in 1..LANES {
            let (before, own) = (_mm512_slli_epi32::<24>(message[word - 1]), _mm512_srli_epi32::<8>(message[word]));
            first[word] = _mm512_or_si512(before, own);
        }
        let mut second = [_mm512_setzero_si512(); LANES];
        // The message's last byte and the one bit behind it; the length ends the block.
        second[0] = _mm512_or_si512(_mm512_slli_epi32::<24>(message[15]), _mm512_set1_epi32(0x0080_0000));
        second[15] = _mm512_set1_epi32(MESSAGE_BITS);
        let initial = A::INITIAL.map(|word| _mm512_set1_epi32(word.cast_signed()));
        // SAFETY: this function is compiled for AVX-512 F and BW alone.
        let words = unsafe { A::advance(A::advance(initial, first), second) };
        let mut state = State([[0; LANES]; 8]);
        store_state(&mut state, words);
        for (column, digest) in digests.iter_mut().enumerate() {
            *digest = take_digest(&state, column);
        }
        done += LANES;
    }
    done
}
