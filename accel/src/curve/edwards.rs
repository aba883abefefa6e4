//! Between edwards25519 and its Weierstrass form.
//!
//! With `(x, y)` on the Edwards curve, `u = (1 + y) / (1 - y)` and `v = √-486664 · u / x` lie on Curve25519 (RFC 7748
//! section 4.1), and `(u + 486662/3, v)` on the Weierstrass form.

use crate::curve::{
    curves::Edwards25519,
    limbs::{self, Limbs, limbs},
    moduli::EdwardsField,
    point::{Affine, Jacobian},
    residue::{Modulus, Residue, invert_all},
};

type Element = Residue<EdwardsField>;

/// `d`, RFC 8032 section 5.1.
const D: Limbs = limbs(0x52036cee_2b6ffe73_8cc74079_7779e898, 0x00700a4d_4141d8ab_75eb4dca_135978a3);

/// `√-1`.
const ROOT_OF_MINUS_ONE: Limbs = limbs(0x2b832480_4fc1df0b_2b4d0099_3dfbd7a7, 0x2f431806_ad2fe478_c4ee1b27_4a0ea0b0);

/// `√-486664`, the root whose sign takes the base point of one curve to that of the other.
const SCALE: Limbs = limbs(0x0f26edf4_60a006bb_d27b08dc_03fc4f7e, 0xc5a1d3d1_4b7d1a82_cc6e04aa_ff457e06);

/// `486662 / 3`.
const SHIFT: Limbs = limbs(0x2aaaaaaa_aaaaaaaa_aaaaaaaa_aaaaaaaa, 0xaaaaaaaa_aaaaaaaa_aaaaaaaa_aaad2451);

/// The encoding of the base point.
const BASE_POINT: [u8; 32] = {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
};

/// `d`.
pub(crate) const fn d() -> Limbs {
    D
}

/// `2·d`, below the prime.
pub(crate) fn twice_d() -> Limbs {
    Element::from_integer(&D).double().to_integer()
}

/// `√-1`.
pub(crate) const fn root_of_minus_one() -> Limbs {
    ROOT_OF_MINUS_ONE
}

/// `y + x`, `y - x` and `2·d·x·y` of each point on the Edwards curve: what an addition takes. No point may have `v = 0`.
pub(crate) fn addends(points: &[Affine<EdwardsField>]) -> Vec<[Limbs; 3]> {
    let us: Vec<Element> = points.iter().map(|point| point.x - Element::from_integer(&SHIFT)).collect();
    let mut inverses: Vec<Element> = points.iter().map(|point| point.y).collect();
    inverses.extend(us.iter().map(|u| *u + Element::ONE));
    invert_all(&mut inverses);
    let (of_v, of_sum) = inverses.split_at(points.len());
    let (scale, d2) = (Element::from_integer(&SCALE), Element::from_integer(&twice_d()));
    let addend = |((u, v_inverse), sum_inverse): ((&Element, &Element), &Element)| {
        let (x, y) = (scale * *u * *v_inverse, (*u - Element::ONE) * *sum_inverse);
        [y + x, y - x, x * y * d2].map(Residue::to_integer)
    };
    us.iter().zip(of_v).zip(of_sum).map(addend).collect()
}

/// The point of a canonical encoding, or `None`: no point, or one whose `u` or `v` is zero or infinite, which has small
/// order.
pub(crate) fn decode(bytes: &[u8; 32]) -> Option<Affine<EdwardsField>> {
    let (y, odd) = coordinate(bytes)?;
    let y_squared = y.square();
    let x = root_of_quotient(&(y_squared - Element::ONE), &(Element::from_integer(&D) * y_squared + Element::ONE))?;
    let x = if (x.to_integer()[0] & 1 == 1) == odd { x } else { -x };
    let mut inverses = [Element::ONE - y, x];
    invert_all(&mut inverses);
    let u = (Element::ONE + y) * inverses[0];
    let v = Element::from_integer(&SCALE) * u * inverses[1];
    (!v.is_zero()).then_some(Affine { x: u + Element::from_integer(&SHIFT), y: v })
}

/// The base point.
pub(crate) fn base_point() -> Affine<EdwardsField> {
    decode(&BASE_POINT).expect("RFC 8032 section 5.1")
}

/// Says for each point whether the encoding beside it is its canonical one. May say no of a point of small order.
pub(crate) fn are_encoded(points: &[Jacobian<Edwards25519>], encodings: &[&[u8; 32]]) -> Vec<bool> {
    let mut inverses: Vec<Element> = points.iter().map(|point| point.y).collect();
    invert_all(&mut inverses);
    let both = points.iter().zip(&inverses).zip(encodings);
    both.map(|((point, y_inverse), bytes)| is_encoded(point, y_inverse, bytes)).collect()
}

