//! `u·G + v·Q` for many scalars and keys at once.

#[cfg(target_arch = "x86_64")]
use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
use crate::curve::lanes;
use crate::curve::{
    comb::{Comb, GeneratorComb, KeyComb},
    point::{Affine, Curve, Jacobian, normalise},
    recode::{SPARSE_MULTIPLES, SignedScalar, sparse_digits},
    sums::Sums,
};

/// A field that the lanes of this machine know, where it has any.
#[cfg(target_arch = "x86_64")]
pub(crate) use crate::curve::lanes::LaneField as Vectorised;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use crate::curve::residue::Modulus as Vectorised;

/// A curve whose generator has a table.
pub(crate) trait Generator: Curve<Field: Vectorised> {
    /// The table of the generator, made at first use.
    fn comb() -> &'static GeneratorComb<Self::Field>;
}

/// One combination to compute.
#[derive(Debug)]
pub(crate) struct Combination<'a, C: Curve> {
    /// Of the generator.
    pub(crate) generator: SignedScalar,
    /// Of the key.
    pub(crate) key: SignedScalar,
    /// What stands for the key.
    pub(crate) multiplicand: Multiplicand<'a, C>,
}

/// A key's point, or its table.
#[derive(Debug)]
pub(crate) enum Multiplicand<'a, C: Curve> {
    Point(Affine<C::Field>),
    Table(&'a KeyComb<C::Field>),
}

