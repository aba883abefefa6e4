//! Ed25519 under ZIP-215, one at a time and in batches.
//!
//! For one signature the rule is `[8][s]B = [8]R + [8][k]A` with `k = SHA-512(R ‖ A ‖ M) mod ℓ`, where any
//! encoding of `A` and `R` that decodes is accepted and `s` must be below `ℓ`. A batch checks
//!
//! ```text
//! [8]( [-Σ zᵢsᵢ]B + Σ [zᵢ]Rᵢ + Σ [zᵢkᵢ]Aᵢ ) = 0        zᵢ random, 128 bits
//! ```
//!
//! The factor 8 removes the torsion part of every term in both forms, so the equation of a batch holds
//! whenever it holds for each item; when it does not hold for one of them, the batch passes with a
//! probability of at most 2⁻¹²⁸ over coefficients that no sender can know. A batch that fails is bisected
//! down to single verification, so a verdict never depends on its neighbours.

use std::iter::once;

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::ED25519_BASEPOINT_POINT,
    edwards::CompressedEdwardsY,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha512};

use crate::{
    figures::CacheFigures,
    suite::{KeyError, SIGNATURE_LENGTH, Signed, Suite, Verdict, key_cache::KeyCache},
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
    keys: KeyCache<EdwardsPoint>,
}

/// What a batch did besides its verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchFigures {
    /// An equation was evaluated over the whole batch.
    pub(crate) equation: bool,
    /// It failed and was bisected.
    pub(crate) bisected: bool,
}

/// A signature whose parts decoded.
struct Decoded {
    /// Position in the batch.
    index: usize,
    /// `A`.
    key: EdwardsPoint,
    /// Equal for neighbours under the same key, whose terms are then added up.
    key_number: usize,
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
    /// Random coefficient.
    z: Scalar,
}

impl Verifier {
    pub(crate) fn new(key_cache_entries: usize) -> Self {
        Self { keys: KeyCache::new(key_cache_entries) }
    }

    pub(crate) fn cache_figures(&self) -> CacheFigures {
        self.keys.figures()
    }

    /// Verifies a batch; `verdicts` has one entry for each item. Neighbours under the same key are
    /// cheapest, so callers sort by key.
    pub(crate) fn verify(&self, items: &[Signed<'_>], verdicts: &mut [Verdict]) -> BatchFigures {
        verdicts.fill(Verdict::Invalid);
        let mut figures = BatchFigures::default();
        let decoded = self.decode(items);
        if decoded.len() >= BATCH_MIN {
            figures.equation = true;
            if equation_holds(&decoded) {
                for item in &decoded {
                    verdicts[item.index] = Verdict::Valid;
                }
                return figures;
            }
            figures.bisected = true;
            let mut rechecks_left = decoded.len() * RECHECK_FACTOR;
            bisect(&decoded, &mut rechecks_left, verdicts);
        } else {
            for item in &decoded {
                verdicts[item.index] = item.verify_alone();
            }
        }
        figures
    }

    /// The items whose parts decode, with coefficients; the others are invalid whatever the equation says.
    fn decode(&self, items: &[Signed<'_>]) -> Vec<Decoded> {
        let mut coefficients = vec![0u8; items.len() * 16];
        OsRng.fill_bytes(&mut coefficients);
        let mut decoded: Vec<Decoded> = Vec::with_capacity(items.len());
        let mut last_key: Option<(&[u8], usize, Option<EdwardsPoint>)> = None;
        let coefficients = coefficients.as_chunks::<16>().0;
        for (index, (item, coefficient)) in items.iter().zip(coefficients).enumerate() {
            let (number, key) = match last_key {
                Some((bytes, number, key)) if bytes == item.public_key => (number, key),
                _ => {
                    let number = last_key.map_or(0, |(_, number, _)| number + 1);
                    let key = self.keys.find_or_decode(item.public_key, decode_point);
                    last_key = Some((item.public_key, number, key));
                    (number, key)
                }
            };
            let Some(key) = key else { continue };
            let Some((r, s, k)) = decode_signature(*item) else { continue };
            let z = Scalar::from(u128::from_le_bytes(*coefficient));
            decoded.push(Decoded { index, key, key_number: number, r, s, k, z });
        }
        decoded
    }
}

impl Decoded {
    fn verify_alone(&self) -> Verdict {
        verify_decoded(&self.key, &self.r, &self.s, &self.k)
    }
}

pub(crate) fn verify_one(item: Signed<'_>) -> Verdict {
    let Some(key) = decode_point(item.public_key) else { return Verdict::Invalid };
    let Some((r, s, k)) = decode_signature(item) else { return Verdict::Invalid };
    verify_decoded(&key, &r, &s, &k)
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

/// `[8](R - ([s]B - [k]A)) = 0`.
fn verify_decoded(key: &EdwardsPoint, r: &EdwardsPoint, s: &Scalar, k: &Scalar) -> Verdict {
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(k, &-key, s);
    Verdict::from((r - expected).mul_by_cofactor().is_identity())
}

fn equation_holds(items: &[Decoded]) -> bool {
    let mut base = Scalar::ZERO;
    let mut key_scalars: Vec<Scalar> = Vec::new();
    let mut keys: Vec<EdwardsPoint> = Vec::new();
    let mut last_number = None;
    for item in items {
        base -= item.z * item.s;
        let term = item.z * item.k;
        match key_scalars.last_mut() {
            Some(sum) if last_number == Some(item.key_number) => *sum += term,
            _ => {
                key_scalars.push(term);
                keys.push(item.key);
                last_number = Some(item.key_number);
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

/// `R`, `s` and `k` of an item.
fn decode_signature(item: Signed<'_>) -> Option<(EdwardsPoint, Scalar, Scalar)> {
    let signature: &[u8; SIGNATURE_LENGTH] = item.signature.try_into().ok()?;
    let (r_bytes, s_bytes) = signature.split_first_chunk::<32>()?;
    let s = Option::from(Scalar::from_canonical_bytes(s_bytes.try_into().ok()?))?;
    let r = CompressedEdwardsY(*r_bytes).decompress()?;
    let hash = Sha512::new().chain_update(r_bytes).chain_update(item.public_key).chain_update(item.message).finalize();
    Some((r, s, Scalar::from_bytes_mod_order_wide(&hash.into())))
}
