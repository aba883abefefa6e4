//! Loads eight blocks so that each register holds one word of all lanes, and what AVX2 has no instruction for.

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sll_epi32, _mm256_srl_epi32, _mm256_storeu_si256,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use crate::kernel::{
    avx2::LANES,
    lanes::{Block, State},
};

/// `word` rotated left by `BITS`.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn rotate_left<const BITS: i32>(word: __m256i) -> __m256i {
    let (left, right) = (_mm_cvtsi32_si128(BITS), _mm_cvtsi32_si128(32 - BITS));
    _mm256_or_si256(_mm256_sll_epi32(word, left), _mm256_srl_epi32(word, right))
}

/// Word `i` of the big-endian blocks in element `i` of the result, lane by lane.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load_words(blocks: &[&Block; LANES]) -> [__m256i; 16] {
    let mut words = [_mm256_setzero_si256(); 16];
    for (half, words) in words.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (word, block) in words.iter_mut().zip(blocks) {
            *word = load_half(block, half);
        }
        *words = transpose(*words);
    }
    words
}

/// Eight words of a block, in the byte order of the CPU.
#[target_feature(enable = "avx2")]
#[inline]
fn load_half(block: &Block, half: usize) -> __m256i {
    let (low, high) = (0x0405_0607_0001_0203, 0x0c0d_0e0f_0809_0a0b);
    let swap = _mm256_set_epi64x(high, low, high, low);
    let words = &block.as_chunks::<32>().0[half];
    // SAFETY: half a block has 32 bytes, as many as the unaligned load reads.
    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    _mm256_shuffle_epi8(words, swap)
}

/// An 8 × 8 matrix of words: pairs of rows, quadruples, then halves.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = rows;
    for pair in 0..4 {
        pairs[2 * pair] = _mm256_unpacklo_epi32(rows[2 * pair], rows[2 * pair + 1]);
        pairs[2 * pair + 1] = _mm256_unpackhi_epi32(rows[2 * pair], rows[2 * pair + 1]);
    }
    let mut quads = pairs;
    for group in [0, 4] {
        quads[group] = _mm256_unpacklo_epi64(pairs[group], pairs[group + 2]);
        quads[group + 1] = _mm256_unpackhi_epi64(pairs[group], pairs[group + 2]);
        quads[group + 2] = _mm256_unpacklo_epi64(pairs[group + 1], pairs[group + 3]);
        quads[group + 3] = _mm256_unpackhi_epi64(pairs[group + 1], pairs[group + 3]);
    }
    let mut words = quads;
    for word in 0..4 {
        words[word] = _mm256_permute2x128_si256::<0x20>(quads[word], quads[word + 4]);
        words[word + 4] = _mm256_permute2x128_si256::<0x31>(quads[word], quads[word + 4]);
    }
    words
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load_state(state: &State<LANES>) -> [__m256i; 8] {
    // SAFETY: each row has 8 words, as many bytes as the unaligned load reads.
    state.0.each_ref().map(|row| unsafe { _mm256_loadu_si256(row.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store_state(state: &mut State<LANES>, words: [__m256i; 8]) {
    for (row, word) in state.0.iter_mut().zip(words) {
        // SAFETY: each row has 8 words, as many bytes as the unaligned store writes.
        unsafe { _mm256_storeu_si256(row.as_mut_ptr().cast(), word) };
    }
}
