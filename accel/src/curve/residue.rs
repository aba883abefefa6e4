//! Residues modulo a 256-bit prime, written once for every prime.
//!
//! A residue `x` is kept as `x·F mod p` for the modulus' own factor `F`: 2^256 where reduction is Montgomery's, 1 where
//! the prime folds directly. The stored value is always below `p`, so equality is equality of limbs.
//!
//! Time depends on values: everything here is public.

use std::{
    marker::PhantomData,
    ops::{Add, Mul, Neg, Sub},
};

use crate::curve::limbs::{self, Limbs, Wide, ZERO};

/// Bits of a digit of an exponent.
const EXPONENT_DIGIT: usize = 4;

/// A prime between 2^254 and 2^256 with its reduction.
pub(crate) trait Modulus: Copy + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// The prime.
    const MODULUS: Limbs;
    /// `F mod p`, which is how one is stored.
    const FACTOR: Limbs;
    /// `F² mod p`, which turns an integer into its stored form.
    const FACTOR_SQUARED: Limbs;

    /// `wide / F mod p`, below `p`, for any `wide` that is a product of a value below `p` and one below 2^256.
    fn reduce(wide: &Wide) -> Limbs;
}

/// A residue modulo `M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Residue<M> {
    stored: Limbs,
    modulus: PhantomData<M>,
}

/// `2^bits mod p`, for constants.
pub(crate) const fn power_of_two(bits: u32, modulus: &Limbs) -> Limbs {
    let mut value = [1, 0, 0, 0];
    let mut bit = 0;
    while bit < bits {
        let (doubled, carry) = limbs::add(&value, &value);
        let (less, borrow) = limbs::subtract(&doubled, modulus);
        value = if carry || !borrow { less } else { doubled };
        bit += 1;
    }
    value
}

impl<M: Modulus> Residue<M> {
    pub(crate) const ZERO: Self = Self::from_stored(ZERO);
    pub(crate) const ONE: Self = Self::from_stored(M::FACTOR);

    /// The residue of a stored form, which must be below the modulus.
    pub(crate) const fn from_stored(stored: Limbs) -> Self {
        Self { stored, modulus: PhantomData }
    }

    /// The stored form.
    pub(crate) const fn stored(&self) -> &Limbs {
        &self.stored
    }

    /// The residue of any integer below 2^256.
    pub(crate) fn from_integer(integer: &Limbs) -> Self {
        Self::from_stored(M::reduce(&limbs::product(&M::FACTOR_SQUARED, integer)))
    }

    /// The residue of an integer, or `None` if it is not below the modulus.
    pub(crate) fn from_canonical(integer: &Limbs) -> Option<Self> {
        limbs::less(integer, &M::MODULUS).then(|| Self::from_integer(integer))
    }

    /// The integer below the modulus.
    pub(crate) fn to_integer(self) -> Limbs {
        let [a, b, c, d] = self.stored;
        // With F = 1 this is one more reduction of what is reduced already.
        M::reduce(&[a, b, c, d, 0, 0, 0, 0])
    }

    #[inline(always)]
    pub(crate) fn is_zero(&self) -> bool {
        self.stored == ZERO
    }

    #[inline(always)]
    pub(crate) fn square(&self) -> Self {
        Self::from_stored(M::reduce(&limbs::square(&self.stored)))
    }

    #[inline(always)]
    pub(crate) fn double(&self) -> Self {
        *self + *self
    }

    /// `self` squared `count` times.
    fn square_times(&self, count: usize) -> Self {
        (0..count).fold(*self, |value, _| value.square())
    }

    /// `self^exponent`.
    pub(crate) fn power(&self, exponent: &Limbs) -> Self {
        let mut powers = [Self::ONE; 1 << EXPONENT_DIGIT];
        for index in 1..powers.len() {
            powers[index] = powers[index - 1] * *self;
        }
        let digits = exponent.iter().rev().flat_map(|limb| (0..16).rev().map(move |digit| limb >> (4 * digit) & 15));
        digits.fold(Self::ONE, |value, digit| {
            let value = value.square_times(EXPONENT_DIGIT);
            powers.get(usize::try_from(digit).unwrap_or(0)).map_or(value, |power| value * *power)
        })
    }

