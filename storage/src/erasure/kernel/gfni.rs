//! GFNI: multiplication by an element is linear over GF(2), and one instruction multiplies bytes by any matrix of 8 times 8
//! bits. The instruction that multiplies in GF(2^8) itself is of no use here: it has another polynomial, that of AES.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::erasure::{field::product, kernel::lanes};

/// A matrix of bits as the instruction wants it: the row that makes bit `i` of a product is byte `7 - i`, and its bit `j`
/// goes with bit `j` of the input (Intel SDM, GF2P8AFFINEQB).
pub(super) type Factor = i64;

pub(super) fn factor(element: u8) -> Factor {
    let mut rows = [0_u8; 8];
    for input_bit in 0..8 {
        let column = product(element, 1 << input_bit);
        for (output_bit, row) in rows.iter_mut().rev().enumerate() {
            *row |= (column >> output_bit & 1) << input_bit;
        }
    }
    i64::from_le_bytes(rows)
}

/// # Safety
///
/// The CPU has AVX2 and GFNI; the rest is said by [`lanes::apply`].
#[target_feature(enable = "avx2,gfni")]
pub(super) unsafe fn apply_256(factors: &[Factor], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    // SAFETY: the caller's.
    unsafe { lanes::apply::<Affine256, 2>(factors, inputs, outputs) }
}

/// # Safety
///
/// The CPU has AVX-512F and GFNI; the rest is said by [`lanes::apply`].
#[target_feature(enable = "avx512f,gfni")]
pub(super) unsafe fn apply_512(factors: &[Factor], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    // SAFETY: the caller's.
    unsafe { lanes::apply::<Affine512, 4>(factors, inputs, outputs) }
}

struct Affine256;

// SAFETY: an `__m256i` has 32 bytes.
unsafe impl lanes::Lanes for Affine256 {
    type Vector = __m256i;
    type Operand = __m256i;
    type Factor = Factor;
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller answers for AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller answers for AVX2 and for the bytes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: __m256i) {
        // SAFETY: the caller answers for AVX2 and for the bytes.
        unsafe { _mm256_storeu_si256(to.cast(), vector) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m256i, factor: &Factor, operand: __m256i) -> __m256i {
        // SAFETY: the caller answers for AVX2 and GFNI.
        unsafe {
            let product = _mm256_gf2p8affine_epi64_epi8::<0>(operand, _mm256_set1_epi64x(*factor));
            _mm256_xor_si256(sum, product)
        }
    }
}

struct Affine512;

// SAFETY: an `__m512i` has 64 bytes.
unsafe impl lanes::Lanes for Affine512 {
    type Vector = __m512i;
    type Operand = __m512i;
    type Factor = Factor;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller answers for AVX-512F.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller answers for AVX-512F and for the bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: __m512i) {
        // SAFETY: the caller answers for AVX-512F and for the bytes.
        unsafe { _mm512_storeu_si512(to.cast(), vector) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m512i, factor: &Factor, operand: __m512i) -> __m512i {
        // SAFETY: the caller answers for AVX-512F and GFNI.
        unsafe {
            let product = _mm512_gf2p8affine_epi64_epi8::<0>(operand, _mm512_set1_epi64(*factor));
            _mm512_xor_si512(sum, product)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GF2P8AFFINEQB on one byte as the SDM has it, for CPUs that do not.
    fn affine(byte: u8, matrix: i64) -> u8 {
        let rows = matrix.to_le_bytes();
        (0..8).fold(0, |result, bit| result | ((rows[7 - bit] & byte).count_ones() % 2) << bit).to_le_bytes()[0]
    }

    #[test]
    fn a_matrix_of_bits_multiplies_as_its_element_does() {
        for element in 0..=255 {
            for byte in 0..=255 {
                assert_eq!(affine(byte, factor(element)), product(element, byte), "{element} times {byte}");
            }
        }
    }
}
