//! What ECDSA and SM2 have in common: keys on a curve of prime order, pairs of scalars, and the last step, which asks
//! whether `u·G + v·Q` has an x-coordinate of a given residue modulo the order of the group.

use std::sync::Arc;

use crate::{
    curve::{
        Affine, Combination, Curve, Generator, Jacobian, KeyComb, Modulus, Multiplicand, PrimeCurve, Residue,
        SignedScalar, combine,
        limbs::{self, Limbs, ZERO},
    },
    suite::{Verdict, is_sec1},
};

/// A decoded key with what its suite derives from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<C: PrimeCurve, X> {
    pub(super) point: Affine<C::Field>,
    pub(super) derived: X,
}

/// The table of a key on a curve.
pub(super) type KeyTable<C> = KeyComb<<C as Curve>::Field>;

/// Equations of a batch, and the tables of keys that they name.
///
/// A table is shared once for neighbours that use it and not once for each: all cores would count their shares in one
/// place, and wait for each other there longer than the rest of their work takes.
#[derive(Debug)]
pub(crate) struct Equations<E, T> {
    pub(crate) items: Vec<E>,
    pub(crate) tables: Vec<Arc<T>>,
}

/// The last step for one item.
#[derive(Clone, Debug)]
pub(crate) struct Equation<C: PrimeCurve> {
    /// Position of the item in its batch.
    pub(crate) index: usize,
    /// `u`, below the order.
    pub(crate) generator: Limbs,
    /// `v`, below the order.
    pub(crate) key: Limbs,
    /// `Q`, and the place of its table in [`Equations::tables`] if it has one.
    pub(crate) point: Affine<C::Field>,
    pub(crate) table: Option<usize>,
    /// What the x-coordinate must be modulo the order; below the order.
    pub(crate) x: Limbs,
}

impl<C: PrimeCurve, X> Key<C, X> {
    /// Its table, unless it cannot have one.
    pub(super) fn table(&self) -> Option<KeyTable<C>> {
        KeyComb::new::<C>(&self.point)
    }
}

/// The key with these bytes.
pub(super) fn decode<C: PrimeCurve, X>(bytes: &[u8], derive: impl FnOnce(&Affine<C::Field>) -> X) -> Option<Key<C, X>> {
    let point = is_sec1(bytes).then(|| C::decode(bytes)).flatten()?;
    Some(Key { point, derived: derive(&point) })
}

/// The two scalars of a signature, each in `1..n`.
pub(super) fn scalars<C: PrimeCurve>(signature: &[u8]) -> Option<[Limbs; 2]> {
    let (halves, []) = signature.as_chunks::<32>() else { return None };
    let scalars = <&[[u8; 32]; 2]>::try_from(halves).ok()?.map(|half| limbs::from_be_bytes(&half));
    scalars.iter().all(|scalar| *scalar != ZERO && limbs::less(scalar, &C::Order::MODULUS)).then_some(scalars)
}

/// Decides the items of all equations.
pub(crate) fn decide<C: PrimeCurve + Generator>(
    equations: &Equations<Equation<C>, KeyTable<C>>,
    verdicts: &mut [Verdict],
) {
    let Equations { items, tables } = equations;
    let combinations: Vec<Combination<'_, C>> = items.iter().map(|equation| equation.combination(tables)).collect();
    for (equation, point) in items.iter().zip(combine(&combinations)) {
        verdicts[equation.index] = Verdict::from(equation.holds(&point));
    }
}