    /// `1 / self`, or zero for zero, by Fermat's little theorem.
    pub(crate) fn invert(&self) -> Self {
        self.power(&limbs::subtract(&M::MODULUS, &[2, 0, 0, 0]).0)
    }
}

/// Inverts every residue in place with one inversion and three multiplications each; zeros stay zero.
pub(crate) fn invert_all<M: Modulus>(values: &mut [Residue<M>]) {
    let mut products = Vec::with_capacity(values.len());
    let mut product = Residue::ONE;
    for value in values.iter() {
        products.push(product);
        if !value.is_zero() {
            product = product * *value;
        }
    }
    let mut inverse = product.invert();
    for (value, before) in values.iter_mut().zip(&products).rev() {
        if !value.is_zero() {
            let inverted = inverse * *before;
            inverse = inverse * *value;
            *value = inverted;
        }
    }
}

impl<M: Modulus> Add for Residue<M> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (sum, carry) = limbs::add(&self.stored, &other.stored);
        let (less, borrow) = limbs::subtract(&sum, &M::MODULUS);
        Self::from_stored(limbs::select(&sum, &less, carry | !borrow))
    }
}

impl<M: Modulus> Sub for Residue<M> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let (difference, borrow) = limbs::subtract(&self.stored, &other.stored);
        Self::from_stored(limbs::add(&difference, &limbs::masked(&M::MODULUS, borrow)).0)
    }
}

impl<M: Modulus> Neg for Residue<M> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self::ZERO - self
    }
}

