//! The runs that make up the index: in RAM for readers, in the manifest for the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::error::IndexError;
use super::manifest::{MANIFEST_FILE, Manifest, RunRecord};
use super::run::Run;
use crate::store::durable;

/// A run and how many times its entries were merged.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) run: Arc<Run>,
    pub(super) tier: u64,
}

/// Runs from the oldest to the newest; tiers never rise in that order.
#[derive(Debug)]
pub(super) struct Catalog {
    directory: PathBuf,
    manifest: Mutex<Manifest>,
    members: RwLock<Arc<Vec<Member>>>,
}

impl Catalog {
    /// Opens the runs that the manifest names and removes the leftovers of flushes and merges that a
    /// crash cut short.
    pub(super) fn open(directory: &Path) -> Result<Self, IndexError> {
        let corrupt = |what| IndexError::Corrupt { file: directory.join(MANIFEST_FILE), what };
        let manifest = match Manifest::read(directory).map_err(IndexError::io("read the manifest"))? {
            Some(manifest) => manifest.ok_or_else(|| corrupt("checksum"))?,
            None => Manifest::default(),
        };
        let mut members = Vec::with_capacity(manifest.runs.len());
        for record in &manifest.runs {
            let run = Run::open(directory, record.id)?;
            if run.entries != record.entries || record.id >= manifest.next_run {
                return Err(corrupt("run"));
            }
            members.push(Member { run: Arc::new(run), tier: record.tier });
        }
        remove_others(directory, &manifest)?;
        Ok(Self {
            directory: directory.to_owned(),
            manifest: Mutex::new(manifest),
            members: RwLock::new(Arc::new(members)),
        })
    }

    /// The runs as they are now.
    pub(super) fn members(&self) -> Arc<Vec<Member>> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn complete_through(&self) -> Option<u64> {
        self.manifest().complete_through
    }

    /// A number that no run has or had.
    pub(super) fn reserve_run(&self) -> u64 {
        let mut manifest = self.manifest();
        manifest.next_run += 1;
        manifest.next_run - 1
    }

    /// Adds the newest run, if the memtable held anything, and what it makes complete.
    pub(super) fn add(&self, run: Option<Run>, complete_through: u64) -> Result<(), IndexError> {
        let mut manifest = self.manifest();
        let mut members = (*self.members()).clone();
        members.extend(run.map(|run| Member { run: Arc::new(run), tier: 0 }));
        self.replace(&mut manifest, members, Some(complete_through))
    }

    /// Puts `merged` in the place of the runs it was made of, which then are removed.
    pub(super) fn exchange(&self, sources: &[Member], merged: Run) -> Result<(), IndexError> {
        let mut manifest = self.manifest();
        let mut members = (*self.members()).clone();
        let is_source = |member: &Member| sources.iter().any(|source| source.run.id == member.run.id);
        let at = members.iter().position(is_source).expect("only the merger removes runs");
        members.retain(|member| !is_source(member));
        members.insert(at, Member { run: Arc::new(merged), tier: sources[0].tier + 1 });
        assert!(members.is_sorted_by(|older, newer| older.tier >= newer.tier), "tiers never rise with age");
        let complete_through = manifest.complete_through;
        self.replace(&mut manifest, members, complete_through)?;
        for source in sources {
            source.run.remove().map_err(IndexError::io("remove a merged run"))?;
        }
        Ok(())
    }

    /// Manifest first, readers second: what they see is what the next start finds.
    fn replace(
        &self,
        manifest: &mut Manifest,
        members: Vec<Member>,
        complete_through: Option<u64>,
    ) -> Result<(), IndexError> {
        manifest.complete_through = complete_through;
        manifest.runs = members
            .iter()
            .map(|member| RunRecord { id: member.run.id, entries: member.run.entries, tier: member.tier })
            .collect();
        manifest.write(&self.directory).map_err(IndexError::io("write the manifest"))?;
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
        Ok(())
    }

    fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes every run that the manifest does not name.
pub(super) fn remove_others(directory: &Path, manifest: &Manifest) -> Result<(), IndexError> {
    let io_error = || IndexError::io("remove leftover runs");
    for entry in fs::read_dir(directory).map_err(io_error())? {
        let path = entry.map_err(io_error())?.path();
        let is_run = path.extension().is_some_and(|extension| extension == "run");
        let is_named = manifest.runs.iter().any(|record| Run::path(directory, record.id) == path);
        if is_run && !is_named {
            durable::remove_if_present(&path).map_err(io_error())?;
        }
    }
    Ok(())
}
