//! SM3 in eight lanes, GB/T 32905-2016 section 5.3.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_or_si256, _mm256_set1_epi32, _mm256_xor_si256,
};

use crate::{
    algorithm::HashAlgorithm,
    kernel::{
        avx2::{
            LANES,
            words::{load_state, load_words, rotate_left, store_state},
        },
        lanes::{Block, Compression, State, blocks_at, shortest},
        sm3::{CONSTANTS, INITIAL},
    },
};

/// The compression function of SM3.
pub(in crate::kernel) struct Sm3Lanes;

impl Compression<LANES> for Sm3Lanes {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sm3;
    const INITIAL: [u32; 8] = INITIAL;
    /// No instruction helps a single message, which takes about half of the time of all lanes.
    const LANES_MIN: usize = 2;

    unsafe fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
        // SAFETY: the caller answers for AVX2.
        unsafe { compress(state, runs) }
    }
}

#[target_feature(enable = "avx2")]
fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
    let mut words = load_state(state);
    for block in 0..shortest(runs) {
        words = advance(words, load_words(&blocks_at(runs, block)));
    }
    store_state(state, words);
}

/// One block of each lane.
#[target_feature(enable = "avx2")]
#[inline]
fn advance(before: [__m256i; 8], words: [__m256i; 16]) -> [__m256i; 8] {
    let mut state = before;
    let (mut w, mut next) = (words, extend(&words));
    for part in 0..4 {
        if part > 0 {
            (w, next) = (next, extend(&next));
        }
        for index in 0..16 {
            let later = if index < 12 { w[index + 4] } else { next[index - 12] };
            state = round(state, 16 * part + index, w[index], later);
        }
    }
    for (word, old) in state.iter_mut().zip(before) {
        *word = _mm256_xor_si256(*word, old);
    }
    state
}

#[target_feature(enable = "avx2")]
#[inline]
fn round([a, b, c, d, e, f, g, h]: [__m256i; 8], j: usize, word: __m256i, later: __m256i) -> [__m256i; 8] {
    let turned = rotate_left::<12>(a);
    let constant = _mm256_set1_epi32(CONSTANTS[j].cast_signed());
    let ss1 = rotate_left::<7>(_mm256_add_epi32(_mm256_add_epi32(turned, e), constant));
    let ss2 = _mm256_xor_si256(ss1, turned);
    let (ff, gg) = if j < 16 {
        (xor(a, b, c), xor(e, f, g))
    } else {
        let majority = _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)));
        (majority, _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g))))
    };
    let mixed = _mm256_xor_si256(word, later);
    let tt1 = _mm256_add_epi32(_mm256_add_epi32(ff, d), _mm256_add_epi32(ss2, mixed));
    let tt2 = _mm256_add_epi32(_mm256_add_epi32(gg, h), _mm256_add_epi32(ss1, word));
    let e_next = xor(tt2, rotate_left::<9>(tt2), rotate_left::<17>(tt2));
    [tt1, a, rotate_left::<9>(b), c, e_next, e, rotate_left::<19>(f), g]
}

/// The sixteen words of the expanded message after `w`, section 5.3.2.
#[target_feature(enable = "avx2")]
#[inline]
fn extend(w: &[__m256i; 16]) -> [__m256i; 16] {
    let mut words = *w;
    for i in 0..16 {
        let sum = xor(words[i], words[(i + 7) % 16], rotate_left::<15>(words[(i + 13) % 16]));
        let mixed = xor(sum, rotate_left::<15>(sum), rotate_left::<23>(sum));
        words[i] = xor(mixed, rotate_left::<7>(words[(i + 3) % 16]), words[(i + 10) % 16]);
    }
    words
}

#[target_feature(enable = "avx2")]
#[inline]
fn xor(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(x, y), z)
}
