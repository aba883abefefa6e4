//! From the queue into the memtable, and from the memtable into runs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::entry::{Entry, Key};
use super::error::IndexError;
use super::run::RunWriter;
use super::store::Shared;
use crate::store::Location;

/// Keys inserted while lookups wait.
const KEYS_AT_ONCE: usize = 1_024;

/// Blocks after which a flush comes however few their statements: opening puts at most this many again,
/// also on a chain of empty blocks.
const BLOCKS_UNFLUSHED_MAX: u64 = 65_536;

/// The keys of one block, in order of position.
#[derive(Debug)]
pub(super) struct FedBlock {
    pub(super) height: u64,
    pub(super) keys: Vec<Key>,
}

impl FedBlock {
    /// The newest location of a key in this block.
    pub(super) fn find(&self, key: Key) -> Option<Location> {
        let at = self.keys.iter().rposition(|candidate| *candidate == key)?;
        Location::new(self.height, u32::try_from(at).ok()?)
    }
}

/// Entries that are not in a run yet. The hasher is keyed at random: ids ground to collide gain nothing.
pub(super) type Memtable = HashMap<Key, u64>;

/// The feeder's thread.
pub(super) fn run(shared: &Shared) {
    while let Some(work) = shared.next_work() {
        let done = match work {
            Work::Insert(block) => insert(shared, &block),
            Work::Flush => flush(shared),
        };
        if let Err(error) = done {
            return shared.fail("flush", &error);
        }
    }
}

/// What the feeder does next.
pub(super) enum Work {
    Insert(Arc<FedBlock>),
    Flush,
}

fn insert(shared: &Shared, block: &FedBlock) -> Result<(), IndexError> {
    let held = shared.memory.read().unwrap_or_else(PoisonError::into_inner).memtable.len();
    if held > 0 && held + block.keys.len() > shared.options.memtable_entries {
        flush(shared)?;
    }
    let mut position = 0;
    for keys in block.keys.chunks(KEYS_AT_ONCE) {
        let mut memory = shared.memory.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let location = Location::new(block.height, position).expect("checked when the block was put");
            memory.memtable.insert(*key, location.pack());
            position += 1;
        }
    }
    if shared.inserted(block) >= BLOCKS_UNFLUSHED_MAX { flush(shared) } else { Ok(()) }
}

/// Writes the memtable as the newest run. Lookups find its entries throughout: in the memtable, then
/// beside it, then in the run.
fn flush(shared: &Shared) -> Result<(), IndexError> {
    let Some(complete_through) = shared.inserted_through() else { return Ok(()) };
    let full = {
        let mut memory = shared.memory.write().unwrap_or_else(PoisonError::into_inner);
        let full = Arc::new(std::mem::replace(&mut memory.memtable, shared.options.memtable()));
        memory.flushing = Some(Arc::clone(&full));
        full
    };
    let run = if full.is_empty() {
        None
    } else {
        shared.wait_for_merges();
        if shared.should_stop() {
            return Ok(());
        }
        let mut entries: Vec<Entry> = full.iter().map(|(&key, &location)| Entry { key, location }).collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        let mut writer =
            RunWriter::create(shared.catalog.directory(), shared.catalog.reserve_run(), entries.len() as u64)
                .map_err(IndexError::io("begin a run"))?;
        for entry in entries {
            writer.push(entry).map_err(IndexError::io("write a run"))?;
        }
        Some(writer.finish()?)
    };
    shared.catalog.add(run, complete_through)?;
    shared.memory.write().unwrap_or_else(PoisonError::into_inner).flushing = None;
    shared.announce_flush(complete_through);
    Ok(())
}
