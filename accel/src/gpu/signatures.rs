//! ECDSA and SM2 items as batches: those whose keys have no table first, then the others, with canaries among both.

use std::sync::Arc;

use crate::{
    curve::{Affine, Generator, KeyComb, Modulus, PrimeCurve, Residue},
    gpu::{Answer, AnyTable, Batch, Gpu, Kernel, Parameters, Pass, PrimeItem, PrimeSuite},
    guard::{Draw, Fault, canary::Canaries, tag},
    suite::Equation,
};

/// Signatures under way.
#[derive(Debug)]
pub(crate) struct Signatures {
    nonce: [u32; 2],
    places: Vec<Place>,
    /// The tables that the batch names, which stay on the device for as long as they are here.
    _tables: Vec<AnyTable>,
}

/// What is at a place of a batch.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// An item, by its index.
    Item(usize),
    /// A canary and its verdict.
    Canary(bool),
}

/// The kernels that decide items of a suite.
pub(crate) const fn kernels(suite: PrimeSuite) -> [Kernel; 3] {
    [Kernel::Multiples(suite), Kernel::Ladder(suite), Kernel::Comb(suite)]
}

/// The table of a suite's generator, as it is on the device.
pub(crate) fn generator_table<C: PrimeCurve + Generator>() -> Vec<u8> {
    table(C::comb().points())
}

impl Signatures {
    /// The batch that decides the equations.
    pub(crate) fn pack<C: PrimeCurve + Generator>(
        suite: PrimeSuite,
        equations: &[Equation<C>],
        canaries: &Canaries<C>,
        gpu: &Gpu,
    ) -> Option<(Batch, Self)> {
        let mut draw = Draw::new();
        let nonce = draw.nonce();
        let (mut input, mut places, mut tables) = (Vec::new(), Vec::new(), Vec::<AnyTable>::new());
        let resident = |equation: &Equation<C>| equation.table.as_ref().and_then(|table| place(gpu, suite, table));
        let all: Vec<(&Equation<C>, Option<u32>)> =
            equations.iter().map(|equation| (equation, resident(equation))).collect();
        let mut counts = [0, 0];
        for (with_table, count) in [false, true].into_iter().zip(&mut counts) {
            let mut group: Vec<_> = all
                .iter()
                .filter(|(_, table)| table.is_some() == with_table)
                .map(|(equation, table)| (Place::Item(equation.index), *equation, *table))
                .collect();
            if group.is_empty() {
                continue;
            }
            for (canary, verdict) in canaries.pick(&mut draw) {
                let table = if with_table { Some(resident(canary)?) } else { None };
                group.push((Place::Canary(verdict), canary, table));
                let last = group.len() - 1;
                group.swap(draw.below(last + 1), last);
            }
            *count = group.len();
            for (place, equation, table) in group {
                write(equation, table, &mut input);
                places.push(place);
                if let (Some(_), Some(table)) = (table, &equation.table) {
                    let table: AnyTable = Arc::clone(table) as AnyTable;
                    if !tables.last().is_some_and(|last| Arc::ptr_eq(last, &table)) {
                        tables.push(table);
                    }
                }
            }
        }
        let output = 0..places.len();
        let passes = passes(suite, nonce, counts)?;
        let batch = Batch { input, passes, output, suite: Some(suite.suite()) };
        Some((batch, Self { nonce, places, _tables: tables }))
    }

    /// Items and what the device says of them.
    pub(crate) fn unpack(&self, answer: &Answer) -> Result<Vec<(usize, bool)>, Fault> {
        if answer.words.len() != self.places.len() {
            return Err(Fault::Tag);
        }
        let mut verdicts = Vec::with_capacity(self.places.len());
        for (index, (place, word)) in (0..).zip(self.places.iter().zip(&answer.words)) {
            let verdict = tag::verdict(self.nonce, index, *word).ok_or(Fault::Tag)?;
            match place {
                Place::Item(item) => verdicts.push((*item, verdict)),
                Place::Canary(expected) if verdict == *expected => {}
                Place::Canary(_) => return Err(Fault::Canary),
            }
        }
        Ok(verdicts)
    }
}

/// The kernels over items without a table, and over those with one.
fn passes(suite: PrimeSuite, nonce: [u32; 2], counts: [usize; 2]) -> Option<Vec<Pass>> {
    let [without, with] = counts.map(|count| u32::try_from(count).ok());
    let (without, with) = (without?, with?);
    let parameters = Parameters { nonce, ..Parameters::default() };
    let mut passes = Vec::new();
    if without > 0 {
        let parameters = Parameters { count: without, ladder: 1, ..parameters };
        passes.extend(kernels(suite).map(|kernel| Pass { kernel, parameters }));
    }
    if with > 0 {
        let parameters = Parameters { count: with, below: without, ..parameters };
        passes.push(Pass { kernel: Kernel::Comb(suite), parameters });
    }
    Some(passes)
}

fn place<M: Modulus>(gpu: &Gpu, suite: PrimeSuite, key: &Arc<KeyComb<M>>) -> Option<u32> {
    let any: AnyTable = Arc::clone(key) as AnyTable;
    gpu.place(suite.suite(), &any, || table(key.points()))
}

/// Points as the kernels read them: times `2^261`, which is the CPU's form times `2^5`.
fn table<M: Modulus>(points: &[Affine<M>]) -> Vec<u8> {
    let form = |residue: Residue<M>| (0..5).fold(residue, |residue, _| residue.double());
    let coordinates = points.iter().flat_map(|point| [point.x, point.y]);
    coordinates.flat_map(|coordinate| *form(coordinate).stored()).flat_map(u64::to_le_bytes).collect()
}

/// One item, as [`PrimeItem`] says.
fn write<C: PrimeCurve>(equation: &Equation<C>, table: Option<u32>, input: &mut Vec<u8>) {
    let start = input.len();
    let mut put = |limbs: &[u64; 4]| input.extend(limbs.iter().flat_map(|limb| limb.to_le_bytes()));
    let ([generator, key], coordinates) = (equation.least_scalars(), equation.coordinates());
    put(&generator.with_sign());
    put(&if table.is_some() { key.with_sign() } else { key.raised_digits() });
    coordinates.iter().for_each(&mut put);
    match table {
        Some(place) => {
            input.extend_from_slice(&place.to_le_bytes());
            input.resize(start + 4 * PrimeItem::WORDS, 0);
        }
        None => {
            let point = equation.point.negated_if(key.negative);
            put(point.x.stored());
            put(point.y.stored());
        }
    }
    debug_assert_eq!(input.len(), start + 4 * PrimeItem::WORDS, "the shape of an item");
}
