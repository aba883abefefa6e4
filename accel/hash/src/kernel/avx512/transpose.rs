//! Loads sixteen blocks so that each register holds one word of all lanes.

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::kernel::{
    avx512::LANES,
    lanes::{Block, State},
};

/// Word `i` of the big-endian blocks in element `i` of the result, lane by lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn load_words(blocks: &[&Block; LANES]) -> [__m512i; LANES] {
    let zero = _mm512_setzero_si512();
    // Reverses the bytes of each 32-bit word.
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let mut rows = [zero; LANES];
    for (row, block) in rows.iter_mut().zip(blocks) {
        // SAFETY: a block has 64 bytes, as many as the unaligned load reads.
        *row = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        *row = _mm512_shuffle_epi8(*row, swap);
    }
    // Pairs of rows, then quadruples: afterwards `quads[4g + j]` holds in its 128-bit part q the words
    // 4q + j of rows 4g to 4g + 3.
    let mut pairs = [zero; LANES];
    for pair in 0..8 {
        pairs[2 * pair] = _mm512_unpacklo_epi32(rows[2 * pair], rows[2 * pair + 1]);
        pairs[2 * pair + 1] = _mm512_unpackhi_epi32(rows[2 * pair], rows[2 * pair + 1]);
    }
    let mut quads = [zero; LANES];
    for group in (0..LANES).step_by(4) {
        quads[group] = _mm512_unpacklo_epi64(pairs[group], pairs[group + 2]);
        quads[group + 1] = _mm512_unpackhi_epi64(pairs[group], pairs[group + 2]);
        quads[group + 2] = _mm512_unpacklo_epi64(pairs[group + 1], pairs[group + 3]);
        quads[group + 3] = _mm512_unpackhi_epi64(pairs[group + 1], pairs[group + 3]);
    }
    // The 128-bit parts of four registers are themselves a 4 × 4 matrix to transpose.
    let mut words = [zero; LANES];
    for j in 0..4 {
        let even_low = _mm512_shuffle_i32x4::<0x88>(quads[j], quads[4 + j]);
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(quads[j], quads[4 + j]);
        let even_high = _mm512_shuffle_i32x4::<0x88>(quads[8 + j], quads[12 + j]);
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(quads[8 + j], quads[12 + j]);
        words[j] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
        words[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        words[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
        words[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
    words
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_state(state: &State<LANES>) -> [__m512i; 8] {
    // SAFETY: each row has 16 words, as many bytes as the unaligned load reads.
    state.0.each_ref().map(|row| unsafe { _mm512_loadu_si512(row.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store_state(state: &mut State<LANES>, words: [__m512i; 8]) {
    for (row, word) in state.0.iter_mut().zip(words) {
        // SAFETY: each row has 16 words, as many bytes as the unaligned store writes.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), word) };
    }
}
