//! Merging: entries of many sources, each in order, as one, the newest of each key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::IndexError;
use super::entry::{Entry, Location, Prefix, shard_of};
use super::policy::Job;
use super::table::{Table, Walk};
use super::tables::Tables;
use super::writer::write_table;

/// Entries in the order of their keys.
pub(super) type Source = Box<dyn Iterator<Item = Result<Entry, IndexError>> + Send>;

/// The next entry of a source, by its key and then its source.
type Head = Reverse<(Prefix, usize, Option<Location>)>;

/// Entries of all sources in the order of their keys, removals too. Nothing follows an error.
pub(super) struct Merge {
    /// Newest first.
    sources: Vec<Source>,
    /// The next entry of each, once the merge has begun.
    heads: Option<BinaryHeap<Head>>,
    last: Option<Prefix>,
}

impl Merge {
    pub(super) fn new(sources: Vec<Source>) -> Self {
        Self { sources, heads: None, last: None }
    }

    pub(super) fn of_tables(tables: &[Arc<Table>]) -> Self {
        Self::new(tables.iter().map(|table| Box::new(Walk::new(table.clone())) as Source).collect())
    }

    fn begin(&mut self) -> Result<BinaryHeap<Head>, IndexError> {
        let heads = self.sources.iter_mut().enumerate();
        heads.filter_map(|(source, entries)| Some(entries.next()?.map(|entry| head(source, entry)))).collect()
    }

    /// The next entry of any source, which may be one that was superseded.
    fn advance(&mut self) -> Result<Option<Entry>, IndexError> {
        if self.heads.is_none() {
            self.heads = Some(self.begin()?);
        }
        let Some(mut top) = self.heads.as_mut().and_then(BinaryHeap::peek_mut) else { return Ok(None) };
        let Reverse((prefix, source, location)) = *top;
        match self.sources[source].next().transpose()? {
            Some(entry) => *top = head(source, entry),
            None => drop(PeekMut::pop(top)),
        }
        Ok(Some(Entry { prefix, location }))
    }
}

fn head(source: usize, entry: Entry) -> Head {
    Reverse((entry.prefix, source, entry.location))
}

impl Iterator for Merge {
    type Item = Result<Entry, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance() {
                Ok(Some(entry)) if self.last == Some(entry.prefix) => {}
                Ok(entry) => {
                    self.last = entry.map(|entry| entry.prefix);
                    return entry.map(Ok);
                }
                Err(error) => {
                    self.heads = Some(BinaryHeap::new());
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Writes what becomes of a job's tables: for each shard at most one table, flushed. On an error no file of theirs is left.
pub(super) fn run(
    job: &Job,
    tables: &Tables,
    directory: &Path,
    next_table: &AtomicU64,
) -> Result<Vec<Arc<Table>>, IndexError> {
    let mut outputs = Vec::new();
    let mut entries = Merge::of_tables(&job.inputs).peekable();
    while let Some(next) = entries.peek() {
        // An error comes out where the entries are taken, whatever the shard.
        let shard = next.as_ref().map_or(0, |entry| shard_of(entry.prefix, tables.shard_count()));
        let of_shard = std::iter::from_fn(|| {
            entries.next_if(|entry| {
                entry.as_ref().map_or(true, |entry| shard_of(entry.prefix, tables.shard_count()) == shard)
            })
        });
        // A removal has done its work when nothing older is left that it could hide.
        let base = tables.shards[shard].last();
        let is_oldest = base.is_none_or(|base| job.inputs.iter().any(|input| input.id == base.id));
        let kept = of_shard.filter(|entry| !is_oldest || entry.as_ref().map_or(true, |entry| entry.location.is_some()));
        match write_table(directory, next_table, job.place(shard), kept) {
            Ok(table) => outputs.extend(table.map(Arc::new)),
            Err(error) => {
                // What stays is removed when the index is opened.
                outputs.iter().for_each(|table| drop(std::fs::remove_file(&table.path)));
                return Err(error);
            }
        }
    }
    Ok(outputs)
}
