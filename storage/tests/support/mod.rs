//! Stores on files of a temporary directory, and objects to put into them.

use std::path::PathBuf;

use bytes::Bytes;
use stele_device::{BlockDevice, Disk};
use stele_storage::{Layout, Options, StorageError, Store};

pub(crate) const MIB: usize = 1 << 20;

/// Drives in a directory.
pub(crate) struct Rack {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) paths: Vec<PathBuf>,
}

impl Rack {
    pub(crate) fn new(drives: usize, mebibytes: u64, layout: &Layout) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..drives).map(|drive| directory.path().join(format!("drive-{drive}"))).collect();
        let open = |path: &PathBuf| Disk::create(path, mebibytes * 256, &stele_device::Options::default()).unwrap();
        let disks: Vec<Disk> = paths.iter().map(open).collect();
        let devices: Vec<&dyn BlockDevice> = disks.iter().map(|disk| disk as _).collect();
        Store::format(&devices, layout).unwrap();
        Self { directory, paths }
    }

    pub(crate) fn open(&self) -> Store {
        self.try_open(&self.paths).unwrap()
    }

    pub(crate) fn try_open(&self, paths: &[PathBuf]) -> Result<Store, StorageError> {
        self.open_with(paths, &Options::default())
    }

    pub(crate) fn open_with(&self, paths: &[PathBuf], options: &Options) -> Result<Store, StorageError> {
        Store::open(paths, &self.directory.path().join("index"), options)
    }

    pub(crate) fn new_drive(&self, name: &str, mebibytes: u64) -> PathBuf {
        let path = self.directory.path().join(name);
        drop(Disk::create(&path, mebibytes * 256, &stele_device::Options::default()).unwrap());
        path
    }
}

/// Slots of 4 MiB.
pub(crate) fn layout(data: usize, parity: usize) -> Layout {
    Layout { data, parity, slot_bytes: 4 * MIB as u64, ..Layout::default() }
}

/// Bytes that follow from a number, and differ from those of any other.
pub(crate) fn content(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend(state.rotate_left(23).to_le_bytes());
    }
    content.truncate(bytes);
    content.into()
}
