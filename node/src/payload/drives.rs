//! The drives of the store: opening what is there, and making a store on drives that are files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use stele_accel_hash::HashAlgorithm;
use stele_device::{BlockDevice, Disk};
use stele_storage::{Layout, Options, Store};

use super::PayloadError;
use crate::config::PayloadSection;
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
    let mark = directory.join(MARK);
    let is_new = !directory.join(INDEX).exists() && section.drives.iter().all(|drive| !drive.path.exists());
    let files = section.drives.iter().all(|drive| drive.bytes.is_some());
    if files && (is_new || mark.exists()) {
        make_files(section, directory)?;
    }
    let mut present = Vec::new();
    for drive in &section.drives {
        if drive.path.exists() {
            present.push(drive.path.clone());
        } else {
            let path = drive.path.display();
            tracing::error!(%path, "a drive of the payload store is missing: replace it with stele storage replace");
        }
    }
    Ok(Store::open(&present, &directory.join(INDEX), &Options::default())?)
}

/// Makes the drives of a store that are files, preallocated, and the store on them.
fn make_files(section: &PayloadSection, directory: &Path) -> Result<(), PayloadError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| PayloadError::drive(&path, error)
    };
    durable::replace_file(directory, MARK, b"").map_err(failed(directory))?;
    for drive in &section.drives {
        let parent = drive.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        durable::create_directory(parent).map_err(failed(parent))?;
        preallocate(&drive.path, drive.bytes.unwrap_or_default()).map_err(failed(&drive.path))?;
        durable::sync_directory(parent).map_err(failed(parent))?;
    }
    format(section)?;
    durable::remove_if_present(&directory.join(MARK)).map_err(failed(directory))?;
    durable::sync_directory(directory).map_err(failed(directory))
}

/// Makes a store on the drives of the section, whatever is on them.
///
/// # Errors
/// `Drive`, `Storage`.
pub(super) fn format(section: &PayloadSection) -> Result<(), PayloadError> {
    let options = Options::default().device;
    let open = |path: &PathBuf| Disk::open(path, &options).map_err(|error| PayloadError::drive(path, error));
    let disks = section.drives.iter().map(|drive| open(&drive.path)).collect::<Result<Vec<_>, _>>()?;
    let borrowed: Vec<&dyn BlockDevice> = disks.iter().map(|disk| disk as _).collect();
    let layout = Layout {
        data: section.data_columns,
        parity: section.parity_columns,
        hash: HashAlgorithm::Sha256,
        slot_bytes: section.slot_bytes,
    };
    Store::format(&borrowed, &layout)?;
    tracing::info!(drives = disks.len(), data = layout.data, parity = layout.parity, "a payload store was made");
    Ok(())
}

/// All blocks of a file are there before it is used: a full file system must not show in the middle of a write.
fn preallocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file: File = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()
}
