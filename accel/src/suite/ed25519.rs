//! Ed25519 under ZIP-215, one at a time and in batches.
//!
//! For one signature the rule is `[8][s]B = [8]R + [8][k]A` with `k = SHA-512(R ‖ A ‖ M) mod ℓ`, where any
//! encoding of `A` and `R` that decodes is accepted and `s` must be below `ℓ`. A batch checks
//!
//! ```text
//! [8]( [-Σ zᵢsᵢ]B + Σ [zᵢ]Rᵢ + Σ [zᵢkᵢ]Aᵢ ) = 0        zᵢ random, 128 bits
//! ```
//!
//! A key that is used often has a table of multiples, by which `[s]B - [k]A` is computed outright; where that is `R`,
//! nothing more is to ask (see [`verify_by_tables`]). That costs less than an item's share in an equation and is not
//! spoilt by neighbours.
//!
//! The factor 8 removes the torsion part of every term in both forms, so the equation of a batch holds
//! whenever it holds for each item; when it does not hold for one of them, the batch passes with a
//! probability of at most 2⁻¹²⁸ over coefficients that no sender can know. A batch that fails is bisected
//! down to single verification, so a verdict never depends on its neighbours.

use std::{iter::once, sync::Arc};

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::ED25519_BASEPOINT_POINT,
    edwards::CompressedEdwardsY,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use rand_core::{OsRng, RngCore};
use stele_accel_hash::sha512_batch;

use crate::{
    curve::{
        Combination, Curve, Edwards25519, KeyComb, Multiplicand, SignedScalar, combine, edwards,
        limbs::{self, Limbs},
    },
    figures::CacheFigures,
    suite::{
        KeyError, SIGNATURE_LENGTH, Signed, Suite, Verdict,
        equation::Equations,
        keys::{Keyed, Keys, Known},
    },
};

/// Length of a public key in bytes.
const PUBLIC_KEY_LENGTH: usize = 32;

/// Below this many items an equation costs more than single verifications.
const BATCH_MIN: usize = 4;

/// Items that may be checked again while bisecting one batch, as a multiple of its size; what is still
/// undecided then is verified singly. Two times covers several bad items; a batch that is all bad costs
/// about twice its single verifications, so bad signatures buy their sender little.
const RECHECK_FACTOR: usize = 2;

/// Verifies with a cache of decoded keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys<EdwardsPoint, EdwardsComb>,
}

/// The table of a key.
pub(crate) type EdwardsComb = KeyComb<<Edwards25519 as Curve>::Field>;

/// What a batch did besides its verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchFigures {
    /// An equation was evaluated over the items whose keys have no table.
    pub(crate) equation: bool,
    /// It failed and was bisected.
    pub(crate) bisected: bool,
}

/// A signature under a key that decodes, as numbers: `[8][s]B = [8]R + [8][k]A`.
#[derive(Clone, Debug)]
pub(crate) struct EdwardsEquation {
    /// Position in the batch.
    pub(crate) index: usize,
    /// The encoding of `A`, and the place of its table in [`Equations::tables`] if it has one.
    pub(crate) key: [u8; 32],
    pub(crate) table: Option<usize>,
    /// The encoding of `R`.
    pub(crate) r: [u8; 32],
    /// Below the order.
    pub(crate) s: Limbs,
    pub(crate) k: Limbs,
}

/// A signature whose `R` is yet to be decoded.
struct Parsed<'a> {
    /// Position in the batch.
    index: usize,
    known: &'a Known<EdwardsPoint>,
    r: &'a [u8; 32],
    s: Scalar,
    k: Scalar,
}

/// A signature whose parts decoded.
struct Decoded {
    /// Position in the batch.
    index: usize,
    /// `A`.
    key: EdwardsPoint,
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
    /// Random coefficient.
    z: Scalar,
}

impl Verifier {
    pub(crate) fn new(key_cache_entries: usize, table_bytes: usize) -> Self {
        Self { keys: Keys::new(key_cache_entries, table_bytes, EdwardsComb::BYTES) }
    }

    pub(crate) fn cache_figures(&self) -> CacheFigures {
        self.keys.figures()
    }

