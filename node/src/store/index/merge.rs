//! Merging runs in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::catalog::{Catalog, Member};
use super::entry::Entry;
use super::error::IndexError;
use super::run::{RunReader, RunWriter};
use super::store::Shared;

/// Runs merged into one of the next tier. Each entry is rewritten once a tier and a lookup asks up to
/// three runs a tier: at 10^9 entries 5 rewrites of 24 bytes and at most 15 runs.
pub(super) const FAN_IN: usize = 4;

/// A run beyond this is never merged again: rewriting 100 GB would gain a lookup less than it costs.
const RUN_ENTRIES_MAX: u64 = 1 << 32;

/// Entries between two looks at what else is to do.
const STEP_ENTRIES: usize = 65_536;

/// The merger's thread: steps the lowest tier's merge, so that a merge of hours never lets small runs
/// pile up.
pub(super) fn run(shared: &Shared) {
    let mut merges: Vec<Merge> = Vec::new();
    while !shared.should_stop() {
        let started = Instant::now();
        match step(&shared.catalog, &mut merges) {
            Ok(Progress::Idle) => {
                shared.wait_for_runs();
                continue;
            }
            Ok(Progress::Stepped) => {}
            Ok(Progress::Merged) => shared.announce_merge(),
            Err(error) => return shared.fail("merge", &error),
        }
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.merge_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

enum Progress {
    Idle,
    Stepped,
    Merged,
}

fn step(catalog: &Catalog, merges: &mut Vec<Merge>) -> Result<Progress, IndexError> {
    begin(catalog, merges)?;
    let lowest = (0..merges.len()).min_by_key(|&at| merges[at].sources[0].tier);
    let Some(at) = lowest else { return Ok(Progress::Idle) };
    if !merges[at].step()? {
        return Ok(Progress::Stepped);
    }
    let merge = merges.swap_remove(at);
    catalog.exchange(&merge.sources, merge.writer.finish()?)?;
    Ok(Progress::Merged)
}

/// Begins a merge in every tier that has enough runs and none under way.
fn begin(catalog: &Catalog, merges: &mut Vec<Merge>) -> Result<(), IndexError> {
    let members = catalog.members();
    for of_tier in members.chunk_by(|older, newer| older.tier == newer.tier) {
        // The oldest of a tier are merged, so a run's age and its tier never contradict each other.
        let Some(sources) = of_tier.get(..FAN_IN) else { continue };
        let entries: u64 = sources.iter().map(|source| source.run.entries).sum();
        let under_way = merges.iter().any(|merge| merge.sources[0].tier == sources[0].tier);
        if !under_way && entries <= RUN_ENTRIES_MAX {
            merges.push(Merge::begin(catalog, sources, entries)?);
        }
    }
    Ok(())
}

/// One merge under way.
struct Merge {
    /// From the oldest to the newest.
    sources: Vec<Member>,
    readers: Vec<RunReader>,
    /// The next entry of each reader.
    heads: Vec<Option<Entry>>,
    writer: RunWriter,
}

impl Merge {
    fn begin(catalog: &Catalog, sources: &[Member], entries: u64) -> Result<Self, IndexError> {
        let writer = RunWriter::create(catalog.directory(), catalog.reserve_run(), entries)
            .map_err(IndexError::io("begin a merged run"))?;
        let mut readers: Vec<RunReader> =
            sources.iter().map(|source| RunReader::new(Arc::clone(&source.run))).collect();
        let heads = readers.iter_mut().map(RunReader::next).collect::<Result<_, _>>()?;
        Ok(Self { sources: sources.to_vec(), readers, heads, writer })
    }

    /// Moves some entries; true when none is left.
    fn step(&mut self) -> Result<bool, IndexError> {
        for _ in 0..STEP_ENTRIES {
            // `min_by_key` keeps the first of equals: searched from the newest, the newest location wins.
            let lowest = self.heads.iter().enumerate().rev().filter_map(|(at, head)| Some((at, (*head)?)));
            let Some((_, entry)) = lowest.min_by_key(|(_, head)| head.key) else { return Ok(true) };
            self.writer.push(entry).map_err(IndexError::io("write a merged run"))?;
            for (head, reader) in self.heads.iter_mut().zip(&mut self.readers) {
                if head.is_some_and(|head| head.key == entry.key) {
                    *head = reader.next()?;
                }
            }
        }
        Ok(false)
    }
}