impl<M: Modulus> Mul for Residue<M> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self::from_stored(M::reduce(&limbs::product(&self.stored, &other.stored)))
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;
    use crate::curve::moduli::{EdwardsField, P256Field, P256Order, Sm2Field, Sm2Order};

    fn integer(limbs: &[u64]) -> BigUint {
        limbs.iter().rev().fold(BigUint::ZERO, |sum, limb| (sum << 64) + *limb)
    }

    fn modulus<M: Modulus>() -> BigUint {
        integer(&M::MODULUS)
    }

    /// Integers at the edges: limbs of all ones, zeros, and the modulus with its neighbours.
    fn edges<M: Modulus>() -> Vec<Limbs> {
        let [p, one] = [M::MODULUS, [1, 0, 0, 0]];
        let mut edges = vec![limbs::add(&p, &one).0, p, limbs::subtract(&p, &one).0, limbs::subtract(&ZERO, &one).0];
        edges.extend([M::FACTOR, M::FACTOR_SQUARED, limbs::subtract(&p, &M::FACTOR).0]);
        for pattern in 0..81u32 {
            let limb = |place: u32| [0, 1, u64::MAX][usize::try_from(pattern / 3u32.pow(place) % 3).expect("small")];
            edges.push([limb(0), limb(1), limb(2), limb(3)]);
        }
        edges
    }

    /// Every operation on a pair against big integers.
    fn check_pair<M: Modulus>(a: &Limbs, b: &Limbs) {
        let p = modulus::<M>();
        let (x, y) = (Residue::<M>::from_integer(a), Residue::<M>::from_integer(b));
        let (big_x, big_y) = (integer(a) % &p, integer(b) % &p);
        let check = |name, found: Residue<M>, expected: BigUint| {
            assert!(limbs::less(&found.stored, &M::MODULUS), "{name} is stored reduced");
            assert_eq!(integer(&found.to_integer()), expected % &p, "{name} of {a:x?} and {b:x?}");
        };
        check("integer", x, big_x.clone());
        check("sum", x + y, &big_x + &big_y);
        check("difference", x - y, &big_x + &p - &big_y);
        check("opposite", -x, &p - &big_x);
        check("product", x * y, &big_x * &big_y);
        check("square", x.square(), &big_x * &big_x);
        assert_eq!(x == y, big_x == big_y);
        assert_eq!(Residue::<M>::from_canonical(a).is_some(), integer(a) < p);
        // Stored forms that no integer of the list has.
        let stored =
            Residue::<M>::from_stored(big_x.to_u64_digits().iter().enumerate().fold(ZERO, |mut limbs, (i, d)| {
                limbs[i] = *d;
                limbs
            }));
        let factor = integer(&M::FACTOR);
        assert_eq!(integer(&stored.to_integer()) * &factor % &p, big_x);
        assert_eq!(integer(&(stored * stored).to_integer()) * &factor * &factor % &p, &big_x * &big_x % &p);
    }

    /// `reduce` over its whole domain: a value below the modulus times one below 2^256.
    fn check_reduce<M: Modulus>(a: &Limbs, b: &Limbs) {
        let p = modulus::<M>();
        if limbs::less(a, &M::MODULUS) {
            let reduced = M::reduce(&limbs::product(a, b));
            assert_eq!(integer(&limbs::product(a, b)), integer(a) * integer(b));
            assert!(limbs::less(&reduced, &M::MODULUS));
            assert_eq!(integer(&reduced) * integer(&M::FACTOR) % &p, integer(a) * integer(b) % &p);
            assert_eq!(limbs::square(a), limbs::product(a, a));
        }
    }

    fn check_edges<M: Modulus>() {
        let edges = edges::<M>();
        for a in &edges {
            for b in &edges {
                check_pair::<M>(a, b);
                check_reduce::<M>(a, b);
            }
        }
    }

    fn check_inverse<M: Modulus>(a: &Limbs) {
        let value = Residue::<M>::from_integer(a);
        let expected = if value.is_zero() { Residue::ZERO } else { Residue::ONE };
        assert_eq!(value * value.invert(), expected);
    }

    #[test]
    fn constants_are_what_they_say() {
        fn check<M: Modulus>() {
            let p = modulus::<M>();
            assert_eq!(integer(&M::FACTOR) * integer(&M::FACTOR) % &p, integer(&M::FACTOR_SQUARED));
            assert_eq!(Residue::<M>::ONE.to_integer(), [1, 0, 0, 0]);
        }
        check::<P256Field>();
        check::<P256Order>();
        check::<Sm2Field>();
        check::<Sm2Order>();
        check::<EdwardsField>();
        let two = BigUint::from(2u8);
        let power = |exponent: u32| two.pow(exponent);
        assert_eq!(modulus::<P256Field>() + power(224) + 1u8, power(256) + power(192) + power(96));
        assert_eq!(modulus::<Sm2Field>() + power(224) + power(96) + 1u8, power(256) + power(64));
        assert_eq!(modulus::<EdwardsField>() + 19u8, power(255));
    }

    #[test]
    fn operations_are_exact_at_the_maxima_of_limbs() {
        check_edges::<P256Field>();
        check_edges::<P256Order>();
        check_edges::<Sm2Field>();
        check_edges::<Sm2Order>();
        check_edges::<EdwardsField>();
    }

    #[test]
    fn inverses_are_found_one_by_one_and_all_at_once() {
        fn check<M: Modulus>() {
            let edges = edges::<M>();
            edges.iter().for_each(check_inverse::<M>);
            let values: Vec<Residue<M>> = edges.iter().map(Residue::from_integer).collect();
            let mut inverses = values.clone();
            invert_all(&mut inverses);
            let one_by_one: Vec<Residue<M>> = values.iter().map(Residue::invert).collect();
            assert_eq!(inverses, one_by_one);
            invert_all::<M>(&mut []);
        }
        check::<P256Field>();
        check::<P256Order>();
        check::<Sm2Field>();
        check::<Sm2Order>();
        check::<EdwardsField>();
    }

    fn any_limbs() -> impl Strategy<Value = Limbs> {
        prop::array::uniform4(prop_oneof![1 => Just(0), 1 => Just(u64::MAX), 6 => any::<u64>()])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn operations_agree_with_big_integers(a in any_limbs(), b in any_limbs()) {
            check_pair::<P256Field>(&a, &b);
            check_pair::<P256Order>(&a, &b);
            check_pair::<Sm2Field>(&a, &b);
            check_pair::<Sm2Order>(&a, &b);
            check_pair::<EdwardsField>(&a, &b);
            check_reduce::<P256Field>(&a, &b);
            check_reduce::<P256Order>(&a, &b);
            check_reduce::<Sm2Field>(&a, &b);
            check_reduce::<Sm2Order>(&a, &b);
            check_reduce::<EdwardsField>(&a, &b);
        }
    }
}
