//! SHA-256 of two messages at a time by the SHA instructions, whose latency one message alone cannot hide.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

use crate::{
    algorithm::HashAlgorithm,
    kernel::{
        lanes::{Block, Compression, State, blocks_at, shortest},
        sha256::{CONSTANTS, INITIAL},
    },
};

/// Messages in flight.
pub(super) const LANES: usize = 2;

/// The compression function of SHA-256.
pub(super) struct Sha256Lanes;

impl Compression<LANES> for Sha256Lanes {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sha256;
    const INITIAL: [u32; 8] = INITIAL;
    const LANES_MIN: usize = 2;

    unsafe fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
        // SAFETY: the caller answers for SHA, SSSE3 and SSE4.1.
        unsafe { compress(state, runs) }
    }
}

/// The state as the instructions want it: words F, E, B, A and H, G, D, C from the lowest.
type Halves = [__m128i; 2];

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
    let mut lanes: [Halves; LANES] = std::array::from_fn(|lane| {
        let [a, b, c, d, e, f, g, h] = state.0.each_ref().map(|word| word[lane].cast_signed());
        [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
    });
    for block in 0..shortest(runs) {
        advance(&mut lanes, &blocks_at(runs, block));
    }
    for (lane, [abef, cdgh]) in lanes.into_iter().enumerate() {
        let ([f, e, b, a], [h, g, d, c]) = (words_of(abef), words_of(cdgh));
        for (row, word) in state.0.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            row[lane] = word;
        }
    }
}

/// One block of each lane, four rounds of each in turns.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn advance(lanes: &mut [Halves; LANES], blocks: &[&Block; LANES]) {
    let before = *lanes;
    let mut schedules = [load_words(blocks[0]), load_words(blocks[1])];
    for (part, constants) in CONSTANTS.iter().enumerate() {
        for (quarter, constants) in constants.as_chunks::<4>().0.iter().enumerate() {
            let [k0, k1, k2, k3] = constants.map(u32::cast_signed);
            let constants = _mm_set_epi32(k3, k2, k1, k0);
            for ([abef, cdgh], schedule) in lanes.iter_mut().zip(&mut schedules) {
                let keys = _mm_add_epi32(schedule[quarter], constants);
                *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, keys);
                *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(keys));
                if part < 3 {
                    schedule[quarter] = extend(schedule, quarter);
                }
            }
        }
    }
    for (lane, old) in lanes.iter_mut().zip(before) {
        for (half, old) in lane.iter_mut().zip(old) {
            *half = _mm_add_epi32(*half, old);
        }
    }
}

/// The four words of the message schedule that take the place of a quarter of the last sixteen.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn extend(schedule: &[__m128i; 4], quarter: usize) -> __m128i {
    let (w0, w4) = (schedule[quarter], schedule[(quarter + 1) % 4]);
    let (w8, w12) = (schedule[(quarter + 2) % 4], schedule[(quarter + 3) % 4]);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w4), _mm_alignr_epi8::<4>(w12, w8));
    _mm_sha256msg2_epu32(sum, w12)
}

/// The sixteen words of a block, four in a register.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn load_words(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let quarters = block.as_chunks::<16>().0;
    let mut words = [swap; 4];
    for (words, quarter) in words.iter_mut().zip(quarters) {
        // SAFETY: a quarter of a block has 16 bytes, as many as the unaligned load reads.
        *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) }, swap);
    }
    words
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn words_of(register: __m128i) -> [u32; 4] {
    let mut words = [0; 4];
    // SAFETY: four words are as many bytes as the unaligned store writes.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), register) };
    words
}
