//! Equations of known verdict, made from fresh randomness by the CPU at start.

use std::sync::Arc;

use rand_core::{OsRng, RngCore};

use crate::{
    curve::{
        Affine, Combination, Generator, KeyComb, Modulus, Multiplicand, PrimeCurve, Residue, SignedScalar, combine,
        limbs::{self, Limbs, ZERO},
        normalise,
    },
    guard::Draw,
    suite::Equation,
};

/// Keys of canaries.
const KEYS: usize = 2;

/// Canaries of each key and verdict.
const OF_EACH: usize = 8;

/// Canaries in each group of a batch: half of them valid.
pub(crate) const IN_BATCH: usize = 4;

/// The canaries of one curve.
#[derive(Debug)]
pub(crate) struct Canaries<C: PrimeCurve> {
    valid: Vec<Equation<C>>,
    invalid: Vec<Equation<C>>,
}

impl<C: PrimeCurve + Generator> Canaries<C> {
    /// Fresh ones; `None` only if a random number is zero.
    pub(crate) fn new() -> Option<Self> {
        let (mut valid, mut invalid) = (Vec::new(), Vec::new());
        for _ in 0..KEYS {
            let key = affine::<C>(&scalar::<C>(), &ZERO, &C::generator())?;
            let table = Arc::new(KeyComb::new::<C>(&key)?);
            for _ in 0..OF_EACH {
                let (generator, factor) = (scalar::<C>(), scalar::<C>());
                let sum = affine::<C>(&generator, &factor, &key)?;
                let x = Residue::<C::Order>::from_integer(&sum.x.to_integer());
                let equation = |x: Residue<C::Order>| Equation {
                    index: 0,
                    generator,
                    key: factor,
                    point: key,
                    table: Some(Arc::clone(&table)),
                    x: x.to_integer(),
                };
                valid.push(equation(x));
                invalid.push(equation(x + Residue::ONE));
            }
        }
        Some(Self { valid, invalid })
    }

    /// Some of them with their verdicts.
    pub(crate) fn pick(&self, draw: &mut Draw) -> Vec<(&Equation<C>, bool)> {
        let mut pick = |from: &'_ [Equation<C>], verdict| {
            let start = draw.below(from.len());
            (0..IN_BATCH / 2).map(|place| ((start + place) % from.len(), verdict)).collect::<Vec<_>>()
        };
        let (valid, invalid) = (pick(&self.valid, true), pick(&self.invalid, false));
        let valid = valid.into_iter().map(|(place, verdict)| (&self.valid[place], verdict));
        valid.chain(invalid.into_iter().map(|(place, verdict)| (&self.invalid[place], verdict))).collect()
    }

    /// So many equations, over and over, and their verdicts; all with tables or none.
    pub(crate) fn repeated(&self, count: usize, with_table: bool) -> (Vec<Equation<C>>, Vec<bool>) {
        let both = self.valid.iter().zip(&self.invalid).cycle();
        let both = both.flat_map(|(valid, invalid)| [(valid, true), (invalid, false)]).take(count).enumerate();
        let repeat = |(index, (equation, verdict)): (usize, (&Equation<C>, bool))| {
            let table = equation.table.clone().filter(|_| with_table);
            (Equation { index, table, ..*equation }, verdict)
        };
        both.map(repeat).unzip()
    }
}

/// A random number below the order.
fn scalar<C: PrimeCurve>() -> Limbs {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    Residue::<C::Order>::from_integer(&limbs::from_le_bytes(&bytes)).to_integer()
}

/// `generator·G + factor·key`.
fn affine<C: PrimeCurve + Generator>(
    generator: &Limbs,
    factor: &Limbs,
    key: &Affine<C::Field>,
) -> Option<Affine<C::Field>> {
    let least = |scalar| SignedScalar::least(scalar, &C::Order::MODULUS);
    let combination =
        Combination::<C> { generator: least(generator), key: least(factor), multiplicand: Multiplicand::Point(*key) };
    let sum = combine(&[combination]);
    if sum.iter().any(crate::curve::Jacobian::is_infinity) { None } else { normalise(&sum).first().copied() }
}