/// Computes all combinations; results are in their order.
pub(crate) fn combine<C: Generator>(combinations: &[Combination<'_, C>]) -> Vec<Jacobian<C>> {
    #[cfg(target_arch = "x86_64")]
    if lanes::available() {
        return combine_in_lanes(combinations);
    }
    combine_one_by_one(combinations)
}

#[cfg(target_arch = "x86_64")]
thread_local! {
    static SCRATCH: RefCell<lanes::Scratch> = RefCell::default();
}

/// Items with and without a table do different work, so they go into lanes apart.
#[cfg(target_arch = "x86_64")]
fn combine_in_lanes<C: Generator>(combinations: &[Combination<'_, C>]) -> Vec<Jacobian<C>> {
    let mut results = vec![Jacobian::INFINITY; combinations.len()];
    for with_table in [true, false] {
        let has_table = |item: &Combination<'_, C>| matches!(item.multiplicand, Multiplicand::Table(_));
        let all = combinations.iter().enumerate().filter(|(_, item)| has_table(item) == with_table);
        let (indices, items): (Vec<usize>, Vec<_>) = all.unzip();
        for (indices, items) in indices.chunks(lanes::ITEMS_MAX).zip(items.chunks(lanes::ITEMS_MAX)) {
            // SAFETY: the caller asked the CPU.
            let sums = SCRATCH.with_borrow_mut(|scratch| unsafe { lanes::combine(items, scratch) });
            for ((index, item), sum) in indices.iter().zip(items).zip(sums) {
                results[*index] = sum.unwrap_or_else(|| item.compute_alone());
            }
        }
    }
    results
}

/// The portable way, which defines the result.
fn combine_one_by_one<C: Generator>(combinations: &[Combination<'_, C>]) -> Vec<Jacobian<C>> {
    let mut sums = Sums::with_capacity(combinations.len(), GeneratorComb::<C::Field>::ROWS + Comb::<C::Field, 6>::ROWS);
    for combination in combinations {
        sums.push_list(|terms| combination.push_terms(terms));
    }
    sums.reduce();
    let mut products = multiply_points(combinations).into_iter();
    let finish = |(index, combination): (usize, &Combination<'_, C>)| {
        let start = match combination.multiplicand {
            Multiplicand::Point(_) => products.next().unwrap_or(Jacobian::INFINITY),
            Multiplicand::Table(_) => Jacobian::INFINITY,
        };
        match sums.rest(index) {
            Some(rest) => rest.fold(start, |sum, point| sum.add_affine(point)),
            None => combination.add_terms(start),
        }
    };
    combinations.iter().enumerate().map(finish).collect()
}

impl<C: Generator> Combination<'_, C> {
    /// Pushes the terms that come from tables.
    fn push_terms(&self, terms: &mut Vec<Affine<C::Field>>) {
        C::comb().each_term(&self.generator, |_, term| terms.push(term));
        if let Multiplicand::Table(table) = self.multiplicand {
            table.each_term(&self.key, |_, term| terms.push(term));
        }
    }

    /// The result by complete additions alone.
    #[cfg(target_arch = "x86_64")]
    fn compute_alone(&self) -> Jacobian<C> {
        let start = match &self.multiplicand {
            Multiplicand::Point(point) => {
                let multiples = normalise(&odd_multiples::<C>(point));
                multiples.first_chunk().map_or(Jacobian::INFINITY, |multiples| multiply(multiples, &self.key))
            }
            Multiplicand::Table(_) => Jacobian::INFINITY,
        };
        self.add_terms(start)
    }

    /// `start` and the terms from tables, by complete additions. Only a sender who built a signature for it comes here.
    fn add_terms(&self, start: Jacobian<C>) -> Jacobian<C> {
        let mut terms = Vec::new();
        self.push_terms(&mut terms);
        terms.iter().fold(start, |sum, term| sum.add_affine(term))
    }
}

/// The products `v·Q` of the keys without a table, in order.
fn multiply_points<C: Generator>(combinations: &[Combination<'_, C>]) -> Vec<Jacobian<C>> {
    let without_table = |combination: &Combination<'_, C>| match combination.multiplicand {
        Multiplicand::Point(point) => Some((point, combination.key)),
        Multiplicand::Table(_) => None,
    };
    let factors: Vec<_> = combinations.iter().filter_map(without_table).collect();
    let multiples: Vec<_> = factors.iter().flat_map(|(point, _)| odd_multiples::<C>(point)).collect();
    let multiples = normalise(&multiples);
    let (multiples, _) = multiples.as_chunks::<SPARSE_MULTIPLES>();
    factors.iter().zip(multiples).map(|((_, scalar), multiples)| multiply(multiples, scalar)).collect()
}

/// `P, 3P, .. 15P`, none of them infinity on a curve of large prime order.
fn odd_multiples<C: Curve>(point: &Affine<C::Field>) -> [Jacobian<C>; SPARSE_MULTIPLES] {
    let mut multiples = [Jacobian::from(*point); SPARSE_MULTIPLES];
    let double = multiples[0].double();
    for index in 1..SPARSE_MULTIPLES {
        multiples[index] = multiples[index - 1].add(&double);
    }
    multiples
}

/// `scalar·P` from the odd multiples of `P`, by doublings and additions.
fn multiply<C: Curve>(multiples: &[Affine<C::Field>; SPARSE_MULTIPLES], scalar: &SignedScalar) -> Jacobian<C> {
    let digits = sparse_digits(&scalar.magnitude);
    let mut product = Jacobian::INFINITY;
    for digit in digits.iter().rev().skip_while(|digit| **digit == 0) {
        product = product.double();
        if *digit != 0 {
            let multiple = multiples[usize::from(digit.unsigned_abs() / 2)];
            product = product.add_affine(&multiple.negated_if((*digit < 0) != scalar.negative));
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use p256::elliptic_curve::{
        PrimeField, ProjectivePoint,
        sec1::{FromEncodedPoint, ModulusSize, ToEncodedPoint},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::curve::{
        Modulus, P256, PrimeCurve, Sm2,
        limbs::{Limbs, ZERO, limbs, subtract, to_be_bytes},
    };

    /// `u·G + v·Q` by our way and by that of the published crate, for `Q = q·G` with and without a table, alone and
    /// among others.
    fn check<C: Generator + PrimeCurve, O>(cases: &[[Limbs; 3]])
    where
        O: p256::elliptic_curve::CurveArithmetic,
        O::AffinePoint: ToEncodedPoint<O> + FromEncodedPoint<O>,
        O::FieldBytesSize: ModulusSize,
        O::Scalar: PrimeField<Repr = p256::elliptic_curve::FieldBytes<O>>,
    {
        let oracle_scalar = |limbs: &Limbs| {
            let repr = p256::elliptic_curve::FieldBytes::<O>::clone_from_slice(&to_be_bytes(limbs));
            Option::<O::Scalar>::from(O::Scalar::from_repr(repr)).expect("below the order")
        };
        let encode = |point: O::ProjectivePoint| {
            let affine: O::AffinePoint = point.into();
            affine.to_encoded_point(false).as_bytes().to_vec()
        };
        let generator = <ProjectivePoint<O> as p256::elliptic_curve::Group>::generator();
        let mut points = Vec::new();
        let mut expected = Vec::new();
        for [u, v, q] in cases {
            let key = generator * oracle_scalar(q);
            points.push(C::decode(&encode(key)).expect("a point"));
            expected.push(encode(generator * oracle_scalar(u) + key * oracle_scalar(v)));
        }
        let tables: Vec<_> = points.iter().map(|point| KeyComb::new::<C>(point).expect("a table")).collect();
        for with_table in [false, true] {
            let combination = |index: usize| {
                let [generator, key] = [0, 1].map(|part| SignedScalar::least(&cases[index][part], &C::Order::MODULUS));
                let multiplicand = match with_table {
                    true => Multiplicand::<C>::Table(&tables[index]),
                    false => Multiplicand::Point(points[index]),
                };
                Combination { generator, key, multiplicand }
            };
            let all: Vec<_> = (0..cases.len()).map(combination).collect();
            let together = [combine::<C>(&all), combine_one_by_one(&all)];
            for (index, expected) in expected.iter().enumerate() {
                let alone = [combine(&[combination(index)]), combine_one_by_one(&[combination(index)])];
                for found in [together[0][index], together[1][index], alone[0][0], alone[1][0]] {
                    assert_eq!(encoded(&found), *expected, "{:x?}, table {with_table}", cases[index]);
                }
            }
        }
    }

    fn encoded<C: Curve>(point: &Jacobian<C>) -> Vec<u8> {
        if point.is_infinity() {
            return vec![0];
        }
        let affine = normalise(&[*point]);
        let [x, y] = [affine[0].x, affine[0].y].map(|coordinate| to_be_bytes(&coordinate.to_integer()));
        [&[4], &x[..], &y[..]].concat()
    }

    /// Scalars for which terms meet: equal, opposite, zero, one, powers of two and the ends of the range.
    fn hard_cases(order: &Limbs) -> Vec<[Limbs; 3]> {
        let one = [1, 0, 0, 0];
        let minus = |scalar: &Limbs| subtract(order, scalar).0;
        let some = limbs(0x1234_5678_9abc_def0_1122_3344_5566_7788, 0x8877_6655_4433_2211_0fed_cba9_8765_4321);
        let mut scalars =
            vec![ZERO, one, [2, 0, 0, 0], [0x20, 0, 0, 0], [0x80, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], some];
        scalars.extend(scalars.clone()[1..].iter().map(minus));
        let mut cases = Vec::new();
        for u in &scalars {
            for v in &scalars {
                for q in [one, minus(&one), [64, 0, 0, 0], some] {
                    cases.push([*u, *v, q]);
                }
            }
        }
        cases
    }

    #[test]
    fn exceptional_terms_are_added_right() {
        for cases in hard_cases(&<P256 as PrimeCurve>::Order::MODULUS).chunks(150) {
            check::<P256, p256::NistP256>(cases);
        }
        for cases in hard_cases(&<Sm2 as PrimeCurve>::Order::MODULUS).chunks(150) {
            check::<Sm2, sm2::Sm2>(cases);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        #[test]
        fn combinations_agree_with_published_crates(
            cases in prop::collection::vec(prop::array::uniform3(prop::array::uniform4(1..u64::MAX)), 1..40),
        ) {
            let reduced = |order: &Limbs| -> Vec<[Limbs; 3]> {
                let below = |limbs: Limbs| [limbs[0], limbs[1], limbs[2], limbs[3] % (order[3] - 1)];
                cases.iter().map(|case| case.map(below)).collect()
            };
            check::<P256, p256::NistP256>(&reduced(&<P256 as PrimeCurve>::Order::MODULUS));
            check::<Sm2, sm2::Sm2>(&reduced(&<Sm2 as PrimeCurve>::Order::MODULUS));
        }
    }
}