impl<C: PrimeCurve> Equation<C> {
    fn combination<'t>(&self, tables: &'t [Arc<KeyTable<C>>]) -> Combination<'t, C> {
        let [generator, key] = self.least_scalars();
        let table = self.table.and_then(|table| tables.get(table));
        let multiplicand = table.map_or(Multiplicand::Point(self.point), |table| Multiplicand::Table(table));
        Combination { generator, key, multiplicand }
    }

    /// `u` and `v` in their smallest forms.
    pub(crate) fn least_scalars(&self) -> [SignedScalar; 2] {
        [&self.generator, &self.key].map(|scalar| SignedScalar::least(scalar, &C::Order::MODULUS))
    }

    /// The one or two coordinates that would do; one stands twice. The order is a little below the field's prime, so a
    /// residue modulo the order stands for one coordinate or two.
    pub(crate) fn coordinates(&self) -> [Limbs; 2] {
        let (second, carry) = limbs::add(&self.x, &C::Order::MODULUS);
        let is_coordinate = !carry && limbs::less(&second, &C::Field::MODULUS);
        [self.x, if is_coordinate { second } else { self.x }]
    }

    fn holds(&self, point: &Jacobian<C>) -> bool {
        self.coordinates().iter().any(|x| point.has_x(&Residue::from_integer(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{P256, Sm2};

    /// A point whose x-coordinate is not below the order, with that coordinate: the smallest there is.
    fn point_beyond_the_order<C: PrimeCurve>() -> (Affine<C::Field>, Limbs) {
        let mut x = C::Order::MODULUS;
        loop {
            let encoded = [&[2][..], &limbs::to_be_bytes(&x)].concat();
            if let Some(point) = C::decode(&encoded) {
                return (point, x);
            }
            x = limbs::add(&x, &[1, 0, 0, 0]).0;
        }
    }

    /// `0·G + 1·Q` for a `Q` with `x ≥ n`: the residue `x - n` must be found, and `x - n ± 1` must not.
    fn check<C: PrimeCurve + Generator>() {
        let (point, x) = point_beyond_the_order::<C>();
        let residue = limbs::subtract(&x, &C::Order::MODULUS).0;
        let table = Arc::new(KeyComb::new::<C>(&point).expect("a table"));
        for with_table in [None, Some(0)] {
            let equation =
                |index, x| Equation::<C> { index, generator: ZERO, key: [1, 0, 0, 0], point, table: with_table, x };
            let wrong = [limbs::add(&residue, &[1, 0, 0, 0]).0, limbs::subtract(&C::Order::MODULUS, &[1, 0, 0, 0]).0];
            let mut verdicts = [Verdict::Invalid; 3];
            let items = vec![equation(0, residue), equation(1, wrong[0]), equation(2, wrong[1])];
            decide(&Equations { items, tables: vec![Arc::clone(&table)] }, &mut verdicts);
            assert_eq!(verdicts, [Verdict::Valid, Verdict::Invalid, Verdict::Invalid]);
        }
    }

    #[test]
    fn a_coordinate_beyond_the_order_counts_by_its_residue() {
        check::<P256>();
        check::<Sm2>();
    }

    #[test]
    fn the_point_at_infinity_satisfies_no_equation() {
        let point = Sm2::generator();
        let minus_one = limbs::subtract(&<Sm2 as PrimeCurve>::Order::MODULUS, &[1, 0, 0, 0]).0;
        let equation = |x| Equation::<Sm2> { index: 0, generator: minus_one, key: [1, 0, 0, 0], point, table: None, x };
        for x in [ZERO, [1, 0, 0, 0], minus_one] {
            let mut verdict = [Verdict::Valid];
            decide(&Equations { items: vec![equation(x)], tables: Vec::new() }, &mut verdict);
            assert_eq!(verdict, [Verdict::Invalid]);
        }
    }

    #[test]
    fn scalars_outside_their_range_are_refused() {
        let order = <Sm2 as PrimeCurve>::Order::MODULUS;
        let below = limbs::subtract(&order, &[1, 0, 0, 0]).0;
        let encode = |r: &Limbs, s: &Limbs| [limbs::to_be_bytes(r), limbs::to_be_bytes(s)].concat();
        assert_eq!(scalars::<Sm2>(&encode(&below, &[1, 0, 0, 0])), Some([below, [1, 0, 0, 0]]));
        for bad in [ZERO, order, [u64::MAX; 4]] {
            assert_eq!(scalars::<Sm2>(&encode(&bad, &below)), None);
            assert_eq!(scalars::<Sm2>(&encode(&below, &bad)), None);
        }
    }
}
