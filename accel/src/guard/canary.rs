//! Equations of known verdict, made from fresh randomness by the CPU at start.

use std::sync::Arc;

use curve25519_dalek::{
    Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
};
use rand_core::{OsRng, RngCore};

use crate::{
    curve::{
        Affine, Combination, Edwards25519, Generator, KeyComb, Modulus, Multiplicand, PrimeCurve, Residue,
        SignedScalar, combine, edwards,
        limbs::{self, Limbs, ZERO},
        normalise,
    },
    gpu::{Question, Questions, SuiteCurve},
    guard::Draw,
    suite::{EdwardsEquation, Equation},
};

/// Keys of canaries.
const KEYS: usize = 2;

/// Canaries of each key and verdict.
const OF_EACH: usize = 8;

/// Canaries in each group of a part of a batch: half of them valid.
pub(crate) const IN_PART: usize = 4;

/// The canaries of one suite.
#[derive(Debug)]
pub(crate) struct Canaries<Q: Question> {
    valid: Vec<Q>,
    invalid: Vec<Q>,
    /// Of their keys.
    pub(crate) tables: Vec<Arc<Q::Table>>,
}

impl<Q: Question> Canaries<Q> {
    /// Some of them with their verdicts.
    pub(crate) fn pick(&self, draw: &mut Draw) -> Vec<(&Q, bool)> {
        let mut picked = Vec::with_capacity(IN_PART);
        for (from, verdict) in [(&self.valid, true), (&self.invalid, false)] {
            let start = draw.below(from.len());
            picked.extend(from.iter().cycle().skip(start).take(IN_PART / 2).map(|canary| (canary, verdict)));
        }
        picked
    }

    /// So many, over and over, and their verdicts; all with tables or none.
    pub(crate) fn repeated(&self, count: usize, with_table: bool) -> (Questions<Q>, Vec<bool>) {
        let both = self.valid.iter().zip(&self.invalid).cycle();
        let both = both.flat_map(|(valid, invalid)| [(valid, true), (invalid, false)]).take(count).enumerate();
        let (items, verdicts) = both.map(|(index, (canary, verdict))| (canary.at(index, with_table), verdict)).unzip();
        (Questions::<Q> { items, tables: self.tables.clone() }, verdicts)
    }
}

impl<C: SuiteCurve> Canaries<Equation<C>> {
    /// Fresh ones; `None` only if a random number is zero.
    pub(crate) fn new() -> Option<Self> {
        let (mut valid, mut invalid, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        for place in 0..KEYS {
            let key = affine::<C>(&scalar::<C>(), &ZERO, &C::generator())?;
            tables.push(Arc::new(KeyComb::new::<C>(&key)?));
            for _ in 0..OF_EACH {
                let (generator, factor) = (scalar::<C>(), scalar::<C>());
                let sum = affine::<C>(&generator, &factor, &key)?;
                let x = Residue::<C::Order>::from_integer(&sum.x.to_integer());
                let equation = |x: Residue<C::Order>| Equation {
                    index: 0,
                    generator,
                    key: factor,
                    point: key,
                    table: Some(place),
                    x: x.to_integer(),
                };
                valid.push(equation(x));
                invalid.push(equation(x + Residue::ONE));
            }
        }
        Some(Self { valid, invalid, tables })
    }
}

impl Canaries<EdwardsEquation> {
    /// Fresh ones. Those that are valid have every torsion in `R`.
    pub(crate) fn fresh() -> Option<Self> {
        let random = || {
            let mut bytes = [0; 64];
            OsRng.fill_bytes(&mut bytes);
            Scalar::from_bytes_mod_order_wide(&bytes)
        };
        let (mut valid, mut invalid, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        for place in 0..KEYS {
            let point = ED25519_BASEPOINT_POINT * random();
            let key = point.compress().0;
            tables.push(Arc::new(KeyComb::new::<Edwards25519>(&edwards::decode(&key)?)?));
            for torsion in EIGHT_TORSION.iter().take(OF_EACH) {
                let (s, k) = (random(), random());
                let r = ED25519_BASEPOINT_POINT * s - point * k + torsion;
                let equation = |r: curve25519_dalek::EdwardsPoint| EdwardsEquation {
                    index: 0,
                    key,
                    table: Some(place),
                    r: r.compress().0,
                    s: limbs::from_le_bytes(s.as_bytes()),
                    k: limbs::from_le_bytes(k.as_bytes()),
                };
                valid.push(equation(r));
                invalid.push(equation(r + ED25519_BASEPOINT_POINT));
            }
        }
        Some(Self { valid, invalid, tables })
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
