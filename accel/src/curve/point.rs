//! Points of curves `y² = x³ + a·x + b`, affine and Jacobian.
//!
//! Additions of affine points need no curve parameter; doublings take it from [`Curve::tangent`].

use crate::curve::{
    limbs::{self, Limbs},
    residue::{Modulus, Residue, invert_all},
};

/// A curve over a 256-bit field.
pub(crate) trait Curve: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The field of the coordinates.
    type Field: Modulus;

    /// `3·x² + a·z⁴`, the numerator of the tangent's slope, from `x` and `z²`.
    fn tangent(x: &Residue<Self::Field>, z_squared: &Residue<Self::Field>) -> Residue<Self::Field>;
}

/// A point other than the one at infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Affine<M> {
    pub(crate) x: Residue<M>,
    pub(crate) y: Residue<M>,
}

/// The point `(X / Z², Y / Z³)`, or the point at infinity where `Z = 0`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jacobian<C: Curve> {
    pub(crate) x: Residue<C::Field>,
    pub(crate) y: Residue<C::Field>,
    pub(crate) z: Residue<C::Field>,
}

impl<M: Modulus> Affine<M> {
    #[inline(always)]
    pub(crate) fn negated_if(&self, negative: bool) -> Self {
        Self { x: self.x, y: if negative { -self.y } else { self.y } }
    }
}

impl<C: Curve> From<Affine<C::Field>> for Jacobian<C> {
    fn from(point: Affine<C::Field>) -> Self {
        Self { x: point.x, y: point.y, z: Residue::ONE }
    }
}

impl<C: Curve> Jacobian<C> {
    pub(crate) const INFINITY: Self = Self { x: Residue::ONE, y: Residue::ONE, z: Residue::ZERO };

    pub(crate) fn is_infinity(&self) -> bool {
        self.z.is_zero()
    }

    /// `2·self`. A point of order two doubles to `Z = 0`, as it should.
    #[inline]
    pub(crate) fn double(&self) -> Self {
        let y_squared = self.y.square();
        let beta = (self.x * y_squared).double().double();
        let alpha = C::tangent(&self.x, &self.z.square());
        let x = alpha.square() - beta.double();
        let z = (self.y * self.z).double();
        let y = alpha * (beta - x) - y_squared.square().double().double().double();
        Self { x, y, z }
    }

    /// `self + other`, complete.
    #[inline]
    pub(crate) fn add_affine(&self, other: &Affine<C::Field>) -> Self {
        if self.is_infinity() {
            return (*other).into();
        }
        let z_squared = self.z.square();
        let h = other.x * z_squared - self.x;
        let slope = other.y * (self.z * z_squared) - self.y;
        if h.is_zero() {
            return if slope.is_zero() { self.double() } else { Self::INFINITY };
        }
        let h_squared = h.square();
        let h_cubed = h * h_squared;
        let v = self.x * h_squared;
        let x = slope.square() - h_cubed - v.double();
        let y = slope * (v - x) - self.y * h_cubed;
        Self { x, y, z: self.z * h }
    }

    /// `self + other`, complete.
    pub(crate) fn add(&self, other: &Self) -> Self {
        if self.is_infinity() {
            return *other;
        }
        if other.is_infinity() {
            return *self;
        }
        let (z1_squared, z2_squared) = (self.z.square(), other.z.square());
        let u1 = self.x * z2_squared;
        let s1 = self.y * (other.z * z2_squared);
        let h = other.x * z1_squared - u1;
        let slope = other.y * (self.z * z1_squared) - s1;
        if h.is_zero() {
            return if slope.is_zero() { self.double() } else { Self::INFINITY };
        }
        let h_squared = h.square();
        let h_cubed = h * h_squared;
        let v = u1 * h_squared;
        let x = slope.square() - h_cubed - v.double();
        let y = slope * (v - x) - s1 * h_cubed;
        Self { x, y, z: self.z * other.z * h }
    }

    /// Whether the affine x-coordinate is `x`; never for the point at infinity. Costs no inversion.
    pub(crate) fn has_x(&self, x: &Residue<C::Field>) -> bool {
        !self.is_infinity() && *x * self.z.square() == self.x
    }
}

/// The affine forms of points that are not infinity, with one inversion for all. A point at infinity becomes `(0, 0)`,
/// which lies on none of our curves.
pub(crate) fn normalise<C: Curve>(points: &[Jacobian<C>]) -> Vec<Affine<C::Field>> {
    let mut inverses: Vec<_> = points.iter().map(|point| point.z).collect();
    invert_all(&mut inverses);
    let affine = |(point, inverse): (&Jacobian<C>, &Residue<C::Field>)| {
        let squared = inverse.square();
        Affine { x: point.x * squared, y: point.y * squared * *inverse }
    };
    points.iter().zip(&inverses).map(affine).collect()
}

/// A curve of prime order over a field with `p ≡ 3 mod 4` and `a = -3`: P-256 and SM2.
pub(crate) trait PrimeCurve: Curve {
    /// The order of the group, below the field's prime.
    type Order: Modulus;
    /// `b` of the equation.
    const B: Limbs;
    /// The coordinates of the generator.
    const GENERATOR: [Limbs; 2];

    /// The point of a SEC 1 encoding, compressed or uncompressed (section 2.3.4), or `None`: any other form, a
    /// coordinate that is not below the prime, or no point of the curve.
    fn decode(bytes: &[u8]) -> Option<Affine<Self::Field>> {
        let (tag, coordinates) = bytes.split_first()?;
        let (x, rest) = coordinates.split_first_chunk()?;
        let x = Residue::from_canonical(&limbs::from_be_bytes(x))?;
        let right = (x.square() - Residue::from_integer(&[3, 0, 0, 0])) * x + Residue::from_integer(&Self::B);
        let y = match (tag, rest) {
            (0x02 | 0x03, []) => {
                let root = square_root(&right)?;
                let odd = root.to_integer()[0] & 1 == 1;
                if odd == (*tag == 0x03) { root } else { -root }
            }
            (0x04, _) => Residue::from_canonical(&limbs::from_be_bytes(rest.try_into().ok()?))?,
            _ => return None,
        };
        (y.square() == right).then_some(Affine { x, y })
    }

    /// The generator.
    fn generator() -> Affine<Self::Field> {
        let [x, y] = Self::GENERATOR.map(|coordinate| Residue::from_integer(&coordinate));
        Affine { x, y }
    }
}

/// A root of `square`, or `None` if it has none; for primes `p ≡ 3 mod 4`.
fn square_root<M: Modulus>(square: &Residue<M>) -> Option<Residue<M>> {
    let [p0, p1, p2, p3] = M::MODULUS;
    // (p + 1) / 4 = ⌊p / 4⌋ + 1.
    let quarter = [p0 >> 2 | p1 << 62, p1 >> 2 | p2 << 62, p2 >> 2 | p3 << 62, p3 >> 2];
    let root = square.power(&limbs::add(&quarter, &[1, 0, 0, 0]).0);
    (root.square() == *square).then_some(root)
}
