//! Equations of each suite as the device gets them.

use std::fmt;

use crate::{
    curve::{
        Affine, Curve, Edwards25519, Generator, KeyComb, Modulus, P256, PrimeCurve, Residue, SignedScalar, Sm2, edwards,
    },
    gpu::{EdwardsItem, Kernel, PrimeItem, PrimeSuite},
    suite::{EdwardsEquation, Equation, Equations, Suite, Verdict, decide, ed25519},
};

/// Questions and the tables of keys that they name.
pub(crate) type Questions<Q> = Equations<Q, <Q as Question>::Table>;

/// An equation of some suite.
pub(crate) trait Question: Clone + Send + Sync + 'static {
    /// A key's table on the CPU.
    type Table: fmt::Debug + Send + Sync + 'static;

    /// The suite.
    const SUITE: Suite;
    /// Kernels for items whose keys have no table, and for those whose keys have one.
    const KERNELS: [&'static [Kernel]; 2];
    /// Length of an item as the kernels read it.
    const ITEM_BYTES: usize;

    /// Position of the item in its batch.
    fn index(&self) -> usize;

    /// Place of the key's table in [`Equations::tables`].
    fn table(&self) -> Option<usize>;

    /// A table as it is on the device.
    fn table_content(table: &Self::Table) -> Vec<u8>;

    /// The item as the kernels read it, with the number of its table.
    fn write(&self, table: Option<u32>, input: &mut Vec<u8>);

    /// The same question at another position, without its table if so wanted.
    fn at(&self, index: usize, with_table: bool) -> Self;

    /// The table of the generator as it is on the device.
    fn generator_table() -> Vec<u8>;

    /// What the CPU says, by position.
    fn decide(questions: &Questions<Self>, verdicts: &mut [Verdict]);
}

/// The curve of a suite.
pub(crate) trait SuiteCurve: PrimeCurve + Generator {
    const PRIME_SUITE: PrimeSuite;
    const SUITE: Suite = Self::PRIME_SUITE.suite();
    const KERNELS: [&'static [Kernel]; 2] = [
        &[Kernel::Multiples(Self::PRIME_SUITE), Kernel::Ladder(Self::PRIME_SUITE), Kernel::Comb(Self::PRIME_SUITE)],
        &[Kernel::Comb(Self::PRIME_SUITE)],
    ];
}

impl SuiteCurve for P256 {
    const PRIME_SUITE: PrimeSuite = PrimeSuite::P256;
}

impl SuiteCurve for Sm2 {
    const PRIME_SUITE: PrimeSuite = PrimeSuite::Sm2;
}

/// The kernels of a suite: all of them are those for keys without a table.
pub(crate) const fn kernels_of(suite: Suite) -> &'static [Kernel] {
    match suite {
        Suite::Ed25519 => EdwardsEquation::KERNELS[0],
        Suite::P256 => <P256 as SuiteCurve>::KERNELS[0],
        Suite::Sm2 => <Sm2 as SuiteCurve>::KERNELS[0],
    }
}

impl<C: SuiteCurve> Question for Equation<C> {
    type Table = KeyComb<C::Field>;

    const SUITE: Suite = C::SUITE;
    const KERNELS: [&'static [Kernel]; 2] = C::KERNELS;
    const ITEM_BYTES: usize = 4 * PrimeItem::WORDS;

    fn index(&self) -> usize {
        self.index
    }

    fn table(&self) -> Option<usize> {
        self.table
    }

    fn table_content(table: &Self::Table) -> Vec<u8> {
        coordinates(table.points())
    }

    fn write(&self, table: Option<u32>, input: &mut Vec<u8>) {
        let start = input.len();
        let ([generator, key], coordinates) = (self.least_scalars(), self.coordinates());
        put(input, &generator.with_sign());
        put(input, &if table.is_some() { key.with_sign() } else { key.raised_digits() });
        coordinates.iter().for_each(|coordinate| put(input, coordinate));
        match table {
            Some(place) => {
                input.extend_from_slice(&place.to_le_bytes());
                input.resize(start + Self::ITEM_BYTES, 0);
            }
            None => {
                let point = self.point.negated_if(key.negative);
                put(input, point.x.stored());
                put(input, point.y.stored());
            }
        }
        debug_assert_eq!(input.len(), start + Self::ITEM_BYTES, "the shape of an item");
    }

    fn at(&self, index: usize, with_table: bool) -> Self {
        Self { index, table: self.table.filter(|_| with_table), ..*self }
    }

    fn generator_table() -> Vec<u8> {
        coordinates(C::comb().points())
    }

    fn decide(questions: &Questions<Self>, verdicts: &mut [Verdict]) {
        decide(questions, verdicts);
    }
}

impl Question for EdwardsEquation {
    type Table = KeyComb<<Edwards25519 as Curve>::Field>;

    const SUITE: Suite = Suite::Ed25519;
    const KERNELS: [&'static [Kernel]; 2] = [
        &[Kernel::EdwardsMultiples, Kernel::EdwardsLadder, Kernel::EdwardsDecode, Kernel::EdwardsComb],
        &[Kernel::EdwardsDecode, Kernel::EdwardsComb],
    ];
    const ITEM_BYTES: usize = 4 * EdwardsItem::WORDS;

    fn index(&self) -> usize {
        self.index
    }

    fn table(&self) -> Option<usize> {
        self.table
    }

    fn table_content(table: &Self::Table) -> Vec<u8> {
        addends(table.points())
    }

    fn write(&self, table: Option<u32>, input: &mut Vec<u8>) {
        let start = input.len();
        put(input, &self.s);
        // The kernels add: the multiples are those of the opposite key, and digits of a table's take the sign.
        let k = SignedScalar { magnitude: self.k, negative: true };
        match table {
            Some(place) => {
                put(input, &k.with_sign());
                input.extend_from_slice(&place.to_le_bytes());
                input.resize(start + 4 * EdwardsItem::R, 0);
            }
            None => {
                put(input, &k.raised_digits());
                input.extend_from_slice(&self.key);
            }
        }
        input.extend_from_slice(&self.r);
        debug_assert_eq!(input.len(), start + Self::ITEM_BYTES, "the shape of an item");
    }

    fn at(&self, index: usize, with_table: bool) -> Self {
        Self { index, table: self.table.filter(|_| with_table), ..*self }
    }

    fn generator_table() -> Vec<u8> {
        addends(Edwards25519::comb().points())
    }

    fn decide(questions: &Questions<Self>, verdicts: &mut [Verdict]) {
        for question in &questions.items {
            verdicts[question.index] = ed25519::decide_alone(question);
        }
    }
}

/// Points as the kernels read them: times `2^261`, which is the CPU's form times `2^5`.
fn coordinates<M: Modulus>(points: &[Affine<M>]) -> Vec<u8> {
    let form = |residue: Residue<M>| (0..5).fold(residue, |residue, _| residue.double());
    let coordinates = points.iter().flat_map(|point| [point.x, point.y]);
    coordinates.flat_map(|coordinate| *form(coordinate).stored()).flat_map(u64::to_le_bytes).collect()
}

/// Points of the Edwards form as the kernels read them.
fn addends(points: &[Affine<<Edwards25519 as Curve>::Field>]) -> Vec<u8> {
    let addends = edwards::addends(points);
    addends.as_flattened().as_flattened().iter().flat_map(|limb| limb.to_le_bytes()).collect()
}

fn put(input: &mut Vec<u8>, limbs: &[u64; 4]) {
    // At once: bytes one by one are most of the time of packing.
    input.extend_from_slice(limbs.map(u64::to_le_bytes).as_flattened());
}
