//! Tables of multiples of a point, which replace the doublings of a scalar multiplication by look-ups.
//!
//! With the scalar in digits of [`WINDOW`] bits, `k·P = Σ dᵢ·2^(WINDOW·i)·P`, and every term is in the table: 64
//! additions and no doubling. Everything here is public, so the time may depend on it.

use sm2::{ProjectivePoint, Scalar, elliptic_curve::Group};

/// Bits of a digit.
const WINDOW: usize = 4;

/// Digits of a scalar.
const DIGITS: usize = 256 / WINDOW;

/// Digits that are not zero.
const MULTIPLES: usize = (1 << WINDOW) - 1;

/// The multiples of one point: 64 rows of 15, about 92 KiB.
#[derive(Debug)]
pub(super) struct Comb {
    /// `rows[i][d - 1] = d·2^(WINDOW·i)·P`.
    rows: Vec<[ProjectivePoint; MULTIPLES]>,
}

impl Comb {
    /// Costs about as much as two plain multiplications.
    pub(super) fn new(point: &ProjectivePoint) -> Self {
        let mut rows = Vec::with_capacity(DIGITS);
        let mut base = *point;
        for _ in 0..DIGITS {
            let mut row = [base; MULTIPLES];
            for digit in 1..MULTIPLES {
                row[digit] = row[digit - 1] + base;
            }
            base = row[MULTIPLES - 1] + base;
            rows.push(row);
        }
        Self { rows }
    }

    /// `scalar·P`.
    pub(super) fn multiply(&self, scalar: &Scalar) -> ProjectivePoint {
        let mut sum = ProjectivePoint::identity();
        let bytes = scalar.to_bytes();
        let digits = bytes.iter().rev().flat_map(|byte| [byte & 0x0f, byte >> 4]);
        for (row, digit) in self.rows.iter().zip(digits) {
            if let Some(place) = usize::from(digit).checked_sub(1) {
                sum += row[place];
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_plain_multiplication() {
        let point = ProjectivePoint::GENERATOR * Scalar::from(0x1234_5678_9abc_def0u64);
        let comb = Comb::new(&point);
        let mut scalar = Scalar::from(3u64);
        for _ in 0..50 {
            assert_eq!(comb.multiply(&scalar), point * scalar);
            scalar = scalar * scalar + Scalar::ONE;
        }
        for scalar in [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from(16u64), Scalar::from(1u64 << 63)] {
            assert_eq!(comb.multiply(&scalar), point * scalar);
        }
    }
}
