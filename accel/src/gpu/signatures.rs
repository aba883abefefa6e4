//! Signatures as batches: those whose keys have no table first, then the others, with canaries among both.
//!
//! A batch that keeps a device busy is large, and to pack it takes one core longer than the device needs for it. So cores
//! pack parts of it, each with canaries of its own, and the parts are joined.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    gpu::{
        Answer, AnyTable, Batch, Gpu, Kernel, Parameters, Pass,
        question::{Question, Questions},
    },
    guard::{
        Draw, Fault,
        canary::{Canaries, IN_PART},
        tag,
    },
    suite::Suite,
};

/// Items of a part at least, if a batch has several: each has canaries.
pub(crate) const PART_ITEMS_MIN: usize = 256;

/// Canaries of a part at most, with and without tables.
pub(super) const PART_CANARIES: usize = 2 * IN_PART;

/// A part of a batch.
#[derive(Debug)]
pub(crate) struct Packed {
    suite: Suite,
    kernels: [&'static [Kernel]; 2],
    /// Items without a table, and those with one.
    groups: [Group; 2],
    tables: Vec<AnyTable>,
}

#[derive(Debug)]
struct Group {
    input: Vec<u8>,
    places: Vec<Place>,
}

/// Signatures under way.
#[derive(Debug)]
pub(crate) struct Signatures {
    nonce: [u32; 2],
    /// In the order of the results, part by part.
    places: Vec<Vec<Place>>,
    /// The tables that the batch names, which stay on the device for as long as they are here.
    _tables: Vec<Vec<AnyTable>>,
}

/// What is at a place of a batch.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// An item, by its number in the batch.
    Item(u32),
    /// A canary and its verdict.
    Canary(bool),
}

impl Packed {
    /// The part with these questions, of which `number` says what number in the batch the item at an index has.
    pub(crate) fn new<Q: Question>(
        questions: &Questions<Q>,
        number: impl Fn(usize) -> usize,
        canaries: &Canaries<Q>,
        gpu: &Gpu,
    ) -> Option<Self> {
        let mut draw = Draw::new();
        let residents = gpu.places::<Q>(&questions.tables);
        let mut tables = any(&questions.tables);
        let mut groups = [const { Vec::new() }; 2];
        for question in &questions.items {
            let resident = question.table().and_then(|table| residents.get(table).copied().flatten());
            let place = Place::Item(u32::try_from(number(question.index())).ok()?);
            groups[usize::from(resident.is_some())].push((place, question, resident));
        }
        let [without, with_table] = &mut groups;
        if !without.is_empty() {
            mix(
                without,
                canaries.pick(&mut draw).into_iter().map(|(canary, verdict)| (verdict, canary, None)),
                &mut draw,
            );
        }
        if !with_table.is_empty() {
            let residents = gpu.places::<Q>(&canaries.tables);
            tables.extend(any(&canaries.tables));
            let picked = canaries.pick(&mut draw).into_iter().map(|(canary, verdict)| {
                let resident = canary.table().and_then(|table| residents.get(table).copied().flatten())?;
                Some((verdict, canary, Some(resident)))
            });
            let picked: Vec<_> = picked.collect::<Option<_>>()?;
            mix(with_table, picked.into_iter(), &mut draw);
        }
        let groups = groups.map(|group| {
            let mut input = Vec::with_capacity(group.len() * Q::ITEM_BYTES);
            group.iter().for_each(|(_, question, resident)| question.write(*resident, &mut input));
            Group { input, places: group.iter().map(|(place, ..)| *place).collect() }
        });
        Some(Self { suite: Q::SUITE, kernels: Q::KERNELS, groups, tables })
    }
}

/// Puts canaries at random places.
fn mix<'q, Q>(
    group: &mut Vec<(Place, &'q Q, Option<u32>)>,
    canaries: impl Iterator<Item = (bool, &'q Q, Option<u32>)>,
    draw: &mut Draw,
) {
    for (verdict, canary, resident) in canaries {
        group.push((Place::Canary(verdict), canary, resident));
        let last = group.len() - 1;
        group.swap(draw.below(last + 1), last);
    }
}

fn any<T: Send + Sync + 'static>(tables: &[Arc<T>]) -> Vec<AnyTable> {
    tables.iter().map(|table| Arc::clone(table) as AnyTable).collect()
}

impl Signatures {
    /// The batch with these questions, in one part.
    pub(crate) fn pack<Q: Question>(
        questions: &Questions<Q>,
        canaries: &Canaries<Q>,
        gpu: &Gpu,
    ) -> Option<(Batch, Self)> {
        Self::join(vec![Packed::new(questions, |index| index, canaries, gpu)?])
    }

    /// The batch of all parts; `None` if there are none, or no items in them.
    pub(crate) fn join(mut parts: Vec<Packed>) -> Option<(Batch, Self)> {
        let Packed { suite, kernels, .. } = *parts.first()?;
        let nonce = Draw::new().nonce();
        let (mut input, mut places, mut counts) = (Vec::with_capacity(parts.len()), Vec::new(), [0; 2]);
        for (group, count) in counts.iter_mut().enumerate() {
            for part in &mut parts {
                let Group { input: bytes, places: own } = &mut part.groups[group];
                *count += own.len();
                input.push(Bytes::from(std::mem::take(bytes)));
                places.push(std::mem::take(own));
            }
        }
        let total: usize = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let batch = Batch { input, passes: passes(kernels, nonce, counts)?, output: 0..total, suite: Some(suite) };
        let tables = parts.into_iter().map(|part| part.tables).collect();
        Some((batch, Self { nonce, places, _tables: tables }))
    }

    /// Items and what the device says of them.
    pub(crate) fn unpack(&self, answer: &Answer) -> Result<Vec<(usize, bool)>, Fault> {
        let places = self.places.iter().flatten();
        let mut verdicts = Vec::with_capacity(answer.words.len());
        let mut checked = 0;
        for ((index, place), word) in (0..).zip(places).zip(&answer.words) {
            let verdict = tag::verdict(self.nonce, index, *word).ok_or(Fault::Tag)?;
            match place {
                Place::Item(item) => verdicts.push((usize::try_from(*item).unwrap_or(usize::MAX), verdict)),
                Place::Canary(expected) if verdict == *expected => {}
                Place::Canary(_) => return Err(Fault::Canary),
            }
            checked += 1;
        }
        let whole = checked == answer.words.len() && checked == self.places.iter().map(Vec::len).sum::<usize>();
        if whole { Ok(verdicts) } else { Err(Fault::Tag) }
    }
}

/// The kernels over items without a table, and then those over items with one.
fn passes(kernels: [&[Kernel]; 2], nonce: [u32; 2], counts: [usize; 2]) -> Option<Vec<Pass>> {
    let mut passes = Vec::new();
    let mut below = 0;
    for ((kernels, count), ladder) in kernels.into_iter().zip(counts).zip([1, 0]) {
        let count = u32::try_from(count).ok()?;
        if count > 0 {
            let parameters = Parameters { count, nonce, below, ladder, ..Parameters::default() };
            passes.extend(kernels.iter().map(|kernel| Pass { kernel: *kernel, parameters }));
        }
        below += count;
    }
    Some(passes)
}
