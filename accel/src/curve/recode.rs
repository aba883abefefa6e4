//! Scalars as signed digits.

use crate::curve::limbs::{self, Limbs};

/// A scalar below 2^255 and its sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedScalar {
    pub(crate) magnitude: Limbs,
    pub(crate) negative: bool,
}

/// Width of the digits of [`sparse_digits`].
const SPARSE_WIDTH: usize = 5;

/// Odd multiples that [`sparse_digits`] name: 1, 3, .. 15.
pub(crate) const SPARSE_MULTIPLES: usize = 1 << (SPARSE_WIDTH - 2);

impl SignedScalar {
    /// The representative of least magnitude of a scalar below `order`.
    pub(crate) fn least(scalar: &Limbs, order: &Limbs) -> Self {
        let opposite = limbs::subtract(order, scalar).0;
        let negative = limbs::less(&opposite, scalar);
        Self { magnitude: if negative { opposite } else { *scalar }, negative }
    }

    /// The magnitude with the sign in the highest bit.
    pub(crate) fn with_sign(&self) -> Limbs {
        let [a, b, c, d] = self.magnitude;
        [a, b, c, d | u64::from(self.negative) << 63]
    }

    /// The magnitude in digits of four bits, of which each but the highest is raised by eight: so digits from -8 to 7 are
    /// read without a carry. The highest is at most eight.
    pub(crate) fn raised_digits(&self) -> Limbs {
        limbs::add(
            &self.magnitude,
            &[0x8888_8888_8888_8888, 0x8888_8888_8888_8888, 0x8888_8888_8888_8888, 0x0888_8888_8888_8888],
        )
        .0
    }
}

/// Digits of `WIDTH` bits from the lowest, each in `-(2^(WIDTH-1) - 1)..=2^(WIDTH-1)`; together they are the magnitude.
pub(crate) fn dense_digits<const WIDTH: usize>(scalar: &Limbs) -> impl Iterator<Item = i32> {
    const { assert!(WIDTH > 1 && WIDTH <= 16) };
    let half = 1 << (WIDTH - 1);
    let scalar = *scalar;
    let mut carry = 0;
    (0..256usize.div_ceil(WIDTH)).map(move |index| {
        let digit = window(&scalar, index * WIDTH, WIDTH) + carry;
        carry = i32::from(digit > half);
        digit - (carry << WIDTH)
    })
}

/// The non-adjacent form of width 5: digit `i` counts `2^i`, is zero or odd with magnitude below 16, and among five
/// neighbours at most one is not zero.
pub(crate) fn sparse_digits(scalar: &Limbs) -> [i8; 256] {
    let mut digits = [0; 256];
    let (mut place, mut carry) = (0, 0);
    while place < 256 {
        if window(scalar, place, 1) == carry {
            place += 1;
            continue;
        }
        let digit = window(scalar, place, SPARSE_WIDTH) + carry;
        carry = i32::from(digit >= 1 << (SPARSE_WIDTH - 1));
        digits[place] = i8::try_from(digit - (carry << SPARSE_WIDTH)).unwrap_or(0);
        place += SPARSE_WIDTH;
    }
    digits
}

/// `width` bits from bit `place`; bits from 256 on are zero.
#[inline]
fn window(scalar: &Limbs, place: usize, width: usize) -> i32 {
    let (limb, shift) = (place / 64, place % 64);
    let low = scalar[limb] >> shift;
    let high = match scalar.get(limb + 1) {
        Some(next) if shift > 0 => next << (64 - shift),
        _ => 0,
    };
    i32::try_from((low | high) & ((1 << width) - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;

    fn integer(limbs: &Limbs) -> BigInt {
        limbs.iter().rev().fold(BigInt::ZERO, |sum, limb| (sum << 64) + *limb)
    }

    fn scalars() -> impl Strategy<Value = Limbs> {
        let limb = prop_oneof![Just(0), Just(u64::MAX), Just(1), any::<u64>()];
        prop::array::uniform4(limb).prop_map(|[a, b, c, d]| [a, b, c, d >> 1])
    }

    proptest! {
        #[test]
        fn digits_add_up_to_the_scalar(scalar in scalars()) {
            let six: BigInt = dense_digits::<6>(&scalar).enumerate().map(|(i, d)| BigInt::from(d) << (6 * i)).sum();
            prop_assert_eq!(&six, &integer(&scalar));
            let eight: BigInt = dense_digits::<8>(&scalar).enumerate().map(|(i, d)| BigInt::from(d) << (8 * i)).sum();
            prop_assert_eq!(&eight, &integer(&scalar));
            let sparse = sparse_digits(&scalar);
            let sum: BigInt = sparse.iter().enumerate().map(|(i, d)| BigInt::from(*d) << i).sum();
            prop_assert_eq!(&sum, &integer(&scalar));
        }

        #[test]
        fn digits_stay_in_their_ranges(scalar in scalars()) {
            prop_assert!(dense_digits::<6>(&scalar).all(|digit| (-31..=32).contains(&digit)));
            prop_assert!(dense_digits::<8>(&scalar).all(|digit| (-127..=128).contains(&digit)));
            let sparse = sparse_digits(&scalar);
            prop_assert!(sparse.iter().all(|digit| *digit == 0 || digit % 2 != 0 && (-15..=15).contains(digit)));
        }
    }

    #[test]
    fn raised_digits_add_up_to_the_scalar() {
        let largest = [u64::MAX, u64::MAX, u64::MAX, u64::MAX >> 1];
        for magnitude in [[0; 4], [1, 0, 0, 0], [7, 8, 0x0f0f, 0x1234], largest] {
            let raised = integer(&SignedScalar { magnitude, negative: false }.raised_digits());
            let digits = (0..64u32).map(|place| {
                let digit: BigInt = (&raised >> (4 * place)) & BigInt::from(15);
                let digit = if place < 63 { digit - 8 } else { digit };
                assert!(digit >= BigInt::from(-8) && digit <= BigInt::from(8));
                digit << (4 * place)
            });
            assert_eq!(digits.sum::<BigInt>(), integer(&magnitude));
        }
    }

    #[test]
    fn the_least_representative_is_congruent() {
        let order = [0x1234_5678_9abc_def1, 0, 0, 1 << 63];
        for scalar in [[0; 4], [1, 0, 0, 0], [0, 0, 0, 1 << 62], limbs::subtract(&order, &[1, 0, 0, 0]).0] {
            let least = SignedScalar::least(&scalar, &order);
            let magnitude = integer(&least.magnitude);
            let signed = if least.negative { integer(&order) - &magnitude } else { magnitude.clone() };
            assert_eq!(signed, integer(&scalar));
            assert!(&magnitude * 2 <= integer(&order));
        }
    }
}
