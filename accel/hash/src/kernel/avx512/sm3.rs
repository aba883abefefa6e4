//! SM3 in sixteen lanes, GB/T 32905-2016 section 5.3.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_ternarylogic_epi32, _mm512_xor_si512,
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
        sm3::{CONSTANTS, INITIAL},
    },
};

/// `x ^ y ^ z` as a truth table: FF and GG of the first sixteen rounds.
const XOR: i32 = 0x96;
/// `x ? y : z` as a truth table: GG of the later rounds.
const CHOICE: i32 = 0xca;
/// The majority of three bits as a truth table: FF of the later rounds.
const MAJORITY: i32 = 0xe8;

/// The compression function of SM3.
pub(in crate::kernel) struct Sm3Lanes;

impl Compression<LANES> for Sm3Lanes {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sm3;
    const INITIAL: [u32; 8] = INITIAL;
    /// No instruction helps a single message, so two lanes already win.
    const LANES_MIN: usize = 2;

    unsafe fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]) {
        // SAFETY: the caller answers for AVX-512 F and BW.
        unsafe { compress(state, runs) }
    }
}

impl Advance for Sm3Lanes {
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
    pairs_into::<Sm3Lanes>(prefix, pairs, digests)
}

/// One round with the roles of the variables as they stand; `b`, `d`, `f` and `h` change.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident,
     $ff:ident $gg:ident, $j:expr, $w:expr, $later:expr) => {
        let turned = _mm512_rol_epi32::<12>($a);
        let constant = _mm512_set1_epi32(CONSTANTS[$j].cast_signed());
        let ss1 = _mm512_rol_epi32::<7>(_mm512_add_epi32(_mm512_add_epi32(turned, $e), constant));
        let ss2 = _mm512_xor_si512(ss1, turned);
        let ff = _mm512_ternarylogic_epi32::<$ff>($a, $b, $c);
        let gg = _mm512_ternarylogic_epi32::<$gg>($e, $f, $g);
        let mixed = _mm512_xor_si512($w, $later);
        let tt1 = _mm512_add_epi32(_mm512_add_epi32(ff, $d), _mm512_add_epi32(ss2, mixed));
        let tt2 = _mm512_add_epi32(_mm512_add_epi32(gg, $h), _mm512_add_epi32(ss1, $w));
        $b = _mm512_rol_epi32::<9>($b);
        $d = tt1;
        $f = _mm512_rol_epi32::<19>($f);
        $h = _mm512_ternarylogic_epi32::<XOR>(tt2, _mm512_rol_epi32::<9>(tt2), _mm512_rol_epi32::<17>(tt2));
    };
}

/// Sixteen rounds; `w` holds words `16p..16p+16` and `next` the sixteen after them.
macro_rules! rounds {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident,
     $ff:ident $gg:ident, $part:expr, $w:ident, $next:ident) => {
        round!($a $b $c $d $e $f $g $h, $ff $gg, $part * 16, $w[0], $w[4]);
        round!($d $a $b $c $h $e $f $g, $ff $gg, $part * 16 + 1, $w[1], $w[5]);
        round!($c $d $a $b $g $h $e $f, $ff $gg, $part * 16 + 2, $w[2], $w[6]);
        round!($b $c $d $a $f $g $h $e, $ff $gg, $part * 16 + 3, $w[3], $w[7]);
        round!($a $b $c $d $e $f $g $h, $ff $gg, $part * 16 + 4, $w[4], $w[8]);
        round!($d $a $b $c $h $e $f $g, $ff $gg, $part * 16 + 5, $w[5], $w[9]);
        round!($c $d $a $b $g $h $e $f, $ff $gg, $part * 16 + 6, $w[6], $w[10]);
        round!($b $c $d $a $f $g $h $e, $ff $gg, $part * 16 + 7, $w[7], $w[11]);
        round!($a $b $c $d $e $f $g $h, $ff $gg, $part * 16 + 8, $w[8], $w[12]);
        round!($d $a $b $c $h $e $f $g, $ff $gg, $part * 16 + 9, $w[9], $w[13]);
        round!($c $d $a $b $g $h $e $f, $ff $gg, $part * 16 + 10, $w[10], $w[14]);
        round!($b $c $d $a $f $g $h $e, $ff $gg, $part * 16 + 11, $w[11], $w[15]);
        round!($a $b $c $d $e $f $g $h, $ff $gg, $part * 16 + 12, $w[12], $next[0]);
        round!($d $a $b $c $h $e $f $g, $ff $gg, $part * 16 + 13, $w[13], $next[1]);
        round!($c $d $a $b $g $h $e $f, $ff $gg, $part * 16 + 14, $w[14], $next[2]);
        round!($b $c $d $a $f $g $h $e, $ff $gg, $part * 16 + 15, $w[15], $next[3]);
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
    let mut next = extend(&w);
    rounds!(a b c d e f g h, XOR XOR, 0, w, next);
    for part in 1..4 {
        w = next;
        next = extend(&w);
        rounds!(a b c d e f g h, MAJORITY CHOICE, part, w, next);
    }
    let mut after = [a, b, c, d, e, f, g, h];
    for (word, old) in after.iter_mut().zip(before) {
        *word = _mm512_xor_si512(*word, old);
    }
    after
}

/// The sixteen words of the expanded message after `w`, section 5.3.2.
#[target_feature(enable = "avx512f")]
#[inline]
fn extend(w: &[__m512i; 16]) -> [__m512i; 16] {
    let mut words = *w;
    macro_rules! word {
        ($($i:literal)*) => { $(
            let turned = _mm512_rol_epi32::<15>(words[($i + 13) % 16]);
            let sum = _mm512_ternarylogic_epi32::<XOR>(words[$i], words[($i + 7) % 16], turned);
            let mixed = _mm512_ternarylogic_epi32::<XOR>(
                sum,
                _mm512_rol_epi32::<15>(sum),
                _mm512_rol_epi32::<23>(sum),
            );
            words[$i] = _mm512_ternarylogic_epi32::<XOR>(
                mixed,
                _mm512_rol_epi32::<7>(words[($i + 3) % 16]),
                words[($i + 10) % 16],
            );
        )* };
    }
    word!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    words
}
