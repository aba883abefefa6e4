//! Tables of multiples of a point, which replace the doublings of a scalar multiplication by look-ups.
//!
//! With the scalar in signed digits of `WIDTH` bits, `k·P = Σ dᵢ·2^(WIDTH·i)·P`, and every term or its opposite is in the
//! table. Everything here is public, so the time may depend on it.

use crate::curve::{
    point::{Affine, Curve, Jacobian, normalise},
    recode::{SignedScalar, dense_digits},
    residue::Modulus,
    sums::{Pair, add_pairs},
};

/// The multiples of one point: a row for each digit, with `2^(WIDTH-1)` multiples of 64 bytes.
#[derive(Debug)]
pub(crate) struct Comb<M, const WIDTH: usize> {
    /// `d·2^(WIDTH·i)·P` at `i·2^(WIDTH-1) + d - 1`.
    points: Box<[Affine<M>]>,
}

/// The table of a generator: 256 KiB, 32 terms a scalar.
pub(crate) type GeneratorComb<M> = Comb<M, 8>;

/// The table of a key: 86 KiB, 43 terms a scalar. One bit more would save 6 terms of 75 and cost 65 KiB.
pub(crate) type KeyComb<M> = Comb<M, 6>;

impl<M: Modulus, const WIDTH: usize> Comb<M, WIDTH> {
    /// Digits of a scalar.
    pub(crate) const ROWS: usize = 256usize.div_ceil(WIDTH);

    /// Multiples in a row.
    const MULTIPLES: usize = 1 << (WIDTH - 1);

    /// Memory of a table in bytes.
    pub(crate) const BYTES: usize = Self::ROWS * Self::MULTIPLES * size_of::<Affine<M>>();

    /// The table of `point`, or `None` if a multiple of it is the point at infinity or two are opposite: only a point of
    /// small order has such multiples. Costs about four multiplications by a scalar.
    pub(crate) fn new<C: Curve<Field = M>>(point: &Affine<M>) -> Option<Self> {
        let powers = doublings::<C>(point, Self::ROWS * WIDTH)?;
        let mut points = vec![*point; Self::ROWS * Self::MULTIPLES];
        for (row, bits) in points.chunks_exact_mut(Self::MULTIPLES).zip(powers.chunks_exact(WIDTH)) {
            for (bit, power) in bits.iter().enumerate() {
                row[(1 << bit) - 1] = *power;
            }
        }
        // Multiples between 2^bit and 2^(bit+1) are sums of 2^bit and a smaller one.
        for bit in 1..WIDTH - 1 {
            let rows = (0..Self::ROWS).map(|row| row * Self::MULTIPLES);
            let pairs: Vec<Pair> = rows.flat_map(|row| pairs_of_row(row, bit)).collect();
            let mut complete = true;
            add_pairs(&mut points, &pairs, |_| complete = false);
            if !complete {
                return None;
            }
        }
        Some(Self { points: points.into() })
    }

    /// All multiples, row by row.
    pub(crate) fn points(&self) -> &[Affine<M>] {
        &self.points
    }

    /// Gives the terms whose sum is `scalar·P`, with their rows.
    pub(crate) fn each_term(&self, scalar: &SignedScalar, mut give: impl FnMut(usize, Affine<M>)) {
        let rows = self.points.chunks_exact(Self::MULTIPLES).zip(dense_digits::<WIDTH>(&scalar.magnitude));
        for (row, (multiples, digit)) in rows.enumerate() {
            let place = usize::try_from(digit.unsigned_abs()).unwrap_or(0);
            if let Some(point) = place.checked_sub(1).and_then(|place| multiples.get(place)) {
                give(row, point.negated_if((digit < 0) != scalar.negative));
            }
        }
    }
}

/// Pairs that make the multiples after `2^bit` of the row that starts at `row`.
fn pairs_of_row(row: usize, bit: usize) -> impl Iterator<Item = Pair> {
    let power = 1 << bit;
    (1..power).map(move |multiple| Pair {
        left: row + power - 1,
        right: row + multiple - 1,
        target: row + power + multiple - 1,
    })
}

/// `2^i·P` for `i` below `count`, or `None` if one is the point at infinity.
fn doublings<C: Curve>(point: &Affine<C::Field>, count: usize) -> Option<Vec<Affine<C::Field>>> {
    let powers = std::iter::successors(Some(Jacobian::<C>::from(*point)), |power| Some(power.double()));
    let powers: Vec<_> = powers.take(count).collect();
    (!powers.iter().any(Jacobian::is_infinity)).then(|| normalise(&powers))
}
