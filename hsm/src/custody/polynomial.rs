//! Shamir's secret sharing (A. Shamir, "How to share a secret", 1979) over the scalars of P-256, with the commitments of
//! P. Feldman ("A practical scheme for non-interactive verifiable secret sharing", 1987).
//!
//! A polynomial with the secret at zero is given out by its values at 1, 2, ...; as many as it has coefficients give the
//! secret back, and fewer say nothing of it. The coefficients times the base point are public: by them everybody can tell a
//! value that is false, and the first is the public half of the secret.

use p256::{
    ProjectivePoint, Scalar,
    elliptic_curve::{Field as _, Group as _},
};
use rand_core::OsRng;
use zeroize::Zeroizing;

/// A polynomial; its coefficients are wiped when it is dropped.
pub(super) struct Polynomial(Zeroizing<Vec<Scalar>>);

impl Polynomial {
    /// A random polynomial of `required` coefficients with `secret` at zero.
    pub(super) fn random(secret: &Scalar, required: u8) -> Self {
        // Reserved once, so that growing never leaves a copy behind.
        let mut coefficients = Zeroizing::new(Vec::with_capacity(required.into()));
        coefficients.push(*secret);
        for _ in 1..required {
            coefficients.push(Scalar::random(&mut OsRng));
        }
        Self(coefficients)
    }

    /// Its value.
    pub(super) fn at(&self, index: u8) -> Zeroizing<Scalar> {
        let index = scalar(index);
        let horner = |sum: Scalar, coefficient: &Scalar| sum * index + coefficient;
        Zeroizing::new(self.0.iter().rev().fold(Scalar::ZERO, horner))
    }

    /// What everybody may know of it.
    pub(super) fn commitments(&self) -> Vec<ProjectivePoint> {
        self.0.iter().map(|coefficient| ProjectivePoint::generator() * coefficient).collect()
    }
}

/// Whether a polynomial with these commitments has this value there.
pub(super) fn has_value(commitments: &[ProjectivePoint], index: u8, value: &Scalar) -> bool {
    let index = scalar(index);
    let horner = |sum: ProjectivePoint, commitment: &ProjectivePoint| sum * index + commitment;
    ProjectivePoint::generator() * value == commitments.iter().rev().fold(ProjectivePoint::IDENTITY, horner)
}

/// The value at zero of the polynomial with these values, as many as it has coefficients; none if two are of one place.
pub(super) fn at_zero(values: &[(u8, &Scalar)]) -> Option<Zeroizing<Scalar>> {
    let mut sum = Zeroizing::new(Scalar::ZERO);
    for (at, (index, value)) in values.iter().enumerate() {
        let index = scalar(*index);
        let mut term = Zeroizing::new(**value);
        for (_, (other, _)) in values.iter().enumerate().filter(|(place, _)| *place != at) {
            let other = scalar(*other);
            let inverse: Option<Scalar> = (other - index).invert().into();
            *term = *term * other * inverse?;
        }
        *sum += *term;
    }
    Some(sum)
}

fn scalar(index: u8) -> Scalar {
    Scalar::from(u64::from(index))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn enough_values_give_the_secret_back_and_fewer_another(secret in 1_u64.., required in 2_u8..6, more in 0_u8..4) {
            let secret = Scalar::from(secret);
            let polynomial = Polynomial::random(&secret, required);
            let commitments = polynomial.commitments();
            // The last ones, backwards: which, and in which order, does not matter.
            let indices = (1 + more..=required + more).rev();
            let values: Vec<_> = indices.map(|index| (index, polynomial.at(index))).collect();
            let values: Vec<(u8, &Scalar)> = values.iter().map(|(index, value)| (*index, &**value)).collect();
            prop_assert!(values.iter().all(|(index, value)| has_value(&commitments, *index, value)));
            prop_assert!(!has_value(&commitments, values[0].0 + 1, values[0].1));
            prop_assert_eq!(*at_zero(&values).expect("distinct"), secret);
            prop_assert_ne!(*at_zero(&values[1..]).expect("distinct"), secret);
            prop_assert!(at_zero(&[values[0], values[0]]).is_none());
            prop_assert_eq!(commitments[0], ProjectivePoint::generator() * secret);
        }
    }
}
