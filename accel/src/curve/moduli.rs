//! The primes: fields and group orders of P-256 and SM2, and the field of edwards25519.

use crate::curve::{
    limbs::{self, Limbs, Wide, limbs},
    residue::{Modulus, power_of_two},
};

/// The field of P-256, SP 800-186 section 3.2.1.3: `2^256 - 2^224 + 2^192 + 2^96 - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct P256Field;

/// The order of the group of P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct P256Order;

/// The field of SM2, GB/T 32918.5-2017 section 2: `2^256 - 2^224 - 2^96 + 2^64 - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sm2Field;

/// The order of the group of SM2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sm2Order;

/// The field of edwards25519, RFC 8032 section 5.1: `2^255 - 19`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EdwardsField;

impl Modulus for P256Field {
    const MODULUS: Limbs = limbs(0xffffffff_00000001_00000000_00000000, 0x00000000_ffffffff_ffffffff_ffffffff);
    const FACTOR: Limbs = power_of_two(256, &Self::MODULUS);
    const FACTOR_SQUARED: Limbs = power_of_two(512, &Self::MODULUS);

    /// Montgomery's digit is the lowest limb itself, because `p ≡ -1 mod 2^64`; `digit·p` is two shifts and one product.
    #[inline(always)]
    fn reduce(wide: &Wide) -> Limbs {
        montgomery::<Self>(wide, |[digit, a1, a2, a3]| {
            let (r0, carry) = a1.carrying_add(digit << 32, false);
            let (r1, carry) = a2.carrying_add(digit >> 32, carry);
            let (low, high) = digit.carrying_mul_add(Self::MODULUS[3], a3, u64::from(carry));
            [r0, r1, low, high]
        })
    }
}

impl Modulus for Sm2Field {
    const MODULUS: Limbs = limbs(0xfffffffe_ffffffff_ffffffff_ffffffff, 0xffffffff_00000000_ffffffff_ffffffff);
    const FACTOR: Limbs = power_of_two(256, &Self::MODULUS);
    const FACTOR_SQUARED: Limbs = power_of_two(512, &Self::MODULUS);

    /// Montgomery's digit is the lowest limb itself, because `p ≡ -1 mod 2^64`; `digit·p` needs shifts only:
    /// `(digit·p + digit) / 2^64 = digit·(2^192 + 1) - digit·2^32·(2^128 + 1)`.
    #[inline(always)]
    fn reduce(wide: &Wide) -> Limbs {
        montgomery::<Self>(wide, |[digit, a1, a2, a3]| {
            let (low, high) = (digit << 32, digit >> 32);
            let (r0, carry) = a1.carrying_add(digit, false);
            let (r1, carry) = a2.carrying_add(0, carry);
            let (r2, carry) = a3.carrying_add(0, carry);
            let r3 = digit.wrapping_add(u64::from(carry));
            let (r0, borrow) = r0.borrowing_sub(low, false);
            let (r1, borrow) = r1.borrowing_sub(high, borrow);
            let (r2, borrow) = r2.borrowing_sub(low, borrow);
            // The result is below 2^256, so a carry of the sum and the borrow of the difference cancel.
            let (r3, _) = r3.borrowing_sub(high, borrow);
            [r0, r1, r2, r3]
        })
    }
}

impl Modulus for P256Order {
    const MODULUS: Limbs = limbs(0xffffffff_00000000_ffffffff_ffffffff, 0xbce6faad_a7179e84_f3b9cac2_fc632551);
    const FACTOR: Limbs = power_of_two(256, &Self::MODULUS);
    const FACTOR_SQUARED: Limbs = power_of_two(512, &Self::MODULUS);

    #[inline(always)]
    fn reduce(wide: &Wide) -> Limbs {
        montgomery::<Self>(wide, general_step::<Self>)
    }
}

impl Modulus for Sm2Order {
    const MODULUS: Limbs = limbs(0xfffffffe_ffffffff_ffffffff_ffffffff, 0x7203df6b_21c6052b_53bbf409_39d54123);
    const FACTOR: Limbs = power_of_two(256, &Self::MODULUS);
    const FACTOR_SQUARED: Limbs = power_of_two(512, &Self::MODULUS);

    #[inline(always)]
    fn reduce(wide: &Wide) -> Limbs {
        montgomery::<Self>(wide, general_step::<Self>)
    }
}

impl Modulus for EdwardsField {
    const MODULUS: Limbs = limbs(0x7fffffff_ffffffff_ffffffff_ffffffff, 0xffffffff_ffffffff_ffffffff_ffffffed);
    const FACTOR: Limbs = [1, 0, 0, 0];
    const FACTOR_SQUARED: Limbs = [1, 0, 0, 0];

    /// Folds the upper half twice: `2^256 ≡ 38`, then `2^255 ≡ 19`.
    #[inline(always)]
    fn reduce(wide: &Wide) -> Limbs {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = *wide;
        let (r0, carry) = w4.carrying_mul_add(38, w0, 0);
        let (r1, carry) = w5.carrying_mul_add(38, w1, carry);
        let (r2, carry) = w6.carrying_mul_add(38, w2, carry);
        let (r3, top) = w7.carrying_mul_add(38, w3, carry);
        // At most 39 · 2^256 stood here: `top` counts 2^256, the highest bit 2^255.
        let folded = 38 * top + 19 * (r3 >> 63);
        let (sum, _) = limbs::add(&[r0, r1, r2, r3 & (u64::MAX >> 1)], &[folded, 0, 0, 0]);
        let (less, borrow) = limbs::subtract(&sum, &Self::MODULUS);
        limbs::select(&sum, &less, !borrow)
    }
}

/// Montgomery's reduction, `wide / 2^256 mod p`. `step` adds the multiple of the prime that clears the lowest limb and
/// drops that limb; the result stays below 2^256 because the prime is below `2^256 - 2^192`.
#[inline(always)]
fn montgomery<M: Modulus>(wide: &Wide, step: impl Fn(Limbs) -> Limbs) -> Limbs {
    let [w0, w1, w2, w3, w4, w5, w6, w7] = *wide;
    let low = step(step(step(step([w0, w1, w2, w3]))));
    let (sum, carry) = limbs::add(&low, &[w4, w5, w6, w7]);
    let (less, borrow) = limbs::subtract(&sum, &M::MODULUS);
    limbs::select(&sum, &less, carry | !borrow)
}

/// A step for a prime without a helpful form.
#[inline(always)]
fn general_step<M: Modulus>([a0, a1, a2, a3]: Limbs) -> Limbs {
    let digit = a0.wrapping_mul(const { negated_inverse(M::MODULUS[0]) });
    let (_, carry) = digit.carrying_mul_add(M::MODULUS[0], a0, 0);
    let (r0, carry) = digit.carrying_mul_add(M::MODULUS[1], a1, carry);
    let (r1, carry) = digit.carrying_mul_add(M::MODULUS[2], a2, carry);
    let (r2, r3) = digit.carrying_mul_add(M::MODULUS[3], a3, carry);
    [r0, r1, r2, r3]
}

/// `-1 / odd mod 2^64` by Newton's iteration, which doubles the correct bits each time.
const fn negated_inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse.wrapping_neg()
}