    /// Verifies a batch; `verdicts` has one entry for each item. Neighbours under the same key are
    /// cheapest, so callers sort by key.
    pub(crate) fn verify(&self, items: &[Signed<'_>], verdicts: &mut [Verdict]) -> BatchFigures {
        verdicts.fill(Verdict::Invalid);
        let keys = self.keys(items);
        let hashes = hashes(items);
        let parsed = items.iter().zip(keys.iter()).zip(&hashes).enumerate();
        let parsed = parsed.filter_map(|(index, ((item, known), hash))| Parsed::new(index, item, known?, hash));
        let (with_table, without): (Vec<_>, Vec<_>) = parsed.partition(|item| item.known.table.is_some());
        verify_by_tables(&with_table, &keys.tables, verdicts);
        verify_by_equation(&decode_all(&without), verdicts)
    }

    /// What is left to decide of a batch; items without an equation are invalid.
    pub(crate) fn equations(&self, items: &[Signed<'_>]) -> Equations<EdwardsEquation, EdwardsComb> {
        let keys = self.keys(items);
        let hashes = hashes(items);
        let all = items.iter().zip(keys.iter()).zip(&hashes).enumerate();
        let equations = all.filter_map(|(index, ((item, known), hash))| {
            let parsed = Parsed::new(index, item, known?, hash)?;
            Some(EdwardsEquation {
                index,
                key: item.public_key.try_into().ok()?,
                table: parsed.known.table,
                r: *parsed.r,
                s: limbs::from_le_bytes(parsed.s.as_bytes()),
                k: limbs::from_le_bytes(parsed.k.as_bytes()),
            })
        });
        Equations { items: equations.collect(), tables: keys.tables }
    }

    fn keys(&self, items: &[Signed<'_>]) -> Keyed<EdwardsPoint, EdwardsComb> {
        self.keys.of(items, decode_point, |point| {
            EdwardsComb::new::<Edwards25519>(&edwards::decode(point.compress().as_bytes())?)
        })
    }
}

impl<'a> Parsed<'a> {
    fn new(index: usize, item: &Signed<'a>, known: &'a Known<EdwardsPoint>, hash: &[u8; 64]) -> Option<Self> {
        let signature: &[u8; SIGNATURE_LENGTH] = item.signature.try_into().ok()?;
        let (r, s) = signature.split_first_chunk()?;
        let s = Option::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?;
        Some(Self { index, known, r, s, k: Scalar::from_bytes_mod_order_wide(hash) })
    }

    fn decode(&self, z: Scalar) -> Option<Decoded> {
        let r = CompressedEdwardsY(*self.r).decompress()?;
        Some(Decoded { index: self.index, key: self.known.key, r, s: self.s, k: self.k, z })
    }

    /// `[s]B - [k]A`, to be computed; `None` without a table.
    fn combination<'t>(&self, tables: &'t [Arc<EdwardsComb>]) -> Option<Combination<'t, Edwards25519>> {
        let scalar =
            |scalar: &Scalar, negative| SignedScalar { magnitude: limbs::from_le_bytes(scalar.as_bytes()), negative };
        let multiplicand = Multiplicand::Table(tables.get(self.known.table?)?);
        Some(Combination { generator: scalar(&self.s, false), key: scalar(&self.k, true), multiplicand })
    }
}

/// `SHA-512(R ‖ A ‖ M)` of each item; of one without a whole signature, whatever.
fn hashes<'a>(items: &[Signed<'a>]) -> Vec<[u8; 64]> {
    let pieces = |item: &Signed<'a>| [item.signature.get(..32).unwrap_or_default(), item.public_key, item.message];
    sha512_batch(&items.iter().map(pieces).collect::<Vec<_>>())
}

