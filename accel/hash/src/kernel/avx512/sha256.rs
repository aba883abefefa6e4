//! SHA-256 in sixteen lanes, FIPS 180-4 section 6.2.2.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    kernel::{
        avx512::{
            LANES,
            pairs::{Advance, pairs_into},
            transpose::{load_state, load_words, store_state},
        },
        lanes::{Block, Compression, State, blocks_at, shortest},
        sha256::{CONSTANTS, INITIAL},
    },
};

/// `x ^ y ^ z` as a truth table.
const XOR: i32 = 0x96;
/// `x ? y : z` as a truth table.
const CHOICE: i32 = 0xca;
/// The majority of three bits as a truth table.
const MAJORITY: i32 = 0xe8;

/// The compression function of SHA-256.
pub(in crate::kernel) struct Sha256Lanes;

impl Compression<LANES> for Sha256Lanes {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sha256;
    const INITIAL: [u32; 8] = INITIAL;
    /// A core with SHA-NI hashes one message at half the speed of all lanes or a little more.
    const LANES_MIN: usize = 9;

    unsafe fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
        // SAFETY: the caller answers for AVX-512 F and BW.
        unsafe { compress(state, runs) }
    }
}

impl Advance for Sha256Lanes {
    const INITIAL: [u32; 8] = INITIAL;

    #[inline(always)]
    unsafe fn advance(before: [__m512i; 8], words: [__m512i; LANES]) -> [__m512i; 8] {
        // SAFETY: the caller answers for AVX-512 F and BW.
        unsafe { advance(before, words) }
    }
}

/// Hashes nodes of trees, as [`pairs_into`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::kernel) fn node_pairs(prefix: u8, pairs: &[[Digest; 2]], digests: &mut [Digest]) -> usize {
    pairs_into::<Sha256Lanes>(prefix, pairs, digests)
}

/// One round with the roles of the variables as they stand; only `d` and `h` change.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $k:expr, $w:expr) => {
        let sum1 = _mm512_ternarylogic_epi32::<XOR>(
            _mm512_ror_epi32::<6>($e),
            _mm512_ror_epi32::<11>($e),
            _mm512_ror_epi32::<25>($e),
        );
        let choice = _mm512_ternarylogic_epi32::<CHOICE>($e, $f, $g);
        let key = _mm512_add_epi32(_mm512_set1_epi32($k.cast_signed()), $w);
        let t1 = _mm512_add_epi32(_mm512_add_epi32($h, key), _mm512_add_epi32(sum1, choice));
        let sum0 = _mm512_ternarylogic_epi32::<XOR>(
            _mm512_ror_epi32::<2>($a),
            _mm512_ror_epi32::<13>($a),
            _mm512_ror_epi32::<22>($a),
        );
        let majority = _mm512_ternarylogic_epi32::<MAJORITY>($a, $b, $c);
        $d = _mm512_add_epi32($d, t1);
        $h = _mm512_add_epi32(t1, _mm512_add_epi32(sum0, majority));
    };
}

#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
    let mut words = load_state(state);
    for block in 0..shortest(runs) {
        words = advance(words, load_words(&blocks_at(runs, block)));
    }
    store_state(state, words);
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn advance(before: [__m512i; 8], mut w: [__m512i; 16]) -> [__m512i; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = before;
    for (part, k) in CONSTANTS.iter().enumerate() {
        if part > 0 {
            extend(&mut w);
        }
        round!(a b c d e f g h, k[0], w[0]);
        round!(h a b c d e f g, k[1], w[1]);
        round!(g h a b c d e f, k[2], w[2]);
        round!(f g h a b c d e, k[3], w[3]);
        round!(e f g h a b c d, k[4], w[4]);
        round!(d e f g h a b c, k[5], w[5]);
        round!(c d e f g h a b, k[6], w[6]);
        round!(b c d e f g h a, k[7], w[7]);
        round!(a b c d e f g h, k[8], w[8]);
        round!(h a b c d e f g, k[9], w[9]);
        round!(g h a b c d e f, k[10], w[10]);
        round!(f g h a b c d e, k[11], w[11]);
        round!(e f g h a b c d, k[12], w[12]);
        round!(d e f g h a b c, k[13], w[13]);
        round!(c d e f g h a b, k[14], w[14]);
        round!(b c d e f g h a, k[15], w[15]);
    }
    let mut after = [a, b, c, d, e, f, g, h];
    for (word, old) in after.iter_mut().zip(before) {
        *word = _mm512_add_epi32(*word, old);
    }
    after
}

/// The next sixteen words of the message schedule, in place of the last.
#[target_feature(enable = "avx512f")]
#[inline]
fn extend(w: &mut [__m512i; 16]) {
    macro_rules! word {
        ($($i:literal)*) => { $(
            let (early, late) = (w[($i + 1) % 16], w[($i + 14) % 16]);
            let sigma0 = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<7>(early),
                _mm512_ror_epi32::<18>(early),
                _mm512_srli_epi32::<3>(early),
            );
            let sigma1 = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<17>(late),
                _mm512_ror_epi32::<19>(late),
                _mm512_srli_epi32::<10>(late),
            );
            let sum = _mm512_add_epi32(w[$i], w[($i + 9) % 16]);
            w[$i] = _mm512_add_epi32(sum, _mm512_add_epi32(sigma0, sigma1));
        )* };
    }
    word!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}
