//! SHA-256 in eight lanes, FIPS 180-4 section 6.2.2.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_or_si256, _mm256_set1_epi32, _mm256_srli_epi32,
    _mm256_xor_si256,
};

use crate::{
    algorithm::HashAlgorithm,
    kernel::{
        avx2::{
            LANES,
            words::{load_state, load_words, rotate_left, store_state},
        },
        lanes::{Block, Compression, State, blocks_at, shortest},
        sha256::{CONSTANTS, INITIAL},
    },
};

/// The compression function of SHA-256.
pub(in crate::kernel) struct Sha256Lanes;

impl Compression<LANES> for Sha256Lanes {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sha256;
    const INITIAL: [u32; 8] = INITIAL;
    /// Without SHA-NI, one message takes about a third of the time of all lanes.
    const LANES_MIN: usize = 3;

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
fn advance(before: [__m256i; 8], mut w: [__m256i; 16]) -> [__m256i; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = before;
    for (part, constants) in CONSTANTS.iter().enumerate() {
        if part > 0 {
            extend(&mut w);
        }
        for (word, constant) in w.iter().zip(constants) {
            let sum1 = xor(rotate_left::<26>(e), rotate_left::<21>(e), rotate_left::<7>(e));
            let choice = _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)));
            let key = _mm256_add_epi32(*word, _mm256_set1_epi32(constant.cast_signed()));
            let t1 = _mm256_add_epi32(_mm256_add_epi32(h, key), _mm256_add_epi32(sum1, choice));
            let sum0 = xor(rotate_left::<30>(a), rotate_left::<19>(a), rotate_left::<10>(a));
            let majority = _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)));
            let t2 = _mm256_add_epi32(sum0, majority);
            (h, g, f, e) = (g, f, e, _mm256_add_epi32(d, t1));
            (d, c, b, a) = (c, b, a, _mm256_add_epi32(t1, t2));
        }
    }
    let mut after = [a, b, c, d, e, f, g, h];
    for (word, old) in after.iter_mut().zip(before) {
        *word = _mm256_add_epi32(*word, old);
    }
    after
}

/// The next sixteen words of the message schedule, in place of the last.
#[target_feature(enable = "avx2")]
#[inline]
fn extend(w: &mut [__m256i; 16]) {
    for i in 0..16 {
        let (early, late) = (w[(i + 1) % 16], w[(i + 14) % 16]);
        let sigma0 = xor(rotate_left::<25>(early), rotate_left::<14>(early), _mm256_srli_epi32::<3>(early));
        let sigma1 = xor(rotate_left::<15>(late), rotate_left::<13>(late), _mm256_srli_epi32::<10>(late));
        let sum = _mm256_add_epi32(w[i], w[(i + 9) % 16]);
        w[i] = _mm256_add_epi32(sum, _mm256_add_epi32(sigma0, sigma1));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn xor(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(x, y), z)
}
