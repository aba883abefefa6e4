//! The state files of a directory.

use std::path::{Path, PathBuf};

use crate::StateError;
use crate::write_log::{LogFile, sync_directory};

pub(crate) fn file_name(height: u64) -> String {
    format!("snapshot-{height:020}.map")
}

/// The state files of a directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Snapshots, newest first.
    pub(crate) snapshots: Vec<(u64, PathBuf)>,
    /// Tables of pages, newest first.
    pub(crate) tables: Vec<(u64, PathBuf)>,
    /// Log files, oldest first.
    pub(crate) logs: Vec<(u64, PathBuf)>,
    /// Incomplete files, and damaged ones that recovery put aside.
    pub(crate) leftovers: Vec<PathBuf>,
}

pub(crate) fn list(directory: &Path) -> Result<Listing, StateError> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(directory).map_err(StateError::io("list", directory))? {
        let path = entry.map_err(StateError::io("list", directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let number = |prefix, suffix| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
        if let Some(height) = number("snapshot-", ".map") {
            listing.snapshots.push((height, path));
        } else if let Some(height) = number("pages-", ".table") {
            listing.tables.push((height, path));
        } else if let Some(sequence) = number("writes-", ".log") {
            listing.logs.push((sequence, path));
        } else if ["snapshot-", "pages-", "writes-"]
            .into_iter()
            .any(|kind| number(kind, ".tmp").or(number(kind, ".refused")).is_some())
        {
            listing.leftovers.push(path);
        }
    }
    listing.snapshots.sort_by(|left, right| right.cmp(left));
    listing.tables.sort_by(|left, right| right.cmp(left));
    listing.logs.sort();
    Ok(listing)
}

/// Heights of which snapshots or tables are kept.
pub(crate) const GENERATIONS: usize = 2;

/// Deletes what the two newest snapshots or tables make superfluous: older ones, and the log before the older of the two.
pub(crate) fn prune(directory: &Path) -> Result<(), StateError> {
    let listing = list(directory)?;
    let delete = |path: &Path| std::fs::remove_file(path).map_err(StateError::io("delete", path));
    let mut heights: Vec<u64> = listing.snapshots.iter().chain(&listing.tables).map(|(height, _)| *height).collect();
    heights.sort_unstable_by(|left, right| right.cmp(left));
    heights.dedup();
    if let Some(oldest) = heights.get(GENERATIONS - 1) {
        for (_, path) in listing.snapshots.iter().chain(&listing.tables).filter(|(height, _)| height < oldest) {
            delete(path)?;
        }
        let mut needed_from = None;
        for (sequence, path) in &listing.logs {
            let start = LogFile::open(path.clone(), *sequence)?.header.start;
            if start.height == Some(*oldest) {
                needed_from = Some(*sequence);
                break;
            }
        }
        for (_, path) in listing.logs.iter().filter(|(sequence, _)| Some(*sequence) < needed_from) {
            delete(path)?;
        }
    }
    for path in listing.leftovers.iter().filter(|path| path.extension().is_some_and(|kind| kind == "refused")) {
        delete(path)?;
    }
    sync_directory(directory)
}
