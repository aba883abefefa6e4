//! The directory of an index: names, the lock, and the steps whose order decides what survives a crash.
//!
//! The manifest alone says which tables there are. A table is flushed, and its entry in the directory, before a manifest
//! names it; it is removed after the flush of one that does not. Whatever else has the name of a table is what a crash left.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::IndexError;

const LOCK: &str = "lock";
const MANIFEST: &str = "manifest";
const TABLE_BEGINNING: &str = "table-";
const TABLE_END: &str = ".keys";

pub(super) fn manifest_path(directory: &Path) -> PathBuf {
    directory.join(MANIFEST)
}

pub(super) fn table_path(directory: &Path, table: u64) -> PathBuf {
    directory.join(format!("{TABLE_BEGINNING}{table:020}{TABLE_END}"))
}

/// The table that has a name.
fn table_of(name: &str) -> Option<u64> {
    name.strip_prefix(TABLE_BEGINNING)?.strip_suffix(TABLE_END)?.parse().ok()
}

/// Creates the directory if it is missing, and takes its lock for as long as the returned file lives.
pub(super) fn lock(directory: &Path) -> Result<File, IndexError> {
    if !directory.is_dir() {
        fs::create_dir_all(directory).map_err(IndexError::io("create", directory))?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
    }
    let path = directory.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(IndexError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IndexError::Locked { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(IndexError::io("lock", &path)(error)),
    }
}

/// Makes what was created, renamed and removed in a directory durable.
pub(super) fn sync(directory: &Path) -> Result<(), IndexError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(IndexError::io("flush", directory))
}

/// Replaces the manifest so that any crash leaves the old one or the new.
pub(super) fn replace_manifest(directory: &Path, bytes: &[u8]) -> Result<(), IndexError> {
    let path = manifest_path(directory);
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(IndexError::io("create", &temporary))?;
    file.write_all(bytes).map_err(IndexError::io("write", &temporary))?;
    file.sync_all().map_err(IndexError::io("flush", &temporary))?;
    fs::rename(&temporary, &path).map_err(IndexError::io("rename", &temporary))?;
    sync(directory)
}

/// The tables that lie in a directory.
pub(super) fn tables(directory: &Path) -> Result<BTreeSet<u64>, IndexError> {
    let names = fs::read_dir(directory).map_err(IndexError::io("list", directory))?;
    names
        .map(|entry| Ok(entry.map_err(IndexError::io("list", directory))?.file_name()))
        .filter_map(|name| name.map(|name| table_of(name.to_str()?)).transpose())
        .collect()
}

pub(super) fn remove(path: &Path) -> Result<(), IndexError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IndexError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes what crashes left: tables that the manifest does not name, and a manifest that was not complete.
pub(super) fn remove_leftovers(directory: &Path, live: &BTreeSet<u64>) -> Result<(), IndexError> {
    remove(&manifest_path(directory).with_extension("tmp"))?;
    tables(directory)?.difference(live).try_for_each(|table| remove(&table_path(directory, *table)))
}

/// Removes an index, the manifest first: what a crash leaves of it does not open.
pub(super) fn empty(directory: &Path) -> Result<(), IndexError> {
    remove(&manifest_path(directory))?;
    sync(directory)?;
    remove_leftovers(directory, &BTreeSet::new())?;
    sync(directory)
}
