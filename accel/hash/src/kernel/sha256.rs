//! SHA-256 in sixteen lanes, FIPS 180-4 section 6.2.2.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
};

use crate::{
    algorithm::HashAlgorithm,
    kernel::{
        lanes::{Block, Compression, LANES, State},
        transpose::{load_state, load_words, store_state},
    },
};

/// `x ^ y ^ z` as a truth table.
const XOR: i32 = 0x96;
/// `x ? y : z` as a truth table.
const CHOICE: i32 = 0xca;
/// The majority of three bits as a truth table.
const MAJORITY: i32 = 0xe8;

/// Section 4.2.2.
const CONSTANTS: [[u32; 16]; 4] = [
    [
        0x428a_2f98,
        0x7137_4491,
        0xb5c0_fbcf,
        0xe9b5_dba5,
        0x3956_c25b,
        0x59f1_11f1,
        0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98,
        0x1283_5b01,
        0x2431_85be,
        0x550c_7dc3,
        0x72be_5d74,
        0x80de_b1fe,
        0x9bdc_06a7,
        0xc19b_f174,
    ],
    [
        0xe49b_69c1,
        0xefbe_4786,
        0x0fc1_9dc6,
        0x240c_a1cc,
        0x2de9_2c6f,
        0x4a74_84aa,
        0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152,
        0xa831_c66d,
        0xb003_27c8,
        0xbf59_7fc7,
        0xc6e0_0bf3,
        0xd5a7_9147,
        0x06ca_6351,
        0x1429_2967,
    ],
    [
        0x27b7_0a85,
        0x2e1b_2138,
        0x4d2c_6dfc,
        0x5338_0d13,
        0x650a_7354,
        0x766a_0abb,
        0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1,
        0xa81a_664b,
        0xc24b_8b70,
        0xc76c_51a3,
        0xd192_e819,
        0xd699_0624,
        0xf40e_3585,
        0x106a_a070,
    ],
    [
        0x19a4_c116,
        0x1e37_6c08,
        0x2748_774c,
        0x34b0_bcb5,
        0x391c_0cb3,
        0x4ed8_aa4a,
        0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee,
        0x78a5_636f,
        0x84c8_7814,
        0x8cc7_0208,
        0x90be_fffa,
        0xa450_6ceb,
        0xbef9_a3f7,
        0xc671_78f2,
    ],
];

/// The compression function of SHA-256.
pub(super) struct Sha256Lanes;

impl Compression for Sha256Lanes {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::Sha256;
    /// Section 5.3.3.
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    /// A core with SHA-NI hashes one message at half the speed of all lanes or a little more.
    const LANES_MIN: usize = 9;

    unsafe fn compress(state: &mut State, blocks: &[&Block; LANES]) {
        // SAFETY: this function has the same condition.
        unsafe { compress(state, blocks) }
    }
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
fn compress(state: &mut State, blocks: &[&Block; LANES]) {
    let mut w = load_words(blocks);
    let before = load_state(state);
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
    store_state(state, after);
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
