//! The drives of the store: opening what is there, and making a store on drives that are files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use stele_accel_hash::HashAlgorithm;
use stele_storage::{Layout, LostStore, Options, Store};

use super::{PayloadError, keys};
use crate::config::{DriveEntry, PayloadSection};
use crate::store::durable;

/// Folder of the index, below that of the payload.
pub(super) const INDEX: &str = "index";

/// Beside it while a store is being made: what was begun is made anew.
const MARK: &str = "making";

/// Opens the store, of whose drives some may be missing, and makes one where there has never been any and all drives are
/// to be files.
///
/// # Errors
/// `Drive`, `Storage`.
pub(super) fn open(section: &PayloadSection, directory: &Path) -> Result<Store, PayloadError> {
    let (mut present, mut missing) = sort(section)?;
    let files = section.drives.iter().all(|drive| drive.bytes.is_some());
    // A node that has ever kept bodies has an index and class keys: drives that are away then are not new ones.
    let used = [INDEX, keys::FILE].iter().any(|name| directory.join(name).exists());
    let begun = begun(directory)?;
    let is_new = begun.as_ref().map_or(present.is_empty(), |begun| present.iter().all(|path| begun.contains(path)));
    if files && !used && is_new {
        make_files(section, directory)?;
        present = section.drives.iter().map(|drive| drive.path.clone()).collect();
        missing.clear();
    }
    for path in missing {
        let path = path.display();
        tracing::error!(%path, "a drive of the payload store is missing: replace it with stele storage drive replace");
    }
    Ok(Store::open(&present, &directory.join(INDEX), &Options::default())?)
}

/// The drives of the section that are there to be opened, and those that are missing.
///
/// # Errors
/// `Drive` if one cannot be looked at: it is not taken for missing, or it would be written out of the store.
pub(super) fn sort(section: &PayloadSection) -> Result<(Vec<PathBuf>, Vec<PathBuf>), PayloadError> {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for drive in &section.drives {
        let exists = Store::may_open(&drive.path).map_err(|error| PayloadError::drive(&drive.path, error))?;
        if exists { &mut present } else { &mut missing }.push(drive.path.clone());
    }
    Ok((present, missing))
}

/// The files of a store that was being made when the node ended.
fn begun(directory: &Path) -> Result<Option<Vec<PathBuf>>, PayloadError> {
    let path = directory.join(MARK);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.lines().map(PathBuf::from).collect())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PayloadError::drive(&path, error)),
    }
}

/// Makes the drives of a store that are files, preallocated, and the store on them.
fn make_files(section: &PayloadSection, directory: &Path) -> Result<(), PayloadError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| PayloadError::drive(&path, error)
    };
    // Only what is named here was made by this, and may be made anew.
    let names: Vec<String> = section.drives.iter().map(|drive| format!("{}\n", drive.path.display())).collect();
    durable::replace_file(directory, MARK, names.concat().as_bytes()).map_err(failed(directory))?;
    for drive in &section.drives {
        make_file(drive)?;
    }
    format(section, None)?;
    durable::remove_if_present(&directory.join(MARK)).map_err(failed(directory))?;
    durable::sync_directory(directory).map_err(failed(directory))
}

/// Makes the drives that are files and are missing.
///
/// # Errors
/// `Drive`.
pub(super) fn make_missing(section: &PayloadSection) -> Result<(), PayloadError> {
    section.drives.iter().filter(|drive| drive.bytes.is_some() && !drive.path.exists()).try_for_each(make_file)
}

/// Makes a drive that is a file, whatever it holds.
fn make_file(drive: &DriveEntry) -> Result<(), PayloadError> {
    let failed = |error: io::Error| PayloadError::drive(&drive.path, error);
    let parent = drive.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    durable::create_directory(parent).map_err(failed)?;
    preallocate(&drive.path, drive.bytes.unwrap_or_default()).map_err(failed)?;
    durable::sync_directory(parent).map_err(failed)
}

/// Makes a store on the drives of the section, whatever is on them; in the place of one that is lost, if it is to be.
///
/// # Errors
/// `Drive`, `Storage`.
pub(super) fn format(section: &PayloadSection, successor_of: Option<LostStore>) -> Result<(), PayloadError> {
    let paths: Vec<PathBuf> = section.drives.iter().map(|drive| drive.path.clone()).collect();
    let layout = Layout {
        data: section.data_columns,
        parity: section.parity_columns,
        hash: HashAlgorithm::Sha256,
        slot_bytes: section.slot_bytes,
        successor_of,
    };
    Store::format_paths(&paths, &layout)?;
    tracing::info!(drives = paths.len(), data = layout.data, parity = layout.parity, "a payload store was made");
    Ok(())
}

/// All blocks of a file are there before it is used: a full file system must not show in the middle of a write.
fn preallocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file: File = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const EXAMPLE: &str = include_str!("../../../docs/steled.example.toml");

    /// `steled storage fsck` counted a drive of SPDK's as missing, since no file has its name.
    #[test]
    fn a_drive_that_the_kernel_knows_nothing_of_is_not_missing() {
        let directory = tempfile::tempdir().unwrap();
        let (file, absent) = (directory.path().join("drive"), directory.path().join("absent"));
        std::fs::write(&file, b"").unwrap();
        let spdk = PathBuf::from("spdk:trtype:PCIe traddr:0000:01:00.0 ns:1");
        let mut section = Config::parse(EXAMPLE, directory.path()).unwrap().payload.unwrap();
        section.drives = [&spdk, &absent, &file].map(|path| DriveEntry { path: path.clone(), bytes: None }).to_vec();
        assert_eq!(sort(&section).unwrap(), (vec![spdk, file.clone()], vec![absent]));
        // What cannot be looked at, here since a file is no folder, is neither.
        section.drives = vec![DriveEntry { path: file.join("drive"), bytes: None }];
        assert_eq!(sort(&section).unwrap_err().code(), "payload_drive");
    }
}
