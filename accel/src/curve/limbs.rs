//! 256-bit integers as four 64-bit limbs, least significant first.

/// An integer below 2^256.
pub(crate) type Limbs = [u64; 4];

/// A product of two integers, least significant limb first.
pub(crate) type Wide = [u64; 8];

/// Zero.
pub(crate) const ZERO: Limbs = [0; 4];

/// The integer of 64 hexadecimal digits in two halves.
pub(crate) const fn limbs(high: u128, low: u128) -> Limbs {
    [half(low, 0), half(low, 64), half(high, 0), half(high, 64)]
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn half(value: u128, shift: u32) -> u64 {
    (value >> shift) as u64
}

/// The integer of 32 big-endian bytes.
pub(crate) fn from_be_bytes(bytes: &[u8; 32]) -> Limbs {
    let mut limbs = ZERO;
    for (limb, part) in limbs.iter_mut().rev().zip(bytes.as_chunks::<8>().0) {
        *limb = u64::from_be_bytes(*part);
    }
    limbs
}

/// The integer of 32 little-endian bytes.
pub(crate) fn from_le_bytes(bytes: &[u8; 32]) -> Limbs {
    let mut limbs = ZERO;
    for (limb, part) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*part);
    }
    limbs
}

/// The 32 big-endian bytes of an integer.
pub(crate) fn to_be_bytes(limbs: &Limbs) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (part, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(limbs.iter().rev()) {
        *part = limb.to_be_bytes();
    }
    bytes
}

/// Whether `a < b`.
pub(crate) const fn less(a: &Limbs, b: &Limbs) -> bool {
    subtract(a, b).1
}

/// `a + b + carry`; `u64::carrying_add`, which is not yet for constants.
#[inline(always)]
const fn carry_add(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(carry as u64);
    (sum, first | second)
}

/// `a - b - borrow`; `u64::borrowing_sub`, which is not yet for constants.
#[inline(always)]
const fn borrow_sub(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (difference, first) = a.overflowing_sub(b);
    let (difference, second) = difference.overflowing_sub(borrow as u64);
    (difference, first | second)
}

/// `a + b` modulo 2^256, and whether it passed 2^256.
#[inline(always)]
pub(crate) const fn add(a: &Limbs, b: &Limbs) -> (Limbs, bool) {
    let (r0, carry) = carry_add(a[0], b[0], false);
    let (r1, carry) = carry_add(a[1], b[1], carry);
    let (r2, carry) = carry_add(a[2], b[2], carry);
    let (r3, carry) = carry_add(a[3], b[3], carry);
    ([r0, r1, r2, r3], carry)
}

/// `a - b` modulo 2^256, and whether it fell below zero.
#[inline(always)]
pub(crate) const fn subtract(a: &Limbs, b: &Limbs) -> (Limbs, bool) {
    let (r0, borrow) = borrow_sub(a[0], b[0], false);
    let (r1, borrow) = borrow_sub(a[1], b[1], borrow);
    let (r2, borrow) = borrow_sub(a[2], b[2], borrow);
    let (r3, borrow) = borrow_sub(a[3], b[3], borrow);
    ([r0, r1, r2, r3], borrow)
}

/// `value`, or `less` if `choose`; without a branch, which would be taken as by the toss of a coin.
#[inline(always)]
pub(crate) const fn select(value: &Limbs, less: &Limbs, choose: bool) -> Limbs {
    let mask = 0u64.wrapping_sub(choose as u64);
    [
        value[0] ^ (mask & (value[0] ^ less[0])),
        value[1] ^ (mask & (value[1] ^ less[1])),
        value[2] ^ (mask & (value[2] ^ less[2])),
        value[3] ^ (mask & (value[3] ^ less[3])),
    ]
}

/// `a & mask` limb by limb; the mask is all ones or zero.
#[inline(always)]
pub(crate) const fn masked(a: &Limbs, keep: bool) -> Limbs {
    let mask = 0u64.wrapping_sub(keep as u64);
    [a[0] & mask, a[1] & mask, a[2] & mask, a[3] & mask]
}

/// `a · b`.
#[inline(always)]
pub(crate) fn product(a: &Limbs, b: &Limbs) -> Wide {
    let (w0, carry) = a[0].carrying_mul_add(b[0], 0, 0);
    let (w1, carry) = a[1].carrying_mul_add(b[0], 0, carry);
    let (w2, carry) = a[2].carrying_mul_add(b[0], 0, carry);
    let (w3, w4) = a[3].carrying_mul_add(b[0], 0, carry);
    let (w1, w2, w3, w4, w5) = row(a, b[1], w1, w2, w3, w4);
    let (w2, w3, w4, w5, w6) = row(a, b[2], w2, w3, w4, w5);
    let (w3, w4, w5, w6, w7) = row(a, b[3], w3, w4, w5, w6);
    [w0, w1, w2, w3, w4, w5, w6, w7]
}

#[inline(always)]
fn row(a: &Limbs, digit: u64, w0: u64, w1: u64, w2: u64, w3: u64) -> (u64, u64, u64, u64, u64) {
    let (w0, carry) = a[0].carrying_mul_add(digit, w0, 0);
    let (w1, carry) = a[1].carrying_mul_add(digit, w1, carry);
    let (w2, carry) = a[2].carrying_mul_add(digit, w2, carry);
    let (w3, w4) = a[3].carrying_mul_add(digit, w3, carry);
    (w0, w1, w2, w3, w4)
}

/// `a²`: the mixed products once, doubled, and the squares.
#[inline(always)]
pub(crate) fn square(a: &Limbs) -> Wide {
    let (w1, carry) = a[0].carrying_mul_add(a[1], 0, 0);
    let (w2, carry) = a[0].carrying_mul_add(a[2], 0, carry);
    let (w3, w4) = a[0].carrying_mul_add(a[3], 0, carry);
    let (w3, carry) = a[1].carrying_mul_add(a[2], w3, 0);
    let (w4, w5) = a[1].carrying_mul_add(a[3], w4, carry);
    let (w5, w6) = a[2].carrying_mul_add(a[3], w5, 0);
    let w7 = w6 >> 63;
    let w6 = (w6 << 1) | (w5 >> 63);
    let w5 = (w5 << 1) | (w4 >> 63);
    let w4 = (w4 << 1) | (w3 >> 63);
    let w3 = (w3 << 1) | (w2 >> 63);
    let w2 = (w2 << 1) | (w1 >> 63);
    let w1 = w1 << 1;
    let (w0, high) = a[0].carrying_mul_add(a[0], 0, 0);
    let (w1, carry) = w1.carrying_add(high, false);
    let (low, high) = a[1].carrying_mul_add(a[1], 0, 0);
    let (w2, carry) = w2.carrying_add(low, carry);
    let (w3, carry) = w3.carrying_add(high, carry);
    let (low, high) = a[2].carrying_mul_add(a[2], 0, 0);
    let (w4, carry) = w4.carrying_add(low, carry);
    let (w5, carry) = w5.carrying_add(high, carry);
    let (low, high) = a[3].carrying_mul_add(a[3], 0, 0);
    let (w6, carry) = w6.carrying_add(low, carry);
    let (w7, _) = w7.carrying_add(high, carry);
    [w0, w1, w2, w3, w4, w5, w6, w7]
}
