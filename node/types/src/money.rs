//! Money: integer fen in a checked newtype. No floating point ever touches an amount.

use core::fmt;

use crate::cbor::{CborError, Decoder, Encoder, Field};

/// An amount in fen (1/100 yuan), never negative. The type's range is 1.8e17 yuan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fen(pub u64);

impl Fen {
    /// The sum, unless it overflows.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(fen) => Some(Self(fen)),
            None => None,
        }
    }
    /// The difference, unless it would be negative.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(fen) => Some(Self(fen)),
            None => None,
        }
    }
    /// `self × numerator / denominator`, rounded half to even; `None` on a zero denominator or overflow.
    pub fn scaled(self, numerator: u64, denominator: u64) -> Option<Self> {
        let denominator = u128::from(denominator);
        let product = u128::from(self.0) * u128::from(numerator);
        let quotient = product.checked_div(denominator)?;
        let twice = 2 * (product % denominator);
        let up = twice > denominator || (twice == denominator && quotient % 2 == 1);
        u64::try_from(quotient + u128::from(up)).ok().map(Self)
    }
}

/// Yuan with two decimals, for people only.
impl fmt::Display for Fen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Field for Fen {
    fn encode(&self, e: &mut Encoder<'_>) {
        self.0.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        Field::decode(d).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_rounds_half_to_even() {
        assert_eq!(Fen(5).scaled(1, 2), Some(Fen(2)));
        assert_eq!(Fen(7).scaled(1, 2), Some(Fen(4)));
        assert_eq!(Fen(10).scaled(1, 4), Some(Fen(2)));
        assert_eq!(Fen(11).scaled(1, 4), Some(Fen(3)));
        assert_eq!(Fen(u64::MAX).scaled(2, 1), None);
        assert_eq!(Fen(1).scaled(1, 0), None);
    }

    #[test]
    fn sums_do_not_wrap() {
        assert_eq!(Fen(u64::MAX).checked_add(Fen(1)), None);
        assert_eq!(Fen(0).checked_sub(Fen(1)), None);
    }
}
