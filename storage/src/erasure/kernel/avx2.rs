//! AVX2: a factor times a byte is the sum of its products with the byte's two nibbles, of which there are sixteen each; a
//! shuffle looks up thirty-two at once (Plank, Greenan and Miller 2013).

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_xor_si256,
};

use crate::erasure::{field::product, kernel::lanes};

/// Products of an element and each nibble: those of the low nibbles, then those of the high ones.
pub(super) type Factor = [[u8; 16]; 2];

pub(super) fn factor(element: u8) -> Factor {
    let mut tables = [[0; 16]; 2];
    for nibble in 0..16_u8 {
        tables[0][usize::from(nibble)] = product(element, nibble);
        tables[1][usize::from(nibble)] = product(element, nibble << 4);
    }
    tables
}

/// # Safety
///
/// The CPU has AVX2; the rest is said by [`lanes::apply`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn apply(factors: &[Factor], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    // SAFETY: the caller's.
    unsafe { lanes::apply::<Nibbles, 2>(factors, inputs, outputs) }
}

struct Nibbles;

// SAFETY: an `__m256i` has 32 bytes.
unsafe impl lanes::Lanes for Nibbles {
    type Vector = __m256i;
    /// Low and high nibbles, each in a byte of its own.
    type Operand = [__m256i; 2];
    type Factor = Factor;
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller answers for AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller answers for AVX2 and for the bytes.
        unsafe {
            let (vector, nibble) = (_mm256_loadu_si256(from.cast()), _mm256_set1_epi8(0x0f));
            [_mm256_and_si256(vector, nibble), _mm256_and_si256(_mm256_srli_epi64::<4>(vector), nibble)]
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: __m256i) {
        // SAFETY: the caller answers for AVX2 and for the bytes.
        unsafe { _mm256_storeu_si256(to.cast(), vector) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m256i, [low, high]: &Factor, operand: [__m256i; 2]) -> __m256i {
        // SAFETY: the caller answers for AVX2, and a table has sixteen bytes.
        unsafe {
            let both_halves = |table: &[u8; 16]| -> __m256i {
                let table: __m128i = _mm_loadu_si128(table.as_ptr().cast());
                _mm256_broadcastsi128_si256(table)
            };
            let low = _mm256_shuffle_epi8(both_halves(low), operand[0]);
            let high = _mm256_shuffle_epi8(both_halves(high), operand[1]);
            _mm256_xor_si256(sum, _mm256_xor_si256(low, high))
        }
    }
}
