//! Arithmetic of 256-bit curves for verification, where everything is public and time may depend on it.
//!
//! ```text
//!  limbs ─► residue ─► point ─► sums ─► comb ─► combination: u·G + v·Q, many at once
//!             ▲ moduli   ▲ curves                 ▲ recode
//! ```
//!
//! Two ideas carry the speed. A key that is seen often gets a table of multiples ([`comb`]), so that a product is a sum
//! of 43 table entries without any doubling. And the entries of all items of a batch are added up in affine
//! coordinates, which one shared inversion makes almost twice as cheap as Jacobian ones ([`sums`]).
//!
//! Sources: Hankerson, Menezes, Vanstone, *Guide to Elliptic Curve Cryptography*, algorithms 3.21, 3.22, 3.35 and
//! section 3.3; Montgomery, *Speeding the Pollard and elliptic curve methods*, for the shared inversion.

mod comb;
mod combination;
mod curves;
pub(crate) mod edwards;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub(crate) mod limbs;
mod moduli;
mod point;
mod recode;
mod residue;
mod sums;

pub(crate) use self::{
    comb::KeyComb,
    combination::{Combination, Generator, Multiplicand, combine},
    curves::{Edwards25519, P256, Sm2},
    point::{Affine, Curve, Jacobian, PrimeCurve, normalise},
    recode::SignedScalar,
    residue::{Modulus, Residue, invert_all, power_of_two},
};
