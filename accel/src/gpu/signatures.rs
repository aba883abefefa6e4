//! Signatures as batches: those whose keys have no table first, then the others, with canaries among both.

use crate::{
    gpu::{Answer, AnyTable, Batch, Gpu, Kernel, Parameters, Pass, question::Question},
    guard::{Draw, Fault, canary::Canaries, tag},
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

impl Signatures {
    /// The batch that decides the questions; `None` if there are none.
    pub(crate) fn pack<Q: Question>(questions: &[Q], canaries: &Canaries<Q>, gpu: &Gpu) -> Option<(Batch, Self)> {
        let mut draw = Draw::new();
        let nonce = draw.nonce();
        let (mut input, mut places, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        let resident = |question: &Q, tables: &mut Vec<AnyTable>| {
            let table = question.table()?;
            let place = gpu.place(Q::SUITE, &table, || question.table_content())?;
            tables.push(table);
            Some(place)
        };
        let mut groups = [const { Vec::new() }; 2];
        for question in questions {
            let table = resident(question, &mut tables);
            groups[usize::from(table.is_some())].push((Place::Item(question.index()), question, table));
        }
        let mut counts = [0; 2];
        for (with_table, mut group) in [false, true].into_iter().zip(groups) {
            if group.is_empty() {
                continue;
            }
            for (canary, verdict) in canaries.pick(&mut draw) {
                let table = if with_table { Some(resident(canary, &mut tables)?) } else { None };
                group.push((Place::Canary(verdict), canary, table));
                let last = group.len() - 1;
                group.swap(draw.below(last + 1), last);
            }
            counts[usize::from(with_table)] = group.len();
            for (place, question, table) in group {
                question.write(table, &mut input);
                places.push(place);
            }
        }
        if places.is_empty() {
            return None;
        }
        let output = 0..places.len();
        let batch = Batch { input, passes: passes(Q::KERNELS, nonce, counts)?, output, suite: Some(Q::SUITE) };
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