/// Accepts an item at once when `[s]B - [k]A` has the very encoding `R`: then the rule holds, before its factor 8. What
/// is left, be it forged or valid for its torsion alone, is put to the rule itself.
fn verify_by_tables(items: &[Parsed<'_>], tables: &[Arc<EdwardsComb>], verdicts: &mut [Verdict]) {
    let combinations: Vec<_> = items.iter().filter_map(|item| item.combination(tables)).collect();
    let encodings: Vec<&[u8; 32]> = items.iter().map(|item| item.r).collect();
    let equal = edwards::are_encoded(&combine(&combinations), &encodings);
    for (item, equal) in items.iter().zip(equal) {
        let by_rule = || item.decode(Scalar::ONE).map_or(Verdict::Invalid, |decoded| decoded.verify_alone());
        verdicts[item.index] = if equal { Verdict::Valid } else { by_rule() };
    }
}

/// The items whose `R` decodes, with coefficients; the others are invalid whatever the equation says.
fn decode_all(items: &[Parsed<'_>]) -> Vec<Decoded> {
    let mut coefficients = vec![0u8; items.len() * 16];
    OsRng.fill_bytes(&mut coefficients);
    let coefficients = coefficients.as_chunks::<16>().0.iter().map(|bytes| Scalar::from(u128::from_le_bytes(*bytes)));
    items.iter().zip(coefficients).filter_map(|(item, z)| item.decode(z)).collect()
}

fn verify_by_equation(decoded: &[Decoded], verdicts: &mut [Verdict]) -> BatchFigures {
    if decoded.len() < BATCH_MIN {
        for item in decoded {
            verdicts[item.index] = item.verify_alone();
        }
        return BatchFigures::default();
    }
    let bisected = !equation_holds(decoded);
    if bisected {
        let mut rechecks_left = decoded.len() * RECHECK_FACTOR;
        bisect(decoded, &mut rechecks_left, verdicts);
    } else {
        for item in decoded {
            verdicts[item.index] = Verdict::Valid;
        }
    }
    BatchFigures { equation: true, bisected }
}

impl Decoded {
    /// `[8](R - ([s]B - [k]A)) = 0`.
    fn verify_alone(&self) -> Verdict {
        let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, &-self.key, &self.s);
        Verdict::from((self.r - expected).mul_by_cofactor().is_identity())
    }
}

pub(crate) fn verify_one(item: Signed<'_>) -> Verdict {
    let Some(point) = decode_point(item.public_key) else { return Verdict::Invalid };
    let known = Known { key: point, table: None };
    let [hash] = *hashes(&[item]) else { return Verdict::Invalid };
    let decoded = Parsed::new(0, &item, &known, &hash).and_then(|parsed| parsed.decode(Scalar::ONE));
    decoded.map_or(Verdict::Invalid, |decoded| decoded.verify_alone())
}

/// What the rule says of an equation, without a table.
pub(crate) fn decide_alone(equation: &EdwardsEquation) -> Verdict {
    let scalar = |limbs: &Limbs| {
        let mut bytes = limbs::to_be_bytes(limbs);
        bytes.reverse();
        Option::<Scalar>::from(Scalar::from_canonical_bytes(bytes))
    };
    let decoded = || {
        let (key, r) = (decode_point(&equation.key)?, decode_point(&equation.r)?);
        Some(Decoded { index: 0, key, r, s: scalar(&equation.s)?, k: scalar(&equation.k)?, z: Scalar::ONE })
    };
    decoded().map_or(Verdict::Invalid, |decoded| decoded.verify_alone())
}

pub(crate) fn check_public_key(public_key: &[u8]) -> Result<(), KeyError> {
    if public_key.len() != PUBLIC_KEY_LENGTH {
        return Err(KeyError::Malformed(Suite::Ed25519));
    }
    let point = decode_point(public_key).ok_or(KeyError::NotOnCurve(Suite::Ed25519))?;
    if point.compress().as_bytes() != public_key {
        return Err(KeyError::NotCanonical);
    }
    if point.is_small_order() {
        return Err(KeyError::SmallOrder);
    }
    if !point.is_torsion_free() {
        return Err(KeyError::Torsion);
    }
    Ok(())
}

fn equation_holds(items: &[Decoded]) -> bool {
    let mut base = Scalar::ZERO;
    let mut key_scalars: Vec<Scalar> = Vec::new();
    let mut keys: Vec<EdwardsPoint> = Vec::new();
    for item in items {
        base -= item.z * item.s;
        let term = item.z * item.k;
        match (key_scalars.last_mut(), keys.last()) {
            (Some(sum), Some(last)) if *last == item.key => *sum += term,
            _ => {
                key_scalars.push(term);
                keys.push(item.key);
            }
        }
    }
    let scalars = once(&base).chain(&key_scalars).chain(items.iter().map(|item| &item.z));
    let points = once(&ED25519_BASEPOINT_POINT).chain(&keys).chain(items.iter().map(|item| &item.r));
    EdwardsPoint::vartime_multiscalar_mul(scalars, points).mul_by_cofactor().is_identity()
}

/// Finds the bad items of a range whose equation is known not to hold.
fn bisect(items: &[Decoded], rechecks_left: &mut usize, verdicts: &mut [Verdict]) {
    let (left, right) = items.split_at(items.len() / 2);
    if items.len() < 2 * BATCH_MIN || *rechecks_left < left.len() {
        for item in items {
            verdicts[item.index] = item.verify_alone();
        }
        return;
    }
    *rechecks_left -= left.len();
    if equation_holds(left) {
        for item in left {
            verdicts[item.index] = Verdict::Valid;
        }
        // The whole failed and the left half holds, so the right half fails: no need to ask.
        bisect(right, rechecks_left, verdicts);
        return;
    }
    bisect(left, rechecks_left, verdicts);
    if *rechecks_left >= right.len() {
        *rechecks_left -= right.len();
        if equation_holds(right) {
            for item in right {
                verdicts[item.index] = Verdict::Valid;
            }
            return;
        }
    }
    bisect(right, rechecks_left, verdicts);
}

fn decode_point(bytes: &[u8]) -> Option<EdwardsPoint> {
    CompressedEdwardsY::from_slice(bytes).ok()?.decompress()
}