/// `u = U / Z²`, so `y = (U - Z²) / (U + Z²)` and `x = √-486664 · U·Z / Y`.
fn is_encoded(point: &Jacobian<Edwards25519>, y_inverse: &Element, bytes: &[u8; 32]) -> bool {
    let Some((y, odd)) = coordinate(bytes) else { return false };
    if y_inverse.is_zero() || point.is_infinity() {
        return false;
    }
    let z_squared = point.z.square();
    let u = point.x - Element::from_integer(&SHIFT) * z_squared;
    let denominator = u + z_squared;
    if denominator.is_zero() || y * denominator != u - z_squared {
        return false;
    }
    let x = Element::from_integer(&SCALE) * u * point.z * *y_inverse;
    (x.to_integer()[0] & 1 == 1) == odd
}

/// `y` and whether `x` is odd, or `None` if `y` is not below the prime.
fn coordinate(bytes: &[u8; 32]) -> Option<(Element, bool)> {
    let mut integer = limbs::from_le_bytes(bytes);
    let odd = integer[3] >> 63 == 1;
    integer[3] &= u64::MAX >> 1;
    Some((Element::from_canonical(&integer)?, odd))
}

/// `√(numerator / denominator)`, RFC 8032 section 5.1.3, or `None` if it has none. A denominator of the curve is never
/// zero.
fn root_of_quotient(numerator: &Element, denominator: &Element) -> Option<Element> {
    let quotient = *numerator * denominator.invert();
    let [p0, p1, p2, p3] = EdwardsField::MODULUS;
    // (p + 3) / 8 = ⌊p / 8⌋ + 1, because p ≡ 5 mod 8.
    let eighth = [p0 >> 3 | p1 << 61, p1 >> 3 | p2 << 61, p2 >> 3 | p3 << 61, p3 >> 3];
    let root = quotient.power(&limbs::add(&eighth, &[1, 0, 0, 0]).0);
    let other = root * Element::from_integer(&ROOT_OF_MINUS_ONE);
    [root, other].into_iter().find(|root| root.square() == quotient)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::{
        EdwardsPoint, Scalar,
        constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
        edwards::CompressedEdwardsY,
    };

    use super::*;
    use crate::curve::{Combination, KeyComb, Multiplicand, SignedScalar, combine};

    fn signed(scalar: &Scalar, negative: bool) -> SignedScalar {
        SignedScalar { magnitude: limbs::from_le_bytes(scalar.as_bytes()), negative }
    }

    #[test]
    fn every_point_outside_the_torsion_is_its_own_encoding_only() {
        for number in 1..40u64 {
            for torsion in EIGHT_TORSION {
                let point = ED25519_BASEPOINT_POINT * Scalar::from(number) + torsion;
                let bytes = point.compress().0;
                let ours = Jacobian::from(decode(&bytes).expect("a point"));
                let mut other_sign = bytes;
                other_sign[31] ^= 0x80;
                let mut other_y = bytes;
                other_y[1] ^= 1;
                assert_eq!(are_encoded(&[ours; 3], &[&bytes, &other_sign, &other_y]), [true, false, false]);
            }
        }
    }

    #[test]
    fn every_point_outside_the_torsion_is_decoded_and_nothing_that_is_no_point() {
        let canonical =
            |bytes: &[u8; 32]| CompressedEdwardsY(*bytes).decompress().filter(|point| point.compress().0 == *bytes);
        for number in 0..400u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_le_bytes());
            match canonical(&bytes) {
                None => assert!(decode(&bytes).is_none()),
                Some(point) => assert!(decode(&bytes).is_some() || point.is_small_order()),
            }
        }
        for point in EIGHT_TORSION {
            let table = decode(&point.compress().0).map(|point| KeyComb::new::<Edwards25519>(&point).is_some());
            assert_ne!(table, Some(true), "no table for small order");
        }
        assert!(decode(&[0xff; 32]).is_none());
    }

    #[test]
    fn combinations_agree_with_dalek() {
        let scalars: Vec<Scalar> = (0..12u64)
            .flat_map(|number| {
                let scalar = Scalar::from(number);
                [scalar, -scalar, scalar * Scalar::from(u64::MAX) * Scalar::from(u64::MAX - 5) * Scalar::from(u64::MAX)]
            })
            .collect();
        let key: EdwardsPoint = ED25519_BASEPOINT_POINT * Scalar::from(77u64) + EIGHT_TORSION[3];
        let table = KeyComb::new::<Edwards25519>(&decode(&key.compress().0).expect("a point")).expect("a table");
        let (mut combinations, mut expected) = (Vec::new(), Vec::new());
        for s in &scalars {
            for k in &scalars {
                let multiplicand = Multiplicand::Table(&table);
                combinations.push(Combination { generator: signed(s, false), key: signed(k, true), multiplicand });
                expected.push(ED25519_BASEPOINT_POINT * s - key * k);
            }
        }
        let encodings: Vec<[u8; 32]> = expected.iter().map(|point| point.compress().0).collect();
        let encodings: Vec<&[u8; 32]> = encodings.iter().collect();
        let equal = are_encoded(&combine(&combinations), &encodings);
        for (point, equal) in expected.iter().zip(equal) {
            assert!(equal || point.is_small_order());
        }
    }
}
