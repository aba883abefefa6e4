//! The shape of an index, and which merge comes next.

use std::sync::Arc;

use super::IndexError;
use super::table::{Place, Table};
use super::tables::Tables;

/// Most changes that [`Options::memtable_entries`] may ask for: some 100 MiB of memory while they are flushed.
pub const MEMTABLE_ENTRIES_MAX: usize = 1 << 20;

/// Most tables that [`Options::fanout`] may ask for; a get may look into as many of each level.
pub const FANOUT_MAX: usize = 32;

/// Most shards that [`Options::shards`] may ask for; each is a few open files.
pub const SHARDS_MAX: u16 = 256;

/// How an index is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Changes after which [`super::Index::needs_flush`] asks for a flush. Up to twice as many are taken.
    pub memtable_entries: usize,
    /// Ranges of keys that are merged one by one, a power of two. An index keeps the number that it was created with.
    pub shards: u16,
    /// Tables of one size that become one of the next.
    pub fanout: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { memtable_entries: 1 << 15, shards: 16, fanout: 8 }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), IndexError> {
        let bounds = [
            ("memtable_entries", self.memtable_entries, (1..=MEMTABLE_ENTRIES_MAX).contains(&self.memtable_entries)),
            ("shards", self.shards.into(), self.shards.is_power_of_two() && self.shards <= SHARDS_MAX),
            ("fanout", self.fanout, (2..=FANOUT_MAX).contains(&self.fanout)),
        ];
        let outside = bounds.into_iter().find(|(_, _, is_inside)| !is_inside);
        outside.map_or(Ok(()), |(option, value, _)| Err(IndexError::OutOfBounds { option, value }))
    }
}

/// The tables to be merged, newest first.
pub(super) struct Job {
    pub(super) inputs: Vec<Arc<Table>>,
    /// Level of what becomes of them.
    pub(super) level: u8,
}

impl Job {
    pub(super) fn place(&self, shard: usize) -> Place {
        Place { shard: Some(u16::try_from(shard).expect("shards are few")), level: self.level }
    }
}

/// How far a merge may be behind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Not at all: whoever maintains the index does what is due.
    Due,
    /// So far that a flush does it before it adds more.
    Overdue,
}

impl Patience {
    /// Tables of a level.
    fn tables(self, fanout: usize) -> usize {
        match self {
            Self::Due => fanout,
            Self::Overdue => 2 * fanout,
        }
    }

    /// What part of the base of a shard its other tables may weigh.
    fn divisor(self) -> u64 {
        match self {
            Self::Due => 6,
            Self::Overdue => 4,
        }
    }
}

/// The merge of level zero that has to be done, if any.
pub(super) fn job_of_level_zero(tables: &Tables, fanout: usize, patience: Patience) -> Option<Job> {
    let zero = &tables.zero;
    // The oldest of them: they go where all is older than those that stay.
    (zero.len() >= patience.tables(fanout)).then(|| Job { inputs: zero[zero.len() - fanout..].to_vec(), level: 1 })
}

/// The merge within a shard that has to be done, if any.
pub(super) fn job_of_shards(tables: &Tables, fanout: usize, patience: Patience) -> Option<Job> {
    tables.shards.iter().find_map(|tables| job_of_shard(tables, fanout, patience))
}

fn job_of_shard(tables: &[Arc<Table>], fanout: usize, patience: Patience) -> Option<Job> {
    let (base, newer) = tables.split_last()?;
    let level = newer.iter().map(|table| table.place.level).max()?;
    if newer.iter().map(|table| weight(table)).sum::<u64>() * patience.divisor() >= base.entries {
        return Some(Job { inputs: tables.to_vec(), level });
    }
    // The newest come first, and no table is of a lower level than a newer one: those of a level are neighbours.
    let mut levels = newer.chunk_by(|one, next| one.place.level == next.place.level);
    let group = levels.find(|group| group.len() >= patience.tables(fanout))?;
    Some(Job { inputs: group.to_vec(), level: group[0].place.level.saturating_add(1) })
}

/// What a table may have superseded: a removal makes another entry useless, and is itself.
fn weight(table: &Table) -> u64 {
    table.entries + table.removals
}
