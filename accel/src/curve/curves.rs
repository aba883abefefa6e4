//! The curves: P-256, SM2, and edwards25519 in Weierstrass form.

use std::sync::LazyLock;

use crate::curve::{
    comb::GeneratorComb,
    combination::Generator,
    edwards,
    limbs::{Limbs, limbs},
    moduli::{EdwardsField, P256Field, P256Order, Sm2Field, Sm2Order},
    point::{Affine, Curve, PrimeCurve},
    residue::{Modulus, Residue},
};

/// P-256, SP 800-186 section 3.2.1.3.
#[derive(Clone, Copy, Debug)]
pub(crate) struct P256;

/// The recommended curve of SM2, GB/T 32918.5-2017 section 2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sm2;

/// The Weierstrass form of edwards25519, SP 800-186 section 3.2.2.1 (W-25519) and appendix B: additions of affine
/// points cost fewest multiplications in this form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edwards25519;

/// `3·(x - z²)·(x + z²)`, for `a = -3`.
#[inline(always)]
fn tangent_of_minus_three<M: Modulus>(x: &Residue<M>, z_squared: &Residue<M>) -> Residue<M> {
    let product = (*x - *z_squared) * (*x + *z_squared);
    product.double() + product
}

impl Curve for P256 {
    type Field = P256Field;

    #[inline(always)]
    fn tangent(x: &Residue<P256Field>, z_squared: &Residue<P256Field>) -> Residue<P256Field> {
        tangent_of_minus_three(x, z_squared)
    }
}

impl PrimeCurve for P256 {
    type Order = P256Order;
    const B: Limbs = limbs(0x5ac635d8_aa3a93e7_b3ebbd55_769886bc, 0x651d06b0_cc53b0f6_3bce3c3e_27d2604b);
    const GENERATOR: [Limbs; 2] = [
        limbs(0x6b17d1f2_e12c4247_f8bce6e5_63a440f2, 0x77037d81_2deb33a0_f4a13945_d898c296),
        limbs(0x4fe342e2_fe1a7f9b_8ee7eb4a_7c0f9e16, 0x2bce3357_6b315ece_cbb64068_37bf51f5),
    ];
}

impl Curve for Sm2 {
    type Field = Sm2Field;

    #[inline(always)]
    fn tangent(x: &Residue<Sm2Field>, z_squared: &Residue<Sm2Field>) -> Residue<Sm2Field> {
        tangent_of_minus_three(x, z_squared)
    }
}

impl PrimeCurve for Sm2 {
    type Order = Sm2Order;
    const B: Limbs = limbs(0x28e9fa9e_9d9f5e34_4d5a9e4b_cf6509a7, 0xf39789f5_15ab8f92_ddbcbd41_4d940e93);
    const GENERATOR: [Limbs; 2] = [
        limbs(0x32c4ae2c_1f198119_5f990446_6a39c994, 0x8fe30bbf_f2660be1_715a4589_334c74c7),
        limbs(0xbc3736a2_f4f6779c_59bdcee3_6b692153, 0xd0a9877c_c62a4740_02df32e5_2139f0a0),
    ];
}

/// `a` of W-25519.
const EDWARDS_A: Limbs = limbs(0x2aaaaaaa_aaaaaaaa_aaaaaaaa_aaaaaaaa, 0xaaaaaaaa_aaaaaaaa_aaaaaa98_4914a144);

impl Curve for Edwards25519 {
    type Field = EdwardsField;

    fn tangent(x: &Residue<EdwardsField>, z_squared: &Residue<EdwardsField>) -> Residue<EdwardsField> {
        let square = x.square();
        square.double() + square + z_squared.square() * Residue::from_integer(&EDWARDS_A)
    }
}

impl Generator for P256 {
    fn comb() -> &'static GeneratorComb<P256Field> {
        static COMB: LazyLock<GeneratorComb<P256Field>> = LazyLock::new(|| generator_comb::<P256>(&P256::generator()));
        &COMB
    }
}

impl Generator for Sm2 {
    fn comb() -> &'static GeneratorComb<Sm2Field> {
        static COMB: LazyLock<GeneratorComb<Sm2Field>> = LazyLock::new(|| generator_comb::<Sm2>(&Sm2::generator()));
        &COMB
    }
}

impl Generator for Edwards25519 {
    fn comb() -> &'static GeneratorComb<EdwardsField> {
        static COMB: LazyLock<GeneratorComb<EdwardsField>> =
            LazyLock::new(|| generator_comb::<Edwards25519>(&edwards::base_point()));
        &COMB
    }
}

fn generator_comb<C: Curve>(generator: &Affine<C::Field>) -> GeneratorComb<C::Field> {
    GeneratorComb::new::<C>(generator).expect("a generator has large order")
}
