//! The tables that are live at one time. They never change; a flush or a merge makes another list of them.

use std::sync::Arc;

use super::IndexError;
use super::entry::{Location, Prefix, shard_of};
use super::policy::Job;
use super::table::Table;

#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// Tables over all keys, newest first. They are newer than those of the shards.
    pub(super) zero: Vec<Arc<Table>>,
    /// By shard, newest first.
    pub(super) shards: Vec<Vec<Arc<Table>>>,
}

impl Tables {
    pub(super) fn new(shards: u16) -> Self {
        Self { zero: Vec::new(), shards: vec![Vec::new(); shards.into()] }
    }

    pub(super) fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("shards are few")
    }

    /// Adds a table that is older than those of its place.
    pub(super) fn push_oldest(&mut self, table: Table) {
        let list = match table.place.shard {
            Some(shard) => &mut self.shards[usize::from(shard)],
            None => &mut self.zero,
        };
        list.push(Arc::new(table));
    }

    /// Newest first, within each place.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.zero.iter().chain(self.shards.iter().flatten())
    }

    pub(super) fn find(&self, prefix: Prefix) -> Result<Option<Option<Location>>, IndexError> {
        let shard = &self.shards[shard_of(prefix, self.shard_count())];
        for table in self.zero.iter().chain(shard) {
            if let Some(found) = table.find(prefix)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn with_newest(&self, table: Arc<Table>) -> Self {
        let mut tables = self.clone();
        tables.zero.insert(0, table);
        tables
    }

    /// With the outputs of a merge where its inputs were.
    pub(super) fn with_merged(&self, job: &Job, outputs: &[Arc<Table>]) -> Self {
        let mut tables = self.clone();
        let is_input = |table: &Arc<Table>| job.inputs.iter().any(|input| input.id == table.id);
        tables.zero.retain(|table| !is_input(table));
        for (list, shard) in tables.shards.iter_mut().zip(0..) {
            // What comes from level zero is newer than all that is there.
            let place = list.iter().position(is_input).unwrap_or(0);
            list.retain(|table| !is_input(table));
            let output = outputs.iter().find(|table| table.place.shard == Some(shard));
            if let Some(output) = output {
                list.insert(place, output.clone());
            }
        }
        tables
    }
}
